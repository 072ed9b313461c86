"""Every role, every operation, every protocol: what is allowed works, what is not is refused; no cell untested."""

import asyncio
import contextlib
import itertools
import json
import re

import httpx
import pytest
import websockets

from crdt_sessions import connect
from crdt_sessions.errors import ConnectionClosed
from crdt_sessions.model import Decision, RunCancel, RunRequest
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.auth import PERMISSIONS, Permission, Role
from crdt_sessions_server.auth.permissions import NAMED_IN_BODY, PUBLIC, ROUTES
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.access.conftest import TOKENS, bearer, token
from tests.processes import PATIENCE, PROBLEM, ROOT

RUN_INPUT = {"runId": "r9", "state": {}, "messages": [{"id": "u9", "role": "user", "content": "?"}], "tools": [],
             "context": [], "forwardedProps": {}}  # fmt: skip
CHAT = {"messages": [{"id": "u9", "role": "user", "parts": [{"type": "text", "text": "?"}]}]}
S, R = "/v1/sessions/{room}", "/v1/sessions/{room}/runs/r"

REQUESTS = {
    "tokens.get_me": ("GET", "/v1/me?session={room}", None),
    "tokens.mint_token": ("POST", "/v1/tokens", {"principal": "x"}),
    "tokens.revoke": ("POST", "/v1/revocations", {"tokenId": "x"}),
    "tokens.list_revocations": ("GET", "/v1/revocations", None),
    "audit.read_audit": ("GET", "/v1/audit?limit=1", None),
    "members.list_members": ("GET", f"{S}/members", None),
    "members.put_member": ("PUT", f"{S}/members/x", {"role": "viewer"}),
    "members.delete_member": ("DELETE", f"{S}/members/x", None),
    "privacy.export_data": ("GET", "/v1/principals/somebody-else/data", None),
    "privacy.erase": ("DELETE", "/v1/principals/somebody-else", None),
    "metrics.read_metrics": ("GET", "/metrics", None),
    "sessions.create_session": ("POST", "/v1/sessions", {"id": "{room}-new"}),
    "sessions.list_sessions": ("GET", "/v1/sessions?limit=1", None),
    "sessions.get_session": ("GET", S, None),
    "sessions.change_session": ("PATCH", S, {"title": "x"}),
    "sessions.delete_session": ("DELETE", S, None),
    "sessions.get_presence": ("GET", f"{S}/presence", None),
    "presence.put_presence": ("PUT", f"{S}/presence", {"state": {"activity": "idle"}}),
    "presence.delete_presence": ("DELETE", f"{S}/presence", None),
    "sessions.get_authors": ("GET", f"{S}/authors", None),
    "state.read_state": ("GET", f"{S}/state", None),
    "state.patch_state": ("PATCH", f"{S}/state", b'[{"op": "add", "path": "/x", "value": 1}]'),
    "artifacts.list_artifacts": ("GET", f"{S}/artifacts", None),
    "artifacts.create_artifact": ("POST", f"{S}/artifacts", {"id": "new"}),
    "artifacts.read_artifact": ("GET", f"{S}/artifacts/a", None),
    "artifacts.replace_artifact": ("PUT", f"{S}/artifacts/a", {"content": "x"}),
    "artifacts.splice_artifact": ("POST", f"{S}/artifacts/a/splice", {"index": 0, "insert": "x"}),
    "artifacts.get_position": ("GET", f"{S}/artifacts/a/position?index=0", None),
    "suggestions.list_suggestions": ("GET", f"{S}/artifacts/a/suggestions", None),
    "suggestions.suggest": ("POST", f"{S}/artifacts/a/suggestions", {"content": "y"}),
    "suggestions.decide_pieces": ("POST", f"{S}/suggestions/s/decisions", {"accepted": True}),
    "undo.undo_run": ("POST", f"{R}/undo", {}),
    "artifacts.delete_artifact": ("DELETE", f"{S}/artifacts/a", None),
    "messages.list_messages": ("GET", f"{S}/messages", None),
    "messages.post_message": ("POST", f"{S}/messages", {"text": "x"}),
    "messages.put_receipt": ("PUT", f"{S}/receipt", {}),
    "messages.get_receipt": ("GET", f"{S}/receipt", None),
    "events.stream_events": ("GET", f"{S}/events?waitS=0", None),
    "runs.request_run": ("POST", f"{S}/runs", {"messageId": "q"}),
    "runs.list_runs": ("GET", f"{S}/runs", None),
    "runs.get_run": ("GET", R, None),
    "runs.cancel_run": ("POST", f"{R}/cancel", {}),
    "runs.decide": ("POST", f"{R}/approvals/c", {"approved": True}),
    "runs.fill_in": ("PATCH", f"{R}/approvals/c/draft", {"fields": {"seat": 1}}),
    "client_calls.list_calls": ("GET", f"{S}/calls", None),
    "client_calls.offer": ("PUT", f"{R}/calls/c/offers/d", {}),
    "client_calls.withdraw": ("DELETE", f"{R}/calls/c/offers/d", None),
    "client_calls.bring_result": ("PUT", f"{R}/calls/c/results/d", {"output": 1}),
    "lists.list_all_runs": ("GET", "/v1/runs", None),
    "lists.list_agents": ("GET", "/v1/agents", None),
    "runs.claim_run": ("POST", "/v1/runs/claim", {"agents": ["nobody-asks-me"]}),
    "runs.claim_one_run": ("POST", f"{R}/claim", {"agents": ["x"]}),
    "leases.renew": ("POST", f"{R}/renew", None),
    "leases.append": ("POST", f"{R}/append", {"offset": 0, "text": "x"}),
    "leases.restart": ("POST", f"{R}/restart", None),
    "leases.put_tool": ("PUT", f"{R}/tools/c", {"name": "x"}),
    "leases.consume": ("POST", f"{R}/steering/m", None),
    "leases.get_step": ("GET", f"{R}/steps/k", None),
    "leases.put_step": ("PUT", f"{R}/steps/k", {"value": 1}),
    "usage.put_usage": ("PUT", f"{R}/usage", {"calls": 1}),
    "usage.session_usage": ("GET", f"{S}/usage", None),
    "usage.get_usage": ("GET", "/v1/usage?principal=somebody-else", None),
    "children.delegate": ("POST", f"{R}/children", {"key": "k", "task": "t"}),
    "children.list_children": ("GET", f"{R}/children", None),
    "children.get_output": ("GET", f"{R}/output", None),
    "leases.report": ("POST", f"{R}/result", {"status": "completed"}),
    "deliveries.list_deliveries": ("GET", "/v1/webhooks/deliveries", None),
    "deliveries.retry_delivery": ("POST", "/v1/webhooks/deliveries/x/retry", None),
    "import_export.export_session": ("GET", f"{S}/export", None),
    "import_export.import_session": ("POST", "/v1/sessions/{room}-imported/import", b"\x00\x00"),
    "import_export.sync_session": ("POST", f"{S}/sync", b"\x00\x00\x01\x00"),
    "sync.sync_sessions": ("POST", "/v1/sync", {"sessions": [{"id": "{room}", "stateVector": "AA=="}]}),
    "versions.list_versions": ("GET", f"{S}/versions", None),
    "versions.read_version": ("GET", f"{S}/versions/1", None),
    "versions.compare_versions": ("GET", f"{S}/versions/1/diff", None),
    "versions.keep_version": ("POST", f"{S}/versions", {"name": "x"}),
    "versions.rename_version": ("PATCH", f"{S}/versions/1", {"name": "x"}),
    "versions.restore_version": ("POST", f"{S}/versions/1/restore", None),
    "versions.fork_session": ("POST", f"{S}/fork", {"id": "{room}-fork"}),
    "ai-sdk.send": ("POST", "/v1/gateways/ai-sdk/chat", {"id": "{room}", **CHAT}),
    "ai-sdk.resume": ("GET", "/v1/gateways/ai-sdk/chat/{room}/stream", None),
    "ai-sdk.press_stop": ("POST", "/v1/gateways/ai-sdk/chat/{room}/stop", None),
    "ai-sdk.press_on": ("POST", "/v1/gateways/ai-sdk/chat/{room}/steer", {"message": CHAT["messages"][0]}),
    "ai-sdk.history": ("GET", "/v1/gateways/ai-sdk/chat/{room}/messages", None),
    "ag-ui.run_agent": ("POST", "/v1/gateways/ag-ui", {"threadId": "{room}", **RUN_INPUT}),
    "ag-ui.join": ("GET", "/v1/gateways/ag-ui/{room}", None),
    "ag-ui.cancel": ("POST", "/v1/gateways/ag-ui/{room}/cancel", {}),
    "tanstack.connect": ("POST", "/v1/gateways/tanstack/{room}", {"threadId": "{room}", **RUN_INPUT}),
    "tanstack.send": ("POST", "/v1/gateways/tanstack/{room}/send", {"threadId": "{room}", **RUN_INPUT}),
    "tanstack.subscribe": ("GET", "/v1/gateways/tanstack/{room}/subscribe", None),
    "tanstack.read": ("GET", "/v1/gateways/tanstack/{room}?threadId=x", None),
    "tanstack.cancel": ("POST", "/v1/gateways/tanstack/{room}/cancel", {}),
    "durable-streams.put_stream": ("PUT", "/v1/streams/of-{room}", None),
    "durable-streams.append_stream": ("POST", "/v1/streams/of-{room}", None),
    "durable-streams.read_stream": ("GET", "/v1/streams/of-{room}", None),
    "durable-streams.delete_stream": ("DELETE", "/v1/streams/of-{room}", None),
    "subscriptions.put_subscription": (
        "PUT", "/v1/streams/__ds/subscriptions/of-{room}",
        {"type": "pull-wake", "streams": ["of-{room}"], "wake_stream": "wake-{room}"},
    ),
    "subscriptions.get_subscription": ("GET", "/v1/streams/__ds/subscriptions/of-{room}", None),
    "subscriptions.delete_subscription": ("DELETE", "/v1/streams/__ds/subscriptions/of-{room}", None),
    "subscriptions.add_streams": ("POST", "/v1/streams/__ds/subscriptions/of-{room}/streams", {"streams": ["of-{room}"]}),
    "subscriptions.remove_stream": ("DELETE", "/v1/streams/__ds/subscriptions/of-{room}/streams/of-{room}", None),
    "subscriptions.claim_subscription": ("POST", "/v1/streams/__ds/subscriptions/of-{room}/claim", {"worker": "w"}),
    "session-streams.read_events": ("GET", "/v1/streams/sessions/{room}/events", None),
    "session-streams.read_text": ("GET", "/v1/streams/sessions/{room}/messages/q/text", None),
    "yjs-streams.read_updates": ("GET", "/v1/streams/yjs/docs/{room}", None),
    "yjs-streams.put_document": ("PUT", "/v1/streams/yjs/docs/{room}", None),
    "yjs-streams.post_updates": ("POST", "/v1/streams/yjs/docs/{room}", b"\x02\x00\x00"),
    "yjs-streams.delete_document": ("DELETE", "/v1/streams/yjs/docs/{room}", None),
    "openai.complete": (
        "POST", "/v1/gateways/openai/chat/completions",
        {"model": "*", "stream": True, "messages": [{"role": "user", "content": "?"}]},
    ),
    "openai.completion": ("GET", "/v1/gateways/openai/chat/completions/chatcmpl-gone", None),
    "openai.models": ("GET", "/v1/gateways/openai/models", None),
    "openai.model": ("GET", "/v1/gateways/openai/models/writer", None),
    "y-sweet.create_document": ("POST", "/v1/y-sweet/doc/new", {"docId": "{room}-new"}),
    "y-sweet.authorize_document": ("POST", "/v1/y-sweet/doc/{room}/auth", {}),
    "y-sweet.read_document": ("GET", "/v1/y-sweet/d/{room}/as-update", None),
    "y-sweet.change_document": ("POST", "/v1/y-sweet/d/{room}/update", b"\x00\x00"),
    "mcp.send": ("POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}),
    "mcp.listen": ("GET", "/mcp", None),
    "mcp.leave": ("DELETE", "/mcp", None),
}  # fmt: skip
"""A request of each route. What it answers beyond yes and no is other tests' business."""

ABOUT_A_SESSION = [each for each, (_, path, _) in REQUESTS.items() if "/{room}" in path or each in NAMED_IN_BODY]
NEVER_NEW = {"sessions.create_session", "import_export.import_session", "y-sweet.create_document"}


def routes():
    return {rule.endpoint: rule for rule in Service(Settings(), store=MemoryStore()).app.url_map.iter_rules()}


def test_no_route_is_without_a_permission_and_none_is_untested():
    known = {endpoint for endpoint in routes() if endpoint != "static"}
    assert known == set(ROUTES) | PUBLIC
    assert set(REQUESTS) == set(ROUTES) - {"ai-sdk.converse"}, "that one is a WebSocket, see below"


def test_a_request_is_one_of_its_route():
    found = routes()
    for endpoint, (method, path, _) in REQUESTS.items():
        pattern = re.sub(r"<(?:\w+:)?\w+>", "[^/]+", found[endpoint].rule)
        assert re.fullmatch(pattern, path.split("?")[0]), endpoint
        assert method in found[endpoint].methods, endpoint


def test_the_documents_show_the_table():
    text = (ROOT / "docs/reference/permissions.md").read_text("utf-8")
    for role, permissions in PERMISSIONS.items():
        for permission in Permission:
            row = next(line for line in text.splitlines() if line.startswith(f"| `{permission}` |"))
            column = [cell.strip() for cell in row.strip("|").split("|")][2 + list(Role).index(role)]
            assert (column == "yes") is (permission in permissions), (role, permission)
    rules = routes()
    for endpoint, permission in ROUTES.items():
        found = rules[endpoint]
        method = "WEBSOCKET" if found.websocket else min(found.methods - {"HEAD", "OPTIONS"})
        rule = re.sub(r"<(?:\w+:)?(\w+)>", r"<\1>", found.rule)
        assert f"\n| `{method} {rule}` | {permission or 'anybody known'} |\n" in text, endpoint


def filled(value, room):
    return json.loads(json.dumps(value).replace("{room}", room)) if isinstance(value, dict) else value


@contextlib.asynccontextmanager
async def made(service, *rooms, **claims):
    """Make sessions with a question and a run each; yield a client of a backend."""
    headers = bearer("maker", "service", **claims)
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=PATIENCE) as http:
        for room in rooms:
            assert (await http.post("/v1/sessions", json={"id": room})).status_code == 201
            await http.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": "?"})
            await http.post(f"/v1/sessions/{room}/runs", json={"id": "r", "messageId": "q", "agent": "x"})
        yield http


