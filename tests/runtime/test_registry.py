"""Loading once, unloading when idle, failing cleanly, stopping in order."""

import asyncio
import gc
import weakref
from contextlib import AsyncExitStack, contextmanager

import pytest
from pycrdt import Channel, Doc, Map, Provider, Text

from crdt_sessions.errors import (
    EarlyUpdate,
    Fenced,
    HeldElsewhere,
    PanickedUpdate,
    SessionDeleted,
    SessionExists,
    SessionFailed,
    SessionNotFound,
    ShuttingDown,
    StorageError,
    StoreUnavailable,
)
from crdt_sessions.ids import Seq, session_id
from crdt_sessions.limits import Compaction, Limits, Timing
from crdt_sessions.model import Author, MessageHead, TextPart
from crdt_sessions.runtime import Access, SessionRegistry
from crdt_sessions.runtime.session import Session
from crdt_sessions.storage import NO_ENTRIES, MemoryStore, Row
from crdt_sessions.sync import READ_ONLY, SessionEngine, Tick
from crdt_sessions.testing import MemoryChannel, settle
from crdt_sessions.wire import KEEPALIVE, encode

from .conftest import ROOM, Peer, peers, until


def post(id, text, at=1):
    head = MessageHead(id=id, role="user", author=Author(id="ann"), created_at=at)
    return lambda view: view.messages.add(head, [TextPart(type="text", text=text)])


async def test_two_peers_see_each_other_and_the_store_has_it(registry, store):
    async with peers(registry, 2) as (one, two):
        await one.edit(post("m1", "hello"))
        await settle()
        assert [m.text for m in two.replica.view.messages.ordered()] == ["hello"]
        assert (one.replica.durable, one.replica.version) == (1, 1)
    stored = await store.load(ROOM)
    assert len(stored.rows) == 3  # seed, message, its place in the order


async def test_a_hundred_simultaneous_joins_load_once(store, clock):
    loads = 0

    class Counting(MemoryStore):
        async def load(self, session):
            nonlocal loads
            await asyncio.sleep(0)
            loads += 1
            return await super().load(session)

    async with SessionRegistry(Counting(), clock=clock) as registry:
        await registry.create(ROOM)

        async def use():
            async with registry.open(ROOM) as session:
                return session

        assert len(set(await asyncio.gather(*(use() for _ in range(100))))) == 1
        assert loads == 1


async def test_joining_creates_unless_told_otherwise(store, clock):
    async with SessionRegistry(store, clock=clock, auto_create=False) as registry:
        async with Peer(registry) as peer:
            pass
        assert peer.closing.code == 4404
        async with Peer(registry, access=Access(rights=READ_ONLY)) as peer:
            pass
        assert peer.closing.code == 4404
    assert await store.get(ROOM) is None


async def test_a_waiting_creator_is_not_refused_with_a_reader(registry):
    async def read():
        with pytest.raises(SessionNotFound):
            async with registry.open(ROOM):
                pass

    async def write():
        async with registry.open(ROOM, create=True) as session:
            return session.id

    assert (await asyncio.gather(read(), write()))[1] == ROOM


class Gated(MemoryStore):
    """A store whose answers to a load, or whose snapshots, may be kept back."""

    def __init__(self):
        super().__init__()
        self.answers, self.folds = asyncio.Event(), asyncio.Event()
        self.answers.set()
        self.folds.set()
        self.error = None

    async def load(self, session):
        stored = await super().load(session)
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return stored

    async def replace_with_snapshot(self, session, snapshot, **options):
        await self.folds.wait()
        await super().replace_with_snapshot(session, snapshot, **options)


async def opened(registry, session=ROOM):
    async with registry.open(session) as found:
        return found


async def given_up(registry, store):
    """Have somebody leave while a session is loaded for them, which then ends."""
    store.answers.clear()
    opening = asyncio.create_task(opened(registry))
    await settle()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    assert registry.holds(ROOM)
    store.answers.set()
    await settle()


