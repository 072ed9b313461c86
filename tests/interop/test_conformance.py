"""Golden vectors in real Yjs 14 and pycrdt, and the check of servers against them; Yjs 13 has written them."""

import asyncio
import json
from functools import partial

import pytest
import websockets
from pycrdt import Doc, Map, Text

from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import client_conformance
from crdt_sessions.testing.client_conformance import Started, check_client
from crdt_sessions.testing.conformance import Unmet, check_document, check_server, tell, vectors
from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, encode
from crdt_sessions.wire.varint import decode_state_vector
from crdt_sessions_server import cli
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.interop.node import JS, NodePeers, needs_node
from tests.processes import ROOT, free_port

pytestmark = pytest.mark.interop
DOCUMENTS = vectors("documents")


def steps(vector):
    """Yield the updates applied so far, and what a document must read as then."""
    updates = []
    for step in (vector, vector.get("then")):
        if step is not None:
            updates += step["updates"]
            yield updates, step


@pytest.mark.parametrize("vector", DOCUMENTS, ids=lambda vector: vector["name"])
def test_pycrdt_reads_a_document_so(vector):
    for updates, expected in steps(vector):
        doc = Doc()
        for update in updates:
            doc.apply_update(bytes.fromhex(update))
        assert str(doc.get("draft", type=Text)) == expected["draft"]
        assert doc.get("state", type=Map).to_py() == expected["state"]
        assert sorted(map(list, decode_state_vector(doc.get_state()).items())) == expected["clocks"]


@needs_node
def test_yjs_14_reads_the_documents_so():
    js14 = NodePeers(JS / "yjs14.mjs")
    try:
        for vector in DOCUMENTS:
            for updates, expected in steps(vector):
                read = js14("applied", updates=updates)
                assert read["draft"] == expected["draft"], vector["name"]
                assert sorted(read["vector"]) == expected["clocks"], vector["name"]
                assert not read["pending"] or expected["pending"], vector["name"]
    finally:
        js14.close()


def test_a_document_that_reads_otherwise_is_told():
    update = bytes.fromhex(DOCUMENTS[3]["updates"][0])
    with pytest.raises(Unmet, match="draft is 'abcdefgh' and must be 'bXfgh'"):
        check_document(update, DOCUMENTS[3])


def test_the_service_conforms(server, capsys):
    assert cli.main(["conformance", "--url", server.ws]) == 0
    said = capsys.readouterr().out
    assert "NOT MET" not in said
    assert "left out" not in said
    assert said.count("met ") > len(DOCUMENTS)


def test_another_server_is_checked_and_what_it_leaves_out_is_told():
    """One of pycrdt-websocket: it answers, and does not know type 102."""
    port = free_port()

    async def check():
        import websockets
        from pycrdt.websocket import WebsocketServer, exception_logger

        class Channel:
            def __init__(self, socket):
                self.socket, self.path = socket, socket.request.path

            async def send(self, message):
                await self.socket.send(message)

            def __aiter__(self):
                return self.socket.__aiter__()

        async with WebsocketServer(auto_clean_rooms=False, exception_handler=exception_logger) as rooms:
            async with websockets.serve(lambda socket: rooms.serve(Channel(socket)), "127.0.0.1", port):
                checks = check_server(f"ws://127.0.0.1:{port}", patience_s=3)
                await tell(noted(checks), said.append)

    named, said = {}, []

    async def noted(checks):
        async for each in checks:
            named[each.name] = each
            yield each

    asyncio.run(check())
    assert named["document: client ids of 53 bits"].met, said
    assert not named["acknowledges what was sent before (type 102)"].met
    assert any(line.startswith("left out") for line in said)


@needs_node
async def test_a_stock_client_conforms(js):
    async def start(url, room):
        await js.ask("open", peer=room, url=url, room=room, state={"user": {"name": "js"}})
        return Started(stop=lambda: js.ask("destroy", peer=room))

    found = [each async for each in check_client(start)]
    assert [each for each in found if not each.met] == []
    assert len(found) == len(DOCUMENTS) + 5


async def test_a_client_that_understands_nothing_is_told():
    """It comes, and answers whatever it is asked with an empty document."""
    tasks = []

    async def answer(url, room):
        async with websockets.connect(f"{url}/{room}") as socket:
            await socket.send(encode(SyncStep1(b"\x00")))
            async for message in socket:
                if message[:2] == b"\x00\x00":
                    await socket.send(encode(SyncStep2(EMPTY_UPDATE)))

    async def start(url, room):
        tasks.append(asyncio.create_task(answer(url, room)))

        async def stop():
            tasks[-1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        return Started(stop)

    found = {each.name: each async for each in check_client(start, patience_s=0.2)}
    assert found["asks with a SyncStep1 when it has joined"].met
    assert found["goes on after messages that it does not know, and after a denied permission"].met
    assert found["comes back after 1012, and asks again"].why == "the client did not come back"
    assert "draft is ''" in found["document: client ids of 53 bits"].why
    assert not found["answers a SyncStep1 with all that lacks"].met
    assert found["says who it is when it is asked"].optional


def test_a_command_that_never_comes_is_told(monkeypatch, capsys):
    check = client_conformance.check_command
    monkeypatch.setattr(client_conformance, "check_command", partial(check, patience_s=0.01))
    assert cli.main(["conformance", "--client", "sh -c 'sleep 60'"]) == 1
    assert "NOT MET  asks with a SyncStep1 when it has joined: the client did not come" in capsys.readouterr().out


async def test_a_command_that_has_ended_is_not_waited_for():
    checks = client_conformance.check_command(["false"], patience_s=1000)
    assert {each.why async for each in checks} == {"the client ended with code 1 before it came"}


async def test_what_came_of_a_check_is_told_at_once(server):
    checks = check_server(server.ws)
    assert (await anext(checks)).met
    await checks.aclose()


def test_the_document_of_sockets_names_what_is_served():
    document = json.loads((ROOT / "schemas/v1/asyncapi.json").read_text("utf-8"))
    service = Service(Settings(), store=MemoryStore())
    addresses = {channel["address"].removesuffix("{session}") for channel in document["channels"].values()}
    text = {service.chat.endpoint.prefix}
    served = {each.endpoint.prefix for each in (service.sync, service.y_sweet, service.hocuspocus, service.chat)}
    assert addresses == served - text, "the AI SDK's socket is that protocol's own"
    for operation in document["operations"].values():
        for message in operation["messages"]:
            name = message["$ref"].rpartition("/")[2]
            assert name in document["components"]["messages"]
