"""Unmodified clients of y-sweet, with tokens from its unmodified SDK; what docs/how-to/y-sweet.md says comes about."""

import pytest

from tests.access.conftest import bearer, guarded, token
from tests.interop.node import needs_node
from tests.processes import Server

pytestmark = [pytest.mark.interop, needs_node]


def address(server, secret=""):
    """Return a connection string, as y-sweet's backends are given one."""
    return server.url.replace("http://", f"ys://{secret + '@' if secret else ''}") + "/v1/y-sweet"


class Clients:
    """Clients in a process of Node."""

    def __init__(self, js, url):
        self.js, self.url = js, url

    def open(self, peer, name="room", **options):
        self.js("sweeten", peer=peer, url=self.url, name=name, **options)

    def until(self, peer, condition):
        return self.js.until(condition, command="sweetness", peer=peer)

    def saved(self, *peers):
        for peer in peers:
            self.until(peer, lambda now: now["status"] == "connected" and not now["unsaved"])

    def draft(self, peer, text):
        self.js.until(lambda dump: dump["draft"] == text, command="dump", peer=peer)


@pytest.fixture
def clients(js, server):
    return Clients(js, address(server))


def test_edits_live_late_and_offline_arrive_and_are_shown_as_saved(clients, js):
    for peer in ("a", "b"):
        clients.open(peer, "Grüße/50%", state={"name": peer})
    clients.saved("a", "b")
    js("insert", peer="a", index=0, text="Grüße 😀")
    clients.draft("b", "Grüße 😀")
    js.until(lambda states: {s["name"] for _, s in states} == {"a", "b"}, command="present", peer="a")
    assert js("sweetOffline", peer="b", edits=[["b", 0, "offline "], ["a", 8, " online"]]), (
        "it is not shown as unsaved"
    )
    js("connect", peer="b")
    for peer in ("a", "b"):
        clients.draft(peer, "offline Grüße 😀 online")
    clients.saved("a", "b")
    clients.open("late", "Grüße/50%")
    clients.draft("late", "offline Grüße 😀 online")
    clients.saved("late")
    assert js.content("late") == js.content("a") == js.content("b")
    assert js("backend", url=clients.url, method="createDoc", args=["made"]) == {"docId": "made"}
    assert js("backend", url=clients.url, method="createDoc", args=["made"]) == {"docId": "made"}
    js("backend", url=clients.url, method="updateDoc", args=["made", {"hex": "0101010004010174017800"}])
    assert "010174017800" in js("backend", url=clients.url, method="getDocAsUpdate", args=["made"])


def test_a_storm_of_reconnects_loses_nothing(clients, js):
    peers = [f"p{n}" for n in range(6)]
    for peer in peers:
        clients.open(peer)
    clients.saved(*peers)
    js("insert", peer="p0", index=0, text="large " * 100_000)
    for peer in peers:
        js("insert", peer=peer, index=0, text=f"{peer} ")
        js("dropSweet", peer=peer)
        js("insert", peer=peer, index=0, text=f"{peer}-offline ")
    clients.saved(*peers)
    length = len("large ") * 100_000 + sum(len(f"{peer} {peer}-offline ") for peer in peers)
    for peer in peers:
        js.until(lambda dump: len(dump["draft"]) == length, command="dump", peer=peer)


def test_what_is_shown_as_saved_survives_a_kill_and_nothing_is_shown_before(own_server, js):
    """y-sweet's own server returns the count at once, before the offline edits it counts have come."""
    clients = Clients(js, address(own_server))
    clients.open("a")
    clients.saved("a")
    js("insert", peer="a", index=0, text="saved")
    clients.saved("a")
    own_server.kill()
    clients.until("a", lambda now: now["status"] != "connected")
    js("insert", peer="a", index=0, text="not yet ")
    js("disconnect", peer="a")
    dying = Server(own_server.database, port=own_server.port, env={"CRDT_SESSIONS_FAILPOINTS": "before-commit:1"})
    js("connect", peer="a")
    dying.child.wait()  # it had the edit, and had not stored it
    assert js("sweetness", peer="a")["unsaved"]
    dying.close()
    again = own_server.again()
    try:
        clients.saved("a")
        clients.open("late")
        clients.draft("late", "not yet saved")
    finally:
        again.close()


@pytest.fixture
def guarded_server(tmp_path):
    server = guarded(tmp_path)
    yield server
    server.close()


def test_backends_make_tokens_and_a_refused_change_poisons_nothing(guarded_server, js):
    """Also at the next load, as with their own storage in IndexedDB."""
    clients = Clients(js, address(guarded_server, token("backend", "service")))
    js("backend", url=clients.url, method="createDoc", args=["room"])
    clients.open("owner", asking={"userId": "ann"})
    clients.open("vera", asking={"authorization": "read-only", "userId": "vera"})
    clients.saved("owner", "vera")
    assert js("sweetness", peer="vera")["tokens"][0]["authorization"] == "read-only"
    js("insert", peer="owner", index=0, text="theirs")
    clients.draft("vera", "theirs")
    js("insert", peer="vera", index=0, text="mine ")
    clients.open("again", asking={"authorization": "read-only", "userId": "vera"}, saved=js("save", peer="vera"))
    js("insert", peer="owner", index=6, text=" again")
    for peer in ("vera", "again"):
        clients.draft(peer, "mine theirs again")
    assert js("sweetness", peer="vera")["unsaved"], "it is never said to be saved"
    assert js("dump", peer="owner")["draft"] == "theirs again"
    with guarded_server.http(headers=bearer("backend", "service")) as http:
        http.put("/v1/sessions/room/members/vera", json={"role": "editor"}).raise_for_status()
    js("dropSweet", peer="vera")
    clients.saved("vera")
    clients.draft("owner", "mine theirs again")


def test_a_token_that_has_ended_is_asked_for_again(guarded_server, js):
    clients = Clients(js, address(guarded_server, token("backend", "service")))
    clients.open("ann", asking={"userId": "ann", "validForSeconds": 1})
    clients.until("ann", lambda now: 4501 in now["closes"] or 4401 in now["closes"])
    js("insert", peer="ann", index=0, text="meanwhile")
    js.until(lambda now: len(now["tokens"]) > 1, command="sweetness", peer="ann")
