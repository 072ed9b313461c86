"""Lets the holder of a lease work without a connection of its own: the server writes on its behalf.

Every call proves the lease with its token, and counts as a sign of life. Every call may be repeated.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from crdt_sessions.errors import NotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    ApprovalRequest,
    Author,
    ClientCall,
    Message,
    MessageView,
    Run,
    RunRequest,
    RunResult,
    SessionView,
    Spent,
    UsageReport,
    child_of,
)
from crdt_sessions.model.checks import check_json, json_size
from crdt_sessions.model.text import join_surrogates
from crdt_sessions.model.tool_stream import ToolStream
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.runtime.session import Session
from crdt_sessions.sync import RunRecord

Result = TypeVar("Result")


class LeasedRun:
    """A run whose lease the caller holds. Made by :func:`leased`."""

    def __init__(self, session: Session, record: RunRecord, registry: SessionRegistry) -> None:
        self.session = session
        self.record = record
        self._registry = registry

    @property
    def run(self) -> Run:
        """The run as the document shows it."""
        return self.session.view.runs.find(self.record.id)

    async def append(self, offset: int, text: str, type: str = "text") -> int:
        """Append *text* to the answer, or to its reasoning; return the new length in characters.

        Raises:
            WrongOffset: the text does not end at *offset*, and *text* does not stand there already.
            StorageError: it could not be stored.
        """
        whole = join_surrogates(text)
        return await self._write(lambda message: message.append_at(offset, whole, type))

    async def restart(self) -> None:
        """Begin the answer anew: its earlier parts are no longer shown.

        Tool calls that people were asked about stay.

        Raises:
            StorageError: it could not be stored.
        """
        await self._write(lambda message: message.supersede())

    async def tool(
        self,
        call_id: str,
        name: str,
        *,
        input: Any = None,
        output: Any = None,
        error: str | None = None,
        denied: bool = False,
        approval: ApprovalRequest | None = None,
        client_call: ClientCall | None = None,
    ) -> None:
        """Write what is known of a tool call so far: its input, a question to people, its output or its error.

        *client_call* asks devices of clients to do it, where the call is new.

        Raises:
            BadValue: *input* or *output* is not JSON that every peer can hold.
            StorageError: it could not be stored.
        """
        check_json(input, "input")  # before anything is written: a document cannot roll back
        check_json(output, "output")

        def change(message: MessageView) -> None:
            tool = message.tool(call_id)
            if tool is None:
                message.close_parts()
                tool = message.open_tool(call_id, name)
                tool.append(json.dumps(input, ensure_ascii=False) if input is not None else "")
                if client_call is not None:
                    tool.call_in_client(client_call)
                tool.close(input)
            _advance(tool, output, error, denied, approval)

        await self._write(change)

    async def usage(self, spent: Spent) -> Run:
        """Report the total that this attempt has *spent* so far; return the run with the total of all attempts.

        Raises:
            StorageError: it could not be stored.
        """
        await self.session.edit(lambda view: self._spend(view, spent))
        return self.run

    def _spend(self, view: SessionView, spent: Spent) -> None:
        view.runs.report_usage(self.record.id, UsageReport(epoch=self.record.epoch, **spent.figures))

    async def report(self, result: RunResult, spent: Spent | None = None) -> Run:
        """Report how the run goes on or ends, and what this attempt has *spent*; return it as the steward settled it.

        Raises:
            StorageError: it could not be stored.
        """

        def change(view: SessionView) -> None:
            message = view.messages.find(self.record.output)
            if message is not None and result.status in ("completed", "suspended", "handoff"):
                message.close_parts()
            if spent is not None:
                self._spend(view, spent)
            view.runs.report(self.record.id, result)

        await self.session.edit(change)
        return self.run

    async def delegate(self, request: RunRequest) -> tuple[Run, bool]:
        """Ask for a child run; return it, and whether it was not asked for before.

        Raises:
            TooLarge: the document has no room for the request.
            StorageError: it could not be stored.
        """
        run_id, runs = child_of(self.record.id, request.key or ""), self.session.view.runs
        known = run_id in runs
        self.session.check_room(json_size(request.to_json()))
        lease = (self.record.id, self.record.epoch)
        await self.session.edit(lambda view: view.runs.delegate(request), lease=lease)
        return runs.find(run_id), not known

    def steering(self) -> list[Message]:
        """Return the messages that steer the run and were not taken up yet."""
        return self.session.view.steering(self.record.id)

    async def consume(self, message_id: str) -> None:
        """Record that a steering message was taken up.

        Raises:
            NotFound: there is no such message.
            StorageError: it could not be stored.
        """
        await self.session.edit(lambda view: view.take_up(self.record.id, message_id))

    async def step(self, key: str) -> Any:
        """Return the recorded result of the step *key*.

        Raises:
            NotFound: none is recorded.
        """
        text = await self._registry.store.step(self.session.id, self.record.id, key)
        if text is None:
            raise NotFound(what="step", id=key)
        return json.loads(text)

    async def record_step(self, key: str, value: Any) -> Any:
        """Record the result of the step *key* unless one is recorded already; return the recorded result.

        Raises:
            StorageError: it could not be stored.
        """
        text = json.dumps(value)
        return json.loads(await self._registry.store.record_step(self.session.id, self.record.id, key, text))

    async def _write(self, change: Callable[[MessageView], Result]) -> Result:
        lease = self.record.lease
        assert lease is not None
        author = Author(id=lease.owner, name=lease.agent, kind="agent")
        now = self._registry.clock.now()
        return await self.session.edit(lambda view: change(view.begin_output(self.run, author, now)))


def _advance(
    tool: ToolStream, output: Any, error: str | None, denied: bool, approval: ApprovalRequest | None
) -> None:
    if approval is not None:
        tool.ask(approval)
    if output is not None:
        tool.output(output)
    elif error is not None:
        tool.fail(join_surrogates(error))
    elif denied:
        tool.deny()


@asynccontextmanager
async def leased(
    registry: SessionRegistry, session_id: SessionId, run_id: str, token: str
) -> AsyncIterator[LeasedRun]:
    """Act as the holder of a run.

    Raises:
        LeaseLost: *token* proves no lease of this run any more.
        SessionNotFound, StorageError: the session cannot be used.
    """
    async with registry.open(session_id) as session:
        yield LeasedRun(session, session.held(run_id, token), registry)
