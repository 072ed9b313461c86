"""Artifacts over REST: texts that participants without Yjs edit together with those who have it."""

import contextlib

import pytest
from pycrdt import Map, XmlFragment

from crdt_sessions import connect
from tests.processes import Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("artifacts") / "s.db")
    yield process
    process.close()


@pytest.fixture
def url(request, http):
    name = "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")
    http.post("/v1/sessions", json={"id": name})
    return f"/v1/sessions/{name}/artifacts"


def made(http, url, content, artifact="plan"):
    answer = http.post(url, json={"id": artifact, "title": "Plan", "content": content})
    assert answer.status_code == 201, answer.text
    return f"{url}/{artifact}"


def content(http, plan):
    return http.get(plan).json()["content"]


def slug(answer):
    return answer.json()["type"].rpartition(":")[2]


def test_an_artifact_is_created_listed_read_replaced_and_deleted(http, url):
    created = http.post(
        url, json={"id": "plan", "title": "Plan", "mediaType": "text/markdown", "content": "# Köln\n"}
    )
    assert (created.status_code, created.json()["content"], created.json()["kind"]) == (201, "# Köln\n", "text")
    assert created.json()["author"]["id"] == "anonymous"
    again = http.post(url, json={"id": "plan", "title": "Other", "content": "other"})
    assert (again.status_code, again.json()) == (200, created.json())
    (listed,) = http.get(url).json()["artifacts"]
    assert listed == {key: value for key, value in created.json().items() if key not in ("content", "version")}
    assert listed["length"] == 7
    read = http.get(f"{url}/plan")
    assert (read.json(), read.headers["ETag"]) == (created.json(), f'"{created.json()["version"]}"')
    replaced = http.put(f"{url}/plan", json={"content": "# Bonn\n"})
    assert (replaced.status_code, replaced.json()["content"]) == (200, "# Bonn\n")
    assert replaced.headers["ETag"] != read.headers["ETag"]
    assert http.delete(f"{url}/plan").status_code == 204
    for method, path, body in (
        ("GET", "plan", None), ("PUT", "plan", {"content": ""}), ("DELETE", "plan", None),
        ("POST", "plan/splice", {"index": 0, "insert": "x"}), ("GET", "plan/position?index=0", None),
    ):  # fmt: skip
        gone = http.request(method, f"{url}/{path}", json=body)
        assert (gone.status_code, slug(gone)) == (404, "not-found"), method
    assert http.get(url).json()["artifacts"] == []


def test_an_artifact_that_is_known_is_not_sent_again(http, url):
    plan = made(http, url, "abc")
    version = http.get(plan).headers["ETag"]
    again = http.get(plan, headers={"If-None-Match": version})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", version)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PUT", "", {"content": "new"}), ("POST", "/splice", {"index": 0, "insert": "x"}), ("DELETE", "", None)],
)
def test_a_change_of_another_version_is_refused_with_the_present_one(http, url, method, path, body):
    plan = made(http, url, "abc")
    old = http.get(plan).headers["ETag"]
    http.put(plan, json={"content": "abcd"})
    late = http.request(method, plan + path, json=body, headers={"If-Match": old})
    now = http.get(plan)
    assert (late.status_code, slug(late), late.json()["version"]) == (
        412,
        "precondition-failed",
        now.json()["version"],
    )
    assert now.json()["content"] == "abcd"
    assert http.request(method, plan + path, json=body, headers={"If-Match": now.headers["ETag"]}).is_success


def test_a_splice_deletes_and_inserts_at_an_index(http, url):
    plan = made(http, url, "Grüße 😀 aus Köln")
    answer = http.post(f"{plan}/splice", json={"index": 6, "delete": 1, "insert": "👍🏽!"}).json()
    assert content(http, plan) == "Grüße 👍🏽! aus Köln"
    assert (answer["index"], answer["length"]) == (6, 18)
    assert answer["version"] == http.get(plan).json()["version"]
    for body, says in (
        ({"index": 19, "insert": "x"}, "outside a text of 18"), ({"index": 17, "delete": 2}, "outside a text of 18"),
        ({"insert": "x"}, "say where"), ({"index": 0, "position": {"assoc": 0}}, "say where"),
        ({"index": -1}, "index"), ({"position": {"item": {"client": 1, "clock": 0}}}, "no place in this text"),
    ):  # fmt: skip
        refused = http.post(f"{plan}/splice", json=body)
        assert (refused.status_code, says in refused.json()["detail"]) == (422, True), refused.text
    assert content(http, plan) == "Grüße 👍🏽! aus Köln"


def test_a_writer_goes_on_at_its_place_while_others_write(http, url):
    plan = made(http, url, "# Oslo\n\n# Köln\n")
    place = http.get(f"{plan}/position", params={"index": 7, "assoc": -1}).json()["position"]
    for word in ("walk 😀 ", "and ", "swim"):
        http.post(f"{plan}/splice", json={"index": 0, "insert": "Ü"})
        place = http.post(f"{plan}/splice", json={"position": place, "insert": word}).json()["position"]
    assert content(http, plan) == "ÜÜÜ# Oslo\nwalk 😀 and swim\n# Köln\n"


async def test_a_replacement_keeps_the_places_of_yjs_peers_and_what_they_write(service, http, url):
    plan = made(http, url, "one two three")
    async with connect(service.url, url.split("/")[3]) as peer:
        text = peer.view.artifacts.text("plan")
        place = peer.view.artifacts.position_at("plan", 8)
        http.put(plan, json={"content": "one 2 three"})
        await peer.until(lambda: str(text) == "one 2 three")
        assert peer.view.artifacts.index_of("plan", place) == 6
        peer.edit(lambda view: view.artifacts.splice("plan", 0, 0, "zero "))
        await peer.durable()
    assert content(http, plan) == "zero one 2 three"


async def test_rich_text_is_shown_as_xml_and_changed_by_yjs_peers_only(service, http, url):
    async with connect(service.url, url.split("/")[3]) as peer:
        rich = {"head": {"id": "rich", "createdAt": 1}, "content": XmlFragment()}
        peer.edit(lambda view: view.document.roots.artifacts.update({"rich": Map(rich)}))
        await peer.durable()
    assert http.get(f"{url}/rich").json()["kind"] == "xml"
    for method, path, body in (
        ("PUT", "rich", {"content": "x"}), ("POST", "rich/splice", {"index": 0}), ("GET", "rich/position?index=0", None),
    ):  # fmt: skip
        refused = http.request(method, f"{url}/{path}", json=body)
        assert (refused.status_code, "only Yjs peers" in refused.json()["detail"]) == (422, True)


def test_a_text_that_the_document_cannot_hold_is_refused(tmp_path):
    small = Server(tmp_path / "s.db", "--max-document-bytes", "4096")
    with contextlib.closing(small), small.http() as http:
        http.post("/v1/sessions", json={"id": "s"})
        url = "/v1/sessions/s/artifacts"
        plan = made(http, url, "a")
        for method, path, body in (
            ("POST", url, {"content": "x" * 5000}), ("PUT", plan, {"content": "x" * 5000}),
            ("POST", f"{plan}/splice", {"index": 0, "insert": "x" * 5000}),
        ):  # fmt: skip
            refused = http.request(method, path, json=body)
            assert (refused.status_code, slug(refused)) == (413, "too-large"), method
        assert http.put(plan, json={"content": "b"}).status_code == 200
        assert content(http, plan) == "b"
