"""Writing a run's message token by token: one run, one message, one writer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

from crdt_sessions.client.peer import Peer
from crdt_sessions.defects import log_defect
from crdt_sessions.errors import NotAnswered, RunCancelled, RunFailed
from crdt_sessions.model import (
    ClientCall,
    Message,
    PartStream,
    Run,
    RunError,
    RunResult,
    SessionView,
    Spent,
    ToolStream,
    UsageReport,
    output_of,
)
from crdt_sessions.model.parts import StreamState
from crdt_sessions.model.run_values import ResultStatus
from crdt_sessions.model.text import SurrogateJoiner, join_surrogates
from crdt_sessions.model.values import Activity

_log = logging.getLogger("crdt_sessions.agent")

BATCH_S = 0.03
"""Tokens that arrive within this time of the last flush travel together; the first one travels at once."""

_Key = tuple[str, int | str]
"""A buffer: ``text`` or ``reasoning`` of a choice, or ``tool`` with its call id."""


class MessageStream:
    """The message a run writes.

    ``write``, ``reason`` and ``tool_input`` only add to a buffer; every few tens of milliseconds, and at the
    end, one transaction appends what came together.

    Args:
        peer: the connection of the run's holder.
        run: the run, as it was claimed.
        epoch: of the lease.
        resume: False closes what a former writer left open and starts a new part.
    """

    def __init__(self, peer: Peer, run: Run, epoch: int, *, resume: bool = True) -> None:
        self.run_id = run.id
        self.message_id = run.output or output_of(run.id)
        self.resumed = ""
        """The text that was there when this writer began: a former writer's, or its own before a break."""
        self._peer = peer
        self._run = run.replace(output=self.message_id)
        self._epoch = epoch
        self._resume = resume
        self._pending: list[tuple[_Key, str]] = []
        self._joiners: dict[_Key, SurrogateJoiner] = {}
        self._parts: dict[int, tuple[str, PartStream]] = {}  # choice -> kind and the part that is open
        self._tools: dict[str, ToolStream] = {}
        self._timer: asyncio.Task[None] | None = None
        self._failure: tuple[str, RunError] | None = None
        self._spent = Spent()
        self._reason: str | None = None
        self._ended = False
        self.client_tools: dict[str, Callable[[], ClientCall]] = {}
        """Tools that a device of a client executes when a model calls them, to what it is asked then."""
        self.result: RunResult | None = None
        """The report about the run, once its writer is done."""
        self._activity: Activity = "idle"

    @property
    def message(self) -> Message | None:
        """The message as it is now."""
        return self._peer.view.messages.value(self.message_id)

    @property
    def cancelled(self) -> bool:
        """Whether somebody has pressed stop."""
        return self._peer.view.runs.cancelled(self.run_id)

    @property
    def outcome(self) -> tuple[ResultStatus, str | None, RunError | None]:
        """How the run ends if nothing else happens: completed, or as :meth:`fail` said."""
        if self._failure is not None:
            return "failed", *self._failure
        return "completed", self._reason, None

    # -- writing ---------------------------------------------------------------------------------------------------

    async def write(self, text: str, *, choice: int = 0) -> None:
        """Append *text* to the answer; *choice* numbers alternatives that a model writes side by side.

        Raises:
            RunCancelled: somebody pressed stop.
        """
        await self._add(("text", choice), text)

    async def reason(self, text: str, *, choice: int = 0) -> None:
        """Append *text* to the model's reasoning. *choice* and errors are those of :meth:`write`."""
        await self._add(("reasoning", choice), text)

    async def tool_input(self, call_id: str, name: str, text: str) -> None:
        """Append *text* to the input of a call of the tool *name*, as the model writes it; the first opens the part.

        Raises as :meth:`write`.
        """
        self._tool(call_id, name)
        await self._add(("tool", call_id), text)

    def end_tool_input(self, call_id: str, input: Any = None, *, error: str | None = None) -> None:
        """Mark a tool call's input as complete; *error* says why it could not be parsed."""
        tool = self._tools[call_id]
        asked = self.client_tools.get(tool.name) if error is None else None

        def change(view: SessionView) -> None:
            self._append(view)
            if asked is not None:  # at once with its input: who reads it is not to take it for the agent's own
                tool.call_in_client(asked())
            tool.close(input, error=error)

        self._peer.edit(change)

    def tool_output(self, call_id: str, output: Any) -> None:
        """Record the *output* of a tool call."""
        self._peer.edit(lambda _: self._tools[call_id].output(output))

    def take_up(self, message_id: str) -> None:
        """Record that a steering message was taken up here; the next text begins another part."""

        def change(view: SessionView) -> None:
            self._append(view)
            for choice in list(self._parts):
                self._close_part(choice)
            view.take_up(self.run_id, message_id)

        self._peer.edit(change)

    @asynccontextmanager
    async def part(self, kind: Literal["text", "reasoning"], *, choice: int = 0) -> AsyncIterator[TextStream]:
        """Write one part of a *kind*: it is closed at the end, and the next text begins another one.

        Yields its writer. *choice* as in :meth:`write`.
        """
        stream = TextStream(self, kind, choice)
        yield stream
        self._peer.edit(lambda view: self._end_part(view, choice))

    def finish(self, reason: str) -> None:
        """Say why the run ends well, such as ``stop`` or ``length``; it ends when the answer does."""
        self._reason = reason

    def fail(self, code: str, message: str) -> None:
        """Say that the run ends in an error; it ends when the answer does. What was written stays.

        *code* is for programs, *message* for people: everybody in the session may read it.
        """
        self._failure = failure(code, message)

    def restart(self) -> None:
        """Begin the message anew: what stands there is shown to nobody any more, and stays in the document.

        Tool calls that people were asked about stay.
        """
        if self._ended:
            return

        def change(view: SessionView) -> None:
            self._append(view)
            for choice in list(self._parts):
                self._close_part(choice, close=False)
            view.messages[self.message_id].supersede()

        self._peer.edit(change)
        self._tools.clear()
        self.resumed = ""

    def spend(self, spent: Spent) -> None:
        """Report what calls of a model have cost: *spent* is added to what this attempt has reported."""
        if self._ended:
            return  # the lease has ended, and its report with it
        self._spent = self._spent.plus(spent)
        report = UsageReport(epoch=self._epoch, **self._spent.figures)
        self._peer.edit(lambda view: view.runs.report_usage(self.run_id, report))

    def flush(self) -> None:
        """Append the buffered text now."""
        if self._pending:
            self._peer.edit(self._append)

    # -- for whoever runs it -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Add the message, or go on with the one a former writer left."""
        self._peer.edit(self._begin)
        self._show("thinking")

    def end(
        self,
        status: ResultStatus,
        reason: str | None = None,
        error: RunError | None = None,
        *,
        agent: str | None = None,
    ) -> None:
        """Close the parts and report how the run goes on or ends, in one transaction. Once.

        Args:
            status: how.
            reason: why, for people and programs.
            error: what went wrong; everybody in the session may read it.
            agent: who goes on, of a handoff.
        """
        if self._ended:
            return
        self._ended = True
        self.result = result = RunResult(
            status=status, epoch=self._epoch, reason=reason, error=error, agent=agent, at=self._peer.now()
        )
        state: StreamState = "done" if status in ("completed", "suspended", "handoff") else "interrupted"

        def change(view: SessionView) -> None:
            self._append(view)
            for choice in list(self._parts):
                self._close_part(choice, close=state == "done")
            view.messages[self.message_id].close_parts(state)
            view.runs.report(self.run_id, result)

        self._peer.edit(change)
        self.stop()

    def stop(self) -> None:
        """Write nothing more."""
        self._ended = True
        self._pending.clear()
        if self._timer is not None:
            self._timer.cancel()

    def tool(self, call_id: str, name: str) -> ToolStream:
        """Return the part of a call of the tool *name*, opened if need be, after everything written before."""
        self._tool(call_id, name)
        return self._tools[call_id]

    # -- inside ----------------------------------------------------------------------------------------------------

    async def _add(self, key: _Key, text: str) -> None:
        if self.cancelled:
            raise RunCancelled(run=self.run_id, why="somebody pressed stop")
        if self._ended:
            return  # the run has ended, and its writer does not know yet
        self._pending.append((key, text))
        self._show("thinking" if key[0] == "reasoning" else "streaming")
        if self._timer is None or self._timer.done():
            self.flush()
            self._timer = asyncio.create_task(self._flush_later())
        await asyncio.sleep(0)  # a model that never waits must not keep the connection from sending

    def _show(self, activity: Activity) -> None:
        """Let people see what the agent does."""
        if activity != self._activity:
            self._activity = activity
            self._peer.set_presence(activity, runId=self.run_id)

    async def _flush_later(self) -> None:
        await self._peer.clock.sleep(BATCH_S)
        while self._pending:
            self.flush()
            await self._peer.clock.sleep(BATCH_S)

    def _begin(self, view: SessionView) -> None:
        message = view.begin_output(self._run, self._peer.author, self._peer.now())
        value = message.to_value()
        self.resumed = value.text if value is not None else ""
        open_part = message.resume_text() if self._resume else None
        if open_part is not None and open_part.type == "text":
            self._parts[0] = ("text", open_part)
        else:  # what a model was thinking cannot be continued by another call of it
            message.close_parts()

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

    def _tool(self, call_id: str, name: str) -> None:
        if call_id not in self._tools:
            self._peer.edit(lambda view: self._open_tool(view, call_id, name))

    def _open_tool(self, view: SessionView, call_id: str, name: str) -> None:
        self._append(view)
        message = view.messages[self.message_id]
        known = message.tool(call_id)
        if known is None:
            for choice in list(self._parts):
                self._close_part(choice)
        self._tools[call_id] = known or message.open_tool(call_id, name)

    def _end_part(self, view: SessionView, choice: int) -> None:
        self._append(view)
        self._close_part(choice)

    def _close_part(self, choice: int, *, close: bool = True) -> None:
        if choice in self._parts:
            kind, part = self._parts.pop(choice)
            if (kind, choice) in self._joiners:
                part.append(self._joiners.pop((kind, choice)).end())
            if close:
                part.close()


