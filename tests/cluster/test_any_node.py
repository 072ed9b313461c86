"""What concerns sessions of several nodes at once, or no session: any node can be asked."""

import asyncio
import base64
import itertools
import json

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from prometheus_client.parser import text_string_to_metric_families
from pycrdt import Doc, Map

from crdt_sessions import connect
from crdt_sessions.client import BackgroundSync
from crdt_sessions.client.artifact_editor import ArtifactEditor
from crdt_sessions.clock import SystemClock
from crdt_sessions.errors import NodeRefused
from crdt_sessions.model import ArtifactHead
from crdt_sessions.storage.peers import Peer
from crdt_sessions_server.cluster.peers import Peers
from tests.access.conftest import SECRET, bearer, token
from tests.cluster.nodes import Nodes, needs_postgres
from tests.postgres import everything
from tests.processes import PATIENCE

pytestmark = [pytest.mark.processes, needs_postgres]
BOTH = 2


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "secret").write_bytes(SECRET)
    found = Nodes(folder, "--jwt-secret-file", folder / "secret", "--connect-burst", "100000")
    try:
        found.start()
        found.start(unix=True)
        yield found
    finally:
        found.close()


@pytest.fixture
def rooms(nodes, request):
    """A session of each node, and one of nobody's."""
    test = "".join(char if char.isalnum() else "-" for char in request.node.name)
    names = [f"{test}-{number}" for number in range(BOTH)]
    for node, name in zip(nodes.all, names, strict=True):
        with node.http(headers=bearer()) as http:
            assert http.post("/v1/sessions", json={"id": name}).status_code == 201
            assert http.post(f"/v1/sessions/{name}/messages", json={"text": f"in {name}"}).status_code == 201
    assert len({nodes.owner(name) for name in names}) == BOTH
    free = f"{test}-free"
    with nodes.all[0].http(headers=bearer()) as http:
        assert http.post("/v1/sessions", json={"id": free}).status_code == 201
    return [*names, free]


def update(**values):
    doc = Doc()
    state = doc.get("state", type=Map)
    for key, value in values.items():
        state[key] = value
    return base64.b64encode(doc.get_update()).decode()


# -- many sessions in one request --------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", range(BOTH))
@pytest.mark.sampled(2)
async def test_a_device_syncs_sessions_of_all_nodes_at_any(nodes, rooms, asked):
    node, other = nodes.all[asked], nodes.all[1 - asked]
    async with (
        BackgroundSync(node.url, token=token("ann"), device="phone") as phone,
        BackgroundSync(other.url, token=token("ann"), device="tablet") as tablet,
    ):
        for device in (phone, tablet):
            for name in rooms:
                device.hold(name)
            assert not (await device.once()).refused
        for name in rooms:
            phone.copies[name].edit(lambda view: view.document.roots.state.update({"from": "phone"}))
        assert not (await phone.once()).refused
        async with asyncio.timeout(PATIENCE):  # what another node stored may be told of a second later
            while any(tablet.copies[name].view.state_value() != {"from": "phone"} for name in rooms):
                assert not (await tablet.once()).refused
    assert len({nodes.owner(name) for name in rooms[:BOTH]}) == BOTH, "nobody took what another has"


def test_each_session_of_a_request_has_its_own_outcome_in_its_place(nodes, rooms):
    names = [*rooms, "a\nb", "none", *rooms]
    with nodes.all[0].http(headers=bearer("bob", "editor")) as http:
        copies = [
            {"id": name, "update": update(**{f"k{at}": at}), "stateVector": "AA=="} for at, name in enumerate(names)
        ]
        copies[1]["update"] = base64.b64encode(b"no update").decode()
        copies[4]["lineage"] = "another"
        copies[0]["presence"] = {"seen": True}
        said = http.post("/v1/sync", json={"sessions": copies, "device": "d"}).json()["sessions"]
        assert [each["id"] for each in said] == names
        problems = [each.get("problem", {}).get("type", "").rpartition(":")[2] for each in said]
        assert problems[:3] == ["", "update-error", ""]
        assert problems[3] == "bad-session-id"
        assert problems[4] == "wrong-lineage"
        assert problems[5:] == ["", "", ""]
        assert '"bob"' in json.dumps(said[0]["present"])
        for name, keys in {rooms[0]: ["k0", "k5"], rooms[1]: ["k6"], rooms[2]: ["k2", "k7"]}.items():
            assert sorted(http.get(f"/v1/sessions/{name}/state").json()["state"]) == keys


