"""Attackers: each is refused with the documented answer, and leaves a trace in the audit log or the metrics."""

import asyncio
import base64
import json
import re
import socket
import time
from urllib.parse import quote, unquote

import httpx
import jwt
import pytest
import websockets

from crdt_sessions import Agent, connect
from crdt_sessions.errors import ConnectionClosed, RequestRefused
from crdt_sessions.model import Approval, Decision, RunResult
from crdt_sessions.runtime import post_outside
from crdt_sessions.sync import Replica
from crdt_sessions.wire import AwarenessEntry, AwarenessFrame, SyncStep1, Update, encode, encode_awareness
from tests.access.conftest import SECRET, TOKENS, bearer, guarded, token
from tests.processes import PATIENCE, PROBLEM

BACKEND = bearer("backend", "service")


@pytest.fixture
def http(service):
    return httpx.AsyncClient(base_url=service.url, headers=BACKEND, timeout=PATIENCE)


@pytest.fixture
async def made(http, room):
    async with http:
        await http.post("/v1/sessions", json={"id": room})
        yield http


async def metric(http, name, **labels):
    text = (await http.get("/metrics")).text
    wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    found = re.search(rf"^{name}\{{{re.escape(wanted)}\}} (\S+)$", text, re.M)
    return float(found.group(1)) if found else 0.0


async def violations(http, room, *expected):
    """What the audit log says of broken rules, once it says what is expected: principal and rule."""
    found = set()
    async with asyncio.timeout(PATIENCE):
        while not found or not found.issuperset(expected):
            page = await http.get("/v1/audit", params={"session": room, "action": "violation"})
            found = {(each["principal"], each["detail"]["what"]) for each in page.json()["entries"]}
            await asyncio.sleep(0.05)
    return found


class Raw:
    """A peer that keeps no rules: frames over a bare WebSocket."""

    def __init__(self, service, room, mine, client=4711, query=""):
        self.url = f"{service.ws}/{room}?token={mine}{query}"
        self.replica = Replica(client)

    async def __aenter__(self):
        self.socket = await websockets.connect(self.url)
        await self.socket.send(encode(SyncStep1(b"\x00")))
        async with asyncio.timeout(PATIENCE):
            while not self.replica.view.document.roots.meta.get("sessionId"):
                self.replica.receive(await self.socket.recv(), 0)
        self.replica.take(0)
        return self

    async def __aexit__(self, *error):
        await self.socket.close()

    async def write(self, change):
        vector = self.replica.document.state_vector()
        self.replica.edit(change)
        await self.socket.send(encode(Update(self.replica.document.encode(vector))))

    async def denied(self):
        """Wait until something is refused; return the reason."""
        async with asyncio.timeout(PATIENCE):
            while self.replica.denied is None:
                self.replica.receive(await self.socket.recv(), 0)
        return self.replica.denied

    async def closed(self):
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.socket.recv()
                except websockets.ConnectionClosed:
                    return self.socket.close_code, self.socket.close_reason


# -- tokens ------------------------------------------------------------------------------------------------------------


def forged():
    now = int(time.time())
    good = {"sub": "ann", "role": "service", "iat": now, "exp": now + 60}
    return {
        "alg none": jwt.encode(good, None, algorithm="none"),
        "another secret": jwt.encode(good, SECRET[::-1], algorithm="HS256"),
        "expired": jwt.encode(good | {"exp": now - 60}, SECRET, algorithm="HS256"),
        "for somebody else": jwt.encode(good | {"aud": "another service"}, SECRET, algorithm="HS256"),
        "a role that is none": jwt.encode(good | {"role": "root"}, SECRET, algorithm="HS256"),
        "nonsense": "a.b.c",
        "long": "x" * 8000,
    }


