"""Nodes that end: killed, stopped, frozen. Clients on another node go on, and nothing is lost or doubled."""

import asyncio
import os
import signal

import httpx
import pytest

from crdt_sessions import connect
from tests.agents import working
from tests.cluster.nodes import Nodes, needs_postgres
from tests.processes import PATIENCE

pytestmark = [pytest.mark.processes, needs_postgres]
WORDS = 40


@pytest.fixture
def nodes(tmp_path):
    found = Nodes(tmp_path)
    try:
        yield found
    finally:
        found.close()


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def texts(peer):
    return [message.text for message in peer.messages.all()]


async def say(peer, name, begun):
    """Post messages one after the other, so that some are under way whenever a node ends."""
    for number in range(WORDS):
        await peer.post(f"{name} {number}")
        begun.set()
        await asyncio.sleep(0.02)


async def all_said(*peers):
    """Return once every peer has all that :func:`say` said, each once, those of each speaker in order."""
    wanted = {f"{name} {number}" for name in ("a", "b") for number in range(WORDS)}
    for peer in peers:
        await until(lambda peer=peer: wanted <= set(texts(peer)))
        said = texts(peer)
        assert len(said) == len(set(said))
        for name in ("a", "b"):
            assert [each for each in said if each.startswith(name)] == [f"{name} {n}" for n in range(WORDS)]
    assert len({tuple(texts(peer)) for peer in peers}) == 1


async def events_seen(url, words):
    """Follow the session's events on a node, coming back as often as it takes, until all words were told."""
    found, after = [], None
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, trust_env=False) as http:
        while not words <= set(found):
            try:
                headers = {"Last-Event-ID": after} if after is not None else {}
                async with http.stream("GET", "/v1/sessions/room/events", headers=headers) as stream:
                    async for line in stream.aiter_lines():
                        if line.startswith("id:"):
                            after = line[3:].strip()
                        found += [word for word in words if f'"{word}"' in line]
                        if words <= set(found):
                            break
            except httpx.TransportError:
                await asyncio.sleep(0.05)
    return found


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM"])
@pytest.mark.sampled(2)
async def test_the_owner_ends_while_clients_of_other_nodes_write(nodes, end):
    owner, second, third = nodes.start(), nodes.start(), nodes.start(unix=True)
    async with connect(owner.url, "room", name="first") as first:
        await first.post("hello")
    mine = nodes.owner("room")
    async with connect(second.url, "room", name="a") as a, connect(third.url, "room", name="b") as b:
        begun = asyncio.Event()
        watching = asyncio.create_task(events_seen(second.url, {"a 1", f"b {WORDS - 1}"}))
        saying = [asyncio.create_task(say(peer, name, begun)) for peer, name in ((a, "a"), (b, "b"))]
        await begun.wait()
        assert nodes.owner("room") == mine
        if end == "SIGKILL":
            owner.kill()
        else:
            assert await asyncio.to_thread(owner.terminate) == 0
        await asyncio.wait_for(asyncio.gather(*saying), PATIENCE)
        await all_said(a, b)
        await asyncio.wait_for(watching, PATIENCE)
        async with connect(third.url, "room", name="late") as late:
            await all_said(late)
    assert nodes.owner("room") not in (mine, None)
    lines = [line for node in (second, third) for line in node.lines]
    if end == "SIGKILL":  # found out by its address at once, not by its silence
        assert any("is not there any more" in line for line in lines)
    assert not [line for line in lines + owner.lines if "Traceback" in line]


async def test_a_rolling_restart_under_a_streamed_answer(nodes):
    """Every node is replaced while an agent writes; each character is there once."""
    told = [f"word-{number} " for number in range(150)]

    async def answer(run):
        async with run.text() as out:
            for word in told:
                await out.write(word)
                await asyncio.sleep(0.02)

    first, second = nodes.start(), nodes.start()
    async with connect(first.url, "room", name="asks") as peer:
        async with working(first.url, answer, "helper", on_resume="continue"):
            await peer.post("go", agent="helper")
            await until(lambda: any("word-3 " in text for text in texts(peer)))
            ports = [first.port, second.port]
            for node, port in zip((first, second), ports, strict=True):
                assert await asyncio.to_thread(node.terminate) == 0
                nodes.start("--port", str(port))
            await until(lambda: any(told[-1] in text for text in texts(peer)))
    async with connect(nodes.all[-1].url, "room", name="late") as late:
        await until(lambda: "".join(told) in texts(late))


async def test_a_zombie_tells_nobody_anything_and_comes_back_as_another_node(nodes):
    zombie, other = nodes.start(), nodes.start()
    with zombie.http() as http:
        http.post("/v1/sessions", json={"id": "room"})
        http.post("/v1/sessions/room/messages", json={"text": "old"})
    mine = nodes.owner("room")
    async with connect(other.url, "room", name="b") as peer:
        await until(lambda: texts(peer) == ["old"])
        os.kill(zombie.child.pid, signal.SIGSTOP)
        try:
            await peer.post("new")  # it waits until the owner counts as gone
            await until(lambda: nodes.owner("room") not in (mine, None))
            waiting = asyncio.create_task(_ask(zombie.url))
            await asyncio.sleep(0.2)
        finally:
            os.kill(zombie.child.pid, signal.SIGCONT)
        answer = await asyncio.wait_for(waiting, PATIENCE)
        assert answer.status_code in (503, 200)
        assert answer.status_code == 503 or '"new"' in answer.text  # nothing old, whatever it says
        await until(lambda: _says(zombie.url, '"new"'))
        assert texts(peer) == ["old", "new"]


async def _ask(url):
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
        return await http.get(f"{url}/v1/sessions/room/messages")


def _says(url, word):
    answer = httpx.get(f"{url}/v1/sessions/room/messages", timeout=PATIENCE, trust_env=False)
    return answer.status_code == 200 and word in answer.text
