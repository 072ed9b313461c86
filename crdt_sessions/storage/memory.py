"""A store in memory: the reference implementation, for tests, examples and sessions that need not last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from crdt_sessions.errors import NotFound, SessionExists, SessionNotFound, StorageError, TooMany
from crdt_sessions.ids import Millis, Seq, SessionId, lineage_of, tenant_of
from crdt_sessions.limits import Retention
from crdt_sessions.storage.access import Revocation
from crdt_sessions.storage.audit import AuditEntry
from crdt_sessions.storage.base import UpdateStore
from crdt_sessions.storage.deliveries import Delivery
from crdt_sessions.storage.memory_changes import MemoryChanges
from crdt_sessions.storage.memory_streams import MemoryStreams
from crdt_sessions.storage.retention import kept
from crdt_sessions.storage.runs import MOST_AGENTS, FoundRun, RunEntry
from crdt_sessions.storage.stored import (
    NO_ENTRIES,
    Entries,
    History,
    Row,
    SessionRecord,
    StoredSession,
    Version,
    WriterEntry,
)
from crdt_sessions.storage.usage import Amounts, UsageKey


@dataclass(slots=True)
class _Session:
    record: SessionRecord
    rows: list[Row] = field(default_factory=list)
    times: dict[Seq, Millis] = field(default_factory=dict)
    snapshots: dict[Seq, tuple[Row, Version]] = field(default_factory=dict)
    runs: dict[str, RunEntry] = field(default_factory=dict)
    writers: dict[int, WriterEntry] = field(default_factory=dict)
    steps: dict[tuple[str, str], str] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)
    asked_at: dict[str, Millis] = field(default_factory=dict)


class MemoryStore(MemoryStreams, MemoryChanges, UpdateStore):
    """An :class:`UpdateStore` that forgets everything when it goes."""

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[SessionId, _Session] = {}
        self._counts: Counter[str] = Counter()
        self._generations: dict[SessionId, int] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._revocations: dict[tuple[str, str, str], Revocation] = {}
        self._audit: list[AuditEntry] = []
        self._usage: dict[tuple[str, SessionId | None, UsageKey], Amounts] = {}
        self._agents: dict[str, dict[str, Millis]] = {}

    async def create(
        self,
        session: SessionId,
        seed: bytes,
        *,
        generation: int,
        title: str | None,
        now: Millis,
        lineage: str | None = None,
        most: int | None = None,
    ) -> SessionRecord:
        if session in self._sessions or generation != self._generations.get(session, 0) + 1:
            raise SessionExists(session=session)
        if most is not None and self._counts[tenant_of(session)] >= most:
            raise TooMany(what="sessions of a tenant", limit=most)
        self._counts[tenant_of(session)] += 1
        record = SessionRecord(session, generation, now, now, "active", title, lineage or lineage_of(generation, now))
        self._sessions[session] = _Session(record, [Row(Seq(1), seed)], {Seq(1): now})
        self._generations[session] = generation
        self._note_change(session)
        return record

    async def get(self, session: SessionId) -> SessionRecord | None:
        found = self._sessions.get(session)
        return found.record if found else None

    async def last_generation(self, session: SessionId) -> int:
        return self._generations.get(session, 0)

    async def sessions(
        self,
        *,
        after: SessionId | None,
        limit: int,
        tenant: str | None = None,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
    ) -> Sequence[SessionRecord]:
        found = [record for record in self._listed(tenant, statuses, member) if after is None or record.id > after]
        return sorted(found, key=lambda record: record.id)[:limit]

    async def recent_sessions(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
        before: tuple[Millis, SessionId] | None = None,
        limit: int,
    ) -> Sequence[SessionRecord]:
        found = {(record.updated_at, record.id): record for record in self._listed(tenant, statuses, member)}
        return [found[place] for place in sorted(found, reverse=True) if before is None or place < before][:limit]

    def _listed(
        self, tenant: str | None, statuses: Sequence[str] | None, member: str | None
    ) -> Iterator[SessionRecord]:
        for session, found in self._sessions.items():
            of_one = statuses is None or found.record.status in statuses
            if tenant in (None, tenant_of(session)) and of_one and (member is None or member in found.members):
                yield found.record

    async def count(self, tenant: str) -> int:
        return self._counts[tenant]

    async def load(self, session: SessionId) -> StoredSession | None:
        found = self._sessions.get(session)
        if found is None:
            return None
        runs = sorted(found.runs.values(), key=lambda run: (run.queued_at, run.id))
        writers = sorted(found.writers.values(), key=lambda writer: writer.client)
        return StoredSession(found.record, tuple(found.rows), tuple(runs), tuple(writers))

    async def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> None:
        found = self._find(session)
        last = found.rows[-1].seq
        if [row.seq for row in rows] != list(range(last + 1, last + 1 + len(rows))):
            raise StorageError(f"rows for {session!r} do not follow row {last}")
        found.rows.extend(rows)
        found.times.update((row.seq, now) for row in rows)
        found.record = replace(found.record, updated_at=now)
        self._note_change(session)
        for run in entries.runs:
            found.asked_at.setdefault(run.id, run.queued_at)
            found.runs[run.id] = run
        found.writers.update((writer.client, writer) for writer in entries.writers)
        for delivery in entries.deliveries:
            self._deliveries.setdefault(delivery.id, delivery)
        self._add_usage(session, entries.usage)

    def _add_usage(self, session: SessionId, usage: Mapping[UsageKey, Amounts]) -> None:
        for key, amounts in usage.items():
            place = (tenant_of(session), session, key)
            self._usage[place] = self._usage.get(place, Amounts()).plus(amounts)

    async def usage(
        self,
        tenant: str,
        *,
        session: SessionId | None = None,
        principal: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Mapping[tuple[str, str], Amounts]:
        found: dict[tuple[str, str], Amounts] = {}
        for (owner, where, key), amounts in self._usage.items():
            chosen = owner == tenant and session in (None, where) and principal in (None, key.principal)
            if chosen and (since is None or key.day >= since) and (until is None or key.day <= until):
                which = (key.model, key.currency)
                found[which] = found.get(which, Amounts()).plus(amounts)
        return found

    async def disown_usage(self, tenant: str, principal: str) -> None:
        found = [place for place in self._usage if place[0] == tenant and place[2].principal == principal]
        for owner, session, key in found:
            amounts = self._usage.pop((owner, session, key))
            place = (owner, session, key._replace(principal=""))
            self._usage[place] = self._usage.get(place, Amounts()).plus(amounts)

    async def replace_with_snapshot(
        self,
        session: SessionId,
        snapshot: Row,
        *,
        retention: Retention,
        name: str | None = None,
        keep_rows: bool = False,
        now: Millis,
    ) -> None:
        found = self._find(session)
        if (known := found.snapshots.get(snapshot.seq)) is not None:
            row, version = known[0], replace(known[1], name=name or known[1].name)
        else:
            at = found.times.get(snapshot.seq, now)
            row, version = snapshot, Version(snapshot.seq, at, len(snapshot.update), name)
        found.snapshots[snapshot.seq] = (row, version)
        if not keep_rows:
            found.rows = [row, *(each for each in found.rows if each.seq > snapshot.seq)]
            found.times = {each.seq: found.times.get(each.seq, now) for each in found.rows}
        keep = kept((version for _, version in found.snapshots.values()), retention)
        found.snapshots = {seq: each for seq, each in found.snapshots.items() if seq in keep}

    async def adopt(
        self,
        record: SessionRecord,
        snapshots: Sequence[tuple[Version, Row]],
        *,
        entries: Entries = NO_ENTRIES,
        most: int | None = None,
    ) -> None:
        last = snapshots[-1][1]
        await self.create(
            record.id,
            last.update,
            generation=record.generation,
            title=record.title,
            now=record.created_at,
            most=most,
        )
        self._sessions[record.id] = _Session(
            record,
            [last],
            {last.seq: snapshots[-1][0].at},
            {row.seq: (row, version) for version, row in snapshots},
            {run.id: run for run in entries.runs},
            {writer.client: writer for writer in entries.writers},
            asked_at={run.id: run.queued_at for run in entries.runs},
        )
        self._add_usage(record.id, entries.usage)

    async def history(self, session: SessionId) -> History:
        found = self._find(session)
        versions = [found.snapshots[seq][1] for seq in sorted(found.snapshots)]
        times = [found.times[row.seq] for row in found.rows]
        return History(versions, found.rows[0].seq, found.rows[-1].seq, times)

    async def load_version(self, session: SessionId, seq: Seq) -> Sequence[Row]:
        found = self._find(session)
        if found.rows[0].seq <= seq <= found.rows[-1].seq:
            return [row for row in found.rows if row.seq <= seq]
        if seq not in found.snapshots:
            raise NotFound(what="version", id=str(seq))
        return [found.snapshots[seq][0]]

    async def rename_version(self, session: SessionId, seq: Seq, name: str | None) -> None:
        snapshots = self._find(session).snapshots
        if seq not in snapshots:
            raise NotFound(what="version", id=str(seq))
        row, version = snapshots[seq]
        snapshots[seq] = (row, replace(version, name=name))

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        found = self._find(session)
        record = found.record
        found.record = replace(
            record,
            title=record.title if title is None else title,
            status=record.status if status is None else status,
            updated_at=now,
        )
        self._note_change(session)

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        record = self._find(session).record
        self._note_change(session, gone=replace(record, status="deleted", title=None))
        del self._sessions[session]
        self._counts[tenant_of(session)] -= 1
        self._deliveries = {id: each for id, each in self._deliveries.items() if each.session != session}
        for place in [place for place in self._usage if place[1] == session]:
            tenant, _, key = place
            amounts = self._usage.pop(place)
            self._usage[tenant, None, key] = self._usage.get((tenant, None, key), Amounts()).plus(amounts)

    async def ready_runs(
        self, agents: Sequence[str], *, limit: int, tenant: str | None = None
    ) -> Sequence[tuple[SessionId, str]]:
        ready = sorted(
            (run.queued_at, session, run.id)
            for session, found in self._sessions.items()
            if tenant in (None, tenant_of(session))
            for run in found.runs.values()
            if run.ready and run.agent in agents and found.record.status == "active"
        )
        return [(session, run) for _, session, run in ready[:limit]]

    async def runs(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        answerer: str | None = None,
        before: tuple[Millis, SessionId, str] | None = None,
        limit: int,
    ) -> Sequence[FoundRun]:
        found = {
            (of.asked_at[run.id], session, run.id): run
            for session, of in self._sessions.items()
            if tenant_of(session) == tenant
            for run in of.runs.values()
            if (statuses is None or run.status in statuses) and answerer in (None, run.answerer)
        }
        places = [place for place in sorted(found, reverse=True) if before is None or place < before]
        return [FoundRun(place[1], place[0], found[place]) for place in places[:limit]]

    async def note_agents(self, tenant: str, names: Sequence[str], now: Millis) -> None:
        agents = self._agents.setdefault(tenant, {})
        agents.update(dict.fromkeys(names, now))
        for name in sorted(agents, key=lambda name: (-agents[name], name))[MOST_AGENTS:]:
            del agents[name]

    async def agents(self, tenant: str) -> Mapping[str, Millis]:
        return dict(sorted(self._agents.get(tenant, {}).items()))

    async def take_due(self, now: Millis, *, limit: int) -> Sequence[SessionId]:
        return [
            session
            for session, found in self._sessions.items()
            if any(run.due_at is not None and run.due_at <= now for run in found.runs.values())
        ]

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        found = self._sessions.get(session)
        return found.steps.get((run, key)) if found is not None else None

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        return self._find(session).steps.setdefault((run, key), value)

    async def deliveries(self, *, dead: bool = False, limit: int, tenant: str | None = None) -> Sequence[Delivery]:
        found = (each for each in self._letters(dead) if tenant in (None, tenant_of(each.session)))
        return list(islice(found, limit))

    async def take_deliveries(
        self, now: Millis, *, limit: int, lease_ms: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        due = (each for each in self._letters(dead=False) if each.next_at <= now and each.endpoint not in without)
        return list(islice(due, limit))

    def _letters(self, dead: bool) -> list[Delivery]:
        found = [each for each in self._deliveries.values() if each.dead == dead]
        return sorted(found, key=lambda each: (each.created_at, each.id))

    async def delivered(self, id: str) -> None:
        self._deliveries.pop(id, None)

    async def postpone(
        self,
        id: str,
        *,
        attempts: int,
        next_at: Millis,
        error: str | None,
        dead: bool,
        tenant: str | None = None,
    ) -> bool:
        found = self._deliveries.get(id)
        if found is None or tenant not in (None, tenant_of(found.session)):
            return False
        self._deliveries[id] = replace(found, attempts=attempts, next_at=next_at, error=error, dead=dead)
        return True

    async def members(self, session: SessionId) -> Mapping[str, str]:
        found = self._sessions.get(session)
        return dict(found.members) if found is not None else {}

    async def set_member(self, session: SessionId, principal: str, role: str | None) -> None:
        members = self._find(session).members
        members.pop(principal, None)
        if role is not None:
            members[principal] = role
            self._note_change(session)

    async def revoke(self, revocation: Revocation) -> None:
        self._revocations[revocation.tenant, revocation.kind, revocation.value] = revocation

    async def revocations(self) -> Sequence[Revocation]:
        return list(self._revocations.values())

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        for entry in entries:
            self._audit.append(replace(entry, id=len(self._audit) + 1))

    async def audit(
        self,
        tenant: str,
        *,
        session: str | None = None,
        principal: str | None = None,
        action: str | None = None,
        after: int = 0,
        limit: int,
    ) -> Sequence[AuditEntry]:
        found = (
            entry
            for entry in self._audit[after:]
            if entry.tenant == tenant
            and session in (None, entry.session)
            and principal in (None, entry.principal)
            and action in (None, entry.action)
        )
        return list(islice(found, limit))

    async def check(self) -> None:
        return

    async def close(self) -> None:
        return

    def _known(self, session: SessionId, member: str | None) -> SessionRecord | None:
        found = self._sessions.get(session)
        return found.record if found is not None and (member is None or member in found.members) else None

    def _find(self, session: SessionId) -> _Session:
        if session not in self._sessions:
            raise SessionNotFound(session=session)
        return self._sessions[session]