async def asked(http, endpoint, room, headers):
    """Make a request of somebody else's; return its status and the slug of its problem. A stream that begins is one that is allowed."""
    method, path, body = REQUESTS[endpoint]
    more = {"Accept": "application/problem+json"} | ({"X-Session-Id": room} if endpoint in NAMED_IN_BODY else {})
    options = (
        {"content": body} if isinstance(body, bytes) else {"json": filled(body, room)} if body is not None else {}
    )
    async with http.stream(method, path.replace("{room}", room), headers=headers | more, **options) as answer:
        if answer.is_success:
            return answer.status_code, None
        problem = json.loads(await answer.aread())
        return answer.status_code, problem["type"].removeprefix(PROBLEM) if "type" in problem else _slug(problem)


def _slug(problem):
    """Return the slug of a problem that is spelled as OpenAI spells errors, or the code of JSON-RPC."""
    return str(problem["error"]["code"]).replace("invalid_api_key", "not_authenticated").replace("_", "-")


@pytest.mark.parametrize("endpoint", REQUESTS)
@pytest.mark.sampled(5)
async def test_a_role_may_do_over_http_what_the_table_says(service, endpoint, room):
    needs = ROUTES[endpoint]
    if endpoint in ("privacy.export_data", "usage.get_usage"):
        needs = Permission.ADMIN  # of others
    rooms = {role: f"{room}-{role}" for role in Role}
    async with made(service, *rooms.values()) as http:
        for role, own in rooms.items():
            status, slug = await asked(http, endpoint, own, {"Authorization": f"Bearer {TOKENS[role]}"})
            if needs is None or needs in PERMISSIONS[role]:
                assert status not in (401, 403), (role, status, slug)
                assert status < 500 or slug == "agent-away", (role, "nobody is there to answer")
            else:
                assert (status, slug) == (403, "access-denied"), role


