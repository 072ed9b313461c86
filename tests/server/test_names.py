"""Names of sessions and ids as clients make them up: by every door the same session, in every path the same thing."""

import re
from urllib.parse import quote

import pytest
import websockets

from crdt_sessions import connect
from crdt_sessions.errors import BadSessionId
from crdt_sessions.ids import name_of, session_id, tenant_of
from crdt_sessions.wire import SyncStep1, SyncStep2, decode, encode
from tests.processes import Server

NAMES = (
    "_vYz0pBq2tK3mX-4nR5sW",  # nanoid: one in 32 begins with one of these
    "-vYz0pBq2tK3mX_4nR5sW",
    "V1StGXR8_Z5jdHi6B-myT",
    "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",  # uuid
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",  # ulid
    "cjld2cjxh0000qzrmn831i7rn",  # cuid
    "thread_abc123",
    "chatcmpl-123.~:@",
    "a b/1",
    "https://example.com/chat?of=ann#here",
    "ann+work@example.com",
    "Reise nach Zürich",
    "旅行/京都",
    "100%",
    "a%20b",
    "a//b/",
    "/a",
    ".hidden",
    'it\'s "quoted" & <more>; a=b, \\',
    "😀" * 200,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("names") / "s.db", "--default-agent", "")
    yield process
    process.close()


@pytest.fixture
def busy(http):
    """An agent that is there and does something else."""
    http.post("/v1/sessions/busy/messages", json={"id": "q", "text": "?", "agent": "busy"})
    http.post("/v1/runs/claim", json={"agents": ["busy"], "leaseS": 900})
    return "busy"


