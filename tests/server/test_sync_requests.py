"""Many sessions in one request: what was brought is durable, what is lacking comes, and what changed is told."""

import base64
import gzip
import json
from random import Random

import httpx
import pytest
from pycrdt import Doc, Map, Text

from crdt_sessions.client import BackgroundSync
from crdt_sessions.errors import NotAuthenticated, RequestRefused, StoreUnavailable
from crdt_sessions.ids import SessionId
from crdt_sessions.storage import MemoryStore
from crdt_sessions_server.auth import Principal, Role
from crdt_sessions_server.http.inside import Inside
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.processes import PROBLEM
from tests.profiles import sample

URL = "http://localhost"
FAR = (1 << 53) - 1
"""The largest Yjs client id."""


class People:
    """Takes ``principal:role[:pattern[:tenant]]`` for a token."""

    async def authorize(self, token, session):
        if not token:
            raise NotAuthenticated
        id, role, patterns, tenant, *_ = (
            [*token.split(":"), "*", "", ""] if token.count(":") < 2 else [*token.split(":"), ""]
        )
        return Principal(id, role=Role(role), sessions=tuple(patterns.split(",")), tenant=tenant)

    def revision(self):
        return 0


class Fleet:
    """A service in this process, and devices of people."""

    def __init__(self, service):
        self.service = service
        self.inside = Inside(service.app, "127.0.0.1")

    def device(self, token="ann:owner", **named):
        return BackgroundSync(URL, token=token, transport=self.inside, **named)

    async def ask(self, body, token="ann:owner", headers=None, raw=None):
        async with httpx.AsyncClient(base_url=URL, transport=self.inside) as http:
            content = json.dumps(body).encode() if raw is None else raw
            kind = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            return await http.post("/v1/sync", content=content, headers=kind | (headers or {}))


async def running(**settings):
    limits = settings.pop("limits", {})
    settings = Settings(sandbox=False, connect_burst=100_000, **limits, **settings)
    return Service(settings, store=MemoryStore(), authorizer=People())


@pytest.fixture
async def fleet():
    async with await running() as service:
        yield Fleet(service)


def write(copy, key, value):
    copy.edit(lambda view: view.document.roots.state.update({key: value}))


def state(copy):
    return copy.view.state_value()


def b64(value):
    return base64.b64encode(value).decode()


def document(**values):
    doc = Doc(client_id=FAR)
    root = doc.get("state", type=Map)
    for key, value in values.items():
        root[key] = value
    return doc


async def test_two_devices_that_are_never_online_together_have_the_same_in_the_end(fleet):
    async with fleet.device(device="phone") as phone, fleet.device(device="tablet") as tablet:
        for number in range(3):
            write(phone.hold(f"s{number}", FAR - number), "phone", float(number))
        assert all(copy.dirty for copy in phone.copies.values())
        assert (await phone.once()).refused == []
        assert not any(copy.dirty for copy in phone.copies.values())
        found = await tablet.once()
        assert [each["id"] for each in found.changed] == ["s0", "s1", "s2"]
        for each in found.changed:
            write(tablet.hold(each["id"]), "tablet", 1.0)
        await tablet.once()
        assert sorted(each["id"] for each in (await phone.once()).changed) == ["s0", "s1", "s2"]
        for number in range(3):
            assert state(phone.copies[f"s{number}"]) == {"phone": number, "tablet": 1}
            assert state(tablet.copies[f"s{number}"]) == {"phone": number, "tablet": 1}
        assert (await phone.once()).changed == []


async def test_the_same_request_twice_changes_nothing_and_has_the_same_answer(fleet):
    async with fleet.device() as phone:
        copy = phone.hold("s")
        write(copy, "a", 1.0)
        body = {"sessions": [copy.request()[0]]}
    first, second = [(await fleet.ask(body)).json() for _ in range(2)]
    assert first["sessions"] == second["sessions"]
    assert (await fleet.service.registry.store.load(SessionId("s"))).last_seq == 2


async def test_what_has_not_changed_is_left_alone_and_not_loaded(fleet):
    async with fleet.device() as phone:
        for name in "ab":
            write(phone.hold(name), "x", 1.0)
        await phone.once()
        await phone.once()  # hears of its own changes
        asked = {"cursor": phone.cursor, "sessions": [copy.request()[0] for copy in phone.copies.values()]}
        answer = (await fleet.ask(asked)).json()
        assert [each.get("unchanged") for each in answer["sessions"]] == [True, True]
        async with fleet.device("bob:owner") as other:
            write(other.hold("b"), "y", 2.0)
            await other.once()
        answer = (await fleet.ask(asked)).json()
        assert [each.get("unchanged") for each in answer["sessions"]] == [True, None]
        beyond = asked | {"cursor": "nonsense"}
        answer = (await fleet.ask(beyond)).json()
        assert answer["reset"]
        assert not any(each.get("unchanged") for each in answer["sessions"]), "nobody knows what changed"


