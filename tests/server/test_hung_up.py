"""Clients that hang up in the middle of a change: it is made, and the audit log has it."""

import asyncio
import gzip

import httpx
import pytest

from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import settle
from crdt_sessions_server.auth import Principal, Role
from crdt_sessions_server.http.inside import Inside
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.processes import PATIENCE

ROOM = "/v1/sessions/room"
SUBSCRIPTION = "/v1/streams/__ds/subscriptions/s"
FOLLOWING = {"type": "pull-wake", "streams": ["kept"], "wake_stream": "wake"}
CHANGES = {
    "session.create": ("create", "POST", "/v1/sessions", {"id": "new"}),
    "session.status": ("append", "PATCH", ROOM, {"status": "closed"}),
    "session.restore": ("append", "POST", f"{ROOM}/versions/{{version}}/restore", None),
    "session.fork": ("create", "POST", f"{ROOM}/fork", {"id": "forked"}),
    "session.delete": ("delete", "DELETE", ROOM, None),
    "member.change": ("set_member", "PUT", f"{ROOM}/members/bob", {"role": "viewer"}),
    "token.revoke": ("revoke", "POST", "/v1/revocations", {"principal": "bob"}),
    "principal.erase": ("disown_streams", "DELETE", "/v1/principals/bob", None),
    "stream.create": ("alter_stream", "PUT", "/v1/streams/new", None),
    "stream.close": ("alter_stream", "POST", "/v1/streams/kept", b"the end"),
    "stream.delete": ("alter_stream", "DELETE", "/v1/streams/kept", None),
    "subscription.create": ("alter_stream", "PUT", SUBSCRIPTION, FOLLOWING),
    "subscription.delete": ("alter_stream", "DELETE", f"{SUBSCRIPTION}-there", None),
}
"""What the audit log calls a change: the store's method that makes it, and the request."""


class Admins:
    """Lets everybody in, as a backend."""

    async def authorize(self, token, session):
        return Principal("ann", role=Role.SERVICE)

    def revision(self):
        return 0


@pytest.fixture
async def service():
    async with Service(Settings(sandbox=False), store=MemoryStore(), authorizer=Admins()) as service:
        yield service


@pytest.fixture
async def http(service):
    transport, headers = Inside(service.app, "::1"), {"Authorization": "Bearer x"}
    async with httpx.AsyncClient(base_url="http://x", transport=transport, headers=headers) as http:
        for path in ("/v1/streams/kept", "/v1/streams/wake"):
            assert (await http.put(path, headers={"Content-Type": "text/plain"})).status_code == 201
        assert (await http.put(f"{SUBSCRIPTION}-there", json=FOLLOWING)).status_code == 201
        assert (await http.post("/v1/sessions", json={"id": "room"})).status_code == 201
        yield http


async def entries(service, action):
    """Return how many entries the audit log has of a kind of change."""
    await service.registry.audit.flush()
    return len(await service.registry.store.audit("", action=action, limit=100))


@pytest.mark.parametrize("action", CHANGES)
async def test_a_change_is_in_the_audit_log_though_whoever_makes_it_hangs_up(service, http, action, monkeypatch):
    """The change would be stored, and nobody could find out who made it."""
    writes, method, path, body = CHANGES[action]
    version = (await http.post(f"{ROOM}/versions", json={"name": "kept"})).json()["seq"]
    assert (await http.patch(ROOM, json={"title": "gone again"})).status_code == 200
    before = await entries(service, action)
    write, written, answers = getattr(service.registry.store, writes), asyncio.Event(), asyncio.Event()

    async def late(*args, **more):
        result = await write(*args, **more)
        written.set()
        await answers.wait()
        return result

    monkeypatch.setattr(service.registry.store, writes, late)
    sent = {"json": body}
    if isinstance(body, bytes):  # packed, it goes to its route, which ends when the client does
        headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip", "Stream-Closed": "true"}
        sent = {"content": gzip.compress(body), "headers": headers}
    asking = asyncio.create_task(http.request(method, path.format(version=version), **sent))
    async with asyncio.timeout(PATIENCE):
        await written.wait()
    asking.cancel()
    await settle(50)
    answers.set()
    await asyncio.gather(asking, return_exceptions=True)
    monkeypatch.undo()
    async with asyncio.timeout(PATIENCE):
        while await entries(service, action) == before:
            await asyncio.sleep(0.01)