async def test_a_load_that_failed_after_its_waiter_left_is_forgotten(clock):
    store = Gated()
    async with SessionRegistry(store, clock=clock, limits=Limits(max_sessions=1)) as registry:
        await given_up(registry, store)
        assert not registry.holds(ROOM), "it counts, and nobody would ever drop it"
        other = session_id("other")
        await registry.create(other)
        assert (await opened(registry, other)).id == other, "there is room"


async def test_the_error_of_a_load_is_not_for_whoever_came_after_it(clock):
    store = Gated()
    async with SessionRegistry(store, clock=clock) as registry:
        await given_up(registry, store)
        await registry.create(ROOM)
        assert (await opened(registry)).id == ROOM


async def test_who_comes_after_an_outage_does_not_hear_of_it(clock):
    store = Gated()
    async with SessionRegistry(store, clock=clock) as registry:
        await registry.create(ROOM)
        store.error = StoreUnavailable("away")
        await given_up(registry, store)
        store.error = None
        async with Peer(registry) as peer:
            await settle(50)
            assert peer.replica.synced
            assert registry.health.error is None


async def test_a_session_whose_end_meets_a_defect_is_dropped_all_the_same(clock, store, monkeypatch, caplog):
    async def broken(*args, **options):
        raise RuntimeError("a defect")

    for method in ("drain", "close", "stop"):
        async with SessionRegistry(store, clock=clock, timing=Timing(idle_unload_s=1)) as registry:
            async with registry.open(ROOM, create=True):
                pass
            with monkeypatch.context() as patch:
                patch.setattr(Session, method, broken)
                if method == "stop":
                    await registry.hand_over(100)
                else:
                    await clock.advance(2)
                    await clock.advance(2)
            assert not registry.holds(ROOM), method
            assert "a defect" in caplog.text


async def test_a_session_that_is_loaded_while_its_node_is_fenced_is_loaded_anew(clock):
    store = Gated()
    async with SessionRegistry(store, clock=clock) as registry:
        await registry.create(ROOM)
        store.answers.clear()
        opening = asyncio.create_task(opened(registry))
        await settle()
        registry.abandon(Fenced())
        await store.append(
            ROOM, [Row(Seq(2), Doc().get_update())], entries=NO_ENTRIES, now=clock.now()
        )  # by another node
        store.answers.set()
        assert (await opening).engine.log.head == 2, "what was read before is not served"


@pytest.mark.parametrize("error", [Fenced(), HeldElsewhere(session=ROOM, node=2)])
async def test_a_session_whose_fold_says_that_it_is_anothers_is_not_loaded(store, clock, error):
    async with SessionRegistry(store, clock=clock) as registry:
        async with registry.open(ROOM, create=True) as session:
            await session.edit(post("m1", "x"))
    before = await store.load(ROOM)

    async def refuse(*args, **options):
        raise error

    store.replace_with_snapshot = refuse
    async with SessionRegistry(store, clock=clock, compaction=Compaction(max_rows=1)) as registry:
        with pytest.raises(type(error)):
            await opened(registry)
        assert not registry.holds(ROOM)
    assert await store.load(ROOM) == before


async def test_an_idle_session_is_unloaded_folded_and_freed(registry, store, clock):
    async with peers(registry, 1) as (peer,):
        for n in range(60):
            await peer.edit(post(f"m{n}", "x"))
    (session,) = registry.live
    gone = weakref.ref(session)
    document = weakref.ref(session.engine.document)
    await clock.advance(30)
    assert registry.live == [session]
    await clock.advance(40)
    await until(lambda: registry.live == [])  # folded in a thread
    assert len((await store.load(ROOM)).rows) == 1
    del session
    gc.collect()
    assert (gone(), document()) == (None, None)
    async with registry.open(ROOM) as again:
        assert len(again.view.messages) == 60


