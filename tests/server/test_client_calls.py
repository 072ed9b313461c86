"""Calls that clients execute, for those without a document: an agent asks over REST, devices take and answer."""

import httpx
import pytest

from tests.processes import PATIENCE, Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("calls") / "s.db", "--default-agent", "writer")
    yield process
    process.close()


@pytest.fixture
def http(service):
    with httpx.Client(base_url=service.url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def call(http, request):
    """A run that waits for a client; yield the address of its call."""
    room = "".join(char if char.isalnum() else "-" for char in request.node.name)
    http.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": "where?", "agent": f"for-{room}"})
    claim = http.post("/v1/runs/claim", json={"agents": [f"for-{room}"], "waitS": 20}).json()
    lease, run = {"Lease-Token": claim["token"]}, f"/v1/sessions/{room}/runs/run-q"
    body = {"name": "place", "input": {"exact": True}, "clientCall": {"requestedAt": 1, "takers": ["ann", "bob"]}}
    http.put(f"{run}/tools/c", json=body, headers=lease).raise_for_status()
    http.post(f"{run}/result", json={"status": "suspended"}, headers=lease).raise_for_status()
    yield f"{run}/calls/c"
    http.post(f"{run}/cancel", json={})


def status(http, call):
    return http.get(call.removesuffix("/calls/c")).json()["status"]


def test_a_device_takes_a_call_and_its_result_goes_on_with_the_run(http, call):
    session = call.partition("/runs/")[0]
    (waiting,) = http.get(f"{session}/calls").json()["calls"]
    assert (waiting["runId"], waiting["toolName"], waiting["input"]) == ("run-q", "place", {"exact": True})
    assert "taken" not in waiting
    assert http.put(f"{call}/offers/phone-1", json={"principal": "ann", "ttlS": 1e308}).status_code == 422
    first = http.put(f"{call}/offers/phone-1", json={"principal": "ann", "ttlS": 60}).json()
    assert (first["taken"]["device"], first["taken"]["by"], first["taken"]["ttl"]) == ("phone-1", "ann", 60_000)
    second = http.put(f"{call}/offers/laptop-1", json={"principal": "bob"}).json()
    assert second["taken"] == first["taken"]
    early = http.put(f"{call}/results/laptop-1", json={"principal": "bob", "output": "Rome"})
    assert (early.status_code, early.json()["type"].rpartition(":")[2]) == (409, "call-not-given")
    done = http.put(f"{call}/results/phone-1", json={"principal": "ann", "output": {"town": "Oslo"}})
    assert done.json()["outcome"] | {"at": 0} == {
        "code": "done", "device": "phone-1", "by": "ann", "attempt": 1, "at": 0,
    }  # fmt: skip
    assert done.json()["output"] == {"town": "Oslo"}
    again = http.put(f"{call}/results/phone-1", json={"principal": "ann", "output": "other"})
    assert (again.status_code, again.json()["output"]) == (200, {"town": "Oslo"})
    assert http.put(f"{call}/results/laptop-1", json={"principal": "bob", "output": 1}).status_code == 409
    assert http.put(f"{call}/offers/laptop-1", json={"principal": "bob"}).status_code == 404
    assert status(http, call) == "queued"


def test_an_offer_that_is_taken_back_makes_room_at_once(http, call):
    http.put(f"{call}/offers/phone-1", json={"principal": "ann"})
    http.put(f"{call}/offers/laptop-1", json={"principal": "bob"})
    assert http.delete(f"{call}/offers/phone-1").status_code == 204
    again = http.put(f"{call}/offers/laptop-1", json={"principal": "bob"}).json()
    assert (again["taken"]["device"], again["taken"]["attempt"]) == ("laptop-1", 2)


def test_refusing_is_an_outcome_and_others_are_not_asked(http, call):
    http.put(f"{call}/offers/phone-1", json={"principal": "ann"})
    refused = {"principal": "ann", "status": "refused", "errorText": "no"}
    part = http.put(f"{call}/results/phone-1", json=refused).json()
    assert (part["state"], part["errorText"], part["outcome"]["code"]) == ("output-error", "no", "refused")
    assert status(http, call) == "queued"


def test_who_is_not_asked_is_not_given_the_call_and_what_is_not_there_is_not_found(http, call):
    assert "taken" not in http.put(f"{call}/offers/pad-1", json={"principal": "cay"}).json()
    assert http.put(f"{call[:-1]}other/offers/pad-1", json={}).status_code == 404
    assert http.put(f"{call}/offers/a%0Ab", json={}).status_code == 422
    assert http.put(f"{call[:-1]}other/results/pad-1", json={"output": 1}).status_code == 404
