"""Sessions and their rows: the store's methods."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from typing import Any

from crdt_sessions import failpoints
from crdt_sessions.callbacks import Callback
from crdt_sessions.errors import NotFound, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId, lineage_of, tenant_of
from crdt_sessions.limits import Retention
from crdt_sessions.storage.counts import SessionCounts
from crdt_sessions.storage.integrity import verified
from crdt_sessions.storage.log import SessionLog
from crdt_sessions.storage.outcome import Outcome
from crdt_sessions.storage.retention import kept
from crdt_sessions.storage.sqlite import records, rows
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.heads import Append
from crdt_sessions.storage.sqlite.statements import changed, require_session
from crdt_sessions.storage.stored import (
    NO_ENTRIES,
    Entries,
    History,
    Row,
    SessionRecord,
    StoredSession,
    Version,
)


class SqliteSessionLog(OfDatabase, SessionLog):
    """A :class:`SessionLog` in a database."""

    _counts: SessionCounts

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
        def job(connection: sqlite3.Connection) -> None:
            rows.insert_session(connection, record, Seq(1))
            rows.insert_rows(connection, [Append(session, [Row(Seq(1), seed)], NO_ENTRIES, now)])

        if generation < 1:
            raise ValueError("the first generation is 1")
        record = SessionRecord(session, generation, now, now, "active", title, lineage or lineage_of(generation, now))
        async with self._counts.one_more(tenant_of(session), most):
            await self._database.submit(job)
        return record

    async def get(self, session: SessionId) -> SessionRecord | None:
        await self._database.caught_up(session)
        found = await self._database.select(f"{rows.RECORD} WHERE id = ? AND deleted_at IS NULL", (session,))
        return SessionRecord(*found[0]) if found else None

    async def last_generation(self, session: SessionId) -> int:
        found = await self._database.select("SELECT generation FROM sessions WHERE id = ?", (session,))
        return int(found[0][0]) if found else 0

    async def load(self, session: SessionId) -> StoredSession | None:
        await self._database.caught_up(session)
        return await self._database.view(lambda connection: rows.load(connection, session))

    def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> Outcome:
        if not rows or rows[-1].seq - rows[0].seq + 1 != len(rows):
            done = Outcome()
            done.settle(StorageError(f"rows for {session!r} have gaps") if rows else None)
            return done
        return self._database.submit(Append(session, rows, entries, now))

    def before_commit(self, hand_over: Callback) -> None:
        self._database.before_commit(hand_over)

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
        stored = await asyncio.to_thread(rows.packed, session, snapshot)

        def job(connection: sqlite3.Connection) -> None:
            require_session(connection, session)
            rows.put_snapshot(connection, stored, name, now)
            failpoints.reach("snapshot")
            connection.execute("PRAGMA secure_delete = ON")  # somebody may have deleted what is in these rows
            if not keep_rows:
                changed(connection, "DELETE FROM updates WHERE session = ? AND seq <= ?", (session, snapshot.seq))
            versions = rows.versions(connection, session)
            gone = {version.seq for version in versions} - kept(versions, retention)
            gone.discard(rows.base_of(connection, session))
            connection.executemany(
                "DELETE FROM snapshots WHERE session = ? AND seq = ?", [(session, seq) for seq in gone]
            )
            connection.execute("PRAGMA secure_delete = OFF")
            failpoints.reach("truncate")

        await self._database.submit(job)

    async def adopt(
        self,
        record: SessionRecord,
        snapshots: Sequence[tuple[Version, Row]],
        *,
        entries: Entries = NO_ENTRIES,
        most: int | None = None,
    ) -> None:
        stored = await asyncio.to_thread(lambda: [rows.packed(record.id, row) for _, row in snapshots])

        def job(connection: sqlite3.Connection) -> None:
            rows.insert_session(connection, record, snapshots[-1][1].seq)
            rows.insert_snapshots(connection, stored, [(version.name, version.at) for version, _ in snapshots])
            records.put(connection, record.id, entries)

        async with self._counts.one_more(tenant_of(record.id), most):
            await self._database.submit(job)

    async def history(self, session: SessionId) -> History:
        return await self._database.view(lambda connection: rows.history(connection, session))

    async def load_version(self, session: SessionId, seq: Seq) -> Sequence[Row]:
        def read(connection: sqlite3.Connection) -> list[Any]:
            require_session(connection, session)
            return rows.rows_up_to(connection, session, seq)

        stored = await self._database.view(read)
        if not stored or stored[-1][0] != seq or stored[0][0] + len(stored) - 1 != seq:
            raise NotFound(what="version", id=str(seq))
        return verified(session, stored, seq)

    async def rename_version(self, session: SessionId, seq: Seq, name: str | None) -> None:
        def job(connection: sqlite3.Connection) -> None:
            require_session(connection, session)
            statement = "UPDATE snapshots SET name = ? WHERE session = ? AND seq = ?"
            if not changed(connection, statement, (name, session, seq)):
                raise NotFound(what="version", id=str(seq))

        await self._database.submit(job)

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        def job(connection: sqlite3.Connection) -> None:
            require_session(connection, session)
            changed(
                connection,
                "UPDATE sessions SET title = coalesce(?, title), status = coalesce(?, status), updated_at = ?"
                " WHERE id = ?",
                (title, status, now, session),
            )

        await self._database.submit(job)

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        def job(connection: sqlite3.Connection) -> None:
            require_session(connection, session)
            connection.execute("PRAGMA secure_delete = ON")  # nothing of it is to be found in the file afterwards
            for table in ("updates", "snapshots", *records.TABLES):
                changed(connection, f"DELETE FROM {table} WHERE session = ?", (session,))
            records.forget_usage(connection, session)
            connection.execute("PRAGMA secure_delete = OFF")
            changed(
                connection,
                "UPDATE sessions SET deleted_at = ?, title = NULL, status = 'deleted', last_seq = 0 WHERE id = ?",
                (now, session),
            )

        await self._database.submit(job, deletes=session)
        self._counts.forget(tenant_of(session))
