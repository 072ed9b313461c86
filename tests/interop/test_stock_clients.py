"""Clients that never heard of us, unmodified: y-websocket 3.1, 2.x and 1.x, pycrdt.Provider, pycrdt-websocket's client."""

import asyncio
import time
from random import Random
from urllib.parse import quote

import pytest
import websockets
from httpx_ws import aconnect_ws
from pycrdt import Channel, Doc, Map, Provider, Text
from pycrdt.websocket.websocket import HttpxWebsocket

from crdt_sessions import connect
from tests.interop.node import needs_node
from tests.processes import Server, attempts
from tests.profiles import sample

pytestmark = pytest.mark.interop


@needs_node
@pytest.mark.parametrize("version", [3, 2, 1])
def test_y_websocket_syncs_live_and_offline_edits(server, js, version, room):
    for peer in ("a", "b"):
        js("open", peer=peer, url=server.ws, room=room, version=version)
    js.synced("a", "b")
    js("insert", peer="a", index=0, text="Grüße 😀")
    js.until(lambda dump: dump["draft"] == "Grüße 😀", command="dump", peer="b")
    js("disconnect", peer="b")
    js("insert", peer="b", index=0, text="offline ")
    js("insert", peer="a", index=8, text=" online")  # UTF-16 index, as JavaScript counts
    js("connect", peer="b")
    for peer in ("a", "b"):
        js.until(lambda dump: dump["draft"] == "offline Grüße 😀 online", command="dump", peer=peer)
    js("open", peer="late", url=server.ws, room=room, version=version)
    js.synced("late")
    assert js.content("late") == js.content("a") == js.content("b")


@needs_node
@pytest.mark.parametrize("version", [3, 2, 1])
@pytest.mark.sampled(3)
def test_a_storm_of_reconnects_and_a_large_document_lose_nothing(server, js, version, room):
    peers = [f"{room} {n}" for n in range(4)]
    for peer in peers:
        js("open", peer=peer, url=server.ws, room=room, version=version)
    js.synced(*peers)
    js("insert", peer=peers[0], index=0, text="large " * 100_000)
    for turn in range(3):
        for peer in peers:
            js("insert", peer=peer, index=0, text=f"{turn} ")
            js("disconnect", peer=peer)
            js("insert", peer=peer, index=0, text=f"{turn} offline ")
            js("connect", peer=peer)
    length = 6 * 100_000 + len("0 0 offline ") * 3 * len(peers)
    for peer in peers:
        js.until(lambda dump: len(dump["draft"]) == length, command="dump", peer=peer)
        js("destroy", peer=peer)


@needs_node
def test_versions_and_python_share_one_session(server, js, room):
    js("open", peer="new", url=server.ws, room=room, version=3)
    js("open", peer="old", url=server.ws, room=room, version=2)

    async def python():
        async with connect(server.url, room, name="Py") as peer:
            posted = await peer.post("from Python")
            await js.ask("post", peer="new", id="js1", text="from JavaScript")
            await js.ask("presence", peer="old", state={"user": {"name": "Old"}, "kind": "human"})
            await peer.until(lambda: {posted.id, "js1"} <= {m.id for m in peer.messages.all() if m.seq})
            await peer.until(lambda: "Old" in [p.user.name for p in peer.present().values()])
            names = js.until(lambda s: len(s) >= 3, command="present", peer="new")
            assert "Py" in [state.get("user", {}).get("name") for _, state in names]

    asyncio.run(python())
    js.until(
        lambda dump: sorted(m.get("seq", 0) for m in dump["json"]["messages"].values()) == [1, 2],
        command="dump",
        peer="old",
    )
    left = js.until(lambda states: len(states) == 2, command="present", peer="new")
    assert "Py" not in str(left)


@needs_node
def test_presence_of_a_dropped_client_goes_and_of_a_returning_one_stays(server, js, room):
    for peer in ("a", "b"):
        js("open", peer=peer, url=server.ws, room=room)
        js("presence", peer=peer, state={"user": {"name": peer}})
    js.until(lambda states: len(states) == 2, command="present", peer="a")
    js("drop", peer="b")  # it comes back by itself within the grace: nobody sees it leave
    js.synced("b")
    assert len(js("present", peer="a")) == 2
    js("disconnect", peer="b")
    js.until(lambda states: len(states) == 1, command="present", peer="a")


