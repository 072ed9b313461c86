"""Agents wait at whichever node they came to, and get runs of sessions that another node has, or nobody."""

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from hypercorn.config import Config

from crdt_sessions.clock import SystemClock
from crdt_sessions.errors import NodeUnreachable, RunNotClaimable
from crdt_sessions.ids import session_id
from crdt_sessions.model import RunRequest
from crdt_sessions.runtime import Claimant, Dispatcher, SessionRegistry, is_there
from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.storage.postgres.nodes import Lease
from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.cluster.claims import ClaimsElsewhere
from crdt_sessions_server.cluster.inner_door import InnerDoor
from crdt_sessions_server.cluster.peers import Peers
from crdt_sessions_server.serving.web_server import WebServer
from tests.postgres import VERSIONS, needs_postgres, shared_server
from tests.processes import PATIENCE

pytestmark = [pytest.mark.processes, needs_postgres]

ROOM = session_id("room")
SECRET = b"x" * 32
_numbers = itertools.count()


class Node:
    """A node with its listener for others, without one for clients."""

    def __init__(self, store, registry):
        self.store, self.registry, self.dispatcher = store, registry, Dispatcher(registry)
        self.peers = Peers(lambda: store.nodes.others, SECRET, registry.clock)
        self.door = InnerDoor(None, SECRET, lambda: store.nodes.me, registry.clock)
        self.claims = ClaimsElsewhere(registry, self.peers, self.door)
        self.asked = 0
        answer = self.claims._claimed

        async def counted(asked):
            self.asked += 1
            return await answer(asked)

        self.door.answer("claim", counted)

    def waiting(self, agent="writer", wait_s=PATIENCE):
        return asyncio.create_task(self.dispatcher.claim([agent], owner="w", wait_s=wait_s))

    async def ask(self, run, agent="writer", session=ROOM):
        async with self.registry.open(session, create=True) as room:
            value = RunRequest(message_id="q", created_at=self.registry.clock.now(), agent=agent)
            await room.edit(lambda view: view.runs.request(run, value))
            await room.durable()


@asynccontextmanager
async def node(schema):
    listener = Address.parse("127.0.0.1:0").listen()
    address = str(Address.parse("127.0.0.1:0").bound(listener))
    lease, config = Lease(beat_s=0.1, silent_s=60), Config()
    config.graceful_timeout = 0.1
    url = shared_server(VERSIONS[-1]).url()
    async with PostgresStore(url, schema=schema, lease=lease, address=address) as store:
        async with SessionRegistry(store, clock=SystemClock()) as registry:
            made = Node(store, registry)
            async with WebServer(made.door, config, [listener], endpoints=[], max_message_bytes=1000):
                yield made
            await made.peers.close()


@pytest.fixture
async def nodes():
    schema = f"claims{next(_numbers)}"
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(node(schema)) for _ in range(3)]
        for each in found:
            await until(lambda each=each: len(each.peers.living) == 2)
        yield found


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


async def heard(node, agent="writer"):
    await until(lambda: is_there(node.registry, "", agent))


def no_more_looking(monkeypatch, *nodes):
    """Have nodes hear of nothing any more by looking, but for what they are looking at just now."""

    async def never():
        await asyncio.Event().wait()

    for each in nodes:
        monkeypatch.setattr(each.registry.lookout, "look", never)


async def test_a_run_is_offered_to_one_who_waits_at_another_node_and_nobody_else_is_woken(nodes, monkeypatch):
    owner, *others = nodes
    tasks = [other.waiting() for other in others for _ in range(3)]
    for other in nodes:
        await heard(other)
    no_more_looking(monkeypatch, *others)
    for number in range(1, 4):
        await owner.ask(f"r{number}", session=session_id(f"room{number}"))
        await until(lambda number=number: sum(task.done() for task in tasks) == number)
        assert owner.asked <= number + 1, "who is looking just now may ask in vain; nobody else does"
    assert sorted(task.result().run.id for task in tasks if task.done()) == ["r1", "r2", "r3"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_waits_at_the_owner_is_offered_a_run_first(nodes):
    owner, other, _ = nodes
    far = other.waiting()
    await heard(owner)
    near = owner.waiting()
    await until(lambda: owner.registry.claimants.waits("", "writer"))
    await owner.ask("r")
    assert (await near).run.id == "r"
    assert (owner.asked, far.done()) == (0, False)
    far.cancel()


async def test_a_run_is_found_though_nobody_was_told_of_it(nodes, monkeypatch):
    owner, other, _ = nodes

    async def lost(*_):
        raise NodeUnreachable(node=1, why="the message is lost")

    monkeypatch.setattr(owner.claims, "tell_ready", lost)
    waiting = other.waiting()
    await heard(owner)
    await owner.ask("r")
    assert (await waiting).run.id == "r"
    assert not other.registry.live


async def test_a_run_of_a_session_that_nobody_has_is_found(nodes):
    owner, other, _ = nodes
    waiting = other.waiting()
    await heard(owner)
    leaving = await shared_store(owner)
    try:
        async with SessionRegistry(leaving, clock=SystemClock()) as registry:
            async with registry.open(ROOM, create=True) as room:
                value = RunRequest(message_id="q", created_at=registry.clock.now(), agent="writer")
                await room.edit(lambda view: view.runs.request("r", value))
                await room.durable()
    finally:
        await leaving.close()
    assert (await waiting).run.id == "r"
    assert [session.id for node in nodes for session in node.registry.live] == [ROOM]


async def shared_store(node):
    """Return the store of one more node, which nobody reaches."""
    store = PostgresStore(node.store._database._url, schema=node.store._database._schema, lease=Lease(beat_s=0.1))
    return await store.__aenter__()


async def test_a_claim_that_is_refused_elsewhere_says_why(nodes):
    owner, other, _ = nodes
    await owner.ask("r")
    claimant = Claimant(("writer",), "w", 30.0, "host/1", other.registry.clock.now())
    taken = await other.claims.claim(owner.store.nodes.me, ROOM, "r", claimant)
    assert (taken.session.id, taken.run.lease.owner, taken.run.worker) == (ROOM, "w", "host/1")
    with pytest.raises(RunNotClaimable, match="running"):
        await other.claims.claim(owner.store.nodes.me, ROOM, "r", claimant)
    await until(lambda: not owner.registry.claimants.waits("", "writer"))
    assert is_there(owner.registry, "", "writer"), "it works"
    await heard(other)
