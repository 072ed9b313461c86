"""Sessions that sleep while their clients do nothing, in the runtime: memory, tasks, and nothing lost."""

import asyncio
import gc
import sys
import tracemalloc
import weakref
from contextlib import AsyncExitStack

import pytest

from crdt_sessions.errors import StoreUnavailable
from crdt_sessions.ids import session_id
from crdt_sessions.limits import Timing
from crdt_sessions.model import Author, MessageHead, TextPart
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import MemoryStore, Row
from crdt_sessions.testing import settle
from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, encode

from .conftest import ROOM, Peer, peers, until

QUIET = Timing(idle_unload_s=5)


def post(id, text="hello"):
    head = MessageHead(id=id, role="user", author=Author(id="ann"), created_at=1)
    return lambda view: view.messages.add(head, [TextPart(type="text", text=text)])


class Counting(MemoryStore):
    """A store that counts how often sessions are loaded, and may fail to."""

    def __init__(self):
        super().__init__()
        self.loads, self.fails = 0, False
        self.gate = asyncio.Event()
        self.gate.set()

    async def load(self, session):
        await self.gate.wait()
        self.loads += 1
        if self.fails:
            raise StoreUnavailable("the disk is gone")
        return await super().load(session)


@pytest.fixture
def store():
    return Counting()


@pytest.fixture
async def registry(store, clock):
    async with SessionRegistry(store, clock=clock, timing=QUIET) as registry:
        yield registry


async def slept(registry, clock):
    await clock.advance(2)
    await clock.advance(6)
    assert registry.live == []
    assert [session.id for session in registry.connected] == [ROOM]


async def test_a_session_whose_clients_do_nothing_has_no_document(registry, clock):
    async with peers(registry, 2) as (one, two):
        await one.edit(post("m1"))
        gone = [weakref.ref(each) for each in (registry.live[0].engine, registry.live[0].engine.document)]
        await slept(registry, clock)
        gc.collect()
        assert [each() for each in gone] == [None, None]
        await clock.advance(60)
        assert registry.live == [], "it is not woken up for keepalives"
        await two.edit(post("m2"))
        await settle(100)
        assert "m2" in one.replica.view.messages
        assert two.replica.durable == two.replica.version
        assert len(registry.live) == 1
        await slept(registry, clock)
    assert one.closing.code == two.closing.code == 1000


async def test_one_that_is_only_looked_at_sleeps_sooner_than_one_that_was_written_in(registry, clock):
    async with peers(registry, 1) as (one,):
        await clock.advance(1)
        assert registry.live == [], "a sixtieth of five seconds"
        await one.edit(post("m1"))
        await settle(100)
        for _ in range(4):
            assert len(registry.live) == 1
            await clock.advance(1)
        await slept(registry, clock)


@pytest.mark.parametrize(("text", "seconds"), [("short", 1), ("long" * 20_000, 6)])
async def test_one_that_is_large_stays_longer_since_it_takes_longer_to_load(store, clock, text, seconds):
    async with SessionRegistry(store, clock=clock) as registry:
        async with registry.open(ROOM, create=True) as session:
            await session.edit(post("m1", text))
        await clock.advance(120)
        assert registry.live == []
        async with peers(registry, 1):
            for _ in range(seconds - 1):
                await clock.advance(1)
                assert len(registry.live) == 1
            await clock.advance(1)
            assert (registry.live, len(registry.connected)) == ([], 1)


async def test_it_falls_asleep_without_cycles(registry, clock):
    async with peers(registry, 1):
        gc.collect()
        gc.disable()
        try:
            session = registry.live[0]
            gone = [weakref.ref(each) for each in (session.engine, session.engine.runs, session.engine.document)]
            await slept(registry, clock)
            assert [each() for each in gone] == [None] * 3
        finally:
            gc.enable()


async def test_whoever_opens_it_gets_it_awake_and_it_stays_so(registry, clock, store):
    async with peers(registry, 1) as (one,):
        await slept(registry, clock)
        loads = store.loads
        opened = [registry.open(ROOM) for _ in range(5)]
        sessions = await asyncio.gather(*(each.__aenter__() for each in opened))
        assert len(set(sessions)) == 1
        assert store.loads == loads + 1
        await sessions[0].edit(post("m1"))
        await clock.advance(60)
        assert registry.live == [sessions[0]]
        for each in opened:
            await each.__aexit__(None, None, None)
        await settle()
        assert "m1" in one.replica.view.messages
        await slept(registry, clock)


async def test_a_look_at_sessions_that_sleep_calls_nothing_for_each(registry, clock):
    async with AsyncExitStack() as stack:
        for number in range(20):
            await stack.enter_async_context(Peer(registry, session_id(f"s{number}")))
        await clock.advance(2)
        await clock.advance(1)
        assert (len(registry.connected), registry.live) == (20, [])
        calls = []
        sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_qualname) if event == "call" else None)
        try:
            registry._slots.look_after_all()
        finally:
            sys.setprofile(None)
    assert len(calls) < 5, calls


async def test_somebody_new_wakes_it_up(registry, clock):
    async with peers(registry, 1) as (one,):
        await one.edit(post("m1"))
        await slept(registry, clock)
        async with Peer(registry) as two:
            await settle(50)
            assert "m1" in two.replica.view.messages
            await two.edit(post("m2"))
            await settle(50)
            assert "m2" in one.replica.view.messages


async def test_what_comes_while_it_wakes_up_keeps_its_order(registry, clock, store):
    async with peers(registry, 2) as (one, two):
        await slept(registry, clock)
        store.gate.clear()
        for number in range(20):
            await one.edit(post(f"a{number}"))
            await two.edit(post(f"b{number}"))
        assert registry.live == []
        store.gate.set()
        for peer in (one, two):
            await until(lambda replica=peer.replica: replica.durable == replica.version)
            await until(lambda replica=peer.replica: len(replica.view.messages) == 40)


