"""Sessions in one SQLite file: WAL, one writer, group commit.

Whatever waits while a transaction is being committed goes into the next one together, so the cost of
making things durable is shared and an idle store adds no delay. ``synchronous=FULL`` means that a call
returns after fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import aiosqlite

from crdt_sessions import failpoints
from crdt_sessions.errors import (
    CrdtSessionsError,
    DamagedLog,
    ForeignDatabase,
    NotFound,
    SessionExists,
    SessionNotFound,
    StorageError,
    StoreUnavailable,
)
from crdt_sessions.ids import Millis, Seq, SessionId, lineage_of, reference, tenant_of
from crdt_sessions.limits import Limits, Retention
from crdt_sessions.storage import sqlite_audit, sqlite_entries, sqlite_lists
from crdt_sessions.storage.base import (
    NO_ENTRIES,
    AuditEntry,
    Delivery,
    Entries,
    FoundRun,
    History,
    Revocation,
    Row,
    SessionRecord,
    StoredSession,
    Version,
)
from crdt_sessions.storage.checkpoints import Checkpoint, Checkpoints, WriteAheadLog
from crdt_sessions.storage.identity import Identity
from crdt_sessions.storage.lock import DatabaseLock
from crdt_sessions.storage.migrations import migrate
from crdt_sessions.storage.ownership import refuse_foreign
from crdt_sessions.storage.packing import pack, unpack
from crdt_sessions.storage.retention import kept
from crdt_sessions.storage.sqlite_errors import translated

_log = logging.getLogger("crdt_sessions.storage")

Result = TypeVar("Result")
_StoredRow = tuple[str, int, bytes, int, bool, int]
_Job = Callable[[sqlite3.Connection], None]

_COLUMNS = "id, generation, created_at, updated_at, status, title, lineage"
_RECORD = f"SELECT {_COLUMNS} FROM sessions"
_ROWS_UP_TO = (
    "WITH newest AS (SELECT * FROM snapshots WHERE session = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1)"
    " SELECT seq, data, checksum, waits, size FROM newest UNION ALL SELECT seq, data, checksum, waits, 0 FROM"
    " (SELECT * FROM updates WHERE session = ?1 AND seq <= ?2 AND seq > coalesce((SELECT seq FROM newest), 0)"
    " ORDER BY seq)"
)
"""The newest snapshot, then the rows behind it."""
_ADVANCE = (
    "UPDATE sessions SET last_seq = head.last, updated_at = head.at FROM"
    " (SELECT json_extract(value, '$[0]') AS session, json_extract(value, '$[1]') AS before,"
    " json_extract(value, '$[2]') AS last, json_extract(value, '$[3]') AS at FROM json_each(?)) AS head"
    " WHERE id = head.session AND deleted_at IS NULL AND (head.before IS NULL OR"
    " head.before = max(last_seq, coalesce((SELECT max(seq) FROM updates WHERE session = id), 0)))"
)
"""Move the ends of many logs, as far as they are where they should be, or where is null."""
_INSERT_SNAPSHOT = (
    "INSERT INTO snapshots (session, seq, checksum, waits, data, size, name, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT = "INSERT INTO updates (session, seq, data, checksum, waits, at) VALUES"
_PLACES = "(?, ?, ?, ?, ?, ?)"
_AT_ONCE = 64
"""How many rows a statement inserts at most; there is one for each number, compiled once."""
_CACHED_STATEMENTS = 3 * _AT_ONCE
_CATCH_UP_S = 1.0
"""How far ``sessions`` may lag behind the rows."""
_MOST_KNOWN = 10_000
"""Sessions of which is remembered where their logs end; a row of another one is written with a look at the table."""
_NO_BOUND = 2**62
_MAX_REST_S = 0.001
_LOOK_S = 0.1
"""How often it is looked whether the files still have their names."""
_PAGE_BYTES = 1024
"""Of a new database: a token writes a page or two into the log, whose size is what its commit costs
(``docs/decisions/0023-a-bounded-log.md``)."""
_PAGES_BYTES = 8 * _PAGE_BYTES
"""What a row puts into the log beside its update, at most but for what is rare."""
_PROBE_BYTES = 65_536
_BUSY_MS = 2000


class _Append(NamedTuple):
    """Rows for one session. Those of many sessions are one statement."""

    session: SessionId
    rows: Sequence[Row]
    entries: Entries
    now: Millis


@dataclass(slots=True)
class _Queued:
    job: _Job | _Append
    done: asyncio.Future[Any]
    deletes: SessionId | None = None


class _Heads:
    """Where the logs end, as the writer knows it. Only its thread changes this.

    Where nothing is appended but a few rows, a commit is one statement: what ``sessions`` says of the ends of their
    logs follows with the next transaction that does anything else, after a second at the latest
    (``docs/decisions/0019-one-statement-for-a-commit.md``).
    """

    def __init__(self) -> None:
        self._last: dict[SessionId, int] = {}  # of those that were written to lately
        self.behind: dict[SessionId, tuple[int, Millis]] = {}
        """What ``sessions`` does not say yet: the last row, and when it was written."""

    def followed_by(self, jobs: Sequence[_Queued]) -> list[_Append] | None:
        """Return *jobs*, if they are nothing but a few rows that follow the known ends of logs."""
        ends: dict[SessionId, int] = {}
        appends: list[_Append] = []
        count = 0
        for queued in jobs:
            job = queued.job
            if not isinstance(job, _Append) or job.entries is not NO_ENTRIES:
                return None
            if ends.get(job.session, self._last.get(job.session)) != job.rows[0].seq - 1:
                return None
            ends[job.session] = job.rows[-1].seq
            appends.append(job)
            count += len(job.rows)
        return appends if count <= _AT_ONCE else None

    def appended(self, jobs: Sequence[_Queued], *, told: bool) -> None:
        """Note that the rows of *jobs* were committed, and whether ``sessions`` was *told* of them."""
        if told:
            self.behind.clear()
        if len(self._last) > _MOST_KNOWN:
            self._last.clear()
        for queued in jobs:
            if queued.deletes is not None:
                self._last.pop(queued.deletes, None)
            if not isinstance(job := queued.job, _Append):
                continue
            self._last[job.session] = job.rows[-1].seq
            if not told:
                self.behind[job.session] = (job.rows[-1].seq, job.now)

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Tell ``sessions`` of the ends of the logs."""
        if self.behind:
            heads = [(session, None, last, at) for session, (last, at) in self.behind.items()]
            _run(connection, _ADVANCE, (json.dumps(heads),))


