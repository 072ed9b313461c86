"""Nodes that end: killed, stopped, frozen. Clients on another node go on, and nothing is lost or doubled."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress

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


async def say(peer, name, begun, since=0):
    """Post messages one after the other, so that some are under way whenever a node ends."""
    for number in range(since, WORDS):
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


@pytest.mark.parametrize("room", [1, 2, 3])
@pytest.mark.sampled(3)
async def test_a_node_dies_when_it_has_taken_a_session_and_read_nothing_of_it(nodes, room):
    dying, other, first = nodes.start(dies=f"acquired:{room}"), nodes.start(), nodes.start()  # it knows of heirs
    rooms = [f"room-{number}" for number in range(1, room + 1)]
    with first.http() as http:
        for each in rooms:
            http.post("/v1/sessions", json={"id": each}).raise_for_status()
            http.post(f"/v1/sessions/{each}/messages", json={"text": "hello"}).raise_for_status()
    assert await asyncio.to_thread(first.terminate) == 0
    assert [nodes.owner(each) for each in rooms] == [None] * room
    for each in rooms:
        with suppress(httpx.TransportError):
            await _ask(dying.url, each)
    assert await asyncio.to_thread(dying.child.wait, PATIENCE) == -9
    taken = nodes.owner(rooms[-1])
    assert taken is not None
    for each in rooms:
        async with connect(other.url, each, name="late") as late:
            await late.post("there")
            assert texts(late) == ["hello", "there"]
        assert nodes.owner(each) not in (taken, None)
    assert any("is not there any more" in line for line in other.lines), "it was waited for"


@pytest.mark.parametrize("room", [2, 1, 3])
@pytest.mark.sampled(3)
async def test_a_node_dies_in_the_middle_of_handing_over(nodes, room):
    """The sessions before that one are another node's, and those behind it were never freed."""
    other, dying = nodes.start(), nodes.start(dies=f"handover:{room}")  # in this order, so that it knows of an heir
    rooms = [f"room-{number}" for number in range(3)]
    with dying.http() as http:
        for each in rooms:
            http.post("/v1/sessions", json={"id": each}).raise_for_status()
            http.get(f"/v1/sessions/{each}/messages").raise_for_status()
    mine = {nodes.owner(each) for each in rooms}
    assert len(mine) == 1
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connect(other.url, each, name="a")) for each in rooms for _ in "ab"]
        begun = asyncio.Event()
        saying = [asyncio.create_task(say(peer, "ab"[at % 2], begun)) for at, peer in enumerate(peers)]
        await begun.wait()
        dying.child.terminate()
        assert await asyncio.to_thread(dying.child.wait, PATIENCE) == -9
        await asyncio.wait_for(asyncio.gather(*saying), PATIENCE)
        for at in range(0, len(peers), 2):
            await all_said(*peers[at : at + 2])
    assert not {nodes.owner(each) for each in rooms} & {*mine, None}


@pytest.mark.parametrize("client", [2, 1, 3])
@pytest.mark.sampled(3)
async def test_a_node_dies_when_it_has_passed_a_client_on(nodes, client):
    """Those whom it served before come back too, to a node in its place; the session stays where it is."""
    owner, dying = nodes.start(), nodes.start(dies=f"spliced:{client}")
    async with connect(owner.url, "room", name="a") as a:
        await a.post("a 0")
        mine = nodes.owner("room")
        async with AsyncExitStack() as stack:
            begun = asyncio.Event()
            saying = [asyncio.create_task(say(a, "a", begun, since=1))]
            coming = [asyncio.create_task(stack.enter_async_context(connect(dying.url, "room", name="b")))]
            if client > 1:
                saying.append(asyncio.create_task(say(await coming[0], "b", begun)))
                await begun.wait()
            coming += [asyncio.create_task(_visit(dying.url)) for _ in range(1, client)]
            assert await asyncio.to_thread(dying.child.wait, PATIENCE) == -9
            nodes.start("--port", str(dying.port))
            b = await asyncio.wait_for(coming[0], PATIENCE)
            if client == 1:
                saying.append(asyncio.create_task(say(b, "b", begun)))
            await asyncio.wait_for(asyncio.gather(*saying, *coming), PATIENCE)
            await all_said(a, b)
    assert nodes.owner("room") == mine


async def _visit(url):
    async with connect(url, "room", name="visits") as peer:
        await peer.synced()


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


async def _ask(url, room="room"):
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
        return await http.get(f"{url}/v1/sessions/{room}/messages")


def _says(url, word):
    answer = httpx.get(f"{url}/v1/sessions/room/messages", timeout=PATIENCE, trust_env=False)
    return answer.status_code == 200 and word in answer.text
