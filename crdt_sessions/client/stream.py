"""Writing a message token by token: one run, one message, one writer."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from crdt_sessions.model import (
    Message,
    MessageHead,
    PartStream,
    RunError,
    RunRequest,
    RunResult,
    SessionView,
    ToolStream,
)
from crdt_sessions.model.text import SurrogateJoiner, join_surrogates

if TYPE_CHECKING:
    from crdt_sessions.client.session import SessionPeer

BATCH_S = 0.03
"""Tokens that arrive within this time of the last flush travel together; the first one travels at once."""

_Key = tuple[str, int | str]
"""A buffer: ``text`` or ``reasoning`` of a choice, or ``tool`` with its call id."""


class MessageStream:
    """The message a run writes. Made by :meth:`SessionPeer.stream`.

    ``write``, ``reason`` and ``tool_input`` only add to a buffer; every few tens of milliseconds, and at the
    end, one transaction appends what came together.
    """

    def __init__(
        self, peer: SessionPeer, run_id: str, request: RunRequest, *, reply_to: str | None, resume: bool
    ) -> None:
        self.run_id = run_id
        self.message_id = f"{run_id}-out"
        self.resumed = ""
        """The text a former writer of this run had written, if this one continues it."""
        self._peer = peer
        self._request = request
        self._reply_to = reply_to
        self._resume = resume
        self._pending: list[tuple[_Key, str]] = []
        self._joiners: dict[_Key, SurrogateJoiner] = {}
        self._parts: dict[int, tuple[str, PartStream]] = {}  # choice -> kind and the part that is open
        self._tools: dict[str, ToolStream] = {}
        self._timer: asyncio.Task[None] | None = None
        self._failure: tuple[str, RunError] | None = None
        self._reason: str | None = None

    @property
    def message(self) -> Message | None:
        """The message as it is now."""
        return self._peer.view.messages.value(self.message_id)

    async def __aenter__(self) -> MessageStream:
        self._peer.edit(self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._failure = self._failure or _failure(type(error).__name__, str(error))
        if error is None or self._failure is not None:
            self._peer.edit(self._end)
        else:
            # Cancelled or interrupted: the process is stopping, not the run. What was written stays, and a
            # successor continues it.
            self._peer.edit(self._append)
        if self._timer is not None:
            self._timer.cancel()
        if error is None:
            await self._peer.durable()

    # -- writing ---------------------------------------------------------------------------------------------------

    async def write(self, text: str, *, choice: int = 0) -> None:
        """Append to the answer; *choice* numbers alternatives that a model writes side by side."""
        await self._add(("text", choice), text)

    async def reason(self, text: str, *, choice: int = 0) -> None:
        """Append to what the model thinks on the way to the answer."""
        await self._add(("reasoning", choice), text)

    async def tool_input(self, call_id: str, name: str, text: str) -> None:
        """Append to the input of a tool call as the model writes it; the first call opens the part."""
        if call_id not in self._tools:
            self._peer.edit(lambda view: self._open_tool(view, call_id, name))
        await self._add(("tool", call_id), text)

    def end_tool_input(self, call_id: str, input: Any = None, *, error: str | None = None) -> None:
        """Mark a tool call's input as complete; *error* says why it could not be parsed."""

        def change(view: SessionView) -> None:
            self._append(view)
            self._tools[call_id].close(input, error=error)

        self._peer.edit(change)

    def tool_output(self, call_id: str, output: Any) -> None:
        """Record what the tool returned."""
        self._peer.edit(lambda _: self._tools[call_id].output(output))

    def finish(self, reason: str) -> None:
        """Say why the run ends well, such as ``stop`` or ``length``; it ends when the context does."""
        self._reason = reason

    def fail(self, code: str, message: str) -> None:
        """Say that the run ends in an error; it ends when the context does. What was written stays."""
        self._failure = _failure(code, message)

    def flush(self) -> None:
        """Append now what was written."""
        if self._pending:
            self._peer.edit(self._append)

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _add(self, key: _Key, text: str) -> None:
        self._pending.append((key, text))
        if self._timer is None or self._timer.done():
            self.flush()
            self._timer = asyncio.create_task(self._flush_later())
        await asyncio.sleep(0)  # a model that never waits must not keep the connection from sending

    async def _flush_later(self) -> None:
        await self._peer.clock.sleep(BATCH_S)
        while self._pending:
            self.flush()
            await self._peer.clock.sleep(BATCH_S)

    def _begin(self, view: SessionView) -> None:
        view.runs.request(self.run_id, self._request)
        run = view.runs.value(self.run_id)
        if run is not None and run.over:
            raise ValueError(f"run {self.run_id!r} has ended already; a run ends once")
        head = MessageHead(
            id=self.message_id,
            role="assistant",
            author=self._peer.author,
            parent=self._reply_to,
            reply_to=self._reply_to,
            created_at=self._peer.now(),
        )
        message = view.messages.add(head, run_id=self.run_id)
        value = message.to_value()
        self.resumed = value.text if value is not None else ""
        open_part = message.resume_text() if self._resume else None
        if open_part is not None and open_part.type == "text":
            self._parts[0] = ("text", open_part)
        else:  # what a model was thinking cannot be continued by another call of it
            message.close_parts()
        self._report(view, "running")

    def _append(self, view: SessionView) -> None:
        pending, self._pending = self._pending, []
        for key, text in _joined(pending):
            self._buffer(view, key).append(self._joiners.setdefault(key, SurrogateJoiner()).feed(text))

    def _buffer(self, view: SessionView, key: _Key) -> PartStream | ToolStream:
        kind, which = key
        if isinstance(which, str):
            return self._tools[which]
        if self._parts.get(which, ("",))[0] != kind:
            self._close_part(which)
            self._parts[which] = (kind, view.messages[self.message_id].open_text(kind, choice=which))
        return self._parts[which][1]

    def _open_tool(self, view: SessionView, call_id: str, name: str) -> None:
        self._append(view)
        self._tools[call_id] = view.messages[self.message_id].open_tool(call_id, name)

    def _close_part(self, choice: int) -> None:
        if choice in self._parts:
            kind, part = self._parts.pop(choice)
            if (kind, choice) in self._joiners:
                part.append(self._joiners.pop((kind, choice)).end())
            part.close()

    def _end(self, view: SessionView) -> None:
        """Close the parts and report the end, in one transaction."""
        self._append(view)
        for choice in list(self._parts):
            self._close_part(choice)
        view.messages[self.message_id].close_parts()
        self._report(view, "completed" if self._failure is None else "failed")

    def _report(self, view: SessionView, status: Literal["running", "completed", "failed"]) -> None:
        reason, error = self._failure or (self._reason, None)
        result = RunResult(
            status=status, reason=reason if status != "running" else None, error=error, at=self._peer.now()
        )
        view.runs.report(self.run_id, result, output=self.message_id)


def _failure(code: str, message: str) -> tuple[str, RunError]:
    return "error", RunError(code=join_surrogates(code), message=join_surrogates(message))


def _joined(pending: list[tuple[_Key, str]]) -> list[tuple[_Key, str]]:
    """Join neighbours that go into the same buffer: one append each."""
    joined: list[tuple[_Key, list[str]]] = []
    for key, text in pending:
        if joined and joined[-1][0] == key:
            joined[-1][1].append(text)
        else:
            joined.append((key, [text]))
    return [(key, "".join(texts)) for key, texts in joined]
