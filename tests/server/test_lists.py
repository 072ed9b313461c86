"""Lists across sessions: what they show, page by page, and to whom."""

import json
from contextlib import asynccontextmanager

from crdt_sessions.runtime import Dispatcher
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock
from crdt_sessions_server.auth import Principal, Role
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings


class Names:
    """Takes a token for whom it stands for: ``tenant/principal``, and the sessions they may use."""

    def __init__(self, sessions):
        self._sessions = sessions

    async def authorize(self, token, session):
        tenant, name = token.split("/")
        return Principal(name, tenant=tenant, role=Role.SERVICE, sessions=self._sessions.get(token, ("*",)))

    def revision(self):
        return 0


class Client:
    """Asks a service in this process; an agent can be played there, and the time moved."""

    def __init__(self, service, clock):
        self.registry, self.clock = service.registry, clock
        self._client = service.app.test_client()
        self.dispatcher = Dispatcher(self.registry)

    async def get(self, path, by="acme/ann", **parameters):
        headers = {"Host": "localhost", "Authorization": f"Bearer {by}"}
        response = await self._client.get(path, query_string=parameters or None, headers=headers)
        return json.loads(await response.get_data())

    async def post(self, path, body, by="acme/ann", method="POST"):
        headers = {"Host": "localhost", "Authorization": f"Bearer {by}"}
        response = await self._client.open(path, method=method, json=body, headers=headers)
        data = await response.get_data()
        assert response.status_code < 400, data
        return json.loads(data or "null")

    async def told(self, path, key, **parameters):
        """All of a list, read in pages of two."""
        found, cursor = [], {}
        while True:
            page = await self.get(path, limit=2, **parameters, **cursor)
            assert len(page[key]) <= 2
            found += page[key]
            if "nextCursor" not in page:
                return found
            cursor = {"cursor": page["nextCursor"]}

    async def sessions(self, **parameters):
        return [each["id"] for each in await self.told("/v1/sessions", "sessions", **parameters)]

    async def runs(self, **parameters):
        return [each["run"]["id"] for each in await self.told("/v1/runs", "runs", **parameters)]


@asynccontextmanager
async def served(**sessions):
    clock = FakeClock()
    allowed = {name.replace("__", "/"): patterns for name, patterns in sessions.items()}
    settings = Settings(default_agent="")
    async with Service(settings, store=MemoryStore(), authorizer=Names(allowed), clock=clock) as service:
        yield Client(service, clock)


async def made(client, *names, by="acme/ann"):
    for name in names:
        await client.post("/v1/sessions", {"id": name, "metadata": {"name": name}}, by)
        await client.clock.advance(1.0)


async def test_sessions_are_listed_by_recency_status_and_member():
    async with served() as client:
        await made(client, "a", "b", "c", "d", "e")
        await made(client, "theirs", by="umbrella/eve")
        assert await client.sessions() == ["a", "b", "c", "d", "e"]
        assert await client.sessions(order="recent") == ["e", "d", "c", "b", "a"]
        await client.post("/v1/sessions/b/messages", {"text": "!"})
        assert await client.sessions(order="recent") == ["b", "e", "d", "c", "a"]
        await client.post("/v1/sessions/c", {"status": "closed"}, method="PATCH")
        await client.post("/v1/sessions/d", {"status": "archived"}, method="PATCH")
        for order in ("id", "recent"):
            assert sorted(await client.sessions(order=order, status="active")) == ["a", "b", "e"]
            assert sorted(await client.sessions(order=order, status="closed,archived")) == ["c", "d"]
        for name in ("a", "e", "d"):
            await client.post(f"/v1/sessions/{name}/members/bob", {"role": "editor"}, method="PUT")
        assert await client.sessions(member="bob") == ["a", "d", "e"]
        assert await client.sessions(member="bob", status="active") == ["a", "e"]
        assert set(await client.sessions(member="bob", order="recent")) == {"a", "d", "e"}
        assert (await client.get("/v1/sessions/a"))["metadata"] == {"name": "a"}


async def test_a_session_that_changes_between_pages_is_not_listed_twice():
    async with served() as client:
        await made(client, "a", "b", "c", "d", "e")
        page = await client.get("/v1/sessions", order="recent", limit=2)
        assert [each["id"] for each in page["sessions"]] == ["e", "d"]
        await client.post("/v1/sessions/e/messages", {"text": "!"})
        await client.post("/v1/sessions/a/messages", {"text": "!"})
        rest = await client.get("/v1/sessions", order="recent", limit=9, cursor=page["nextCursor"])
        assert [each["id"] for each in rest["sessions"]] == ["c", "b"], "and a is at the front now"


