"""Too much to do: newcomers wait, those who are here are served, memory comes back from whom nobody uses."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import Overloaded, StoreUnavailable, TooMany
from crdt_sessions.ids import Millis, session_id
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.runtime import Access, Dispatcher, Load, SessionRegistry
from crdt_sessions.runtime.pace import Pace
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import Replica
from crdt_sessions.testing import MemoryChannel, settle
from crdt_sessions.wire import Ack, decode, encode
from crdt_sessions.wire.varint import varuint

from .conftest import ROOM, Peer, until

LIMITS = Limits(max_lag_s=0.5, memory_watermark_bytes=100)


class Gauge:
    memory = 0

    def __call__(self):
        return self.memory


@pytest.fixture
def gauge():
    return Gauge()


@pytest.fixture
def load(gauge):
    return Load(LIMITS, memory=gauge)


@pytest.fixture
async def busy(store, clock, load):
    async with SessionRegistry(store, clock=clock, limits=LIMITS, load=load) as registry:
        yield registry


async def join(registry, session=ROOM, **options):
    channel, far = MemoryChannel.pair()
    closing = await registry.serve(session, far, **options)
    channel.close()
    return closing.code, closing.reason


def test_one_pause_is_not_overload_and_several_are(load):
    load.note_lag(2.0)
    load.check_lag()
    for _ in range(5):
        load.note_lag(2.0)
    with pytest.raises(Overloaded) as raised:
        load.check_lag()
    assert raised.value.retry_after_s > 0
    for _ in range(10):
        load.note_lag(0.0)
    load.check_lag()


async def test_while_the_loop_lags_newcomers_are_told_when_to_come_back_and_others_stay(busy, load):
    async with Peer(busy) as ann:
        load.lag_s = 3.0
        assert await join(busy) == (1013, "overloaded: the event loop is 3.0 s late; come back in 2 s")
        await ann.edit(lambda view: view.state.__setitem__("k", 1))
        assert not ann.serving.done()
        load.lag_s = 0.0
        async with Peer(busy) as bob:
            await until(lambda: bob.replica.view.state.to_py() == {"k": 1.0})


async def test_when_memory_is_short_idle_sessions_go_first_and_then_no_more_are_loaded(busy, gauge, clock):
    async with busy.open(session_id("idle"), create=True):
        pass
    async with Peer(busy) as ann:
        gauge.memory = 101
        await clock.advance(1)
        assert [session.id for session in busy.connected] == [ROOM], "the idle one is gone, the other one lives"
        code, reason = await join(busy, session_id("another"))
        assert (code, "memory" in reason) == (1013, True)
        async with Peer(busy):  # what is in memory may be joined
            pass
        assert not ann.serving.done()
        gauge.memory = 99
        async with busy.open(session_id("idle")):
            pass


async def test_a_session_more_than_the_limit_takes_the_place_of_the_one_idle_longest(store, clock):
    async with SessionRegistry(store, clock=clock, limits=replace(LIMITS, max_sessions=2)) as registry:
        for name in ("a", "b"):
            async with registry.open(session_id(name), create=True):
                pass
            await clock.advance(1)
        async with registry.open(session_id("c"), create=True):
            assert sorted(session.id for session in registry.live) == ["b", "c"]
            async with registry.open(session_id("b")):
                with pytest.raises(TooMany) as raised:
                    async with registry.open(session_id("a")):
                        pass
                assert str(raised.value) == "more than 2 sessions at a time; come back later"


async def test_connections_are_counted_and_given_back(store, clock):
    limits = Limits(max_connections=3, max_connections_per_session=2, max_connections_per_principal=1)
    async with SessionRegistry(store, clock=clock, limits=limits) as registry:
        async with Peer(registry, access=Access("ann")), Peer(registry, access=Access("bob")):
            assert await join(registry, access=Access("cleo")) == (
                1013, "more than 2 connections to one session; come back later",
            )  # fmt: skip
            other = session_id("other")
            assert await join(registry, other, access=Access("ann")) == (
                1013, "more than 1 connections of ann; come back later",
            )  # fmt: skip
            async with Peer(registry, session=other):  # of those nothing is known of, each is one
                assert registry.capacity.connections == 3
                assert await join(registry, other) == (1013, "more than 3 connections; come back later")
        assert registry.capacity.connections == 0
        async with Peer(registry, access=Access("ann")):
            pass


async def asking(registry, count, capacity=0):
    """A peer that asks to have *count* messages acknowledged, as fast as it may; and its serving task."""
    channel, far = MemoryChannel.pair(capacity=capacity)
    serving = asyncio.create_task(registry.serve(ROOM, far))

    async def ask():
        for number in range(count):
            await channel.send(encode(Ack(varuint(number))))

    return channel, asyncio.create_task(ask()), serving


async def answered(channel):
    """How many of its acknowledgements a peer has got so far."""
    await settle(100)
    inbox = channel._inbox
    return sum(any(isinstance(frame, Ack) for frame in decode(message)) for message in list(inbox._queue))


async def test_a_peer_that_sends_too_fast_is_slowed_down_to_the_limit_and_nobody_else_is(store, clock):
    async with SessionRegistry(store, clock=clock, limits=Limits(messages_per_s=10, message_burst=20)) as registry:
        channel, asks, serving = await asking(registry, 100)
        assert await answered(channel) == 20, "the burst"
        for seconds in range(1, 4):
            await clock.advance(1)
            assert abs(await answered(channel) - (20 + 10 * seconds)) <= 1
            async with Peer(registry) as other:
                await other.edit(lambda view, seconds=seconds: view.state.__setitem__("k", seconds))
                await until(lambda: other.replica.durable == other.replica.version)
        await clock.advance(6)
        assert await answered(channel) == 100, "nothing is lost"
        assert not serving.done()
        await asks
        channel.close()
        assert (await serving).code == 1000


async def test_a_peer_that_is_slowed_down_is_not_read_from_so_that_it_feels_it(store, clock):
    async with SessionRegistry(store, clock=clock, limits=Limits(messages_per_s=10, message_burst=20)) as registry:
        channel, asks, serving = await asking(registry, 100, capacity=5)
        under_way = 5 + 1  # and one that waits for its turn
        channel._inbox._maxsize = 0  # what it is sent has room
        await settle(100)
        waiting = channel._other._inbox.qsize()
        assert (waiting, asks.done()) == (5, False)
        assert await answered(channel) == 20
        await clock.advance(1)
        assert abs(await answered(channel) - 30) <= 1
        assert channel._other._inbox.qsize() <= under_way
        asks.cancel()
        channel.close()
        await clock.advance(10)  # that it has ended stands behind what it had sent
        assert (await serving).code == 1000


async def test_a_peer_that_is_slowed_down_can_be_closed(store, clock):
    async with SessionRegistry(store, clock=clock, limits=Limits(messages_per_s=0.001, message_burst=1)) as registry:
        _, _, serving = await asking(registry, 100)
        await settle()
        await registry.shutdown()
        assert (await serving).code == 1012


async def test_what_the_disk_has_not_taken_is_bounded(clock):
    """The disk stands still: of what a peer sends, only so much is taken in; when it moves again, all arrives."""
    moves = asyncio.Event()

    class Slow(MemoryStore):
        async def append(self, *arguments, **options):
            await moves.wait()
            await super().append(*arguments, **options)

    limits = Limits(max_uncommitted_bytes=2000)
    async with SessionRegistry(Slow(), clock=clock, limits=limits) as registry:
        async with Peer(registry) as ann, registry.open(ROOM) as session:
            for number in range(50):
                await ann.edit(lambda view, number=number: view.state.__setitem__(f"k{number}", "x" * 500))
            await settle()
            assert 0 < len(session.view.state.to_py()) < 10
            moves.set()
            await until(lambda: len(session.view.state.to_py()) == 50)


async def test_what_waits_for_the_disk_counts_as_what_it_costs(clock):
    """A small update costs several times its bytes."""
    moves = asyncio.Event()

    class Slow(MemoryStore):
        async def append(self, *arguments, **options):
            await moves.wait()
            await super().append(*arguments, **options)

    async with SessionRegistry(Slow(), clock=clock, limits=Limits(max_uncommitted_bytes=10_000)) as registry:
        async with Peer(registry) as ann, registry.open(ROOM) as session:
            for number in range(100):
                await ann.edit(lambda view, number=number: view.state.__setitem__(f"k{number}", 1))
            await settle()
            assert 0 < len(session.view.state.to_py()) < 40
            moves.set()
            await until(lambda: len(session.view.state.to_py()) == 100)


async def test_what_waits_for_the_disk_in_all_sessions_is_bounded(clock):
    """Those that flood are not read any more, however many they are; who sends little is."""
    moves = asyncio.Event()

    class Slow(MemoryStore):
        async def append(self, *arguments, **options):
            await moves.wait()
            await super().append(*arguments, **options)

    limits = Limits(max_uncommitted_bytes=10**9, total_uncommitted_bytes=100_000)
    async with SessionRegistry(Slow(), clock=clock, limits=limits) as registry, AsyncExitStack() as stack:
        rooms = [session_id(f"room-{number}") for number in range(6)]
        floods = [await stack.enter_async_context(Peer(registry, room)) for room in rooms]
        modest = await stack.enter_async_context(Peer(registry))
        for number in range(40):
            for flood in floods:
                await flood.edit(lambda view, number=number: view.state.__setitem__(f"k{number}", "x" * 1000))
            assert registry.capacity.backlog.bytes < limits.total_uncommitted_bytes + len(floods) * 20_000
        assert registry.capacity.backlog.full
        await modest.edit(lambda view: view.state.__setitem__("k", 1))
        async with registry.open(ROOM) as session:
            assert session.view.state.to_py() == {"k": 1}
        moves.set()
        for room in rooms:
            async with registry.open(room) as session:
                await until(lambda session=session: len(session.view.state.to_py()) == 40)
                await session.durable()
        await until(lambda: registry.capacity.backlog.bytes == 0)


async def test_what_all_sessions_keep_for_slow_peers_is_bounded(store, clock):
    """Each of them has a peer that reads nothing; in the end they read, and have everything."""
    limits = Limits(log_bytes=20_000, total_log_bytes=30_000)
    async with SessionRegistry(store, clock=clock, limits=limits) as registry:
        slow = []
        for number in range(5):
            room = session_id(f"room-{number}")
            near, far = MemoryChannel.pair(capacity=3)
            replica = Replica(9000 + number)
            replica.open(clock.now())
            slow.append((near, replica, asyncio.create_task(registry.serve(room, far))))
            await near.send(replica.take(clock.now())[0])
            await settle()
            async with Peer(registry, room) as writer:
                for edit in range(70):
                    await writer.edit(lambda view, edit=edit: view.state.__setitem__(f"k{edit}", "x" * 200))
                    assert registry.capacity.log_memory.bytes <= limits.total_log_bytes
        assert registry.capacity.log_memory.bytes > limits.log_bytes / 2, "they do lag"
        for near, replica, serving in slow:

            async def read(near=near, replica=replica):
                async for message in near:
                    replica.receive(message, clock.now())

            reading = asyncio.create_task(read())
            await until(lambda replica=replica: len(replica.view.state.to_py() or {}) == 70)
            near.close()
            await asyncio.gather(reading, serving)
            replica.close()
    assert registry.capacity.log_memory.bytes == 0


@given(
    st.floats(0.1, 1000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 200)), max_size=30),
)
def test_no_more_than_the_pace_for_long_and_never_less(per_s, burst, bursts):
    pace, now, taken, idle_until = Pace(per_s, burst, Millis(0)), 0, 0, 0
    for pause, count in bursts:
        now += pause
        taken += sum(pace.take(Millis(now)) for _ in range(count))
        assert taken <= burst + now * per_s / 1000 + 1e-6
        idle_until = now
    rested = idle_until + int(burst / per_s * 1000) + 1
    assert sum(pace.take(Millis(rested)) for _ in range(burst)) == burst, "after a rest, all of the burst"


def test_what_has_passed_already_is_charged_and_waited_for():
    pace = Pace(1000, 10, Millis(0))
    assert pace.charge(Millis(0), 9)
    assert not pace.charge(Millis(0), 1), "nothing is left"
    assert not pace.charge(Millis(0), 100), "and yet it has passed"
    assert pace.wait_s == 0.101
    assert not pace.charge(Millis(100), 0)
    assert pace.charge(Millis(101), 0)
    assert pace.take(Millis(101))
    assert not pace.take(Millis(101))


# -- a store that takes no writes -----------------------------------------------------------------------------------


class Failing(MemoryStore):
    """A store that can be told to fail."""

    error = None

    away = False
    """Whether nothing can be read either."""
    checks = 0

    async def append(self, *arguments, **options):
        if self.error:
            raise self.error
        return await super().append(*arguments, **options)

    async def load(self, session):
        if self.away:
            raise self.error
        return await super().load(session)

    async def check(self):
        self.checks += 1
        if self.error:
            raise self.error


@pytest.fixture
async def failing(clock):
    store = Failing()
    timing = Timing(storage_patience_s=5, idle_unload_s=600)
    async with SessionRegistry(store, clock=clock, timing=timing) as registry:
        yield registry


async def wrote(peer, registry, value):
    """Let a peer write, and return once it is stored."""
    await peer.edit(lambda view: view.state.__setitem__("k", value))
    async with registry.open(ROOM) as session:
        await until(lambda: session.view.state.get("k") == value)
        await session.durable()


async def test_an_outage_from_begin_to_end(failing, clock):
    async with Peer(failing) as ann:
        await wrote(ann, failing, 1)
        failing.store.error = StoreUnavailable("the disk is full")
        await ann.edit(lambda view: view.state.__setitem__("k", 2))
        assert (await ann.serving).code == 4503, "what could not be stored is not acknowledged"
    assert failing.health.since == clock.now()
    async with failing.open(ROOM) as session:
        assert session.view.state.to_py() == {"k": 1.0}, "it can be read"
        for write in (session.edit(lambda view: None), session.apply(b"\x00\x00"), session.set_status("closed")):
            with pytest.raises(StoreUnavailable):
                await write
    async with Peer(failing) as bob:
        await until(lambda: bob.replica.view.state.to_py() == {"k": 1.0})
        await bob.edit(lambda view: view.state.__setitem__("k", 3))
        assert not bob.serving.done(), "for a while it waits"
        await clock.advance(6)
        assert (await bob.serving).code == 4503, "then it is told"
    failing.store.error = None
    await clock.advance(2)
    assert failing.health.error is None
    async with Peer(failing) as ann:
        await wrote(ann, failing, 4)
        assert not ann.serving.done()


async def test_an_update_that_waited_through_a_short_outage_is_stored(failing, clock):
    async with Peer(failing) as ann:
        await wrote(ann, failing, 1)
        failing.store.error = StoreUnavailable("locked")
        failing.health.failed(failing.store.error)
        await ann.edit(lambda view: view.state.__setitem__("k", 2))
        rows = len((await failing.store.load(ROOM)).rows)
        failing.store.error = None
        await clock.advance(2)
        assert not ann.serving.done()
        assert len((await failing.store.load(ROOM)).rows) == rows + 1


async def test_who_comes_while_the_store_is_away_waits_and_is_served_as_soon_as_it_is_back(failing, clock):
    """Nobody comes ever more seldom meanwhile: who waited is served a fraction of a second after the store is back."""
    failing.store.away, failing.store.error = True, StoreUnavailable("the database fails over")
    async with Peer(failing) as ann:
        await clock.advance(10)
        assert not ann.serving.done(), "it was sent away"
        assert failing.store.checks >= 10 / 0.3 - 1, "the store was not looked at often"
        checks = failing.store.checks
        failing.store.away, failing.store.error = False, None
        await clock.advance(0.3)
        assert failing.store.checks == checks + 1
        assert failing.health.error is None
        await wrote(ann, failing, 1)


async def test_who_waited_for_too_long_is_told_why(failing, clock):
    failing.store.away, failing.store.error = True, StoreUnavailable("the database is away")
    async with Peer(failing) as ann:
        await clock.advance(19)
        assert not ann.serving.done()
        await clock.advance(2)
        assert (await ann.serving).code == 4503


async def test_nobody_is_kept_waiting_by_a_process_that_stops(failing, clock):
    failing.store.away, failing.store.error = True, StoreUnavailable("the database is away")
    async with Peer(failing) as ann:
        await clock.advance(1)
        assert not ann.serving.done()
        await failing.shutdown()
        assert (await ann.serving).code in (1012, 4503)


async def test_an_agent_that_waits_for_runs_waits_for_the_store_too(failing, clock):
    failing.store.away, failing.store.error = True, StoreUnavailable("the database fails over")
    ready = failing.store.ready_runs

    async def ready_runs(*arguments, **options):
        if failing.store.away:
            raise failing.store.error
        return await ready(*arguments, **options)

    failing.store.ready_runs = ready_runs
    with pytest.raises(StoreUnavailable):
        await Dispatcher(failing).claim(["writer"], owner="a")
    claiming = asyncio.create_task(Dispatcher(failing).claim(["writer"], owner="a", wait_s=3600))
    await clock.advance(5)
    assert not claiming.done()
    failing.store.away, failing.store.error = False, None
    await clock.advance(1)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming


async def test_the_store_is_tried_once_a_second_however_often_it_is_asked(failing, clock):
    calls = []

    async def check():
        calls.append(clock.now())

    failing.store.check = check
    for _ in range(5):
        await failing.health.check()
    assert len(calls) == 1
    await clock.advance(1)
    await failing.health.check()
    assert len(calls) == 2
