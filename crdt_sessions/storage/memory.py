"""A store in memory: the reference implementation, for tests, examples and sessions that need not last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from crdt_sessions.errors import SessionExists, SessionNotFound, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage.base import Row, SessionRecord, StoredSession


@dataclass(slots=True)
class _Session:
    record: SessionRecord
    rows: list[Row] = field(default_factory=list)


class MemoryStore:
    """An :class:`UpdateStore` that forgets everything when it goes."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, _Session] = {}
        self._generations: dict[SessionId, int] = {}

    async def create(
        self, session: SessionId, seed: bytes, *, generation: int, title: str | None, now: Millis
    ) -> SessionRecord:
        """See :meth:`UpdateStore.create`."""
        if session in self._sessions or generation != self._generations.get(session, 0) + 1:
            raise SessionExists(session=session)
        record = SessionRecord(session, generation, now, now, "active", title)
        self._sessions[session] = _Session(record, [Row(Seq(1), seed)])
        self._generations[session] = generation
        return record

    async def get(self, session: SessionId) -> SessionRecord | None:
        """See :meth:`UpdateStore.get`."""
        found = self._sessions.get(session)
        return found.record if found else None

    async def last_generation(self, session: SessionId) -> int:
        """See :meth:`UpdateStore.last_generation`."""
        return self._generations.get(session, 0)

    async def sessions(self, *, after: SessionId | None, limit: int) -> Sequence[SessionRecord]:
        """See :meth:`UpdateStore.sessions`."""
        ids = sorted(session for session in self._sessions if after is None or session > after)
        return [self._sessions[session].record for session in ids[:limit]]

    async def load(self, session: SessionId) -> StoredSession | None:
        """See :meth:`UpdateStore.load`."""
        found = self._sessions.get(session)
        return StoredSession(found.record, tuple(found.rows)) if found else None

    async def append(self, session: SessionId, rows: Sequence[Row], *, now: Millis) -> None:
        """See :meth:`UpdateStore.append`."""
        found = self._find(session)
        last = found.rows[-1].seq
        if [row.seq for row in rows] != list(range(last + 1, last + 1 + len(rows))):
            raise StorageError(f"rows for {session!r} do not follow row {last}")
        found.rows.extend(rows)
        found.record = replace(found.record, updated_at=now)

    async def replace_with_snapshot(self, session: SessionId, snapshot: Row) -> None:
        """See :meth:`UpdateStore.replace_with_snapshot`."""
        found = self._find(session)
        found.rows = [snapshot, *(row for row in found.rows if row.seq > snapshot.seq)]

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        """See :meth:`UpdateStore.describe`."""
        found = self._find(session)
        record = found.record
        found.record = replace(
            record,
            title=record.title if title is None else title,
            status=record.status if status is None else status,
            updated_at=now,
        )

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        """See :meth:`UpdateStore.delete`."""
        self._find(session)
        del self._sessions[session]

    async def check(self) -> None:
        """See :meth:`UpdateStore.check`."""

    async def close(self) -> None:
        """See :meth:`UpdateStore.close`."""

    def _find(self, session: SessionId) -> _Session:
        if session not in self._sessions:
            raise SessionNotFound(session=session)
        return self._sessions[session]
