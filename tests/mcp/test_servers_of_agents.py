"""An agent has the tools of an MCP server by its URL: calls are parts of the answer, and people approve them first."""

import asyncio
import contextlib
import json

import httpx
import pytest
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

from crdt_sessions import RunFailed, bridges
from crdt_sessions.bridges.mcp import Server as McpServer
from crdt_sessions.client.toolbox import RunTools
from crdt_sessions.errors import NotFound
from crdt_sessions.model import RunInput
from tests.agents import working
from tests.processes import PATIENCE, Server, free_port

pytestmark = pytest.mark.filterwarnings("ignore:.*websockets.*:DeprecationWarning")


class Desk:
    """An MCP server that books seats, and remembers who asked it for what."""

    def __init__(self):
        self.booked, self.keys = [], []
        self.server = MCPServer("desk")

        @self.server.tool(annotations=ToolAnnotations(read_only_hint=True))
        def seats() -> list[int]:
            """List the seats that are free."""
            return [1, 2]

        @self.server.tool()
        def book(seat: int, context: Context) -> dict[str, int]:
            """Book a seat."""
            self.booked.append(seat)
            self.keys.append(dict(context.request_context.meta or {}).get("crdt-sessions/idempotency-key"))
            if seat > 2:
                raise ToolError("there is no such seat")
            return {"seat": seat}

        @self.server.tool()
        def flood() -> str:
            """Return too much."""
            return "x" * 300_000

    @contextlib.asynccontextmanager
    async def served(self):
        app = self.server.streamable_http_app()
        port = free_port()
        web = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
        serving = asyncio.create_task(web.serve())
        while not web.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            web.should_exit = True
            await serving


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("mcp-tools") / "s.db", "--default-agent", "")
    yield server
    server.close()


async def answer(run):
    """Call what the question says: a tool and its input, as JSON."""
    for name, given in json.loads(run.message.text):
        outcome = await run.tools.call(name, given)
        await run.out.write(f"{outcome.code} {json.dumps(outcome.output)} {outcome.error or ''};")


async def asked(http, room, text):
    await http.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": text, "agent": "clerk"})


async def run_is(http, room, *statuses):
    async with asyncio.timeout(PATIENCE):
        while True:
            run = (await http.get(f"/v1/sessions/{room}/runs/run-q")).json()
            if run.get("status") in statuses:
                return run
            await asyncio.sleep(0.03)


async def written(http, room):
    (message,) = (await http.get(f"/v1/sessions/{room}/messages?after=1")).json()["messages"]
    tools = [part for part in message["parts"] if part["type"] == "tool"]
    return tools, "".join(part["text"] for part in message["parts"] if part["type"] == "text")


@pytest.mark.parametrize("approved", [True, False])
async def test_people_approve_a_call_before_the_server_is_asked(service, room, approved):
    desk = Desk()
    async with desk.served() as url, httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        tools = [McpServer(url, approve="writes")]
        async with working(service.url, answer, name="clerk", tools=tools, quiet=True):
            await asked(http, room, '[["seats", {}], ["book", {"seat": 1}]]')
            run = await run_is(http, room, "suspended")
            assert desk.booked == []
            (pending,) = run["pending"]
            assert pending["toolName"] == "book"
            path = f"/v1/sessions/{room}/runs/run-q/approvals/{pending['toolCallId']}"
            assert (await http.post(path, json={"approved": approved, "reason": "why not"})).status_code == 200
            await run_is(http, room, "completed")
        parts, text = await written(http, room)
    assert [part["toolName"] for part in parts] == ["seats", "book"]
    assert parts[0]["output"] == {"result": [1, 2]}
    assert "approvalRequest" not in parts[0]
    assert desk.booked == ([1] if approved else [])
    assert parts[1]["state"] == ("output-available" if approved else "output-denied")
    assert parts[1].get("output") == ({"seat": 1} if approved else None)
    assert ("refused null why not;" in text) is not approved
    if approved:
        assert desk.keys == [f"{room}/run-q/{parts[1]['toolCallId']}"]


async def test_what_goes_wrong_at_a_server_is_told_to_the_model(service, room):
    desk = Desk()
    async with desk.served() as url, httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        tools = [McpServer(url, approve="never", prefix="desk_")]
        async with working(service.url, answer, name="clerk", tools=tools, quiet=True):
            await asked(http, room, '[["desk_book", {"seat": 9}], ["desk_book", {"sea": 1}], ["desk_flood", {}]]')
            await run_is(http, room, "completed")
        parts, _ = await written(http, room)
    assert [part["state"] for part in parts] == ["output-error"] * 3
    assert "no such seat" in parts[0]["errorText"]
    assert "bytes" in parts[2]["errorText"]
    assert desk.booked == [9]


async def test_a_server_that_is_away_fails_the_run_with_its_address(service, room):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        gone = f"http://127.0.0.1:{free_port()}/mcp"
        async with working(service.url, answer, name="clerk", tools=[McpServer(gone)], quiet=True):
            await asked(http, room, '[["seats", {}]]')
            run = await run_is(http, room, "failed")
    assert gone in run["outcome"]["error"]["message"]


async def test_the_tools_are_told_as_those_of_a_question_are():
    desk = Desk()
    async with desk.served() as url:
        specs = await RunTools(None, [McpServer(url, only=["book"], prefix="desk_")]).specs()
        (function,) = bridges.openai.parameters(RunInput(tools=specs))["tools"]
        assert function["function"]["name"] == "desk_book"
        assert function["function"]["parameters"]["required"] == ["seat"]
        with pytest.raises(ValueError, match="prefix"):
            await RunTools(None, [McpServer(url), McpServer(url)]).specs()
        with pytest.raises(NotFound, match="desk_book"):
            await RunTools(None, [McpServer(url, only=["book"], prefix="desk_")]).call("seats")


async def test_a_function_says_which_calls_people_approve():
    desk = Desk()
    async with desk.served() as url:
        server = McpServer(url, approve=lambda tool, input: tool.name == "book" and input["seat"] == 1)
        await server.tools()
        assert [server.asks("book", {"seat": seat}) for seat in (1, 2)] == [True, False]
        always, never = McpServer(url), McpServer(url, approve="never")
        for each in (always, never):
            await each.tools()
        assert (always.asks("seats", {}), never.asks("book", {})) == (True, False)


async def test_what_is_no_server_is_told_without_a_trace(service):
    with pytest.raises(RunFailed, match="cannot be had"):
        await McpServer(f"{service.url}/v1/me").tools()
