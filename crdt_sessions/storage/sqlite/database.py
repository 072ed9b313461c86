"""The file, open: a connection that writes, one that reads, one beside them for checkpoints, and the lock on it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiosqlite

from crdt_sessions.callbacks import Callback
from crdt_sessions.errors import ForeignDatabase, StorageError
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.outcome import Outcome
from crdt_sessions.storage.sqlite.checkpoints import Checkpoint, Checkpoints, WriteAheadLog
from crdt_sessions.storage.sqlite.connection import Result, connect, in_its_thread
from crdt_sessions.storage.sqlite.errors import translated
from crdt_sessions.storage.sqlite.foreign import refuse_foreign
from crdt_sessions.storage.sqlite.heads import Append, Job
from crdt_sessions.storage.sqlite.identity import Identity
from crdt_sessions.storage.sqlite.lock import DatabaseLock
from crdt_sessions.storage.sqlite.migrations import migrate
from crdt_sessions.storage.sqlite.statements import changed
from crdt_sessions.storage.sqlite.writer import Writer

_PROBE_BYTES = 65_536


class Database:
    """A database of sessions.

    Args:
        path: the file; it is created if missing.
        max_bytes: what it may grow to.
        max_wal_bytes: what its write-ahead log may grow to.
    """

    def __init__(self, path: Path, *, max_bytes: int | None, max_wal_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_wal_bytes = max_wal_bytes
        self._lock = DatabaseLock(path)
        self._reading = asyncio.Lock()
        self._writer: Writer | None = None
        self._write: aiosqlite.Connection
        self._read: aiosqlite.Connection
        self._beside: aiosqlite.Connection
        """For checkpoints."""
        self._identity: Identity
        self._checkpoints: Checkpoints

    async def open(self) -> None:
        """Take the lock, open the file, bring its schema up to date. Errors as :class:`SqliteStore` says."""
        async with contextlib.AsyncExitStack() as undo:
            self._lock.acquire()
            undo.callback(self._lock.release)
            with translated(self._path):
                try:
                    refuse_foreign(self._path)
                except ForeignDatabase:
                    self._lock.leave_no_trace()
                    raise
                self._write = await connect(self._path)
                undo.push_async_callback(self._write.close)
                await migrate(self._write, str(self._path))
                await self._limit_size()
                self._read = await connect(self._path)
                undo.push_async_callback(self._read.close)
                self._beside = await connect(self._path)
                undo.push_async_callback(self._beside.close)
                self._identity = Identity(self._path)
                self._checkpoints = await self._watch_log()
            undo.pop_all()
        self._writer = Writer(
            self._write, reading=self._reading, identity=self._identity, checkpoints=self._checkpoints
        )

    async def close(self) -> None:
        """Finish the writes that wait, then close the file."""
        if self._writer is None:
            return
        await self._writer.close()
        self._writer = None
        await self._checkpoints.idle()
        self._checkpoints.close()
        await self._beside.close()
        await self._read.close()
        await self._write.close()
        self._lock.release()

    async def _limit_size(self) -> None:
        if self._max_bytes is not None:
            pages = max(1, self._max_bytes // await self._page_bytes())
            await self._write.execute(f"PRAGMA max_page_count = {pages}")

    async def _watch_log(self) -> Checkpoints:
        await self._write.execute("PRAGMA wal_autocheckpoint = 0")
        await self._write.execute(f"PRAGMA journal_size_limit = {self._max_wal_bytes}")  # what is over goes, at last
        await self._beside.execute("PRAGMA busy_timeout = 0")
        log = WriteAheadLog(Path(f"{self._path.resolve()}-wal"), await self._page_bytes())
        return Checkpoints(log, self._max_wal_bytes, self._checkpoint)

    async def _checkpoint(self, mode: str) -> Checkpoint:
        ((busy, pages, copied),) = await self._beside.execute_fetchall(f"PRAGMA wal_checkpoint({mode})")
        return Checkpoint(bool(busy), pages, copied)

    async def _page_bytes(self) -> int:
        ((page_bytes,),) = await self._write.execute_fetchall("PRAGMA page_size")
        return int(page_bytes)

    async def check(self) -> None:
        """Return if one can write: a block is written and taken back, so that the disk must have room for it.

        Raises:
            StoreUnavailable: one cannot.
        """

        def write(connection: sqlite3.Connection) -> None:
            changed(connection, "INSERT OR REPLACE INTO probe VALUES (1, zeroblob(?))", (_PROBE_BYTES,))

        def take_back(connection: sqlite3.Connection) -> None:
            changed(connection, "DELETE FROM probe", ())

        self._identity.check()
        await self.submit(write)
        await self.submit(take_back)

    def submit(self, job: Job | Append, *, deletes: SessionId | None = None) -> Outcome:
        """Have *job* done in the next transaction. See :meth:`Writer.submit`."""
        if self._writer is not None:
            return self._writer.submit(job, deletes=deletes)
        done = Outcome()
        done.settle(StorageError("the store is closed"))
        return done

    def before_commit(self, hand_over: Callback) -> None:
        """Call *hand_over* right before the next transaction. See :meth:`Writer.before_commit`."""
        if self._writer is not None:
            self._writer.before_commit(hand_over)
        else:
            asyncio.get_running_loop().call_soon(hand_over)  # it will hear that the store is closed

    async def caught_up(self, session: SessionId | None = None) -> None:
        """Return once ``sessions`` says where a log ends, or all. See :meth:`Writer.caught_up`."""
        if self._writer is not None:
            await self._writer.caught_up(session)

    async def select(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """Return the rows that a statement finds."""
        return await self._ask(lambda connection: connection.execute(statement, values).fetchall())

    async def view(self, read: Callable[[sqlite3.Connection], Result]) -> Result:
        """Read everything as it is at one moment."""

        def at_one_moment(connection: sqlite3.Connection) -> Result:
            connection.execute("BEGIN")
            try:
                return read(connection)
            finally:
                connection.execute("ROLLBACK")

        return await self._ask(at_one_moment)

    async def _ask(self, read: Callable[[sqlite3.Connection], Result]) -> Result:
        async with self._reading:
            with translated():
                return await in_its_thread(self._read, read)


class OfDatabase:
    """A concern of a store that is kept in a database."""

    _database: Database