async def test_one_that_is_refused_holds_up_none_of_the_others(fleet):
    async with fleet.device() as maker:
        for name in "abc":
            write(maker.hold(name), "x", 1.0)
        await maker.once()
    good = b64(document(y=2.0).get_update())
    body = {
        "sessions": [
            {"id": "a", "update": b64(b"\xff\xff nonsense")},
            {"id": "b", "update": good, "stateVector": "AA=="},
            {"id": "c", "lineage": "another", "update": good, "stateVector": "AA=="},
            {"id": "never-was", "stateVector": "AA=="},
            {"id": "a\nb", "update": good},
            {"id": "other-1", "stateVector": "AA=="},
            {"id": "b", "stateVector": b64(b"\xff\xff")},
        ]
    }
    answer = (await fleet.ask(body, token="ann:owner:a,b,c,never*,a?b")).json()
    kinds = [each.get("problem", {}).get("type", "").removeprefix(PROBLEM) for each in answer["sessions"]]
    assert kinds[0] == "update-error"
    assert kinds[1:] == [
        "", "wrong-lineage", "session-not-found", "bad-session-id", "access-denied", kinds[6]
    ]  # fmt: skip
    assert kinds[6]
    assert "update" not in answer["sessions"][2], "of another session nothing is told"
    assert all(
        set(each["problem"]) == {"type", "title", "status", "detail"}
        for each in answer["sessions"]
        if "problem" in each
    )


async def test_who_may_not_write_may_read_and_is_told_so(fleet):
    async with fleet.device() as owner, fleet.device("eve:viewer") as viewer:
        write(owner.hold("s"), "x", 1.0)
        await owner.once()
        copy = viewer.hold("s")
        await viewer.once()
        assert state(copy) == {"x": 1}
        write(copy, "evil", 1.0)
        write(owner.copies["s"], "y", 2.0)
        await owner.once()
        found = await viewer.once()
        assert [each.problem["type"] for each in found.refused] == [PROBLEM + "access-denied"]
        assert state(copy) == {"x": 1, "y": 2, "evil": 1}
        await owner.once()
        assert state(owner.copies["s"]) == {"x": 1, "y": 2}
        async with fleet.device("eve:viewer") as other:
            write(other.hold("new"), "x", 1.0)
            assert len((await other.once()).refused) == 1
        assert await fleet.service.registry.store.get(SessionId("new")) is None


async def test_a_client_id_is_its_principals(fleet):
    mine = document(x=1.0)
    body = {"sessions": [{"id": "s", "update": b64(mine.get_update()), "stateVector": b64(mine.get_state())}]}
    assert "problem" not in (await fleet.ask(body)).json()["sessions"][0]
    mine.get("state", type=Map)["x"] = 2.0
    body["sessions"][0]["update"] = b64(mine.get_update())
    (refused,) = (await fleet.ask(body, token="eve:owner")).json()["sessions"]
    assert refused["problem"]["type"] in (PROBLEM + "access-denied", PROBLEM + "foreign-writer")
    assert "problem" not in (await fleet.ask(body)).json()["sessions"][0]


async def test_a_copy_that_does_not_say_of_what_it_is_is_not_mixed_with_another(fleet):
    async with fleet.device() as phone:
        write(phone.hold("s"), "x", 1.0)
        await phone.once()
    stranger = document(y=1.0)
    body = {"sessions": [{"id": "s", "stateVector": b64(stranger.get_state())}]}
    (answer,) = (await fleet.ask(body)).json()["sessions"]
    assert answer["problem"]["type"] == PROBLEM + "wrong-lineage"
    assert "update" not in answer
    body["sessions"][0]["update"] = b64(stranger.get_update())  # what was made offline under the same name
    (answer,) = (await fleet.ask(body)).json()["sessions"]
    assert "problem" not in answer
    assert "update" in answer


async def test_what_needs_something_that_is_not_there_is_told(fleet):
    doc = document(x=1.0)
    before = doc.get_state()
    doc.get("t", type=Text)
    doc["t"] += "later"
    doc["t"] += " and later"
    gap = doc.get_update(before)
    body = {"sessions": [{"id": "s", "update": b64(gap), "stateVector": "AA=="}]}
    (answer,) = (await fleet.ask(body)).json()["sessions"]
    assert answer["problem"]["type"] == PROBLEM + "early-update"
    body["sessions"][0]["update"] = b64(doc.get_update(base64.b64decode(answer["stateVector"])))
    (answer,) = (await fleet.ask(body)).json()["sessions"]
    assert "problem" not in answer


