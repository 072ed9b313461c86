"""Who has said what in a session, in which place: who takes part in it, and what somebody has not read."""

from __future__ import annotations

from bisect import bisect, bisect_left, insort
from collections import Counter
from typing import NamedTuple

from crdt_sessions.ids import Seq
from crdt_sessions.sync import SessionEngine


class _Message(NamedTuple):
    seq: int | None
    author: str | None
    human: bool


class Said:
    """The messages of one session's conversation.

    Whoever asks has those looked at that have changed since somebody last asked, so a long session is looked through
    once.

    Args:
        engine: the session's.
    """

    def __init__(self, engine: SessionEngine) -> None:
        self._engine = engine
        self._looked = Seq(-1)
        self._messages: dict[str, _Message] = {}
        self._placed: list[tuple[int, str]] = []  # place and id, in order
        self._people: Counter[str] = Counter()  # how many messages are whose

    def people(self) -> set[str]:
        """Return the principals who take part: people who have said something, or read."""
        self._look()
        return {*self._people, *self._engine.view.receipts.keys()}

    def last_seq(self) -> int:
        """Return the last place in the order that was given; 0 if none was."""
        self._look()
        return self._placed[-1][0] if self._placed else 0

    def unread(self, principal: str) -> int:
        """Return how many messages of others a principal has not read: those after its receipt."""
        self._look()
        read = self._engine.view.read_up_to(principal)
        after = self._placed[bisect(self._placed, read, key=lambda placed: placed[0]) :]
        return sum(self._messages[id].author not in (None, principal) for _, id in after)

    def _look(self) -> None:
        for kind, id in self._engine.changes.since(self._looked):
            if kind == "message":
                self._forget(id)
                self._look_at(id)
        self._looked = self._engine.log.head

    def _forget(self, message_id: str) -> None:
        known = self._messages.pop(message_id, None)
        if known is not None and known.seq is not None:
            del self._placed[bisect_left(self._placed, (known.seq, message_id))]
        if known is not None and known.human and known.author is not None:
            self._people[known.author] -= 1
            if not self._people[known.author]:
                del self._people[known.author]

    def _look_at(self, message_id: str) -> None:
        messages = self._engine.view.messages
        found = messages.find(message_id) if not messages.is_beside(message_id) else None
        if found is None:
            return
        head, seq = found.head, found.seq
        message = _Message(seq, None, False)
        if head is not None:
            message = _Message(seq, head.author.id, head.author.kind == "human")
        self._messages[message_id] = message
        if seq is not None:
            insort(self._placed, (seq, message_id))
        if message.human and message.author is not None:
            self._people[message.author] += 1
