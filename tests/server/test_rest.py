"""The REST interface, against the running service."""

import asyncio
import json
import uuid

import httpx
import pytest
from pycrdt import Doc, Map

from crdt_sessions import connect
from crdt_sessions.wire import AwarenessFrame, SyncStep1, SyncStep2, Update, decode, encode
from crdt_sessions.wire.varint import decode_state_vector
from tests.processes import PROBLEM, Server, attempts


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("rest") / "s.db")
    yield process
    process.close()


@pytest.fixture
def name():
    return f"s-{uuid.uuid4().hex}"


def test_a_session_is_created_once_listed_renamed_closed_and_deleted(http, name):
    created = http.post("/v1/sessions", json={"id": name, "title": "Trip", "metadata": {"lang": "nb"}})
    assert created.status_code == 201
    assert created.headers["location"] == f"/v1/sessions/{name}"
    assert (created.json()["title"], created.json()["generation"], created.json()["status"]) == ("Trip", 1, "active")
    assert http.post("/v1/sessions", json={"id": name}).status_code == 409
    assert http.patch(f"/v1/sessions/{name}", json={"title": "Oslo"}).json()["title"] == "Oslo"
    detail = http.get(f"/v1/sessions/{name}").json()
    assert (detail["title"], detail["peers"], detail["messages"]) == ("Oslo", 0, 0)
    assert http.patch(f"/v1/sessions/{name}", json={"status": "closed"}).json()["status"] == "closed"
    refused = http.post(f"/v1/sessions/{name}/messages", json={"text": "x"})
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "session-closed")
    assert http.patch(f"/v1/sessions/{name}", json={"status": "active"}).json()["status"] == "active"
    assert http.post(f"/v1/sessions/{name}/messages", json={"text": "x"}).status_code == 201
    assert http.delete(f"/v1/sessions/{name}").status_code == 204
    assert http.get(f"/v1/sessions/{name}").status_code == 410
    assert http.delete(f"/v1/sessions/{name}").status_code == 410
    assert http.post("/v1/sessions", json={"id": name}).json()["generation"] == 2


def test_an_id_is_made_up_if_none_is_given(http):
    made = http.post("/v1/sessions", json={}).json()["id"]
    assert http.get(f"/v1/sessions/{made}").status_code == 200


