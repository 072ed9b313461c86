"""Restarted with another database at the same address, with clients that were there before: y-websocket, Python, REST."""

import asyncio

import pytest

from crdt_sessions import connect
from crdt_sessions.errors import ConnectionClosed
from crdt_sessions.wire import SyncStep1, SyncStep2, encode
from tests.interop.node import needs_node
from tests.processes import PATIENCE, PROBLEM, Server

FIRST, SECOND = "of the first", "of the second"


class World:
    """A service that is stopped and started on one of two databases, at one address."""

    def __init__(self, folder):
        self.folder = folder
        self.service = Server(folder / "first.db")
        self.url, self.ws = self.service.url, self.service.ws

    def say(self, text, id):
        with self.service.http() as http:
            assert http.post("/v1/sessions/room/messages", json={"id": id, "text": text}).status_code == 201

    def texts(self):
        with self.service.http() as http:
            messages = http.get("/v1/sessions/room/messages").json()["messages"]
            return [message["parts"][0]["text"] for message in messages]

    def on(self, name):
        self.service.terminate()
        self.service = Server(self.folder / f"{name}.db", port=self.service.port)

    def get(self, path):
        with self.service.http() as http:
            return http.get(path)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.say(FIRST, "first")
    yield world
    world.service.close()


def said(js, peer):
    messages = js("dump", peer=peer)["json"]["messages"].values()
    return [message["parts"][0]["text"] for message in sorted(messages, key=lambda message: message["head"]["id"])]


@needs_node
@pytest.mark.parametrize("version", [3, pytest.param(2, marks=pytest.mark.nightly)])
def test_tabs_are_told_and_can_go_on_when_the_first_database_is_back(world, js, version):
    js("open", peer="tab", url=world.ws, room="room", version=version)
    js.synced("tab")
    js("post", peer="tab", id="tab", text="in the tab")
    js.until(lambda _: len(world.texts()) == 2, command="status", peer="tab")
    saved = js("save", peer="tab")
    world.on("second")  # and the tab comes back by itself
    world.say(SECOND, "second")
    js.until(lambda status: 4409 in status["closes"], command="status", peer="tab")
    js("disconnect", peer="tab")
    js("open", peer="reloaded", url=world.ws, room="room", version=version, saved=saved)
    js("post", peer="reloaded", id="unsent", text="not sent yet")
    js.until(lambda status: 4409 in status["closes"], command="status", peer="reloaded")
    js("disconnect", peer="reloaded")
    assert world.texts() == [SECOND]
    assert said(js, "tab") == [FIRST, "in the tab"]
    assert said(js, "reloaded") == [FIRST, "in the tab", "not sent yet"]
    js("open", peer="new", url=world.ws, room="room", version=version)
    js.synced("new")
    assert said(js, "new") == [SECOND]
    world.on("first")
    for peer in ("tab", "reloaded"):
        js("connect", peer=peer)
        js.synced(peer)
    js.until(lambda _: len(world.texts()) == 3, command="status", peer="tab")
    assert sorted(world.texts()) == sorted([FIRST, "in the tab", "not sent yet"])


@needs_node
@pytest.mark.parametrize("version", [3, 2, 1])
@pytest.mark.sampled(3)
def test_what_a_tab_writes_the_moment_it_is_connected_goes_to_its_own_session_or_nowhere(world, js, version):
    """The update comes before anything that tells whose it is: it has a client ID of its own, and needs nothing."""
    js("open", peer="tab", url=world.ws, room="room", version=version)
    js.synced("tab")
    saved = js("save", peer="tab")
    js("destroy", peer="tab")
    at_once = {"room": "room", "version": version, "saved": saved, "early": {"id": "early", "text": "at once"}}
    world.on("second")
    world.say(SECOND, "second")
    js("open", peer="foreign", url=world.ws, **at_once)
    js.until(lambda status: 4409 in status["closes"], command="status", peer="foreign")
    js("destroy", peer="foreign")
    assert world.texts() == [SECOND]
    world.on("first")
    js("open", peer="own", url=world.ws, **at_once)
    js.synced("own")
    js.until(lambda _: len(world.texts()) == 2, command="status", peer="own")
    assert world.texts() == [FIRST, "at once"]