@needs_node
@pytest.mark.parametrize("version", [3, 2, 1])
@pytest.mark.sampled(3)
def test_a_viewer_that_shows_itself_later_is_seen_and_goes_on_seeing(server, js, version, room):
    def seen(peer, *names):
        js.until(
            lambda states: sorted(s.get("name", "") for _, s in states) == [*names], command="present", peer=peer
        )

    for peer in ("ann", "bob"):
        js("open", peer=peer, url=server.ws, room=room, version=version, state={"name": peer})
    js("open", peer="viewer", url=server.ws, room=room, version=version, state=None)
    seen("viewer", "ann", "bob")
    js("presence", peer="viewer", state={"name": "viewer"})
    seen("ann", "ann", "bob", "viewer")
    js("presence", peer="ann", state={"name": "ann moved"})
    js("presence", peer="bob", state={"name": "bob moved"})
    for peer in ("ann", "bob", "viewer"):
        seen(peer, "ann moved", "bob moved", "viewer")
    js("destroy", peer="viewer")
    for peer in ("ann", "bob"):
        seen(peer, "ann moved", "bob moved")


@needs_node
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.sampled(3)
def test_whatever_clients_of_three_versions_do_in_the_end_all_see_who_is_here(server, js, seed, room):
    random = Random(seed)
    names, here, shown = [f"p{n}" for n in range(6)], set(), {}
    for n, name in enumerate(names):
        shown[name] = random.choice([None, {"name": name, "at": 0}])
        js("open", peer=name, url=server.ws, room=room, version=1 + n % 3, state=shown[name])
        here.add(name)
    for at in range(1, 60):
        name = random.choice(names)
        match random.choice(["show", "show", "hide", "drop", "leave", "come", "come", "pause"]):
            case "show":
                js("presence", peer=name, state={"name": name, "at": at})
                shown[name] = True
            case "hide":
                js("presence", peer=name, state=None)
                shown[name] = None
            case "drop" if name in here:
                js("drop", peer=name)
            case "leave":
                js("disconnect", peer=name)
                here.discard(name)
            case "come":
                js("connect", peer=name)
                here.add(name)
            case _:
                js.synced(*here)
    js.synced(*here)
    present = sorted(name for name in here if shown[name])
    for (
        name
    ) in present:  # who returned knows of the others only when they say something new: clocks outlive a connection
        js("presence", peer=name, state={"name": name, "at": "the end"})
    for name in here:
        js.until(
            lambda states: sorted((s["name"], s["at"]) for _, s in states) == [(each, "the end") for each in present],
            command="present",
            peer=name,
        )


@needs_node
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("room", "name"),
    [
        ("_V1StGXR8_Z5jdHi6B-my", None),
        ("-V1StGXR8_Z5jdHi6B-my", None),
        ("a b/1", None),
        ("Zürich/京都", None),
        ("a%3Fb%2525", "a?b%25"),
    ],
)
@pytest.mark.sampled(3)
def test_session_names_with_odd_characters_work(server, js, room, name, version):
    js("open", peer=room, url=server.ws, room=room, version=version)
    js.synced(room)
    js("post", peer=room, id=f"by {version}", text="?")
    js.until(lambda dump: "seq" in dump["json"]["messages"][f"by {version}"], command="dump", peer=room)
    with server.http() as http:
        found = http.get(f"/v1/sessions/{quote(name or room, safe='')}/messages").json()["messages"]
    assert f"by {version}" in [message["id"] for message in found]
    js("destroy", peer=room)


@needs_node
@pytest.mark.parametrize(
    ("room", "code"),
    [("gone", 4404), ("bad%0Aname", 4400)],
)
def test_permanent_codes_stop_the_client(server, js, room, code):
    with server.http() as http:
        http.post("/v1/sessions", json={"id": "gone"})
        http.delete("/v1/sessions/gone")
    js("open", peer="a", url=server.ws, room=room)
    status = js.until(lambda status: status["stopped"], command="status", peer="a")
    assert status["closes"] == [code]
    time.sleep(1)
    assert js("status", peer="a")["closes"] == [code]