@pytest.mark.parametrize("what", list(forged()))
async def test_a_forged_token_opens_nothing(service, made, room, what):
    error = "TokenExpired" if what == "expired" else "NotAuthenticated"
    bad, before = forged()[what], await metric(made, "crdt_sessions_refused_total", error=error)
    headers = {"Authorization": f"Bearer {bad}"}
    for path in (f"/v1/sessions/{room}", "/v1/me", "/metrics", f"/v1/gateways/ag-ui/{room}"):
        answer = await made.get(path, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert bad not in answer.text
    async with websockets.connect(f"{service.ws}/{room}?token={bad}") as peer:
        with pytest.raises(websockets.ConnectionClosed):
            await peer.recv()
        assert peer.close_code == 4401
    after = await metric(made, "crdt_sessions_refused_total", error=error)
    assert after == before + 5


@pytest.mark.slow
async def test_tokens_are_in_no_log(tmp_path):
    server = guarded(tmp_path, "--log-level", "debug")
    mine = token("ann", "owner")
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=bearer("ann", "owner")) as http:
            await http.get(f"/v1/sessions?token={mine}")
            await http.get("/v1/me", headers={"Authorization": f"Bearer {mine}x"})
        async with connect(server.url, "room", token=mine) as peer:
            await peer.post("hi")
        async with websockets.connect(f"{server.ws}/room?token={mine}x") as peer:
            with pytest.raises(websockets.ConnectionClosed):
                await peer.recv()
    finally:
        server.close()
    text = "\n".join(server.lines)
    assert "turned away" in text, "the log is there"
    assert mine not in text
    assert SECRET.decode() not in text


# -- sessions and tenants ----------------------------------------------------------------------------------------------


async def test_names_of_another_tenants_sessions_cannot_be_found_out(service, made, room):
    """Answers, and how long they take, are those for names that nobody has."""
    theirs = bearer("eve", "service", tenant="umbrella")
    secret = f"{room}-secret"
    await made.post("/v1/sessions", json={"id": secret, "title": "Secret"})
    async with httpx.AsyncClient(base_url=service.url, headers=theirs, timeout=PATIENCE) as eve:

        async def timed(name):
            times, answers = [], set()
            for _ in range(40):
                began = time.perf_counter()
                answer = await eve.get(f"/v1/sessions/{name}")
                times.append(time.perf_counter() - began)
                answers.add((answer.status_code, answer.text.replace(name, "X")))
            return sorted(times)[20], answers

        (there, said), (nowhere, said_of_none) = await timed(secret), await timed(f"{room}-nobody")
        assert said == said_of_none
        assert len(said) == 1
        assert there < 5 * nowhere, "of the same class: no session was loaded"
        assert nowhere < 5 * there
        assert (await eve.post("/v1/sessions", json={"id": secret})).status_code == 201, "names are the tenant's own"
        assert (await eve.get(f"/v1/sessions/{secret}")).json().get("title") is None
        assert (await eve.get("/v1/audit")).json()["entries"][0]["action"] == "session.create"
        assert 'tenant=""' not in (await eve.get("/metrics")).text
        assert (await eve.get("/v1/webhooks/deliveries")).json() == {"deliveries": []}
        await eve.delete(f"/v1/sessions/{secret}")
    assert (await made.get(f"/v1/sessions/{secret}")).json()["title"] == "Secret"


@pytest.mark.parametrize("name", ["umbrella/room", "umbrella%2Froom", "room\u202e", "-"])
async def test_a_name_that_looks_like_something_else_is_a_name(service, made, name):
    async with httpx.AsyncClient(base_url=service.url, headers=bearer("b", "service", tenant="umbrella")) as theirs:
        await theirs.post("/v1/sessions", json={"id": "room", "title": "Secret"})
        async with websockets.connect(f"{service.ws}/{name}?token={token()}") as peer:
            assert isinstance(await asyncio.wait_for(peer.recv(), PATIENCE), bytes)
        path = f"/v1/sessions/{quote(unquote(name), safe='')}"
        assert (await made.get(path)).json().get("title") is None
        assert (await theirs.get("/v1/sessions/room")).json()["title"] == "Secret"


