"""An agent: answers what people post, in as many sessions as it is told to look after.

It needs no bookkeeping of its own. What is to be answered, what it had begun and what it had written when
it died all stand in the document.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from crdt_sessions.client.session import SessionPeer, connect
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.errors import ConnectionClosed
from crdt_sessions.model import Message, order

_log = logging.getLogger("crdt_sessions.agent")

OnRun = Callable[["AgentRun"], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class AgentRun:
    """One question to answer."""

    session: SessionPeer
    message: Message
    """What was asked."""
    out: MessageStream
    """Where the answer goes. ``out.resumed`` is what a former process had written of it."""

    def history(self) -> list[Message]:
        """Return the conversation up to and including the question, in order; the answer is not part of it."""
        return [
            message
            for message in self.session.messages.all()
            if message.id != self.out.message_id
            and message.seq is not None
            and message.seq <= (self.message.seq or 0)
        ]

    def chat(self) -> list[dict[str, Any]]:
        """Return :meth:`history` as the ``messages`` of a chat completion request."""
        return [
            {"role": "assistant" if message.role == "assistant" else "user", "content": message.text}
            for message in self.history()
            if message.text
        ]


class Agent:
    """A worker that answers every user message of its sessions, each once.

    Args:
        url: the service.
        name: how people see it, and who its runs are for.
        sessions: the sessions to look after.
        token: if the service asks for one.
        options: passed to :func:`connect`.

    ::

        agent = Agent("http://127.0.0.1:8000", name="writer", sessions=["trip-to-oslo"])

        @agent.on_run
        async def answer(run):
            async for token in llm.stream(run.chat()):
                await run.out.write(token)

        agent.run()
    """

    def __init__(
        self, url: str, *, name: str, sessions: Iterable[str], token: str | None = None, **options: Any
    ) -> None:
        self.name = name
        self._url = url
        self._sessions = list(sessions)
        self._token = token
        self._options = options
        self._answer: OnRun | None = None

    def on_run(self, answer: OnRun) -> OnRun:
        """Register the coroutine that answers; usable as a decorator."""
        self._answer = answer
        return answer

    def run(self) -> None:
        """Work until interrupted.

        Raises:
            ConnectionClosed: the service refused the agent for good.
        """
        try:
            asyncio.run(self.work())
        except KeyboardInterrupt:
            _log.info("stopped")

    async def work(self) -> None:
        """Work until cancelled; one failed answer ends its run, not the agent.

        Raises:
            ConnectionClosed: the service refused the agent for good.
            ValueError: no answer was registered.
        """
        if self._answer is None:
            raise ValueError("register an answer with @agent.on_run first")
        async with asyncio.TaskGroup() as group:
            for name in self._sessions:
                group.create_task(self._look_after(name, self._answer))

    async def _look_after(self, name: str, answer: OnRun) -> None:
        async with connect(
            self._url, name, token=self._token, name=self.name, id=f"agent-{self.name}", kind="agent", **self._options
        ) as peer:
            questions: dict[str, Message] = {}
            async for changed in peer.changed_messages():
                questions.update((message.id, message) for message in changed if self._is_question(message))
                while peer.connected and questions:  # offline, what was decided meanwhile is not known
                    message = questions.pop(min(questions.values(), key=order).id)
                    run = peer.view.runs.value(self._run_id(message))
                    if run is None or not run.over:
                        await self._respond(peer, message, answer)

    def _is_question(self, message: Message) -> bool:
        return message.role == "user" and message.done and message.seq is not None

    async def _respond(self, peer: SessionPeer, message: Message, answer: OnRun) -> None:
        try:
            async with peer.stream(reply_to=message.id, run_id=self._run_id(message), agent=self.name) as out:
                await answer(AgentRun(peer, message, out))
        except ConnectionClosed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the answer raised is the run's outcome by now
            _log.error("run failed: %s", error, extra={"session": peer.session_id, "run": self._run_id(message)})

    def _run_id(self, message: Message) -> str:
        return f"{self.name}-{message.id}"
