import contextlib

import pytest
from httpx2 import AsyncClient, Timeout
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.gateways.conftest import agent
from tests.processes import Server

VERSIONS = {"2026-07-28": "auto", "2025-11-25": "legacy"}
"""Version of the protocol to how the client is told to speak it."""


@contextlib.asynccontextmanager
async def client(url, mode="auto", token=None, **options):
    """Yield a connected client of the newest package."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with AsyncClient(headers=headers, timeout=Timeout(30, read=300)) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode, cache=None, **options) as mcp:
            yield mcp


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service with an agent that does what it is told."""
    server = Server(tmp_path_factory.mktemp("mcp") / "s.db", "--default-agent", "writer")
    writer = agent(server.url)
    yield server
    writer.close()
    server.close()


@pytest.fixture
def room(request):
    """A session for each test."""
    return "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")


@pytest.fixture(params=VERSIONS)
def version(request):
    """Every version of the protocol that is offered."""
    return request.param