@pytest.mark.parametrize("name", ["..%2froom", "room%00", "a" * 201, "%2e%2e"])
async def test_tricks_with_paths_lead_nowhere(service, made, name):
    for path in (f"/v1/sessions/{name}", f"/v1/sessions/{name}/messages", f"/v1/gateways/ag-ui/{name}"):
        answer = await made.get(path)
        assert answer.status_code in (404, 405, 422), (path, answer.text)
    for path in (f"/demo/{name}", "/demo/../settings.py", "/demo/%2e%2e/settings.py", "/demo/..%2f..%2fsettings.py"):
        assert (await made.get(path)).status_code == 404
    async with websockets.connect(f"{service.ws}/{name}?token={token()}") as peer:
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await asyncio.wait_for(peer.recv(), PATIENCE)
        assert peer.close_code == 4400


async def test_tricks_with_headers_lead_nowhere(service, made, room):
    eve = httpx.AsyncClient(base_url=service.url)
    async with eve:
        for headers in (
            {"X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1"},
            {"X-Forwarded-User": "ann", "X-Remote-User": "ann"},
            {"Authorization": "bearer"},
            {"Authorization": f"Token {TOKENS['owner']}"},
            {"Authorization": f"Basic {base64.b64encode(TOKENS['owner'].encode()).decode()}"},
            {"Cookie": f"token={TOKENS['owner']}"},
            {"X-Original-Url": "/healthz", "X-Rewrite-Url": "/healthz"},
            {"X-Http-Method-Override": "OPTIONS"},
        ):
            assert (await eve.get(f"/v1/sessions/{room}", headers=headers)).status_code == 401
        assert (await eve.request("OPTIONS", f"/v1/sessions/{room}")).status_code in (200, 204)
        assert (await eve.get("/v1//sessions", headers=BACKEND)).status_code in (308, 404)


async def test_a_page_of_another_origin_gets_nowhere(service, made, room):
    evil = {"Origin": "https://evil.example"}
    answer = await made.get(f"/v1/sessions/{room}", headers=evil)
    assert (answer.status_code, answer.json()["type"]) == (403, PROBLEM + "access-denied")
    assert "access-control-allow-origin" not in answer.headers
    async with websockets.connect(f"{service.ws}/{room}?token={token()}", origin="https://evil.example") as peer:
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await peer.recv()
        assert peer.close_code == 4403
    chat = service.url.replace("http", "ws") + f"/v1/gateways/ai-sdk/chat?token={token()}"
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(chat, origin="https://evil.example")
    assert refused.value.response.status_code == 403
    preflight = await made.request("OPTIONS", f"/v1/sessions/{room}", headers=evil)
    assert "access-control-allow-origin" not in preflight.headers


# -- participants ------------------------------------------------------------------------------------------------------


async def test_a_viewer_can_write_nothing_over_any_protocol(service, made, room):
    mine = token("eve", "viewer")
    async with Raw(service, room, mine) as eve:
        await eve.write(lambda view: view.set_title("mine"))
        assert await eve.denied() == "not allowed: this connection is read-only"
        await made.post(f"/v1/sessions/{room}/messages", json={"id": "m", "text": "she reads on"})
        async with asyncio.timeout(PATIENCE):
            while "m" not in eve.replica.view.messages:
                eve.replica.receive(await eve.socket.recv(), 0)
    lone = Replica(99)
    lone.edit(lambda view: view.set_title("mine"))
    frames = encode(SyncStep1(b"\x00")) + encode(Update(lone.document.encode()))
    headers = {"Authorization": f"Bearer {mine}"}
    answer = await made.post(f"/v1/sessions/{room}/sync", content=frames, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, PROBLEM + "access-denied")
    assert (await made.get(f"/v1/sessions/{room}")).json().get("title") is None
    answer = await made.post(f"/v1/sessions/{room}/sync", content=frames, headers=bearer("mal", "viewer"))
    assert answer.status_code == 403
    assert await violations(made, room, ("mal", "write")) == {("eve", "write"), ("mal", "write")}
    assert await metric(made, "crdt_sessions_violations_total", tenant="", rule="write") >= 3


