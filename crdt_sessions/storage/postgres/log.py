"""Sessions and their rows: the store's methods."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from crdt_sessions import failpoints
from crdt_sessions.errors import NotFound, SessionExists, SessionNotFound, StorageError, TooMany
from crdt_sessions.ids import Millis, Seq, SessionId, lineage_of, tenant_of
from crdt_sessions.limits import Retention
from crdt_sessions.storage.integrity import checksum, verified
from crdt_sessions.storage.log import SessionLog
from crdt_sessions.storage.packing import pack
from crdt_sessions.storage.postgres import records, rows
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.lane import Lane
from crdt_sessions.storage.postgres.records import Append
from crdt_sessions.storage.postgres.statements import FULL, fenced, missing
from crdt_sessions.storage.postgres.text import kept
from crdt_sessions.storage.retention import kept as retained
from crdt_sessions.storage.stored import (
    NO_ENTRIES,
    Entries,
    History,
    Row,
    SessionRecord,
    StoredSession,
    Version,
)

_ROOM = (
    "INSERT INTO tenants AS of_one (tenant, sessions) SELECT $11::text, 0 WHERE ${0}::bigint > 0"
    " ON CONFLICT (tenant) DO UPDATE SET sessions = of_one.sessions WHERE of_one.sessions < ${0} RETURNING 1"
)
"""Goes by the tenant's row, which is read again after a wait for it. To count sessions would be older than that."""
_MADE = (
    "INSERT INTO sessions"
    " (id, generation, created_at, updated_at, status, title, lineage, tenant, last_seq, owner)"
    " VALUES ($4, $5, $6, $7, $8, $9, $10, $11, $12, $2) ON CONFLICT (id) DO UPDATE SET"
    " generation = excluded.generation, created_at = excluded.created_at, updated_at = excluded.updated_at,"
    " status = excluded.status, title = excluded.title, lineage = excluded.lineage, last_seq = excluded.last_seq,"
    " deleted_at = NULL, owner = excluded.owner"
    " WHERE sessions.deleted_at IS NOT NULL AND sessions.generation = excluded.generation - 1 RETURNING sid"
)
_UNBOUNDED = 2**62
_CREATE = fenced(
    "made",
    "counted",
    made=_MADE,
    counted=_ROOM.format(15),
    seed="INSERT INTO updates (sid, seq, at, checksum, waits, data) SELECT sid, 1, $6, $13, false, $14 FROM made",
)
_PAST = (
    "INSERT INTO snapshots (sid, seq, at, checksum, waits, size, name, data) SELECT sid, version.* FROM made,"
    " unnest($13::bigint[], $14::bigint[], $15::bigint[], $16::boolean[], $17::bigint[], $18::text[], $19::bytea[])"
    " AS version"
)
_AFTER_PAST = 21
_FIRST_AND_TIME = (
    "SELECT (SELECT min(seq) FROM updates WHERE sid = $1 AND seq > $2),"
    " (SELECT at FROM updates WHERE sid = $1 AND seq = $3)"
)
_PUT_SNAPSHOT = (
    "INSERT INTO snapshots (sid, seq, at, checksum, waits, size, data, name)"
    " SELECT $4::bigint, $7::bigint, $8::bigint, $9::bigint, $10::boolean, $11::bigint, $12::bytea, $13::text"
    " WHERE NOT $7 = ANY($6::bigint[])"
    " ON CONFLICT (sid, seq) DO UPDATE SET name = coalesce(excluded.name, snapshots.name)"
)
_FOLD = fenced(
    put=_PUT_SNAPSHOT,
    folded="DELETE FROM updates WHERE sid = $4 AND seq <= $5",
    gone="DELETE FROM snapshots WHERE sid = $4 AND seq = ANY($6::bigint[])",
)
_RENAME = fenced("named", named="UPDATE snapshots SET name = $6 WHERE sid = $4 AND seq = $5")
_DESCRIBE = fenced(
    "told",
    told="UPDATE sessions SET title = coalesce($5, title), status = coalesce($6, status), updated_at = $7"
    " WHERE id = $4 AND deleted_at IS NULL AND owner = $2",
)
_DELETE = fenced(
    "gone",
    gone="UPDATE sessions SET deleted_at = $6, title = NULL, status = 'deleted', last_seq = 0, owner = NULL"
    " WHERE sid = $5 AND deleted_at IS NULL AND owner = $2",
    updates_of="DELETE FROM updates WHERE sid = $5",
    snapshots_of="DELETE FROM snapshots WHERE sid = $5",
    used="DELETE FROM usage WHERE session = $4 RETURNING *",
    still_used=f"INSERT INTO usage ({records.USAGE_COLUMNS}) SELECT tenant, principal, day, '', model, currency,"
    f" {records.AMOUNTS} FROM used ON CONFLICT ({records.USAGE_KEY}) DO UPDATE SET {records.ADDED}",
    **{f"{table}_of": f"DELETE FROM {table} WHERE session = $4" for table in records.TABLES},
)