async def test_a_join_during_a_drain_waits_and_gets_everything(store, clock):
    gate = asyncio.Event()

    class Slow(MemoryStore):
        async def replace_with_snapshot(self, session, snapshot, **options):
            await gate.wait()
            await super().replace_with_snapshot(session, snapshot, **options)

    async with SessionRegistry(Slow(), clock=clock, compaction=Compaction(min_rows_on_unload=1)) as registry:
        async with registry.open(ROOM, create=True) as session:
            await session.edit(post("m1", "x"))
        await clock.advance(120)
        assert registry.live == [session]  # draining

        async def join():
            async with registry.open(ROOM) as fresh:
                return fresh, [m.text for m in fresh.view.messages.ordered()]

        joining = asyncio.create_task(join())
        await settle(100)
        assert not joining.done()
        gate.set()
        fresh, texts = await joining
        assert fresh is not session
        assert texts == ["x"]


async def test_a_session_in_use_is_not_unloaded(registry, clock):
    async with peers(registry, 1):
        await clock.advance(600)
        assert len(registry.connected) == 1


async def test_rows_are_folded_while_the_session_lives(store, clock):
    async with SessionRegistry(store, clock=clock, compaction=Compaction(max_rows=20)) as registry:
        async with registry.open(ROOM, create=True) as session:
            for n in range(40):
                await session.edit(post(f"m{n}", "x"))
            for n in range(40, 43):  # what comes while it is folded, in a thread, is folded the next time
                await until(lambda: not session.folding)
                await session.edit(post(f"m{n}", "x"))
            await until(lambda: not session.folding)
            assert len((await store.load(ROOM)).rows) < 25
            assert len(session.view.messages) == 43


async def killed(updates):
    """Stand for a life that ends before anything is folded."""
    raise StorageError("killed")


async def test_rows_do_not_pile_up_over_lives_that_are_too_short_to_fold(store, clock):
    found = []
    for life in range(6):
        async with SessionRegistry(store, clock=clock, compaction=Compaction(max_rows=20)) as registry:
            registry.documents.fold = killed
            async with registry.open(ROOM, create=True) as session:
                for n in range(15):
                    await session.edit(post(f"m{life}-{n}", "x"))
                assert len(session.view.messages) == 15 * (life + 1)
        found.append(len((await store.load(ROOM)).rows))
    assert max(found) <= 20 + 15 + 1, found


async def test_a_session_with_far_too_many_rows_is_loaded_where_they_cannot_be_folded(store, clock, caplog):
    never = Compaction(max_rows=10**6, min_rows_on_unload=10**6)
    async with SessionRegistry(store, clock=clock, compaction=never) as registry:
        async with registry.open(ROOM, create=True) as session:
            for n in range(25):
                await session.edit(post(f"m{n}", "x"))

    async def refuse(*args, **options):
        raise StorageError("no room")

    store.replace_with_snapshot = refuse
    async with SessionRegistry(store, clock=clock, compaction=Compaction(max_rows=20)) as registry:
        async with registry.open(ROOM) as session:
            assert len(session.view.messages) == 25
    assert "folding failed: no room" in caplog.text


async def test_others_go_on_while_a_session_of_many_rows_is_loaded(store, clock):
    never = Compaction(max_rows=10**6, min_rows_on_unload=10**6)
    async with SessionRegistry(store, clock=clock, compaction=never) as registry:
        async with registry.open(ROOM, create=True) as session:
            for n in range(300):
                await session.edit(lambda view, n=n: view.state.__setitem__("k", n))
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with SessionRegistry(store, clock=clock, compaction=never) as registry:
        counting = asyncio.create_task(count())
        async with registry.open(ROOM) as session:
            assert turns > 8
            assert session.view.state.to_py() == {"k": 299}
        counting.cancel()


async def test_sessions_that_are_due_together_are_folded_one_after_the_other(store, clock, monkeypatch):
    async with SessionRegistry(store, clock=clock, compaction=Compaction(max_rows=20)) as registry:
        all_due, at_once, most, fold = asyncio.Event(), 0, 0, registry.documents.fold

        async def counted(updates):
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await all_due.wait()
            at_once -= 1
            return await fold(updates)

        monkeypatch.setattr(registry.documents, "fold", counted)
        async with AsyncExitStack() as stack:
            names = [session_id(f"room-{number}") for number in range(5)]
            sessions = [await stack.enter_async_context(registry.open(name, create=True)) for name in names]
            for n in range(25):
                await asyncio.gather(*(session.edit(post(f"m{n}", "x")) for session in sessions))
            assert all(session.folding for session in sessions)
            all_due.set()
            await until(lambda: not any(session.folding for session in sessions))
            assert most == 1
            for name in names[1:]:
                assert len((await store.load(name)).rows) < 10


