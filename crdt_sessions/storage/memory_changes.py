"""The order in which sessions changed, in memory."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from itertools import count, islice

from crdt_sessions.ids import SessionId, tenant_of
from crdt_sessions.storage.changes import ChangedSession, Changes, SessionChanges, mark_of, numbers_in
from crdt_sessions.storage.stored import SessionRecord


class MemoryChanges(SessionChanges):
    """The :class:`SessionChanges` of a store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self._name = secrets.token_hex(8)
        self._numbers = count(1)
        self._newest = 0
        self._order: dict[SessionId, int] = {}  # in the order of their numbers
        self._gone: dict[SessionId, SessionRecord] = {}

    @abstractmethod
    def _known(self, session: SessionId, member: str | None) -> SessionRecord | None:
        """Return the record of a session, if there is one and *member*, if not None, has a role in it."""

    def _note_change(self, session: SessionId, gone: SessionRecord | None = None) -> None:
        """Note that a session changed, or is *gone*."""
        self._order.pop(session, None)
        self._gone.pop(session, None)
        if gone is not None:
            self._gone[session] = gone
        self._order[session] = self._newest = next(self._numbers)

    async def changed_sessions(
        self, tenant: str, *, since: str | None, member: str | None = None, limit: int
    ) -> Changes:
        numbers = numbers_in(since, self._name, 1)
        known = numbers is not None and numbers[0] <= self._newest
        after = numbers[0] if numbers is not None and known else 0
        changed = (
            (number, changed)
            for session, number in self._order.items()
            if number > after and tenant_of(session) == tenant
            if (changed := self._changed(session, member)) is not None and (known or not changed.deleted)
        )
        found = list(islice(changed, limit + 1))
        more = len(found) > limit
        mark = found[limit - 1][0] if more else self._newest
        sessions = [each for _, each in found[:limit]]
        return Changes(sessions, mark_of(self._name, mark), more, since is not None and not known)

    def _changed(self, session: SessionId, member: str | None) -> ChangedSession | None:
        if (gone := self._gone.get(session)) is not None:
            return ChangedSession(gone, deleted=True)
        record = self._known(session, member)
        return ChangedSession(record) if record is not None else None