class PostgresSessionLog(OfDatabase, SessionLog):
    """A :class:`SessionLog` in a database. Whoever loads or writes a session owns it from then on."""

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
        if generation < 1:
            raise ValueError("the first generation is 1")
        record = SessionRecord(session, generation, now, now, "active", title, lineage or lineage_of(generation, now))
        row = Row(Seq(1), seed)

        async def job(lane: Lane) -> None:
            with missing(SessionExists(session=session)), _room_for(most):
                values = (checksum(session, row), seed, _UNBOUNDED if most is None else most)
                await lane.write(_CREATE, *_facts(record, row.seq), *values)

        await self._database.submit(job, session)
        return record

    async def get(self, session: SessionId) -> SessionRecord | None:
        await self._database.caught_up(session)
        found = await self._database.select(rows.RECORD, session)
        return rows.record_of(found[0]) if found else None

    async def last_generation(self, session: SessionId) -> int:
        found = await self._database.select("SELECT generation FROM sessions WHERE id = $1", session)
        return int(found[0][0]) if found else 0

    async def release(self, session: SessionId) -> None:
        await self._database.release(session)

    async def load(self, session: SessionId) -> StoredSession | None:
        try:
            await self._database.own(session)
        except SessionNotFound:
            return None
        await self._database.caught_up(session)
        return await self._database.load(session)

    def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> asyncio.Future[None]:
        if rows and rows[-1].seq - rows[0].seq + 1 == len(rows):
            return self._database.append(Append(session, rows, entries, now))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if rows:
            done.set_exception(StorageError(f"rows for {session!r} have gaps"))
        else:
            done.set_result(None)
        return done

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
        data, size = await asyncio.to_thread(pack, snapshot.update)
        folded = 0 if keep_rows else snapshot.seq

        async def job(lane: Lane) -> None:
            sid = await lane.owned(session)
            ((first, written),) = await lane.fetch(_FIRST_AND_TIME, sid, folded, snapshot.seq)
            versions = {each.seq: each for each in rows.versions_of(await lane.fetch(rows.VERSIONS, sid))}
            at = now if written is None else written
            known = versions.get(snapshot.seq, Version(snapshot.seq, at, len(snapshot.update)))
            versions[snapshot.seq] = Version(known.seq, known.at, known.size, name or known.name)
            gone = set(versions) - retained(versions.values(), retention)
            gone.discard(rows.base_of(list(versions.values()), first))
            failpoints.reach("snapshot")
            await lane.write(
                _FOLD, sid, folded, sorted(gone), snapshot.seq, at, checksum(session, snapshot), snapshot.waits, size,
                data, kept(name),
            )  # fmt: skip
            failpoints.reach("truncate")

        await self._database.submit(job, session)

    async def adopt(
        self,
        record: SessionRecord,
        snapshots: Sequence[tuple[Version, Row]],
        *,
        entries: Entries = NO_ENTRIES,
        most: int | None = None,
    ) -> None:
        def stored() -> list[tuple[Any, ...]]:
            return [_stored(record.id, version, row) for version, row in snapshots]

        past = [list(column) for column in zip(*await asyncio.to_thread(stored), strict=True)]
        parts, values = records.parts_of(records.entry_rows([(record.id, entries)]), first=_AFTER_PAST)
        statement = fenced("made", "counted", made=_MADE, counted=_ROOM.format(_AFTER_PAST - 1), past=_PAST, **parts)

        async def job(lane: Lane) -> None:
            with missing(SessionExists(session=record.id)), _room_for(most):
                bound = _UNBOUNDED if most is None else most
                await lane.write(statement, *_facts(record, snapshots[-1][1].seq), *past, bound, *values)

        await self._database.submit(job, record.id)

    async def history(self, session: SessionId) -> History:
        return await self._database.view(lambda connection: rows.history(connection, session))

    async def load_version(self, session: SessionId, seq: Seq) -> Sequence[Row]:
        async def read(connection: Connection) -> list[Any]:
            return await rows.rows_up_to(connection, await rows.sid_of(connection, session), seq)

        stored = await self._database.view(read)
        if not stored or stored[-1][0] != seq or stored[0][0] + len(stored) - 1 != seq:
            raise NotFound(what="version", id=str(seq))
        return verified(session, [tuple(row) for row in stored], seq)

    async def rename_version(self, session: SessionId, seq: Seq, name: str | None) -> None:
        async def job(lane: Lane) -> None:
            with missing(NotFound(what="version", id=str(seq))):
                await lane.write(_RENAME, await lane.owned(session), seq, kept(name))

        await self._database.submit(job, session)

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        async def job(lane: Lane) -> None:
            await lane.owned(session)
            with missing(SessionNotFound(session=session)):
                await lane.write(_DESCRIBE, session, kept(title), status, now)

        await self._database.submit(job, session)

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        async def job(lane: Lane) -> None:
            sid = await lane.owned(session)
            with missing(SessionNotFound(session=session)):
                await lane.write(_DELETE, session, sid, now)
            lane.forget(session)

        await self._database.submit(job, session)


def _room_for(most: int | None) -> missing:
    return missing(TooMany(what="sessions of a tenant", limit=most or 0), FULL)


def _facts(record: SessionRecord, last_seq: Seq) -> tuple[Any, ...]:
    """Return the parameters of a session that is made."""
    return (
        record.id, record.generation, record.created_at, record.updated_at, record.status, kept(record.title),
        record.lineage, tenant_of(record.id), last_seq,
    )  # fmt: skip


def _stored(session: SessionId, version: Version, row: Row) -> tuple[Any, ...]:
    data, size = pack(row.update)
    return row.seq, version.at, checksum(session, row), row.waits, size, kept(version.name), data
