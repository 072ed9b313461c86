"""A Yjs client writes what JSON has no word for: everybody else reads on. And over HTTP it does not come in."""

import asyncio
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc
from websockets.sync.client import connect as connect_socket

from crdt_sessions import connect
from crdt_sessions.wire import AwarenessEntry, AwarenessFrame, SyncStep1, encode, encode_awareness
from tests.interop.node import needs_node
from tests.oddities import changes, strict
from tests.processes import Server, attempts


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("odd") / "s.db")
    yield process
    process.close()


@pytest.fixture(scope="module")
def http(service):
    with service.http() as client:
        yield client


def begun(http):
    """Return the name of a session in which somebody said something."""
    name = f"s-{uuid.uuid4().hex}"
    assert http.post(f"/v1/sessions/{name}/messages", json={"id": "first", "text": "before"}).status_code == 201
    return name


def read_everything(http, name):
    """Read a session in every way there is."""
    session = f"/v1/sessions/{name}"
    assert http.post(f"{session}/messages", json={"id": "last", "text": "behind"}).status_code == 201
    kept = http.post(f"{session}/versions", json={"name": "kept"}).json()["seq"]
    texts = {"before", "behind"}
    told = {}
    for path in (
        session,
        f"{session}/messages",
        f"{session}/runs",
        f"{session}/events?waitS=0",
        f"{session}/export",
        f"{session}/versions/{kept}",
        f"{session}/versions/1/diff",
        f"{session}/receipt",
        f"{session}/receipt?principal=x",
        f"{session}/authors",
        f"{session}/presence",
        f"/v1/gateways/ai-sdk/chat/{name}/messages",
        f"/v1/gateways/tanstack/{name}?threadId={name}",
    ):
        answer = http.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        told[path] = strict(answer.text)
    for path in (f"{session}/export?format=markdown", f"{session}/versions/{kept}?format=markdown"):
        answer = http.get(path)
        assert answer.status_code == 200, (path, answer.text[:500])
        assert all(text in answer.text for text in texts)
    for path in (f"{session}/messages", f"{session}/export", f"{session}/versions/{kept}"):
        assert {"first", "last"} <= {message["id"] for message in told[path]["messages"]}
    events = told[f"{session}/events?waitS=0"]["events"]
    assert {"first", "last"} <= {event["data"]["id"] for event in events if event["event"] == "message"}
    assert {"first", "last"} <= {each["id"] for each in told[f"/v1/gateways/ai-sdk/chat/{name}/messages"]["messages"]}
    lines = http.get("/v1/principals/anonymous/data")
    assert lines.status_code == 200
    assert [strict(line) for line in lines.text.splitlines()]
    return told


