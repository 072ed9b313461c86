"""A service in this process, with an agent that is played, for tests of gateways that need no client of theirs."""

import json
from contextlib import asynccontextmanager

from crdt_sessions.model import Author, RunResult
from crdt_sessions.runtime import Dispatcher
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings


class Client:
    """Asks a service in this process, where an agent can be played."""

    def __init__(self, service):
        self.registry = service.registry
        self._client = service.app.test_client()
        self._dispatcher = Dispatcher(self.registry)

    async def get(self, path):
        response = await self._client.get(path, headers={"Host": "localhost"})
        return json.loads(await response.get_data())

    async def post(self, path, body, **headers):
        response = await self._client.post(path, json=body, headers={"Host": "localhost", **headers})
        return response.status_code, json.loads(await response.get_data()), response.headers

    async def send(self, path, body):
        response = await self._client.post(path, json=body, headers={"Host": "localhost"})
        return await response.get_data(as_text=True)

    async def claim(self, name="writer", wait_s=0.0):
        return await self._dispatcher.claim([name], owner=name, tenant="", wait_s=wait_s)

    async def answer(self, claim, text):
        def write(view):
            run = view.runs.find(claim.run.id)
            out = view.begin_output(run, Author(id="w", kind="agent"), 1).open_text()
            out.append(text)
            out.close()
            view.runs.report(run.id, RunResult(status="completed", epoch=claim.run.epoch, at=1))

        async with self.registry.open(claim.session.id) as session:
            await session.edit(write)


@asynccontextmanager
async def served(store=None, **settings):
    settings = Settings(**{"agent_wait_s": 0.05, "default_agent": ""} | settings)
    async with Service(settings, store=store or MemoryStore()) as it:
        yield Client(it)