class TextStream:
    """One part of a message, written token by token. Made by :meth:`MessageStream.part`."""

    def __init__(self, stream: MessageStream, kind: Literal["text", "reasoning"], choice: int) -> None:
        self._stream = stream
        self._kind = kind
        self._choice = choice

    @property
    def resumed(self) -> str:
        """The answer as it stood when this process took the run up; empty if it begins it."""
        return self._stream.resumed

    async def write(self, text: str) -> None:
        """Append *text*; what comes within some milliseconds travels together.

        Raises:
            RunCancelled: somebody pressed stop.
        """
        write = self._stream.write if self._kind == "text" else self._stream.reason
        await write(text, choice=self._choice)


def failure(code: str, message: str) -> tuple[str, RunError]:
    """Return the reason and the error of a run that failed. Everybody may read them."""
    return "error", RunError(code=join_surrogates(code), message=join_surrogates(message))


def failure_by(error: BaseException, *, run: str) -> tuple[str, RunError]:
    """Return the reason and the error of a run whose answer raised *error*, and log the details."""
    if isinstance(error, RunFailed):
        return failure(error.code, str(error))
    if isinstance(error, NotAnswered):  # a child run: everybody can read already how that ended
        return failure(error.code or "child-not-completed", str(error))
    found = log_defect(_log, f"run failed: {error}", error, run=run)
    return failure("agent-failed", f"the agent failed; its log says more (reference {found})")


def _joined(pending: list[tuple[_Key, str]]) -> list[tuple[_Key, str]]:
    """Join neighbours that go into the same buffer: one append each."""
    joined: list[tuple[_Key, list[str]]] = []
    for key, text in pending:
        if joined and joined[-1][0] == key:
            joined[-1][1].append(text)
        else:
            joined.append((key, [text]))
    return [(key, "".join(texts)) for key, texts in joined]