async def test_what_waits_in_rows_of_an_earlier_release_survives_compaction_and_restart(store, clock):
    source, updates = Doc(client_id=5), []
    source.observe(lambda event: updates.append(event.update))
    text = source.get("draft", type=Text)
    for letter in "abc":
        text += letter

    def draft(session):
        return str(session.engine.document.doc.get("draft", type=Text))

    async with SessionRegistry(store, clock=clock) as registry:
        async with registry.open(ROOM, create=True) as session:
            await session.apply(updates[0])
            with pytest.raises(EarlyUpdate):
                await session.apply(updates[2])
            last = (await store.load(ROOM)).last_seq
    await store.append(ROOM, [Row(Seq(last + 1), updates[2], waits=True)], now=clock.now())
    assert len((await store.load(ROOM)).rows) > 2
    async with SessionRegistry(store, clock=clock, compaction=Compaction(max_rows=2)) as registry:
        async with registry.open(ROOM) as session:
            assert draft(session) == "a"
            assert (await store.load(ROOM)).rows[-1].waits
    for _ in range(2):
        async with SessionRegistry(store, clock=clock, compaction=Compaction(min_rows_on_unload=1)) as registry:
            async with registry.open(ROOM) as session:
                assert draft(session) == "a"
                await session.snapshot()
                assert [row.waits for row in (await store.load(ROOM)).rows] == [True]
    async with SessionRegistry(store, clock=clock, compaction=Compaction(min_rows_on_unload=1)) as registry:
        async with registry.open(ROOM) as session:
            await session.apply(updates[1])
            await until(lambda: draft(session) == "abc")
        async with registry.open(ROOM) as session:
            await until(lambda: draft(session) == "abc")
            await session.snapshot()
    assert [row.waits for row in (await store.load(ROOM)).rows] == [False]


async def test_an_echo_is_not_stored(registry, store):
    async with registry.open(ROOM, create=True) as session:
        await session.edit(post("m1", "x"))
        rows = len((await store.load(ROOM)).rows)
        await session.apply(session.engine.document.encode())
        assert len((await store.load(ROOM)).rows) == rows


class Failing(MemoryStore):
    broken = False

    async def append(self, session, rows, *, now, entries=NO_ENTRIES):
        if self.broken:
            raise StorageError("disk full")
        await super().append(session, rows, now=now, entries=entries)


async def test_a_failed_write_is_not_acknowledged_and_peers_may_come_back(clock):
    store = Failing()
    async with SessionRegistry(store, clock=clock) as registry:
        async with Peer(registry) as peer:
            store.broken = True
            await peer.edit(post("m1", "kept by its author"))
            await settle(100)
            assert (peer.replica.durable, peer.replica.version) == (0, 1)
        assert (peer.closing.code, peer.closing.permanent) == (4503, False)
        store.broken = False
        peer.replica.lost(clock.now())
        async with peer:  # the same replica comes back and nothing is lost
            await settle(100)
            assert peer.replica.durable == 1
    assert len((await store.load(ROOM)).rows) == 3


class Slow(MemoryStore):
    """A store whose answers to appends are given by hand."""

    def __init__(self):
        super().__init__()
        self.answers = []
        self.slow = False

    @contextmanager
    def being_slow(self):
        self.slow = True
        try:
            yield self.answers
        finally:
            self.slow = False
            for answer in self.answers:
                if not answer.done():
                    answer.set_result(None)

    async def answered(self):
        if self.slow:
            self.answers.append(asyncio.get_running_loop().create_future())
            await self.answers[-1]

    async def append(self, session, rows, *, now, entries=NO_ENTRIES):
        await self.answered()
        await super().append(session, rows, now=now, entries=entries)


