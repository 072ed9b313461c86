"""MCP clients whose connections are cut, whose service or agent is killed: each gets the whole answer, once.

No client of the protocol goes on with a call whose connection broke. It makes the call again, with the same ``id``.
"""

import asyncio
import random

import httpx
import httpx2
import pytest
from mcp.shared.exceptions import MCPError

from crdt_sessions import connect
from tests.gateways.agent import WORDS
from tests.gateways.conftest import Mortal
from tests.interop.node import NodePeers
from tests.mcp.conftest import VERSIONS, client
from tests.mcp.test_conformance import JS, needs_node
from tests.processes import PATIENCE
from tests.proxy import Proxy

pytestmark = [pytest.mark.interop, pytest.mark.crash, needs_node]

KINDS = {"python 2026-07-28": "2026-07-28", "python 2025-11-25": "2025-11-25", "sdk": None, "client": None}
"""Python's package in both versions of the protocol, and both of JavaScript's."""
COUNT, CUTS = 40, 10


@pytest.fixture(scope="module")
def mortal(tmp_path_factory):
    service = Mortal(tmp_path_factory.mktemp("cuts"))
    yield service
    service.close()


@pytest.fixture(scope="module")
def node():
    peers = NodePeers(JS / "clients.mjs")
    yield peers
    peers.close()


class Clients:
    """One client of each kind; each calls a tool until the run has ended, and says how often and what it got."""

    def __init__(self, url, node):
        self._url, self._node = url, node

    async def insist(self, kind, tool, **given):
        if KINDS[kind] is None:
            return await self._node.ask("insist", url=self._url, kind=kind, tool=tool, given=given)
        tries = 0
        while True:
            tries += 1
            try:
                async with asyncio.timeout(10), client(self._url, VERSIONS[KINDS[kind]]) as mcp:
                    said = (await mcp.call_tool(tool, given)).structured_content or {}
                if said.get("status") == "completed":
                    return {"tries": tries, "text": said["text"]}
            except* (MCPError, httpx2.HTTPError, OSError, TimeoutError):
                await asyncio.sleep(0.03)

    async def all(self, call):
        """Return what each kind of client gets, by kind; *call* says what it insists on."""
        answers = await asyncio.wait_for(asyncio.gather(*(call(kind) for kind in KINDS)), 3 * PATIENCE)
        return dict(zip(KINDS, answers, strict=True))


def text_of(count):
    return "".join(WORDS[each % len(WORDS)] for each in range(count))


def session_of(name, kind):
    return f"{name}-{kind.replace(' ', '-')}"


async def written(url, session, count):
    """Return once so many words stand in the answer of a session."""
    async with connect(url, session) as peer:
        await peer.until(lambda: any(each.text.count(" ") >= count for each in peer.messages.all()[1:]))


async def as_in_the_document(url, session, text):
    """See that the session has one question and one answer, whatever its clients repeated."""
    async with httpx.AsyncClient(base_url=url) as http:
        messages = (await http.get(f"/v1/sessions/{session}/messages")).json()["messages"]
        runs = (await http.get(f"/v1/sessions/{session}/runs")).json()["runs"]
    assert [each["role"] for each in messages] == ["user", "assistant"]
    assert "".join(part["text"] for part in messages[1]["parts"]) == text
    assert [each["status"] for each in runs] == ["completed"]


async def test_clients_that_are_cut_at_ten_points_get_the_whole_answer(mortal, node):
    points = sorted(random.Random(22).sample(range(COUNT), CUTS))
    async with Proxy(mortal.server.port) as proxy:
        clients = Clients(proxy.url, node)

        async def ask(kind):
            return await clients.insist(kind, "ask", session=session_of("cut", kind), text=f"say {COUNT} 20", id="q")

        asking = asyncio.create_task(clients.all(ask))
        async with connect(mortal.url, session_of("cut", "sdk")) as peer:
            for point in points:
                await peer.until(lambda n=point: sum(each.text.count(" ") for each in peer.messages.all()[1:]) >= n)
                proxy.sever()
        answers = await asking
    for kind, answer in answers.items():
        assert answer["text"] == text_of(COUNT), kind
        assert answer["tries"] > 1, kind
        await as_in_the_document(mortal.url, session_of("cut", kind), text_of(COUNT))


async def test_clients_whose_agent_is_killed_get_the_whole_answer_and_so_do_second_devices(mortal, node):
    clients, text = Clients(mortal.url, node), text_of(20) + text_of(10)
    async with client(mortal.url) as mcp:
        question = {"session": "orphaned", "text": "say 20; die; say 10", "id": "q", "wait": 0}
        await mcp.call_tool("ask", question)
    answers = await clients.all(lambda kind: clients.insist(kind, "wait_for_answer", session="orphaned", run="run-q"))
    assert mortal.agent_died
    assert {answer["text"] for answer in answers.values()} == {text}
    await as_in_the_document(mortal.url, "orphaned", text)


@pytest.mark.nightly  # a task that outlives the service shows it in CI
async def test_clients_whose_service_is_killed_get_the_whole_answer(mortal, node):
    clients = Clients(mortal.url, node)

    async def ask(kind):
        return await clients.insist(kind, "ask", session=session_of("killed", kind), text=f"say {COUNT} 20", id="q")

    asking = asyncio.create_task(clients.all(ask))
    await asyncio.gather(*(written(mortal.url, session_of("killed", kind), 5) for kind in KINDS))
    await asyncio.to_thread(mortal.kill)
    await asyncio.to_thread(mortal.start)
    for kind, answer in (await asking).items():
        assert answer["text"] == text_of(COUNT), kind
        await as_in_the_document(mortal.url, session_of("killed", kind), text_of(COUNT))
