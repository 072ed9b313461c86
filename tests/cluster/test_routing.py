"""Clients on a node that does not have their session: everything works as on the one that has."""

import asyncio
import json

import httpx
import pytest
import websockets
from pycrdt import Doc, Text

from crdt_sessions import connect
from crdt_sessions.clock import SystemClock
from crdt_sessions.errors import NodeUnreachable
from crdt_sessions.storage.peers import Peer
from crdt_sessions_server.cluster.hop import Hop, Request
from crdt_sessions_server.cluster.inner_door import OWNER
from crdt_sessions_server.cluster.peers import Peers
from tests.agents import working
from tests.cluster.nodes import Nodes, needs_postgres
from tests.hocuspocus import AUTHENTICATED, Hocuspocus
from tests.processes import PATIENCE

pytestmark = [pytest.mark.processes, needs_postgres]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    found = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        found.start()
        found.start(unix=True)
        yield found
    finally:
        found.close()


@pytest.fixture
def owner(nodes):
    return nodes.all[0]


@pytest.fixture
def other(nodes):
    return nodes.all[1]


@pytest.fixture
def room(owner, request):
    """A session that the owner has."""
    name = request.node.name.replace("[", "-").replace("]", "")
    with owner.http() as http:
        assert http.post("/v1/sessions", json={"id": name, "agent": "helper"}).status_code == 201
        assert http.post(f"/v1/sessions/{name}/messages", json={"text": "first"}).status_code == 201
    return name


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def owners(nodes, room):
    return len(nodes.sql("SELECT DISTINCT owner FROM crdt_sessions.sessions WHERE id LIKE $1", f"%{room}"))


async def test_peers_on_both_nodes_see_each_other(nodes, owner, other, room):
    async with connect(owner.url, room, name="here") as here, connect(other.url, room, name="there") as there:
        await here.post("from here")
        await there.post("from there " + "x" * 300_000)  # more than a buffer
        for peer in (here, there):
            await until(lambda peer=peer: len(peer.messages.all()) == 3)
        assert [m.text for m in here.messages.all()] == [m.text for m in there.messages.all()]


@pytest.mark.parametrize("path", ["messages", "state", "export", "runs", "presence", "versions", "artifacts", "none"])
def test_a_question_is_answered_as_by_the_owner(owner, other, room, path):
    with owner.http() as here, other.http() as there:
        for headers in ({}, {"Origin": "http://localhost:5173"}):
            ours, theirs = (http.get(f"/v1/sessions/{room}/{path}", headers=headers) for http in (here, there))
            assert ours.status_code == theirs.status_code
            assert ours.content == theirs.content
            assert sorted(name for name, _ in ours.headers.multi_items()) == sorted(
                name for name, _ in theirs.headers.multi_items()
            )


def test_a_change_is_made_by_the_owner(nodes, owner, other, room):
    before = nodes.owner(room)
    with other.http() as http:
        long = "y" * 200_000
        assert http.post(f"/v1/sessions/{room}/messages", json={"text": long}).status_code == 201
        assert http.post(f"/v1/sessions/{room}/messages", content=b"{").status_code == 400
        assert (
            http.post(f"/v1/sessions/{room}/messages", content=iter([b'{"text"', b': "in pieces"}'])).is_error
            is False
        )
        assert http.get(f"/v1/sessions/{room}/messages").text.count(long) == 1
        fork = http.post(f"/v1/sessions/{room}/fork", json={"id": f"{room}-fork"})
        assert fork.status_code == 201, fork.text
    assert nodes.owner(room) == before


async def test_events_are_streamed_as_they_come_and_end_where_the_client_hangs_up(owner, other, room):
    async with httpx.AsyncClient(base_url=other.url, timeout=PATIENCE, trust_env=False) as http:
        async with http.stream("GET", f"/v1/sessions/{room}/events") as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            async for line in lines:
                if '"first"' in line:
                    break
            await http.post(f"/v1/sessions/{room}/messages", json={"text": "second"})
            async for line in lines:
                if '"second"' in line:
                    break

        def connections():
            return httpx.get(f"{owner.url}/readyz", trust_env=False).json()["connections"]

        await until(lambda: connections() == 0)


async def test_a_chat_client_on_another_node_gets_the_answer(owner, other, room):
    async def answer(run):
        async with run.text() as out:
            await out.write("an ")
            await out.write("answer")

    async with working(owner.url, answer, "helper"):
        async with httpx.AsyncClient(base_url=other.url, timeout=PATIENCE, trust_env=False) as http:
            message = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hello"}]}
            asked = {"id": room, "messages": [message], "trigger": "submit-message"}
            said = await http.post("/v1/gateways/ai-sdk/chat", json=asked)
            assert said.status_code == 200, said.text
            chunks = [json.loads(line[6:]) for line in said.text.splitlines() if line.startswith("data: {")]
            assert "".join(each["delta"] for each in chunks if each["type"] == "text-delta") == "an answer"
            path = f"/v1/gateways/ai-sdk/chat/{room}/messages"
            assert (await http.get(path)).json() == httpx.get(owner.url + path, trust_env=False).json()
        url = f"{other.url.replace('http', 'ws')}/v1/gateways/ai-sdk/chat"
        async with websockets.connect(url) as socket:
            await socket.send(json.dumps({"type": "send", "requestId": "r", **asked}))
            text, kind = "", None
            async with asyncio.timeout(PATIENCE):
                while kind != "end":
                    frame = json.loads(await socket.recv())
                    kind = frame["type"]
                    assert kind != "error", frame
                    if kind == "chunk" and frame["chunk"]["type"] == "text-delta":
                        text += frame["chunk"]["delta"]
            assert text == "an answer"


async def test_a_socket_of_hocuspocus_carries_documents_of_both_nodes(nodes, owner, other, room):
    url = f"{other.url.replace('http', 'ws')}/v1/hocuspocus"
    async with (
        websockets.connect(url, max_size=None) as there,
        websockets.connect(f"{owner.url.replace('http', 'ws')}/v1/hocuspocus", max_size=None) as here,
    ):
        there, here = Hocuspocus(there), Hocuspocus(here)
        assert b"first" in await there.synced(room)
        await there.synced(f"{room}-mine")  # of the node itself
        assert nodes.owner(f"{room}-mine") != nodes.owner(room)
        await here.synced(room)
        doc = Doc()
        doc.get("note", type=Text).insert(0, "over there")
        await there.write(room, doc.get_update())
        assert b"over there" in await here.until(room, "Update")
        await there.begin(f"{room}\0two")  # the same document once more, under another address
        assert await there.until(f"{room}\0two", AUTHENTICATED)


async def test_a_request_that_was_passed_on_goes_no_further(nodes, owner, other, room):
    found = {address: node for node, address in nodes.sql("SELECT node, address FROM crdt_sessions.nodes")}
    peers = Peers(list, nodes.secret.read_bytes(), SystemClock())
    wrong = next(Peer(node, address) for address, node in found.items() if node != nodes.owner(room))
    request = Request("GET", f"/v1/sessions/{room}/messages")
    response = await peers.send(wrong, Hop(wrong.node), request, [(b"host", b"localhost")], None)
    assert response.status_code == 421
    assert response.headers[OWNER] == str(nodes.owner(room))
    await response.aclose()
    with pytest.raises(NodeUnreachable):
        await peers.call(Peer(1, wrong.address), "anything")
    await peers.close()
