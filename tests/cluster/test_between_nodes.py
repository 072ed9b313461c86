"""What nodes ask each other, over real sockets: who is believed, and who is not."""

import asyncio
import contextlib
import json
from dataclasses import replace

import httpx
import pytest
from hypercorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import AccessDenied, NodeRefused, NodeUnreachable, TooMany
from crdt_sessions.storage.peers import Peer
from crdt_sessions.testing import FakeClock
from crdt_sessions_server.cluster import hop
from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.cluster.hop import HEADER, Hop, Request, WrongNode, passed_on
from crdt_sessions_server.cluster.inner_door import InnerDoor
from crdt_sessions_server.cluster.peers import Peers
from crdt_sessions_server.serving.listener import Endpoint
from crdt_sessions_server.serving.web_server import WebServer
from tests.processes import UPGRADE, free_port

SECRET = b"x" * 32
ME = 7
POST = Request("POST", "/v1/sessions/a%20b/messages", b"x=%20y")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
requests = st.builds(Request, st.sampled_from(["GET", "POST"]), texts, st.binary(max_size=9))
hops = st.builds(
    Hop, st.just(ME), st.sampled_from(["", "127.0.0.1", "2001:db8::1"]), st.sampled_from(["http", "https"])
)


def read(value, request=POST, secret=SECRET, me=ME, now=1000):
    return hop.read(value, secret, request, me=me, now=now)


@given(hops, requests, requests, st.integers(0, 2**45))
def test_a_hop_is_good_for_its_request_its_node_and_a_minute(said, request, other, now):
    value = said.sign(SECRET, request, now)
    assert value.isascii()
    assert read(value, request, now=now + 60_000) == said
    for late in (now + 60_001, now - 60_001):
        with pytest.raises(AccessDenied):
            read(value, request, now=late)
    with pytest.raises(WrongNode):
        read(value, request, me=ME + 1, now=now)
    with pytest.raises(AccessDenied):
        read(value, request, secret=b"y" * 32, now=now)
    if other != request:
        with pytest.raises(AccessDenied):
            read(value, other, now=now)


@given(hops, st.integers(0, 200), texts)
def test_a_hop_that_was_changed_is_refused(said, at, piece):
    value = said.sign(SECRET, POST, 1000)
    changed = value[:at] + piece + value[at + 1 :]
    if changed != value:
        with pytest.raises(AccessDenied):
            read(changed)


@given(st.text())
def test_whatever_stands_in_the_header_is_no_hop(value):
    with pytest.raises(AccessDenied):
        read(value)


@pytest.mark.parametrize("text", ["10.0.0.7:8001", "[::1]:80", "unix:/run/a b", "node.example:0", "0.0.0.0:1"])
def test_addresses_are_read_as_they_are_written(text):
    assert str(Address.parse(text)) == text
    assert Address.parse(text).anywhere == text.startswith("0.0.0.0")


