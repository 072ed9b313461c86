"""Rights that change while connections are open: they take effect within a second, for every kind of client."""

import asyncio
import contextlib
import json
import sqlite3
import time

import httpx
import jwt
import pytest
import websockets

from crdt_sessions import Agent, connect
from crdt_sessions.client.artifact_editor import ArtifactEditor
from crdt_sessions.errors import ConnectionClosed, RequestRefused
from crdt_sessions.model import ArtifactHead
from crdt_sessions.storage.packing import unpack
from tests.access.conftest import bearer, guarded, token
from tests.interop.node import needs_node
from tests.processes import PATIENCE, PROBLEM, Server

BACKEND = bearer("backend", "service")
WITHIN_S = 1.0
SLACK_S = 20.0
"""What a loaded machine may add to it. Without being told, a connection would go on for as long as its token is good."""


@pytest.fixture
def http(service):
    return httpx.AsyncClient(base_url=service.url, headers=BACKEND, timeout=PATIENCE)


async def ended(task, since):
    """Return what *task* ended with, and check that it was in time."""
    done, _ = await asyncio.wait({task}, timeout=WITHIN_S + SLACK_S)
    assert done, "it goes on"
    assert time.monotonic() - since < WITHIN_S + SLACK_S
    return task.result()


async def listen(service, path, headers, heard, **options):
    """Read a stream to its end; return how much came."""
    async with (
        httpx.AsyncClient(base_url=service.url, headers=headers, timeout=PATIENCE) as http,
        http.stream(options.pop("method", "GET"), path, **options) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            heard.append(line)


async def staying(url):
    """Open a WebSocket and hold it; return the task that ends with the code it is closed with."""
    socket = await websockets.connect(url)

    async def closed():
        async with socket:
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    await socket.recv()
            return socket.close_code

    return asyncio.create_task(closed())


RUN = {"runId": "r-live", "state": {}, "tools": [], "context": [], "forwardedProps": {"agent": "somebody"}}


async def test_one_who_is_revoked_hears_nothing_more_over_any_protocol(service, http, room):
    headers = bearer("eve", "editor")
    mine = headers["Authorization"].removeprefix("Bearer ")
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        await http.post(f"/v1/sessions/{room}-2/messages", json={"text": "?", "agent": "somebody"})
        await http.post("/v1/runs/claim", json={"agents": ["somebody"], "leaseS": 900})  # who is there, and busy
        question = {"id": "u", "role": "user", "content": "?"}
        chat = {
            "id": room,
            "agent": "somebody",
            "messages": [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "?"}]}],
        }
        chats = service.url.replace("http", "ws") + f"/v1/gateways/ai-sdk/chat?token={mine}"
        sockets = [
            await staying(f"{service.ws}/{room}?token={mine}"),
            await staying(chats),
            asyncio.create_task(connected(service, room, mine, here := asyncio.Event())),
        ]
        heard = [[] for _ in range(6)]
        g = "/v1/gateways"
        streams = [
            listen(service, f"/v1/sessions/{room}/events", headers, heard[0]),
            listen(service, f"/v1/sessions/{room}/events", headers | {"Accept": "application/x-ndjson"}, heard[1]),
            listen(service, f"{g}/ai-sdk/chat", headers, heard[2], method="POST", json=chat),
            listen(
                service, f"{g}/ag-ui", headers, heard[3], method="POST",
                json={"threadId": room, "messages": [question], **RUN},
            ),
            listen(service, f"{g}/tanstack/{room}/subscribe", headers, heard[4]),
            listen(
                service, f"{g}/openai/chat/completions", headers | {"X-Session-Id": room}, heard[5], method="POST",
                json={"model": "somebody", "stream": True, "messages": [{"role": "user", "content": "?"}]},
            ),
        ]  # fmt: skip
        tasks = [asyncio.create_task(stream) for stream in streams]
        claim = asyncio.create_task(
            http.post(
                "/v1/runs/claim", json={"agents": ["nobody"], "waitS": 30},
                headers=bearer("eve", "service"),
            )
        )  # fmt: skip
        first = await http.get(f"/v1/sessions/{room}/events?waitS=5&kinds=session", headers=headers)
        wait = f"/v1/sessions/{room}/events?waitS=30&kinds=session&cursor={first.json()['cursor']}"
        page = asyncio.create_task(http.get(wait, headers=headers))
        async with asyncio.timeout(PATIENCE):
            await here.wait()
            while not all(heard[:5]):  # all but OpenAI's begin to speak at once
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # a token that was made in the same second counts as made before
        assert not any(task.done() for task in (*sockets, *tasks, claim)), [task for task in tasks if task.done()]
        since = time.monotonic()
        assert (await http.post("/v1/revocations", json={"principal": "eve"})).status_code == 204
        assert await ended(sockets[0], since) == 4401
        assert await ended(sockets[1], since) == 4401
        assert await ended(sockets[2], since) == 4401
        for task in tasks:
            await ended(task, since)
        assert (await ended(claim, since)).status_code == 401
        assert (await ended(page, since)).status_code == 401
        before = [len(each) for each in heard]
        await http.post(f"/v1/sessions/{room}/messages", json={"text": "not for eve"})
        await asyncio.sleep(0.2)
        assert [len(each) for each in heard] == before
        answer = await http.get(f"/v1/sessions/{room}", headers=headers)
        assert answer.status_code == 401
        assert answer.json()["detail"].startswith("the tokens of this principal were revoked")


