"""What runs may use in a day: no more begin once it is used, whoever asks and however; those under way go on."""

import contextlib

import httpx
import pytest

from crdt_sessions import connect
from crdt_sessions.model import RunRequest
from tests.access.conftest import bearer, guarded, token
from tests.processes import PATIENCE

FLAGS = ("--max-tokens-per-principal", "100", "--max-tokens-per-tenant", "1000", "--max-cost-per-tenant", "2.5")


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    server = guarded(tmp_path_factory.mktemp("allowances"), *FLAGS)
    yield server
    server.close()


def client(server, *who, **claims):
    return httpx.Client(base_url=server.url, headers=bearer(*who, **claims), timeout=PATIENCE)


def posted(http, room, text="?", **more):
    return http.post(f"/v1/sessions/{room}/messages", json={"text": text, "agent": "writer", **more})


def worked(server, tenant, **spent):
    """Do the next run of the tenant as an agent that says what it has spent; return the claim, if there was one."""
    with client(server, "worker", "agent", tenant=tenant) as agent:
        answer = agent.post("/v1/runs/claim", json={"agents": ["writer"], "waitS": 0})
        if answer.status_code == 204:
            return None
        claim = answer.json()
        agent.post(
            f"/v1/sessions/{claim['session']}/runs/{claim['run']['id']}/result",
            json={"status": "completed", "usage": spent}, headers={"Lease-Token": claim["token"]},
        ).raise_for_status()  # fmt: skip
        return claim["run"]["id"]


def refused(answer, says):
    problem = answer.json()
    kind = (answer.status_code, problem["type"].rpartition(":")[2])
    assert kind == (429, "allowance-spent"), answer.text
    assert says in problem["detail"], problem
    assert 1 <= int(answer.headers["Retry-After"]) <= 86_400
    return problem


def test_who_has_used_the_days_allowance_is_refused_with_the_reason(limited, room):
    tenant = "one"
    with client(limited, "ann", tenant=tenant) as ann, client(limited, "bob", tenant=tenant) as bob:
        ann.post("/v1/sessions", json={"id": room})
        assert posted(ann, room, id="m").status_code == 201
        assert worked(limited, tenant, inputTokens=80, outputTokens=25) == "run-m"
        problem = refused(posted(ann, room), "'ann' have used 105 tokens today, and may use 100 tokens a day")
        assert (problem["spent"], problem["limit"], problem["unit"]) == (105, 100, "tokens")
        assert problem["anew"].endswith("T00:00:00Z")
        refused(ann.post(f"/v1/sessions/{room}/runs", json={"messageId": "m"}), "105 tokens")
        assert posted(ann, room, id="m").status_code == 200, "what was asked before is repeated"
        assert ann.post(f"/v1/sessions/{room}/messages", json={"text": "nobody is asked"}).status_code == 201
        assert posted(bob, room).status_code == 201


def test_every_gateway_refuses_in_its_own_form(limited, room):
    tenant = "two"
    said = {"id": "m2", "role": "user", "parts": [{"type": "text", "text": "?"}]}
    agui = {"threadId": room, "runId": "r", "state": {}, "tools": [], "context": [], "forwardedProps": {},
            "messages": [{"id": "m2", "role": "user", "content": "?"}]}  # fmt: skip
    openai = {"model": "writer", "messages": [{"role": "user", "content": "?"}]}
    with client(limited, "ann", tenant=tenant) as ann:
        ann.post("/v1/sessions", json={"id": room})
        posted(ann, room, id="m")
        worked(limited, tenant, inputTokens=100)
        for path, body in (
            ("ai-sdk/chat", {"id": room, "messages": [said]}), ("ag-ui", agui), (f"tanstack/{room}", agui),
            ("openai/chat/completions", openai),
        ):  # fmt: skip
            answer = ann.post(f"/v1/gateways/{path}", json=body, headers={"X-Session-Id": room})
            assert (answer.status_code, "100 tokens" in answer.text) == (429, True), (path, answer.text)
            assert int(answer.headers["Retry-After"]) >= 1


