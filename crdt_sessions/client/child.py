"""A child run, as the agent that asked for it sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any

from crdt_sessions.client.session import SessionPeer
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.errors import NotAnswered, RunCancelled, RunStopped
from crdt_sessions.model import Message, Orphans, Run, RunInput, child_request, output_of


class ChildRun:
    """A run that another run's agent has asked for. Made by :meth:`AgentRun.delegate`; await it for its text.

    It goes on by itself, whoever waits for it. If the process of its parent dies, the next attempt that asks for the
    same key gets the same child, however far that is.
    """

    def __init__(self, session: SessionPeer, parent: MessageStream, run_id: str) -> None:
        self.id = run_id
        """The child's id."""
        self._session = session
        self._parent = parent

    @property
    def run(self) -> Run:
        """The child as it is now: status, outcome, usage, and what it asks people (``pending``)."""
        return self._session.view.runs.find(self.id)

    @property
    def done(self) -> bool:
        """Whether it has ended, however."""
        return self.run.over

    @property
    def message(self) -> Message | None:
        """What it has written so far, with its tool calls; None if that is nothing."""
        return self._session.view.messages.value(self.run.output or output_of(self.id))

    @property
    def text(self) -> str:
        """The text it has written so far."""
        message = self.message
        return message.text if message is not None else ""

    def cancel(self, reason: str | None = None) -> None:
        """Press stop, for it and its own children. *reason* is for people."""
        self._session.cancel(self.id, reason)

    def __await__(self) -> Generator[Any, None, str]:
        return self.result().__await__()

    async def result(self) -> str:
        """Return its text once it is completed.

        Raises:
            NotAnswered: it ended otherwise; ``status``, ``code`` and ``why`` say how, :attr:`text` how far it came.
            RunCancelled: somebody has pressed stop for the run that waits.
        """
        await self._until_moved(lambda: self.done)
        run = self.run
        if run.status == "completed":
            return self.text
        outcome = run.outcome
        error = outcome.error if outcome is not None else None
        why = (error.message if error is not None else "") or (outcome.reason if outcome is not None else "")
        raise NotAnswered(run=self.id, status=run.status, why=why, code=error.code if error is not None else None)

    async def stream(self) -> AsyncIterator[str]:
        """Yield its text as it is written, in pieces; then return, or raise as :meth:`result`.

        A child that begins anew has its text from then on yielded, too.
        """
        told = ""
        while True:
            text = self.text
            piece = text[len(told) :] if text.startswith(told) else text
            told = text
            if piece:
                yield piece
            elif self.done:
                break
            else:
                await self._until_moved(lambda told=told: self.done or self.text != told)  # type: ignore[misc]
        await self.result()

    async def _until_moved(self, condition: Callable[[], bool]) -> None:
        await self._session.until(lambda: condition() or self._parent.cancelled)
        if self._parent.cancelled and not condition():
            raise RunCancelled(run=self._parent.run_id, why="somebody pressed stop")


class Children:
    """The children of a run, as its agent asks for them.

    Args:
        session: the session.
        out: what the parent writes.
        parent: the run.
    """

    def __init__(self, session: SessionPeer, out: MessageStream, parent: Run) -> None:
        self._session = session
        self._out = out
        self._parent = parent
        self._asked = 0

    def delegate(
        self,
        agent: str,
        task: Any,
        *,
        key: str | None,
        input: RunInput | None,
        orphans: Orphans,
        deadline: int | None,
        now: int,
    ) -> ChildRun:
        """Ask for a child, or find it again; see :meth:`AgentRun.delegate`.

        Args:
            agent: who is to do it.
            task: what.
            key: names the child within its parent; the number of the call if None.
            input: tools, context, model and settings for it.
            orphans: what becomes of it when its parent has ended.
            deadline: when it ends as failed.
            now: the time.
        """
        self._asked += 1
        key = str(self._asked) if key is None else key
        request = child_request(
            self._parent, key, agent, task, now=now, deadline=deadline, input=input, orphans=orphans
        )
        run_id = self._session.edit(lambda view: view.runs.delegate(request))
        return ChildRun(self._session, self._out, run_id)


async def gathered(children: Sequence[ChildRun], return_exceptions: bool) -> list[Any]:
    """Return the texts of *children*, in their order; see :meth:`AgentRun.gather`."""
    results = await asyncio.gather(*(child.result() for child in children), return_exceptions=return_exceptions)
    for result in results:
        if isinstance(result, RunStopped):
            raise result
    return results
