"""The compactor: folds when there are many rows, one at a time, and leaves rows alone when it cannot."""

import asyncio

import pytest

from crdt_sessions.errors import SessionNotFound, StorageError
from crdt_sessions.ids import Millis, Seq
from crdt_sessions.limits import Compaction, Retention
from crdt_sessions.model import fold
from crdt_sessions.runtime.compactor import Compactor
from crdt_sessions.storage import Row
from crdt_sessions.sync import Replica
from crdt_sessions.testing import settle

from .conftest import ROOM


async def room(store, rows):
    """Store a session with so many rows; return its document's replica."""
    replica, updates = Replica(100), []
    for number in range(rows):
        before = replica.document.state_vector()
        replica.edit(lambda view, number=number: view.document.roots.state.__setitem__(str(number), number))
        updates.append(replica.document.encode(before))
    await store.create(ROOM, updates[0], generation=1, title=None, now=Millis(1))
    for at, update in enumerate(updates[1:], start=2):
        await store.append(ROOM, [Row(Seq(at), update)], now=Millis(1))
    return replica


def compactor(store, clock, rows, folding=None, turn=None, **compaction):
    async def at_once(updates):
        return fold(updates)

    return Compactor(
        ROOM,
        store,
        clock=clock,
        fold=folding or at_once,
        compaction=Compaction(**compaction),
        retention=Retention(),
        rows=rows,
        turn=turn or asyncio.Lock(),
    )


async def test_rows_are_folded_once_there_are_too_many(store, clock):
    await room(store, 4)
    made = compactor(store, clock, 3, max_rows=3)
    made.fold_if_due()
    assert not made.folding
    made.stored(1)
    made.fold_if_due()
    assert made.folding
    await made.idle()
    assert len((await store.load(ROOM)).rows) == 1


async def test_the_document_is_the_same_after_it_was_folded(store, clock):
    replica = await room(store, 5)
    await compactor(store, clock, 5).snapshot(None, keep_rows=False)
    (row,) = (await store.load(ROOM)).rows
    assert fold([row.update]).update == fold([replica.document.encode()]).update


async def test_rows_stay_as_they_are_if_folding_fails(store, clock, caplog):
    await room(store, 4)

    async def broken(updates):
        raise StorageError("no memory")

    made = compactor(store, clock, 4, broken, max_rows=3)
    made.fold_if_due()
    await made.idle()
    assert len((await store.load(ROOM)).rows) == 4
    assert "folding failed: no memory" in caplog.text
    made.fold_if_due()
    assert made.folding, "it is tried again with the next write"
    await made.idle()


async def test_only_one_is_folded_at_a_time_of_those_that_share_a_turn(store, clock):
    await room(store, 4)
    entered, go_on = [], asyncio.Event()

    async def slow(updates):
        entered.append(len(updates))
        await go_on.wait()
        return fold(updates)

    turn = asyncio.Lock()
    first, second = (compactor(store, clock, 4, slow, turn, max_rows=3) for _ in range(2))
    first.fold_if_due()
    second.fold_if_due()
    await settle()
    assert entered == [4]
    go_on.set()
    await first.idle()
    await second.idle()
    assert entered == [4, 1]


async def test_a_snapshot_of_a_deleted_session_says_so(store, clock):
    with pytest.raises(SessionNotFound):
        await compactor(store, clock, 1).snapshot("Monday", keep_rows=True)
