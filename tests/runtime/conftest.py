import asyncio
from contextlib import asynccontextmanager

import pytest

from crdt_sessions.ids import Millis, session_id
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import Replica
from crdt_sessions.testing import FakeClock, MemoryChannel, settle
from tests.processes import PATIENCE

ROOM = session_id("room")


class Peer:
    """A replica on a memory channel, served by a registry."""

    _ids = 100

    def __init__(self, registry, session=ROOM, **options):
        Peer._ids += 1
        self.replica = Replica(Peer._ids)
        self.registry, self.session, self.options = registry, session, options
        self.closing = None

    async def __aenter__(self):
        self.channel, far = MemoryChannel.pair()
        self.serving = asyncio.create_task(self.registry.serve(self.session, far, **self.options))
        self.replica.open(self._now())
        self.reading = asyncio.create_task(self._read())
        await self.pump()
        return self

    async def __aexit__(self, *error):
        self.channel.close()
        self.closing = await self.serving
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)

    async def _read(self):
        async for message in self.channel:
            self.replica.receive(message, self._now())
            await self.pump()

    async def pump(self):
        for frame in self.replica.take(self._now()):
            await self.channel.send(frame)
        await settle()

    async def edit(self, change):
        self.replica.edit(change)
        await self.pump()

    def _now(self):
        return Millis(self.registry.clock.now())


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
async def registry(store, clock):
    async with SessionRegistry(store, clock=clock) as registry:
        yield registry


async def until(condition):
    """Return once *condition* holds: for what a thread does, which no number of turns can be counted for."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0)


@asynccontextmanager
async def peers(registry, count, **options):
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Peer(registry, **options)) for _ in range(count)]