async def test_lists_hold_only_sessions_that_the_caller_may_use_in_full_pages():
    async with served(acme__bob=("team-*",)) as client:
        await made(client, "a", "b", "c", "team-1", "team-2", "team-3", "z")
        for order in ("id", "recent"):
            assert sorted(await client.sessions(by="acme/bob", order=order)) == ["team-1", "team-2", "team-3"]
            page = await client.get("/v1/sessions", by="acme/bob", order=order, limit=3)
            assert (len(page["sessions"]), "nextCursor" in page) == (3, False)
        for name in ("a", "team-1", "team-2"):
            await client.post(f"/v1/sessions/{name}/messages", {"id": name, "text": "?", "agent": "writer"})
        assert await client.runs(by="acme/bob") == ["run-team-2", "run-team-1"]
        assert await client.runs(by="umbrella/eve") == []


async def test_a_malformed_cursor_is_refused():
    async with served() as client:
        for path in ("/v1/sessions?order=recent&cursor=nonsense", "/v1/runs?cursor=WzFd", "/v1/runs?cursor=%C3%A4"):
            answer = await client.get(path)
            assert (answer["status"], "cursor" in answer["detail"]) == (422, True)
        for path in ("/v1/sessions?status=odd", "/v1/runs?status=queued,odd", "/v1/sessions?order=odd"):
            assert (await client.get(path))["status"] == 422


async def test_runs_of_all_sessions_are_listed_by_status_and_agent():
    async with served() as client:
        await made(client, "a", "b")
        for at, (name, agent) in enumerate((("a", "writer"), ("b", "writer"), ("a", "critic"), ("b", "*"))):
            await client.clock.advance(1.0)
            await client.post(f"/v1/sessions/{name}/messages", {"id": f"m{at}", "text": "?", "agent": agent})
        assert await client.runs() == ["run-m3", "run-m2", "run-m1", "run-m0"]
        claim = await client.dispatcher.claim(["writer"], owner="w", tenant="acme")
        assert await client.runs(status="running") == [claim.run.id] == ["run-m0"]
        assert await client.runs(status="queued,running", agent="writer") == ["run-m1", "run-m0"]
        first = (await client.get("/v1/runs", status="running"))["runs"][0]
        assert (first["session"], first["run"]["lease"]["agent"]) == ("a", "writer")
        await client.post("/v1/sessions/a/runs/run-m0/cancel", {})
        assert await client.runs(agent="critic", status="queued") == ["run-m2"]


async def test_agents_are_listed_with_their_presence_and_runs():
    async with served(acme__bob=("team-*",)) as client:
        await made(client, "a", "team-1")
        assert await client.get("/v1/agents") == {"agents": []}
        for name in ("a", "team-1"):
            await client.post(f"/v1/sessions/{name}/messages", {"id": name, "text": "?", "agent": "writer"})
        for _ in range(2):
            await client.dispatcher.claim(["writer"], owner="w", tenant="acme")
        await client.dispatcher.claim(["critic"], owner="c", tenant="acme")
        critic, writer = (await client.get("/v1/agents"))["agents"]
        assert critic == {"name": "critic", "present": False, "runs": [], "seenAt": client.clock.now()}
        assert (writer["name"], writer["present"], "seenAt" in writer) == ("writer", True, False)
        assert {(work["session"], work["run"]) for work in writer["runs"]} == {
            ("a", "run-a"),
            ("team-1", "run-team-1"),
        }
        assert writer["runs"][0]["since"] == client.clock.now()
        (_, writer) = (await client.get("/v1/agents", by="acme/bob"))["agents"]
        assert [work["session"] for work in writer["runs"]] == ["team-1"]
        assert await client.get("/v1/agents", by="umbrella/eve") == {"agents": []}


async def test_an_agent_is_known_after_a_restart():
    store = MemoryStore()
    for known in (False, True):
        async with Service(Settings(), store=store, authorizer=Names({})) as service:
            client = Client(service, None)
            agents = (await client.get("/v1/agents"))["agents"]
            assert [(each["name"], each["present"]) for each in agents] == ([("writer", False)] if known else [])
            await client.dispatcher.claim(["writer"], owner="w", tenant="acme")