async def test_a_yjs_client_of_somebody_else_cannot_be_stolen(service, made, room):
    async with Raw(service, room, token("ann", "editor"), client=5001) as ann:
        await ann.write(lambda view: view.set_title("ann's"))
        async with asyncio.timeout(PATIENCE):
            while (await made.get(f"/v1/sessions/{room}")).json().get("title") != "ann's":
                await asyncio.sleep(0.05)
        async with Raw(service, room, token("eve", "editor"), client=5001) as eve:
            await eve.write(lambda view: view.set_title("eve's, as ann"))
            assert "the Yjs client 5001 belongs to somebody else" in await eve.denied()
        lone = Replica(5001)
        lone.receive(encode(Update(ann.replica.document.encode())), 0)
        lone.edit(lambda view: view.set_title("eve's, over HTTP"))
        answer = await made.post(
            f"/v1/sessions/{room}/sync", content=encode(Update(lone.document.encode())),
            headers=bearer("mal", "editor"),
        )  # fmt: skip
        assert (answer.status_code, answer.json()["type"]) == (403, PROBLEM + "foreign-writer")
    assert (await made.get(f"/v1/sessions/{room}")).json()["title"] == "ann's"
    assert {("eve", "client"), ("mal", "client")} <= await violations(
        made, room, ("eve", "client"), ("mal", "client")
    )


async def test_nobody_is_present_as_somebody_else(service, made, room):
    async with Raw(service, room, token("eve", "editor")) as eve:
        state = json.dumps({"user": {"id": "ann", "name": "Ann"}})
        await eve.socket.send(encode(AwarenessFrame(encode_awareness([AwarenessEntry(4711, 1, state)]))))
        await asyncio.sleep(0.2)
        assert (await made.get(f"/v1/sessions/{room}/presence")).json()["present"] == []
    assert await violations(made, room) == {("eve", "presence")}


async def test_settled_fields_and_decisions_of_others_cannot_be_forged(service, made, room):
    await made.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": "?"})
    await made.post(f"/v1/sessions/{room}/runs", json={"id": "r", "messageId": "q", "agent": "w"})
    grant = (await made.post(f"/v1/sessions/{room}/runs/r/claim", json={"agents": ["w"]})).json()
    lease, run = {"Lease-Token": grant["token"]}, f"/v1/sessions/{room}/runs/r"
    question = {"name": "pay", "input": {}, "approval": {"approvers": ["ann"], "requestedAt": 1}}
    await made.put(f"{run}/tools/c", json=question, headers=lease)
    await made.post(f"{run}/result", json={"status": "suspended"}, headers=lease)

    def forge(view):
        view.document.roots.meta["status"] = "archived"
        view.messages["q"].seq = 77
        view.messages["q"].by = "ann"
        view.runs.put_back("r", "status", "completed")
        view.runs.put_back("r", "epoch", 9)
        view.runs.report("r", RunResult(status="completed", epoch=1, at=1))
        tool = view.messages["r-out"].tool("c")
        tool.decide("ann", Decision(approved=True, at=1))
        tool.settle(Approval(approved=True, by="ann", at=1), [])

    async with Raw(service, room, token("eve", "editor")) as eve:
        await eve.write(forge)
        rules = ("meta.status", "seq", "runs", "decisions", "runs.result")  # the approval with the decisions
        await violations(made, room, *(("eve", what) for what in rules))
    found = (await made.get(run)).json()
    assert (found["status"], found["epoch"]) == ("suspended", 1)
    messages = (await made.get(f"/v1/sessions/{room}/messages")).json()["messages"]
    assert (messages[0]["seq"], messages[0].get("by")) == (1, None)
    tool = messages[1]["parts"][0]
    assert (tool.get("decisions"), tool.get("approval")) == ({}, None), "as it was before"
    assert (await made.get(f"/v1/sessions/{room}")).json()["status"] == "active"
    async with connect(service.url, room, token=token("ann", "editor")) as ann:
        ann.decide("r", "c", approved=False)
        await ann.durable()
    assert (await made.get(run)).json()["status"] == "queued"


