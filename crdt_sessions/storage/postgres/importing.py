"""Moves a SQLite file into the database: every session, stream and record, each verified before it is committed.

It may be killed at any time and run again: a session is one transaction, and what has no name of its own, such as
the audit log, is counted in a table in the transaction that copies it.

The file is locked meanwhile, so that no service writes to it, and is never changed.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crdt_sessions import failpoints
from crdt_sessions.errors import StorageError
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.postgres import checks, rows
from crdt_sessions.storage.postgres.connection import Connection, close
from crdt_sessions.storage.postgres.copying import (
    AGENTS,
    AUDIT,
    OF_SESSIONS,
    OF_STREAMS,
    REVOCATIONS,
    SESSION,
    STREAM,
    require_same,
)
from crdt_sessions.storage.postgres.errors import translated
from crdt_sessions.storage.postgres.migration import migrate
from crdt_sessions.storage.postgres.records import ADDED, USAGE_KEY
from crdt_sessions.storage.postgres.servers import Servers
from crdt_sessions.storage.postgres.store import SCHEMA
from crdt_sessions.storage.sqlite import rows as in_file
from crdt_sessions.storage.sqlite.errors import translated as reading
from crdt_sessions.storage.sqlite.inspection import Inspection
from crdt_sessions.storage.sqlite.lock import DatabaseLock
from crdt_sessions.storage.sqlite.migrations import STEPS
from crdt_sessions.storage.streams import stream_checksum

Progress = Callable[[str, int, int], None]
"""Called with what is copied, how much of it is done, and how much there is."""

_LOCK = 0x6372_6474_696D
"""Who imports holds this advisory lock."""
_AT_ONCE = 5_000
_SHOWN = 5
_MADE = (
    "CREATE TABLE IF NOT EXISTS imports (source text NOT NULL, part text NOT NULL, done bigint NOT NULL,"
    " at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (source, part))"
)
_NOTE = (
    "INSERT INTO imports (source, part, done) VALUES ($1, $2, $3)"
    " ON CONFLICT (source, part) DO UPDATE SET done = excluded.done, at = now()"
)
_CREATE = (
    f"INSERT INTO sessions ({', '.join(SESSION.columns)}, last_seq)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING RETURNING sid"
)
_REMEMBER = "UPDATE sessions SET generation = greatest(generation, $2) WHERE id = $1 AND deleted_at IS NOT NULL"
_STREAM = (
    f"INSERT INTO streams ({', '.join(STREAM.columns)}, source, version)"
    f" SELECT {', '.join(f'${at + 1}' for at in range(len(STREAM.columns)))},"
    f" (SELECT id FROM streams WHERE tenant = ${len(STREAM.columns) + 1} AND path = ${len(STREAM.columns) + 2}), 0"
    " ON CONFLICT DO NOTHING RETURNING id"
)
_FINGERPRINT = (
    "SELECT id, lineage, coalesce(deleted_at, 0), (SELECT max(seq) FROM updates WHERE session = id),"
    " (SELECT max(seq) FROM snapshots WHERE session = id) FROM sessions ORDER BY id",
    "SELECT count(*), max(id) FROM audit",
    "SELECT id, path, tail FROM streams ORDER BY id",
)


@dataclass(slots=True)
class Imported:
    """What an import has done."""

    copied: Counter[str] = field(default_factory=Counter)
    """Rows by table. Sessions are those that were not deleted."""
    there: int = 0
    """Sessions that an earlier run had copied."""


class Import:
    """A file to be moved into a database. Use it as a context manager: the file is locked meanwhile.

    Args:
        path: the file.
        url: of the database.
        schema: the PostgreSQL schema of the tables.

    Raises:
        DatabaseInUse: (on entering) a service has the file open.
        StorageError: (on entering) it is not a database of ours, is damaged, or is of an older release.
    """

    def __init__(self, path: Path, url: str, *, schema: str = SCHEMA) -> None:
        self._path = path
        self._url = url
        self._schema = schema
        self._lock = DatabaseLock(path)
        self._file: sqlite3.Connection
        self._source = ""

    def __enter__(self) -> Import:
        with Inspection(self._path) as inspection:
            if inspection.version != len(STEPS):
                raise StorageError(
                    f"{self._path} was written by an older release: start the service of this one on it once, which"
                    " brings it up to date"
                )
        self._lock.acquire()
        try:
            self._file = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
            with reading(self._path):
                self._source = self._fingerprint()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._lock.release()

    async def run(self, progress: Progress = lambda what, done, total: None, *, dry_run: bool = False) -> Imported:
        """Copy what is not there yet.

        Args:
            progress: called after each part.
            dry_run: only look whether it could be done; nothing is stored.

        Raises:
            StorageError: the database cannot be used, holds other sessions or streams of these names, or some of
                the file from before it was changed. Then nothing was stored. Where the connection is lost, what was
                copied stays, and another run goes on from there.
        """
        connection = await Servers(self._url, self._schema).connect("crdt-sessions import")
        try:
            await checks.check_server(connection, url=self._url, quorum=False)
            with translated(), reading(self._path):
                return await self._try(connection) if dry_run else await self._do(connection, progress)
        finally:
            await close(connection)

    async def _try(self, connection: Connection) -> Imported:
        """Say what a run would do, in a transaction that is taken back."""
        transaction = connection.transaction()
        await transaction.start()
        try:
            there = await self._look(connection)
        finally:
            await transaction.rollback()
        return Imported(Counter(dict(self._totals())), len(there))

    async def _do(self, connection: Connection, progress: Progress) -> Imported:
        there = await self._look(connection)
        done = Imported()
        await self._copy_known(connection, done)
        await self._copy_sessions(connection, there, done, progress)
        await self._part(connection, "usage", self._copy_totals, done)
        await self._part(connection, "streams", self._copy_streams, done, progress)
        await self._part(connection, "audit", self._copy_audit, done, progress)
        await connection.execute(_NOTE, self._source, "all", 1)
        return done

    # -- looking -------------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        """Return what tells this file, as it is, from others and from itself once somebody has written to it."""
        digest = hashlib.sha256()
        for statement in _FINGERPRINT:
            for row in self._file.execute(statement):
                digest.update(repr(row).encode(errors="backslashreplace"))
        return digest.hexdigest()

    def _totals(self) -> Iterator[tuple[str, int]]:
        """Yield how much there is in the file, by table."""
        for table in ("sessions", *(each.name for each in OF_SESSIONS), "streams", "audit", "revocations", "agents"):
            which = " WHERE deleted_at IS NULL" if table == "sessions" else ""
            yield table, self._count(table, which)

    def _count(self, table: str, which: str = "") -> int:
        return int(self._file.execute(f"SELECT count(*) FROM {table}{which}").fetchone()[0])

    async def _look(self, connection: Connection) -> set[str]:
        """Return which sessions an earlier run has copied, if nothing is in the way of the others."""
        await migrate(connection, self._schema)
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise StorageError("another import into this database is under way: wait until it has ended")
        await connection.execute(_MADE)
        there: set[str] = set()
        others: list[str] = []
        names = self._file.execute("SELECT id, lineage, deleted_at IS NULL FROM sessions ORDER BY id")
        while some := names.fetchmany(_AT_ONCE):
            known = await connection.fetch(
                "SELECT id, lineage FROM sessions WHERE id = ANY($1::text[])", [id for id, _, _ in some]
            )
            found: dict[str, str] = dict(map(tuple, known))
            there.update(id for id, lineage, _ in some if found.get(id) == lineage)
            others += [id for id, lineage, live in some if live and found.get(id, lineage) != lineage]
        if others:
            raise StorageError(_taken("sessions", others))
        begun = await connection.fetchval("SELECT EXISTS (SELECT FROM imports WHERE source = $1)", self._source)
        if there and not begun:
            raise StorageError(
                f"sessions of {self._path} were moved there before, and the file was written to since: import it into"
                " an empty database"
            )
        if not begun:
            await self._refuse_streams(connection)
            await connection.execute(_NOTE, self._source, "begun", 0)
        return there

    async def _refuse_streams(self, connection: Connection) -> None:
        taken = []
        paths = self._file.execute(f"SELECT {', '.join(STREAM.columns)} FROM streams")
        for tenant, path, *_ in STREAM.written(paths):
            if await connection.fetchval("SELECT 1 FROM streams WHERE tenant = $1 AND path = $2", tenant, path):
                taken.append(path)
        if taken:
            raise StorageError(_taken("streams", taken))

    # -- copying -------------------------------------------------------------------------------------------------

    async def _copy_known(self, connection: Connection, done: Imported) -> None:
        """Copy what is the same however often it is copied."""
        for table, key, value in ((REVOCATIONS, "tenant, kind, value", "at"), (AGENTS, "tenant, name", "seen_at")):
            names = ", ".join(table.columns)
            marks = ", ".join(f"${at + 1}" for at in range(len(table.columns)))
            known = self._file.execute(f"SELECT {names} FROM {table.name}").fetchall()
            await connection.executemany(
                f"INSERT INTO {table.name} ({names}) VALUES ({marks}) ON CONFLICT ({key})"
                f" DO UPDATE SET {value} = greatest({table.name}.{value}, excluded.{value})",
                known,
            )
            done.copied[table.name] += len(known)

    async def _copy_sessions(
        self, connection: Connection, there: set[str], done: Imported, progress: Progress
    ) -> None:
        names = [id for (id,) in self._file.execute("SELECT id FROM sessions ORDER BY id")]
        for number, id in enumerate(names, start=1):
            if id in there:
                done.there += 1
            else:
                async with connection.transaction():
                    await self._copy_session(connection, SessionId(id), done)
            progress("sessions", number, len(names))

    async def _copy_session(self, connection: Connection, id: SessionId, done: Imported) -> None:
        ((*facts,),) = SESSION.written(
            self._file.execute(f"SELECT {', '.join(SESSION.columns)} FROM sessions WHERE id = ?", (id,))
        )
        deleted = facts[-1] is not None
        stored = None if deleted else in_file.load(self._file, id)
        sid = await connection.fetchval(_CREATE, *facts, 0 if stored is None else stored.last_seq)
        if deleted:
            await connection.execute(_REMEMBER, id, facts[SESSION.columns.index("generation")])
            return
        if sid is None:
            raise StorageError(_taken("sessions", [id]))
        for table in OF_SESSIONS:
            found = table.read(self._file, id)
            await table.copy(connection, sid if table.key == "sid" else id, found)
            done.copied[table.name] += len(found)
        # read as the services of both read it, checksums and gaps included
        if await rows.load(connection, id) != stored:
            raise StorageError(f"what was read back of the session {id!r} is not what was sent")
        failpoints.reach("import")
        done.copied["sessions"] += 1

    async def _part(self, connection: Connection, part: str, copy: Callable[..., Any], *more: Any) -> None:
        """Copy what is counted, from where the last run has come to."""
        found = await connection.fetchval(
            "SELECT done FROM imports WHERE source = $1 AND part = $2", self._source, part
        )
        await copy(connection, found or 0, *more)

    async def _copy_totals(self, connection: Connection, before: int, done: Imported) -> None:
        """Add what deleted sessions have used, which counts for nobody but their tenants."""
        if before:
            return
        table = next(each for each in OF_SESSIONS if each.name == "usage")
        names = ("session", *table.columns)
        marks = ", ".join(f"${at + 1}" for at in range(len(names)))
        statement = (
            f"INSERT INTO usage ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({USAGE_KEY}) DO UPDATE SET {ADDED}"
        )
        found = table.read(self._file, "")
        async with connection.transaction():
            await connection.executemany(statement, [("", *row) for row in found])
            await connection.execute(_NOTE, self._source, "usage", 1)
            failpoints.reach("import")
        done.copied["usage"] += len(found)

    async def _copy_streams(self, connection: Connection, before: int, done: Imported, progress: Progress) -> None:
        total = self._count("streams")
        ids = [id for (id,) in self._file.execute("SELECT id FROM streams WHERE id > ? ORDER BY id", (before,))]
        for number, id in enumerate(ids, start=1 + total - len(ids)):
            async with connection.transaction():
                await self._copy_stream(connection, id, done)
                await connection.execute(_NOTE, self._source, "streams", id)
                failpoints.reach("import")
            progress("streams", number, total)

    async def _copy_stream(self, connection: Connection, id: int, done: Imported) -> None:
        (facts,) = STREAM.read(self._file, id)
        source = self._file.execute(
            "SELECT tenant, path FROM streams WHERE id = (SELECT source FROM streams WHERE id = ?)", (id,)
        ).fetchone()
        new = await connection.fetchval(_STREAM, *facts, *(source or (None, None)))
        if new is None:
            raise StorageError(_taken("streams", [facts[1]]))
        entries, producers = (table.read(self._file, id) for table in OF_STREAMS)
        for end, data, expected in entries:
            if stream_checksum(id, end, data) != expected:
                raise StorageError(f"the stream {facts[1]!r} is damaged: what ends at {end} fails its checksum")
        entries = [(end, data, stream_checksum(new, end, data)) for end, data, _ in entries]
        for table, found in zip(OF_STREAMS, (entries, producers), strict=True):
            await table.copy(connection, new, found)
            done.copied[table.name] += len(found)
        done.copied["streams"] += 1

    async def _copy_audit(self, connection: Connection, before: int, done: Imported, progress: Progress) -> None:
        total = self._count("audit")
        names = ", ".join(AUDIT.columns)
        with closing(
            self._file.execute(f"SELECT {names}, id FROM audit WHERE id > ? ORDER BY id", (before,))
        ) as found:
            while some := found.fetchmany(_AT_ONCE):
                await self._copy_entries(connection, AUDIT.written(row[:-1] for row in some), some[-1][-1])
                done.copied["audit"] += len(some)
                progress("audit", done.copied["audit"], total)

    async def _copy_entries(self, connection: Connection, entries: Sequence[tuple[Any, ...]], last: int) -> None:
        names = ", ".join(AUDIT.columns)
        async with connection.transaction():
            await connection.execute("SELECT FROM audit_turn FOR UPDATE")
            end = await connection.fetchval("SELECT coalesce(max(id), 0) FROM audit")
            await connection.copy_records_to_table("audit", records=entries, columns=AUDIT.columns)
            found = await connection.fetch(f"SELECT {names} FROM audit WHERE id > $1 ORDER BY id", end)
            if [tuple(row) for row in found] != list(entries):
                require_same("audit", (), entries)
            await connection.execute(_NOTE, self._source, "audit", last)
            failpoints.reach("import")


def _taken(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"the database holds other {what} of the same names: {', '.join(names[:_SHOWN])}{more}: take an"
        " empty database, or delete them there"
    )
