"""Sessions as streams: whoever follows one with Electric's clients ends with what the document says."""

import random
import time

import pytest

from crdt_sessions.wire import AwarenessEntry, encode_awareness
from crdt_sessions.wire.update_v1 import MAX_CLOCK
from crdt_sessions.wire.varint import buffer
from tests.interop.node import NodePeers
from tests.processes import Server
from tests.streams.node import JS, needs_node

pytestmark = [pytest.mark.interop, needs_node]

WORDS = [f"Wort {n}: ünïcödé {'🙂' * (n % 3)}. " for n in range(40)]


@pytest.fixture(scope="module")
def clients():
    node = NodePeers(JS / "clients.mjs")
    yield node
    node.close()


@pytest.fixture
def room(request):
    return "".join(char if char.isalnum() else "-" for char in request.node.name)[-60:].strip("-")


def until_done(send):
    """Send until the service is there to take it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = send()
            if answer.status_code < 500:
                return answer
        except OSError:
            pass
        except Exception as error:
            if "httpx" not in type(error).__module__ and "httpcore" not in type(error).__module__:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Answer:
    """An answer that is written over REST, word by word."""

    def __init__(self, http, room):
        self._http, self._run = http, f"/v1/sessions/{room}/runs/run-q"
        http.post("/v1/sessions", json={"id": room, "title": "t"})
        http.post(f"/v1/sessions/{room}/messages", json={"id": "q", "text": "?", "agent": room})
        grant = http.post("/v1/runs/claim", json={"agents": [room], "waitS": 20, "leaseS": 60}).json()
        self._lease = {"Lease-Token": grant["token"]}
        self.message = "run-q-out"
        self.written = 0

    def say(self, text):
        body = {"offset": self.written, "text": text}
        assert until_done(lambda: self._http.post(f"{self._run}/append", json=body, headers=self._lease)).is_success
        self.written += len(text)

    def end(self, status="completed"):
        body = {"status": status}
        assert until_done(lambda: self._http.post(f"{self._run}/result", json=body, headers=self._lease)).is_success


def folded(items):
    """Return what a reader of Durable State has in the end."""
    rows = {}
    for item in items:
        if item["headers"].get("control") == "reset":
            rows.clear()
            continue
        key = (item["type"], item["key"])
        if item["headers"]["operation"] == "delete":
            rows.pop(key, None)
        else:
            rows[key] = {name: value for name, value in item["value"].items() if value is not None}
    return rows


def projected(http, room):
    """Return what the document says."""
    messages = http.get(f"/v1/sessions/{room}/messages").json()["messages"]
    runs = http.get(f"/v1/sessions/{room}/runs").json()["runs"]
    return {**{("message", each["id"]): each for each in messages}, **{("run", each["id"]): each for each in runs}}


def rows_of(got):
    return {key: value for key, value in folded(got["items"]).items() if key[0] in ("message", "run")}


def test_a_session_is_followed_through_cuts_and_by_a_second_device(clients, http, service, room):
    answer, rng = Answer(http, room), random.Random(7)
    events, text = (
        f"{service.url}/v1/streams/sessions/{room}/{what}" for what in ("events", f"messages/{answer.message}/text")
    )
    answer.say(WORDS[0])
    for name, url in ((f"{room}-e", events), (f"{room}-t", text)):
        clients("follow", name=name, url=url, live="sse", text=url is text)
    clients("state.open", name=room, url=events)
    for word in WORDS[1:]:
        answer.say(word)
        if rng.random() < 0.3:
            clients("cut", name=f"{room}-{rng.choice('et')}")
    answer.end()
    found = clients.until(lambda got: got["closed"], command="got", name=f"{room}-t")
    assert "".join(found["items"]) == "".join(WORDS), "each word once, and the end of it"
    wanted = projected(http, room)
    assert wanted["run", "run-q"]["status"] == "completed"
    clients.until(lambda got: rows_of(got) == wanted, command="got", name=f"{room}-e")
    rows = clients.until(
        lambda rows: len(rows["runs"]) == 1 and rows["runs"][0]["status"] == "completed",
        command="state.rows",
        name=room,
    )
    told = {each["id"]: each["parts"] for each in rows["messages"]}
    assert told == {id: value["parts"] for (kind, id), value in wanted.items() if kind == "message"}
    assert folded(http.get(f"/v1/streams/sessions/{room}/events").json()).items() >= wanted.items(), "a second device"
    assert http.get(f"/v1/streams/sessions/{room}/messages/{answer.message}/text").text == "".join(WORDS)
    clients("state.close", name=room)
    clients("stop", name=f"{room}-e")


def replayed(items):
    """Return the texts that a reader has who is told what is added, by message and part; and how much came whole."""
    texts, wholes = {}, 0
    for item in items:
        value = item.get("value")
        match item.get("type"):
            case "message":
                wholes += 1
                texts = {key: text for key, text in texts.items() if key[0] != item["key"]}
                texts |= {(item["key"], at): part.get("text", "") for at, part in enumerate(value["parts"])}
            case "part":
                texts[value["messageId"], value["part"]] = value["value"].get("text", "")
            case "text":
                key = (value["messageId"], value["part"])
                before = texts.get(key, "")
                assert len(before) == value["offset"], "nothing is missing, and nothing comes twice"
                texts[key] = before + value["text"]
    return texts, wholes


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_what_is_added_to_a_message_is_told_instead_of_the_message(clients, http, service, room, live):
    answer, name = Answer(http, room), f"{room}-a"
    clients("follow", name=name, url=f"{service.url}/v1/streams/sessions/{room}/events?text=added", live=live)
    said = ""
    for at, word in enumerate(WORDS[:12]):
        answer.say(word)
        said += word
        clients.until(
            lambda got, said=said: replayed(got["items"])[0].get((answer.message, 0)) == said,
            command="got",
            name=name,
        )
        if at == 6:
            clients("cut", name=name)
    before = clients("got", name=name)["items"]
    assert replayed(before)[1] <= 3, "the question once, and the answer once as it began; cut readers are known"
    answer.end()
    clients.until(
        lambda got: rows_of(got)["message", answer.message].get("seq") is not None, command="got", name=name
    )
    clients("stop", name=name)
    assert http.get(f"/v1/streams/sessions/{room}/events", params={"text": "x"}).status_code == 400


@pytest.mark.crash
@pytest.mark.nightly
def test_a_session_is_followed_while_the_service_is_killed_and_its_agent_too(clients, tmp_path, room):
    server = Server(tmp_path / "s.db", "--long-poll-s", 1, "--max-attempts", 1)
    with server.http() as http:
        answer = Answer(http, room)
        answer.say(WORDS[0])
        base = f"{server.url}/v1/streams/sessions/{room}"
        for name, what in (("k-e", "events"), ("k-t", f"messages/{answer.message}/text")):
            clients("follow", name=name, url=f"{base}/{what}", live="long-poll", text=name == "k-t")
        for at, word in enumerate(WORDS[1:]):
            if at in (9, 25):
                server.kill()
                server = server.again()
            answer.say(word)
        http.post(f"/v1/sessions/{room}/runs/run-q/renew", headers=answer._lease)
        server.kill()
        server = server.again(
            "--long-poll-s", 1, "--max-attempts", 1, "--lease-s", 1
        )  # and the agent never comes back
        until_done(lambda: http.post(f"/v1/sessions/{room}/runs/run-q/cancel", json={}))
        found = clients.until(lambda got: got["closed"], command="got", name="k-t")
        assert "".join(found["items"]) == "".join(WORDS), "nothing acknowledged is missing"
        wanted = projected(http, room)
        assert wanted["run", "run-q"]["status"] in ("cancelled", "interrupted"), "there is an end"
        clients.until(lambda got: rows_of(got) == wanted, command="got", name="k-e")
        clients("stop", name="k-e")
    server.close()


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_yjs_documents_are_written_and_read(clients, http, service, room, live):
    ann, bob = f"{room}-ann", f"{room}-bob"
    for name in (ann, bob):
        clients("yjs.open", name=name, url=service.url, session=room, live=live)
        clients.until(lambda seen: seen["synced"], command="yjs.see", name=name)
    clients("yjs.set", name=ann, key="a", value=1)
    clients.until(lambda seen: seen["state"] == {"a": 1}, command="yjs.see", name=bob)
    clients("yjs.set", name=bob, key="b", value=2)
    clients.until(lambda seen: seen["state"] == {"a": 1, "b": 2}, command="yjs.see", name=ann)
    assert http.get(f"/v1/sessions/{room}/state").json()["state"] == {"a": 1, "b": 2}
    http.post(f"/v1/sessions/{room}/messages", json={"id": "m", "text": "seen by all"})
    for name in (ann, bob):
        clients.until(lambda seen: "m" in seen["messages"], command="yjs.see", name=name)
    clients("yjs.leave", name=ann)
    clients("yjs.return", name=ann)
    clients.until(lambda seen: seen["synced"], command="yjs.see", name=ann)
    clients("yjs.set", name=ann, key="c", value=3)
    clients.until(lambda seen: seen["state"] == {"a": 1, "b": 2, "c": 3}, command="yjs.see", name=bob)
    for name in (ann, bob):
        clients("yjs.close", name=name)


def test_stock_clients_and_others_see_each_other(clients, http, service, room):
    ann, bob = f"{room}-ann", f"{room}-bob"
    http.post("/v1/sessions", json={"id": room})
    http.put(
        f"/v1/sessions/{room}/presence", json={"principal": "carla", "state": {"activity": "reading"}, "ttlS": 60}
    )
    clients("yjs.open", name=ann, url=service.url, session=room, live="sse")
    clients("yjs.say", name=ann, state={"user": {"name": "Ann"}, "cursor": 1})
    present = clients.until(lambda seen: len(seen["states"]) == 2, command="yjs.present", name=ann)
    others = [state for client, state in present["states"].items() if client != str(present["own"])]
    assert [state["user"]["id"] for state in others] == ["carla"], "who was here before is seen at once"
    clients("yjs.open", name=bob, url=service.url, session=room, live="sse")
    own = str(present["own"])
    clients.until(lambda seen: own in seen["states"], command="yjs.present", name=bob)
    clients("yjs.say", name=ann, state={"user": {"name": "Ann"}, "cursor": 2})
    clients.until(lambda seen: seen["states"].get(own, {}).get("cursor") == 2, command="yjs.present", name=bob)

    def here():
        return {
            each["state"]["user"].get("name") for each in http.get(f"/v1/sessions/{room}/presence").json()["present"]
        }

    assert "Ann" in here(), "to the session it is one presence among the others"
    clients("yjs.close", name=ann)
    clients.until(lambda seen: own not in seen["states"], command="yjs.present", name=bob)
    assert "Ann" not in here(), "who leaves is gone at once"
    clients("yjs.close", name=bob)


def test_what_presence_refuses(http, room):
    awareness = f"/v1/streams/yjs/docs/{room}?awareness=default"
    assert http.get(awareness).status_code == 404
    assert http.post(awareness, content=b"\x01\x00").status_code == 404
    http.post("/v1/sessions", json={"id": room})
    assert http.put(awareness).status_code == 200
    assert http.post(awareness, content=b"\x09abc").status_code == 400
    beyond = encode_awareness([AwarenessEntry(5, MAX_CLOCK, '"x"')])
    assert http.post(awareness, content=buffer(beyond)).status_code == 400
    assert http.post(awareness, content=b"\x01\x00").status_code == 204
    assert http.delete(awareness).status_code == 405
    assert http.get(awareness.replace("default", "admin")).status_code == 404
    assert http.get(awareness, headers={"Accept": "*/*"}, params={"awareness": "default"}).content == b""


def test_a_document_is_deleted_for_good(http, room):
    document = f"/v1/streams/yjs/docs/{room}"
    assert http.delete(document).status_code == 404
    assert http.put(document).status_code == 201
    assert http.delete(document).status_code == 204
    assert http.get(document).status_code == 404
    assert http.put(document).status_code == 410, (
        "a page that is still open asks for it again, and must not bring it back"
    )
    assert http.get(f"/v1/sessions/{room}").status_code == 410
    http.post("/v1/sessions", json={"id": room})
    assert http.get(document, params={"offset": "snapshot"}).status_code in (200, 307)


def test_what_a_view_refuses(http, room):
    assert http.get(f"/v1/streams/sessions/{room}/events").status_code == 404
    http.post("/v1/sessions", json={"id": room})
    http.post(f"/v1/sessions/{room}/messages", json={"id": "m", "text": "Hallo"})
    events = f"/v1/streams/sessions/{room}/events"
    for method in ("PUT", "POST", "DELETE"):
        assert http.request(method, events, content=b"x").status_code == 405
    assert http.get(events, params={"offset": "x"}).status_code == 400
    assert http.get(f"/v1/streams/sessions/{room}/messages/nobody/text").status_code == 404
    text = f"/v1/streams/sessions/{room}/messages/m/text"
    assert http.get(text, params={"offset": "0" * 16 + "_" + "9" * 16}).status_code == 410
    head = http.head(text)
    assert (head.headers["Stream-Closed"], head.headers["Content-Type"]) == ("true", "text/plain; charset=utf-8")
    document = f"/v1/streams/yjs/docs/{room}"
    assert http.post(document, content=b"\x09abc").status_code == 400
    assert http.post(document, headers={"Stream-Closed": "true"}).status_code == 405
    assert http.get(document, params={"awareness": "default"}).content == b""
    before = http.get(events).headers["Stream-Next-Offset"]
    stale = before.replace(before.rsplit("_", 1)[1], "another-lineage")
    assert http.get(events, params={"offset": stale}).json()[0] == {"headers": {"control": "reset"}}