async def write_twice(store, peer, *ends):
    """Return how much counts at first, and then whenever the store has answered one of two writes."""
    with store.being_slow() as answers:
        await peer.edit(post("m1", "one"))
        await peer.edit(post("m2", "two"))
        assert [answer.done() for answer in answers] == [False, False]
        counted = [peer.replica.durable]
        for number in ends:
            answers[number].set_result(None)
            await settle(100)
            counted.append(peer.replica.durable)
        assert peer.replica.version == 2
        return counted


async def test_a_write_is_handed_over_while_another_one_is_under_way_and_they_count_in_order(clock):
    store = Slow()
    async with SessionRegistry(store, clock=clock) as registry, Peer(registry) as peer:
        assert await write_twice(store, peer, 0, 1) == [0, 1, 2]


async def test_of_writes_that_end_in_another_order_nothing_counts_before_the_first(clock):
    class Swapped(Slow):
        async def append(self, session, rows, *, now, entries=NO_ENTRIES):
            await MemoryStore.append(self, session, rows, now=now, entries=entries)
            await self.answered()

    store = Swapped()
    async with SessionRegistry(store, clock=clock) as registry, Peer(registry) as peer:
        assert await write_twice(store, peer, 1, 0) == [0, 0, 2]


async def test_when_a_write_fails_what_was_handed_over_after_it_does_not_count_either(clock):
    store = Slow()
    async with SessionRegistry(store, clock=clock) as registry:
        async with Peer(registry) as peer:
            before = len((await store.load(ROOM)).rows)
            with store.being_slow() as answers:
                await peer.edit(post("m1", "one"))
                await peer.edit(post("m2", "two"))
                answers[0].set_exception(StorageError("disk full"))
                answers[1].set_result(None)
                await settle(100)
                assert peer.replica.durable == 0
        assert peer.closing.code == 4503
        assert len((await store.load(ROOM)).rows) == before, "no gap arises"
        peer.replica.lost(clock.now())
        async with peer:
            await settle(100)
            assert peer.replica.durable == 2
            assert [message.text for message in peer.replica.view.messages.ordered()] == ["one", "two"]


async def test_an_edit_that_cannot_be_stored_raises_and_is_undone(clock):
    store = Failing()
    async with SessionRegistry(store, clock=clock) as registry:
        async with registry.open(ROOM, create=True) as session:
            store.broken = True
            with pytest.raises(StorageError, match="disk full"):
                await session.edit(post("m1", "x"))
            with pytest.raises(StorageError):
                await session.edit(post("m2", "x"))
        store.broken = False
        async with registry.open(ROOM) as session:
            assert len(session.view.messages) == 0
            await session.edit(post("m3", "x"))


async def test_what_is_about_to_be_stored_is_stored_when_close_returns(clock):
    store = MemoryStore()
    async with SessionRegistry(store, clock=clock) as registry, registry.open(ROOM, create=True) as session:
        await session.durable()
        before = len((await store.load(ROOM)).rows)
        editing = asyncio.ensure_future(session.edit(post("m1", "x")))
        await asyncio.sleep(0)  # it is made, and the loop has not turned since
        await session.close()
        rows = len((await store.load(ROOM)).rows)
        assert rows > before
        await editing
        await settle()
        assert len((await store.load(ROOM)).rows) == rows, "nothing is written behind the back of whoever is next"


async def test_an_edit_while_a_session_is_closed_is_refused_as_soon_as_nobody_would_tell_of_its_commit(clock):
    store = Gated()
    async with SessionRegistry(store, clock=clock) as registry, registry.open(ROOM, create=True) as session:
        store.folds.clear()
        naming = asyncio.create_task(session.snapshot("v1"))
        await settle(20)
        closing = asyncio.create_task(session.close())
        await settle(20)
        assert not closing.done(), "it waits for the fold"
        rows = len((await store.load(ROOM)).rows)
        for late in (session.edit(post("m1", "x")), session.apply(b"\0\0"), session.durable()):
            with pytest.raises(ShuttingDown):
                await asyncio.wait_for(late, 5)
        assert len((await store.load(ROOM)).rows) == rows
        store.folds.set()
        await closing
        assert await naming == rows


