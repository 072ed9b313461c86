"""/v1/hocuspocus in this process: a store that fails, an application that hears stateless messages, memory that is freed."""

import asyncio
import contextlib
import gc
import weakref
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sessions.errors import StorageError
from crdt_sessions.storage import NO_ENTRIES, MemoryStore
from crdt_sessions.testing import MemoryChannel
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.hocuspocus import Hocuspocus
from tests.hostile.corpus import mutate
from tests.processes import PATIENCE
from tests.sync.test_engine import letters
from tests.wire.test_hocuspocus import MESSAGES

SCOPE = {"type": "websocket", "path": "/v1/hocuspocus", "headers": [(b"host", b"localhost")], "query_string": b"",
         "client": ("127.0.0.1", 1)}  # fmt: skip


class Held(MemoryStore):
    """A store whose appends wait until they may go on, or fail."""

    def __init__(self):
        super().__init__()
        self.may = asyncio.Event()
        self.may.set()
        self.broken = False

    async def append(self, session, rows, *, now, entries=NO_ENTRIES):
        await self.may.wait()
        if self.broken:
            raise StorageError("disk full")
        await super().append(session, rows, now=now, entries=entries)


@pytest.fixture
async def served():
    async with Service(Settings(sandbox=False, max_lag_s=3600), store=Held()) as service:
        yield service


@asynccontextmanager
async def client(service):
    near, far = MemoryChannel.pair()
    serving = asyncio.create_task(service.hocuspocus.converse(SCOPE, None, far))
    made = Hocuspocus(near)
    made.serving = serving
    try:
        yield made
    finally:
        near.close()
        await asyncio.wait_for(serving, PATIENCE)


async def test_nothing_is_acknowledged_before_it_is_stored(served):
    store = served.registry.store
    async with client(served) as ann:
        await ann.synced("room")
        store.may.clear()
        await ann.write("room", letters("a")[0])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ann.socket.recv(), 0.2)
        store.may.set()
        assert await ann.until("room", "status") == 1


async def test_what_could_not_be_stored_is_never_acknowledged(served):
    store = served.registry.store
    async with client(served) as ann:
        await ann.synced("room")
        store.broken = True
        await ann.write("room", letters("a")[0])
        closing = await asyncio.wait_for(ann.serving, PATIENCE)
        assert (closing.code, closing.permanent) == (4503, False)
        while not ann.socket._inbox.empty():
            assert b"\x08\x01" not in await ann.socket.recv()
    store.broken = False
    async with client(served) as ann:
        await ann.synced("room")
        await ann.write("room", letters("a")[0])
        assert await ann.until("room", "status") == 1, "it comes back and brings it again"


async def test_stateless_messages_go_to_the_application_which_answers_or_tells_all(served):
    heard = []

    @served.hocuspocus.stateless.handle
    async def handle(message):
        heard.append((message.session, message.payload))
        if message.payload == "fail":
            raise ValueError(message.payload)
        message.reply(f"only you: {message.payload}")
        assert message.broadcast(f"all: {message.payload}") == 2

    async with client(served) as ann, client(served) as bob:
        await ann.send("room", b"\x05\x05early")  # nobody is there yet
        await ann.synced("room")
        await bob.synced("room")
        await bob.synced("other")
        await ann.send("room", b"\x05\x04fail")
        await ann.send("room", b"\x05\x02hi")
        assert await ann.until("room", "stateless") == "only you: hi"
        assert await ann.until("room", "stateless") == "all: hi"
        assert await bob.until("room", "stateless") == "all: hi"
        assert heard == [("room", "fail"), ("room", "hi")]
        assert served.hocuspocus.stateless.broadcast("room", "news") == 2
        assert await bob.until("room", "stateless") == "news"
    assert served.hocuspocus.stateless.broadcast("room", "nobody") == 0


async def test_what_is_said_to_the_application_before_one_is_let_in_is_heard_then(served):
    heard = []

    @served.hocuspocus.stateless.handle
    async def handle(message):
        heard.append(message.payload)

    async with client(served) as ann:
        await ann.begin("room")
        await ann.send("room", b"\x05\x03one")
        await ann.send("room", b"\x05\x03two")
        await ann.until("room", "SyncStep2")
        async with asyncio.timeout(PATIENCE):
            while heard != ["one", "two"]:
                await asyncio.sleep(0.01)


async def test_a_document_that_was_left_leaves_nothing_behind(served):
    gc.collect()
    gc.disable()
    try:
        async with client(served) as ann:
            await ann.synced("room")
            (lines,) = served.hocuspocus.stateless._lines.values()
            left = weakref.ref(next(iter(lines)))
            del lines
            await ann.send("room", b"\x07")
            async with asyncio.timeout(PATIENCE):
                while left() is not None:
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()


@given(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=25)
@pytest.mark.slow
def test_whatever_is_sent_is_taken_refused_or_dropped_and_harms_nobody_else(messages, rng):
    async def run():
        async with (
            Service(Settings(sandbox=False, max_lag_s=3600), store=MemoryStore()) as service,
            client(service) as witness,
        ):
            await witness.synced("Grüße")
            async with client(service) as stranger:
                for message in messages:
                    with contextlib.suppress(ConnectionError):
                        await stranger.socket.send(mutate(rng, message, MESSAGES))
            assert stranger.serving.result().code in (1000, 4400, 4413, 1013)
            await witness.write("Grüße", letters("w", 77)[0])
            assert await witness.until("Grüße", "status") == 1

    asyncio.run(run())