def test_sessions_are_listed_page_by_page(http, name):
    names = sorted(f"{name}-{n}" for n in range(5))
    for each in names:
        http.post("/v1/sessions", json={"id": each})
    found, cursor = [], None
    while True:
        page = http.get("/v1/sessions", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        found += [session["id"] for session in page["sessions"]]
        cursor = page.get("nextCursor")
        if cursor is None:
            break
    assert [each for each in found if each.startswith(name)] == names
    assert found == sorted(found)


def test_messages_are_posted_once_ordered_and_paged(http, name):
    first = http.post(f"/v1/sessions/{name}/messages", json={"id": "k", "text": "één", "author": {"id": "ann"}})
    again = http.post(f"/v1/sessions/{name}/messages", json={"id": "k", "text": "other"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert (first.json()["seq"], first.json()["author"]["id"]) == (1, "ann")
    for n in range(4):
        http.post(f"/v1/sessions/{name}/messages", json={"parts": [{"type": "data", "value": {"n": n}}]})
    page = http.get(f"/v1/sessions/{name}/messages", params={"limit": 3}).json()
    rest = http.get(f"/v1/sessions/{name}/messages", params={"after": page["nextCursor"]}).json()
    assert [m["seq"] for m in page["messages"] + rest["messages"]] == [1, 2, 3, 4, 5]
    assert "nextCursor" not in rest
    assert rest["messages"][-1]["parts"] == [{"type": "data", "value": {"n": 3}}]


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "named"),
    [
        ("POST", "/v1/sessions", {"json": {"id": " "}}, 422, "session's name"),
        ("POST", "/v1/sessions", {"json": {"titel": "x"}}, 422, "titel"),
        ("POST", "/v1/sessions", {"json": {"title": 5}}, 422, "title"),
        ("POST", "/v1/sessions", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, None),
        ("GET", "/v1/sessions?limit=0", {}, 422, "limit"),
        ("GET", "/v1/sessions?limt=1", {}, 422, "limt"),
        ("GET", "/v1/sessions/%20", {}, 422, "session's name"),
        ("GET", "/v1/sessions/nope", {}, 404, "nope"),
        ("GET", "/v1/sessions/nope/events", {}, 404, "nope"),
        ("GET", "/v1/nothing", {}, 404, None),
        ("PUT", "/v1/sessions", {}, 405, None),
        ("POST", "/v1/sessions/x/messages", {"json": {"role": "king"}}, 422, "role"),
        ("POST", "/v1/sessions/x/messages", {"json": {"parts": [{"type": "odd"}]}}, 422, "parts.0"),
        (
            "POST",
            "/v1/sessions/x/messages",
            {"json": {"parts": [{"type": "data", "value": {"n": 2**60}}]}},
            422,
            "value.n",
        ),
        (
            "POST",
            "/v1/sessions",
            {"content": b'{"metadata": {"x": "\\ud83d"}}', "headers": {"content-type": "application/json"}},
            422,
            "metadata",
        ),
        (
            "POST",
            "/v1/sessions/x/messages",
            {"content": b'{"text": "\\ud83d"}', "headers": {"content-type": "application/json"}},
            422,
            "text",
        ),
        (
            "POST",
            "/v1/sessions/x/messages",
            {
                "content": b'{"parts": [{"type": "data", "value": NaN}]}',
                "headers": {"content-type": "application/json"},
            },
            422,
            "value",
        ),
        ("PATCH", "/v1/sessions/nope", {"json": {"title": "x"}}, 404, "nope"),
        ("GET", "/v1/sessions/nope/export?format=pdf", {}, 422, "format"),
        ("POST", "/v1/sessions/x/import", {"content": b"\xff\xff"}, 400, "decoded"),
        ("POST", "/v1/sessions/x/import", {"json": {"meta": 1}}, 422, "export"),
        ("POST", "/v1/sessions/x/sync", {"content": b"\x00\x00\x05\x01"}, 400, "wanted 5 bytes"),
        ("POST", "/v1/sessions/x/sync", {"content": encode(AwarenessFrame(b"\x00"))}, 400, "type 1"),
    ],
)
def test_bad_input_gets_a_problem_document_that_names_it(http, method, path, options, status, named):
    answer = http.request(method, path, **options)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"][:26]) == (status, "urn:crdt-sessions:problem:")
    if named:
        assert named in problem["detail"]


def test_exports_come_in_three_forms_and_go_in_again(http, name):
    http.post("/v1/sessions", json={"id": name, "title": "Oslo"})
    http.post(f"/v1/sessions/{name}/messages", json={"text": "Hei 😀", "author": {"id": "ann", "name": "Ann"}})
    http.post(
        f"/v1/sessions/{name}/messages", json={"parts": [{"type": "reasoning", "text": "hm"}], "role": "assistant"}
    )
    transcript = http.get(f"/v1/sessions/{name}/export", params={"format": "markdown"})
    assert transcript.headers["content-type"] == "text/markdown; charset=utf-8"
    assert transcript.text.startswith("# Oslo\n\n### Ann (user), ")
    assert "Hei 😀" in transcript.text
    assert "> hm" in transcript.text
    export = http.get(f"/v1/sessions/{name}/export").json()
    update = http.get(f"/v1/sessions/{name}/export", params={"format": "yjs"}).content
    doc = Doc()
    doc.apply_update(update)
    assert len(doc.get("messages", type=Map)) == 2

    copied = http.post(f"/v1/sessions/{name}-json/import", json=export)
    assert (copied.status_code, copied.json()["title"]) == (201, "Oslo")
    assert http.post(f"/v1/sessions/{name}-json/import", json=export).status_code == 409
    merged = http.post(
        f"/v1/sessions/{name}-yjs/import", content=update, headers={"content-type": "application/octet-stream"}
    )
    assert merged.status_code == 200
    for copy in (f"{name}-json", f"{name}-yjs"):
        again = http.get(f"/v1/sessions/{copy}/export").json()
        assert again["messages"] == export["messages"]
        assert again["meta"]["sessionId"] == copy, "what the server decides is not imported"


def test_a_phone_without_a_socket_syncs_by_post(service, http, name):
    phone = Doc(client_id=5)
    phone.get("state", type=Map)["from"] = "phone"
    http.post(f"/v1/sessions/{name}/messages", json={"text": "hello"})
    body = encode(SyncStep1(phone.get_state())) + encode(Update(phone.get_update()))
    answer = http.post(f"/v1/sessions/{name}/sync", content=body)
    assert answer.headers["content-type"] == "application/octet-stream"
    step2, step1 = decode(answer.content)
    assert isinstance(step2, SyncStep2)
    assert isinstance(step1, SyncStep1)
    phone.apply_update(step2.update)
    assert len(phone.get("messages", type=Map)) == 1
    assert decode_state_vector(phone.get_state()) == decode_state_vector(step1.state_vector)
    again = http.post(f"/v1/sessions/{name}/sync", content=encode(SyncStep1(phone.get_state()))).content
    assert next(decode(again)) == SyncStep2(b"\x00\x00")

    async def seen_by_a_peer():
        async with connect(service.url, name) as peer:
            return dict(peer.view.state.items())

    assert asyncio.run(seen_by_a_peer()) == {"from": "phone"}


def _events(response):
    event = {}
    for line in response.iter_lines():
        if line == "":
            if "data" in event:
                yield event["id"], event["event"], json.loads(event["data"])
            event = {}
        elif not line.startswith(":"):
            key, _, value = line.partition(": ")
            event[key] = value


def test_events_come_whole_first_then_live_and_resume_where_they_stopped(http, name):
    http.post("/v1/sessions", json={"id": name, "agent": ""})
    http.post(f"/v1/sessions/{name}/messages", json={"text": "one"})
    with http.stream("GET", f"/v1/sessions/{name}/events") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = _events(response)
        kinds = [next(events) for _ in range(3)]
        assert [kind for _, kind, _ in kinds] == ["presence", "session", "message"]
        http.post(f"/v1/sessions/{name}/messages", json={"text": "two"})
        cursor, kind, data = next(events)
        assert (kind, data["parts"][0]["text"]) == ("message", "two")
    http.post(f"/v1/sessions/{name}/messages", json={"text": "three"})
    with http.stream("GET", f"/v1/sessions/{name}/events", headers={"Last-Event-ID": cursor}) as response:
        events = _events(response)
        assert next(events)[1] == "presence"
        _, kind, data = next(events)
        assert (kind, data["parts"][0]["text"]) == ("message", "three")


def test_events_as_lines_of_json_and_only_some(http, name):
    http.post("/v1/sessions", json={"id": name, "agent": ""})
    http.post(f"/v1/sessions/{name}/messages", json={"text": "one"})
    with http.stream(
        "GET", f"/v1/sessions/{name}/events?kinds=message", headers={"Accept": "application/x-ndjson"}
    ) as response:
        assert response.headers["content-type"] == "application/x-ndjson; charset=utf-8"
        lines = response.iter_lines()
        first = json.loads(next(lines))
        assert (first["event"], first["data"]["parts"][0]["text"]) == ("message", "one")
        http.post(f"/v1/sessions/{name}/messages", json={"text": "two"})
        assert json.loads(next(lines))["data"]["parts"][0]["text"] == "two"
    assert http.get(f"/v1/sessions/{name}/events?kinds=nonsense").status_code == 422


def test_events_a_page_at_a_time(http, name):
    http.post("/v1/sessions", json={"id": name, "agent": ""})
    http.post(f"/v1/sessions/{name}/messages", json={"text": "one"})
    url = f"/v1/sessions/{name}/events?kinds=message"
    page = http.get(f"{url}&waitS=5").json()
    assert [event["data"]["parts"][0]["text"] for event in page["events"]] == ["one"]
    again = http.get(f"{url}&waitS=0.1&cursor={page['cursor']}").json()
    assert again == {"events": [], "cursor": page["cursor"]}
    http.post(f"/v1/sessions/{name}/messages", json={"text": "two"})
    more = http.get(f"{url}&waitS=5&cursor={page['cursor']}").json()
    assert [event["data"]["parts"][0]["text"] for event in more["events"]] == ["two"]


async def test_presence_is_told_to_those_who_ask(service, name):
    async with (
        connect(service.url, name, name="Ann"),
        httpx.AsyncClient(base_url=service.url, trust_env=False) as http,
    ):
        for _ in attempts():
            present = (await http.get(f"/v1/sessions/{name}/presence")).json()["present"]
            if present:
                break
            await asyncio.sleep(0.02)
        assert [entry["state"]["user"]["name"] for entry in present] == ["Ann"]


def test_health_and_openapi_need_nothing(http):
    assert http.get("/healthz").json() == {"status": "ok"}
    assert http.get("/readyz").json()["status"] == "ready"
    described = http.get("/openapi.json").json()
    assert "/v1/sessions/{name}/messages" in described["paths"]
    assert http.get("/").status_code == 200
    assert http.get("/demo/../app.py").status_code == 404


def test_pages_of_other_origins_are_kept_out(http):
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        assert http.get("/v1/sessions", headers=headers).status_code == 403
    assert http.get("/v1/sessions", headers={"Origin": "http://localhost:3000"}).status_code == 200