class SqliteStore:
    """An :class:`UpdateStore` in a SQLite file. Open it as a context manager.

    Args:
        path: the database file; it is created if missing. A lock on it, and on ``<path>.lock`` beside it, keeps a
            second process out.
        max_bytes: what the database may grow to; then it counts as full until something is deleted.
        max_wal_bytes: what its write-ahead log may grow to; by one commit more, and while another process reads one
            state of it, such as a backup, by what is written meanwhile.

    Raises:
        DatabaseInUse: (on entering) another process has it open.
        DatabaseHasOtherNames: (on entering) the file has several hard links.
        ForeignDatabase: (on entering) it is no database, or one of something else. It is left as it is.
        NewerSchema: (on entering) a newer release wrote it.
        StorageError: (on entering) it cannot be opened.
    """

    def __init__(
        self, path: Path | str, *, max_bytes: int | None = None, max_wal_bytes: int = Limits().max_wal_bytes
    ) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._max_wal_bytes = max_wal_bytes
        self._lock = DatabaseLock(self.path)
        self._queue: asyncio.Queue[_Queued | None] = asyncio.Queue()
        self._writer: asyncio.Task[None] | None = None
        self._writing: list[_Queued] = []
        self._reading = asyncio.Lock()
        self._heads = _Heads()
        self._catching_up: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._write: aiosqlite.Connection
        self._read: aiosqlite.Connection
        self._beside: aiosqlite.Connection
        """For checkpoints."""
        self._identity: Identity
        self._checkpoints: Checkpoints

    async def __aenter__(self) -> SqliteStore:
        async with contextlib.AsyncExitStack() as undo:
            self._lock.acquire()
            undo.callback(self._lock.release)
            with translated(self.path):
                try:
                    refuse_foreign(self.path)
                except ForeignDatabase:
                    self._lock.leave_no_trace()
                    raise
                self._write = await _connect(self.path)
                undo.push_async_callback(self._write.close)
                await migrate(self._write, str(self.path))
                await self._limit_size()
                self._read = await _connect(self.path)
                undo.push_async_callback(self._read.close)
                self._beside = await _connect(self.path)
                undo.push_async_callback(self._beside.close)
                self._identity = Identity(self.path)
                self._checkpoints = await self._watch_log()
            undo.pop_all()
        self._writer = asyncio.create_task(self._run(), name="sqlite writer")
        self._writer.add_done_callback(self._writer_ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _limit_size(self) -> None:
        if self._max_bytes is not None:
            pages = max(1, self._max_bytes // await self._page_bytes())
            await self._write.execute(f"PRAGMA max_page_count = {pages}")

    async def _watch_log(self) -> Checkpoints:
        await self._write.execute("PRAGMA wal_autocheckpoint = 0")
        await self._write.execute(f"PRAGMA journal_size_limit = {self._max_wal_bytes}")  # what is over goes, at last
        await self._beside.execute("PRAGMA busy_timeout = 0")
        log = WriteAheadLog(Path(f"{self.path.resolve()}-wal"), await self._page_bytes())
        return Checkpoints(log, self._max_wal_bytes, self._checkpoint)

    async def _checkpoint(self, mode: str) -> Checkpoint:
        ((busy, pages, copied),) = await self._beside.execute_fetchall(f"PRAGMA wal_checkpoint({mode})")
        return Checkpoint(bool(busy), pages, copied)

    async def _page_bytes(self) -> int:
        ((page_bytes,),) = await self._write.execute_fetchall("PRAGMA page_size")
        return int(page_bytes)

    async def close(self) -> None:
        """Finish the writes that wait, then close the file."""
        if self._writer is None:
            return
        if self._catching_up is not None:
            self._catching_up.cancel()
        self._catch_up()
        self._queue.put_nowait(None)
        await asyncio.wait({self._writer})
        self._writer = None
        await self._checkpoints.idle()
        self._checkpoints.close()
        await self._beside.close()
        await self._read.close()
        await self._write.close()
        self._lock.release()

    # -- writing -----------------------------------------------------------------------------------------------

    async def create(
        self,
        session: SessionId,
        seed: bytes,
        *,
        generation: int,
        title: str | None,
        now: Millis,
        lineage: str | None = None,
    ) -> SessionRecord:
        """See :meth:`UpdateStore.create`."""

        def job(connection: sqlite3.Connection) -> None:
            _insert_session(connection, record, Seq(1))
            _insert(connection, _stored(session, [Row(Seq(1), seed)], now))

        if generation < 1:
            raise ValueError("the first generation is 1")
        record = SessionRecord(session, generation, now, now, "active", title, lineage or lineage_of(generation, now))
        await self._submit(job)
        return record

    def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> asyncio.Future[None]:
        """See :meth:`UpdateStore.append`."""
        if not rows or rows[-1].seq - rows[0].seq + 1 != len(rows):
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if rows:
                done.set_exception(StorageError(f"rows for {session!r} have gaps"))
            else:
                done.set_result(None)
            return done
        return self._submit(_Append(session, rows, entries, now))

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
        """See :meth:`UpdateStore.replace_with_snapshot`."""
        stored = await asyncio.to_thread(_packed, session, snapshot)

        def job(connection: sqlite3.Connection) -> None:
            _require(connection, session)
            written = "SELECT at FROM updates WHERE session = ? AND seq = ?"
            at = connection.execute(written, (session, snapshot.seq)).fetchone() or (now,)
            _run(
                connection,
                f"{_INSERT_SNAPSHOT} ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name)",
                (*stored, name, *at),
            )
            failpoints.reach("snapshot")
            if not keep_rows:
                _run(connection, "DELETE FROM updates WHERE session = ? AND seq <= ?", (session, snapshot.seq))
            versions = _versions(connection, session)
            gone = {version.seq for version in versions} - kept(versions, retention)
            gone.discard(_base(connection, session))
            connection.executemany(
                "DELETE FROM snapshots WHERE session = ? AND seq = ?", [(session, seq) for seq in gone]
            )
            failpoints.reach("truncate")

        await self._submit(job)

    async def adopt(
        self, record: SessionRecord, snapshots: Sequence[tuple[Version, Row]], *, entries: Entries = NO_ENTRIES
    ) -> None:
        """See :meth:`UpdateStore.adopt`."""
        stored = await asyncio.to_thread(lambda: [_packed(record.id, row) for _, row in snapshots])

        def job(connection: sqlite3.Connection) -> None:
            _insert_session(connection, record, snapshots[-1][1].seq)
            facts = [(version.name, version.at) for version, _ in snapshots]
            connection.executemany(
                _INSERT_SNAPSHOT, [(*row, *about) for row, about in zip(stored, facts, strict=True)]
            )
            sqlite_entries.put(connection, record.id, entries)

        await self._submit(job)

    async def rename_version(self, session: SessionId, seq: Seq, name: str | None) -> None:
        """See :meth:`UpdateStore.rename_version`."""

        def job(connection: sqlite3.Connection) -> None:
            _require(connection, session)
            statement = "UPDATE snapshots SET name = ? WHERE session = ? AND seq = ?"
            if not _run(connection, statement, (name, session, seq)):
                raise NotFound(what="version", id=str(seq))

        await self._submit(job)

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        """See :meth:`UpdateStore.describe`."""

        def job(connection: sqlite3.Connection) -> None:
            _require(connection, session)
            _run(
                connection,
                "UPDATE sessions SET title = coalesce(?, title), status = coalesce(?, status), updated_at = ?"
                " WHERE id = ?",
                (title, status, now, session),
            )

        await self._submit(job)

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        """See :meth:`UpdateStore.delete`."""

        def job(connection: sqlite3.Connection) -> None:
            _require(connection, session)
            connection.execute("PRAGMA secure_delete = ON")  # nothing of it is to be found in the file afterwards
            for table in ("updates", "snapshots", *sqlite_entries.TABLES):
                _run(connection, f"DELETE FROM {table} WHERE session = ?", (session,))
            connection.execute("PRAGMA secure_delete = OFF")
            _run(
                connection,
                "UPDATE sessions SET deleted_at = ?, title = NULL, status = 'deleted', last_seq = 0 WHERE id = ?",
                (now, session),
            )

        await self._submit(job, deletes=session)

    async def check(self) -> None:
        """See :meth:`UpdateStore.check`. Writes a block and takes it back, so that the disk must have room for it."""

        def write(connection: sqlite3.Connection) -> None:
            _run(connection, "INSERT OR REPLACE INTO probe VALUES (1, zeroblob(?))", (_PROBE_BYTES,))

        def take_back(connection: sqlite3.Connection) -> None:
            _run(connection, "DELETE FROM probe", ())

        self._identity.check()
        await self._submit(write)
        await self._submit(take_back)

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        """See :meth:`UpdateStore.record_step`."""

        def job(connection: sqlite3.Connection) -> None:
            _require(connection, session)
            _run(
                connection, "INSERT INTO steps VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (session, run, key, value)
            )

        await self._submit(job)
        return await self.step(session, run, key) or value

    async def delivered(self, id: str) -> None:
        """See :meth:`UpdateStore.delivered`."""

        def job(connection: sqlite3.Connection) -> None:
            _run(connection, "DELETE FROM deliveries WHERE id = ?", (id,))

        await self._submit(job)

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
        """See :meth:`UpdateStore.postpone`."""
        changed: list[int] = []

        def job(connection: sqlite3.Connection) -> None:
            statement = (
                "UPDATE deliveries SET attempts = ?1, next_at = ?2, error = ?3, dead = ?4 WHERE id = ?5 AND"
                " (?6 IS NULL OR session IN (SELECT id FROM sessions WHERE tenant = ?6))"
            )
            changed.append(_run(connection, statement, (attempts, next_at, error, int(dead), id, tenant)))

        await self._submit(job)
        return changed[-1] > 0

    async def set_member(self, session: SessionId, principal: str, role: str | None) -> None:
        """See :meth:`UpdateStore.set_member`."""

        def job(connection: sqlite3.Connection) -> None:
            _require(connection, session)
            if role is None:
                _run(connection, "DELETE FROM members WHERE session = ? AND principal = ?", (session, principal))
            else:
                _run(connection, "INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (session, principal, role))

        await self._submit(job)

    async def revoke(self, revocation: Revocation) -> None:
        """See :meth:`UpdateStore.revoke`."""
        facts = (revocation.tenant, revocation.kind, revocation.value, revocation.at)

        def job(connection: sqlite3.Connection) -> None:
            _run(connection, "INSERT OR REPLACE INTO revocations VALUES (?, ?, ?, ?)", facts)

        await self._submit(job)

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """See :meth:`UpdateStore.record`."""
        await self._submit(lambda connection: sqlite_audit.put(connection, entries))

    # -- reading -----------------------------------------------------------------------------------------------

    async def get(self, session: SessionId) -> SessionRecord | None:
        """See :meth:`UpdateStore.get`."""
        await self._caught_up(session)
        rows = await self._select(f"{_RECORD} WHERE id = ? AND deleted_at IS NULL", (session,))
        return SessionRecord(*rows[0]) if rows else None

    async def last_generation(self, session: SessionId) -> int:
        """See :meth:`UpdateStore.last_generation`."""
        rows = await self._select("SELECT generation FROM sessions WHERE id = ?", (session,))
        return int(rows[0][0]) if rows else 0

    async def sessions(
        self,
        *,
        after: SessionId | None,
        limit: int,
        tenant: str | None = None,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
    ) -> Sequence[SessionRecord]:
        """See :meth:`UpdateStore.sessions`."""
        await self._caught_up()
        of_tenant, which = _of_tenant(tenant)
        of_status, ones = sqlite_lists.of_status(statuses)
        of_member, whose = sqlite_lists.of_member(member)
        rows = await self._select(
            f"{_RECORD} WHERE deleted_at IS NULL AND id > ?{of_tenant}{of_status}{of_member} ORDER BY id LIMIT ?",
            (after or "", *which, *ones, *whose, limit),
        )
        return [SessionRecord(*row) for row in rows]

    async def recent_sessions(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
        before: tuple[Millis, SessionId] | None = None,
        limit: int,
    ) -> Sequence[SessionRecord]:
        """See :meth:`UpdateStore.recent_sessions`."""
        await self._caught_up()
        query = sqlite_lists.recent_sessions(
            _COLUMNS, tenant, statuses=statuses, member=member, before=before, limit=limit
        )
        return [SessionRecord(*row) for row in await self._select(*query)]

    async def count(self, tenant: str) -> int:
        """See :meth:`UpdateStore.count`."""
        statement = "SELECT count(*) FROM sessions WHERE deleted_at IS NULL AND tenant = ?"
        return int((await self._select(statement, (tenant,)))[0][0])

    async def ready_runs(
        self, agents: Sequence[str], *, limit: int, tenant: str | None = None
    ) -> Sequence[tuple[SessionId, str]]:
        """See :meth:`UpdateStore.ready_runs`."""
        of_tenant, which = _of_tenant(tenant, "sessions.tenant")
        rows = await self._select(
            "SELECT runs.session, runs.id FROM runs JOIN sessions ON sessions.id = runs.session"
            f" WHERE ready AND agent IN ({', '.join('?' * len(agents))}) AND sessions.status = 'active'{of_tenant}"
            " ORDER BY queued_at, runs.session, runs.id LIMIT ?",
            (*agents, *which, limit),
        )
        return [(SessionId(session), run) for session, run in rows]

    async def runs(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        answerer: str | None = None,
        before: tuple[Millis, SessionId, str] | None = None,
        limit: int,
    ) -> Sequence[FoundRun]:
        """See :meth:`UpdateStore.runs`."""
        query = sqlite_lists.runs(tenant, statuses=statuses, answerer=answerer, before=before, limit=limit)
        return sqlite_lists.found_runs(await self._select(*query))

    async def note_agents(self, tenant: str, names: Sequence[str], now: Millis) -> None:
        """See :meth:`UpdateStore.note_agents`."""
        await self._submit(lambda connection: sqlite_lists.note_agents(connection, tenant, names, now))

    async def agents(self, tenant: str) -> Mapping[str, Millis]:
        """See :meth:`UpdateStore.agents`."""
        return dict(await self._select("SELECT name, seen_at FROM agents WHERE tenant = ? ORDER BY name", (tenant,)))

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

    async def deliveries(
        self, *, due: Millis | None, dead: bool = False, limit: int, tenant: str | None = None
    ) -> Sequence[Delivery]:
        """See :meth:`UpdateStore.deliveries`."""
        of_tenant, which = _of_tenant(tenant)
        if of_tenant:
            of_tenant = f" AND session IN (SELECT id FROM sessions WHERE true{of_tenant})"
        rows = await self._select(
            "SELECT id, endpoint, session, kind, body, created_at, attempts, next_at, error, dead FROM deliveries"
            f" WHERE dead = ? AND (? IS NULL OR next_at <= ?){of_tenant} ORDER BY created_at, id LIMIT ?",
            (int(dead), due, due, *which, limit),
        )
        return [Delivery(*row) for row in [(*facts, bool(dead)) for *facts, dead in rows]]

    async def members(self, session: SessionId) -> Mapping[str, str]:
        """See :meth:`UpdateStore.members`."""
        return dict(await self._select("SELECT principal, role FROM members WHERE session = ?", (session,)))

    async def revocations(self) -> Sequence[Revocation]:
        """See :meth:`UpdateStore.revocations`."""
        return [Revocation(*row) for row in await self._select("SELECT tenant, kind, value, at FROM revocations", ())]

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
        """See :meth:`UpdateStore.audit`."""
        statement, parameters = sqlite_audit.query(
            tenant, session=session, principal=principal, action=action, after=after, limit=limit
        )
        return sqlite_audit.entries(await self._select(statement, parameters))

    async def load(self, session: SessionId) -> StoredSession | None:
        """See :meth:`UpdateStore.load`."""
        await self._caught_up(session)
        return await self._view(lambda connection: _load(connection, session))

    async def history(self, session: SessionId) -> History:
        """See :meth:`UpdateStore.history`."""
        return await self._view(lambda connection: _history(connection, session))

    async def load_version(self, session: SessionId, seq: Seq) -> Sequence[Row]:
        """See :meth:`UpdateStore.load_version`."""

        def read(connection: sqlite3.Connection) -> list[Any]:
            _require(connection, session)
            return connection.execute(_ROWS_UP_TO, (session, seq)).fetchall()

        stored = await self._view(read)
        if not stored or stored[-1][0] != seq or stored[0][0] + len(stored) - 1 != seq:
            raise NotFound(what="version", id=str(seq))
        return _verified(session, stored, seq)

    # -- inside ------------------------------------------------------------------------------------------------

    async def _view(self, read: Callable[[sqlite3.Connection], Result]) -> Result:
        """Read everything as it is at one moment."""

        def at_one_moment(connection: sqlite3.Connection) -> Result:
            connection.execute("BEGIN")
            try:
                return read(connection)
            finally:
                connection.execute("ROLLBACK")

        return await self._ask(at_one_moment)

    async def _select(self, statement: str, values: Sequence[Any]) -> list[Any]:
        return await self._ask(lambda connection: connection.execute(statement, values).fetchall())

    async def _ask(self, read: Callable[[sqlite3.Connection], Result]) -> Result:
        async with self._reading:
            with translated():
                return await _in_its_thread(self._read, read)

    def _submit(self, job: _Job | _Append, *, deletes: SessionId | None = None) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._writer is None or self._writer.done():
            done.set_exception(StorageError("the store is closed"))
        else:
            self._queue.put_nowait(_Queued(job, done, deletes))
        return done

    async def _caught_up(self, session: SessionId | None = None) -> None:
        """Return once ``sessions`` says where a log ends, or all: any transaction but the plainest sees to that."""
        behind = self._heads.behind
        if behind and (session is None or session in behind):
            with contextlib.suppress(StoreUnavailable):  # one can read all the same; only times are a second old
                await self._submit(lambda connection: None)

    def _catch_up_soon(self) -> None:
        if self._heads.behind and self._catching_up is None:
            self._catching_up = asyncio.get_running_loop().call_later(_CATCH_UP_S, self._catch_up)

    def _catch_up(self) -> None:
        self._catching_up = None
        trying = self._submit(lambda connection: None)
        trying.add_done_callback(lambda done: done.cancelled() or done.exception())  # the next commit tries again

    async def _run(self) -> None:
        """Write, for as long as the store is open: everything that waits goes into one transaction."""
        closing = False
        loop = asyncio.get_running_loop()
        free_at = 0.0
        while not closing:
            group = [await self._queue.get()]
            await asyncio.sleep(max(0.0, free_at - loop.time()))  # 0: what comes in this turn of the loop may join
            while not self._queue.empty():
                group.append(self._queue.get_nowait())
            closing = None in group
            self._writing = jobs = [queued for queued in group if queued is not None]
            begun = loop.time()
            if jobs and not await self._commit(jobs, begun) and len(jobs) > 1:
                for queued in jobs:  # one of them failed; give each its own transaction and its own error
                    await self._commit([queued], begun)
            self._catch_up_soon()
            if self._checkpoints.look(held_up=self._reading.locked(), written=_log_bytes(jobs)):
                async with self._reading:  # whoever reads an older state keeps the log from beginning anew
                    await self._checkpoints.begin_anew()
            now = loop.time()
            free_at = now + min(now - begun, _MAX_REST_S)

    def _writer_ended(self, writer: asyncio.Task[None]) -> None:
        """Leave nobody waiting, should the writer ever fail in a way that is not SQLite's."""
        if writer.cancelled() or (error := writer.exception()) is None:
            return
        found = reference()
        _log.error("the writer failed", exc_info=error, extra={"reference": found})
        waiting = [*self._writing, *(self._queue.get_nowait() for _ in range(self._queue.qsize()))]
        for queued in waiting:
            if queued is not None and not queued.done.done():
                queued.done.set_exception(StorageError(f"the store failed; the log says more (reference {found})"))

    async def _commit(self, jobs: Sequence[_Queued], now: float) -> bool:
        """Run *jobs* in one transaction; report success to all, or failure if there is only one."""
        try:
            if now >= self._look_at:
                self._look_at_files(now)
            with translated():
                await _in_its_thread(self._write, lambda connection: _transact(connection, jobs, self._heads))
        except CrdtSessionsError as error:
            if len(jobs) == 1 and not jobs[0].done.done():
                jobs[0].done.set_exception(error)
            return False
        for queued in jobs:
            if not queued.done.done():  # the caller may have been cancelled
                queued.done.set_result(None)
        return True

    def _look_at_files(self, now: float) -> None:
        """Return if what is written will be where it can be found again.

        Raises:
            DatabaseGone: it is not.
        """
        self._identity.check()
        self._look_at = now + _LOOK_S


def _log_bytes(jobs: Sequence[_Queued]) -> int | None:
    """Return about how many bytes *jobs* put into the write-ahead log; None if they are more than rows."""
    size = 0
    for queued in jobs:
        if not isinstance(job := queued.job, _Append) or job.entries is not NO_ENTRIES:
            return None
        for row in job.rows:
            size += _PAGES_BYTES + len(row.update)
    return size


async def _in_its_thread(connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], Result]) -> Result:
    """Do *work*, many statements perhaps, in the connection's thread, and come back once.

    aiosqlite goes to the thread and back for every statement, which costs more than most statements do. What it
    does that with has no public name.
    """
    result: Result = await connection._execute(work, connection._conn)  # type: ignore[no-untyped-call]
    return result


def _base(connection: sqlite3.Connection, session: SessionId) -> Seq:
    """Return the number of the snapshot that the rows follow; 0 if they go back to the first one."""
    statement = (
        "SELECT coalesce(max(seq), 0) FROM snapshots WHERE session = ?1"
        " AND seq < coalesce((SELECT min(seq) FROM updates WHERE session = ?1), 9e18)"
    )
    return Seq(connection.execute(statement, (session,)).fetchone()[0])


def _versions(connection: sqlite3.Connection, session: SessionId) -> list[Version]:
    statement = "SELECT seq, at, iif(size, size, length(data)), name FROM snapshots WHERE session = ? ORDER BY seq"
    found = connection.execute(statement, (session,))
    return [Version(Seq(seq), Millis(at), size, name) for seq, at, size, name in found]


def _history(connection: sqlite3.Connection, session: SessionId) -> History:
    _require(connection, session)
    versions, base = _versions(connection, session), _base(connection, session)
    rows = connection.execute("SELECT seq, at FROM updates WHERE session = ? ORDER BY seq", (session,)).fetchall()
    points = [(version.seq, version.at) for version in versions if version.seq == base] + rows
    return History(versions, Seq(points[0][0]), Seq(points[-1][0]), [Millis(at) for _, at in points])


def _load(connection: sqlite3.Connection, session: SessionId) -> StoredSession | None:
    found = connection.execute(
        "SELECT id, generation, created_at, updated_at, status, title, lineage, last_seq FROM sessions"
        " WHERE id = ? AND deleted_at IS NULL",
        (session,),
    ).fetchone()
    if found is None:
        return None
    *record, last_seq = found
    stored = connection.execute(_ROWS_UP_TO, (session, _NO_BOUND)).fetchall()
    runs, writers = [connection.execute(query, (session,)).fetchall() for query in sqlite_entries.QUERIES]
    return StoredSession(
        SessionRecord(*record),
        _verified(session, stored, last_seq),
        sqlite_entries.runs(runs),
        sqlite_entries.writers(writers),
    )


async def _connect(path: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=_CACHED_STATEMENTS)
    try:
        for pragma in (
            f"page_size = {_PAGE_BYTES}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {_BUSY_MS}",
        ):
            await connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        await connection.close()  # its thread would outlive everything else, and hold the process
        raise
    return connection


def _transact(connection: sqlite3.Connection, jobs: Sequence[_Queued], heads: _Heads) -> None:
    appends = heads.followed_by(jobs)
    if appends is not None:
        _append_rows(connection, appends)
    else:
        _run_all(connection, jobs, heads)
    heads.appended(jobs, told=appends is None)


def _append_rows(connection: sqlite3.Connection, appends: Sequence[_Append]) -> None:
    """Append a few rows in a transaction of one statement, for which this thread waits for the lock only once."""
    for _ in appends:
        failpoints.reach("before-append")
    failpoints.reach("before-commit")
    _insert(connection, [row for each in appends for row in _stored(each.session, each.rows, each.now)])
    failpoints.reach("after-commit")


def _run_all(connection: sqlite3.Connection, jobs: Sequence[_Queued], heads: _Heads) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        heads.catch_up(connection)
        appends: list[_Append] = []
        for queued in jobs:
            if isinstance(queued.job, _Append):
                appends.append(queued.job)
            else:
                _append_all(connection, appends)
                appends.clear()
                queued.job(connection)
        _append_all(connection, appends)
        failpoints.reach("before-commit")
        connection.execute("COMMIT")
        failpoints.reach("after-commit")
    except BaseException:
        if connection.in_transaction:  # some errors roll back by themselves
            connection.execute("ROLLBACK")
        raise


def _run(connection: sqlite3.Connection, statement: str, values: Sequence[Any]) -> int:
    """Execute a statement and return how many rows it changed."""
    return connection.execute(statement, values).rowcount


def _require(connection: sqlite3.Connection, session: SessionId) -> None:
    found = connection.execute("SELECT 1 FROM sessions WHERE id = ? AND deleted_at IS NULL", (session,))
    if found.fetchone() is None:
        raise SessionNotFound(session=session)


def _of_tenant(tenant: str | None, column: str = "tenant") -> tuple[str, tuple[str, ...]]:
    """Return the condition for sessions of a tenant, to stand behind others, and its parameters."""
    return ("", ()) if tenant is None else (f" AND {column} = ?", (tenant,))


def _insert_session(connection: sqlite3.Connection, record: SessionRecord, last_seq: Seq) -> None:
    changed = _run(
        connection,
        "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " generation = excluded.generation, created_at = excluded.created_at,"
        " updated_at = excluded.updated_at, status = excluded.status, title = excluded.title,"
        " last_seq = excluded.last_seq, deleted_at = NULL, lineage = excluded.lineage"
        " WHERE deleted_at IS NOT NULL AND sessions.generation = excluded.generation - 1",
        (
            record.id, record.generation, record.created_at, record.updated_at, record.status, record.title, last_seq,
            tenant_of(record.id), record.lineage,
        ),
    )  # fmt: skip
    if not changed:
        raise SessionExists(session=record.id)


def _append_all(connection: sqlite3.Connection, appends: Sequence[_Append]) -> None:
    """Append rows to sessions. Few statements: each one costs this thread the interpreter's lock, and a wait for it.

    Raises:
        StorageError: the rows of one of them do not follow its last one.
    """
    if not appends:
        return
    for _ in appends:
        failpoints.reach("before-append")
    heads: dict[SessionId, tuple[SessionId, int, int, int]] = {}
    for each in appends:
        before, last = each.rows[0].seq - 1, each.rows[-1].seq
        if each.session in heads:
            _, start, end, _ = heads[each.session]
            before = start if before == end else _NO_BOUND
        heads[each.session] = (each.session, before, last, each.now)
    if _run(connection, _ADVANCE, (json.dumps(list(heads.values())),)) != len(heads):
        for each in appends:
            _require(connection, each.session)
        raise StorageError(f"rows for {' or '.join(each.session for each in appends)} do not follow the last one")
    _insert(connection, [row for each in appends for row in _stored(each.session, each.rows, each.now)])
    for each in appends:
        sqlite_entries.put(connection, each.session, each.entries)


def _insert(connection: sqlite3.Connection, rows: Sequence[_StoredRow]) -> None:
    for at in range(0, len(rows), _AT_ONCE):
        some = rows[at : at + _AT_ONCE]
        connection.execute(_insertion(len(some)), [value for row in some for value in row])


@functools.cache
def _insertion(count: int) -> str:
    return f"{_INSERT} {', '.join([_PLACES] * count)}"


def _stored(session: SessionId, rows: Sequence[Row], now: Millis) -> list[_StoredRow]:
    return [(session, row.seq, row.update, checksum(session, row), row.waits, now) for row in rows]


def _packed(session: SessionId, snapshot: Row) -> tuple[str, int, int, bool, bytes, int]:
    return (session, snapshot.seq, checksum(session, snapshot), snapshot.waits, *pack(snapshot.update))


def checksum(session: SessionId, row: Row) -> int:
    """Return the CRC-32 over the row's place and bytes: a row that was moved is as wrong as one that was changed."""
    return zlib.crc32(row.update, zlib.crc32(f"{session}/{row.seq}".encode()))


def _verified(
    session: SessionId, stored: Sequence[tuple[int, bytes, int, int, int]], last_seq: int
) -> tuple[Row, ...]:
    rows: list[Row] = []
    for seq, data, expected, waits, size in stored:
        update = unpack(data, size)
        row = Row(Seq(seq), update or b"", bool(waits))
        if update is None or checksum(session, row) != expected:
            raise DamagedLog(session=session, seq=seq, why="does not match its checksum")
        if rows and seq != rows[-1].seq + 1:
            raise DamagedLog(session=session, seq=rows[-1].seq + 1, why="is missing")
        rows.append(row)
    if not rows or rows[-1].seq < last_seq:
        raise DamagedLog(session=session, seq=last_seq, why="is missing")
    return tuple(rows)
