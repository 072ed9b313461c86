"""The library's server behind our route: it is not there until it is asked for, and leaves nothing behind."""

import asyncio
import json
import shlex
import signal
import subprocess
import sys

import httpx
import pytest

from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.arguments import parse
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.gateways.mcp import Host, host
from crdt_sessions_server.gateways.mcp.host import Caller
from crdt_sessions_server.http.inside import Inside
from crdt_sessions_server.mcp import command as mcp_command
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.gateways.conftest import agent
from tests.mcp.conftest import client
from tests.mcp.test_asks_and_tasks import Tasks
from tests.processes import PATIENCE, PROBLEM, ROOT, Server, attempts, free_port

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
}  # fmt: skip
HEADERS = {
    "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call",
    "Mcp-Name": "ask",
}  # fmt: skip
ASK = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
    "name": "ask", "arguments": {"session": "s", "text": "?"}, "_meta": ENVELOPE}}  # fmt: skip


def inside(service):
    return httpx.AsyncClient(base_url="http://localhost", transport=Inside(service.app.asgi_app, "127.0.0.1"))


PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
COMMAND = (sys.executable, "-m", "crdt_sessions_server", "mcp", "--url", "http://127.0.0.1:1")


def test_a_command_that_nobody_speaks_with_says_so():
    child = shlex.join(COMMAND) + " <&-"
    done = subprocess.run(["sh", "-c", child], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2
    assert (
        done.stderr
        == "crdt-sessions: an MCP client is to start this, and to speak with it on standard input and output\n"
    )


def test_a_client_that_goes_away_before_its_answer_leaves_no_traceback(monkeypatch, capsys):
    async def serve(_):
        raise ExceptionGroup("of the library's tasks", [BrokenPipeError()])

    monkeypatch.setattr(mcp_command, "_serve", serve)
    assert mcp_command.run(parse(["mcp"])) == 2
    assert capsys.readouterr().err == "crdt-sessions: the MCP client went away before it had its answer\n"


@pytest.mark.parametrize("end", ["it is interrupted", "its answers are not read"])
@pytest.mark.parametrize("came", ["", "{"], ids=["lines", "half a line"])
def test_a_command_ends_though_its_standard_input_stays_open(end, came):
    """It would stay until its client closed that, at Ctrl-C too, if it waited for the thread that reads."""
    with subprocess.Popen(
        COMMAND, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who runs in the background ignores it
    ) as child:  # fmt: skip
        try:
            print(json.dumps(PING), file=child.stdin, flush=True)
            assert json.loads(child.stdout.readline())["id"] == PING["id"]
            if end == "it is interrupted":
                print(came, end="", file=child.stdin, flush=True)
                child.send_signal(signal.SIGINT)
                assert child.wait(PATIENCE) == 130
            else:
                child.stdout.close()
                print(json.dumps(PING), file=child.stdin)
                print(came, end="", file=child.stdin, flush=True)
                assert child.wait(PATIENCE) == 2
                assert child.stderr.read() == "crdt-sessions: the MCP client went away before it had its answer\n"
        finally:
            child.kill()


def test_who_does_not_ask_for_it_does_not_import_it():
    code = "import sys, crdt_sessions_server.cli, crdt_sessions.bridges; print([each for each in sys.modules if each.split('.')[0] in ('mcp', 'starlette')])"
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert said.stdout.strip() == "[]"


async def test_without_the_package_the_answer_says_what_to_install(monkeypatch):
    monkeypatch.setattr(Host, "installed", False)
    async with Service(Settings(), store=MemoryStore()) as service, inside(service) as http:
        refused = await http.post("/mcp", json=ASK)
        assert (refused.status_code, refused.json()["type"]) == (501, f"{PROBLEM}not-installed")
        assert "pip install 'crdt-sessions[mcp]'" in refused.json()["detail"]


async def test_a_client_that_hangs_up_leaves_nothing_behind():
    async with Service(Settings(default_agent=""), store=MemoryStore()) as service, inside(service) as http:
        asking = asyncio.create_task(http.post("/mcp", json=ASK, headers=HEADERS, timeout=None))
        for _ in attempts():
            if service._mcp._exchanges and (await http.get("/v1/sessions/s/runs")).status_code == 200:
                break
            await asyncio.sleep(0.02)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        for _ in attempts():
            if not service._mcp._exchanges:
                break
            await asyncio.sleep(0.02)
        assert not service._mcp._exchanges
        (run,) = (await http.get("/v1/sessions/s/runs")).json()["runs"]
        assert run["status"] == "queued", "to leave is not to stop"


async def test_an_answer_that_is_thrown_away_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(host, "_UNREAD_S", 0.01)
    async with Service(Settings(default_agent=""), store=MemoryStore()) as service:
        scope = {"type": "http", "method": "GET", "path": "/mcp", "headers": [(b"accept", b"text/event-stream")]}
        caller = Caller(Principal("ann"), None, "127.0.0.1")
        await service._mcp.answer(service.app.asgi_app, scope, b"", caller)
        for _ in attempts():
            if not service._mcp._exchanges:
                break
            await asyncio.sleep(0.02)
        assert not service._mcp._exchanges


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.sampled(2)
async def test_a_service_stops_while_clients_wait(tmp_path, mode):
    server = Server(tmp_path / "s.db", "--default-agent", "")

    async def wait():
        async with client(server.url, mode) as mcp:
            await mcp.call_tool("ask", {"session": "s", "text": "?"})

    waiting = asyncio.create_task(wait())
    try:
        async with httpx.AsyncClient(base_url=server.url) as http:
            for _ in attempts():
                if (await http.get("/v1/sessions/s/runs")).status_code == 200:
                    break
                await asyncio.sleep(0.05)
        server.child.terminate()
        assert await asyncio.to_thread(server.child.wait, PATIENCE) == 0
        assert not [line for line in server.lines if "Traceback" in line], server.lines
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        server.close()


async def test_a_task_outlives_the_service(tmp_path):
    flags = ("--default-agent", "writer", "--port", str(free_port()))
    server = Server(tmp_path / "s.db", *flags)
    writer = agent(server.url)
    tasks = Tasks("leave")
    try:
        async with client(server.url, extensions=[tasks]) as mcp:
            await mcp.call_tool("ask", {"session": "s", "text": "choose", "id": "q"})
        server.kill()
        server = Server(tmp_path / "s.db", *flags)
        async with client(server.url) as mcp:
            told = await tasks.request(mcp.session, "tasks/get", taskId="s/run-q")
            assert told["status"] == "input_required"
            answers = {key: {"action": "accept", "content": {"answer": "Oslo"}} for key in told["inputRequests"]}
            await tasks.request(mcp.session, "tasks/update", taskId="s/run-q", inputResponses=answers)
            for _ in attempts():
                told = await tasks.request(mcp.session, "tasks/get", taskId="s/run-q")
                if told["status"] == "completed":
                    break
                await asyncio.sleep(0.05)
        assert told["result"]["structuredContent"]["text"] == "to Oslo "
    finally:
        writer.close()
        server.close()