async def test_an_agent_does_not_get_the_runs_of_another(service, made, room):
    await made.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": "?"})
    await made.post(f"/v1/sessions/{room}/runs", json={"id": "r", "messageId": "q", "agent": "treasurer"})
    poet = bearer("poet", "agent", kind="agent", agents=["poet"])
    for path in ("/v1/runs/claim", f"/v1/sessions/{room}/runs/r/claim"):
        for names in (["treasurer"], ["poet", "treasurer"]):
            answer = await made.post(path, json={"agents": names}, headers=poet)
            assert (answer.status_code, answer.json()["type"]) == (403, PROBLEM + "access-denied")
    assert (await made.post("/v1/runs/claim", json={"agents": ["poet"]}, headers=poet)).status_code == 204
    elsewhere = bearer("t", "agent", kind="agent", sessions=["other-*"])
    assert (await made.post("/v1/runs/claim", json={"agents": ["treasurer"]}, headers=elsewhere)).status_code == 204
    other = bearer("t", "agent", kind="agent", tenant="acme")
    assert (await made.post("/v1/runs/claim", json={"agents": ["treasurer"]}, headers=other)).status_code == 204
    agent = Agent(service.url, name="treasurer", token=token("poet", "agent", kind="agent", agents=["poet"]))
    agent.on_run(lambda run: None)
    with pytest.raises(RequestRefused, match=r"does not work as the agent 'treasurer'"):
        await agent.work()
    assert (await made.get(f"/v1/sessions/{room}/runs/r")).json()["status"] == "queued"
    async with websockets.connect(f"{service.ws}/{room}?token={token('poet', 'agent')}&lease=guessed") as peer:
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await peer.recv()
        assert peer.close_code == 4403


# -- floods ------------------------------------------------------------------------------------------------------------


async def test_guessing_tokens_is_slowed_down_and_others_are_not(tmp_path):
    server = guarded(
        tmp_path, "--bad-token-burst", "5", "--bad-tokens-per-s", "0.001", "--trusted-proxies", "127.0.0.1/32"
    )
    try:
        async with httpx.AsyncClient(base_url=server.url) as http:
            statuses = [
                (await http.get("/v1/me", headers={"Authorization": f"Bearer guess-{n}"})).status_code
                for n in range(8)
            ]
            assert statuses == [401] * 5 + [429] * 3
            mine = bearer("ann", "owner")
            assert (await http.get("/v1/me", headers=mine)).status_code == 429, "a good guess is not told apart"
            async with websockets.connect(f"{server.ws}/room?token={token()}") as peer:
                with pytest.raises(websockets.ConnectionClosed):
                    await peer.recv()
                assert peer.close_code == 1013
            elsewhere = mine | {"X-Forwarded-For": "203.0.113.7"}
            assert (await http.get("/v1/me", headers=elsewhere)).status_code == 200, "from another address"
            spoofed = mine | {"X-Forwarded-For": "203.0.113.8, 127.0.0.1"}
            assert (await http.get("/v1/me", headers=spoofed)).status_code == 200, "behind two proxies"
    finally:
        server.close()


async def test_an_address_is_believed_only_of_proxies_that_are_trusted(tmp_path):
    server = guarded(tmp_path, "--bad-token-burst", "1", "--bad-tokens-per-s", "0.001")
    try:
        async with httpx.AsyncClient(base_url=server.url) as http:
            for n, status in enumerate((401, 429, 429)):
                headers = {"Authorization": "Bearer x", "X-Forwarded-For": f"203.0.113.{n}"}
                assert (await http.get("/v1/me", headers=headers)).status_code == status
    finally:
        server.close()


