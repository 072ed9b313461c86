"""The past of a session over REST and from Python, against the running service."""

import json
import uuid

import jsonpatch
import pytest

from crdt_sessions import Past, connect
from crdt_sessions.errors import RequestRefused
from crdt_sessions.model import by_id
from crdt_sessions.model.values import SessionExport
from crdt_sessions.wire import EMPTY_UPDATE
from tests.processes import PROBLEM, Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("versions") / "s.db", "--default-agent", "", "--keep-last", "3")
    yield process
    process.close()


@pytest.fixture
def name():
    return f"s-{uuid.uuid4().hex}"


async def test_a_day_in_the_life_of_a_session(service, name):
    async with connect(service.url, name, name="Ann") as ann, Past(service.url, name) as past:
        await ann.post("first", id="m1")
        draft = await past.keep("draft")
        assert (draft.name, await past.versions()) == ("draft", [draft])
        await ann.post("second", id="m2")
        ann.edit(lambda view: view.state.__setitem__("k", {"a": [1]}))
        await ann.durable()
        assert len(await past.recent()) >= 3
        patch = await past.difference(draft.seq)
        paths = {operation["path"] for operation in patch}
        assert {"/messages/m2", "/state/k"} <= paths
        then = await past.read(draft.seq)
        assert [message.id for message in then.messages] == ["m1"]

        before = await past.restore(draft.seq)
        await ann.until(lambda: set(ann.view.messages.ids()) == {"m1"} and not ann.view.state.to_py())
        assert [message.id for message in (await past.read(before.seq)).messages] == ["m1", "m2"]
        await past.restore(before.seq)
        await ann.until(lambda: set(ann.view.messages.ids()) == {"m1", "m2"})
        assert ann.view.state.to_py() == {"k": {"a": [1.0]}}
        assert [message.seq for message in ann.messages.all()] == [1, 2]

        await past.fork(f"{name}-fork", seq=draft.seq, title="Fork")
        async with connect(service.url, f"{name}-fork") as fork:
            assert set(fork.view.messages.ids()) == {"m1"}
            assert fork.view.meta.title == "Fork"
        renamed = await past.rename(draft.seq, None)
        assert renamed.name is None


