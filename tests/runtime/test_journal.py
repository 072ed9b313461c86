"""The journal: rows of one turn are one append, in order, and the first that fails is the last that is told of."""

import asyncio

import pytest

from crdt_sessions.errors import StorageError, StoreUnavailable
from crdt_sessions.ids import Millis, Seq
from crdt_sessions.limits import Limits
from crdt_sessions.runtime.backlog import Backlog
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.runtime.journal import Journal
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import Persist
from crdt_sessions.testing import settle

from .conftest import ROOM


class Store(MemoryStore):
    """Answers when it is told to."""

    def __init__(self):
        super().__init__()
        self.appended = []

    def append(self, session, rows, *, entries, now):
        done = asyncio.get_running_loop().create_future()
        self.appended.append(([row.seq for row in rows], done))
        return done


class Bench:
    def __init__(self, clock, limits):
        self.store, self.backlog = Store(), Backlog(limits.total_uncommitted_bytes)
        self.health = StoreHealth(self.store, clock)
        self.stored, self.errors = [], []
        self.journal = Journal(
            ROOM,
            self.store,
            clock=clock,
            health=self.health,
            backlog=self.backlog,
            limits=limits,
            deliveries=lambda _: [],
            stored=lambda write: self.stored.append([row.seq for row in write.rows]),
            failed=self.errors.append,
        )

    def append(self, *seqs, size=10):
        for seq in seqs:
            self.journal.append(Persist(Seq(seq), bytes(size)))


@pytest.fixture
def bench(clock):
    return Bench(clock, Limits(max_uncommitted_bytes=20_000, total_uncommitted_bytes=30_000))


async def test_rows_of_one_turn_are_one_append(bench):
    bench.append(1, 2)
    await settle()
    bench.append(3)
    await settle()
    assert [seqs for seqs, _ in bench.store.appended] == [[1, 2], [3]]


async def test_writes_are_told_of_in_their_order_whatever_the_store_answers_first(bench):
    for seq in (1, 2, 3):
        bench.append(seq)
        await settle()
    futures = [done for _, done in bench.store.appended]
    futures[1].set_result(None)
    await settle()
    assert bench.stored == []
    futures[0].set_result(None)
    await settle()
    assert bench.stored == [[1], [2]]
    assert bench.journal.flushing


async def test_nothing_is_told_of_once_a_write_has_failed(bench):
    bench.append(1)
    await settle()
    bench.append(2)
    await settle()
    (_, first), (_, second) = bench.store.appended
    first.set_exception(StorageError("the disk is full"))
    await settle()
    assert [str(error) for error in bench.errors] == ["the disk is full"]
    bench.journal.stop()
    second.set_result(None)
    bench.append(3)
    await settle()
    assert (bench.stored, len(bench.store.appended)) == ([], 2)


async def test_nothing_is_handed_over_while_the_store_takes_no_writes(bench):
    bench.health.failed(StoreUnavailable("the disk is away"))
    bench.append(1)
    await settle()
    assert (bench.store.appended, bench.journal.waits, bench.journal.flushing) == ([], True, False)


async def test_what_waits_for_the_disk_is_counted_until_it_is_there(bench):
    bench.append(1, size=19_000)
    assert not bench.journal.behind, "it is over what all may have, yet within its own bounds"
    bench.append(2, size=2_000)
    assert bench.journal.behind
    await settle()
    bench.store.appended[0][1].set_result(None)
    await settle()
    assert (bench.journal.behind, bench.backlog.bytes) == (False, 0)


async def test_others_that_are_behind_hold_up_a_session_that_writes_much(bench):
    bench.backlog.bytes = 29_000
    bench.append(1, size=5_000)
    assert bench.backlog.full
    assert not bench.journal.behind, "it writes little"
    bench.append(2, size=12_000)
    assert bench.journal.behind


async def test_close_hands_over_the_rest_and_waits_for_the_answer(bench):
    bench.append(1)
    closing = asyncio.create_task(bench.journal.close())
    await settle()
    assert not closing.done()
    bench.store.appended[0][1].set_result(None)
    await closing
    assert (bench.stored, bench.backlog.bytes) == ([[1]], 0)


async def test_close_forgets_what_a_failed_session_had(bench):
    bench.append(1)
    bench.journal.stop()
    await bench.journal.close()
    assert (bench.store.appended, bench.backlog.bytes) == ([], 0)


async def test_a_title_counts_as_unstored_until_it_is_stored(bench):
    described = asyncio.get_running_loop().create_future()

    async def describe(session, *, title, now):
        assert (session, title, now) == (ROOM, "Tea", Millis(now))
        await described

    bench.store.describe = describe
    bench.journal.describe("Tea")
    assert bench.journal.titling
    await settle()
    assert bench.journal.titling
    described.set_result(None)
    await settle()
    assert not bench.journal.titling
