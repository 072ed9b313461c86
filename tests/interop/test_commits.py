"""What providers count as unsynced is what is not on disk: it falls when the commit happened, and not before.

The service is in this process, and its store does what it is told. The clients are unmodified, behind a slow network.
"""

import asyncio
import contextlib

import pytest
from hypercorn.config import Config
from pycrdt import Text

from crdt_sessions.errors import StorageError
from crdt_sessions.model import SessionDoc
from crdt_sessions.storage import NO_ENTRIES, MemoryStore
from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.service import Service
from crdt_sessions_server.serving.web_server import WebServer
from crdt_sessions_server.settings import Settings
from tests.interop.node import needs_node
from tests.processes import PATIENCE
from tests.proxy import Network, Proxy

pytestmark = [pytest.mark.interop, needs_node]

SLOW = Network(delay_s=0.01, jitter_s=0.02, bytes_per_s=200_000, piece=300)
PROVIDERS = ["hocuspocus 2", "hocuspocus 3", "hocuspocus 4", "y-sweet"]


class Told(MemoryStore):
    """A store whose appends wait until they may go on, or fail."""

    def __init__(self):
        super().__init__()
        self.may, self.asked = asyncio.Event(), asyncio.Event()
        self.may.set()
        self.broken = False
        self.loadable, self.loading = asyncio.Event(), asyncio.Event()
        self.loadable.set()

    async def load(self, session):
        self.loading.set()
        await self.loadable.wait()
        if self.broken:
            raise StorageError("disk gone")
        return await super().load(session)

    async def append(self, session, rows, *, now, entries=NO_ENTRIES):
        self.asked.set()
        await self.may.wait()
        if self.broken:
            raise StorageError("disk full")
        await super().append(session, rows, now=now, entries=entries)


class Client:
    """A provider, whatever it is called there."""

    def __init__(self, js, peer, provider):
        self.js, self.peer, self.provider = js, peer, provider

    async def open(self, proxy, name):
        if self.provider == "y-sweet":
            url = f"ys://127.0.0.1:{proxy.port}/v1/y-sweet"
            await self.js.ask("sweeten", peer=self.peer, url=url, name=name)
            return
        if self.provider == "y-websocket":
            await self.js.ask("open", peer=self.peer, url=f"ws://127.0.0.1:{proxy.port}/v1/sync", room=name)
            return
        version, url = int(self.provider[-1]), f"ws://127.0.0.1:{proxy.port}/v1/hocuspocus"
        await self.js.ask("socket", socket=self.peer, url=url, version=version)
        await self.js.ask("attach", peer=self.peer, socket=self.peer, name=name, version=version)

    async def unsynced(self):
        """Whether it says that something is not on disk; None while it is not connected."""
        if self.provider == "y-sweet":
            now = await self.js.ask("sweetness", peer=self.peer)
            return now["unsaved"] if now["status"] == "connected" else None
        if self.provider == "y-websocket":  # it does not count
            return False if (await self.js.ask("status", peer=self.peer))["synced"] else None
        now = await self.js.ask("count", peer=self.peer)
        return now["unsynced"] > 0 if now["synced"] else None

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE):
            while not condition(await self.unsynced()):
                await asyncio.sleep(0.02)

    async def draft(self):
        return (await self.js.ask("dump", peer=self.peer))["draft"]

    async def write(self, text):
        await self.js.ask("insert", peer=self.peer, index=0, text=text)

    async def show(self):
        """Say who it is."""
        await self.js.ask("presence", peer=self.peer, state={"name": self.peer})


@pytest.fixture(scope="module")
async def served():
    """The service, and the way to it."""
    async with serving(Settings(sandbox=False)) as found:
        yield found


@pytest.fixture(scope="module")
async def drowsy():
    """One whose sessions soon sleep."""
    async with serving(Settings(sandbox=False, idle_unload_s=0.5)) as found:
        yield found