async def test_python_peers_are_told_live_and_with_a_local_copy(world, tmp_path):
    async with (
        connect(world.url, "room") as live,
        connect(world.url, "room", offline=tmp_path / "copy.db") as copied,
    ):
        await live.synced()
        await copied.synced()
        lineage = live.view.meta.lineage
        await asyncio.to_thread(world.on, "second")
        await asyncio.to_thread(world.say, SECOND, "second")
        for peer in (live, copied):
            with pytest.raises(ConnectionClosed) as caught:
                await asyncio.wait_for(peer.until(lambda: False), PATIENCE)
            assert caught.value.code == 4409
            assert [message.text for message in peer.messages.all()] == [FIRST]
    async with connect(world.url, "room", offline=tmp_path / "copy.db") as again:
        with pytest.raises(ConnectionClosed):
            await again.synced()
    assert await asyncio.to_thread(world.texts) == [SECOND]
    assert (await asyncio.to_thread(world.get, "/v1/sessions/room")).json()["lineage"] != lineage
    await asyncio.to_thread(world.on, "first")
    async with connect(world.url, "room", offline=tmp_path / "copy.db") as back:
        await back.synced()
        await back.post("and back")
    assert await asyncio.to_thread(world.texts) == [FIRST, "and back"]


async def test_a_python_peer_makes_no_session_on_an_empty_database(world):
    async with connect(world.url, "room") as live:
        await live.synced()
        await asyncio.to_thread(world.on, "second")
        with pytest.raises(ConnectionClosed) as caught:
            await asyncio.wait_for(live.until(lambda: False), PATIENCE)
        assert caught.value.code == 4409
    assert (await asyncio.to_thread(world.get, "/v1/sessions/room")).status_code == 404


def test_cursors_and_sync_without_a_socket_are_told(world):
    octets = {"content-type": "application/octet-stream"}
    with world.service.http() as http:
        page = http.get("/v1/sessions/room/events?waitS=0").json()
        document = http.get("/v1/sessions/room/export?format=yjs").content
    world.on("second")
    for number in range(9):
        world.say(SECOND, f"second{number}")
    with world.service.http() as http:
        told = http.get(f"/v1/sessions/room/events?waitS=0&cursor={page['cursor']}").json()["events"]
        assert told[0]["event"] == "reset"
        assert told[0]["data"] == {"lineage": http.get("/v1/sessions/room").json()["lineage"]}
        assert len([event for event in told if event["event"] == "message"]) == 9
        headers = {"Last-Event-ID": page["cursor"]}
        with http.stream("GET", "/v1/sessions/room/events?kinds=message", headers=headers) as answer:
            first = next(line for line in answer.iter_lines() if line.startswith("event:"))
        assert first == "event: reset"
        body = encode(SyncStep1(b"\x00")) + encode(SyncStep2(document))
        refused = http.post("/v1/sessions/room/sync", content=body, headers=octets)
        assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "wrong-lineage")
        assert "discard it" in refused.json()["detail"]
        assert len(http.get("/v1/sessions/room/messages").json()["messages"]) == 9
        merged = http.post("/v1/sessions/room/import", content=document, headers=octets)
        assert merged.status_code == 200, "who imports means it"
        assert len(http.get("/v1/sessions/room/messages").json()["messages"]) == 10
        moved = http.post("/v1/sessions/moved/import", content=document, headers=octets)
        assert (moved.status_code, moved.json()["lineage"]) != (200, page)
        assert [m["parts"][0]["text"] for m in http.get("/v1/sessions/moved/messages").json()["messages"]] == [FIRST]