async def test_posts_claims_and_connections_have_rates(tmp_path):
    server = guarded(
        tmp_path, "--post-burst", "3", "--posts-per-s", "0.001", "--claim-burst", "2", "--claims-per-s", "0.001",
        "--connect-burst", "4", "--connects-per-s", "0.001",
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=bearer("ann", "service")) as http:
            await http.post("/v1/sessions", json={"id": "room"})
            posts = [
                (await http.post("/v1/sessions/room/messages", json={"text": "x"})).status_code for _ in range(4)
            ]
            assert posts == [201, 201, 201, 429]
            bob = bearer("bob", "editor")
            answer = await http.post("/v1/sessions/room/messages", json={"text": "x"}, headers=bob)
            assert answer.status_code == 201, "others are not concerned"
            claims = [(await http.post("/v1/runs/claim", json={"agents": ["x"]})).status_code for _ in range(3)]
            assert claims == [204, 204, 429]
            async with http.stream("GET", "/v1/gateways/tanstack/room/subscribe") as stream:
                assert stream.status_code == 200
            for expected in (None, None, None, 1013):
                async with websockets.connect(f"{server.ws}/room?token={token()}") as peer:
                    code = None
                    try:
                        await asyncio.wait_for(peer.recv(), PATIENCE)
                    except websockets.ConnectionClosed:
                        code = peer.close_code
                    assert code == expected
            answer = await http.get("/v1/gateways/tanstack/room/subscribe")
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
            assert await metric(http, "crdt_sessions_refused_total", error="TooMany") >= 4
    finally:
        server.close()


def memory_of(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) * 1024


async def test_floods_before_a_token_is_known_cost_nothing(service, made, room):
    before = memory_of(service.child.pid)
    sockets = []
    for n in range(60):
        flood = socket.create_connection(("127.0.0.1", service.port))
        flood.settimeout(0.5)
        sockets.append(flood)
        try:
            if n % 3 == 0:  # a head without an end
                flood.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 2_000_000)
            elif n % 3 == 1:  # a body that is over the limit, by somebody unknown
                flood.sendall(
                    b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    b"Content-Length: 900000000\r\n\r\n" + b"{" * 2_000_000
                )
            else:  # frames behind a handshake without a token
                flood.sendall(
                    b"GET /v1/sync/room HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                    + b"\x82\xff" + (2_000_000).to_bytes(8, "big") + b"0000" + b"z" * 2_000_000
                )  # fmt: skip
        except OSError:
            pass  # refused in the middle, as it should be
    await asyncio.sleep(1.5)
    assert (await made.get(f"/v1/sessions/{room}")).status_code == 200
    grown = memory_of(service.child.pid) - before
    for flood in sockets:
        flood.close()
    assert grown < 60 * 2_000_000 / 2, f"{grown} bytes for 120 MB that nobody is answerable for"


async def test_many_sessions_on_one_socket_are_bounded(service, made, room):
    url = service.url.replace("http", "ws") + f"/v1/gateways/ai-sdk/chat?token={token()}"
    async with websockets.connect(url) as peer:
        for n in range(40):
            message = {"id": f"u{n}", "role": "user", "parts": [{"type": "text", "text": "?"}]}
            await peer.send(
                json.dumps({"type": "send", "requestId": str(n), "id": f"{room}-{n}", "messages": [message]})
            )
        refused = set()
        async with asyncio.timeout(PATIENCE):
            while len(refused) < 8:
                told = json.loads(await peer.recv())
                if told["type"] == "error":
                    refused.add(told["errorText"])
                    if len(refused) == 1 and refused == {"more than 32 requests at once"}:
                        break
        assert refused == {"more than 32 requests at once"}


# -- webhooks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "http://0.0.0.0:{port}/",
        "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "http://192.168.1.1/", "http://172.16.0.1/",
        "http://[::ffff:127.0.0.1]:{port}/", "http://2130706433:{port}/", "http://0x7f000001:{port}/",
        "http://[fd00::1]/", "http://[fe80::1]/", "http://224.0.0.1/", "http://100.64.0.1/",
    ],
)  # fmt: skip
async def test_a_webhook_does_not_reach_this_machine_or_a_private_network(service, url):
    with pytest.raises(OSError, match=r"not public|Name or service|resolve|known"):
        await post_outside(url.format(port=service.port), {}, b"{}")


async def test_a_name_that_leads_inside_is_refused_whatever_it_is(service, monkeypatch):
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def rebinding(host, *args, **options):
        assert host == "hooks.example"
        return await real("127.0.0.1", *args, **options)

    monkeypatch.setattr(loop, "getaddrinfo", rebinding)
    with pytest.raises(OSError, match=r"hooks\.example stands for 127\.0\.0\.1, which is not public"):
        await post_outside(f"http://hooks.example:{service.port}/", {}, b"{}")


