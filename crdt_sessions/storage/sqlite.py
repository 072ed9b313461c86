"""Sessions in one SQLite file: WAL, one writer, group commit.

Whatever waits while a transaction is being committed goes into the next one together, so the cost of
making things durable is shared and an idle store adds no delay. ``synchronous=FULL`` means that a call
returns after fsync.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiosqlite

from crdt_sessions import failpoints
from crdt_sessions.errors import (
    CrdtSessionsError,
    DamagedLog,
    SessionExists,
    SessionNotFound,
    StorageError,
)
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage import sqlite_entries
from crdt_sessions.storage.base import NO_ENTRIES, Delivery, Entries, Row, SessionRecord, StoredSession
from crdt_sessions.storage.lock import FileLock
from crdt_sessions.storage.migrations import migrate

_log = logging.getLogger("crdt_sessions.storage")

_Job = Callable[[aiosqlite.Connection], Awaitable[Any]]

_RECORD = "SELECT id, generation, created_at, updated_at, status, title FROM sessions"
_SNAPSHOTS_KEPT = 2
_BUSY_MS = 2000


@dataclass(slots=True)
class _Queued:
    job: _Job
    done: asyncio.Future[Any]


class SqliteStore:
    """An :class:`UpdateStore` in a SQLite file. Open it as a context manager.

    Args:
        path: the database file; it is created if missing. ``<path>.lock`` beside it keeps a second
            process out.

    Raises:
        DatabaseInUse: (on entering) another process has it open.
        NewerSchema: (on entering) a newer release wrote it.
        StorageError: (on entering) it cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock = FileLock(Path(f"{self.path}.lock"), self.path)
        self._queue: asyncio.Queue[_Queued | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._writing: list[_Queued] = []
        self._reading = asyncio.Lock()
        self._write: aiosqlite.Connection
        self._read: aiosqlite.Connection

    async def __aenter__(self) -> SqliteStore:
        self._lock.acquire()
        try:
            with _translated():
                self._write = await _connect(self.path)
                try:
                    await migrate(self._write, str(self.path))
                    self._read = await _connect(self.path)
                except BaseException:
                    await self._write.close()
                    raise
        except BaseException:
            self._lock.release()
            raise
        self._writer = asyncio.create_task(self._run(), name="sqlite writer")
        self._writer.add_done_callback(self._writer_ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish the writes that wait, then close the file."""
        if self._writer is None:
            return
        self._queue.put_nowait(None)
        await asyncio.wait({self._writer})
        self._writer = None
        await self._read.close()
        await self._write.close()
        self._lock.release()

    # -- writing -----------------------------------------------------------------------------------------------

    async def create(
        self, session: SessionId, seed: bytes, *, generation: int, title: str | None, now: Millis
    ) -> SessionRecord:
        """See :meth:`UpdateStore.create`."""

        async def job(connection: aiosqlite.Connection) -> None:
            changed = await _run(
                connection,
                "INSERT INTO sessions VALUES (?, ?, ?, ?, 'active', ?, 1, NULL) ON CONFLICT (id) DO UPDATE SET"
                " generation = excluded.generation, created_at = excluded.created_at,"
                " updated_at = excluded.updated_at, status = 'active', title = excluded.title,"
                " last_seq = 1, deleted_at = NULL"
                " WHERE deleted_at IS NOT NULL AND sessions.generation = excluded.generation - 1",
                (session, generation, now, now, title),
            )
            if not changed:
                raise SessionExists(session=session)
            await _insert(connection, "updates", session, [Row(Seq(1), seed)])

        if generation < 1:
            raise ValueError("the first generation is 1")
        await self._submit(job)
        return SessionRecord(session, generation, now, now, "active", title)

    async def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> None:
        """See :meth:`UpdateStore.append`."""
        if not rows:
            return
        first, last = rows[0].seq, rows[-1].seq
        if last - first + 1 != len(rows):
            raise StorageError(f"rows for {session!r} have gaps")

        async def job(connection: aiosqlite.Connection) -> None:
            failpoints.reach("before-append")
            changed = await _run(
                connection,
                "UPDATE sessions SET last_seq = ?, updated_at = ?"
                " WHERE id = ? AND last_seq = ? AND deleted_at IS NULL",
                (last, now, session, first - 1),
            )
            if not changed:
                await _require(connection, session)
                raise StorageError(f"rows for {session!r} do not begin behind its last one")
            await _insert(connection, "updates", session, rows)
            await sqlite_entries.put(connection, session, entries)

        await self._submit(job)

    async def replace_with_snapshot(self, session: SessionId, snapshot: Row) -> None:
        """See :meth:`UpdateStore.replace_with_snapshot`. The snapshot before it is kept."""

        async def job(connection: aiosqlite.Connection) -> None:
            await _require(connection, session)
            await _insert(connection, "snapshots", session, [snapshot])
            failpoints.reach("snapshot")
            await _run(connection, "DELETE FROM updates WHERE session = ? AND seq <= ?", (session, snapshot.seq))
            await _run(
                connection,
                "DELETE FROM snapshots WHERE session = ? AND seq NOT IN"
                " (SELECT seq FROM snapshots WHERE session = ? ORDER BY seq DESC LIMIT ?)",
                (session, session, _SNAPSHOTS_KEPT),
            )
            failpoints.reach("truncate")

        await self._submit(job)

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        """See :meth:`UpdateStore.describe`."""

        async def job(connection: aiosqlite.Connection) -> None:
            await _require(connection, session)
            await _run(
                connection,
                "UPDATE sessions SET title = coalesce(?, title), status = coalesce(?, status), updated_at = ?"
                " WHERE id = ?",
                (title, status, now, session),
            )

        await self._submit(job)

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        """See :meth:`UpdateStore.delete`."""

        async def job(connection: aiosqlite.Connection) -> None:
            await _require(connection, session)
            for table in ("updates", "snapshots", *sqlite_entries.TABLES):
                await _run(connection, f"DELETE FROM {table} WHERE session = ?", (session,))
            await _run(
                connection,
                "UPDATE sessions SET deleted_at = ?, title = NULL, status = 'deleted', last_seq = 0 WHERE id = ?",
                (now, session),
            )

        await self._submit(job)

    async def check(self) -> None:
        """See :meth:`UpdateStore.check`."""

        async def job(connection: aiosqlite.Connection) -> None:
            await _run(connection, "PRAGMA user_version", ())

        await self._submit(job)

    async def put_entries(self, session: SessionId, entries: Entries) -> None:
        """Put *entries* on record without rows: for copying a session from one file into another.

        Raises:
            SessionNotFound: there is no such session.
        """

        async def job(connection: aiosqlite.Connection) -> None:
            await _require(connection, session)
            await sqlite_entries.put(connection, session, entries)

        await self._submit(job)

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        """See :meth:`UpdateStore.record_step`."""

        async def job(connection: aiosqlite.Connection) -> None:
            await _require(connection, session)
            await _run(
                connection, "INSERT INTO steps VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (session, run, key, value)
            )

        await self._submit(job)
        return await self.step(session, run, key) or value

    async def delivered(self, id: str) -> None:
        """See :meth:`UpdateStore.delivered`."""

        async def job(connection: aiosqlite.Connection) -> None:
            await _run(connection, "DELETE FROM deliveries WHERE id = ?", (id,))

        await self._submit(job)

    async def postpone(self, id: str, *, attempts: int, next_at: Millis, error: str | None, dead: bool) -> bool:
        """See :meth:`UpdateStore.postpone`."""
        changed: list[int] = []

        async def job(connection: aiosqlite.Connection) -> None:
            statement = "UPDATE deliveries SET attempts = ?, next_at = ?, error = ?, dead = ? WHERE id = ?"
            changed.append(await _run(connection, statement, (attempts, next_at, error, int(dead), id)))

        await self._submit(job)
        return changed[-1] > 0

    # -- reading -----------------------------------------------------------------------------------------------

    async def get(self, session: SessionId) -> SessionRecord | None:
        """See :meth:`UpdateStore.get`."""
        rows = await self._select(f"{_RECORD} WHERE id = ? AND deleted_at IS NULL", (session,))
        return SessionRecord(*rows[0]) if rows else None

    async def last_generation(self, session: SessionId) -> int:
        """See :meth:`UpdateStore.last_generation`."""
        rows = await self._select("SELECT generation FROM sessions WHERE id = ?", (session,))
        return int(rows[0][0]) if rows else 0

    async def sessions(self, *, after: SessionId | None, limit: int) -> Sequence[SessionRecord]:
        """See :meth:`UpdateStore.sessions`."""
        rows = await self._select(
            f"{_RECORD} WHERE deleted_at IS NULL AND id > ? ORDER BY id LIMIT ?", (after or "", limit)
        )
        return [SessionRecord(*row) for row in rows]

    async def ready_runs(self, agents: Sequence[str], *, limit: int) -> Sequence[tuple[SessionId, str]]:
        """See :meth:`UpdateStore.ready_runs`."""
        rows = await self._select(
            "SELECT runs.session, runs.id FROM runs JOIN sessions ON sessions.id = runs.session"
            f" WHERE ready AND agent IN ({', '.join('?' * len(agents))}) AND status = 'active'"
            " ORDER BY queued_at, runs.session, runs.id LIMIT ?",
            (*agents, limit),
        )
        return [(SessionId(session), run) for session, run in rows]

    async def due_sessions(self, now: Millis) -> Sequence[SessionId]:
        """See :meth:`UpdateStore.due_sessions`."""
        rows = await self._select("SELECT DISTINCT session FROM runs WHERE due_at <= ?", (now,))
        return [SessionId(session) for (session,) in rows]

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        """See :meth:`UpdateStore.step`."""
        rows = await self._select(
            "SELECT value FROM steps WHERE session = ? AND run = ? AND key = ?", (session, run, key)
        )
        return str(rows[0][0]) if rows else None

    async def deliveries(self, *, due: Millis | None, dead: bool = False, limit: int) -> Sequence[Delivery]:
        """See :meth:`UpdateStore.deliveries`."""
        rows = await self._select(
            "SELECT id, endpoint, session, kind, body, created_at, attempts, next_at, error, dead FROM deliveries"
            " WHERE dead = ? AND (? IS NULL OR next_at <= ?) ORDER BY created_at, id LIMIT ?",
            (int(dead), due, due, limit),
        )
        return [Delivery(*row) for row in [(*facts, bool(dead)) for *facts, dead in rows]]

    async def load(self, session: SessionId) -> StoredSession | None:
        """See :meth:`UpdateStore.load`."""
        async with self._reading:
            with _translated():
                await self._read.execute("BEGIN")  # one view of record, snapshot and rows
                try:
                    return await self._load(session)
                finally:
                    await self._read.execute("ROLLBACK")

    async def _load(self, session: SessionId) -> StoredSession | None:
        found = await self._fetch(
            "SELECT id, generation, created_at, updated_at, status, title, last_seq FROM sessions"
            " WHERE id = ? AND deleted_at IS NULL",
            (session,),
        )
        if not found:
            return None
        *record, last_seq = found[0]
        stored = await self._fetch(
            "SELECT seq, data, checksum FROM (SELECT seq, data, checksum FROM snapshots WHERE session = ?"
            " ORDER BY seq DESC LIMIT 1)"
            " UNION ALL SELECT seq, data, checksum FROM (SELECT seq, data, checksum FROM updates"
            " WHERE session = ? ORDER BY seq)",
            (session, session),
        )
        runs, writers = [await self._fetch(query, (session,)) for query in sqlite_entries.QUERIES]
        return StoredSession(
            SessionRecord(*record),
            _verified(session, stored, last_seq),
            sqlite_entries.runs(runs),
            sqlite_entries.writers(writers),
        )

    # -- inside ------------------------------------------------------------------------------------------------

    async def _select(self, statement: str, values: Sequence[Any]) -> list[Any]:
        async with self._reading:
            with _translated():
                return await self._fetch(statement, values)

    async def _fetch(self, statement: str, values: Sequence[Any]) -> list[Any]:
        async with self._read.execute(statement, values) as cursor:
            return list(await cursor.fetchall())

    async def _submit(self, job: _Job) -> None:
        if self._writer is None or self._writer.done():
            raise StorageError("the store is closed")
        queued = _Queued(job, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(queued)
        await queued.done

    async def _run(self) -> None:
        """Write, for as long as the store is open: everything that waits goes into one transaction."""
        closing = False
        while not closing:
            group = [await self._queue.get()]
            while not self._queue.empty():
                group.append(self._queue.get_nowait())
            closing = None in group
            self._writing = jobs = [queued for queued in group if queued is not None]
            if jobs and not await self._commit(jobs) and len(jobs) > 1:
                for queued in jobs:  # one of them failed; give each its own transaction and its own error
                    await self._commit([queued])

    def _writer_ended(self, writer: asyncio.Task[None]) -> None:
        """Leave nobody waiting, should the writer ever fail in a way that is not SQLite's."""
        if writer.cancelled() or (error := writer.exception()) is None:
            return
        _log.error("the writer failed", exc_info=error)
        waiting = [*self._writing, *(self._queue.get_nowait() for _ in range(self._queue.qsize()))]
        for queued in waiting:
            if queued is not None and not queued.done.done():
                queued.done.set_exception(StorageError(f"the writer failed: {error!r}"))

    async def _commit(self, jobs: Sequence[_Queued]) -> bool:
        """Run *jobs* in one transaction; report success to all, or failure if there is only one."""
        try:
            with _translated():
                async with _transaction(self._write) as connection:
                    for queued in jobs:
                        await queued.job(connection)
        except CrdtSessionsError as error:
            if len(jobs) == 1 and not jobs[0].done.done():
                jobs[0].done.set_exception(error)
            return False
        for queued in jobs:
            if not queued.done.done():  # the caller may have been cancelled
                queued.done.set_result(None)
        return True


class _translated:
    """Turns SQLite's errors into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise StorageError(f"SQLite: {error}") from error


async def _connect(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {_BUSY_MS}"):
        await connection.execute(f"PRAGMA {pragma}")
    return connection


@asynccontextmanager
async def _transaction(connection: aiosqlite.Connection) -> AsyncIterator[aiosqlite.Connection]:
    await connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        failpoints.reach("before-commit")
        await connection.execute("COMMIT")
        failpoints.reach("after-commit")
    except BaseException:
        if connection.in_transaction:  # some errors roll back by themselves
            await connection.execute("ROLLBACK")
        raise


async def _run(connection: aiosqlite.Connection, statement: str, values: Sequence[Any]) -> int:
    """Execute a statement and return how many rows it changed."""
    async with connection.execute(statement, values) as cursor:
        return cursor.rowcount


async def _require(connection: aiosqlite.Connection, session: SessionId) -> None:
    async with connection.execute("SELECT 1 FROM sessions WHERE id = ? AND deleted_at IS NULL", (session,)) as cursor:
        if await cursor.fetchone() is None:
            raise SessionNotFound(session=session)


async def _insert(connection: aiosqlite.Connection, table: str, session: SessionId, rows: Sequence[Row]) -> None:
    await connection.executemany(
        f"INSERT INTO {table} (session, seq, data, checksum) VALUES (?, ?, ?, ?)",
        [(session, row.seq, row.update, checksum(session, row)) for row in rows],
    )


def checksum(session: SessionId, row: Row) -> int:
    """Return the CRC-32 over the row's place and bytes: a row that was moved is as wrong as one that was changed."""
    return zlib.crc32(row.update, zlib.crc32(f"{session}/{row.seq}".encode()))


def _verified(session: SessionId, stored: Sequence[tuple[int, bytes, int]], last_seq: int) -> tuple[Row, ...]:
    rows: list[Row] = []
    for seq, data, expected in stored:
        row = Row(Seq(seq), data)
        if checksum(session, row) != expected:
            raise DamagedLog(session=session, seq=seq, why="does not match its checksum")
        if rows and seq != rows[-1].seq + 1:
            raise DamagedLog(session=session, seq=rows[-1].seq + 1, why="is missing")
        rows.append(row)
    if not rows or rows[-1].seq != last_seq:
        raise DamagedLog(session=session, seq=last_seq, why="is missing")
    return tuple(rows)