@pytest.mark.parametrize("text", ["", "8001", "host:", "host:65536", "host:x", "unix:relative", "unix:"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="no address of a node"):
        Address.parse(text)


# -- over sockets ------------------------------------------------------------------------------------------------------


async def echo(scope, receive, send):
    """Say what request has come, and whether another node passed it on."""
    body = b""
    while (event := await receive())["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
    said = {
        "path": scope["raw_path"].decode(), "query": scope["query_string"].decode(), "client": scope["client"][0],
        "scheme": scope["scheme"], "body": body.decode(), "passed_on": passed_on(scope),
    }  # fmt: skip
    await send({"type": "http.response.start", "status": 201, "headers": [(b"x-said", b"1")]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


class Node:
    """A node that listens for others, with :func:`echo` as its service."""

    def __init__(self, address, clock, endpoints=()):
        self.address = address
        self.clock = clock
        self.door = InnerDoor(echo, SECRET, lambda: ME, clock)
        self.endpoints = self.door.endpoints(endpoints)

    @contextlib.asynccontextmanager
    async def serving(self):
        config = Config()
        config.accesslog = config.errorlog = None
        config.graceful_timeout = 0.1
        listener = self.address.listen()
        self.address = self.address.bound(listener)
        async with WebServer(self.door, config, [listener], endpoints=self.endpoints, max_message_bytes=1000):
            yield self

    @property
    def peer(self):
        return Peer(ME, str(self.address))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=["tcp", "unix"])
async def node(request, clock, tmp_path):
    address = Address("127.0.0.1") if request.param == "tcp" else Address(path=str(tmp_path / "s"))
    async with Node(address, clock).serving() as serving:
        yield serving


@pytest.fixture
async def peers(node, clock):
    asking = Peers(lambda: [node.peer, Peer(8, "")], SECRET, clock)
    yield asking
    await asking.close()


async def test_a_node_asks_another_and_is_answered_or_told_the_error(node, peers):
    async def double(asked):
        if asked > 4:
            raise TooMany(what="numbers", limit=4)
        return {"twice": 2 * asked}

    node.door.answer("double", double)
    assert peers.living == [node.peer]  # one without an address cannot be asked
    assert await peers.call(node.peer, "double", 2) == {"twice": 4}
    with pytest.raises(NodeRefused, match="numbers") as refused:
        await peers.call(node.peer, "double", 5)
    assert refused.value.error == "TooMany"
    with pytest.raises(NodeRefused, match="older"):
        await peers.call(node.peer, "nothing")


async def test_a_request_is_passed_on_as_the_client_made_it(node, peers):
    asked = Request("POST", "/v1/sessions/%C3%A4%2F%20b/x/../y", b"q=%C3%A4&r=%2e")

    async def body():
        yield b"one "
        yield b"two"

    said = Hop(ME, "203.0.113.9", "https")
    response = await peers.send(node.peer, said, asked, [(b"host", b"sessions.example")], body())
    assert response.status_code == 201
    assert json.loads(await response.aread()) == {
        "path": asked.path, "query": asked.query.decode(), "client": "203.0.113.9", "scheme": "https",
        "body": "one two", "passed_on": True,
    }  # fmt: skip
    await response.aclose()


async def test_who_is_no_node_gets_nothing_from_the_inner_listener(node, peers, clock):
    transport = httpx.AsyncHTTPTransport(uds=node.address.path or None)
    url = "http://node" if node.address.path else f"http://{node.address}"
    path = "/v1/sessions/a/messages"
    good = Hop(ME).sign(SECRET, Request("GET", path), clock.now())
    async with httpx.AsyncClient(transport=transport, base_url=url) as outsider:
        assert (await outsider.get(path, headers={HEADER: good})).status_code == 201
        for headers in ({}, {HEADER: ""}, {HEADER: "1;7;0;http;"}, {HEADER: good[:-1]}, {HEADER: good + "0"}):
            refused = await outsider.get(path, headers=headers)
            assert (refused.status_code, refused.json()["error"]) == (403, "AccessDenied")
        assert (await outsider.get(path + "/x", headers={HEADER: good})).status_code == 403
        assert (await outsider.post(path, headers={HEADER: good})).status_code == 403
        assert (await outsider.post("/cluster/anything", headers={HEADER: good})).status_code == 403
        await clock.advance(61)
        assert "clocks" in (await outsider.get(path, headers={HEADER: good})).json()["detail"]


async def test_a_request_that_is_meant_for_the_node_before_is_not_answered(node, peers):
    with pytest.raises(NodeUnreachable) as gone:
        await peers.call(replace(node.peer, node=ME + 1), "anything")
    assert gone.value.refused


async def test_a_node_that_is_not_there_is_known_at_once(peers, clock, tmp_path):
    for address in (f"127.0.0.1:{free_port()}", f"unix:{tmp_path}/none"):
        with pytest.raises(NodeUnreachable) as gone:
            await peers.call(Peer(ME, address), "anything")
        assert gone.value.refused


async def test_a_node_that_is_silent_is_given_up(node, peers):
    async def sleep(asked):
        await asyncio.Event().wait()

    node.door.answer("sleep", sleep)
    with pytest.raises(NodeUnreachable) as gone:
        await peers.call(node.peer, "sleep", patience_s=0.1)
    assert not gone.value.refused


async def test_a_websocket_is_greeted_only_if_a_node_passes_it_on(clock):
    greeted = []

    def greet(scope, token, connection):
        greeted.append((scope["client"][0], passed_on(scope)))
        connection.abort()

    async with Node(Address("127.0.0.1"), clock, [Endpoint("/v1/sync/", greet)]).serving() as node:
        for header in (
            "",
            f"{HEADER}: {Hop(ME, '203.0.113.9').sign(SECRET, Request('GET', '/v1/sync/a'), clock.now())}",
        ):
            reader, writer = await asyncio.open_connection(node.address.host, node.address.port)
            head = UPGRADE % b"a"
            writer.write(head[:-2] + (header.encode() + b"\r\n" if header else b"") + b"\r\n")
            answer = await reader.readuntil(b"\r\n")
            assert (b"101" if header else b"403") in answer
            writer.close()
    assert greeted == [("203.0.113.9", True)]