@pytest.mark.parametrize("endpoint", REQUESTS)
async def test_nobody_does_anything_without_a_token_or_with_a_bad_one(service, endpoint, room):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
            assert await asked(http, endpoint, room, headers) == (401, "not-authenticated")


WORKERS = "/v1/streams/__ds/subscriptions/of-{room}"
OF_WORKERS = {
    "subscriptions.call_back": ("POST", f"{WORKERS}/callback", None),
    "subscriptions.ack_wake": ("POST", f"{WORKERS}/ack", None),
    "subscriptions.release_claim": ("POST", f"{WORKERS}/release", None),
}
"""Public routes that take a token of their own."""


def test_no_other_public_route_takes_a_body():
    found = routes()
    assert {each for each in PUBLIC if found[each].methods & {"POST", "PUT", "PATCH", "DELETE"}} == set(OF_WORKERS)


@pytest.mark.parametrize(
    "endpoint", [each for each, asks in (REQUESTS | OF_WORKERS).items() if asks[0] in ("POST", "PUT", "PATCH")]
)
async def test_the_body_of_a_stranger_is_not_read(service, endpoint, room):
    """Whether it can be parsed, fits its model, or is too large is found out for somebody who is known."""
    subscription = {"type": "pull-wake", "streams": [f"of-{room}"], "wake_stream": f"wake-{room}"}
    method, path, _ = (REQUESTS | OF_WORKERS)[endpoint]
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        if endpoint in OF_WORKERS:
            maker, where = bearer("maker", "service"), WORKERS.format(room=room)
            await http.put(f"/v1/streams/wake-{room}", headers=maker | {"Content-Type": "application/json"})
            assert (await http.put(where, json=subscription, headers=maker)).status_code == 201
        bad = ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Bearer .1.{'0' * 64}"})
        for body, token in [
            *itertools.product((b'{"not JSON', b"[1, 2, 3]", b"{}"), bad),
            (b"x" * 2_000_000, bad[1]),
        ]:
            headers = {"Content-Type": "application/json", "X-Session-Id": room, **token}
            answer = await http.request(method, path.format(room=room), content=body, headers=headers)
            assert answer.status_code == 401, (token, body[:10], answer.text)