async def test_one_who_is_revoked_gets_no_answer_that_was_waited_for(service, http, room):
    headers, path = bearer(f"eve-{room}", "editor") | {"X-Session-Id": room}, "/v1/gateways/openai/chat/completions"
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        claim = asyncio.create_task(http.post("/v1/runs/claim", json={"agents": [f"a-{room}"], "waitS": 30}))
        while not await present(http, f"a-{room}"):  # its name is known before it waits
            await asyncio.sleep(0.05)
        body = {"model": f"a-{room}", "messages": [{"role": "user", "content": "?"}]}
        asked = asyncio.create_task(http.post(path, json=body, headers=headers))
        run = (await claim).json()["run"]["id"]
        again = asyncio.create_task(http.get(f"{path}/chatcmpl-{run}", headers=headers))
        await asyncio.sleep(1.0)  # a token that was made in the same second counts as made before
        assert not asked.done()
        since = time.monotonic()
        assert (await http.post("/v1/revocations", json={"principal": f"eve-{room}"})).status_code == 204
        for waiting in (asked, again):
            assert (await ended(waiting, since)).status_code == 401


async def present(http, agent):
    agents = (await http.get("/v1/agents")).json()["agents"]
    return any(each["name"] == agent and each["present"] for each in agents)


async def connected(service, room, mine, here):
    """Stay in a session as our own client does; return the code it was closed with for good."""
    with pytest.raises(ConnectionClosed) as closed:
        async with connect(service.url, room, token=mine) as peer:
            here.set()
            await peer.until(lambda: False)
    return closed.value.code


async def test_one_token_is_revoked_and_the_others_stay_good(service, http, room):
    (first, second) = (token("ann", "editor"), token("ann", "editor"))
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        gone = await staying(f"{service.ws}/{room}?token={first}")
        async with connect(service.url, room, token=second) as ann:
            id = jwt.decode(first, options={"verify_signature": False})["jti"]
            since = time.monotonic()
            await http.post("/v1/revocations", json={"tokenId": id})
            assert await ended(gone, since) == 4401
            await ann.post("still here")
        assert {"kind": "token", "value": id} in [
            {key: each[key] for key in ("kind", "value")}
            for each in (await http.get("/v1/revocations")).json()["revocations"]
        ]


@needs_node
async def test_a_stock_provider_of_somebody_who_is_revoked_stops_for_good(service, http, js, room):
    async with http:
        mine = token("mallory", "editor")
        await asyncio.to_thread(js, "open", peer="eve", url=service.ws, room=room, params={"token": mine})
        await asyncio.to_thread(
            js, "open", peer="ann", url=service.ws, room=room, params={"token": token("ann", "editor")}
        )
        await asyncio.to_thread(js.synced, "eve", "ann")
        await asyncio.sleep(1.0)
        since = time.monotonic()
        await http.post("/v1/revocations", json={"principal": "mallory"})
        status = await asyncio.to_thread(js.until, lambda s: s["stopped"], command="status", peer="eve")
        assert status["closes"] == [4401]
        assert time.monotonic() - since < WITHIN_S + SLACK_S
        await asyncio.to_thread(js, "insert", peer="ann", index=0, text="not for eve")
        await asyncio.sleep(0.2)
        assert (await asyncio.to_thread(js, "dump", peer="eve"))["draft"] == ""
        await asyncio.to_thread(js, "destroy", peer="ann")


