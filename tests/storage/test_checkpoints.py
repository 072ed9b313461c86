"""The write-ahead log stays within its bound while commits go on, and nobody waits for that."""

import asyncio
import os
import sqlite3
from contextlib import closing

import pytest

from crdt_sessions.ids import Seq
from crdt_sessions.storage import Row, SqliteStore
from crdt_sessions.storage.sqlite.checkpoints import Checkpoint, Checkpoints, WriteAheadLog
from crdt_sessions.testing.store_contract import NOW, A

KB = 1024
BOUND = 128 * KB
COMMIT = 64 * KB
"""More than any commit here writes."""


def rounds(path):
    """How often the log has begun anew, as its header says."""
    header = path.with_name("s.db-wal").read_bytes()[:16]
    return int.from_bytes(header[12:], "big")


def size(path):
    return path.with_name("s.db-wal").stat().st_size


async def write(store, start, count, update=b"a token and what stands around it"):
    for seq in range(start, start + count):
        await store.append(A, [Row(Seq(seq), update)], now=NOW)


async def test_a_steady_load_never_takes_the_log_beyond_its_bound(tmp_path):
    path = tmp_path / "s.db"
    async with SqliteStore(path, max_wal_bytes=BOUND) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        sizes = []
        for start in range(2, 402, 20):
            reading = [
                asyncio.create_task(store.load(A)) for _ in range(3)
            ]  # each of them holds a state for a moment
            await write(store, start, 20)
            sizes.append(size(path))
            await asyncio.gather(*reading)
        assert max(sizes) <= BOUND + COMMIT
        assert rounds(path) >= 5
        assert (await store.load(A)).last_seq == 401
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM updates").fetchone() == (401,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_large_commits_take_it_beyond_by_one_at_the_most(tmp_path):
    path = tmp_path / "s.db"
    async with SqliteStore(path, max_wal_bytes=BOUND) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        for seq in range(2, 15):
            await write(store, seq, 1, os.urandom(200 * KB))
            assert size(path) <= BOUND + 200 * KB + COMMIT


async def test_somebody_elses_long_read_lets_it_grow_and_then_it_shrinks(tmp_path, caplog):
    path = tmp_path / "s.db"
    async with SqliteStore(path, max_wal_bytes=BOUND) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        with closing(sqlite3.connect(path, isolation_level=None)) as backup:
            backup.execute("BEGIN")
            assert backup.execute("SELECT count(*) FROM updates").fetchone() == (1,)
            await write(store, 2, 200)
            assert size(path) > BOUND, "commits go on all the same"
            assert "such as a backup" in caplog.text
            assert backup.execute("SELECT count(*) FROM updates").fetchone() == (1,), "and it reads one state"
            backup.execute("ROLLBACK")
        await write(store, 202, 200)
        assert size(path) <= BOUND + COMMIT
        assert (await store.load(A)).last_seq == 401


async def test_an_idle_log_is_left_alone(tmp_path):
    asked = []
    async with SqliteStore(tmp_path / "s.db") as store:
        run = store._database._checkpoints._run
        store._database._checkpoints._run = lambda mode: asked.append(mode) or run(mode)
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await write(store, 2, 50)
        assert asked == []


async def test_a_log_that_was_left_by_a_crash_is_taken_over_whole(tmp_path):
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    async with SqliteStore(path, max_wal_bytes=BOUND) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await write(store, 2, 100)
        for suffix in ("", "-wal"):
            copy.with_name(f"copy.db{suffix}").write_bytes(path.with_name(f"s.db{suffix}").read_bytes())
    async with SqliteStore(copy, max_wal_bytes=BOUND) as store:
        assert (await store.load(A)).last_seq == 101
        await write(store, 102, 100)
        assert copy.with_name("copy.db-wal").stat().st_size <= BOUND + COMMIT
        assert (await store.load(A)).last_seq == 201


