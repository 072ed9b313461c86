"""The one writer: whatever waits while a transaction is being committed goes into the next one together.

So the cost of making things durable is shared, and an idle store adds no delay. ``synchronous=FULL`` means that a
call returns after fsync.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence

import aiosqlite

from crdt_sessions import failpoints
from crdt_sessions.callbacks import Callback, call_all
from crdt_sessions.errors import StorageError, StoreUnavailable
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.defects import contained, defect
from crdt_sessions.storage.outcome import Outcome
from crdt_sessions.storage.sqlite.checkpoints import Checkpoints
from crdt_sessions.storage.sqlite.connection import PAGE_BYTES, in_its_thread
from crdt_sessions.storage.sqlite.errors import translated
from crdt_sessions.storage.sqlite.heads import Append, Heads, Job, Queued
from crdt_sessions.storage.sqlite.identity import Identity
from crdt_sessions.storage.sqlite.rows import append_all, append_rows
from crdt_sessions.storage.stored import NO_ENTRIES

_CATCH_UP_S = 1.0
"""How far ``sessions`` may lag behind the rows."""
_MAX_REST_S = 0.001
_LOOK_S = 0.1
"""How often it is looked whether the files still have their names."""
_PAGES_BYTES = 8 * PAGE_BYTES
"""What a row puts into the log beside its update, at most but for what is rare."""


class Writer:
    """Writes for as long as the store is open.

    Args:
        connection: only this writes on it.
        reading: held by whoever reads; a reader of an older state keeps the write-ahead log from beginning anew.
        identity: tells whether what is written will be where it can be found again.
        checkpoints: keep the write-ahead log short.
    """

    def __init__(
        self, connection: aiosqlite.Connection, *, reading: asyncio.Lock, identity: Identity, checkpoints: Checkpoints
    ) -> None:
        self._connection = connection
        self._reading = reading
        self._identity = identity
        self._checkpoints = checkpoints
        self._handing_over: list[Callback] = []
        self._waiting: list[Queued] = []
        self._writing: list[Queued] = []
        self._wanted = asyncio.Event()  # whether there is anything of either, or the end
        self._closing = False
        self._heads = Heads()
        self._catching_up: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._task = asyncio.create_task(self._run(), name="sqlite writer")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Finish the writes that wait."""
        if self._catching_up is not None:
            self._catching_up.cancel()
        self._catch_up()
        self._closing = True
        self._wanted.set()
        await asyncio.wait({self._task})

    def before_commit(self, hand_over: Callback) -> None:
        """Call *hand_over* right before the next transaction begins, which is soon."""
        if self._task.done():
            asyncio.get_running_loop().call_soon(hand_over)  # it will hear that the store is closed
        else:
            self._handing_over.append(hand_over)
            self._wanted.set()

    def submit(self, job: Job | Append, *, deletes: SessionId | None = None) -> Outcome:
        """Have *job* done in the next transaction; return what ends once that is durable.

        Args:
            job: called in the connection's thread, inside a transaction.
            deletes: the session that is gone afterwards.
        """
        done = Outcome()
        if self._task.done():
            done.settle(StorageError("the store is closed"))
        else:
            self._waiting.append(Queued(job, done, deletes))
            self._wanted.set()
        return done

    async def caught_up(self, session: SessionId | None = None) -> None:
        """Return once ``sessions`` says where a log ends, or all: any transaction but the plainest sees to that."""
        behind = self._heads.behind
        if behind and (session is None or session in behind):
            with contextlib.suppress(StoreUnavailable):  # one can read all the same; only times are a second old
                await self.submit(lambda connection: None)

    def _catch_up_soon(self) -> None:
        if self._heads.behind and self._catching_up is None:
            self._catching_up = asyncio.get_running_loop().call_later(_CATCH_UP_S, self._catch_up)

    def _catch_up(self) -> None:
        self._catching_up = None
        self.submit(lambda connection: None)  # if it fails, the next commit tries again

    async def _run(self) -> None:
        """Write, for as long as the store is open: everything that waits goes into one transaction."""
        loop = asyncio.get_running_loop()
        free_at = 0.0
        while not self._closing or self._wanted.is_set():
            await self._wanted.wait()
            await asyncio.sleep(max(0.0, free_at - loop.time()))  # 0: what comes in this turn of the loop may join
            self._writing = jobs = self._gathered()
            begun = loop.time()
            if jobs and not await self._commit(jobs, begun) and len(jobs) > 1:
                for queued in jobs:  # one of them failed; give each its own transaction and its own error
                    await self._commit([queued], begun)
            self._catch_up_soon()
            try:
                if self._checkpoints.look(held_up=self._reading.locked(), written=_log_bytes(jobs)):
                    async with self._reading:  # whoever reads an older state keeps the log from beginning anew
                        await self._checkpoints.begin_anew()
            except Exception as error:  # noqa: BLE001 - what was written is stored, and this is tried again
                defect(error, "the write-ahead log could not be shortened")
            now = loop.time()
            free_at = now + min(now - begun, _MAX_REST_S)

    def _gathered(self) -> list[Queued]:
        """Return all that waits, with what is handed over for it."""
        handing_over, self._handing_over = self._handing_over, []
        call_all(handing_over)
        jobs, self._waiting = self._waiting, []
        if not self._handing_over:
            self._wanted.clear()
        return jobs

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting, should the writer ever fail in a way that is not SQLite's."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        failed = defect(error, "the writer failed")
        for queued in (*self._writing, *self._waiting):
            queued.done.settle(failed)
        call_all(self._handing_over)

    async def _commit(self, jobs: Sequence[Queued], now: float) -> bool:
        """Run *jobs* in one transaction; report success to all, or failure if there is only one.

        A defect in a job fails that job, as an error of SQLite's does.
        """
        try:
            if now >= self._look_at:
                self._look_at_files(now)
            with translated():
                await in_its_thread(self._connection, lambda connection: _transact(connection, jobs, self._heads))
        except Exception as error:  # noqa: BLE001 - a defect, too; whoever waits is told
            if len(jobs) == 1:
                jobs[0].done.settle(contained(error))
            return False
        for queued in jobs:
            queued.done.settle()
        return True

    def _look_at_files(self, now: float) -> None:
        """Return if what is written will be where it can be found again.

        Raises:
            DatabaseGone: it is not.
        """
        self._identity.check()
        self._look_at = now + _LOOK_S


