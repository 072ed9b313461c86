"""A store in memory: the reference implementation, for tests, examples and sessions that need not last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from crdt_sessions.errors import SessionExists, SessionNotFound, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage.base import (
    NO_ENTRIES,
    Delivery,
    Entries,
    Row,
    RunEntry,
    SessionRecord,
    StoredSession,
    WriterEntry,
)


@dataclass(slots=True)
class _Session:
    record: SessionRecord
    rows: list[Row] = field(default_factory=list)
    runs: dict[str, RunEntry] = field(default_factory=dict)
    writers: dict[int, WriterEntry] = field(default_factory=dict)
    steps: dict[tuple[str, str], str] = field(default_factory=dict)


class MemoryStore:
    """An :class:`UpdateStore` that forgets everything when it goes."""

    def __init__(self) -> None:
        self._sessions: dict[SessionId, _Session] = {}
        self._generations: dict[SessionId, int] = {}
        self._deliveries: dict[str, Delivery] = {}

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
        if found is None:
            return None
        runs = sorted(found.runs.values(), key=lambda run: (run.queued_at, run.id))
        writers = sorted(found.writers.values(), key=lambda writer: writer.client)
        return StoredSession(found.record, tuple(found.rows), tuple(runs), tuple(writers))

    async def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> None:
        """See :meth:`UpdateStore.append`."""
        found = self._find(session)
        last = found.rows[-1].seq
        if [row.seq for row in rows] != list(range(last + 1, last + 1 + len(rows))):
            raise StorageError(f"rows for {session!r} do not follow row {last}")
        found.rows.extend(rows)
        found.record = replace(found.record, updated_at=now)
        found.runs.update((run.id, run) for run in entries.runs)
        found.writers.update((writer.client, writer) for writer in entries.writers)
        for delivery in entries.deliveries:
            self._deliveries.setdefault(delivery.id, delivery)

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
        self._deliveries = {id: each for id, each in self._deliveries.items() if each.session != session}

    async def ready_runs(self, agents: Sequence[str], *, limit: int) -> Sequence[tuple[SessionId, str]]:
        """See :meth:`UpdateStore.ready_runs`."""
        ready = sorted(
            (run.queued_at, session, run.id)
            for session, found in self._sessions.items()
            for run in found.runs.values()
            if run.ready and run.agent in agents and found.record.status == "active"
        )
        return [(session, run) for _, session, run in ready[:limit]]

    async def due_sessions(self, now: Millis) -> Sequence[SessionId]:
        """See :meth:`UpdateStore.due_sessions`."""
        return [
            session
            for session, found in self._sessions.items()
            if any(run.due_at is not None and run.due_at <= now for run in found.runs.values())
        ]

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        """See :meth:`UpdateStore.step`."""
        found = self._sessions.get(session)
        return found.steps.get((run, key)) if found is not None else None

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        """See :meth:`UpdateStore.record_step`."""
        return self._find(session).steps.setdefault((run, key), value)

    async def deliveries(self, *, due: Millis | None, dead: bool = False, limit: int) -> Sequence[Delivery]:
        """See :meth:`UpdateStore.deliveries`."""
        found = sorted(self._deliveries.values(), key=lambda each: (each.created_at, each.id))
        return [each for each in found if each.dead == dead and (due is None or each.next_at <= due)][:limit]

    async def delivered(self, id: str) -> None:
        """See :meth:`UpdateStore.delivered`."""
        self._deliveries.pop(id, None)

    async def postpone(self, id: str, *, attempts: int, next_at: Millis, error: str | None, dead: bool) -> bool:
        """See :meth:`UpdateStore.postpone`."""
        if (found := self._deliveries.get(id)) is None:
            return False
        self._deliveries[id] = replace(found, attempts=attempts, next_at=next_at, error=error, dead=dead)
        return True

    async def check(self) -> None:
        """See :meth:`UpdateStore.check`."""

    async def close(self) -> None:
        """See :meth:`UpdateStore.close`."""

    def _find(self, session: SessionId) -> _Session:
        if session not in self._sessions:
            raise SessionNotFound(session=session)
        return self._sessions[session]
