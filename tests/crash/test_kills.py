"""The service is killed at every named point of its storage path, and at random: nothing acknowledged is missing.

A fleet of Python and JavaScript peers writes all the time. After each death: every acknowledged message is in the
database, the database is whole, and in the end all live replicas and a fresh one are equal.

A few dozen kills in CI, a thousand in the weekly profile (tests/profiles.py).
"""

import asyncio
import random
import sqlite3
from contextlib import AsyncExitStack

import pytest

from crdt_sessions import connect
from crdt_sessions.failpoints import NAMES
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.model import seed
from crdt_sessions.storage import Row
from crdt_sessions.storage.integrity import checksum
from crdt_sessions.storage.sqlite import migrations
from crdt_sessions.testing import content
from tests.interop.node import needs_node
from tests.processes import PATIENCE, Server, attempts
from tests.profiles import sample

pytestmark = [pytest.mark.crash, pytest.mark.slow, needs_node, pytest.mark.timeout(7200)]

TIMES = [1 + 4 * number % 15 for number in range(sample("passes"))]
"""Which pass of a named point is the last one: the first, the fifth, and so on."""
FLAGS = ("--snapshot-rows", "20", "--idle-unload-s", "0.2", "--default-agent", "")


class Fleet:
    """Two Python peers that note what was acknowledged, and one stock JavaScript client."""

    def __init__(self, js):
        self.js = js
        self.acknowledged = []
        self._tasks = []

    async def start(self, server, stack):
        self.peers = [await stack.enter_async_context(connect(server.url, "room", name=name)) for name in "ab"]
        await self.js.ask("open", peer="js", url=server.ws, room="room")
        self._tasks = [asyncio.create_task(self._write(peer, n)) for n, peer in enumerate(self.peers)]
        self._tasks.append(asyncio.create_task(self._type()))

    async def _write(self, peer, which):
        for number in range(1_000_000):
            message = await peer.post(f"{which} {number} 😀", id=f"{which}-{number}")
            self.acknowledged.append(message.id)

    async def _type(self):
        for number in range(1_000_000):
            await self.js.ask("set", peer="js", key=f"k{number % 7}", value=number)
            await asyncio.sleep(0.01)

    async def rest(self):
        """Stop writing, and return once everything written is acknowledged."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for peer in self.peers:
            await asyncio.wait_for(peer.durable(), PATIENCE)

    async def agree(self, server):
        await asyncio.to_thread(self.js.synced, "js")
        async with connect(server.url, "room") as fresh:
            for _ in attempts():
                contents = [content(peer._replica.document) for peer in (*self.peers, fresh)]
                contents.append(await self.js.content_async("js"))
                if all(one == contents[0] for one in contents):
                    return len(fresh.messages.all())
                await asyncio.sleep(0.05)
        raise AssertionError("the live replicas differ")


def check(database):
    """The file is whole."""
    connection = sqlite3.connect(database)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        connection.close()


async def stored(server):
    async with connect(server.url, "room") as fresh:
        return set(fresh.view.messages.ids())


async def _dies(server):
    await asyncio.to_thread(server.child.wait, PATIENCE)


async def test_the_service_dies_at_every_named_point(tmp_path, js):
    elsewhere = ("migration", "shutdown", "unload", "import", "acquired", "handover", "spliced")
    points = [name for name in NAMES if name not in elsewhere]
    server, fleet = Server(tmp_path / "s.db", *FLAGS), Fleet(js)
    try:
        async with AsyncExitStack() as stack:
            await fleet.start(server, stack)
            for name in points:
                for times in TIMES:
                    server.kill()
                    armed = {"CRDT_SESSIONS_FAILPOINTS": f"{name}:{times}"}
                    server = Server(server.database, *FLAGS, port=server.port, env=armed)
                    await _dies(server)
                    before = set(fleet.acknowledged)
                    server.close()
                    check(server.database)
                    server = server.again()
                    assert before <= await stored(server), f"lost at {name}:{times}"
            await asyncio.wait_for(asyncio.gather(*(peer.synced() for peer in fleet.peers)), PATIENCE)
            await fleet.rest()
            assert await fleet.agree(server) >= len(fleet.acknowledged) > 0
    finally:
        server.close()


async def test_the_service_dies_at_random_instants(tmp_path, js):
    rng = random.Random(11)
    server, fleet = Server(tmp_path / "s.db", *FLAGS), Fleet(js)
    try:
        async with AsyncExitStack() as stack:
            await fleet.start(server, stack)
            for _ in range(sample("kills")):
                await asyncio.sleep(rng.uniform(0.01, 0.4))
                server.kill()
                before = set(fleet.acknowledged)
                check(server.database)
                server = server.again()
                assert before <= await stored(server)
            await asyncio.wait_for(asyncio.gather(*(peer.synced() for peer in fleet.peers)), PATIENCE)
            await fleet.rest()
            assert await fleet.agree(server) >= len(fleet.acknowledged) > 0
    finally:
        server.close()


async def test_the_service_dies_while_it_frees_a_session_and_while_it_shuts_down(tmp_path):
    for name in ("unload", "shutdown"):
        database = tmp_path / f"{name}.db"
        server = Server(database, *FLAGS, env={"CRDT_SESSIONS_FAILPOINTS": f"{name}:1"})
        try:
            async with connect(server.url, "room") as peer:
                for number in range(30):
                    await peer.post(f"{number}", id=f"m{number}")
            if name == "shutdown":
                server.child.terminate()
            await _dies(server)
            assert server.child.returncode == -9
            check(database)
            again = Server(database, *FLAGS)
            try:
                assert await stored(again) == {f"m{number}" for number in range(30)}
            finally:
                again.close()
        finally:
            server.close()


@pytest.mark.parametrize("times", [1, 2, 5, 9])
@pytest.mark.sampled(2)
async def test_the_service_dies_in_the_middle_of_a_migration(tmp_path, times):
    """A migration is one transaction: half of one leaves nothing, and the next start does all of it."""
    database = tmp_path / "s.db"
    with pytest.raises(AssertionError):
        Server(database, *FLAGS, env={"CRDT_SESSIONS_FAILPOINTS": f"migration:{times}"})
    check(database)
    server = Server(database, *FLAGS)
    try:
        async with connect(server.url, "room") as peer:
            await peer.post("here")
        assert len(await stored(server)) == 1
    finally:
        server.close()


async def test_an_old_database_is_migrated_with_its_sessions(tmp_path):
    """A database of the first schema keeps what it holds; killed half-way, it is still of the first schema."""
    database = tmp_path / "s.db"
    begin = seed(SessionId("room"), generation=1, created_at=Millis(5), client_id=9, title="Old")
    connection = sqlite3.connect(database)  # as the first release wrote it
    connection.executescript(migrations.STEPS[0][1] + "PRAGMA user_version = 1;")
    connection.execute("INSERT INTO sessions VALUES ('room', 1, 5, 5, 'active', 'Old', 1, NULL)")
    connection.execute(
        "INSERT INTO updates VALUES ('room', 1, ?, ?)", (begin, checksum(SessionId("room"), Row(Seq(1), begin)))
    )
    connection.commit()
    connection.close()
    with pytest.raises(AssertionError):
        Server(database, *FLAGS, env={"CRDT_SESSIONS_FAILPOINTS": "migration:3"})
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
    server = Server(database, *FLAGS)
    try:
        async with connect(server.url, "room") as peer:
            assert peer.view.meta.title == "Old"
            await peer.post("new", agent="nobody")
            await peer.until(lambda: any(run.status == "queued" for run in peer.view.runs.all()))
    finally:
        server.close()


def test_an_unknown_failpoint_is_named(tmp_path):
    with pytest.raises(AssertionError, match="unknown failpoint 'nowhere'"):
        Server(tmp_path / "s.db", env={"CRDT_SESSIONS_FAILPOINTS": "nowhere"})