@settings(max_examples=max(12, settings().max_examples // 25))
@given(change=st.lists(changes(), min_size=1, max_size=3))
def test_whatever_a_client_writes_every_reader_is_answered_with_json_and_all_the_rest(http, change):
    name = begun(http)
    doc = Doc()
    for each in change:
        each(doc)
    octets = {"content-type": "application/octet-stream"}
    assert http.post(f"/v1/sessions/{name}/import", content=doc.get_update(), headers=octets).status_code == 200
    read_everything(http, name)


def test_a_presence_that_python_cannot_spell_is_spelled_for_everybody_else(service, http):
    """Half a surrogate pair is what a name becomes that is cut within an emoji."""
    name = begun(http)
    state = '{"user": {"name": "Ann \\ud83d"}, "x": 1e999}'
    with connect_socket(f"{service.ws}/{name}") as socket:
        socket.send(
            encode(SyncStep1(b"\0")) + encode(AwarenessFrame(encode_awareness([AwarenessEntry(7, 1, state)])))
        )
        for _ in attempts():
            if present := strict(http.get(f"/v1/sessions/{name}/presence").text)["present"]:
                break
        shown = {"user": {"name": "Ann \ufffd"}, "x": {"$number": "Infinity"}}
        assert present == [{"clientId": 7, "state": shown}]
        with http.stream("GET", f"/v1/sessions/{name}/events?kinds=presence") as answer:
            data = next(line for line in answer.iter_lines() if line.startswith("data:"))
        assert strict(data.removeprefix("data:")) == {"present": present}
        asks = {"sessions": [{"id": name, "presence": {}}]}
        (answered,) = http.post("/v1/sync", json=asks).json()["sessions"]
        assert {"clientId": 7, "state": shown} in answered["present"]


@needs_node
def test_what_only_javascript_has_is_spelled_for_everybody_else(service, http, js):
    name = begun(http)
    js("open", peer="p", url=service.ws, room=name)
    js.synced("p")
    js("odd", peer="p", id="odd")
    js.until(
        lambda _: http.get(f"/v1/sessions/{name}/messages").json()["messages"][-1]["id"] == "odd",
        command="status",
        peer="p",
    )
    told = read_everything(http, name)
    export = told[f"/v1/sessions/{name}/export"]
    odd = next(message for message in export["messages"] if message["id"] == "odd")
    spelled = {
        "big": {"$bigint": str(2**62 + 1)},
        "small": 10,
        "undefined": None,
        "bytes": {"$bytes": "AQI="},
        "nan": {"$number": "NaN"},
        "lone": "a�",
        "date": {},
        "within": {"big": {"$bigint": str(2**62 + 1)}, "list": [None, {"$bytes": "Aw=="}, {"$number": "-Infinity"}]},
    }
    assert odd["parts"][0]["value"] == spelled
    types = {
        "text": "x",
        "element": "<p></p>",
        "sub": {"$subdocument": "g"},
        "array": [{"big": 1}, {"$bytes": "BA=="}],
        "map": {"nan": {"$number": "NaN"}},
        "embedded": "ab",
    }
    assert {part["name"]: part["value"] for part in odd["parts"][1:]} == types
    assert export["state"] == spelled | types
    assert export["receipts"] == {"small": 10}
    assert js("status", peer="p")["connected"]

    async def python():
        async with connect(service.url, name) as session:
            assert [message.id for message in session.messages.all()] == ["first", "odd", "last"]
            json.dumps([message.to_json() for message in session.messages.all()], allow_nan=False)

    asyncio.run(python())


BODIES = {
    "NaN": ('{"text": "x", "parts": [{"type": "data", "value": {"a": [NaN]}}]}', "parts[0].value.a[0]"),
    "infinity": ('{"text": "x", "parts": [{"type": "data", "value": {"a": 1e999}}]}', "parts[0].value.a:"),
    "twice": ('{"text": "x", "text": "y"}', "text"),
    "2**53": ('{"parts": [{"type": "data", "value": {"a": 9007199254740992}}]}', "value.a"),
    "half a pair": ('{"parts": [{"type": "data", "value": {"a": "\\ud83d"}}]}', "value.a"),
    "deep": (f'{{"parts": [{{"type": "data", "value": {"[" * 100}1{"]" * 100}}}]}}', "value[0][0]"),
    "bottomless": (f'{{"parts": [{{"type": "data", "value": {"[" * 5000}1{"]" * 5000}}}]}}', ""),
}


@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_json_to_others_is_refused_with_its_place(http, body):
    name = begun(http)
    text, where = BODIES[body]
    headers = {"content-type": "application/json"}
    answer = http.post(f"/v1/sessions/{name}/messages", content=text, headers=headers)
    assert answer.status_code == 422, answer.text
    assert where in strict(answer.text)["detail"]
    assert len(http.get(f"/v1/sessions/{name}/messages").json()["messages"]) == 1


def test_numbers_beyond_what_javascript_can_hold_are_refused_everywhere(http):
    name = begun(http)
    session = f"/v1/sessions/{name}"
    assert http.put(f"{session}/receipt", json={"principal": "x", "seq": 2**53}).status_code == 422
    assert http.put(f"{session}/receipt", json={"principal": "x", "seq": 2**53 - 1}).status_code == 200
    assert http.post("/v1/sessions", json={"id": name + "2", "metadata": {"a": 2**60}}).status_code == 422
    for path in (
        f"{session}/versions/{2**70}",
        f"{session}/versions/1/diff?to={2**70}",
        f"{session}/messages?after={2**70}",
    ):
        assert http.get(path).status_code in (200, 404, 422), path
    assert http.post(f"{session}/versions/{2**70}/restore").status_code in (404, 422)
    assert http.post(f"{session}/fork", json={"id": name + "3", "version": 2**70}).status_code in (404, 422)


@pytest.mark.parametrize(
    "export",
    [
        {"messages": [{"createdAt": 2**60}]},
        {"state": {"a": float("nan")}},
        {"state": {"a": 2**60}},
        {"receipts": {"x": 2**60}},
    ],
)
def test_an_import_of_what_is_no_json_to_others_is_refused(http, export):
    name = begun(http)
    told = http.get(f"/v1/sessions/{name}/export").json()
    for key, value in export.items():
        told[key] = [{**told[key][0], **value[0]}] if isinstance(value, list) else value
    headers = {"content-type": "application/json"}
    answer = http.post(f"/v1/sessions/{name}-2/import", content=json.dumps(told), headers=headers)
    assert answer.status_code == 422, answer.text
    assert next(iter(export)) in strict(answer.text)["detail"]
    assert http.get(f"/v1/sessions/{name}-2").status_code == 404