@needs_node
def test_tokens_travel_as_parameter_or_subprotocol(tmp_path, js):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"s3cret": {"principal": "ann"}, "look": {"principal": "bob", "canWrite": false}}')
    server = Server(tmp_path / "s.db", "--tokens-file", tokens)
    try:
        js("open", peer="query", url=server.ws, room="room", params={"token": "s3cret"})
        js("open", peer="protocol", url=server.ws, room="room", protocols=["crdt-sessions", "bearer.s3cret"])
        js.synced("query", "protocol")
        js("open", peer="none", url=server.ws, room="room")
        js("open", peer="wrong", url=server.ws, room="room", params={"token": "nope"})
        for peer in ("none", "wrong"):
            assert js.until(lambda s: s["stopped"], command="status", peer=peer)["closes"] == [4401]
        js("open", peer="reader", url=server.ws, room="room", params={"token": "look"})
        js.synced("reader")
        js("insert", peer="query", index=0, text="x")
        js.until(lambda dump: dump["draft"] == "x", command="dump", peer="reader")
        js("insert", peer="reader", index=0, text="not allowed")
        js.until(lambda s: s["denied"], command="status", peer="reader")
        js(
            "open",
            peer="again",
            url=server.ws,
            room="room",
            params={"token": "look"},
            saved=js("save", peer="reader"),
        )
        js.synced("again")
        js.until(lambda s: s["denied"], command="status", peer="again")
        js("insert", peer="query", index=1, text="y")
        for peer in ("reader", "again"):
            js.until(lambda dump: "xy" in dump["draft"], command="dump", peer=peer)
            status = js("status", peer=peer)
            assert (status["closes"], status["stopped"], status["synced"]) == ([], None, True)
        assert js("dump", peer="query")["draft"] == "xy"
    finally:
        server.close()


class _Websocket(Channel):
    """A ``websockets`` connection in pycrdt's shape."""

    def __init__(self, websocket, path):
        self._websocket, self._path = websocket, path

    @property
    def path(self):
        return self._path

    async def send(self, message):
        await self._websocket.send(message)

    async def recv(self):
        return await self._websocket.recv()

    async def __anext__(self):
        return await self.recv()


async def _meet(one, other):
    """Two stock providers on their channels converge."""
    docs = [Doc(), Doc()]
    tasks = [
        asyncio.create_task(Provider(doc, channel).start()) for doc, channel in zip(docs, (one, other), strict=True)
    ]
    await asyncio.sleep(0.3)
    docs[0].get("state", type=Map)["x"] = "é"
    text = docs[1].get("draft", type=Text)
    text += "both"
    for _ in attempts():
        await asyncio.sleep(0.05)
        if all(
            doc.get("state", type=Map).to_py() == {"x": "é"} and str(doc.get("draft", type=Text)) == "both"
            for doc in docs
        ):
            break
    else:
        raise AssertionError("the providers did not converge")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_pycrdt_providers_over_websockets(server, room):
    async with (
        websockets.connect(f"{server.ws}/{room}") as one,
        websockets.connect(f"{server.ws}/{room}") as other,
    ):
        await _meet(_Websocket(one, room), _Websocket(other, room))


async def test_pycrdt_websockets_own_client_side(server, room):
    async with (
        aconnect_ws(f"{server.ws}/{room}", keepalive_ping_interval_seconds=None) as one,
        aconnect_ws(f"{server.ws}/{room}", keepalive_ping_interval_seconds=None) as other,
    ):
        await _meet(HttpxWebsocket(one, room), HttpxWebsocket(other, room))


@needs_node
@pytest.mark.slow
def test_idle_clients_are_not_closed(server, js, room):
    """Stock clients hang up after 30 s without a data frame; ours must come in time, and nobody may be dropped."""
    js("open", peer="new", url=server.ws, room=room, version=3)
    js("open", peer="old", url=server.ws, room=room, version=2)
    js("open", peer="silent", url=server.ws, room=f"{room}-alone", version=3)
    js("presence", peer="silent", state=None)
    js.synced("new", "old", "silent")

    async def listen():
        frames = []
        async with websockets.connect(f"{server.ws}/{room}-alone", ping_interval=None) as mute:  # never says a word
            try:
                async with asyncio.timeout(sample("idleness")):
                    while True:
                        frames.append((time.monotonic(), await mute.recv()))
            except TimeoutError:
                return frames

    frames = asyncio.run(listen())
    assert [frame for _, frame in frames].count(b"\x01\x01\x00") >= sample("idleness") // 30
    for peer in ("new", "old", "silent"):
        status = js("status", peer=peer)
        assert (status["connected"], status["closes"]) == (True, [])
