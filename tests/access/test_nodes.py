"""What one node changes in who may do what, the others hear: in the database, and on the connections they serve."""

import asyncio
import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from crdt_sessions.errors import NotAuthenticated
from crdt_sessions.ids import session_id
from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.storage.postgres.nodes import Lease
from crdt_sessions.testing import FakeClock, settle
from crdt_sessions_server.auth import Admitted, Grants, LiveAccess, Principal, Role, StaticTokens
from crdt_sessions_server.auth.grants import Change
from tests.postgres import every_version, shared_server

pytestmark = [pytest.mark.processes, every_version]

ROOM = session_id("room")
TOKENS = {
    "a": Principal("ann", role=Role.EDITOR, token_id="ann's"),
    "b": Principal("bob", role=Role.EDITOR, issued_at=1),
    "c": Principal("cat", role=Role.EDITOR),
}
_numbers = itertools.count()


class Node:
    """What a node lets in, and looks after; it hears of others when it is told to."""

    def __init__(self, store):
        self.store, self.clock = store, FakeClock()
        self.grants = Grants(StaticTokens(TOKENS), store, self.clock)
        self.live = LiveAccess(self.grants, self.clock, lambda *_: None)

    async def admitted(self, token):
        state = self.grants.state
        return Admitted(token, "room", await self.grants.authorize(token, "room"), state)


@pytest.fixture
async def nodes(version):
    schema = f"rights{next(_numbers)}"

    @asynccontextmanager
    async def node():
        async with PostgresStore(shared_server(version).url(), schema=schema, lease=Lease(beat_s=3600)) as store:
            node = Node(store)
            await node.grants.start()
            tasks = [asyncio.create_task(each) for each in (node.live.run(), node.grants.follow())]
            yield node
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(node()) for _ in range(2)]


async def until(condition, node):
    """Wait until something holds, half a second of the node's time after the other; return how many that took."""
    for passed in range(20):
        if condition():
            return passed
        await node.clock.advance(0.5)
        for _ in range(200):
            if condition():
                return passed + 1
            await asyncio.sleep(0.005)
    raise AssertionError("it never holds")


async def test_what_is_revoked_at_one_node_is_closed_at_the_others_within_a_second(nodes):
    here, there = nodes
    await here.store.create(ROOM, b"seed", generation=1, title=None, now=here.clock.now())
    opened = {token: await there.admitted(token) for token in TOKENS}
    with there.live.watching(opened["a"]) as ann, there.live.watching(opened["b"]) as bob:
        with there.live.watching(opened["c"]) as cat:
            await here.grants.revoke("", "token", "ann's")
            await here.grants.revoke("", "principal", "bob")
            assert await until(lambda: ann.ended and bob.ended, there) <= 1
            assert isinstance(ann.ended, NotAuthenticated)
            with pytest.raises(NotAuthenticated):
                await there.grants.authorize("a", "room")
            await here.grants.set_member(ROOM, "cat", Role.VIEWER)
            assert await until(lambda: not cat.rights.write, there) <= 1
            await here.grants.set_member(ROOM, "cat", None)
            assert await until(lambda: cat.rights.write, there) <= 1
            assert cat.ended is None


async def test_who_was_a_member_of_a_session_that_is_gone_is_none_of_the_next_one_of_that_name(nodes):
    here, there = nodes
    now = here.clock.now()
    await here.store.create(ROOM, b"seed", generation=1, title=None, now=now)
    await here.grants.set_member(ROOM, "cat", Role.OWNER)
    await until(lambda: there.grants.state > 0, there)
    assert (await there.grants.authorize("c", "room")).role is Role.OWNER
    await here.store.delete(ROOM, now=now)
    await here.store.create(ROOM, b"seed", generation=2, title=None, now=now)
    await there.grants.hear()
    assert (await there.grants.authorize("c", "room")).role is Role.EDITOR


async def test_who_has_heard_nothing_for_long_reads_everything_anew(nodes):
    here, there = nodes
    await here.store.create(ROOM, b"seed", generation=1, title=None, now=here.clock.now())
    await there.grants.hear()
    await here.grants.revoke("", "token", "ann's")
    await here.store._database.select("DELETE FROM access_changes")  # as it is a day later
    there.clock._now += 13 * 3600 * 1000
    heard = []
    there.grants.on_change = heard.append
    await there.grants.hear()
    with pytest.raises(NotAuthenticated):
        await there.grants.authorize("a", "room")
    assert there.grants.refresh()
    assert heard == []
    await here.grants.revoke("", "principal", "bob")
    await there.grants.hear()
    assert heard == [Change("", "bob")]
    await settle()
