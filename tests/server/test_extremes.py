"""Requests that ask for more than anything can be, or cost more than they should: refused, and nobody else feels it."""

import asyncio
import base64
import gzip
from dataclasses import replace
from urllib.parse import quote

import httpx
import pytest

from crdt_sessions.errors import AccessDenied, NotAuthenticated
from crdt_sessions.ids import session_id
from crdt_sessions.limits import Limits
from crdt_sessions.runtime.claimants import LONGEST_LEASE_S, Claimant
from crdt_sessions.storage import MemoryStore
from crdt_sessions.wire.varint import MAX_CLIENTS, buffer, encode_state_vector
from crdt_sessions_server.auth import Principal, Role
from crdt_sessions_server.http.inside import Inside
from crdt_sessions_server.http.paging import MAX_PAGE, MOST_LOOKED_AT, cursor_at, visible
from crdt_sessions_server.rest.exchange import MAX_FRAMES
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings

ROOM = "/v1/sessions/room"


class People:
    """Takes ``principal:role`` for a token."""

    async def authorize(self, token, session):
        if not token or ":" not in token:
            raise NotAuthenticated
        id, role = token.split(":")
        return Principal(id, role=Role(role))

    def revision(self):
        return 0


@pytest.fixture
async def service():
    async with Service(Settings(sandbox=False), store=MemoryStore(), authorizer=People()) as service:
        yield service


@pytest.fixture
async def http(service):
    headers = {"Authorization": "Bearer ann:service"}
    async with httpx.AsyncClient(base_url="http://x", transport=Inside(service.app, "::1"), headers=headers) as http:
        assert (await http.post("/v1/sessions", json={"id": "room"})).status_code == 201
        yield http


@pytest.mark.parametrize("wanted", [b"1e306", b'"inf"', b"86401", b'"nan"'])
async def test_a_lease_longer_than_any_is_refused_and_the_session_goes_on(http, wanted):
    message = (await http.post(f"{ROOM}/messages", json={"text": "?", "agent": "writer"})).json()
    body = b'{"agents": ["writer"], "leaseS": %b}' % wanted
    run = f"{ROOM}/runs/run-{message['id']}"
    for path in ("/v1/runs/claim", f"{run}/claim"):
        answer = await http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "leaseS")
    assert (await http.get(run)).json()["status"] == "queued"
    assert (await http.post("/v1/runs/claim", json={"agents": ["writer"], "leaseS": 86400})).status_code == 200


@pytest.mark.parametrize("wanted", [1e306, float("inf"), float("nan"), float("-inf")])
async def test_a_claimant_with_an_endless_lease_has_the_longest_there_is(service, http, wanted):
    message = (await http.post(f"{ROOM}/messages", json={"text": "?", "agent": "writer"})).json()
    async with service.registry.open("room") as session:
        claimant = Claimant(("writer",), "bob", wanted, None, None)
        lease = session.assign(f"run-{message['id']}", claimant).run.lease
    assert 0 < lease.ttl <= LONGEST_LEASE_S * 1000


def packed(body):
    return {
        "content": gzip.compress(body),
        "headers": {"Content-Encoding": "gzip", "Content-Type": "application/json"},
    }


MANY = b'{"messages": [%b1], "threadId": "room", "id": "room"}' % (b"1," * 50_000)
ASKING = ("/v1/gateways/openai/chat/completions", "/v1/gateways/ag-ui", "/v1/gateways/ai-sdk/chat")


@pytest.mark.parametrize("path", ASKING)
@pytest.mark.parametrize("token", [None, "nonsense"])
async def test_the_body_of_a_stranger_is_not_read(http, path, token):
    del http.headers["Authorization"]
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    assert (await http.post(path, content=b"not JSON", headers=headers)).status_code == 401


async def test_who_may_use_one_session_only_is_asked_for_its_name_in_the_body():
    chat = "/v1/gateways/ai-sdk/chat"

    def asked(name):
        message = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "?"}]}
        return {"id": name, "messages": [message], "trigger": "submit-message"}

    class OfOneRoom(People):
        async def authorize(self, token, session):
            if session != "room":
                raise AccessDenied(what="only room may be used")
            return await super().authorize(token, session)

    async with Service(Settings(sandbox=False), store=MemoryStore(), authorizer=OfOneRoom()) as service:
        await service.registry.create(session_id("room"))
        headers = {"Authorization": "Bearer ann:editor"}
        inside = Inside(service.app, "::1")
        async with httpx.AsyncClient(base_url="http://x", transport=inside, headers=headers) as http:
            assert (await http.post(chat, json=asked("other"))).status_code == 403
            asking = asyncio.create_task(http.post(chat, json=asked("room")))  # nobody answers
            async with service.registry.open(session_id("room")) as session:
                while session.view.messages.value("m") is None:
                    await asyncio.sleep(0.01)
            asking.cancel()