async def test_a_run_that_is_asked_for_in_the_document_ends_with_the_reason(limited, room):
    tenant = "three"
    with client(limited, "ann", tenant=tenant) as ann:
        ann.post("/v1/sessions", json={"id": room})
        posted(ann, room, id="m")
        worked(limited, tenant, outputTokens=100)
    async with connect(limited.url, room, token=token("ann", tenant=tenant)) as peer:
        peer.edit(lambda view: view.runs.request("late", RunRequest(message_id="m", agent="writer", created_at=1)))
        await peer.until(lambda: peer.view.runs.find("late").status == "queued")
        assert worked(limited, tenant) is None
        await peer.until(lambda: peer.view.runs.find("late").over)
        run = peer.view.runs.find("late")
        assert (run.status, run.outcome.error.code) == ("failed", "allowance-spent")
        assert "have used 100 tokens today" in run.outcome.error.message


def test_a_run_under_way_goes_on_and_its_usage_counts_after_a_restart(tmp_path, room):
    server = guarded(tmp_path, *FLAGS)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: server.close())
        with client(server, "ann") as ann, client(server, "worker", "agent") as agent:
            ann.post("/v1/sessions", json={"id": room})
            posted(ann, room, id="m", policy="parallel")
            posted(ann, room, id="n", policy="parallel")
            claim = agent.post("/v1/runs/claim", json={"agents": ["writer"]}).json()
            run, held = f"/v1/sessions/{room}/runs/{claim['run']['id']}", {"Lease-Token": claim["token"]}
            for tokens in (60, 120):
                agent.put(f"{run}/usage", json={"inputTokens": tokens}, headers=held).raise_for_status()
            agent.post(f"{run}/append", json={"offset": 0, "text": "on"}, headers=held).raise_for_status()
            released = agent.post(f"{run}/result", json={"status": "released"}, headers=held)
            assert released.json()["status"] == "queued"
            assert worked(server, "") == claim["run"]["id"], "it had begun"
            assert worked(server, "") is None
            assert ann.get(f"/v1/sessions/{room}/runs/run-n").json()["status"] == "failed"
        server.close()
        server = server.again()
        with client(server, "ann") as ann:
            refused(posted(ann, room), "120 tokens")


def test_a_tenant_has_an_allowance_in_money_too(limited, room):
    tenant = "four"
    with client(limited, "ann", tenant=tenant) as ann, client(limited, "bob", tenant=tenant) as bob:
        ann.post("/v1/sessions", json={"id": room})
        for who, cost, currency in ((ann, 9_000_000, "EUR"), (bob, 2_000_000, "USD")):
            assert posted(who, room).status_code == 201
            assert worked(limited, tenant, cost=cost, currency=currency) is not None
        assert posted(ann, room).status_code == 201
        assert worked(limited, tenant, cost=600_000, currency="USD") is not None
        problem = refused(posted(bob, room), "the tenant have used 2.6 USD today, and may use 2.5 USD a day")
        assert (problem["spent"], problem["limit"], problem["unit"]) == (2.6, 2.5, "USD")


def test_who_is_erased_has_used_nothing_and_the_tenant_as_much_as_before(limited, room):
    tenant = "five"
    with client(limited, "ann", tenant=tenant) as ann, client(limited, "root", "service", tenant=tenant) as root:
        ann.post("/v1/sessions", json={"id": room})
        posted(ann, room)
        worked(limited, tenant, inputTokens=100)
        refused(posted(ann, room), "100 tokens")
        assert root.delete("/v1/principals/ann").json()["usage"] is True
        assert root.get("/v1/usage", params={"principal": "ann"}).json()["inputTokens"] == 0
        assert root.get("/v1/usage").json()["inputTokens"] == 100
        assert posted(ann, room).status_code == 201


def test_a_token_for_certain_sessions_sees_their_sums_and_no_others(limited, room):
    with client(limited, "root", "service", tenant="six", sessions=[f"{room}*"]) as root:
        root.post("/v1/sessions", json={"id": room})
        for query in ({}, {"principal": "ann"}, {"session": "other"}):
            assert root.get("/v1/usage", params=query).status_code == 403, query
        for query in ({"session": room}, {"session": room, "principal": "ann"}, {"principal": "root"}):
            assert root.get("/v1/usage", params=query).status_code == 200, query