async def test_an_answer_has_no_more_bytes_than_were_asked_for(fleet):
    async with fleet.device() as maker:
        for name, size in (("a", 1500), ("b", 1500), ("c", 9000), ("d", 10)):
            write(maker.hold(name), "x", "x" * size)
        await maker.once()
    body = {"maxBytes": 2500, "sessions": [{"id": name, "stateVector": "AA=="} for name in "abcd"]}
    a, b, c, d = (await fleet.ask(body)).json()["sessions"]
    assert "update" in a
    assert "update" in d
    assert (b["more"], c["more"], "update" in b) == (True, True, False)
    assert b["size"] < 2500 < c["size"]
    async with fleet.device("bob:owner") as phone:
        for name in "abcd":
            phone.hold(name)
        found = await phone.once(max_bytes=2500)
        assert [copy.name for copy in found.incomplete] == ["c"]
        assert len(state(phone.copies["b"])["x"]) == 1500
        assert (await phone.once(max_bytes=found.incomplete[0].left_out)).incomplete == []
        assert len(state(phone.copies["c"])["x"]) == 9000


async def test_there_is_a_limit_of_sessions_of_bytes_and_of_what_is_unpacked():
    limits = {"max_sync_sessions": 2, "max_body_bytes": 4096, "max_sync_bytes": 2048}
    async with await running(limits=limits) as service:
        fleet = Fleet(service)
        three = {"sessions": [{"id": name} for name in "abc"]}
        assert (await fleet.ask(three)).status_code == 413
        bomb = gzip.compress(b" " * 1_000_000)
        refused = await fleet.ask(None, raw=bomb, headers={"Content-Encoding": "gzip"})
        assert (len(bomb) < 4096, refused.status_code) == (True, 413)
        await fleet.ask({"sessions": [{"id": "s", "update": b64(document(x="x" * 2040).get_update())}]})
        body = {"maxBytes": 10_000_000, "sessions": [{"id": "s", "stateVector": "AA=="}]}
        (answer,) = (await fleet.ask(body)).json()["sessions"]
        assert answer["more"]