async def test_a_webhook_goes_to_the_address_that_was_looked_at(monkeypatch):
    """Under its own name, to that address: a name cannot stand for another one a moment later."""
    seen = []

    async def pretend(self, request):
        seen.append(request)
        return httpx.Response(204, stream=httpx.ByteStream(b""))

    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def public(host, port, **options):
        return await real("93.184.216.34", port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", public)
    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", pretend)
    assert await post_outside("https://hooks.example/in?x=1", {"a": "b"}, b"{}") == 204
    (request,) = seen
    assert str(request.url) == "https://93.184.216.34/in?x=1"
    assert (request.headers["host"], request.extensions["sni_hostname"]) == ("hooks.example", "hooks.example")


async def test_an_exposed_service_delivers_to_nobody_inside(tmp_path):
    hooks = tmp_path / "hooks.json"
    key = "whsec_" + base64.b64encode(b"k" * 32).decode()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.2)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    hooks.write_text(json.dumps([{"name": "inside", "url": url, "secret": key, "events": ["run.queued"]}]))
    server = guarded(tmp_path, "--webhooks-file", hooks, "--no-webhooks-to-private")
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=BACKEND) as http:
            await http.post("/v1/sessions", json={"id": "room"})
            await http.post("/v1/sessions/room/runs", json={"messageId": "q", "agent": "x"})
            deadline = time.monotonic() + PATIENCE
            error = None
            while error is None and time.monotonic() < deadline:
                (delivery,) = (await http.get("/v1/webhooks/deliveries")).json()["deliveries"]
                error = delivery.get("error")
                await asyncio.sleep(0.1)
            assert "127.0.0.1, which is not public" in error
            with pytest.raises(TimeoutError):
                listener.accept()
    finally:
        listener.close()
        server.close()


async def test_a_closed_connection_is_told_why_and_the_reason_shows_no_secret(service, room):
    with pytest.raises(ConnectionClosed) as closed:
        async with connect(service.url, room, token=token("eve", "owner", sessions=["mine"])):
            pass
    assert (closed.value.code, closed.value.reason) == (4403, "not allowed: this token is not for that session")


async def test_streams_are_counted_as_the_connections_they_are(tmp_path):
    server = await asyncio.to_thread(guarded, tmp_path, "--max-connections-per-principal", "3")
    try:
        async with httpx.AsyncClient(base_url=server.url, headers=bearer("ann", "service"), timeout=PATIENCE) as http:
            await http.post("/v1/sessions", json={"id": "room"})
            async with (
                http.stream("GET", "/v1/sessions/room/events") as first,
                http.stream("GET", "/v1/gateways/tanstack/room/subscribe") as second,
                websockets.connect(f"{server.ws}/room?token={token('ann', 'service')}") as third,
            ):
                await third.recv()
                assert (first.status_code, second.status_code) == (200, 200)
                answer = await http.get("/v1/sessions/room/events")
                assert (answer.status_code, answer.json()["type"]) == (429, PROBLEM + "too-many")
                async with websockets.connect(f"{server.ws}/room?token={token('ann', 'service')}") as fourth:
                    with pytest.raises(websockets.ConnectionClosed):
                        await fourth.recv()
                    assert fourth.close_code == 1013
                elsewhere = bearer("bob", "service")
                async with http.stream("GET", "/v1/sessions/room/events", headers=elsewhere) as others:
                    assert others.status_code == 200
            async with asyncio.timeout(PATIENCE):
                while (await http.get("/v1/sessions/room/events?waitS=0")).status_code != 200:
                    await asyncio.sleep(0.1)
                async with http.stream("GET", "/v1/sessions/room/events") as again:
                    assert again.status_code == 200, "those that were left are not counted any more"
    finally:
        server.close()


async def test_a_client_that_never_finishes_its_request_is_disconnected(service):
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    await writer.drain()
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()