@pytest.mark.parametrize("page", [1024, 4096])
async def test_the_log_file_tells_how_much_of_it_is_in_use(tmp_path, page):
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in (f"page_size = {page}", "journal_mode = WAL", "wal_autocheckpoint = 0"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("CREATE TABLE t (x)")
        log = WriteAheadLog(path.with_name("s.db-wal"), page)

        def used():
            _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            return 32 + pages * (page + 24)

        def check():
            assert log.reaches(used())
            assert not log.reaches(used() + 1)

        check()
        for _ in range(2):
            salts = log.salts()
            connection.execute("INSERT INTO t VALUES (zeroblob(50000))")
            connection.execute("DELETE FROM t")
            check()
            long = used()
            connection.execute("PRAGMA wal_checkpoint(RESTART)")
            connection.execute("INSERT INTO t VALUES (1)")
            assert log.salts() != salts
            assert size(path) >= long, "what is behind stands there as before"
            check()
        log.close()


# -- when it is copied, and when it begins anew --------------------------------------------------------------------


class Log:
    """A log without a file: pages of one byte."""

    frame_bytes = 1

    def __init__(self):
        self.used, self.round = 0, 0

    def salts(self):
        return b"%d" % self.round

    def reaches(self, bytes):
        return self.used >= bytes


class Sqlite:
    """Answers checkpoints as told."""

    def __init__(self):
        self.log = Log()
        self.asked, self.answers = [], []
        self.checkpoints = Checkpoints(self.log, 1600, self._run)

    async def _run(self, mode):
        self.asked.append(mode)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def grown_to(self, used, *answers, held_up=False):
        """Look at the log once it has *used* pages; return whether it is to begin anew."""
        self.log.used, self.answers = used, [*answers]
        now = self.checkpoints.look(held_up=held_up)
        if not now:
            await self.checkpoints.idle()
            now = self.checkpoints.look(held_up=held_up)
        assert not self.answers
        return now


def copied(pages, left=0, *, busy=False):
    return Checkpoint(busy, pages, pages - left)


async def test_it_is_copied_until_few_pages_are_left_and_then_begins_anew():
    sqlite = Sqlite()
    assert not await sqlite.grown_to(399)
    assert sqlite.asked == []
    assert await sqlite.grown_to(400, copied(700, 300), copied(800, 100), copied(850, 50))
    assert sqlite.asked == ["PASSIVE"] * 3
    sqlite.answers = [copied(870)]
    await sqlite.checkpoints.begin_anew()
    assert sqlite.asked[3:] == ["RESTART"]
    assert not await sqlite.grown_to(870), "nothing was written since: what is in the file is the former round"
    sqlite.log.round = 1
    assert not await sqlite.grown_to(399)
    assert await sqlite.grown_to(400, copied(400))


async def test_who_reads_in_this_process_is_waited_for_until_the_bound_is_reached():
    sqlite = Sqlite()
    assert not await sqlite.grown_to(400, copied(400), held_up=True)
    assert not await sqlite.grown_to(1599, held_up=True)
    assert await sqlite.grown_to(1599)
    assert await sqlite.grown_to(1600, held_up=True)


async def test_a_log_that_grows_faster_than_it_is_copied_begins_anew_at_its_bound():
    sqlite = Sqlite()
    assert not await sqlite.grown_to(400, copied(700, 300), copied(1100, 400))
    assert not await sqlite.grown_to(1199), "it is not tried all the time"
    assert not await sqlite.grown_to(1200, copied(1300, 200), copied(1500, 200))
    sqlite.log.used, sqlite.answers = 1600, [copied(1600, 200), copied(1600, 200), copied(1600)]
    assert sqlite.checkpoints.look(held_up=True), "the next commit waits"
    await sqlite.checkpoints.begin_anew()
    assert sqlite.asked[-1] == "RESTART"
    assert not await sqlite.grown_to(1600)


async def test_what_holds_it_up_is_tried_again_now_and_then():
    sqlite = Sqlite()
    assert not await sqlite.grown_to(400, copied(400, 399), copied(400, 399))
    assert not await sqlite.grown_to(499)
    assert await sqlite.grown_to(500, copied(500))
    sqlite.answers = [copied(500, busy=True)]
    await sqlite.checkpoints.begin_anew()
    assert not await sqlite.grown_to(599)
    assert await sqlite.grown_to(600, copied(600))


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), sqlite3.OperationalError("full")])
async def test_a_copy_that_fails_is_tried_again_and_commits_go_on(error, caplog):
    sqlite = Sqlite()
    assert not await sqlite.grown_to(400, error)
    assert str(error) in caplog.text
    assert not await sqlite.grown_to(499)
    assert await sqlite.grown_to(500, copied(500))
    sqlite.answers = [error]
    await sqlite.checkpoints.begin_anew()
    assert await sqlite.grown_to(700, copied(700))


async def test_it_is_looked_at_once_enough_may_have_been_written_and_each_time_when_little_is_left_to_copy():
    sqlite = Sqlite()
    sqlite.log.used, sqlite.answers = 400, [copied(400)]
    assert [sqlite.checkpoints.look(held_up=False, written=10) for _ in range(2)] == [False, False]
    await sqlite.checkpoints.idle()
    assert sqlite.asked == []
    assert not sqlite.checkpoints.look(held_up=False, written=10)
    await sqlite.checkpoints.idle()
    assert sqlite.asked == ["PASSIVE"]
    assert sqlite.checkpoints.look(held_up=False, written=1)
