"""Registries of many nodes over one simulated database: whatever happens to nodes, what was acknowledged is there.

No sockets, no processes: a history is a seed. ``NODE_HISTORIES=10000 pytest tests/runtime/test_nodes.py``.
"""

import asyncio
import random
from contextlib import suppress
from itertools import count

import pytest

from crdt_sessions.errors import CrdtSessionsError, Fenced
from crdt_sessions.ids import session_id
from crdt_sessions.limits import RunRules, Timing
from crdt_sessions.model import RunCancel, RunRequest, RunResult
from crdt_sessions.runtime import Dispatcher, SessionRegistry, leased
from crdt_sessions.testing import FakeClock, settle
from crdt_sessions.testing.nodes import Happened, NodeStore, SharedDatabase, check
from tests.profiles import sample

SESSIONS = [session_id("a"), session_id("b")]
RULES = RunRules(default_agent="", lease_s=5, gone_grace_s=2, cancel_grace_s=2, max_attempts=3)
_AT_ONCE = 100


class Node:
    def __init__(self, world):
        self.store = NodeStore(world.database, lambda: self.registry.abandon(Fenced()))
        self.registry = SessionRegistry(
            self.store.store, clock=world.clock, rules=RULES, timing=Timing(idle_unload_s=2),
            rng=random.Random(world.rng.random()),
        )  # fmt: skip
        self.dispatcher = Dispatcher(self.registry)