def _log_bytes(jobs: Sequence[Queued]) -> int | None:
    """Return about how many bytes *jobs* put into the write-ahead log; None if they are more than rows."""
    size = 0
    for queued in jobs:
        if not isinstance(job := queued.job, Append) or job.entries is not NO_ENTRIES:
            return None
        for row in job.rows:
            size += _PAGES_BYTES + len(row.update)
    return size


def _transact(connection: sqlite3.Connection, jobs: Sequence[Queued], heads: Heads) -> None:
    appends = heads.followed_by(jobs)
    if appends is not None:
        append_rows(connection, appends)
    else:
        _run_all(connection, jobs, heads)
    heads.appended(jobs, told=appends is None)


def _run_all(connection: sqlite3.Connection, jobs: Sequence[Queued], heads: Heads) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        heads.catch_up(connection)
        appends: list[Append] = []
        for queued in jobs:
            if isinstance(queued.job, Append):
                appends.append(queued.job)
            else:
                append_all(connection, appends)
                appends.clear()
                queued.job(connection)
        append_all(connection, appends)
        failpoints.reach("before-commit")
        connection.execute("COMMIT")
        failpoints.reach("after-commit")
    except BaseException:
        if connection.in_transaction:  # some errors roll back by themselves
            connection.execute("ROLLBACK")
        raise