async def test_a_patch_applied_to_what_was_is_what_is(service, name):
    with service.http() as http:
        for number in range(3):
            http.post(f"/v1/sessions/{name}/messages", json={"id": f"m{number}", "text": f"{number} 😀"})
        first = http.post(f"/v1/sessions/{name}/versions", json={}).json()["seq"]
        http.post(f"/v1/sessions/{name}/messages", json={"id": "m9", "text": "new"})
        http.patch(f"/v1/sessions/{name}", json={"title": "T"})
        answer = http.get(f"/v1/sessions/{name}/versions/{first}/diff")
        assert answer.headers["content-type"] == "application/json-patch+json"
        old = by_id(SessionExport.model_validate(http.get(f"/v1/sessions/{name}/versions/{first}").json()))
        new = by_id(SessionExport.model_validate(http.get(f"/v1/sessions/{name}/export").json()))
        assert jsonpatch.apply_patch(old, answer.json()) == new
        assert "new" not in http.get(f"/v1/sessions/{name}/versions/{first}?format=markdown").text
        assert http.get(f"/v1/sessions/{name}/versions/{first}?format=yjs").content[:1] != EMPTY_UPDATE[:1]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("GET", "/versions/99", None, 404, "there is no version '99'"),
        ("GET", "/versions/x", None, 404, None),
        ("GET", "/versions/1/diff?to=0", None, 422, "to"),
        ("POST", "/versions", {"name": ""}, 422, "name"),
        ("POST", "/versions", {"nam": "x"}, 422, "nam"),
        ("PATCH", "/versions/99", {"name": "x"}, 404, "99"),
        ("POST", "/versions/99/restore", None, 404, "99"),
        ("POST", "/fork", {}, 422, "id"),
        ("POST", "/fork", {"id": "a/../b"}, 422, "session's name"),
        ("GET", "/versions/1?format=pdf", None, 422, "format"),
    ],
)
def test_bad_requests_get_a_problem_document_that_names_it(service, name, method, path, body, status, named):
    with service.http() as http:
        http.post("/v1/sessions", json={"id": name})
        answer = http.request(method, f"/v1/sessions/{name}{path}", json=body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert named is None or named in answer.text


async def test_a_session_that_agents_write_in_is_not_pulled_from_under_them(service, name):
    async with connect(service.url, name, name="Ann") as ann, Past(service.url, name) as past:
        kept = await past.keep()
        await ann.post("?", id="q", agent="nobody")
        await ann.until(lambda: any(run.status == "queued" for run in ann.view.runs.all()))
        with pytest.raises(RequestRefused) as refused:
            await past.restore(kept.seq)
        assert (refused.value.status, refused.value.problem["type"]) == (409, PROBLEM + "runs-active")


async def test_a_session_moves_to_another_service_with_all_its_versions(service, name, tmp_path):
    async with connect(service.url, name, name="Ann") as ann, Past(service.url, name) as past:
        for number in range(3):
            await ann.post(f"{number}", id=f"m{number}")
            await past.keep(f"v{number}")
        await ann.post("?", id="q", agent="nobody")
        await ann.until(lambda: bool(ann.view.runs.all()))
        kept, archived = await past.versions(), await past.archive()
    elsewhere = Server(tmp_path / "other.db", "--default-agent", "")
    try:
        async with Past(elsewhere.url, "moved") as moved:
            await moved.take_over(archived)
            assert [(each.seq, each.at, each.name) for each in await moved.versions()][:3] == [
                (each.seq, each.at, each.name) for each in kept[:3]
            ]
            assert [message.id for message in (await moved.read(kept[0].seq)).messages] == ["m0"]
            async with connect(elsewhere.url, "moved", name="Bob") as bob:
                assert set(bob.view.messages.ids()) == {"m0", "m1", "m2", "q"}
                assert [run.status for run in bob.view.runs.all()] == ["interrupted"]
                assert bob.view.meta.session_id == "moved"
                await bob.post("goes on")
            with pytest.raises(RequestRefused) as refused:
                await moved.take_over(archived)
            assert refused.value.status == 409
            lines = archived.splitlines(keepends=True)
            spoiled = [
                b"".join(lines[:-1]),
                b"".join(lines[1:]),
                archived.replace(b'"sha256":"', b'"sha256":"00', 1),
                b"not JSON",
                b"",
                json.dumps([1]).encode(),
            ]
            async with Past(elsewhere.url, "bad") as bad:
                for each in spoiled:
                    with pytest.raises(RequestRefused) as refused:
                        await bad.take_over(each)
                    assert refused.value.status == 422
    finally:
        elsewhere.close()


def test_reading_needs_a_token_and_changing_needs_one_that_may_write(tmp_path):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"w": {"principal": "ann"}, "r": {"principal": "bob", "canWrite": False}}))
    server = Server(tmp_path / "s.db", "--tokens-file", tokens)
    try:
        with server.http(headers={"Authorization": "Bearer w"}) as ann:
            ann.post("/v1/sessions", json={"id": "a"})
            seq = ann.post("/v1/sessions/a/versions", json={}).json()["seq"]
        with server.http(headers={"Authorization": "Bearer r"}) as bob, server.http() as nobody:
            assert bob.get("/v1/sessions/a/versions").status_code == 200
            assert bob.get(f"/v1/sessions/a/versions/{seq}").status_code == 200
            for method, path, body in (
                ("POST", "/versions", {}), ("PATCH", f"/versions/{seq}", {"name": "x"}),
                ("POST", f"/versions/{seq}/restore", None), ("POST", "/fork", {"id": "b"}),
            ):  # fmt: skip
                assert bob.request(method, f"/v1/sessions/a{path}", json=body).status_code == 403
                assert nobody.request(method, f"/v1/sessions/a{path}", json=body).status_code == 401
    finally:
        server.close()
