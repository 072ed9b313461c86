"""Child runs over REST: the holder of a run asks for them, others work on them, readers see them beside the rest."""

import pytest

from tests.processes import Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("children") / "s.db", "--lease-s", "30", "--default-agent", "")
    yield process
    process.close()


@pytest.fixture
def parent(http, request):
    """A run that somebody holds: its path, and the header that proves it."""
    room = request.node.name.replace("[", "-").replace("]", "")
    http.post("/v1/sessions", json={"id": room}).raise_for_status()
    http.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": "?"}).raise_for_status()
    asked = {"id": "r", "messageId": "q", "agent": "lead"}
    http.post(f"/v1/sessions/{room}/runs", json=asked).raise_for_status()
    return claimed(http, f"/v1/sessions/{room}/runs/r", "lead")


def claimed(http, path, agent):
    answer = http.post(f"{path}/claim", json={"agents": [agent], "children": True})
    answer.raise_for_status()
    return path, {"Lease-Token": answer.json()["token"]}


def delegate(http, parent, **body):
    path, proof = parent
    return http.post(f"{path}/children", json={"key": "a", "agent": "helper", "task": {"n": 1}} | body, headers=proof)


def test_the_holder_asks_for_a_child_and_asking_twice_is_asking_once(http, parent):
    first, again = delegate(http, parent), delegate(http, parent, task="something else")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["request"] == again.json()["request"]
    assert (first.json()["id"], first.json()["status"], first.json()["request"]["parent"]) == ("r:a", "queued", "r")
    listed = http.get(f"{parent[0]}/children").json()["runs"]
    assert [child["id"] for child in listed] == ["r:a"]


def test_without_the_lease_there_is_no_child(http, parent):
    path, _ = parent
    answer = delegate(http, (path, {"Lease-Token": "made-up"}))
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (409, "lease-lost")
    room = path.rpartition("/runs/")[0]
    assert http.post(f"{room}/runs", json={"id": "r:a", "messageId": "r-out", "parent": "r"}).status_code == 422


@pytest.mark.parametrize(
    "body", [{"key": ""}, {"key": "a:b"}, {"agent": ""}, {"orphans": "later"}, {"task": "x" * 70_000}]
)
def test_what_cannot_be_a_child_is_refused_before_it_is_written(http, parent, body):
    assert delegate(http, parent, **body).status_code in (413, 422)
    assert http.get(f"{parent[0]}/children").json()["runs"] == []


def test_an_agent_that_does_not_say_that_it_knows_child_runs_gets_none(http, parent):
    delegate(http, parent)
    child = f"{parent[0]}:a"
    assert http.post(f"{child}/claim", json={"agents": ["helper"]}).status_code == 409
    assert http.post("/v1/runs/claim", json={"agents": ["helper"], "waitS": 0}).status_code == 204
    claimed(http, child, "helper")


def test_what_a_child_writes_is_told_only_to_those_who_want_it(http, parent):
    delegate(http, parent)
    room = parent[0].rpartition("/runs/")[0]
    child, proof = claimed(http, f"{room}/runs/r:a", "helper")
    http.post(f"{child}/append", json={"offset": 0, "text": "found"}, headers=proof).raise_for_status()
    assert http.get(f"{child}/output").json()["parts"][0]["text"] == "found"
    assert [message["id"] for message in http.get(f"{room}/messages").json()["messages"]] == ["q"]

    def told(**query):
        events = http.get(f"{room}/events", params={"waitS": 5, "kinds": "message,run", **query}).json()["events"]
        return {event["data"]["id"] for event in events}

    assert told() == {"q", "r", "r:a"}
    assert told(children=True) == {"q", "r", "r:a", "r:a-out"}


def test_what_children_cost_counts_once_in_the_sums(http, parent):
    delegate(http, parent)
    room = parent[0].rpartition("/runs/")[0]
    child = claimed(http, f"{room}/runs/r:a", "helper")
    for (path, proof), tokens in ((parent, 100), (child, 10)):
        answer = http.put(f"{path}/usage", json={"inputTokens": tokens, "calls": 1}, headers=proof)
        answer.raise_for_status()
    assert http.get(parent[0]).json()["usage"] == {"inputTokens": 100, "calls": 1, "children": {"inputTokens": 10, "calls": 1}}  # fmt: skip
    sums = http.get(f"{room}/usage").json()
    assert (sums["inputTokens"], sums["calls"]) == (110, 2)


def test_a_stop_goes_down_and_an_end_ends_the_orphans(http, parent):
    path, proof = parent
    delegate(http, parent, key="ends")
    delegate(http, parent, key="goes-on", orphans="go-on")
    http.post(f"{path}/result", json={"status": "completed"}, headers=proof).raise_for_status()
    found = {child["request"]["key"]: child["status"] for child in http.get(f"{path}/children").json()["runs"]}
    assert found == {"ends": "cancelled", "goes-on": "queued"}