async def test_bodies_are_compressed_both_ways(fleet):
    async with fleet.device() as phone:
        write(phone.hold("s"), "x", "abc" * 1000)
        await phone.once()
    body = gzip.compress(json.dumps({"sessions": [{"id": "s", "stateVector": "AA=="}]}).encode())
    packed = {"Content-Encoding": "gzip"}
    answer = await fleet.ask(None, raw=body, headers=packed)
    assert answer.headers["content-encoding"] == "gzip"
    assert "update" in answer.json()["sessions"][0]
    plain = await fleet.ask(None, raw=body, headers=packed | {"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json()["sessions"] == answer.json()["sessions"]
    for raw, encoding, status in (
        (body, "br", 415), (b"no gzip", "gzip", 400), (body[:-5], "gzip", 400), (body + b"x", "gzip", 400),
        (gzip.compress(b"\xff"), "gzip", 400), (gzip.compress(b"[1"), "gzip", 400),
    ):  # fmt: skip
        refused = await fleet.ask(None, raw=raw, headers={"Content-Encoding": encoding})
        assert (refused.status_code, refused.json()["type"][: len(PROBLEM)]) == (status, PROBLEM), (raw, encoding)


async def test_a_cursor_tells_a_token_only_of_its_own_sessions(fleet):
    async with fleet.device() as maker:
        for number in range(5):
            write(maker.hold(f"a-{number}"), "x", 1.0)
            write(maker.hold(f"b-{number}"), "x", 1.0)
        await maker.once()

    async def told(token, cursor=None, **more):
        names = []
        while True:
            said = {"limit": 2, **more} | ({"cursor": cursor} if cursor else {})
            answer = (await fleet.ask(said, token=token)).json()
            names += [each["id"] for each in answer["changed"]]
            cursor = answer["cursor"]
            if not answer["more"]:
                return sorted(names), cursor, answer["reset"]

    names, narrow, _ = await told("bob:editor:b-*")
    assert names == [f"b-{number}" for number in range(5)]
    assert (await told("bob:editor:b-*", narrow))[0] == []
    names, _, _ = await told("bob:editor:b-*,a-1", narrow)
    assert (len(names), "a-1" in names) == (6, True), "whoever sees more is told of all of it"
    assert (await told("eve:owner:*:umbrella"))[0] == []
    registry = fleet.service.registry
    await registry.store.set_member(SessionId("a-3"), "bob", "viewer")
    names, mine, _ = await told("bob:editor", member=True)
    assert names == ["a-3"]
    write(maker.copies["a-1"], "y", 1.0)
    async with fleet.device() as again:
        again.copies = maker.copies
        await again.once()
    assert (await told("bob:editor", mine, member=True))[0] == []
    await registry.delete(SessionId("a-3"))
    gone = (await fleet.ask({"cursor": mine, "member": True}, token="bob:editor")).json()["changed"]
    assert [(each["id"], each["deleted"]) for each in gone] == [("a-3", True)]


async def test_a_presence_lasts_as_long_as_it_said(fleet):
    async with fleet.device() as phone:
        write(phone.hold("s"), "x", 1.0)
        await phone.once()
    here = {"id": "s", "presence": {"activity": "reading"}}
    (answer,) = (await fleet.ask({"device": "phone", "presenceS": 60, "sessions": [here]})).json()["sessions"]
    (seen,) = answer["present"]
    assert (seen["state"]["user"]["id"], seen["state"]["device"]) == ("ann", "phone")
    pretends = here | {"presence": {"user": {"id": "bob"}}}
    (answer,) = (await fleet.ask({"sessions": [pretends]})).json()["sessions"]
    assert answer["problem"]["type"] == PROBLEM + "access-denied"


async def test_what_was_not_stored_is_not_acknowledged(fleet, monkeypatch):
    async with fleet.device() as phone:
        write(phone.hold("s"), "x", 1.0)
        write(phone.hold("t"), "x", 1.0)
        await phone.once()
        write(phone.copies["s"], "y", 1.0)

        async def failing(*args, **named):
            raise StoreUnavailable("the disk is full")

        store = fleet.service.registry.store
        monkeypatch.setattr(store, "append", failing)
        found = await phone.once()
        assert [copy.name for copy in found.refused] == ["s"]
        assert phone.copies["s"].dirty
        monkeypatch.undo()
        while (await phone.once()).refused:
            pass
        assert not phone.copies["s"].dirty
        async with fleet.device("bob:owner") as other:
            other.hold("s")
            await other.once()
            assert state(other.copies["s"]) == {"x": 1, "y": 1}


async def test_what_is_no_request_is_refused_in_words(fleet):
    for body in (
        [], "x", {"sessions": "x"}, {"sessions": [{}]}, {"sessions": [{"id": "s", "update": "no base64!"}]},
        {"sessions": [{"id": "s", "update": 5}]}, {"maxBytes": 1}, {"limit": 0}, {"presenceS": 0}, {"x": 1},
        {"cursor": "x" * 2000}, {"sessions": [{"id": "s", "stateVector": "AA"}]},
    ):  # fmt: skip
        answer = await fleet.ask(body)
        assert (answer.status_code, answer.json()["type"]) == (422, PROBLEM + "invalid-input"), body
    assert (await fleet.ask({}, token="")).status_code == 401
    assert (await fleet.ask({})).json() | {"cursor": ""} == {
        "cursor": "", "more": False, "reset": False, "changed": [], "sessions": []
    }  # fmt: skip


async def test_mutated_requests_are_answered_and_harm_nothing(fleet):
    """Bytes of bodies, of gzip, of updates and of state vectors are changed at random."""
    random, doc = Random(7), document(x=1.0)
    good = {"id": "s", "update": b64(doc.get_update()), "stateVector": b64(doc.get_state())}
    assert "problem" not in (await fleet.ask({"sessions": [good]})).json()["sessions"][0]

    def mutated(value):
        changed = bytearray(value)
        for _ in range(random.randint(1, 3)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)

    for at in range(sample("examples")):
        update, vector = mutated(doc.get_update()), mutated(doc.get_state())
        body = json.dumps(
            {"sessions": [{"id": f"t{at}", "update": b64(update), "stateVector": b64(vector)}, good]}
        ).encode()
        packed = random.random() < 0.3
        raw = mutated(gzip.compress(body)) if packed else mutated(body) if random.random() < 0.3 else body
        answer = await fleet.ask(None, raw=raw, headers={"Content-Encoding": "gzip"} if packed else {})
        assert answer.status_code in (200, 400, 413, 422), (raw, answer.text)
        if raw is body:
            assert "problem" not in answer.json()["sessions"][1], "the other one goes on"
    async with fleet.device() as phone:
        copy = phone.hold("s")
        await phone.once()
        assert state(copy) == {"x": 1}


async def test_requests_are_counted_as_connections(fleet):
    async with await running(limits={"max_connections": 1}) as service:
        busy = Fleet(service)
        with service.registry.capacity.admitted("", "ann"):
            assert (await busy.ask({})).status_code == 429
        assert (await busy.ask({})).status_code == 200
        async with busy.device() as phone:
            with service.registry.capacity.admitted("", "ann"), pytest.raises(RequestRefused):
                await phone.once()
