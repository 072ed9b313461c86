"""Runs over REST: everything an application, a person with curl or a serverless agent does."""

import asyncio
import json
import time
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest
from standardwebhooks.webhooks import Webhook as Verifier

from crdt_sessions import connect
from tests.processes import PATIENCE, PROBLEM, Server, attempts

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((dict(self.headers), body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hook():
    server = HTTPServer(("127.0.0.1", 0), Hook)
    server.received, server.answers = [], []
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def service(tmp_path_factory, hook):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "hooks.json").write_text(
        json.dumps([{"name": "all", "url": f"http://127.0.0.1:{hook.server_port}/x", "secret": SECRET}])
    )
    process = Server(
        folder / "s.db", "--webhooks-file", folder / "hooks.json", "--lease-s", "2", "--default-agent", ""
    )
    yield process
    process.close()


@pytest.fixture
def agent():
    return f"agent-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def name(http):
    name = f"s-{uuid.uuid4().hex}"
    http.post("/v1/sessions", json={"id": name})
    return name


def ask(http, name, agent, text="?", **more):
    message = http.post(f"/v1/sessions/{name}/messages", json={"text": text, "agent": agent, **more}).json()
    return message, f"/v1/sessions/{name}/runs/run-{message['id']}"


def claim(http, agent, **more):
    answer = http.post("/v1/runs/claim", json={"agents": [agent], "waitS": 5, **more})
    assert answer.status_code == 200, answer.text
    grant = answer.json()
    return grant, {"Lease-Token": grant["token"]}


def events(hook, run):
    found = []
    for headers, body in hook.received:
        value = json.loads(body)
        if value["data"]["run"] == run:
            assert Verifier(SECRET).verify(body, {key.lower(): value for key, value in headers.items()})
            found.append(value["type"])
    return found


def test_a_serverless_agent_needs_nothing_but_http(http, name, agent, hook):
    """Woken by a webhook, it claims the run it was told of, works step by step, and may repeat every request."""
    message, run = ask(http, name, agent, "Book a seat")
    for _ in attempts():
        if events(hook, run.rsplit("/", 1)[1]):
            break
        time.sleep(0.02)
    woken = json.loads(hook.received[-1][1])
    assert (woken["type"], woken["data"]["session"], woken["data"]["agent"]) == ("run.queued", name, agent)
    grant = http.post(
        f"/v1/sessions/{woken['data']['session']}/runs/{woken['data']['run']}/claim",
        json={"agents": [agent], "leaseS": 60},
    ).json()
    assert (grant["epoch"], grant["leaseTtlMs"], grant["run"]["request"]["messageId"]) == (1, 60_000, message["id"])
    lease = {"Lease-Token": grant["token"]}
    for _ in range(2):
        answer = http.post(f"{run}/append", json={"offset": 0, "text": "One moment 😀"}, headers=lease)
        assert answer.json() == {"offset": 12}
    wrong = http.post(f"{run}/append", json={"offset": 99, "text": "x"}, headers=lease)
    assert (wrong.status_code, wrong.json()["type"], wrong.json()["length"]) == (409, PROBLEM + "wrong-offset", 12)
    assert http.get(f"{run}/steps/pay", headers=lease).status_code == 404
    assert http.put(f"{run}/steps/pay", json={"value": {"receipt": 7}}, headers=lease).json()["value"] == {
        "receipt": 7
    }
    assert http.put(f"{run}/steps/pay", json={"value": "again"}, headers=lease).json()["value"] == {"receipt": 7}
    assert http.get(f"{run}/steps/pay", headers=lease).json()["value"] == {"receipt": 7}
    call = {"name": "book", "input": {"seat": "4A"}}
    assert http.put(f"{run}/tools/c1", json=call, headers=lease).status_code == 204
    question = {"approvers": ["ann"], "requestedAt": 1}
    assert http.put(f"{run}/tools/c1", json={**call, "approval": question}, headers=lease).status_code == 204
    suspended = http.post(f"{run}/result", json={"status": "suspended"}, headers=lease).json()
    assert (suspended["status"], suspended.get("lease")) == ("suspended", None)
    assert http.post(f"{run}/append", json={"offset": 12, "text": "x"}, headers=lease).status_code == 409

    (pending,) = http.get(run).json()["pending"]
    assert pending == {"toolCallId": "c1", "toolName": "book", "approvers": ["ann"], "needs": "any"}
    early = http.post(f"{run}/approvals/c1", json={"approved": True, "principal": "bob"})
    assert (early.status_code, early.json()["type"], early.json()["approvers"]) == (
        403,
        PROBLEM + "not-an-approver",
        ["ann"],
    )
    unnamed = http.post(f"{run}/approvals/c1", json={"approved": True})
    assert unnamed.status_code == 403
    assert "that is for 'ann'; say who decides" in unnamed.json()["detail"]
    wrong = http.post(f"{run}/approvals/c7", json={"approved": True, "principal": "ann"})
    assert (wrong.status_code, wrong.json()["known"]) == (404, ["c1"])
    decided = http.post(f"{run}/approvals/c1", json={"approved": True, "reason": "ok", "principal": "ann"}).json()
    assert (decided["approval"]["by"], decided["approval"]["approved"]) == ("ann", True)
    assert "pending" not in http.get(run).json()
    again = http.post(f"{run}/approvals/c1", json={"approved": True, "principal": "ann"})
    assert (again.status_code, again.json()["approval"]) == (200, decided["approval"]), "to repeat oneself is no harm"
    late = http.post(f"{run}/approvals/c1", json={"approved": False, "principal": "ann"})
    assert (late.status_code, late.json()["type"], late.json()["by"]) == (409, PROBLEM + "already-decided", "ann")
    assert late.json()["detail"].startswith("the tool call 'c1' was approved by 'ann' already. ")

    grant, lease = claim(http, agent)
    assert grant["epoch"] == 2
    http.put(f"{run}/tools/c1", json={"name": "book", "output": "booked"}, headers=lease)
    http.post(f"{run}/append", json={"offset": 12, "text": "Done."}, headers=lease)
    ended = http.post(f"{run}/result", json={"status": "completed", "reason": "stop"}, headers=lease).json()
    assert (ended["status"], ended["outcome"]["reason"]) == ("completed", "stop")
    answer = http.get(f"/v1/sessions/{name}/messages").json()["messages"][-1]
    assert [part.get("text") or part.get("output") for part in answer["parts"]] == [
        "One moment 😀",
        "booked",
        "Done.",
    ]
    for _ in attempts():
        if len(events(hook, grant["run"]["id"])) == 4:
            break
        time.sleep(0.02)
    assert events(hook, grant["run"]["id"]) == ["run.queued", "run.approval_requested", "run.queued", "run.completed"]


@pytest.mark.parametrize("body", [{}, {"text": " \n"}, {"parts": []}, {"parts": [{"type": "text", "text": ""}]}])
def test_a_message_that_says_nothing_is_refused(http, name, body):
    answer = http.post(f"/v1/sessions/{name}/messages", json={**body, "agent": "x"})
    assert (answer.status_code, answer.json()["type"]) == (422, PROBLEM + "empty-message")
    assert answer.json()["detail"].startswith("the message says nothing: give it text")
    assert http.get(f"/v1/sessions/{name}/messages").json()["messages"] == []


def test_integers_are_integers_wherever_json_leaves(http, name, agent):
    """JavaScript has but one kind of number, and the document tells all of them as floats."""
    _, run = ask(http, name, agent, metadata={"price": 120, "rate": 0.5, "list": [1, {"n": -7}]})
    assert '"price":120,' in http.get(f"/v1/sessions/{name}/messages").text.replace(" ", "")
    _, lease = claim(http, agent)
    value = {"n": 120, "at": 1795906796225, "half": 0.5, "big": 2**53 - 1}
    http.put(f"{run}/tools/c", json={"name": "t", "input": value, "output": [value]}, headers=lease)
    http.post(f"{run}/result", json={"status": "completed"}, headers=lease)
    told = [
        http.get(f"/v1/sessions/{name}/messages").text,
        http.get(f"/v1/sessions/{name}/events", params={"waitS": 0}).text,
        http.get(f"/v1/sessions/{name}/export").text,
        http.get(f"/v1/gateways/ai-sdk/chat/{name}/messages").text,
        http.get(f"/v1/gateways/tanstack/{name}").text,
        http.get(f"/v1/sessions/{name}/runs").text,
    ]
    for text in told:
        assert ".0" not in text.replace("127.0.0.1", ""), text
    assert all('"half":0.5' in text.replace(" ", "") for text in told[:4])
    (call,) = http.get(f"/v1/sessions/{name}/messages").json()["messages"][-1]["parts"]
    assert (json.dumps(call["input"]), call["output"]) == (json.dumps(value, sort_keys=True), [value])


def test_a_claim_waits_and_then_says_there_was_nothing(http, agent):
    assert http.post("/v1/runs/claim", json={"agents": [agent]}).status_code == 204
    assert http.post("/v1/runs/claim", json={"agents": [agent], "waitS": 0.1}).status_code == 204


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/runs/claim", {"agents": []}, "agents"),
        ("/v1/runs/claim", {"agents": ["a"], "waitS": 1e9}, "waitS"),
        ("/v1/sessions/{name}/runs", {}, "messageId"),
        ("/v1/sessions/{name}/runs", {"messageId": "m", "policy": "never"}, "policy"),
        ("/v1/sessions/{name}/messages", {"text": "x", "agent": ""}, "agent"),
    ],
)
def test_bad_input_is_named(http, name, path, body, field):
    answer = http.post(path.format(name=name), json=body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_asking_and_stopping_are_idempotent(http, name, agent):
    wanted = {"id": "mine", "messageId": "m", "agent": agent}
    assert http.post(f"/v1/sessions/{name}/runs", json=wanted).status_code == 201
    again = http.post(f"/v1/sessions/{name}/runs", json={**wanted, "agent": "other"})
    assert (again.status_code, again.json()["request"]["agent"]) == (200, agent)
    for _ in range(2):
        stopped = http.post(f"/v1/sessions/{name}/runs/mine/cancel", json={"reason": "enough", "principal": "ann"})
        assert (stopped.json()["status"], stopped.json()["cancel"]["by"]) == ("cancelled", "ann")
    assert [run["id"] for run in http.get(f"/v1/sessions/{name}/runs").json()["runs"]] == ["mine"]
    refused = http.post(f"/v1/sessions/{name}/runs/mine/claim", json={"agents": [agent]})
    assert (refused.status_code, refused.json()["type"], refused.json()["state"]) == (
        409,
        PROBLEM + "run-not-claimable",
        "cancelled",
    )
    for method, path in (("GET", "runs/none"), ("POST", "runs/none/cancel"), ("POST", "runs/mine/approvals/c")):
        answer = http.request(
            method, f"/v1/sessions/{name}/{path}", json={"approved": True} if "approv" in path else {}
        )
        assert answer.status_code == 404, path


def test_a_token_opens_its_own_run_only(http, name, agent):
    for number in range(2):
        ask(http, name, agent, policy="parallel", id=f"m{number}")
    (first, lease), (second, _) = claim(http, agent), claim(http, agent)
    base = f"/v1/sessions/{name}/runs"
    assert http.post(f"{base}/{first['run']['id']}/renew", headers=lease).status_code == 200
    for headers in (lease, {}, {"Lease-Token": "guess"}):
        answer = http.post(f"{base}/{second['run']['id']}/renew", headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (409, PROBLEM + "lease-lost")


def test_a_holder_says_what_its_attempt_has_cost(http, name, agent):
    ask(http, name, agent)
    grant, lease = claim(http, agent)
    run = f"/v1/sessions/{name}/runs/{grant['run']['id']}"
    for tokens in (10, 25):
        said = http.put(f"{run}/usage", json={"inputTokens": tokens, "calls": 1, "model": "m"}, headers=lease)
        assert (said.status_code, said.json()["usage"]) == (200, {"inputTokens": tokens, "calls": 1, "model": "m"})
    whole = {"inputTokens": 25, "outputTokens": 4, "calls": 2, "cost": 120, "currency": "EUR"}
    ended = http.post(f"{run}/result", json={"status": "released", "usage": whole}, headers=lease).json()
    assert {key: ended["usage"][key] for key in whole} == whole
    grant, lease = claim(http, agent)
    http.post(f"{run}/append", json={"offset": 0, "text": "words"}, headers=lease)
    ended = http.post(f"{run}/result", json={"status": "completed", "usage": whole}, headers=lease).json()
    usage = http.get(run).json()["usage"]
    assert usage == ended["usage"]
    assert (usage["inputTokens"], usage["outputTokens"], usage["calls"], usage["cost"]) == (50, 8, 4, 240)
    assert 0 <= usage["firstTokenMs"] <= usage["durationMs"]
    late = http.put(f"{run}/usage", json={"calls": 1}, headers=lease)
    assert (late.status_code, late.json()["type"]) == (409, PROBLEM + "lease-lost")


def test_what_runs_have_used_is_added_up_by_session_and_principal(http, name, agent):
    today = time.strftime("%Y-%m-%d", time.gmtime())
    before = http.get("/v1/usage", params={"since": today}).json()
    for number, spent in enumerate(
        (
            {"inputTokens": 10, "calls": 1, "model": "m", "cost": 5, "currency": "USD"},
            {"inputTokens": 3, "outputTokens": 2, "calls": 1, "model": "n"},
        )
    ):
        ask(http, name, agent, id=f"m{number}")
        grant, lease = claim(http, agent)
        run = f"/v1/sessions/{name}/runs/{grant['run']['id']}"
        http.put(f"{run}/usage", json=spent | {"inputTokens": 99}, headers=lease)
        http.post(f"{run}/result", json={"status": "completed", "usage": spent}, headers=lease)
    found = http.get(f"/v1/sessions/{name}/usage").json()
    assert found["models"] == [
        {"model": "m", "currency": "USD", "inputTokens": 10, "cachedTokens": 0, "outputTokens": 0,
         "reasoningTokens": 0, "calls": 1, "cost": 5},
        {"model": "n", "inputTokens": 3, "cachedTokens": 0, "outputTokens": 2,
         "reasoningTokens": 0, "calls": 1, "cost": 0},
    ]  # fmt: skip
    assert (found["inputTokens"], found["outputTokens"], found["calls"], found["costs"]) == (13, 2, 2, {"USD": 5})
    assert http.get(f"/v1/sessions/{name}/usage", params={"until": "2020-01-01"}).json()["calls"] == 0
    theirs = http.get("/v1/usage", params={"session": name, "since": today, "until": today}).json()
    assert theirs["inputTokens"] == 13
    http.delete(f"/v1/sessions/{name}")
    after = http.get("/v1/usage", params={"since": today}).json()
    assert after["inputTokens"] - before["inputTokens"] == 13, "what was used stays used"
    assert http.get(f"/v1/sessions/{name}/usage").status_code == 410
    assert http.get("/v1/usage", params={"since": "yesterday"}).status_code == 422


@pytest.mark.parametrize("bad", [{"calls": -1}, {"cost": 1}, {"currency": "dollars"}, {"inputTokens": 2**60}])
def test_what_cannot_be_spent_is_refused(http, name, agent, bad):
    ask(http, name, agent)
    grant, lease = claim(http, agent)
    run = f"/v1/sessions/{name}/runs/{grant['run']['id']}"
    assert http.put(f"{run}/usage", json=bad, headers=lease).status_code == 422
    assert http.post(f"{run}/result", json={"status": "completed", "usage": bad}, headers=lease).status_code == 422
    assert "usage" not in http.get(run).json()


def test_renewing_keeps_the_lease_and_tells_of_stop_and_steering(http, name, agent):
    _, run = ask(http, name, agent)
    grant, lease = claim(http, agent)
    until = time.monotonic() + 3.5
    while time.monotonic() < until:
        renewed = http.post(f"{run}/renew", headers=lease)
        assert (renewed.status_code, renewed.json()["cancelled"]) == (200, False)
        time.sleep(0.5)
    steering = http.post(
        f"/v1/sessions/{name}/messages", json={"text": "faster", "steers": grant["run"]["id"]}
    ).json()
    assert [m["id"] for m in http.post(f"{run}/renew", headers=lease).json()["steering"]] == [steering["id"]]
    assert http.post(f"{run}/steering/{steering['id']}", headers=lease).status_code == 204
    assert http.post(f"{run}/renew", headers=lease).json()["steering"] == []
    http.post(f"{run}/cancel", json={})
    assert http.post(f"{run}/renew", headers=lease).json()["cancelled"]
    ended = http.post(f"{run}/result", json={"status": "cancelled"}, headers=lease).json()
    assert ended["status"] == "cancelled"


def test_a_silent_holder_is_given_up_and_the_next_one_goes_on(http, name, agent):
    _, run = ask(http, name, agent)
    _, lease = claim(http, agent)
    http.post(f"{run}/append", json={"offset": 0, "text": "half "}, headers=lease)
    started = time.monotonic()
    while http.get(run).json()["status"] == "running":
        assert time.monotonic() - started < 10, "a lease of 2 s should be over"
        time.sleep(0.05)
    assert http.get(f"/v1/sessions/{name}/messages").json()["messages"][-1]["parts"][0]["state"] == "interrupted"
    assert http.post(f"{run}/append", json={"offset": 5, "text": "zombie"}, headers=lease).status_code == 409
    _, lease = claim(http, agent)
    assert http.post(f"{run}/append", json={"offset": 5, "text": "whole"}, headers=lease).json() == {"offset": 10}
    http.post(f"{run}/result", json={"status": "completed"}, headers=lease)
    assert http.get(f"/v1/sessions/{name}/messages").json()["messages"][-1]["parts"][0]["text"] == "half whole"


async def test_the_holder_may_come_over_a_websocket_too(service, name, agent):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        await http.post(f"/v1/sessions/{name}/messages", json={"id": "m", "text": "?", "agent": agent})
        grant = (await http.post("/v1/runs/claim", json={"agents": [agent]})).json()
        async with connect(service.url, name, lease=grant["token"], renew_s=0.5) as holder:
            await asyncio.sleep(3)
            assert (await http.get(f"/v1/sessions/{name}/runs/run-m")).json()["status"] == "running"
            assert holder.connected


def test_sessions_say_who_answers_and_how_runs_queue(http, name, agent):
    assert http.patch(f"/v1/sessions/{name}", json={"agent": agent, "runPolicy": "reject"}).status_code == 200
    http.post(f"/v1/sessions/{name}/messages", json={"id": "m1", "text": "one"})
    http.post(f"/v1/sessions/{name}/messages", json={"id": "m2", "text": "two"})
    runs = {run["id"]: run["status"] for run in http.get(f"/v1/sessions/{name}/runs").json()["runs"]}
    assert runs == {"run-m1": "queued", "run-m2": "cancelled"}
    export = http.get(f"/v1/sessions/{name}/export").json()
    assert (export["meta"]["agent"], export["meta"]["runPolicy"]) == (agent, "reject")


def test_dead_letters_are_listed_and_tried_again(http):
    assert http.get("/v1/webhooks/deliveries", params={"dead": "true"}).json() == {"deliveries": []}
    assert http.post("/v1/webhooks/deliveries/none/retry").status_code == 404


def test_a_wrong_webhooks_file_is_explained(tmp_path):
    file = tmp_path / "hooks.json"
    for content, said in (
        ('[{"name": "x", "url": "ftp://x", "secret": "y"}]', "entry 1: url"),
        ('[{"name": "x", "url": "http://x", "secret": "hush"}]', "base64"),
        ("no json", "JSON"),
    ):
        file.write_text(content)
        with pytest.raises(AssertionError, match=said) as caught:
            Server(tmp_path / "s.db", "--webhooks-file", file)
        assert "hush" not in str(caught.value)


GIVEN = {
    "tools": [{"name": "look", "description": "Look out", "inputSchema": {"type": "object"}, "where": "client"}],
    "context": [{"description": "The town", "value": "Oslo"}],
    "model": "small",
    "settings": {"temperature": 0.5, "toolChoice": "auto"},
    "metadata": {"from": "a test"},
    "forwarded": {"anything": [1, None]},
}


def test_what_is_given_with_a_question_reaches_claims_and_webhooks(http, name, agent, hook):
    question = {"text": "?", "agent": agent, "input": GIVEN}
    message = http.post(f"/v1/sessions/{name}/messages", json=question).json()
    run = f"run-{message['id']}"
    granted, _ = claim(http, agent)
    assert granted["run"]["request"]["input"] == GIVEN
    assert http.get(f"/v1/sessions/{name}/runs/{run}").json()["request"]["input"] == GIVEN
    for _ in attempts():
        if events(hook, run):
            break
        time.sleep(0.02)
    (told,) = (value["data"] for _, body in hook.received if (value := json.loads(body))["data"]["run"] == run)
    assert told["input"] == GIVEN


def test_a_run_that_is_asked_for_by_itself_may_have_an_input_too(http, name, agent):
    message = http.post(f"/v1/sessions/{name}/messages", json={"text": "?"}).json()
    wanted = {"messageId": message["id"], "agent": agent, "input": GIVEN}
    assert http.post(f"/v1/sessions/{name}/runs", json=wanted).json()["request"]["input"] == GIVEN
    wanted = {"messageId": message["id"], "agent": agent, "trigger": "regenerate"}
    assert http.post(f"/v1/sessions/{name}/runs", json=wanted).json()["request"]["input"] == GIVEN


@pytest.mark.parametrize(
    ("input", "status", "says"),
    [
        ({"tools": [{"name": ""}]}, 422, "tools"),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, 422, "two tools are called 'a'"),
        ({"tools": [{"name": f"t{count}"} for count in range(129)]}, 413, "limit of 128 tools"),
        ({"forwarded": {"text": "x" * 262_144}}, 413, "limit of 262144 bytes"),
        ({"settings": {"a": json.loads("[" * 40 + "]" * 40)}}, 422, "deeper than 32 levels"),
    ],
)
def test_an_input_over_its_bounds_is_refused_and_nothing_of_it_is_written(http, name, agent, input, status, says):
    http.post("/v1/sessions", json={"id": name})
    question = {"id": "m", "text": "?", "agent": agent, "input": input}
    refused = http.post(f"/v1/sessions/{name}/messages", json=question)
    assert (refused.status_code, says in refused.text) == (status, True), refused.text
    assert http.get(f"/v1/sessions/{name}/messages").json()["messages"] == []


def test_an_input_without_an_agent_is_refused(http, name):
    refused = http.post(f"/v1/sessions/{name}/messages", json={"text": "?", "input": {}})
    assert (refused.status_code, "name it" in refused.text) == (422, True), refused.text


def test_an_answer_may_be_begun_anew_over_http(http, name, agent):
    _, run = ask(http, name, agent)
    _, lease = claim(http, agent)
    assert http.post(f"{run}/append", json={"offset": 0, "text": "Once upon"}, headers=lease).json()["offset"] == 9
    for _ in range(2):
        assert http.post(f"{run}/restart", headers=lease).status_code == 204
    assert http.post(f"{run}/append", json={"offset": 0, "text": "Well."}, headers=lease).json()["offset"] == 5
    assert http.post(f"{run}/result", json={"status": "completed"}, headers=lease).json()["status"] == "completed"
    _, answer = http.get(f"/v1/sessions/{name}/messages").json()["messages"]
    assert [part["text"] for part in answer["parts"]] == ["Well."]
    assert http.post(f"{run}/restart", headers=lease).status_code == 409


async def test_a_form_is_filled_in_and_answered_over_rest(server, name):
    schema = {"type": "object", "properties": {"nights": {"type": "integer", "minimum": 1}}, "required": ["nights"]}
    question = {"kind": "form", "message": "How long?", "schema": schema, "requestedAt": 1}
    room = name
    async with httpx.AsyncClient(base_url=server.url) as http:
        await http.post(f"/v1/sessions/{room}/messages", json={"text": "?", "agent": "forms"})
        claim = (await http.post("/v1/runs/claim", json={"agents": ["forms"], "waitS": 5})).json()
        run, lease = f"/v1/sessions/{room}/runs/{claim['run']['id']}", {"Lease-Token": claim["token"]}
        odd = {"name": "ask", "approval": {**question, "schema": {"pattern": "x"}}}
        assert (await http.put(f"{run}/tools/c", json=odd, headers=lease)).status_code == 422
        assert (
            await http.put(f"{run}/tools/c", json={"name": "ask", "approval": question}, headers=lease)
        ).is_success
        await http.post(f"{run}/result", json={"status": "suspended"}, headers=lease)

        draft = await http.patch(f"{run}/approvals/c/draft", json={"fields": {"nights": 0}})
        assert draft.json() == {"fields": {"nights": 0}}
        unfit = await http.post(f"{run}/approvals/c", json={"approved": True, "value": {"nights": 0}})
        assert (unfit.status_code, unfit.json()["type"]) == (422, PROBLEM + "not-an-answer")
        assert unfit.json()["why"] == "nights: 0 is less than the minimum of 1"
        assert (await http.patch(f"{run}/approvals/none/draft", json={"fields": {}})).status_code == 404
        part = (await http.post(f"{run}/approvals/c", json={"approved": True, "value": {"nights": 2}})).json()
        assert (part["approval"]["value"], part["draft"]) == ({"nights": 2}, {"nights": 0})
        late = await http.post(f"{run}/approvals/c", json={"approved": True, "value": {"nights": 3}})
        assert (late.status_code, late.json()["type"]) == (409, PROBLEM + "already-decided")


def test_a_run_may_begin_later_and_must_be_done_by_a_time(http, name, agent):
    now = int(time.time() * 1000)
    message, run = ask(http, name, agent, notBefore=now + 1500, deadline=now + 60_000)
    assert http.get(run).json()["due"] == now + 1500
    grant, _ = claim(http, agent)
    assert time.time() * 1000 >= now + 1400
    assert (grant["run"]["id"], grant["run"].get("due")) == (f"run-{message['id']}", None)
    late = http.post(f"/v1/sessions/{name}/runs", json={"messageId": message["id"], "deadline": now}).json()
    assert (late["status"], late["outcome"]["reason"]) == ("failed", "deadline")
    refused = http.post(f"/v1/sessions/{name}/messages", json={"text": "?", "deadline": now})
    assert (refused.status_code, "name it" in refused.text) == (422, True)