@pytest.mark.parametrize("endpoint", ABOUT_A_SESSION)
@pytest.mark.sampled(3)
async def test_a_token_of_one_session_is_none_of_another(service, endpoint, room):
    async with made(service, room) as http:
        headers = bearer("eve", "service", sessions=["other-*"])
        assert await asked(http, endpoint, room, headers) == (403, "access-denied")


@pytest.mark.parametrize("endpoint", sorted(set(ABOUT_A_SESSION) - NEVER_NEW))
@pytest.mark.sampled(3)
async def test_another_tenants_session_is_like_none(service, endpoint, room):
    """The same answer as for a name that nobody has."""
    async with made(service, room, tenant="acme") as maker:
        headers = bearer("eve", "service", tenant="umbrella")
        theirs = await asked(maker, endpoint, room, headers)
        nobodys = await asked(maker, endpoint, f"{room}-2", headers)
        assert theirs == nobodys
        assert theirs[0] in (200, 201, 202, 204, 404, 409) or theirs[1] == "agent-away", theirs
        listed = (await maker.get("/v1/sessions?limit=1000", headers=headers)).json()["sessions"]
        messages = (await maker.get(f"/v1/sessions/{room}/messages")).json()["messages"]
        assert [message["id"] for message in messages] == ["q"], "untouched"
        assert all(session["title"] is None for session in listed if session["id"] == room and "title" in session)


