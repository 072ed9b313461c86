"""The shared state over REST: read with its version, changed by JSON Patches, merged with what Yjs peers write."""

import json

import pytest
from pycrdt import Array, Map

from crdt_sessions import connect
from tests.processes import Server

PATCH = {"Content-Type": "application/json-patch+json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("state") / "s.db")
    yield process
    process.close()


@pytest.fixture
def name(request, http):
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")
    http.post("/v1/sessions", json={"id": name})
    return name


def patched(http, name, *operations, **headers):
    sent = {**PATCH, **{key.replace("_", "-"): value for key, value in headers.items()}}
    return http.patch(f"/v1/sessions/{name}/state", content=json.dumps(operations), headers=sent)


def add(path, value):
    return {"op": "add", "path": path, "value": value}


def state(http, name):
    return http.get(f"/v1/sessions/{name}/state").json()["state"]


def test_a_patch_changes_the_state_and_its_version(http, name):
    empty = http.get(f"/v1/sessions/{name}/state")
    assert (empty.status_code, empty.json()["state"]) == (200, {})
    assert empty.headers["ETag"] == f'"{empty.json()["version"]}"'
    answer = patched(http, name, add("/title", "Oslo"), add("/days", [1, 2]), add("/plan", {"mon": "walk"}))
    assert (answer.status_code, answer.json()["state"]) == (
        200,
        {"title": "Oslo", "days": [1, 2], "plan": {"mon": "walk"}},
    )
    assert answer.json()["version"] != empty.json()["version"]
    answer = patched(
        http, name,
        {"op": "test", "path": "/title", "value": "Oslo"}, {"op": "replace", "path": "/days/1", "value": 3},
        {"op": "move", "from": "/plan/mon", "path": "/plan/tue"}, {"op": "copy", "from": "/title", "path": "/from"},
        {"op": "remove", "path": "/title"},
    )  # fmt: skip
    assert answer.json()["state"] == {"from": "Oslo", "days": [1, 3], "plan": {"tue": "walk"}}
    assert state(http, name) == answer.json()["state"]


def test_a_state_that_is_known_is_not_sent_again(http, name):
    patched(http, name, add("/a", 1))
    version = http.get(f"/v1/sessions/{name}/state").headers["ETag"]
    again = http.get(f"/v1/sessions/{name}/state", headers={"If-None-Match": version})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", version)
    patched(http, name, add("/a", 2))
    assert http.get(f"/v1/sessions/{name}/state", headers={"If-None-Match": version}).status_code == 200


def test_a_patch_for_another_version_is_refused_with_the_present_one(http, name):
    version = patched(http, name, add("/a", 1)).headers["ETag"]
    assert patched(http, name, add("/a", 2), If_Match=version).status_code == 200
    late = patched(http, name, add("/a", 3), If_Match=version)
    assert (late.status_code, late.json()["type"].rpartition(":")[2]) == (412, "precondition-failed")
    now = http.get(f"/v1/sessions/{name}/state")
    assert (now.json()["state"], late.json()["version"]) == ({"a": 2}, now.json()["version"])
    assert patched(http, name, add("/a", 3), If_Match="*").status_code == 200


@pytest.mark.parametrize(
    ("operations", "status", "says"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], 409, "the test of operation 1 failed"),
        ([{"op": "remove", "path": "/c"}], 409, "operation 1 names no place that is there"),
        ([{"op": "replace", "path": "/l/7", "value": 1}], 409, "operation 1 names no place"),
        ([{"op": "add", "path": "/a/b", "value": 1}], 409, "operation 1 names no place"),
        ([{"op": "replace", "path": "", "value": [1]}], 422, "no object"),
        ([{"op": "remove", "path": ""}], 409, "operation 1"),
        ([{"op": "fly", "path": "/a"}], 422, "operation 1"),
        ([{"op": "add", "path": "a", "value": 1}], 422, "operation 1"),
        ([{"op": "add", "path": "/a"}], 422, "operation 1"),
        ([5], 422, "no list of operations"),
        ([{"op": "add", "path": "/a" * 100, "value": 1}], 422, "deeper than"),
        ([add("/n", 2**60)], 422, "n"),
        ([add("/x", "x" * 1000)] + [{"op": "copy", "from": "", "path": "/y"}] * 500, 413, "limit"),
        ([add("/x", 1)] * 1000, 413, "limit of 1000 operations"),
    ],
)
def test_a_patch_that_cannot_be_applied_changes_nothing(http, name, operations, status, says):
    patched(http, name, add("/a", 1), add("/l", [1]))
    refused = patched(http, name, add("/first", 1), *operations)
    assert (refused.status_code, says in refused.json()["detail"]) == (status, True), refused.text
    assert state(http, name) == {"a": 1, "l": [1]}


def test_a_body_that_is_no_patch_is_refused(http, name):
    url = f"/v1/sessions/{name}/state"
    assert http.patch(url, json={"a": 1}).status_code == 415
    assert http.patch(url, content="{", headers=PATCH).status_code == 400
    assert http.patch(url, content='{"a": 1}', headers=PATCH).status_code == 422
    assert http.patch("/v1/sessions/nowhere-at-all/state", content="[]", headers=PATCH).status_code == 404


async def test_a_patch_writes_only_what_differs_so_that_bindings_and_other_changes_stay(service, http, name):
    async with connect(service.url, name) as peer:
        peer.edit(lambda view: view.state.update({"plan": Map({"mon": "walk"}), "todo": Array(["a"]), "other": 1}))
        await peer.durable()
        plan = peer.view.state["plan"]
        assert patched(http, name, add("/plan/tue", "sail")).status_code == 200
        await peer.until(lambda: "tue" in plan)
        assert dict(plan) == {"mon": "walk", "tue": "sail"}, "the same map, which editors are bound to"
        refused = patched(http, name, add("/todo/-", "b"))
        assert (refused.status_code, "state.todo" in refused.json()["detail"]) == (422, True)
    assert state(http, name) == {"plan": {"mon": "walk", "tue": "sail"}, "todo": ["a"], "other": 1}