@pytest.mark.parametrize("path", [*ASKING, f"{ROOM}/messages", "/v1/sync", f"{ROOM}-2/import"])
async def test_of_many_faults_few_are_told(http, path):
    body = MANY.replace(b"messages", b"sessions" if path.endswith("sync") else b"messages")
    answer = await http.post(
        path, **packed(body.replace(b"messages", b"parts") if path == f"{ROOM}/messages" else body)
    )
    assert answer.status_code == 422
    assert len(answer.content) < 5000


async def test_faults_that_are_left_out_are_counted(http):
    fields = {f"f{number}": 1 for number in range(30)}
    said = (await http.post("/v1/runs/claim", json={"agents": ["x"], **fields})).json()
    assert len(said["errors"]) == 21
    assert said["errors"][-1]["message"] == "does not fit in 10 more places"
    fields = {f"f{number}" * 1000: 1 for number in range(2000)}
    answer = await http.post("/v1/runs/claim", json={"agents": ["x"], **fields})
    assert answer.json()["errors"] == [{"field": "", "message": "does not fit in 2000 places"}]


async def test_a_key_that_stands_twice_among_many_is_found_at_once(http):
    keys = b",".join(b'"k%d":1' % number for number in range(100_000))
    answer = await http.post("/v1/sessions", **packed(b'{%b,"last":1,"last":2}' % keys))
    assert answer.status_code == 422
    assert "last" in answer.json()["detail"]


@pytest.mark.parametrize("which", ["callback", "ack", "release"])
@pytest.mark.parametrize("packs", [True, False])
async def test_a_worker_may_send_little(http, which, packs):
    """It has no other token than the one of its turn, and a body is read before it is known whether that is over."""
    subscription = "/v1/streams/__ds/subscriptions/s"
    for path in ("a", "wake"):
        made = await http.put(f"/v1/streams/{path}", headers={"Content-Type": "application/json"})
        assert made.status_code == 201
    wanted = {"type": "pull-wake", "streams": ["a"], "wake_stream": "wake"}
    assert (await http.put(subscription, json=wanted)).status_code == 201
    assert (await http.post("/v1/streams/a", json=[1])).is_success
    http.headers["Authorization"] = f"Bearer {await _turn(http, subscription)}"
    body = b'{"wake_id": "%b", "generation": 1}' % (b"x" * Limits().max_unauthenticated_bytes)
    sent = packed(body) if packs else {"content": body, "headers": {"Content-Type": "application/json"}}
    assert (await http.post(f"{subscription}/{which}", **sent)).status_code == 413
    http.headers["Authorization"] = "Bearer nonsense"
    assert (await http.post(f"{subscription}/{which}", **sent)).status_code == 401


async def _turn(http, subscription):
    return (await http.post(f"{subscription}/claim", json={"worker": "w"})).json()["token"]


FRAMES = {
    f"{ROOM}/sync": b"\0\0\1\0",
    "/v1/streams/yjs/docs/room": b"\x02\0\0",
    "/v1/streams/yjs/docs/room?awareness=default": b"\x01\0",
}


@pytest.mark.parametrize("path", FRAMES)
async def test_a_body_of_very_many_frames_is_refused(http, path):
    headers = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
    few, many = (gzip.compress(FRAMES[path] * count) for count in (100, MAX_FRAMES + 1))
    assert (await http.post(path, content=few, headers=headers)).is_success
    answer = await http.post(path, content=many, headers=headers)
    assert answer.status_code == 413
    assert "10000 frames" in answer.json()["detail"]


async def test_a_state_vector_of_very_many_clients_is_refused(http):
    vector = encode_state_vector(dict.fromkeys(range(MAX_CLIENTS + 1), 1))
    headers = {"Content-Type": "application/octet-stream"}
    assert (await http.post(f"{ROOM}/sync", content=b"\0\0" + buffer(vector), headers=headers)).status_code == 413
    copy = {"id": "room", "stateVector": base64.b64encode(vector).decode()}
    answer = await http.post("/v1/sync", json={"device": "x", "sessions": [copy]})
    assert "100000 clients" in answer.json()["sessions"][0]["problem"]["detail"]


