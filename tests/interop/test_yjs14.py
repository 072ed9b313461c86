"""Clients of Yjs 14, unmodified pre-releases: they sync with Yjs 13 and Python, and what cannot be read is said."""

import asyncio

import pytest

from crdt_sessions import connect
from crdt_sessions_server.auth import Role
from tests.access.conftest import TOKENS, bearer, guarded, token
from tests.interop.node import JS, NodePeers, needs_node

pytestmark = [pytest.mark.interop, needs_node]


@pytest.fixture
def js14():
    peers = NodePeers(JS / "yjs14.mjs")
    yield peers
    peers.close()


def settled(js, js14, condition):
    """Wait until both hold for what clients of both see: nothing is pending, and the condition."""
    js.until(lambda dump: condition(dump["draft"], dump["xml"]), command="dump", peer="thirteen")
    return js14.until(
        lambda look: not look["pending"] and condition(_text(look["draft"]), None), command="look", peer="new"
    )


def _text(read):
    return "".join(read.get("children", []))


def test_both_majors_and_python_write_one_session(own_server, js, js14):
    js("open", peer="thirteen", url=own_server.ws, room="room", state={"name": "old"})
    js14("open", peer="new", url=own_server.ws, room="room")
    js14("presence", peer="new", state={"name": "new"})
    js.synced("thirteen")
    js14.synced("new")
    for client in (js, js14):
        client.until(
            lambda states: {state.get("name") for _, state in states} >= {"old", "new"},
            command="present",
            peer="thirteen" if client is js else "new",
        )
    js("insert", peer="thirteen", index=0, text="Grüße 😀")
    js14.until(lambda look: _text(look["draft"]) == "Grüße 😀", command="look", peer="new")
    js14("disconnect", peer="new")
    js14("insert", peer="new", index=8, text=" offline")
    js14("remove", peer="new", index=0, length=2)
    js("insert", peer="thirteen", index=0, text="Viele ")
    js14("set", peer="new", key="k", value={"deep": [1, None, "é"]})
    js14("element", peer="new", name="paragraph", text="rich")
    js14("connect", peer="new")
    settled(
        js, js14, lambda draft, xml: draft == "Viele üße 😀 offline" and xml in (None, "<paragraph>rich</paragraph>")
    )
    js("format", peer="thirteen", root="rich", index=0, length=0, attributes={"bold": True})
    js14("insert", peer="new", root="rich", index=0, text="bold")
    js14("format", peer="new", index=0, length=4, attributes={"bold": True})
    js.until(
        lambda dump: dump["rich"] == [{"insert": "bold", "attributes": {"bold": True}}],
        command="dump",
        peer="thirteen",
    )
    js("post", peer="thirteen", id="m1", text="from 13")
    js14.until(lambda look: "m1" in look["messages"].get("attrs", {}), command="look", peer="new")
    js14("append", peer="new", message="m1", text=" and 14")

    async def python():
        async with connect(own_server.url, "room", name="Py") as peer:
            await peer.until(lambda: [m.text for m in peer.messages.all()] == ["from 13 and 14"])
            await peer.until(lambda: peer.view.state.to_py() == {"k": {"deep": [1, None, "é"]}})

    asyncio.run(python())
    assert js14("status", peer="new")["closes"] == []
    own_server.kill()
    again = own_server.again()
    try:
        js14("open", peer="late", url=again.ws, room="room")
        late = js14.until(lambda look: _text(look["draft"]) == "Viele üße 😀 offline", command="look", peer="late")
        assert late == js14.until(lambda look: look == late, command="look", peer="new")
    finally:
        again.close()


def test_a_message_of_untyped_types_is_kept_and_said_to_be_unreadable(server, js, js14, room):
    """Nobody can tell what it was meant for: it stays in the document, and the log says where."""
    js14("open", peer="new", url=server.ws, room=room)
    js14.synced("new")
    js14("post", peer="new", id="untyped", text="?")
    assert "untyped" in server.wait_for("untyped Yjs type").string
    js("open", peer="thirteen", url=server.ws, room=room)
    js.synced("thirteen")
    js("post", peer="thirteen", id="typed", text="!")
    with server.http() as http:
        js.until(lambda dump: "seq" in dump["json"]["messages"]["typed"], command="dump", peer="thirteen")
        found = http.get(f"/v1/sessions/{room}/messages").json()["messages"]
        assert [message["id"] for message in found] == ["typed"]
        metrics = http.get("/metrics").text
    assert 'crdt_sessions_violations{rule="unreadable"} 1' in metrics or "unreadable" in metrics
    js14.until(lambda look: {"untyped", "typed"} <= set(look["messages"]["attrs"]), command="look", peer="new")


def test_a_viewer_of_yjs_14_reads_on_and_what_it_writes_is_taken_by_nobody(js, js14, tmp_path):
    server = guarded(tmp_path)
    try:
        with server.http(headers=bearer("backend", "service")) as http:
            http.post("/v1/sessions", json={"id": "room"}).raise_for_status()
            js("open", peer="thirteen", url=server.ws, room="room", params={"token": TOKENS[Role.OWNER]})
            js14("open", peer="new", url=server.ws, room="room", params={"token": token("vera", "viewer")})
            js.synced("thirteen")
            js14.synced("new")
            js14("insert", peer="new", index=0, text="mine ")
            js("insert", peer="thirteen", index=0, text="theirs")
            js14.until(lambda look: "theirs" in _text(look["draft"]), command="look", peer="new")
            for command in ("disconnect", "connect"):
                js14(command, peer="new")  # it brings again what was refused
            js("insert", peer="thirteen", index=6, text=" again")
            read = js14.until(lambda look: "theirs again" in _text(look["draft"]), command="look", peer="new")
            assert not read["pending"]
            assert js("dump", peer="thirteen")["draft"] == "theirs again"
            assert [code for code in js14("status", peer="new")["closes"] if code >= 4000] == []
            http.put("/v1/sessions/room/members/vera", json={"role": "editor"}).raise_for_status()
        for command in ("disconnect", "connect"):
            js14(command, peer="new")
        js.until(lambda dump: "mine" in dump["draft"], command="dump", peer="thirteen")
    finally:
        server.close()
