"""Processes die in the middle of a stream; everybody converges and nothing acknowledged is missing."""

import asyncio
import contextlib
import random
import sqlite3
import sys

import pytest

from crdt_sessions import connect
from crdt_sessions.testing import content
from examples.replay_server import recordings
from tests.interop.node import needs_node
from tests.processes import PATIENCE, ROOT, Process, Replay, Server, attempts, free_port
from tests.profiles import sample

pytestmark = [pytest.mark.crash]

LONG = "openai-chat/groq-text-long.chunks.txt"


class World:
    """A service, a replayed model and an agent, all of which may be killed."""

    def __init__(self, tmp_path, *flags):
        self.server = Server(tmp_path / "s.db", *flags)
        self.replay = Replay(250)
        self.start_agent()

    def start_agent(self):
        self.agent = Process(
            sys.executable, ROOT / "examples/model_agent.py", "--url", self.server.url, env=self.replay.env, fork=True
        )

    def restart_server(self):
        self.server.kill()
        self.server = self.server.again()

    def close(self):
        for process in (self.agent, self.replay, self.server):
            process.close()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()


def _answer(peer):
    return next((m for m in peer.messages.all() if m.role == "assistant"), None)


async def _written(peer, characters):
    await asyncio.wait_for(
        peer.until(lambda: (m := _answer(peer)) is not None and len(m.text) >= characters), PATIENCE
    )


async def _over(peer):
    await asyncio.wait_for(peer.until(lambda: any(run.outcome for run in peer.view.runs.all())), PATIENCE)


async def _everybody_agrees(ann, js, *names):
    for _ in attempts():
        contents = [content(ann._replica.document), *[await js.content_async(name) for name in names]]
        if all(one == contents[0] for one in contents):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the replicas differ")


def _check_whole(peer):
    (message,) = [m for m in peer.messages.all() if m.role == "assistant"]
    facts = recordings()[LONG].facts
    expected = "".join(
        choice["delta"].get("content") or "" for chunk in recordings()[LONG].chunks() for choice in chunk["choices"]
    )
    assert len(expected) == facts["text_chars"]
    assert message.text == expected
    (run,) = peer.view.runs.all()
    assert (run.status, run.outcome.reason) == ("completed", "stop")


@needs_node
@pytest.mark.nightly
async def test_the_server_dies_in_the_middle_of_a_stream(world, js):
    await js.ask("open", peer="early", url=world.server.ws, room="room")
    await js.ask("open", peer="away", url=world.server.ws, room="room", version=2)
    await asyncio.to_thread(js.synced, "early", "away")
    async with connect(world.server.url, "room", name="Ann") as ann:
        await js.ask("disconnect", peer="away")  # for the whole run
        await js.ask("insert", peer="away", index=0, text="written meanwhile")
        await ann.post(f"replay:{LONG}")
        await _written(ann, 600)
        world.restart_server()
        await _written(ann, 1800)
        world.restart_server()
        await js.ask("insert", peer="early", index=0, text="and here ")
        await _over(ann)
        await js.ask("connect", peer="away")
        await asyncio.to_thread(js.synced, "early", "away")
        await _everybody_agrees(ann, js, "early", "away")
        _check_whole(ann)
        draft = (await js.ask("dump", peer="early"))["draft"]
        assert sorted(draft.replace("and here ", "|")) == sorted("|written meanwhile")
        async with connect(world.server.url, "room") as fresh:
            assert content(fresh._replica.document) == content(ann._replica.document)


@needs_node
@pytest.mark.nightly
async def test_the_agent_dies_in_the_middle_of_a_stream(world, js):
    await js.ask("open", peer="early", url=world.server.ws, room="room")
    async with connect(world.server.url, "room", name="Ann") as ann:
        await ann.post(f"replay:{LONG}")
        for characters in (500, 1500):
            await _written(ann, characters)
            world.agent.kill()
            world.start_agent()
        await _over(ann)
        _check_whole(ann)  # the successor continued the same message, and the same text
        await _everybody_agrees(ann, js, "early")