async def test_a_store_that_breaks_its_contract_fails_the_session_not_the_process(clock):
    class Rude(MemoryStore):
        async def append(self, session, rows, *, now, entries=NO_ENTRIES):
            raise RuntimeError("not a StorageError")

    async with SessionRegistry(Rude(), clock=clock) as registry, registry.open(ROOM, create=True) as session:
        with pytest.raises(SessionFailed, match="reference"):
            await session.edit(post("m1", "x"))


async def test_a_damaged_session_is_refused_and_others_are_not_touched(registry, store):
    other = session_id("other")
    await registry.create(ROOM)
    await registry.create(other)
    await store.append(ROOM, [Row(Seq(2), b"\xff\xff\xff")], now=1)
    async with Peer(registry) as peer:
        pass
    assert peer.closing.code == 4503
    async with Peer(registry, other) as peer:
        await settle()
        assert peer.replica.synced


async def test_deleting_closes_peers_and_stays_deleted(registry, store):
    async with Peer(registry) as peer:
        await peer.edit(post("m1", "x"))
        await registry.delete(ROOM)
    assert peer.closing.code == 4404
    assert await store.load(ROOM) is None
    async with Peer(registry) as peer:
        pass
    assert peer.closing.code == 4404
    with pytest.raises(SessionDeleted):
        async with registry.open(ROOM, create=True):
            pass
    record = await registry.create(ROOM)
    assert record.generation == 2
    async with Peer(registry, generation=1) as peer:
        pass
    assert peer.closing.code == 4409


async def test_creating_twice_is_refused(registry):
    await registry.create(ROOM, title="One")
    with pytest.raises(SessionExists):
        await registry.create(ROOM)


async def test_the_title_reaches_the_record(registry, store):
    async with registry.open(ROOM, create=True) as session:
        await session.edit(lambda view: view.set_title("Oslo"))
        assert (await store.get(ROOM)).title == "Oslo"


async def test_a_closed_session_is_read_only_until_reopened(registry, store):
    async with registry.open(ROOM, create=True) as session:
        await session.set_status("closed")
        assert (await store.get(ROOM)).status == "closed"
    async with Peer(registry) as peer:
        await peer.edit(post("m1", "x"))
        await settle()
        assert "closed" in peer.replica.denied
        assert not peer.serving.done(), "it can still read"
    async with registry.open(ROOM) as session:
        assert session.view.meta.status == "closed"
        await session.set_status("active")
        await session.edit(post("m2", "x"))


async def test_shutdown_stores_acknowledges_and_closes_with_1012(store, clock):
    async with SessionRegistry(store, clock=clock) as registry:
        async with Peer(registry) as one, Peer(registry) as two:
            one.replica.edit(post("m1", "last words"))
            for frame in one.replica.take(clock.now()):
                await one.channel.send(frame)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await registry.shutdown()
            await settle()
            with pytest.raises(ShuttingDown):
                async with registry.open(ROOM):
                    pass
        assert (one.closing.code, two.closing.code) == (1012, 1012)
        assert registry.live == []
    assert one.replica.durable == 1
    assert len((await store.load(ROOM)).rows) == 3


async def test_who_still_holds_a_session_that_was_stopped_or_deleted_is_told_that_nothing_is_stored(store, clock):
    for ending in (SessionRegistry.shutdown, lambda registry: registry.delete(ROOM)):
        async with SessionRegistry(store, clock=clock) as registry, registry.open(ROOM, create=True) as session:
            await session.edit(post("m1", "stored"))
            update = session.document.encode()
            await ending(registry)
            with pytest.raises(ShuttingDown):
                await session.edit(post("m2", "never noted, so never to be acknowledged"))
            with pytest.raises(ShuttingDown):
                await session.apply(update)