async def test_a_cursor_of_a_number_that_is_none_is_refused_or_begins_anew(http):
    for path, place in (("sessions?order=recent&", (10**30, "a")), ("runs?", (-(10**30), "a", "b"))):
        assert (await http.get(f"/v1/{path}cursor={cursor_at(*place)}")).status_code == 422
    cursor = base64.urlsafe_b64encode(b'["x","y",1e999,{}]').decode()
    answer = await http.get(f"{ROOM}/events", params={"cursor": cursor, "waitS": 0})
    assert answer.status_code == 200


async def test_a_count_of_very_many_digits_is_a_count(http):
    headers = {"X-Stainless-Retry-Count": "9" * 5000}
    asked = {"model": "nobody", "messages": [{"role": "user", "content": "?"}]}
    answer = await http.post("/v1/gateways/openai/chat/completions", json=asked, headers=headers)
    assert answer.status_code == 404, "there is no such agent"


async def test_a_list_of_which_nothing_may_be_seen_is_read_in_few_pages():
    sizes = []

    async def read(last, count):
        sizes.append(count)
        begin = 0 if last is None else last + 1
        return range(begin, min(begin + count, 5000))

    assert await visible(read, lambda entry: entry in (7, 4000), 1) == ([7], 7)
    assert await visible(read, lambda entry: False, 1) == ([], None)
    assert len(sizes) < 40
    assert max(sizes) <= MAX_PAGE + 1


async def test_one_request_reads_so_many_entries_of_a_list_whatever_a_token_may_see():
    """A token for few sessions of a tenant with a million would have all of them read for each page."""
    looked_at = 0

    async def read(last, count):
        nonlocal looked_at
        looked_at += count
        begin = 0 if last is None else last + 1
        return range(begin, begin + count)

    found, last = await visible(read, lambda entry: False, 1)
    assert (found, last + 1) == ([], looked_at)
    assert looked_at <= MOST_LOOKED_AT + MAX_PAGE + 1


@pytest.mark.parametrize("path", ["sessions?order=id&", "sessions?order=recent&", "runs?"])
async def test_whoever_may_see_little_of_a_long_list_gets_to_its_end_and_learns_no_name(path, monkeypatch):
    monkeypatch.setattr("crdt_sessions_server.http.paging.MOST_LOOKED_AT", 8)

    class OfMine(People):
        async def authorize(self, token, session):
            principal = await super().authorize(token, session)
            return replace(principal, sessions=("mine-*",)) if principal.id == "bob" else principal

    async with Service(Settings(sandbox=False), store=MemoryStore(), authorizer=OfMine()) as service:
        async with httpx.AsyncClient(base_url="http://x/v1/", transport=Inside(service.app, "::1")) as http:
            ann, bob = ({"Authorization": f"Bearer {who}:service"} for who in ("ann", "bob"))
            for name in (*(f"hidden-{n:02}" for n in range(30)), "mine-1", *(f"veiled-{n:02}" for n in range(30))):
                assert (await http.post("sessions", json={"id": name}, headers=ann)).status_code == 201
                said = {"text": "?", "agent": "nobody"}
                assert (await http.post(f"sessions/{name}/messages", json=said, headers=ann)).is_success
            found, cursors, page = [], [], {}
            while not cursors or page.get("nextCursor") is not None:
                asked = f"{path}limit=2" + (f"&cursor={quote(cursors[-1])}" if cursors else "")
                page = (await http.get(asked, headers=bob)).json()
                found += [each.get("id") or each["session"] for each in page.get("sessions", page.get("runs"))]
                cursors.append(page.get("nextCursor") or "")
            assert found == ["mine-1"]
            assert len(cursors) >= 5
            spelled = [base64.urlsafe_b64decode(each + "=" * (-len(each) % 4)) for each in cursors]
            assert not any(name in each for each in spelled for name in (b"hidden", b"veiled"))
            forged = cursors[0][:-9] + "AAAAAAA=="
            assert (await http.get(f"{path}cursor={quote(forged)}", headers=bob)).status_code == 422
            other = await http.get(f"{path}limit=2&cursor={quote(cursors[0])}", headers=bob)
            assert other.is_success, "as by another node"