def texts(messages):
    return [message["parts"][0]["text"] for message in messages]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_has_one_id_which_says_it(name):
    for tenant in ("", "acme"):
        id = session_id(name, tenant)
        assert (name_of(id), tenant_of(id)) == (name, tenant)
        assert re.fullmatch(r"(acme/)?[A-Za-z0-9._~:@%-]+", id)
    assert len({session_id(each) for each in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", ["trip-to-oslo", "a.b_c~d:e@f-G0"])
def test_names_that_needed_no_encoding_are_their_ids(name):
    """So sessions that are stored are found."""
    assert session_id(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 201, "a\nb", "a\x00", "\x85", "\ud83d", " a", "a ", "..", ".", "../a", "a/./b"]
)
async def test_a_name_that_no_url_can_hold_is_refused_and_why(service, name):
    with pytest.raises(BadSessionId, match="1 to 200 characters"):
        session_id(name)
    try:
        encoded = quote(name, safe="")
    except UnicodeEncodeError:
        return
    async with websockets.connect(f"{service.ws}/{encoded.replace('.', '%2E')}") as websocket:
        with pytest.raises(websockets.ConnectionClosed):
            await websocket.recv()
        assert (websocket.close_code, "1 to 200 characters" in websocket.close_reason) == (4400, True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.sampled(4)
async def test_by_every_door_it_is_the_same_session(service, http, busy, name):
    path = quote(name, safe="")
    assert http.post("/v1/sessions", json={"id": name, "title": name}).headers["location"] == f"/v1/sessions/{path}"
    async with connect(service.url, name, name="Ann") as peer:
        await peer.post("by Python", id="p")
        assert peer.view.meta.session_id == name
    assert http.post(f"/v1/sessions/{path}/messages", json={"text": "by REST"}).status_code == 201
    told = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "by useChat"}]}
    chat = {"id": name, "messages": [told]}
    with http.stream("POST", "/v1/gateways/ai-sdk/chat", json=chat) as answer:
        assert (answer.status_code, answer.headers["x-run-id"]) == (200, "run-u")
    # useChat puts the chat's id into the path as it is, and fetch encodes what no URL can hold
    raw = quote(name, safe="/:@!$&'()*+,;=%") if not set(name) & set("?#\\%") else path
    page = http.get(f"/v1/gateways/ai-sdk/chat/{raw}/messages")
    assert texts(page.json()["messages"]) == ["by Python", "by REST", "by useChat"]
    assert http.post(f"/v1/gateways/ai-sdk/chat/{raw}/stop").json() == {"stopped": ["run-u"]}
    agui = {"threadId": name, "runId": "r", "state": {}, "tools": [], "context": [], "forwardedProps": {}}
    said = {"id": "g", "role": "user", "content": "by AG-UI"}
    with http.stream("POST", "/v1/gateways/ag-ui", json=agui | {"messages": [said]}) as answer:
        assert answer.status_code == 200
    assert http.post(f"/v1/gateways/ag-ui/{raw}/cancel").json() == {"stopped": ["r"]}
    said = {"id": "t", "role": "user", "content": "by TanStack"}
    with http.stream(
        "POST", f"/v1/gateways/tanstack/{raw}", json=agui | {"runId": "s", "messages": [said]}
    ) as answer:
        assert answer.status_code == 200, answer.read()
    assert http.post(f"/v1/gateways/tanstack/{raw}/cancel").json() == {"stopped": ["s"]}
    headers = {"X-Session-Id": path}
    body = {"model": busy, "stream": True, "messages": [{"role": "user", "content": "by OpenAI"}]}
    with http.stream("POST", "/v1/gateways/openai/chat/completions", json=body, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["x-session-id"].isascii()
    http.post(f"/v1/gateways/ai-sdk/chat/{raw}/stop")
    # y-websocket encodes nothing, and the URL's parser what no URL can hold
    async with websockets.connect(f"{service.ws}/{raw}") as websocket:
        await websocket.send(encode(SyncStep1(b"\x00")))
        while not any(
            isinstance(frame, SyncStep2) and b"by OpenAI" in frame.update for frame in decode(await websocket.recv())
        ):
            pass
    found = http.get(f"/v1/sessions/{path}/messages").json()["messages"]
    assert texts(found) == ["by Python", "by REST", "by useChat", "by AG-UI", "by TanStack", "by OpenAI"]
    listed = http.get("/v1/sessions", params={"limit": 1000}).json()["sessions"]
    assert [each["title"] for each in listed if each["id"] == name] == [name]


def test_lists_go_on_behind_names_of_all_kinds(http):
    for name in NAMES:
        http.post("/v1/sessions", json={"id": name})
    found, cursor = [], None
    while True:
        page = http.get("/v1/sessions", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        found += [session["id"] for session in page["sessions"]]
        cursor = page.get("nextCursor")
        if cursor is None:
            break
    assert set(NAMES) <= set(found)
    assert len(found) == len(set(found))


IDS = ("thread/1", "..%2f", "a b", "ä/ü", "100%", "a?b#c", "a+b", "%2F", "😀" * 150, "~/.x", "a//b")


@pytest.mark.parametrize("id", IDS)
def test_a_run_of_whatever_id_is_done_from_beginning_to_end_over_rest(http, id):
    """By an agent that was given it, and by somebody who looks at it, writes to it and stops it."""
    assert http.post("/v1/sessions", json={"id": f"of {id}"}).status_code in (201, 409)
    session = f"/v1/sessions/{quote(f'of {id}', safe='')}"
    sent = http.post(f"{session}/messages", json={"id": id, "text": "?", "agent": f"for {id[:90]}"})
    assert (sent.status_code, sent.json()["id"]) == (201, id)
    claim = http.post("/v1/runs/claim", json={"agents": [f"for {id[:90]}"], "waitS": 20}).json()
    assert claim["session"] == f"of {id}"
    run, headers = f"{session}/runs/{quote(claim['run']['id'], safe='')}", {"Lease-Token": claim["token"]}
    assert http.post(f"{run}/renew", headers=headers).status_code == 200
    assert http.post(f"{run}/append", json={"offset": 0, "text": "Hm."}, headers=headers).json() == {"offset": 3}
    call = quote(f"call {id}", safe="")
    asks = {"name": "t", "input": {}, "approval": {"requestedAt": 1}}
    assert http.put(f"{run}/tools/{call}", json=asks, headers=headers).status_code == 204
    step = f"{run}/steps/{quote(f'step {id}', safe='')}"
    assert http.put(step, json={"value": id}, headers=headers).json() == {"value": id}
    assert http.get(step, headers=headers).json() == {"value": id}
    steering = {"id": f"steer {id}", "text": "!", "steers": claim["run"]["id"]}
    assert http.post(f"{session}/messages", json=steering).status_code == 201
    taken = http.post(f"{run}/steering/{quote(f'steer {id}', safe='')}", headers=headers)
    assert taken.status_code == 204
    assert http.post(f"{run}/result", json={"status": "suspended"}, headers=headers).json()["status"] == "suspended"
    assert http.post(f"{run}/approvals/{call}", json={"approved": True}).json()["approval"]["approved"] is True
    assert http.get(run).json()["status"] == "queued"
    assert http.post(f"{run}/cancel", json={}).json()["status"] == "cancelled"
    member = f"{session}/members/{quote(f'who {id}', safe='')[:200]}"
    assert http.delete(member).status_code == 204
    with http.stream(
        "GET",
        f"/v1/gateways/ai-sdk/chat/{quote(f'of {id}', safe='')}/stream?runId={quote(claim['run']['id'], safe='')}",
    ) as answer:
        assert (answer.status_code, answer.headers["x-run-id"].isascii()) == (200, True)
