"""Readers that wait get what is appended from memory, and never anything but what is in the store."""

import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import StreamError
from crdt_sessions.limits import Limits
from crdt_sessions.runtime import Streams
from crdt_sessions.runtime.streams import CHUNK_BYTES
from crdt_sessions.runtime.subscriptions import Subscriptions
from crdt_sessions.runtime.webhooks import Reply
from crdt_sessions.storage import MemoryStore
from crdt_sessions.streams import Append, Creation
from crdt_sessions.streams.subscriptions import Wanted
from crdt_sessions.testing import FakeClock, settle
from tests.processes import PATIENCE

TEXT = "text/plain"
LARGE = b"x" * 20_000


class CountingStore(MemoryStore):
    def __init__(self):
        super().__init__()
        self.reads = 0

    async def stream(self, *args, **more):
        self.reads += 1
        return await super().stream(*args, **more)

    async def stream_entries(self, *args, **more):
        self.reads += 1
        return await super().stream_entries(*args, **more)


def creation(**more):
    return Creation("t", "a", "o", TEXT, more.get("ttl_s"), None, False, b"", None)


async def follow(streams, count):
    stream, position, found = await streams.find("t", "a"), 0, []
    while len(found) < count:
        stream = await streams.wait(stream, position, 30)
        piece = await streams.read(stream, position)
        position = piece.end
        found.append(piece.data)
    return found


async def asked_for(count, *, readers, ttl_s=None, shared=False):
    """Return how often the store is asked while readers follow *count* appends, after a first one."""
    store = CountingStore()
    streams = Streams(store, FakeClock(), Limits(), shared=shared)
    await streams.create(creation(ttl_s=ttl_s))
    following = [asyncio.create_task(follow(streams, count + 1)) for _ in range(readers)]
    for number in range(count + 1):
        await settle()  # now all wait
        if number == 1:
            store.reads = 0
        await streams.append("t", "a", Append(b"%d" % number, TEXT, False, None, None))
    for found in await asyncio.gather(*following):
        assert found == [b"%d" % number for number in range(count + 1)]
    return store.reads


def test_all_who_wait_get_an_append_without_asking_the_store():
    assert asyncio.run(asked_for(5, readers=10)) == 0


def test_where_others_write_or_time_ends_a_stream_the_store_is_asked():
    assert asyncio.run(asked_for(5, readers=3, shared=True)) > 0
    assert asyncio.run(asked_for(5, readers=3, ttl_s=60)) > 0


STEPS = st.sampled_from(
    ["append", "append", "append large", "close", "delete", "create", "create with a ttl", "later"]
)


@given(steps=st.lists(STEPS, max_size=14))
def test_a_reader_is_told_what_the_store_says(steps):
    async def play():
        store, clock = MemoryStore(), FakeClock()
        streams, plain = Streams(store, clock, Limits()), Streams(store, clock, Limits(), shared=True)

        known = None

        async def told(by, place):
            try:
                stream = await by.wait(known, place, 0)
                piece = await by.read(stream, place)
            except StreamError as error:
                return type(error)
            return stream, piece.data, piece.up_to_date, piece.last

        for step in ["create", *steps]:
            try:
                match step:
                    case "create" | "create with a ttl":
                        await streams.create(creation(ttl_s=5 if "ttl" in step else None))
                    case "delete":
                        await streams.delete("t", "a")
                    case "later":
                        await clock.advance(6)
                    case _:
                        body = LARGE if "large" in step else b"" if step == "close" else b"some"
                        await streams.append("t", "a", Append(body, TEXT, step == "close", None, None))
            except StreamError:
                pass
            with suppress(StreamError):  # a reader has it as it was
                known = await plain.find("t", "a")
            for place in {0, max(known.tail - 4, 0), max(known.tail - len(LARGE), 0), known.tail}:
                assert await told(streams, place) == await told(plain, place)

    asyncio.run(play())


class LateStore(MemoryStore):
    """Says late what it has written."""

    def __init__(self):
        super().__init__()
        self.written, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def alter_stream(self, *args, **more):
        await super().alter_stream(*args, **more)
        self.written.set()
        await self.answers.wait()


def test_readers_hear_of_what_a_writer_appends_that_hangs_up():
    async def play():
        store = LateStore()
        streams = Streams(store, FakeClock(), Limits())
        await streams.create(creation())
        await streams.append("t", "a", Append(b"one", TEXT, False, None, None))
        reading = asyncio.create_task(follow(streams, 2))
        await settle()
        store.written.clear()
        store.answers.clear()
        writing = asyncio.create_task(streams.append("t", "a", Append(b"two", TEXT, False, None, None)))
        await store.written.wait()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        store.answers.set()
        assert await asyncio.wait_for(reading, PATIENCE) == [b"one", b"two"]

    asyncio.run(play())


def test_half_a_character_is_waited_for():
    async def play():
        streams = Streams(MemoryStore(), FakeClock(), Limits())
        await streams.create(creation())
        await streams.append("t", "a", Append(b"h\xe2", TEXT, False, None, None))
        piece = await streams.read(await streams.find("t", "a"), 0)
        assert (piece.data, piece.end, piece.up_to_date) == (b"h", 1, True)
        piece = await streams.read(piece.stream, piece.end)
        assert (piece.data, piece.end, piece.seen, piece.up_to_date) == (b"", 1, 2, True)
        waiting = asyncio.create_task(streams.wait(piece.stream, piece.seen, 30))
        await settle()
        assert not waiting.done()
        await streams.append("t", "a", Append(b"\x82\xac", TEXT, False, None, None))
        piece = await streams.read(await waiting, piece.end)
        assert (piece.data.decode(), piece.end, piece.up_to_date) == ("€", 4, True)

    asyncio.run(play())


def test_a_character_whose_other_half_begins_a_large_append_is_read():
    async def play():
        streams = Streams(MemoryStore(), FakeClock(), Limits())
        await streams.create(creation())
        rest = b"\x82\xac" + b"x" * CHUNK_BYTES
        for data in (b"\xe2", rest):
            await streams.append("t", "a", Append(data, TEXT, False, None, None))
        assert (await streams.read(await streams.find("t", "a"), 0)).data == b"\xe2" + rest

    asyncio.run(play())


def test_a_subscription_works_though_whoever_makes_it_hangs_up():
    async def play():
        store, posted = LateStore(), asyncio.Event()
        streams = Streams(store, FakeClock(), Limits())

        async def deliver(url, body):
            posted.set()
            return Reply(200, b"")

        subscriptions = Subscriptions(streams, store, FakeClock(), deliver)
        running = asyncio.create_task(subscriptions.run())
        await streams.create(creation())
        await settle()
        store.written.clear()
        store.answers.clear()
        wanted = Wanted("webhook", "a", webhook="https://hooks.example/", lease_ms=5000)
        making = asyncio.create_task(subscriptions.put("t", "s", wanted, owner="o", url="http://x/s"))
        await store.written.wait()
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        store.answers.set()
        await settle()
        await streams.append("t", "a", Append(b"one", TEXT, False, None, None))
        await asyncio.wait_for(posted.wait(), PATIENCE)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(play())