@needs_node
async def test_a_stock_provider_of_somebody_whose_token_expires_comes_back_with_a_fresh_one(service, js, room):
    short = token("ann", "editor", ttl_s=1)  # clocks may differ by five seconds
    await asyncio.to_thread(js, "open", peer="a", url=service.ws, room=room, params={"token": short})
    await asyncio.to_thread(js.synced, "a")
    status = await asyncio.to_thread(js.until, lambda s: 4501 in s["closes"], command="status", peer="a")
    assert not status["stopped"], "4501 is one that stock clients come back after"
    status = await asyncio.to_thread(js.until, lambda s: s["stopped"], command="status", peer="a")
    assert status["closes"][-1] == 4401, "with the same token it is final"
    await asyncio.to_thread(js, "destroy", peer="a")


async def test_a_client_gets_fresh_tokens_for_itself(service, room):
    made = []

    async def fresh():
        made.append(token("ann", "editor", ttl_s=1))
        return made[-1]

    async with connect(service.url, room, token=fresh) as ann:
        before = len(made)
        await ann.post("one")
        await asyncio.wait_for(ann.until(lambda: not ann.connected), PATIENCE)
        await asyncio.wait_for(ann.post("two"), PATIENCE)
        assert len(made) > before
        assert [message.text for message in ann.messages.all()] == ["one", "two"]
        assert {message.by for message in ann.messages.all()} == {"ann"}


async def test_a_role_that_a_session_gives_takes_effect_at_once_and_both_ways(service, http, room):
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        members = f"/v1/sessions/{room}/members"
        async with connect(service.url, room, token=token("bob", "viewer")) as bob:
            assert (await http.put(f"{members}/bob", json={"role": "editor"})).status_code == 204
            await asyncio.sleep(0.5)
            await asyncio.wait_for(bob.post("as an editor"), PATIENCE)
            assert (await http.get(members)).json()["members"] == {"bob": "editor"}
            await http.delete(f"{members}/bob")
            await asyncio.sleep(0.5)
            bob.edit(lambda view: view.set_title("as a viewer"))
            with pytest.raises(ConnectionClosed, match="read-only"):
                await asyncio.wait_for(bob.durable(), PATIENCE)
        detail = (await http.get(f"/v1/sessions/{room}")).json()
        assert (detail.get("title"), detail["messages"]) == (None, 1)
        refused = await http.put(f"{members}/bob", json={"role": "service"})
        assert (refused.status_code, refused.json()["type"]) == (422, PROBLEM + "bad-value")
        assert (await http.put("/v1/sessions/none/members/x", json={"role": "viewer"})).status_code == 404
        me = {"Authorization": f"Bearer {token('bob', 'viewer')}"}
        await http.put(f"{members}/bob", json={"role": "owner"})
        assert (await http.get("/v1/me", params={"session": room}, headers=me)).json()["role"] == "owner"
        assert (await http.get("/v1/me", headers=me)).json()["role"] == "viewer"
        entries = (await http.get("/v1/audit", params={"session": room, "action": "member.change"})).json()["entries"]
        assert [(each["principal"], each["detail"].get("role")) for each in entries] == [
            ("backend", "editor"), ("backend", None), ("backend", "owner"),
        ]  # fmt: skip


async def test_a_file_of_tokens_that_changes_is_felt_by_connections(tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"a": {"principal": "ann"}, "b": {"principal": "bob"}}')
    server = Server(tmp_path / "s.db", "--tokens-file", tokens)
    try:
        gone = await staying(f"{server.ws}/room?token=a")
        async with connect(server.url, "room", token="b") as bob:
            since = time.monotonic()
            tokens.write_text('{"b": {"principal": "bob", "role": "viewer"}}')
            assert await ended(gone, since) == 4401
            await asyncio.sleep(0.3)
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(bob.post("not any more"), PATIENCE)
    finally:
        server.close()


async def test_an_agent_that_is_revoked_gets_nothing_more(service, http, room):
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        agent = Agent(service.url, name="w", token=token("worker", "agent", kind="agent"))

        @agent.on_run
        async def answer(run):
            await run.out.write("done")

        working = asyncio.create_task(agent.work())
        await asyncio.sleep(1.2)
        since = time.monotonic()
        await http.post("/v1/revocations", json={"principal": "worker"})
        with pytest.raises(RequestRefused, match="revoked"):
            await ended(working, since)