def test_what_there_is_no_room_for_is_left_out_wherever_it_is(nodes, rooms):
    with nodes.all[0].http(headers=bearer()) as http:
        for name in rooms:
            assert http.post(f"/v1/sessions/{name}/messages", json={"text": "x" * 3000}).is_success
        copies = [{"id": name, "stateVector": "AA=="} for name in rooms]
        said = http.post("/v1/sync", json={"sessions": copies, "maxBytes": 4500}).json()["sessions"]
        told = [each for each in said if "update" in each]
        assert len(told) == 1
        for each in said:
            assert each is told[0] or (each["more"] and each["size"] > 3000 and "update" not in each)
            assert each["stateVector"]


# -- all sessions of a tenant ------------------------------------------------------------------------------------------


def test_a_persons_data_is_found_and_erased_at_any_node(nodes, rooms):
    admin, zed = bearer("boss", "service"), bearer("zed", "editor")
    for node in nodes.all:
        with node.http(headers=zed) as http:
            for name in rooms:
                said = http.post(f"/v1/sessions/{name}/messages", json={"text": f"zed at {node.port}"})
                assert said.status_code == 201, said.text
                seq = said.json()["seq"]
                assert http.put(f"/v1/sessions/{name}/receipt", json={"seq": seq}).is_success
    with nodes.all[1].http(headers=admin) as http:
        assert http.put(f"/v1/sessions/{rooms[0]}/members/zed", json={"role": "viewer"}).is_success
    for node in nodes.all:
        with node.http(headers=admin) as http:
            lines = [json.loads(line) for line in http.get("/v1/principals/zed/data").text.splitlines()]
            found = {each["session"]: each for each in lines if "messages" in each}
            assert sorted(found) == sorted(rooms)
            assert [len(found[name]["messages"]) for name in rooms] == [BOTH] * 3
            assert found[rooms[0]]["role"] == "viewer"
    with nodes.all[0].http(headers=admin) as http:
        erased = http.delete("/v1/principals/zed").json()
        assert (erased["sessions"], erased["receipts"], erased["memberships"]) == (3, 3, 1)
        assert http.delete("/v1/principals/zed").json()["sessions"] == 0


async def test_nothing_that_a_person_deleted_is_in_any_row_once_they_are_erased(nodes, rooms):
    """As on SQLite (``tests/access/test_live.py``), here whichever node has the session."""
    admin = bearer("boss", "service")
    for node, name in zip(nodes.all, rooms, strict=False):
        async with connect(node.url, name, token=token("yva", "editor")) as yva:
            yva.edit(lambda view: view.artifacts.add(ArtifactHead(id="draft", created_at=1), "yva's old secret"))
            ArtifactEditor(yva, "draft").edit("12345", of="old secret")
            await yva.durable()
        with node.http(headers=admin) as http:
            assert http.post(f"/v1/sessions/{name}/versions", json={"name": "kept"}).status_code == 201
    assert b"old secret" in await asyncio.to_thread(everything, nodes.sql)
    with nodes.all[0].http(headers=admin) as http:
        erased = http.delete("/v1/principals/yva").json()
        assert (erased["sessions"], erased["steps"], erased["versions"]) == (BOTH, BOTH, BOTH)
    left = await asyncio.to_thread(everything, nodes.sql)
    assert b"old secret" not in left
    assert left.count(b"12345") == BOTH, "what stands in the present stays"


async def test_an_errand_for_a_session_that_moved_is_refused_with_its_name(nodes, rooms):
    found = {address: node for node, address in nodes.sql("SELECT node, address FROM crdt_sessions.nodes")}
    peers = Peers(list, nodes.secret.read_bytes(), SystemClock())
    wrong = next(Peer(node, address) for address, node in found.items() if node != nodes.owner(rooms[0]))
    ((id,),) = nodes.sql("SELECT id FROM crdt_sessions.sessions WHERE id LIKE $1", f"%{rooms[0]}")
    with pytest.raises(NodeRefused) as refused:
        await peers.call(wrong, "errand", {"name": "erase-person", "session": id, "asked": "zed"})
    assert refused.value.error == "HeldElsewhere"
    await peers.close()