# -- the WebSocket protocols ---------------------------------------------------------------------------------------------

WRITES = {
    Permission.WRITE: lambda view: view.document.roots.state.update({"x": 1.0}),
    Permission.POST: lambda view: view.runs.request("r2", RunRequest(message_id="q", agent="x", created_at=1)),
    Permission.CANCEL: lambda view: view.runs.cancel("r", RunCancel(by="x", at=1)),
}
"""What one may write into a document; and whether it is there afterwards."""
SEEN = {
    Permission.WRITE: lambda view: view.state.to_py() == {"x": 1.0},
    Permission.POST: lambda view: "r2" in view.runs and view.runs.find("r2").request is not None,
    Permission.CANCEL: lambda view: view.runs.find("r").cancel is not None,
}


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_do_over_the_sync_protocol_what_the_table_says(service, role, room):
    may = PERMISSIONS[role]
    async with made(service, room):
        async with connect(service.url, room, token=token("looks", "owner")) as owner:
            async with connect(service.url, room, token=TOKENS[role]) as peer:
                assert [message.id for message in peer.messages.all()] == ["q"], "everybody reads"
                peer.set_presence("typing")
                await owner.until(lambda: any(f"a-{role}" in str(each) for each in owner.present().values()))
            for permission, write in WRITES.items():
                with contextlib.suppress(ConnectionClosed):
                    async with connect(service.url, room, token=TOKENS[role]) as peer:
                        peer.edit(write)
                        await asyncio.wait_for(peer.durable(), PATIENCE)
                        assert Permission.WRITE in may
                await asyncio.sleep(0.05)
                allowed = Permission.WRITE in may and permission in may
                if allowed:
                    await asyncio.wait_for(owner.until(lambda p=permission: SEEN[p](owner.view)), PATIENCE)
                assert SEEN[permission](owner.view) is allowed, permission


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_decides_over_every_protocol_what_the_table_says(service, role, room):
    """In the document, over REST and through the gateways."""
    allowed = Permission.DECIDE in PERMISSIONS[role]
    async with made(service, room) as backend:
        grant = (await backend.post(f"/v1/sessions/{room}/runs/r/claim", json={"agents": ["x"]})).json()
        lease, run = {"Lease-Token": grant["token"]}, f"/v1/sessions/{room}/runs/r"
        for call in ("rest", "sync", "ai", "ag"):
            question = {"name": "t", "input": {}, "approval": {"requestedAt": 1}}
            assert (await backend.put(f"{run}/tools/{call}", json=question, headers=lease)).status_code == 204
        await backend.post(f"{run}/result", json={"status": "suspended"}, headers=lease)
        headers = {"Authorization": f"Bearer {TOKENS[role]}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=PATIENCE) as http:
            await http.post(f"{run}/approvals/rest", json={"approved": True})
            parts = [{"type": "tool-t", "toolCallId": "ai", "state": "approval-responded", "input": {},
                      "approval": {"id": "ai", "approved": True}}]  # fmt: skip
            message = {"id": "r-out", "role": "assistant", "parts": parts}
            async with http.stream("POST", "/v1/gateways/ai-sdk/chat", json={"id": room, "messages": [message]}):
                pass
            resume = [{"interruptId": "ag", "status": "resolved", "payload": {"approved": True}}]
            body = {"threadId": room, **RUN_INPUT, "messages": [], "resume": resume}
            async with http.stream("POST", "/v1/gateways/ag-ui", json=body):
                pass
        with contextlib.suppress(ConnectionClosed):
            async with connect(service.url, room, token=TOKENS[role]) as peer:
                yes = Decision(approved=True, at=1)
                peer.edit(lambda view: view.messages["r-out"].tool("sync").decide(f"a-{role}", yes))
                await asyncio.wait_for(peer.durable(), PATIENCE)
        found = (await backend.get(f"/v1/sessions/{room}/messages")).json()["messages"]
        tools = next(message for message in found if message["id"] == "r-out")["parts"]
        decided = {part["toolCallId"]: "approval" in part for part in tools}
        assert decided == dict.fromkeys(("rest", "sync", "ai", "ag"), allowed)


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_do_over_the_ai_sdks_websocket_what_the_table_says(service, role, room):
    url = service.url.replace("http", "ws") + f"/v1/gateways/ai-sdk/chat?token={TOKENS[role]}"
    async with made(service, room), websockets.connect(url) as socket:

        async def answer(**frame):
            await socket.send(json.dumps({"requestId": "1", "id": room, **frame}))
            return json.loads(await asyncio.wait_for(socket.recv(), PATIENCE))

        assert (await answer(type="resume"))["type"] in ("start", "no-active"), "everybody reads"
        await socket.send(json.dumps({"type": "abort", "requestId": "1"}))
        await asyncio.sleep(0.1)
        await socket.send(json.dumps({"type": "send", "requestId": "2", "id": room, **CHAT}))
        while (told := json.loads(await asyncio.wait_for(socket.recv(), PATIENCE)))["requestId"] != "2":
            pass
        if Permission.POST in PERMISSIONS[role]:
            assert told["type"] == "chunk"
        else:
            assert (told["type"], told["errorText"]) == ("error", f"not allowed: the role {role} may not post")


async def test_no_token_opens_a_websocket(service, room):
    for query in ("", "?token=nonsense"):
        async with websockets.connect(f"{service.ws}/{room}{query}") as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4401
        chat = service.url.replace("http", "ws") + f"/v1/gateways/ai-sdk/chat{query}"
        async with websockets.connect(chat) as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4401, "before a frame was read"