async def test_a_peer_that_does_not_read_is_closed_and_the_others_are_served(store, clock):
    timing = Timing(send_timeout_s=0.05)
    async with SessionRegistry(store, clock=clock, timing=timing) as registry:
        near, far = MemoryChannel.pair(capacity=1)
        serving = asyncio.create_task(registry.serve(ROOM, far))
        await near.send(b"\x00\x00\x01\x00")
        await settle()
        async with Peer(registry) as writer, Peer(registry) as reader:
            for n in range(20):
                await writer.edit(post(f"m{n}", "x"))
            await settle()
            assert len(reader.replica.view.messages) == 20
            closing = await serving
            assert closing.code == 1013
            assert not closing.permanent


async def test_a_peer_that_fell_off_the_log_is_resynced(store, clock):
    async with SessionRegistry(store, clock=clock, limits=Limits(log_bytes=500)) as registry:
        near, far = MemoryChannel.pair(capacity=3)
        serving = asyncio.create_task(registry.serve(ROOM, far))
        from crdt_sessions.sync import Replica

        slow = Replica(9999)
        slow.open(clock.now())
        await near.send(slow.take(clock.now())[0])
        await settle()
        async with Peer(registry) as writer:
            for n in range(50):
                await writer.edit(post(f"m{n}", "y" * 40))

            async def read():
                async for message in near:
                    slow.receive(message, clock.now())

            reading = asyncio.create_task(read())
            await settle(100)
            assert len(slow.view.messages) == 50
            near.close()
            await asyncio.gather(reading, serving)


async def test_stock_pycrdt_providers_meet_through_a_session(registry):
    """An embedding application hands over a pycrdt.Channel; two stock providers converge."""
    docs, tasks = [Doc(), Doc()], []
    async with asyncio.TaskGroup() as group:
        nears = []
        for doc in docs:
            near, far = MemoryChannel.pair()
            channel: Channel = near
            nears.append(near)
            tasks.append(group.create_task(registry.serve(ROOM, far)))
            provider = Provider(doc, channel)
            tasks.append(group.create_task(provider.start()))
        await settle()
        docs[0].get("state", type=Map)["x"] = 1
        await settle(50)
        docs[1].get("state", type=Map)["y"] = 2
        await settle(50)
        assert [doc.get("state", type=Map).to_py() for doc in docs] == [{"x": 1, "y": 2}] * 2
        for near in nears:
            near.close()
        for task in tasks:
            task.cancel()