async def test_who_leaves_while_it_sleeps_is_gone_and_it_is_unloaded(registry, clock, store):
    async with peers(registry, 1):
        await slept(registry, clock)
        loads = store.loads
    assert len(registry.connected) == 0
    await clock.advance(10)
    assert not registry.holds(ROOM)
    assert store.loads == loads, "nobody needed it"


async def test_a_session_that_cannot_be_woken_up_closes_its_connections(registry, clock, store):
    async with peers(registry, 1) as (one,):
        await slept(registry, clock)
        store.fails = True
        await one.edit(post("m1"))
        await settle(50)
    assert one.closing.code == 4503
    store.fails = False
    await clock.advance(5)
    async with Peer(registry) as again:
        await settle(50)
        assert again.replica.synced


async def test_whoever_comes_after_it_could_not_be_woken_up_has_it_loaded_anew(clock, store):
    """Everybody has left meanwhile: nobody waits who would have dropped it."""
    async with SessionRegistry(store, clock=clock, timing=QUIET) as registry:
        async with peers(registry, 1):
            await slept(registry, clock)
            store.fails = True
            store.gate.clear()
            opening = asyncio.create_task(registry.open(ROOM).__aenter__())
            await settle()
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        store.gate.set()
        await settle()
        store.fails = False
        async with registry.open(ROOM) as session:
            assert len(session.view.messages) == 0


async def test_one_that_is_woken_up_while_all_are_looked_after_is_looked_after_next_time(registry, clock, store):
    async with peers(registry, 1) as (one,):
        await slept(registry, clock)
        await clock.advance(1)
        store.gate.clear()
        await one.edit(post("m1"))
        await clock.advance(0.6)
        store.gate.set()
        await settle(100)
        (session,) = registry.live
        looked = []
        session.tick = looked.append
        await clock.advance(0.6)
        assert looked, "leases and deadlines would wait for the next keepalive"


async def test_one_that_sleeps_while_sessions_are_handed_over_is_woken_up_until_its_turn(registry, clock):
    async with peers(registry, 1) as (one,):
        await slept(registry, clock)
        for number in range(30):  # they are before it
            async with registry.open(session_id(f"s{number}"), create=True):
                pass
        slots = registry._slots._slots
        slots[ROOM] = slots.pop(ROOM)
        giving = asyncio.create_task(registry.hand_over(10))
        await clock.advance(0.5)
        assert registry.leaving
        async with registry.open(ROOM) as session:
            assert len(session.view.messages) == 0
        await clock.advance(1)
        assert not registry.live or ROOM not in [each.id for each in registry.live], "it sleeps again"
        await one.edit(post("m1"))
        await settle(100)
        assert one.replica.durable == one.replica.version, "it is answered"
        async with Peer(registry) as two:
            await settle(100)
            assert "m1" in two.replica.view.messages
        for _ in range(8):
            await clock.advance(0.5)
        await giving
        assert not registry.holds(ROOM)
    assert one.closing.code == 1012


async def test_one_that_was_changed_from_outside_has_its_clients_come_back(registry, clock, store):
    async with peers(registry, 1) as (one,):
        await slept(registry, clock)
        stored = await store.load(ROOM)
        await store.append(ROOM, [Row(stored.last_seq + 1, b"\x00\x00")], now=clock.now())
        await one.edit(post("m1"))
        await settle(50)
    assert not one.closing.permanent


async def test_a_registry_that_stops_tells_who_is_connected_to_it(registry, clock):
    async with Peer(registry) as one:
        await slept(registry, clock)
        await registry.shutdown()
    assert one.closing.code == 1012


async def test_one_that_is_deleted_closes_its_connections(registry, clock):
    async with Peer(registry) as one:
        await slept(registry, clock)
        await registry.delete(ROOM)
    assert one.closing.code == 4404


class Line:
    """A connection of a client that does nothing, with nothing of the client's own."""

    writable = True

    def __init__(self):
        self.gone = asyncio.Event()

    def open(self, on_writable, take, patience_s):
        self.take = take

    def write(self, messages):
        pass

    async def drained(self):
        return

    async def batches(self):
        await self.gone.wait()
        return
        yield  # an iterator all the same

    async def release(self):
        del self.take


async def test_a_connection_to_a_session_that_sleeps_takes_a_few_kilobytes(registry, clock):
    """All that Python allocates for a session and its connection, but for the socket: 45 kB while it is awake."""
    count, lines = 20, []
    async with asyncio.TaskGroup() as tasks:

        async def join(number):
            line = Line()
            lines.append(line)
            tasks.create_task(registry.serve(session_id(f"s{number}"), line))
            await until(lambda: hasattr(line, "take"))
            line.take([encode(SyncStep1(b"\x00")), encode(SyncStep2(EMPTY_UPDATE))])

        await join(0)
        await clock.advance(10)
        gc.collect()
        tracemalloc.start()
        before, objects = tracemalloc.get_traced_memory()[0], len(gc.get_objects())
        for number in range(1, count + 1):
            await join(number)
        await clock.advance(2)
        await clock.advance(10)
        assert registry.live == []
        assert len(registry.connected) == count + 1
        gc.collect()
        each, made = (tracemalloc.get_traced_memory()[0] - before) / count, (len(gc.get_objects()) - objects) / count
        tracemalloc.stop()
        assert each < 13_500, "of which the store in memory and this test take three"
        assert made <= 68, "objects that the collector knows, the store's and this test's among them"
        for line in lines:
            line.gone.set()