@needs_node
async def test_a_restart_after_compaction_keeps_everything(tmp_path, js):
    world = World(tmp_path, "--snapshot-rows", "40")
    try:
        await js.ask("open", peer="early", url=world.server.ws, room="room")
        async with connect(world.server.url, "room", name="Ann") as ann:
            await ann.post(f"replay:{LONG}")
            await _over(ann)
            async with asyncio.timeout(PATIENCE):
                while count(tmp_path / "s.db", "snapshots") == 0 or count(tmp_path / "s.db", "updates") >= 60:
                    await asyncio.sleep(0.1)
            world.restart_server()
            await js.ask("insert", peer="early", index=0, text="after")
            await ann.until(lambda: not ann.connected)
            await asyncio.wait_for(ann.synced(), PATIENCE)
            await asyncio.to_thread(js.synced, "early")
            await _everybody_agrees(ann, js, "early")
            _check_whole(ann)
    finally:
        world.close()


def count(database, table):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


async def test_nothing_acknowledged_is_lost_however_often_the_server_dies(tmp_path):
    server = Server(tmp_path / "s.db", "--snapshot-rows", "30")
    rng = random.Random(7)
    acknowledged: list[str] = []

    async def write(peer, name):
        for number in range(10_000):
            message = await peer.post(f"{name} {number}", id=f"{name}-{number}")
            acknowledged.append(message.id)

    try:
        async with connect(server.url, "room", name="a") as a, connect(server.url, "room", name="b") as b:
            writers = [asyncio.create_task(write(peer, name)) for peer, name in ((a, "a"), (b, "b"))]
            for _ in range(sample("deaths")):
                await asyncio.sleep(rng.uniform(0.2, 0.5))
                server.kill()
                on_disk = len(acknowledged)
                server = server.again()
                async with connect(server.url, "room") as fresh:
                    stored = set(fresh.view.messages.ids())
                    assert set(acknowledged[:on_disk]) <= stored
                await asyncio.wait_for(asyncio.gather(a.synced(), b.synced()), PATIENCE)
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
            await asyncio.gather(a.durable(), b.durable())
            async with connect(server.url, "room") as fresh:
                await a.until(lambda: content(a._replica.document) == content(fresh._replica.document))
                await b.until(lambda: content(b._replica.document) == content(fresh._replica.document))
                assert len(acknowledged) > 5 * sample("deaths")
                assert [m.seq for m in fresh.messages.all()] == list(range(1, len(fresh.messages.all()) + 1))
    finally:
        server.close()


async def test_an_offline_peer_that_is_killed_comes_back_with_what_it_wrote(tmp_path):
    """A peer process with a local file, no server, SIGKILL: its edits are merged when both are back."""
    script = tmp_path / "peer.py"
    script.write_text(
        "import asyncio, sys\n"
        "from crdt_sessions import connect\n"
        "async def main():\n"
        f"    async with connect('http://127.0.0.1:{{}}'.format(sys.argv[1]), 'room', offline=r'{tmp_path / 'p.db'}') as peer:\n"
        "        for n in range(5):\n"
        "            await peer.post(f'offline {n}', wait=False)\n"
        "        await peer.saved()\n"
        "        print('saved', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    port = free_port()
    writer = Process(sys.executable, script, port, fork=True)
    writer.wait_for("saved")
    writer.kill()
    server = Server(tmp_path / "s.db", port=port)
    try:
        async with connect(server.url, "room", offline=tmp_path / "p.db") as peer:
            await asyncio.wait_for(peer.durable(), PATIENCE)
        async with connect(server.url, "room") as fresh:
            assert sorted(m.text for m in fresh.messages.all()) == [f"offline {n}" for n in range(5)]
    finally:
        server.close()