async def test_an_edit_that_raises_is_told_and_the_session_goes_on(registry, store):
    async with registry.open(ROOM, create=True) as session:
        with pytest.raises(ZeroDivisionError):
            await session.edit(lambda view: 1 // 0)
        await session.edit(post("m1", "x"))
        assert session.failed is None


async def test_a_defect_in_the_engine_fails_the_session_and_nothing_else(registry, monkeypatch, caplog):
    other = session_id("other")
    async with Peer(registry) as peer, Peer(registry, other) as witness:
        (session,) = [session for session in registry.live if session.id == ROOM]

        def defect(*_):
            raise RuntimeError("a defect")

        monkeypatch.setattr(session.engine._merger, "_judge", defect)
        await peer.edit(post("m1", "kept by its author"))
        await settle()
        assert peer.replica.durable == 0
        await witness.edit(post("m1", "fine"))
        await settle(50)
        assert witness.replica.durable == 1
    assert peer.closing.code == 1011
    assert "a defect ended the session" in caplog.text
    peer.replica.lost(registry.clock.now())
    async with peer:
        await settle(100)
        assert peer.replica.durable == 1


async def test_after_a_panic_the_session_is_loaded_from_disk_and_everybody_comes_back(registry, monkeypatch):
    class PanicException(BaseException):
        """As pyo3's."""

    def panic(update):
        raise PanicException("rust")

    async with Peer(registry) as culprit, Peer(registry) as witness:
        await witness.edit(post("m1", "kept"))
        await settle(50)
        monkeypatch.setattr(registry.live[0].engine.document.doc, "apply_update", panic)
        await culprit.edit(post("m2", "x"))
        await settle()
    assert (culprit.closing.code, witness.closing.code) == (4400, 1012)
    witness.replica.lost(registry.clock.now())
    async with witness:
        await witness.edit(post("m3", "goes on"))
        await settle(100)
        assert witness.replica.durable == 2


async def test_a_panic_on_an_import_is_told_to_its_sender_and_others_try_again(registry, monkeypatch):
    class PanicException(BaseException):
        """As pyo3's."""

    def panic(update):
        raise PanicException("rust")

    async with registry.open(ROOM, create=True) as session:
        await session.edit(post("m1", "kept"))
        monkeypatch.setattr(session.engine.document.doc, "apply_update", panic)
        with pytest.raises(PanickedUpdate):
            await session.apply(b"\x01\x01\x01\x00\x04\x01\x01t\x01a\x00")
        with pytest.raises(StorageError, match="try again"):
            await session.edit(post("m2", "x"))
    async with registry.open(ROOM) as session:
        await session.edit(post("m2", "x"))
        assert len(session.view.messages) == 2


async def test_a_session_is_loaded_anew_only_after_its_last_write_has_ended(clock, monkeypatch):
    gate = asyncio.Event()

    class Slow(MemoryStore):
        async def append(self, session, rows, *, now, entries=NO_ENTRIES):
            await gate.wait()
            await super().append(session, rows, now=now, entries=entries)

    class PanicException(BaseException):
        """As pyo3's."""

    def panic(update):
        raise PanicException("rust")

    async with SessionRegistry(Slow(), clock=clock) as registry:
        async with registry.open(ROOM, create=True) as session:
            editing = asyncio.create_task(session.edit(post("m1", "under way")))
            await settle()
            monkeypatch.setattr(session.engine.document.doc, "apply_update", panic)
            with pytest.raises(PanickedUpdate):
                await session.apply(b"\x01\x01\x01\x00\x04\x01\x01t\x01a\x00")
            with pytest.raises(StorageError, match="try again"):
                await editing

        async def again():
            async with registry.open(ROOM) as fresh:
                await fresh.edit(post("m2", "x"))
                return fresh.view.messages.ids()

        loading = asyncio.create_task(again())
        await settle()
        assert not loading.done()
        gate.set()
        assert set(await loading) == {"m1", "m2"}


async def test_a_session_at_rest_is_left_alone_but_for_what_keeps_its_peers(registry, clock, monkeypatch):
    looks = []
    handle = SessionEngine.handle

    def noted(self, event, now):
        if isinstance(event, Tick):
            looks.append(now)
        return handle(self, event, now)

    monkeypatch.setattr(SessionEngine, "handle", noted)

    async def pass_time(seconds):
        for _ in range(int(seconds * 2)):
            await clock.advance(0.5)
            await settle()

    async with Peer(registry) as peer:
        peer.replica.set_presence({"user": {"name": "ann"}})
        await peer.pump()
        begun = clock.now()
        await pass_time(2)
        looks.clear()
        received = []
        monkeypatch.setattr(peer.replica, "receive", lambda data, now: received.append((data, now)))
        await pass_time(25)
        assert len(looks) <= 3, looks
        assert received[0][0] == encode(KEEPALIVE)
        assert 19_000 <= received[0][1] - begun <= 21_000
    looks.clear()
    async with registry.open(ROOM):
        await pass_time(10)
        assert len(looks) <= 1, looks


async def test_a_peer_that_broke_off_is_gone_after_the_grace_though_the_session_rests(registry, clock):
    async with peers(registry, 2) as (one, two):
        two.replica.set_presence({"user": {"id": "two"}})
        await two.pump()
        await clock.advance(2)  # it was looked at, and rests
        assert len(one.replica.presences()) == 1
        two.channel.reset()
        await clock.advance(2)
        assert len(one.replica.presences()) == 1, "it may come back"
        await clock.advance(2)
        assert one.replica.presences() == {}