async def test_revocations_members_and_the_audit_log_survive_a_restart(tmp_path):
    server = guarded(tmp_path)
    gone = token("eve", "editor")
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=BACKEND) as http:
            await http.post("/v1/sessions", json={"id": "room"})
            await http.put("/v1/sessions/room/members/bob", json={"role": "viewer"})
            await http.post("/v1/revocations", json={"principal": "eve"})
    finally:
        server.kill()
    server = server.again()
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=BACKEND) as http:
            answer = await http.get("/v1/sessions/room", headers={"Authorization": f"Bearer {gone}"})
            assert answer.status_code == 401
            assert (await http.get("/v1/sessions/room/members")).json()["members"] == {"bob": "viewer"}
            actions = [each["action"] for each in (await http.get("/v1/audit")).json()["entries"]]
            assert actions == ["session.create", "member.change", "token.revoke"]
    finally:
        server.close()


async def test_authors_are_listed_as_the_service_knew_them(service, http, room):
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        async with connect(service.url, room, token=token("ann", "editor"), id="bob", name="Bob") as ann:
            message = await ann.post("I am Bob")
            assert message.author.id == "bob"
        await http.post(
            f"/v1/sessions/{room}/messages", json={"id": "m2", "text": "x"}, headers=bearer("cleo", "editor")
        )
        found = (await http.get(f"/v1/sessions/{room}/authors")).json()
        assert [writer["principal"] for writer in found["writers"]] == ["ann"]
        told = {each["id"]: (each["author"], each.get("by"), each["parts"]) for each in found["messages"]}
        assert told == {message.id: ("bob", "ann", ["ann"]), "m2": ("cleo", "cleo", [None])}


async def test_the_audit_log_tells_who_did_what(service, http, room):
    ann = bearer("ann", "owner")
    async with http:
        await http.post("/v1/sessions", json={"id": room}, headers=ann)
        async with connect(service.url, room, token=token("bob", "editor")) as bob:
            await bob.post("hello")
        await http.post(f"/v1/sessions/{room}/runs", json={"id": "r", "messageId": "x"}, headers=ann)
        await http.post(f"/v1/sessions/{room}/runs/r/cancel", json={}, headers=ann)
        await http.get(f"/v1/sessions/{room}/export", headers=ann)
        await http.patch(f"/v1/sessions/{room}", json={"status": "closed"}, headers=ann)
        await http.delete(f"/v1/sessions/{room}", headers=ann)
        entries = (await http.get("/v1/audit", params={"session": room})).json()["entries"]
        assert [(each["principal"], each["action"]) for each in entries] == [
            ("ann", "session.create"), ("bob", "session.join"), ("ann", "run.cancel"), ("ann", "session.export"),
            ("ann", "session.status"), ("ann", "session.delete"),
        ]  # fmt: skip
        page = (await http.get("/v1/audit", params={"session": room, "limit": 2})).json()
        rest = (await http.get("/v1/audit", params={"session": room, "after": page["nextCursor"]})).json()
        assert [*page["entries"], *rest["entries"]] == entries
        lines = await http.get(
            "/v1/audit", params={"session": room}, headers=BACKEND | {"Accept": "application/x-ndjson"}
        )
        assert [json.loads(line) for line in lines.text.splitlines()] == entries
        assert (await http.get("/v1/audit", headers=bearer("x", "service", tenant="acme"))).json()["entries"] == []


async def test_what_is_done_by_other_ways_than_rest_is_in_the_audit_log_too(service, http, room):
    """Sessions made by joining, decisions and stops in the document and through a gateway."""
    async with http:
        async with connect(service.url, room, token=token("ann", "editor")) as ann:
            question = await ann.post("?", agent="w")
            run = f"run-{question.id}"
            grant = (await http.post(f"/v1/sessions/{room}/runs/{run}/claim", json={"agents": ["w"]})).json()
            lease, here = {"Lease-Token": grant["token"]}, f"/v1/sessions/{room}/runs/{run}"
            ask = {"name": "t", "input": {}, "approval": {"requestedAt": 1}}
            await http.put(f"{here}/tools/c", json=ask, headers=lease)
            await http.post(f"{here}/result", json={"status": "suspended"}, headers=lease)
            await asyncio.wait_for(ann.until(lambda: ann.view.runs.find(run).status == "suspended"), PATIENCE)
            ann.decide(run, "c", approved=True)
            await ann.durable()
        await http.post(f"/v1/gateways/ai-sdk/chat/{room}/stop", headers=bearer("bob", "editor"))
        entries = (await http.get("/v1/audit", params={"session": room})).json()["entries"]
        assert [(each["principal"], each["action"]) for each in entries] == [
            ("ann", "session.join"), ("ann", "session.create"), ("ann", "run.decide"), ("bob", "run.cancel"),
        ]  # fmt: skip
        assert entries[2]["detail"] == {"run": run, "call": "c", "approved": True}


