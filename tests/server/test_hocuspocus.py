"""/v1/hocuspocus, byte by byte: many documents on one socket, each let in and refused by itself."""

import pytest
import websockets
from pycrdt import Text

from crdt_sessions import connect
from crdt_sessions.wire import SyncStep1
from crdt_sessions.wire.varint import string
from tests.hocuspocus import AUTHENTICATED, DENIED, hocuspocus
from tests.processes import Server
from tests.sync.test_plain import typed

X = bytes.fromhex("0101010004010174017800")
"""Client 1 writes x into the text t."""


@pytest.fixture(scope="module", params=["--direct", "--no-direct"])
def served(tmp_path_factory, request):
    limits = ("--max-frame-bytes", "65536", "--max-unauthenticated-bytes", "4096", "--max-documents-per-socket", "3")
    process = Server(tmp_path_factory.mktemp("hp") / "s.db", *limits, "--authentication-s", "1", request.param)
    yield process
    process.close()


@pytest.fixture
def room(request):
    return "".join(char if char.isalnum() else "-" for char in request.node.name)


async def test_a_conversation_goes_as_with_hocuspocus(served, room):
    async with hocuspocus(served.url) as client:
        await client.begin(room, "tok")
        assert await client.hear() == (room, AUTHENTICATED, "read-write")
        assert (await client.hear())[1] == "SyncStep1"
        assert (await client.hear())[1] == "SyncStep2"
        await client.send(room, b"\x00\x01\x02\x00\x00")
        assert await client.hear() == (room, "status", 1)
        await client.write(room, X)
        assert await client.hear() == (room, "status", 1)
        await client.write(room, X)
        assert await client.hear() == (room, "status", 1), "a repetition has its answer, too"
        await client.send(room, b"\x01\x08\x01\x01\x01\x04null")
        await client.send(room, b"\x07")
    async with connect(served.url, room) as peer:
        assert str(peer.view.document.doc.get("t", type=Text)) == "x"


async def test_many_documents_share_a_socket_and_one_document_is_there_twice(served, room):
    async with hocuspocus(served.url) as client:
        for address in (f"{room}\0one", f"{room}\0two", f"{room}-2"):
            await client.synced(address)
        await client.write(f"{room}\0one", X)
        assert await client.until(f"{room}\0one", "status") == 1
        assert await client.until(f"{room}\0two", "Update") == X, "the other editor of it sees it"
        await client.send(f"{room}\0one", b"\x07")
        _, (first, *_) = typed()
        await client.write(f"{room}\0two", first)
        assert await client.until(f"{room}\0two", "status") == 1, "the others of a socket stay"
        assert X[4:] in await client.synced(f"{room}\0one"), "and an address can be used again"


async def test_too_many_documents_are_refused_one_by_one(served, room):
    async with hocuspocus(served.url) as client:
        for n in range(3):
            await client.synced(f"{room}-{n}")
        await client.begin(f"{room}-3")
        assert "more than 3 documents" in await client.until(f"{room}-3", DENIED)
        await client.write(f"{room}-0", X)
        assert await client.until(f"{room}-0", "status") == 1


async def test_a_provider_without_a_token_sends_none(served, room):
    async with hocuspocus(served.url) as client:
        await client.say(room, SyncStep1(b"\x00"))
        assert await client.hear() == (room, AUTHENTICATED, "read-write")


async def test_a_ping_is_answered_and_belongs_to_no_document(served, room):
    async with hocuspocus(served.url) as client:
        await client.socket.send(b"\x09")
        assert await client.hear() == (None, "heartbeat", 10)
        await client.socket.send(b"\x0a")
        await client.synced(room)


async def test_what_nobody_is_there_for_is_dropped(served, room):
    async with hocuspocus(served.url) as client:
        await client.write(room, X)
        await client.send(room, b"\x07")
        await client.send(room, b"\x05\x02hi")
        assert X[4:] not in await client.synced(room)


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"", 4400, "wanted 1 bytes"),
        ("text", 4400, "wanted 1 bytes"),
        (b"\x01", 4400, "wanted 1 bytes"),
        (string("d") + b"\x06\x02hi", 4400, "type 6"),
        (string("d") + b"\x08\x01", 4400, "type 8"),
        (string("d") + b"\x02\x02\x08readonly", 4400, "type 2"),
        (string("d") + b"\x63", 4400, "type 99"),
        (b"\x01\xff\x00", 4400, "not UTF-8"),
    ],
)
async def test_what_a_client_may_not_say_closes_the_socket(served, message, code, reason):
    async with hocuspocus(served.url) as client:
        await client.socket.send(message)
        closed = await client.closed()
        assert (closed[0], reason in closed[1]) == (code, True), closed


@pytest.mark.parametrize(
    "body", [b"\x00\x02\x05x", b"\x00\x02\x03\xff\xfe\xfd", b"\x01\x01\x00x", b"\x00\x00\x01\x09"]
)
async def test_what_cannot_be_read_ends_its_document_only(served, room, body):
    async with hocuspocus(served.url) as client:
        await client.synced(f"{room}-2")
        await client.synced(room)
        await client.send(room, body)
        if not body.startswith(b"\x01\x01"):
            assert (await client.until(room, DENIED)).startswith("4400 ")
        await client.write(f"{room}-2", X)
        assert await client.until(f"{room}-2", "status") == 1


async def test_what_is_too_large_ends_its_document_only(served, room):
    async with hocuspocus(served.url) as client:
        await client.synced(f"{room}-2")
        await client.synced(room)
        await client.write(room, b"\x00" * 70_000)
        assert (await client.until(room, DENIED)).startswith("4413 ")
        await client.write(f"{room}-2", X)
        assert await client.until(f"{room}-2", "status") == 1


@pytest.mark.parametrize("name", ["", " a", "a/../b", "x" * 201, "a\nb"])
async def test_odd_names_are_refused(served, name):
    async with hocuspocus(served.url) as client:
        await client.begin(name)
        assert "1 to 200 characters" in await client.until(name, DENIED)


async def test_who_says_nothing_is_sent_away(served, room):
    async with hocuspocus(served.url) as client:
        await client.socket.send(b"\x09")
        await client.write(room, X)
        assert (await client.closed())[0] == 4408


async def test_who_is_not_let_in_may_say_little(served, room):
    async with hocuspocus(served.url) as client:
        with pytest.raises(websockets.ConnectionClosed):
            await client.socket.send(string("d") + b"\x02\x00" + string("t" * 70_000))
            while True:
                await client.socket.recv()
        assert client.socket.close_code in (1009, 4413)


async def test_a_service_that_stops_says_so(tmp_path):
    server = Server(tmp_path / "s.db")
    async with hocuspocus(server.url) as one, hocuspocus(server.url) as vacant:
        await one.synced("room")
        server.child.terminate()
        assert (await one.closed())[0] == 1012
        assert (await vacant.closed())[0] == 1012
    assert server.child.wait(30) == 0
    server.close()
