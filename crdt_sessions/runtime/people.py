"""Who takes part in a session: the people who have said something in it, or read."""

from __future__ import annotations

from collections import Counter

from crdt_sessions.ids import Seq
from crdt_sessions.sync import SessionEngine


class People:
    """The people of one session. Who asks has those messages looked at that have changed since somebody last asked.

    Args:
        engine: the session's.
    """

    def __init__(self, engine: SessionEngine) -> None:
        self._engine = engine
        self._looked = Seq(-1)
        self._authors: dict[str, str] = {}  # by message
        self._said: Counter[str] = Counter()  # how many messages are whose

    def all(self) -> set[str]:
        """Return their principals."""
        engine = self._engine
        for kind, id in engine.changes.since(self._looked):
            if kind == "message":
                self._look_at(id)
        self._looked = engine.log.head
        return {*self._said, *engine.view.receipts.keys()}

    def _look_at(self, message_id: str) -> None:
        messages = self._engine.view.messages
        found = messages.find(message_id) if not messages.is_beside(message_id) else None
        head = found.head if found is not None else None
        if (before := self._authors.pop(message_id, None)) is not None:
            self._said[before] -= 1
            if not self._said[before]:
                del self._said[before]
        if head is not None and head.author.kind == "human":
            self._authors[message_id] = head.author.id
            self._said[head.author.id] += 1