def _stored(service):
    """Return all that is in rows and snapshots."""
    with contextlib.closing(sqlite3.connect(service.database)) as connection:
        rows = connection.execute("SELECT data FROM updates").fetchall()
        snapshots = connection.execute("SELECT data, size FROM snapshots").fetchall()
    return b"".join([data for (data,) in rows] + [unpack(data, size) for data, size in snapshots])


async def test_data_about_a_principal_is_exported_and_erased(service, http, room):
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        await http.put(f"/v1/sessions/{room}/members/dora", json={"role": "editor"})
        async with connect(service.url, room, token=token("dora", "editor")) as dora:
            message = await dora.post("mine")
            dora.mark_read()
            dora.edit(lambda view: view.artifacts.add(ArtifactHead(id="draft", created_at=1), "my secret"))
            ArtifactEditor(dora, "draft").edit("ours", of="my secret")
            await dora.durable()
            made = {**bearer("dora", "editor"), "Content-Type": "text/plain"}
            assert (await http.put(f"/v1/streams/{room}", headers=made, content="12")).status_code == 201
            mine = bearer("dora", "viewer")
            lines = (await http.get("/v1/principals/dora/data", headers=mine)).text.splitlines()
            here = next(each for each in map(json.loads, lines) if each.get("session") == room)
            assert [each["bytes"] for each in map(json.loads, lines) if each.get("stream") == room] == [2]
            assert [each["id"] for each in here["messages"]] == [message.id]
            assert (here["readUpTo"], here["role"]) == (1, "editor")
            assert any(json.loads(line).get("action") == "session.join" for line in lines)
            kept = await http.post(f"/v1/sessions/{room}/versions", json={"name": "with the secret"})
            assert kept.status_code == 201
            assert b"my secret" in _stored(service)
            erased = (await http.delete("/v1/principals/dora")).json()
            assert erased == {
                "sessions": 1, "receipts": 1, "steps": 1, "versions": 1, "presences": 1, "memberships": 1, "streams": 1,
                "usage": False,
            }  # fmt: skip
            await asyncio.wait_for(dora.until(lambda: "dora" not in dora.view.receipts), PATIENCE)
            await asyncio.wait_for(dora.until(lambda: not dora.view.edits.ids()), PATIENCE)
            assert b"my secret" not in dora._replica.document.encode()
        assert b"my secret" not in _stored(service)
        versions = (await http.get(f"/v1/sessions/{room}/versions")).json()["versions"]
        assert [each.get("name") for each in versions] == [None], "the present"
        present = (await http.get(f"/v1/sessions/{room}/presence")).json()["present"]
        assert present == []
        assert (await http.delete("/v1/principals/dora")).json()["sessions"] == 0


async def test_a_deleted_session_does_not_come_back_from_a_device_that_was_away(service, http, room, tmp_path):
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        mine = token("ann", "owner")
        async with connect(service.url, room, token=mine, offline=tmp_path / "device.db") as ann:
            await asyncio.wait_for(ann.synced(), PATIENCE)
            await ann.post("before")
        await http.delete(f"/v1/sessions/{room}")
        async with connect(service.url, room, token=mine, offline=tmp_path / "device.db") as ann:
            ann.edit(lambda view: view.set_title("I am still here"))
            with pytest.raises(ConnectionClosed) as closed:
                await asyncio.wait_for(ann.durable(), PATIENCE)
            assert closed.value.code == 4404
        assert (await http.get(f"/v1/sessions/{room}")).status_code == 410
        sync = await http.post(f"/v1/sessions/{room}/sync", content=b"\x00\x00\x01\x00")
        assert sync.status_code == 410
