"""A client may do what its token may: no tool and no resource is another way in."""

import json

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from crdt_sessions_server.auth import PERMISSIONS, Permission, Role
from crdt_sessions_server.mcp.tools import TOOLS
from tests.access.conftest import SECRET, bearer, token
from tests.mcp.conftest import VERSIONS, client
from tests.processes import PATIENCE, PROBLEM, Server

CALLS = {
    "list_sessions": ({}, Permission.READ),
    "read_session": ({"session": "{room}"}, Permission.READ),
    "post_message": ({"session": "{room}", "text": "x"}, Permission.POST),
    "ask": ({"session": "{room}", "text": "x", "wait": 0}, Permission.POST),
    "wait_for_answer": ({"session": "{room}", "run": "r", "wait": 0}, Permission.READ),
    "answer_ask": ({"session": "{room}", "run": "r", "call": "c"}, Permission.DECIDE),
    "cancel_run": ({"session": "{room}", "run": "r"}, Permission.CANCEL),
    "read_presence": ({"session": "{room}"}, Permission.READ),
    "search": ({"session": "{room}", "text": "x"}, Permission.READ),
}
"""Tool to a call of it, and what that takes."""
ISSUER = "https://issuer.example/"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mcp-access")
    secret = folder / "secret"
    secret.write_bytes(SECRET)
    server = Server(
        folder / "s.db", "--jwt-secret-file", secret, "--jwt-issuer", ISSUER, "--default-agent", "",
        "--connect-burst", "100000", "--bad-token-burst", "100000", "--trusted-proxies", "127.0.0.1/32",
    )  # fmt: skip
    yield server
    server.close()


@pytest.fixture
def issued():
    """Return a token of the issuer's."""
    return lambda *who, **claims: token(*who, issuer=ISSUER, **claims)


def said(answer):
    problem = answer.structured_content or {}
    return str(problem.get("type", "")).removeprefix(PROBLEM)


async def made(service, room, issued, **claims):
    headers = {"Authorization": f"Bearer {issued('maker', 'service', **claims)}"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=PATIENCE) as http:
        assert (await http.post("/v1/sessions", json={"id": room})).status_code == 201
        await http.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": "?"})
        await http.post(f"/v1/sessions/{room}/runs", json={"id": "r", "messageId": "q", "agent": "x"})


def filled(given, room):
    return {name: value.replace("{room}", room) if isinstance(value, str) else value for name, value in given.items()}


def test_no_tool_is_untested():
    assert set(CALLS) == set(TOOLS)


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_may_do_with_tools_what_the_table_says(service, role, room, issued):
    await made(service, room, issued)
    async with client(service.url, token=issued(f"a-{role}", role)) as mcp:
        for name, (given, needs) in CALLS.items():
            answer = await mcp.call_tool(name, filled(given, room))
            assert (said(answer) == "access-denied") is (needs not in PERMISSIONS[role]), (name, answer)
        if Permission.READ in PERMISSIONS[role]:
            await mcp.read_resource(f"session://{room}/messages")


async def test_another_tenants_session_is_like_none(service, version, room, issued):
    await made(service, room, issued, tenant="acme")
    async with client(service.url, VERSIONS[version], issued("eve", "owner", tenant="umbrella")) as mcp:
        for name, (given, _) in CALLS.items():
            if name in ("list_sessions", "post_message", "ask"):  # a session of one's own is made
                continue
            theirs = await mcp.call_tool(name, filled(given, room))
            nobodys = await mcp.call_tool(name, filled(given, f"{room}-2"))
            assert (theirs.is_error, said(theirs)) == (nobodys.is_error, said(nobodys)) == (True, "session-not-found")
        assert (await mcp.call_tool("list_sessions", {})).structured_content["sessions"] == []
        assert (await mcp.list_resources()).resources == []