@contextlib.asynccontextmanager
async def serving(settings):
    config = Config()
    config.accesslog = config.errorlog = None
    config.graceful_timeout = 0.1
    address = Address("127.0.0.1")
    listener = address.listen()
    async with Service(settings, store=Told()) as service:
        endpoints = [each.endpoint for each in (service.sync, service.y_sweet, service.hocuspocus, service.chat)]
        async with WebServer(service.app, config, [listener], endpoints=endpoints, max_message_bytes=2**24):
            async with Proxy(address.bound(listener).port, SLOW) as proxy:
                yield service, proxy
            await service.stop()  # now that nobody can come any more, whose connection nobody would end


async def stored(service, name, *, loading=True):
    store = service.registry.store
    found = await (store.load(name) if loading else MemoryStore.load(store, name))
    if found is None:
        return None
    document = SessionDoc(1)
    for row in found.rows:
        document.apply(row.update)
    with contextlib.closing(document):
        return str(document.doc.get("draft", type=Text))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_is_unsynced_is_what_is_not_stored(served, js, provider):
    service, proxy = served
    store, room = service.registry.store, provider.replace(" ", "-")
    ann, bob = Client(js, f"{room} ann", provider), Client(js, f"{room} bob", provider)
    for client in (ann, bob):
        await client.open(proxy, room)
        await client.until(lambda unsynced: unsynced is False)
    store.may.clear()
    store.asked.clear()
    await ann.write("held ")
    await asyncio.wait_for(store.asked.wait(), PATIENCE)
    for client in (ann, bob):  # each hears what the other one said after it, so its answer would have come
        await client.show()
    for client in (ann, bob):
        await heard(js, client.peer, {ann.peer, bob.peer})
    assert await ann.unsynced() is True
    store.may.set()
    await ann.until(lambda unsynced: unsynced is False)
    assert await stored(service, room) == "held "

    store.broken = True
    await ann.write("lost? ")
    await ann.until(lambda unsynced: unsynced is None)  # the session is loaded anew, under both of them
    store.broken = False
    await ann.until(lambda unsynced: unsynced is False)
    assert await stored(service, room) == "lost? held "
    await until_draft(bob, "lost? held ")
    await bob.write("and ")
    await bob.until(lambda unsynced: unsynced is False)
    await until_draft(ann, "and lost? held ")
    for client in (ann, bob):
        await js.ask("destroy", peer=client.peer)


async def heard(js, peer, names):
    async with asyncio.timeout(PATIENCE):
        while True:
            states = await js.ask("present", peer=peer)
            if {state.get("name") for _, state in states if state} >= names:
                return
            await asyncio.sleep(0.02)


async def until_draft(client, text):
    async with asyncio.timeout(PATIENCE):
        while await client.draft() != text:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("provider", ["hocuspocus 4", "y-sweet", "y-websocket"])
@pytest.mark.parametrize("end", ["the store fails", "the line is cut"])
async def test_what_came_while_a_session_woke_up_is_brought_again(drowsy, js, provider, end):
    """It waits, unread, in a connection that ends before the session is there."""
    service, proxy = drowsy
    store, room = service.registry.store, f"woken {provider} {end}".replace(" ", "-")
    ann = Client(js, room, provider)
    await ann.open(proxy, room)
    await ann.write("first ")
    await until_stored(service, room, "first ")
    await ann.until(lambda unsynced: unsynced is False)
    async with asyncio.timeout(PATIENCE):
        while room in {each.id for each in service.registry.live}:
            await asyncio.sleep(0.02)
    assert room in {each.id for each in service.registry.connected}, "it sleeps, and its client is there"
    store.loadable.clear()
    store.loading.clear()
    await ann.write("held ")
    await asyncio.wait_for(store.loading.wait(), PATIENCE)
    if end == "the store fails":
        store.broken = True
        store.loadable.set()
    else:
        proxy.sever()
    await ann.until(lambda unsynced: unsynced is not False)
    assert await stored(service, room, loading=False) == "first "
    store.broken = False
    store.loadable.set()
    await until_stored(service, room, "held first ")
    await ann.until(lambda unsynced: unsynced is False)
    await js.ask("destroy", peer=ann.peer)


async def until_stored(service, name, text):
    async with asyncio.timeout(PATIENCE):
        while await stored(service, name, loading=False) != text:
            await asyncio.sleep(0.02)
