"""The conversation, followed: messages as they are finished, or every change of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from crdt_sessions.client.peer import Peer
from crdt_sessions.errors import NotAnswered
from crdt_sessions.model import Message, Run, answer_to, order


class FollowedMessages:
    """The messages of a session that a peer is connected to."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def all(self) -> list[Message]:
        """Return all messages in the session's order."""
        return self._peer.view.messages.ordered()

    async def follow(self) -> AsyncIterator[Message]:
        """Yield every message once, in the session's order, when it is finished: those that are there, then new ones.

        A message that is still being written holds back those after it.

        Raises:
            ConnectionClosed: the server refused this peer for good.
        """
        waiting: dict[str, Message] = {}
        seen: set[str] = set()
        async for changed in self._peer.changed_messages():
            waiting.update((message.id, message) for message in changed if message.id not in seen)
            for message in sorted(waiting.values(), key=order):
                if message.seq is None or not self._finished(message):
                    break
                del waiting[message.id]
                seen.add(message.id)
                yield message

    def _finished(self, message: Message) -> bool:
        """Whether nobody writes it any more: parts may all be closed while its run goes on."""
        run = self._peer.view.runs.value(message.run_id) if message.run_id is not None else None
        return message.done and (run is None or run.ending)

    async def answer_to(self, question: Message | str) -> Message:
        """Return the answer once it is complete, however long that takes.

        A question waits for its agent, also for one that is not there: use :func:`asyncio.timeout` where you do not.

        ::

            question = await session.post("Plan my weekend")
            answer = await session.messages.answer_to(question)

        Args:
            question: the message that was posted; or the id of a run, as :meth:`SessionPeer.ask`,
                :meth:`SessionPeer.regenerate` and :meth:`SessionPeer.retry` return it.

        Raises:
            NotAnswered: the run failed, was cancelled or was given up; or the session has nobody who answers it.
            ConnectionClosed: the server refused this peer for good.
        """
        ended: Run | None = None

        def over() -> bool:
            nonlocal ended
            ended = self._ended(question)
            return ended is not None

        await self._peer.until(over)
        assert ended is not None
        answer = self._peer.view.messages.value(ended.output or "")
        if ended.status == "completed" and answer is not None:
            return answer
        raise _unanswered(ended)

    def _ended(self, question: Message | str) -> Run | None:
        """Return the run that was to answer, if it is over; an empty one if there is none."""
        view = self._peer.view
        if isinstance(question, str):
            run = view.runs.value(question)
            return run if run is not None and run.over else None
        run = view.runs.value(answer_to(question.id))
        posted = view.messages.value(question.id)
        if posted is None or posted.seq is None or not posted.done:
            return None  # it is asked for in the turn in which the message, complete, gets its place
        if run is None or run.request is None:
            run = view.runs.value(question.steers or "") or Run(id=answer_to(question.id))
        return run if run.over or run.request is None else None

    async def watch(self) -> AsyncIterator[Message]:
        """Yield every message as it is now, and again each time it changes, tokens included.

        Raises:
            ConnectionClosed: the server refused this peer for good.
        """
        async for changed in self._peer.changed_messages():
            for message in changed:
                yield message


def _unanswered(run: Run) -> NotAnswered:
    if run.status is None:
        why = "nobody was asked to answer: name an agent when you post, or any with agent='*'"
        return NotAnswered(run=run.id, status=None, why=why)
    error = run.outcome.error if run.outcome is not None else None
    why = (error.message if error is not None else "") or (run.outcome.reason if run.outcome is not None else "")
    if run.status == "completed":
        why = "its agent wrote nothing"
    return NotAnswered(run=run.id, status=run.status, why=why, code=error.code if error is not None else None)
