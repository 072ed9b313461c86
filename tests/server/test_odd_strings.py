"""Odd strings in every place of every request that changes something: refused or taken, and the service goes on."""

import asyncio
import copy
import json
import re
from urllib.parse import quote

import httpx
import pytest
import websockets
from pycrdt import Map

from crdt_sessions import connect
from crdt_sessions.model.strings import AGENT_CHARACTERS, ID_CHARACTERS, REASON_CHARACTERS, TITLE_CHARACTERS
from tests.processes import PATIENCE, Server

ODD = {
    "half a surrogate pair": "a\ud83d",
    "NUL": "a\x00b",
    "the end of a line": "a\r\nX-Evil: 1",
    "a slash": "a/b",
    "dots": "..",
    "nothing": "",
    "too long": "x" * 20_000,
    "line separators": "a\u2028b\u2029c\u0085d",
    "no string": 5,
    "an object": {"a": ["\ud83d"]},
    "null": None,
}

SAID = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "?"}]}
AGUI = {
    "threadId": "g", "runId": "r1", "state": {"k": "v"}, "tools": [], "context": [],
    "messages": [{"id": "m1", "role": "user", "content": "?"}], "forwardedProps": {"agent": "a"},
}  # fmt: skip
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "odd", "version": "1"},
}  # fmt: skip
MCP = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28"}
REQUESTS = [
    ("POST", "/v1/sessions", {"id": "s", "title": "t", "metadata": {"k": "v"}, "agent": "a"}),
    ("PATCH", "/v1/sessions/{name}", {"title": "t", "agent": "a", "runPolicy": "queue", "status": "active"}),
    ("POST", "/v1/sessions/{name}/messages", {
        "id": "m1", "text": "?", "author": {"id": "ann", "name": "Ann", "kind": "human"}, "parent": "m", "replyTo": "m",
        "steers": "r", "replaces": "m", "modality": "text", "agent": "a", "role": "user",
        "parts": [{"type": "tool", "toolCallId": "c", "toolName": "t", "input": "i"}, {"type": "file", "value": {"url": "u"}}],
    }),
    ("PUT", "/v1/sessions/{name}/receipt", {"seq": 1, "principal": "ann"}),
    ("PUT", "/v1/sessions/{name}/presence", {
        "state": {"activity": "idle", "user": {"id": "ann", "name": "Ann"}, "cursor": {"k": "v"}}, "device": "d",
        "principal": "ann",
    }),
    ("PATCH", "/v1/sessions/{name}/state", [
        {"op": "add", "path": "/k", "value": "v"}, {"op": "copy", "from": "/k", "path": "/l"},
    ]),
    ("POST", "/v1/sessions/{name}/artifacts", {
        "id": "a", "title": "t", "mediaType": "text/plain", "content": "c", "author": {"id": "ann", "name": "Ann"},
    }),
    ("PUT", "/v1/sessions/{name}/artifacts/{artifact}", {"content": "c"}),
    ("POST", "/v1/sessions/{name}/artifacts/{artifact}/splice", {
        "position": {"type": {"client": 1, "clock": 0}, "item": {"client": 1, "clock": 0}, "assoc": 0}, "insert": "t",
    }),
    ("POST", "/v1/sessions/{name}/artifacts/{artifact}/suggestions", {
        "id": "s", "content": "d", "of": "c", "note": "n", "run": "r", "author": {"id": "ann", "name": "Ann"},
    }),
    ("POST", "/v1/sessions/{name}/suggestions/{suggestion}/decisions", {
        "accepted": True, "reason": "r", "principal": "ann",
    }),
    ("POST", "/v1/sessions/{name}/runs/{run}/undo", {"artifact": "a"}),
    ("POST", "/v1/sessions/{name}/runs", {"id": "r1", "messageId": "m", "agent": "a", "trigger": "submit"}),
    ("POST", "/v1/sessions/{name}/runs/{run}/cancel", {"reason": "r", "principal": "ann"}),
    ("POST", "/v1/sessions/{name}/runs/{run}/approvals/{call}", {
        "approved": True, "value": "v", "reason": "r", "principal": "ann",
    }),
    ("PATCH", "/v1/sessions/{name}/runs/{run}/approvals/{call}/draft", {"fields": {"name": "v"}}),
    ("PUT", "/v1/sessions/{name}/runs/{run}/calls/{call}/offers/{device}", {"principal": "ann"}),
    ("PUT", "/v1/sessions/{name}/runs/{run}/calls/{call}/results/{device}", {
        "output": {"k": "v"}, "errorText": "e", "principal": "ann",
    }),
    ("POST", "/v1/runs/claim", {"agents": ["nobody"], "worker": "w"}),
    ("POST", "/v1/sessions/{name}/runs/{run}/claim", {"agents": ["nobody"], "worker": "w"}),
    ("POST", "/v1/sessions/{name}/runs/{run}/renew", None),
    ("POST", "/v1/sessions/{name}/runs/{run}/append", {"offset": 0, "text": "t", "type": "text"}),
    ("PUT", "/v1/sessions/{name}/runs/{run}/tools/{call}", {
        "name": "t", "input": "i", "output": {"k": "v"}, "error": "e", "approval": {"approvers": ["ann"], "requestedAt": 1},
    }),
    ("POST", "/v1/sessions/{name}/runs/{run}/steering/{message}", None),
    ("POST", "/v1/sessions/{name}/runs/{run}/restart", None),
    ("PUT", "/v1/sessions/{name}/runs/{run}/usage", {"model": "m", "inputTokens": 1}),
    ("PUT", "/v1/sessions/{name}/runs/{run}/steps/{key}", {"value": {"k": "v"}}),
    ("POST", "/v1/sessions/{name}/runs/{run}/children", {
        "key": "k", "agent": "a", "task": {"k": "v"}, "input": {"model": "m"}, "orphans": "end",
    }),
    ("POST", "/v1/sessions/{name}/runs/{run}/result", {
        "status": "released", "reason": "r", "error": {"code": "c", "message": "m"}, "agent": "a",
    }),
    ("POST", "/v1/sessions/{name}/versions", {"name": "v"}),
    ("PATCH", "/v1/sessions/{name}/versions/1", {"name": "v"}),
    ("POST", "/v1/sessions/{name}/fork", {"id": "f", "title": "t"}),
    ("PUT", "/v1/sessions/{name}/members/{principal}", {"role": "editor"}),
    ("POST", "/v1/revocations", {"principal": "p"}),
    ("POST", "/v1/revocations", {"tokenId": "p"}),
    ("POST", "/v1/tokens", {"principal": "p", "name": "n", "sessions": ["s"], "agents": ["a"]}),
    ("POST", "/v1/webhooks/deliveries/{id}/retry", None),
    ("POST", "/v1/sync", {"cursor": "c", "device": "d", "sessions": [{
        "id": "{name}", "lineage": "l", "stateVector": "AA==", "update": "AAA=", "presence": {"user": {"id": "ann"}},
    }]}),
    ("POST", "/v1/gateways/ai-sdk/chat", {"id": "{name}", "messages": [SAID], "messageId": "m1", "agent": "a", "trigger": "submit-message"}),
    ("POST", "/v1/gateways/ai-sdk/chat", {"id": "{name}", "messages": [{"id": "m", "role": "user", "parts": [
        {"type": "text", "text": "?"}, {"type": "data-x", "id": "i", "data": "d"}, {"type": "file", "url": "u", "mediaType": "t"},
    ]}], "messageId": "m"}),
    ("POST", "/v1/gateways/ai-sdk/chat/{name}/stop", {"runId": "r"}),
    ("POST", "/v1/gateways/ai-sdk/chat/{name}/steer", {"message": SAID, "runId": "r"}),
    ("POST", "/v1/gateways/ag-ui", AGUI),
    ("POST", "/v1/gateways/ag-ui/{name}/cancel", {"runId": "r"}),
    ("POST", "/v1/gateways/tanstack/{name}", AGUI),
    ("POST", "/v1/gateways/tanstack/{name}/send", AGUI),
    ("POST", "/v1/gateways/tanstack/{name}/cancel", {"runId": "r"}),
    ("PUT", "/v1/streams/yjs/docs/{name}", None),
    ("POST", "/v1/streams/yjs/docs/{name}", {"k": "v"}),
    ("PUT", "/v1/streams/{path}", None),
    ("POST", "/v1/streams/{path}", {"k": "v"}),
    ("PUT", "/v1/streams/__ds/subscriptions/{subscription}", {
        "type": "webhook", "pattern": "p/*", "streams": ["a"], "webhook": {"url": "https://example.com/"}, "description": "d",
    }),
    ("PUT", "/v1/streams/__ds/subscriptions/{subscription}", {"type": "pull-wake", "pattern": "p", "wake_stream": "w"}),
    ("POST", "/v1/streams/__ds/subscriptions/{subscription}/streams", {"streams": ["a"]}),
    ("POST", "/v1/streams/__ds/subscriptions/{subscription}/claim", {"worker": "w"}),
    ("POST", "/v1/streams/__ds/subscriptions/{subscription}/callback", {
        "wake_id": "w", "generation": 1, "acks": [{"stream": "a", "offset": "o"}], "done": True,
    }),
    ("POST", "/v1/streams/__ds/subscriptions/{subscription}/ack", {
        "wake_id": "w", "generation": 1, "acks": [{"stream": "a", "offset": "o"}],
    }),
    ("POST", "/v1/streams/__ds/subscriptions/{subscription}/release", {"wake_id": "w", "generation": 1}),
    ("POST", "/v1/gateways/openai/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True}),
    ("POST", "/v1/y-sweet/doc/new", {"docId": "s"}),
    ("POST", "/v1/y-sweet/doc/{name}/auth", {"authorization": "full", "userId": "ann", "validForSeconds": 60}),
    ("POST", "/mcp", {"jsonrpc": "2.0", "id": "i", "method": "tools/call", "params": {
        "name": "post_message", "arguments": {"session": "{name}", "text": "t", "agent": "a", "id": "m"}, "_meta": ENVELOPE,
    }}),
]  # fmt: skip
OTHER = {
    "/v1/sessions/{name}/import", "/v1/sessions/{name}/sync", "/v1/sessions/{name}/versions/{seq}/restore",
    "/v1/y-sweet/d/{name}/update",
}  # fmt: skip
"""Routes that take bytes, or nothing at all."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("odd") / "s.db", "--default-agent", "writer", "--agent-wait-s", "0")
    yield process
    process.close()


@pytest.fixture
def http(service):
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        for agent in ("a", "m"):  # who are there, and do something else
            client.post(f"/v1/sessions/busy-{agent}/messages", json={"id": "q", "text": "?", "agent": agent})
            client.post("/v1/runs/claim", json={"agents": [agent], "leaseS": 900})
        yield client


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    if path:
        yield path


def replaced(body, path, value):
    changed = copy.deepcopy(body)
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def status(http, method, url, content, headers):
    with http.stream(method, url, content=content, headers=headers) as answer:
        for name, value in answer.headers.items():
            assert "\n" not in name + value
        assert "x-evil" not in answer.headers
        return answer.status_code


@pytest.mark.parametrize("number", range(len(REQUESTS)), ids=lambda number: " ".join(REQUESTS[number][:2]))
@pytest.mark.sampled(6)
def test_odd_strings_are_refused_or_taken(http, number):
    method, template, body = REQUESTS[number]
    name = f"odd-{number}"
    http.post(f"/v1/sessions/{name}/messages", json={"id": "m", "text": "?", "agent": f"for {name}"})
    http.post(f"/v1/sessions/{name}/artifacts", json={"id": "a"})
    claim = http.post("/v1/runs/claim", json={"agents": [f"for {name}"], "waitS": 20}).json()
    kind = "application/json-patch+json" if template.endswith("/state") else "application/json"
    headers = {"Lease-Token": claim["token"], "Content-Type": kind, "X-Session-Id": name}
    headers |= MCP | {"Mcp-Method": "tools/call", "Mcp-Name": "post_message"} if template == "/mcp" else {}
    known = {
        "name": name,
        "run": "run-m",
        "call": "c",
        "message": "m",
        "key": "k",
        "principal": "p",
        "id": "1",
        "path": "a",
        "subscription": "s",
        "artifact": "a",
        "device": "d",
        "suggestion": "s",
    }
    if "/calls/" in template:
        asked = {"name": "t", "input": "i", "clientCall": {"requestedAt": 1}}
        http.put(f"/v1/sessions/{name}/runs/run-m/tools/c", json=asked, headers=headers).raise_for_status()
    text = json.dumps(body).replace("{name}", name) if body is not None else ""
    body = json.loads(text) if text else None
    plain = template.format_map({key: quote(value, safe="") for key, value in known.items()})
    failed = []
    for what, odd in ODD.items():
        bodies = [replaced(body, path, odd) for path in leaves(body or {})] if body else []
        for each in [*bodies, odd]:
            code = status(http, method, plain, json.dumps(each), headers)
            away = code == 503 and template.endswith("/chat/completions")  # an agent that another request has named
            failed += [(what, code, json.dumps(each)[:200])] if code >= 500 and not away else []
        for key in re.findall(r"\{(\w+)\}", template):
            if isinstance(odd, str):
                spelled = odd.encode("utf-8", "surrogatepass")
                path = template.format_map({k: quote(v if k != key else spelled, safe="") for k, v in known.items()})
                code = status(http, method, path.replace("..", "%2E%2E"), text, headers)
                failed += [(what, code, path[:200])] if code >= 500 else []
    assert failed == []
    sent = http.post(f"/v1/sessions/{name}/messages", json={"text": "still here"})
    assert sent.status_code in (201, 409), "409: it was closed, as it was asked to be"


async def test_odd_strings_on_the_websocket_are_answered(service):
    half = "\\ud83d"
    frames = (
        {"type": "send", "requestId": half, "id": "ws", "messages": [SAID]},
        {"type": "send", "requestId": "1", "id": half, "messages": [SAID]},
        {"type": "send", "requestId": "1", "id": "ws", "messages": [SAID | {"id": half}]},
        {"type": "send", "requestId": "1", "id": "ws", "messages": [SAID | {"id": "a\nb"}]},
        {
            "type": "send",
            "requestId": "1",
            "id": "ws",
            "messageId": "m1",
            "messages": [SAID | {"parts": [{"type": "text", "text": half}]}],
        },
        {"type": "resume", "requestId": "1", "id": "ws", "body": {"runId": half}},
        {"type": "resume", "requestId": "1", "id": 5},
    )
    before = len(service.lines)
    for frame in frames:
        async with websockets.connect(f"{service.url.replace('http', 'ws')}/v1/gateways/ai-sdk/chat") as socket:
            await socket.send(json.dumps(frame).replace("\\\\", "\\"))
            async with asyncio.timeout(PATIENCE):
                answer = json.loads(await socket.recv())
            expected = ("start", "chunk") if frame is frames[0] else ("error", "no-active")
            assert answer["type"] in expected, (frame, answer)
    assert not [line for line in service.lines[before:] if "Traceback" in line]


def test_no_route_is_forgotten(http):
    described = http.get("/openapi.json").json()["paths"]
    changing = {
        (method.upper(), re.sub(r"\{\w+\}", "{}", path))
        for path, operations in described.items()
        for method in operations
        if method in ("post", "put", "patch")
    }
    tried = {
        (method, re.sub(r"\{\w+\}|/1\b", lambda m: "{}" if m[0] != "/1" else "/{}", path))
        for method, path, _ in REQUESTS
    }
    tried |= {("POST", re.sub(r"\{\w+\}", "{}", path)) for path in OTHER}
    assert changing == tried


LONG = [
    ("/v1/sessions/{}/messages", {"text": "?"}, "id", ID_CHARACTERS),
    ("/v1/sessions/{}/messages", {"text": "?"}, "agent", AGENT_CHARACTERS),
    ("/v1/sessions/{}/messages", {"text": "?"}, "parent", ID_CHARACTERS),
    ("/v1/sessions/{}/messages", {"text": "?"}, "steers", ID_CHARACTERS),
    ("/v1/sessions/{}/runs", {"messageId": "q"}, "id", ID_CHARACTERS),
    ("/v1/sessions/{}/runs", {}, "messageId", ID_CHARACTERS),
    ("/v1/sessions/{}/runs", {"messageId": "q"}, "agent", AGENT_CHARACTERS),
    ("/v1/sessions/{}/runs/run-q/cancel", {}, "reason", REASON_CHARACTERS),
    ("/v1/sessions/{}/runs/run-q/cancel", {}, "principal", ID_CHARACTERS),
    ("/v1/sessions", {}, "agent", AGENT_CHARACTERS),
    ("/v1/sessions", {}, "title", TITLE_CHARACTERS),
    ("/v1/gateways/ag-ui", AGUI | {"threadId": "{}"}, "runId", ID_CHARACTERS),
]


@pytest.mark.parametrize("number", range(len(LONG)), ids=lambda number: f"{LONG[number][2]} of {LONG[number][0]}")
def test_a_string_at_its_limit_is_taken_and_one_beyond_it_is_refused(http, number):
    route, body, field, limit = LONG[number]
    name = f"long-{number}"
    http.post(f"/v1/sessions/{name}/messages", json={"id": "q", "text": "?"})
    body = json.loads(json.dumps(body).replace("{}", name) if "threadId" in body else json.dumps(body))
    for length, expected in ((limit, {200, 201}), (limit + 1, {422})):
        with http.stream("POST", route.format(name), json=body | {field: "x" * length}) as answer:
            answer.close()
        assert answer.status_code in expected, (length, answer.status_code)
    assert http.post(f"/v1/sessions/{name}/messages", json={"text": "still here"}).json()["seq"] > 1
    assert http.get(f"/v1/sessions/{name}/messages").status_code == 200


async def test_what_a_yjs_peer_writes_beyond_a_limit_is_told_once_and_counted(service, http):
    def write(view):
        view.document.roots.messages["x" * 201] = Map({"head": {"id": "x" * 201, "createdAt": 1}})
        view.document.roots.meta["agent"] = "x" * 101

    async with connect(service.url, "beyond", name="Eve") as eve, connect(service.url, "beyond", name="Ann") as ann:
        eve.edit(write)
        await eve.durable()
        await ann.post("still here", id="q")
        await ann.until(lambda: ann.view.runs.value("run-q") is not None)
        assert ann.view.runs.value("run-q").agent == "writer", "as if there were none in meta"
        eve.edit(lambda view: view.document.roots.meta.update({"agent": "x" * 102}))
        await eve.durable()
    told = [line for line in service.lines if "is not of layout 1" in line]
    assert len([line for line in told if "messages['xxx" in line and "beyond" in line]) == 1
    assert len([line for line in told if "meta.agent" in line and "beyond" in line]) == 1
    assert 'crdt_sessions_violations_total{rule="unreadable",tenant=""}' in http.get("/metrics").text


def test_lines_of_events_and_exports_are_lines_to_everybody(http):
    text = "one\u2028two\u2029three\u0085four"
    http.post("/v1/sessions/lines/messages", json={"id": "q", "text": text})
    page = http.get("/v1/sessions/lines/events", params={"waitS": 5})
    assert text in [each["data"]["parts"][0]["text"] for each in page.json()["events"] if each["event"] == "message"]
    for accept in ("text/event-stream", "application/x-ndjson"):
        with http.stream("GET", "/v1/sessions/lines/events", headers={"Accept": accept}) as answer:
            for line in answer.iter_lines():  # which splits as str.splitlines does
                data = line.removeprefix("data: ")
                if '"parts"' in data:
                    assert "three" in data
                    value = json.loads(data)
                    value = value.get("data", value)
                    assert value["parts"][0]["text"] == text
                    break
    archive = http.get("/v1/sessions/lines/export", params={"format": "archive"}).text
    assert all(json.loads(line) for line in archive.splitlines())
    with http.stream(
        "POST",
        "/v1/gateways/ai-sdk/chat",
        json={"id": "lines", "messages": [SAID | {"parts": [{"type": "data-x", "data": text}]}]},
    ) as answer:
        assert answer.status_code == 200


def test_sigterm_is_enough_after_all_that(tmp_path):
    server = Server(tmp_path / "s.db", "--default-agent", "writer")
    with server.http() as client:
        for id in ("x" * 196, "x" * 200):
            assert client.post("/v1/sessions/a/messages", json={"id": id, "text": "?"}).status_code == 201
    assert server.terminate() == 0
