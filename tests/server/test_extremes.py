"""Requests that ask for more than anything can be, or cost more than they should: refused, and nobody else feels it."""

import httpx
import pytest

from crdt_sessions.errors import NotAuthenticated
from crdt_sessions.runtime.claimants import LONGEST_LEASE_S, Claimant
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.auth import Principal, Role
from crdt_sessions_server.http.inside import Inside
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings

ROOM = "/v1/sessions/room"


class People:
    """Takes ``principal:role`` for a token."""

    async def authorize(self, token, session):
        if not token:
            raise NotAuthenticated
        id, role = token.split(":")
        return Principal(id, role=Role(role))

    def revision(self):
        return 0


@pytest.fixture
async def service():
    async with Service(Settings(sandbox=False), store=MemoryStore(), authorizer=People()) as service:
        yield service


@pytest.fixture
async def http(service):
    headers = {"Authorization": "Bearer ann:service"}
    async with httpx.AsyncClient(base_url="http://x", transport=Inside(service.app, "::1"), headers=headers) as http:
        assert (await http.post("/v1/sessions", json={"id": "room"})).status_code == 201
        yield http


@pytest.mark.parametrize("wanted", [b"1e306", b'"inf"', b"86401", b'"nan"'])
async def test_a_lease_longer_than_any_is_refused_and_the_session_goes_on(http, wanted):
    message = (await http.post(f"{ROOM}/messages", json={"text": "?", "agent": "writer"})).json()
    body = b'{"agents": ["writer"], "leaseS": %b}' % wanted
    run = f"{ROOM}/runs/run-{message['id']}"
    for path in ("/v1/runs/claim", f"{run}/claim"):
        answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "leaseS")
    assert (await http.get(run)).json()["status"] == "queued"
    assert (await http.post("/v1/runs/claim", json={"agents": ["writer"], "leaseS": 86400})).status_code == 200


@pytest.mark.parametrize("wanted", [1e306, float("inf"), float("nan"), float("-inf")])
async def test_a_claimant_with_an_endless_lease_has_the_longest_there_is(service, http, wanted):
    message = (await http.post(f"{ROOM}/messages", json={"text": "?", "agent": "writer"})).json()
    async with service.registry.open("room") as session:
        claimant = Claimant(("writer",), "bob", wanted, None, None)
        lease = session.assign(f"run-{message['id']}", claimant).run.lease
    assert 0 < lease.ttl <= LONGEST_LEASE_S * 1000