# -- streams that are no session's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("live", ["long-poll", "sse"])
async def test_who_waits_for_a_stream_hears_of_what_another_node_takes(nodes, live):
    one, two = (
        httpx.AsyncClient(base_url=node.url, headers=bearer(), timeout=PATIENCE, trust_env=False)
        for node in nodes.all
    )
    path, kind = f"/v1/streams/waits-{live}", {"Content-Type": "text/plain"}
    async with one, two:
        assert (await one.put(path, headers=kind)).status_code == 201

        async def heard():
            async with one.stream("GET", path, params={"offset": "-1", "live": live}) as answer:
                async for piece in answer.aiter_text():
                    if "news" in piece:
                        return

        waiting = asyncio.create_task(heard())
        await asyncio.sleep(0.3)  # so that it waits; if it does not yet, it is told at once
        assert (await two.post(path, content="news", headers=kind)).is_success
        await asyncio.wait_for(waiting, PATIENCE)


# -- sessions of MCP -------------------------------------------------------------------------------------------------------


class Alternately(httpx2.AsyncBaseTransport):
    """Sends each request to the next node, as a load balancer does."""

    def __init__(self, nodes):
        self._nodes = itertools.cycle(nodes)
        self._transport = httpx2.AsyncHTTPTransport()
        self.sessions = set()

    async def handle_async_request(self, request):
        request.url = request.url.copy_with(port=next(self._nodes).port)
        response = await self._transport.handle_async_request(request)
        self.sessions |= {response.headers["mcp-session-id"]} if "mcp-session-id" in response.headers else set()
        return response

    async def aclose(self):
        await self._transport.aclose()


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.sampled(2)
async def test_a_client_of_mcp_is_served_whichever_node_its_requests_come_to(nodes, rooms, mode):
    balancer = Alternately(nodes.all)
    timeout = httpx2.Timeout(PATIENCE)
    async with httpx2.AsyncClient(transport=balancer, headers=bearer("ann", "service"), timeout=timeout) as http:
        transport = streamable_http_client(f"{nodes.all[0].url}/mcp", http_client=http)
        async with Client(transport, mode=mode, cache=None) as mcp:
            for name in rooms[:BOTH] * 2:
                said = await mcp.call_tool("read_session", {"session": name})
                assert not said.is_error, said
                assert f"in {name}" in str(said)
    assert len(balancer.sessions) <= 1, "it never had to begin anew"


async def test_a_session_of_mcp_whose_node_is_gone_is_said_to_be(nodes):
    said = httpx.post(
        f"{nodes.all[0].url}/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
        headers={**bearer(), "Mcp-Session-Id": "12345-abc", "Accept": "application/json, text/event-stream"},
        trust_env=False,
    )
    assert said.status_code == 404


# -- who is there, and what is passed on -----------------------------------------------------------------------------------


async def test_a_node_says_who_is_connected_to_it(nodes, rooms):
    ((node, address),) = nodes.sql(
        "SELECT node, address FROM crdt_sessions.nodes WHERE node = $1", nodes.owner(rooms[0])
    )
    peers = Peers(list, nodes.secret.read_bytes(), SystemClock())

    async def there(who):
        return await peers.call(Peer(node, address), "there", {"tenant": "", "principal": who, "since": 2**50})

    async with httpx.AsyncClient(base_url=nodes.all[0].url, headers=bearer("kim"), trust_env=False) as http:
        assert not await there("kim")
        async with http.stream("GET", f"/v1/sessions/{rooms[0]}/events") as stream:
            lines = stream.aiter_lines()  # which is kept: without it the stream would be closed
            await anext(lines)
            assert await there("kim")
            assert not await there("ann")
    await peers.close()


def test_what_was_passed_on_is_counted(nodes, rooms):
    def counted(node):
        with node.http(headers=bearer("boss", "service")) as http:
            found = text_string_to_metric_families(http.get("/metrics").text)
            return {
                (sample.name, *sample.labels.values()): sample.value
                for family in found
                for sample in family.samples
                if "passed_on" in sample.name or "hop" in sample.name
            }

    before = counted(nodes.all[1])
    with nodes.all[1].http(headers=bearer()) as http:
        assert http.get(f"/v1/sessions/{rooms[0]}/messages").is_success
    after = counted(nodes.all[1])
    key = ("crdt_sessions_passed_on_total", "request")
    assert after[key] == before.get(key, 0) + 1
    assert after["crdt_sessions_passed_on_sockets",] == 0