async def test_a_session_of_the_protocol_is_its_principals(service, issued):
    opened = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}}  # fmt: skip
    accept = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(base_url=service.url, headers=accept, timeout=PATIENCE) as http:
        ann = {"Authorization": f"Bearer {issued('ann')}"}
        answer = await http.post("/mcp", json=opened, headers=ann)
        session = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        fresh = {"Authorization": f"Bearer {issued('ann', name='Ann')}"}  # another token of hers
        assert (await http.post("/mcp", json=ping, headers=session | fresh)).status_code == 200
        for other in (issued("eve"), issued("ann", tenant="acme")):
            theirs = {"Authorization": f"Bearer {other}"}
            assert (await http.post("/mcp", json=ping, headers=session | theirs)).status_code == 404
            assert (await http.delete("/mcp", headers=session | theirs)).status_code == 404
        assert (await http.delete("/mcp", headers=session | ann)).status_code == 200
        assert (await http.post("/mcp", json=ping, headers=session | ann)).status_code == 404


async def test_a_client_without_a_token_is_told_where_to_get_one(service):
    async with httpx.AsyncClient(base_url=service.url) as http:
        for headers in ({}, {"Authorization": "Bearer nonsense"}, bearer("eve")):
            refused = await http.post("/mcp", json={}, headers=headers)
            assert refused.status_code == 401
        where = refused.headers["WWW-Authenticate"].removeprefix('Bearer resource_metadata="').rstrip('"')
        metadata = (await http.get(where)).json()
        assert metadata["resource"] == f"{service.url}/mcp"
        assert metadata["authorization_servers"] == [ISSUER]
        behind = {"X-Forwarded-Proto": "https", "Host": "sessions.example"}
        refused = await http.post("/mcp", json={}, headers=behind)
        assert 'resource_metadata="https://sessions.example/.well-known/' in refused.headers["WWW-Authenticate"]
        assert (await http.get(where, headers=behind)).json()["resource"] == "https://sessions.example/mcp"


HOSTILE = [
    b"", b"{", b"null", b"[]", b"[" * 50_000, b'{"jsonrpc": "2.0"}', b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":5}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ask","arguments":[]}}',
    b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"session://[::"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"//"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tasks/update","params":{"taskId":"a/b","inputResponses":{"c":5}}}',
    b'{"jsonrpc":"2.0","id":"\\ud83d","method":"ping"}', b'{"jsonrpc":"2.0","id":1,"result":{}}', b"\xff\xfe",
    b'{"jsonrpc":"2.0","id":1e999,"method":"ping"}', b'{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen"}',
]  # fmt: skip


async def test_what_is_no_message_is_refused_and_the_service_goes_on(service, issued):
    headers = {"Authorization": f"Bearer {issued('eve')}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=PATIENCE) as http:
        for body in HOSTILE:
            for version in ("2026-07-28", "2025-11-25", "1999-01-01", "\x7f", None):
                more = {"Accept": "application/json, text/event-stream"} | (
                    {"MCP-Protocol-Version": version, "Mcp-Session-Id": "x" * 300} if version else {}
                )
                answer = await http.post("/mcp", content=body, headers=more)
                assert 200 <= answer.status_code < 500, (body[:80], version, answer.status_code, answer.text)
        for kind in ("text/plain", "multipart/form-data", ""):
            answer = await http.post("/mcp", content=b"{}", headers={"Content-Type": kind})
            assert answer.status_code == 415
        assert (await http.get("/v1/sessions")).status_code == 200
    assert not [line for line in service.lines if "Traceback" in line]


async def test_state_that_a_client_makes_up_gets_it_nothing(service, room, issued):
    await made(service, room, issued, tenant="acme")
    eve = issued("eve", "owner", tenant="umbrella")
    async with client(service.url, token=eve) as mcp:
        given = {"session": "s", "run": "r", "wait": 0}
        theirs = await mcp.session.call_tool("wait_for_answer", given, request_state=json.dumps([room, "r"]))
        assert said(theirs) == "session-not-found"
        for state in ("[]", "nonsense", "5", '["s"]'):
            with pytest.raises(MCPError, match="requestState"):
                await mcp.session.call_tool("wait_for_answer", given, request_state=state)