class World:
    """Three nodes, and what clients and agents were told."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.clock = FakeClock()
        self.database = SharedDatabase(self.rng, lost=self.rng.choice([0, 0, 0.02, 0.1]))
        self.acknowledged = []
        self.numbers = count(1)
        self.nodes, self.gone, self.tasks, self.held = [], [], [], []

    async def start(self):
        node = Node(self)
        await node.registry.__aenter__()
        self.nodes.append(node)

    def begin(self, doing):
        async def guarded():
            with suppress(CrdtSessionsError):  # whoever asked knows that it may not be done
                await doing

        self.tasks.append(asyncio.create_task(guarded()))

    # -- what clients and agents do --------------------------------------------------------------------------------

    async def write(self, node, session):
        token = f"t{next(self.numbers)}"
        async with node.registry.open(session, create=True) as room:
            await room.edit(lambda view: view.state.__setitem__(token, 1))
        self.acknowledged.append((session, token))

    async def ask(self, node, session):
        run, now = f"r{next(self.numbers)}", self.clock.now()
        deadline = now + 3000 if self.rng.random() < 0.2 else None
        async with node.registry.open(session, create=True) as room:
            request = RunRequest(message_id="q", created_at=now, agent="writer", deadline=deadline)
            await room.edit(lambda view: view.runs.request(run, request))

    async def stop(self, node, session):
        async with node.registry.open(session) as room:
            cancel = RunCancel(by="ann", at=self.clock.now())

            def press(view):
                for run in view.runs.all():
                    run.cancel = cancel

            await room.edit(press)

    async def claim(self, node, session):
        found = await node.dispatcher.claim(["writer"], owner="w", wait_s=0)
        if found is not None:
            self.held.append(found)

    async def report(self, node, session):
        if self.held:
            held = self.rng.choice(self.held)
            status = self.rng.choice(["completed", "failed", "released"])
            async with leased(node.registry, held.session.id, held.run.id, held.token) as holding:
                now = self.clock.now()
                await holding.report(RunResult(status=status, epoch=held.run.epoch, at=now))

    # -- what happens to nodes -------------------------------------------------------------------------------------

    async def fence(self, node, session):
        self.database.fence(node.store.node)

    async def freeze(self, node, session):
        node.store.freeze()

    async def thaw(self, node, session):
        node.store.thaw()

    async def kill(self, node, session):
        node.store.dead = True
        node.store.thaw()
        self.gone.append(node)
        self.nodes.remove(node)
        if self.rng.random() < 0.7:
            self.database.fence(node.store.node)
        await self.start()

    async def leave(self, node, session):
        """As at SIGTERM: store what there is, then free the sessions."""
        node.store.thaw()
        self.nodes.remove(node)
        await node.registry.shutdown()
        self.database.fence(node.store.node)
        await self.start()

    async def wait(self, node, session):
        await self.clock.advance(self.rng.choice([0.3, 1, 3, 8]))

    def near(self, session):
        """Return the node that has a session, mostly; any one if nobody has it."""
        owners = [node for node in self.nodes if node.store.node == self.database.owners.get(session)]
        return self.rng.choice(owners if owners and self.rng.random() < 0.8 else self.nodes)

    async def play(self):
        for _ in range(3):
            await self.start()
        clients = [self.write] * 6 + [self.ask] * 2 + [self.claim] * 3 + [self.report] * 2 + [self.stop]
        troubles = [self.fence, self.freeze, self.thaw, self.thaw, self.kill, self.leave, self.wait, self.wait]
        for _ in range(self.rng.randint(20, 60)):
            session = self.rng.choice(SESSIONS)
            if self.rng.random() < 0.8:
                self.begin(self.rng.choice(clients)(self.near(session), session))
            else:
                await self.rng.choice(troubles)(self.rng.choice(self.nodes), session)
            await settle(self.rng.randrange(8))
        await self.heal()

    async def heal(self):
        self.database.lost = 0.0
        for node in self.nodes:
            node.store.thaw()
        for _ in range(10):
            await self.clock.advance(1)
        for node in (*self.nodes, *self.gone):
            self.database.fence(node.store.node)
        for task in self.tasks:
            if not task.done():
                await self.clock.advance(1)
        for node in (*self.nodes, *self.gone):
            await node.registry.shutdown()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def read(self):
        """Return the tokens in each session, as a node reads them that knows nothing."""
        self.nodes = []
        await self.start()
        (reader,) = self.nodes
        found = {}
        for session in SESSIONS:
            try:
                async with reader.registry.open(session) as room:
                    found[session] = set(room.view.state.keys())
            except CrdtSessionsError:
                found[session] = set()
        await reader.registry.shutdown()
        return found


async def played(seed):
    world = World(seed)
    await world.play()
    found = await world.read()
    check(world.database.history)
    lost = [(session, token) for session, token in world.acknowledged if token not in found[session]]
    assert not lost, f"acknowledged and lost: {lost}"
    return world


@pytest.mark.parametrize("first", range(0, sample("node_histories"), _AT_ONCE))
@pytest.mark.slow
async def test_nothing_acknowledged_is_lost_and_one_node_at_a_time_writes(first):
    happened = set()
    acknowledged = 0
    for seed in range(first, min(first + _AT_ONCE, sample("node_histories"))):
        try:
            world = await played(seed)
        except BaseException as error:
            error.add_note(f"in the history of the seed {seed}")
            raise
        happened |= {each.what for each in world.database.history}
        acknowledged += len(world.acknowledged)
    assert happened == {"join", "own", "commit", "run", "fence"}
    assert acknowledged > 3 * min(_AT_ONCE, sample("node_histories") - first)


@pytest.mark.parametrize(
    ("what", "history"),
    [
        ("behind the fence", [Happened("own", 1, "a"), Happened("fence", 1), Happened("commit", 1, "a", 1, 7)]),
        ("two owners", [Happened("own", 1, "a"), Happened("own", 2, "a")]),
        ("not the owner", [Happened("own", 1, "a"), Happened("commit", 2, "a", 1, 7)]),
        ("one number", [Happened("own", 1, "a"), *(Happened("commit", 1, "a", 1, each) for each in (7, 8))]),
        ("a gap", [Happened("own", 1, "a"), Happened("commit", 1, "a", 2, 7)]),
        ("shrinks", [Happened("run", 1, "a", run="r", epoch=each, status="running") for each in (2, 1)]),
        ("twice", [Happened("run", 1, "a", run="r", epoch=1, status=each) for each in ("failed", "completed")]),
    ],
)
def test_the_checker_finds_what_must_not_be(what, history):
    with pytest.raises(AssertionError, match=what):
        check(history)
