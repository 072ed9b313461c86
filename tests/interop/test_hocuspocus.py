"""Unmodified Hocuspocus providers of three generations, on /v1/hocuspocus."""

import socket
from urllib.parse import quote

import pytest
from websockets.sync.client import connect

from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, Update, encode
from crdt_sessions_server.auth import Role
from tests.access.conftest import TOKENS, bearer, guarded, token
from tests.interop.node import needs_node
from tests.sync.test_engine import letters

pytestmark = [pytest.mark.interop, needs_node]
VERSIONS = pytest.mark.parametrize("version", [4, 3, 2])


class Providers:
    """Providers in a process of Node, each on a socket of its own unless it is said on which."""

    def __init__(self, js, server, version, room="room"):
        self.js = js
        self.room = room
        self.url = f"{server.url.replace('http', 'ws', 1)}/v1/hocuspocus"
        self.version = version

    def socket(self, socket):
        self.js("socket", socket=socket, url=self.url, version=self.version)

    def attach(self, peer, name=None, *, socket=None, **options):
        if socket is None:
            self.socket(peer)
        name = name or self.room
        self.js("attach", peer=peer, socket=socket or peer, name=name, version=self.version, **options)

    def until(self, peer, condition):
        return self.js.until(condition, command="count", peer=peer)

    def settled(self, *peers):
        for peer in peers:
            self.until(peer, lambda count: count["synced"] and count["unsynced"] == 0)

    def draft(self, peer, text):
        self.js.until(lambda dump: dump["draft"] == text, command="dump", peer=peer)


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    server = guarded(tmp_path_factory.mktemp("strict"))
    yield server
    server.close()


@pytest.fixture
def providers(js, server, version, room):
    return Providers(js, server, version, room)


@VERSIONS
def test_edits_live_late_and_offline_arrive_and_are_counted(providers, js):
    for peer in ("a", "b"):
        providers.attach(peer)
    providers.settled("a", "b")
    js("insert", peer="a", index=0, text="Grüße 😀")
    providers.draft("b", "Grüße 😀")
    providers.settled("a")
    js("socketCall", socket="b", method="disconnect")
    providers.until("b", lambda count: not count["synced"])
    js("insert", peer="b", index=0, text="offline ")
    js("insert", peer="a", index=8, text=" online")
    js("socketCall", socket="b", method="connect")
    for peer in ("a", "b"):
        providers.draft(peer, "offline Grüße 😀 online")
    providers.settled("a", "b")
    providers.attach("late")
    providers.draft("late", "offline Grüße 😀 online")
    providers.settled("late")
    for peer in ("a", "b", "late"):
        assert min(js("count", peer=peer)["counts"]) == 0, "more was acknowledged than was counted"
    assert js.content("late") == js.content("a") == js.content("b")


@VERSIONS
def test_who_is_asked_what_another_one_left_open_stays_connected(providers, js, server):
    providers.attach("a")
    providers.settled("a")
    _, rest = letters("ab")
    heard = js("count", peer="a")["messages"]
    with connect(f"{server.url.replace('http', 'ws', 1)}/v1/sync/{quote(providers.room)}") as gone:
        for frame in (SyncStep1(b"\0"), SyncStep2(EMPTY_UPDATE), Update(rest)):
            gone.send(encode(frame))
    providers.until("a", lambda count: count["messages"] > heard)
    js("insert", peer="a", index=0, text="still here")
    providers.settled("a")
    assert js("count", peer="a")["closes"] == []


@VERSIONS
def test_clients_that_end_while_they_connect_leave_their_process(js, version):
    """A service that is slow to answer must not cost the clients of all tests that come after this one."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        js("socket", socket="a", url=f"ws://127.0.0.1:{silent.getsockname()[1]}/v1/hocuspocus", version=version)
        connection, _ = silent.accept()
        with connection:
            js("reset")
            js("reset")


@pytest.fixture
def guarded_providers(js, strict, version, room):
    with strict.http(headers=bearer("b", "service")) as http:
        http.post("/v1/sessions", json={"id": room})
        yield Providers(js, strict, version, room), http


@VERSIONS
@pytest.mark.sampled(3)
def test_many_documents_on_one_socket_are_apart(providers, js):
    providers.socket("shared")
    names = [f"{providers.room} {n}" for n in range(10)]
    for name in names:
        providers.attach(name, name, socket="shared")
    providers.settled(*names)
    for name in names:
        js("insert", peer=name, index=0, text=name)
    providers.settled(*names)
    js("call", peer=names[0], method="destroy")
    for name in names[1:]:
        js("insert", peer=name, index=0, text="still ")
    providers.settled(*names[1:])
    for name in names:
        providers.attach(f"{name} again", name)
        providers.draft(f"{name} again", name if name == names[0] else f"still {name}")
    assert js("count", peer=names[1])["closes"] == []


@pytest.mark.parametrize("version", [4])
def test_the_same_document_is_there_twice_on_one_socket(providers, js):
    providers.socket("shared")
    for peer in ("one", "two"):
        providers.attach(peer, socket="shared", more={"sessionAwareness": True}, state={"name": peer})
    providers.settled("one", "two")
    js("insert", peer="one", index=0, text="x")
    providers.draft("two", "x")
    js.until(lambda states: len(states) == 2, command="present", peer="one")
    js("call", peer="two", method="destroy")
    js.until(lambda states: len(states) == 1, command="present", peer="one")


@VERSIONS
@pytest.mark.sampled(3)
def test_presence_comes_and_goes(providers, js):
    for peer in ("a", "b"):
        providers.attach(peer, state={"name": peer})
    providers.settled("a", "b")
    for peer in ("a", "b"):
        js.until(lambda states: {state["name"] for _, state in states} == {"a", "b"}, command="present", peer=peer)
    js("call", peer="b", method="destroy")
    js.until(lambda states: len(states) == 1, command="present", peer="a")


@VERSIONS
@pytest.mark.sampled(3)
def test_forcing_a_sync_is_counted_like_everything_else(providers, js):
    providers.attach("a")
    providers.settled("a")
    for _ in range(3):
        js("call", peer="a", method="forceSync")
        providers.settled("a")
        js("insert", peer="a", index=0, text="x")
        providers.settled("a")
    assert min(js("count", peer="a")["counts"]) == 0


@VERSIONS
@pytest.mark.sampled(3)
def test_a_storm_of_reconnects_and_a_large_document_lose_nothing(providers, js):
    peers = [f"p{n}" for n in range(8)]
    for peer in peers:
        providers.attach(peer)
    providers.settled(*peers)
    js("insert", peer="p0", index=0, text="large " * 200_000)
    for turn in range(3):
        for peer in peers:
            js("insert", peer=peer, index=0, text=f"{peer}-{turn} ")
            js("dropSocket", socket=peer)
            js("insert", peer=peer, index=0, text=f"{peer}-{turn}-offline ")
        providers.settled(*peers)
    length = len("large ") * 200_000 + sum(len(f"{p}-{t} {p}-{t}-offline ") for p in peers for t in range(3))
    for peer in peers:
        js.until(lambda dump: len(dump["draft"]) == length, command="dump", peer=peer)
        assert min(js("count", peer=peer)["counts"]) == 0
    assert len({str(js.content(peer)["clocks"]) for peer in peers}) == 1


@VERSIONS
@pytest.mark.sampled(3)
def test_what_was_counted_as_synced_survives_a_kill_and_the_rest_is_brought_again(own_server, js, version):
    providers = Providers(js, own_server, version)
    providers.attach("a")
    providers.settled("a")
    js("insert", peer="a", index=0, text="acknowledged")
    providers.settled("a")
    own_server.kill()
    js("insert", peer="a", index=0, text="not yet ")
    providers.until("a", lambda count: count["unsynced"] > 0)
    again = own_server.again()
    try:
        providers.settled("a")
        providers.attach("late")
        providers.draft("late", "not yet acknowledged")
        assert again.terminate() == 0  # and an orderly restart
        providers.until("a", lambda count: not count["synced"])
        js("insert", peer="a", index=0, text="and ")
        third = again.again()
        try:
            providers.settled("a", "late")
            providers.draft("late", "and not yet acknowledged")
        finally:
            third.close()
    finally:
        again.close()


@VERSIONS
@pytest.mark.sampled(3)
def test_a_refused_change_is_told_and_poisons_nothing(guarded_providers, js):
    """Also at the next load, as with y-indexeddb; and what was refused counts once its author may write."""
    providers, http = guarded_providers
    viewer = token("vera", "viewer")
    providers.attach("owner", tokens=[TOKENS[Role.OWNER]])
    providers.attach("vera", tokens=[viewer])
    providers.settled("owner", "vera")
    assert js("count", peer="vera")["scope"] == "readonly"
    js("insert", peer="vera", index=0, text="mine ")
    js("insert", peer="owner", index=0, text="theirs")
    js.until(lambda dump: "theirs" in dump["draft"], command="dump", peer="vera")
    assert js("count", peer="vera")["unsynced"] == 1
    providers.attach("reloaded", tokens=[viewer], saved=js("save", peer="vera"))
    providers.until("reloaded", lambda count: count["synced"])
    js("insert", peer="owner", index=6, text=" again")
    for peer in ("vera", "reloaded"):
        js.until(lambda dump: "theirs again" in dump["draft"], command="dump", peer=peer)
        count = js("count", peer=peer)
        assert (count["unsynced"], count["closes"], count["denied"]) == (1, [], [])
    assert js("dump", peer="owner")["draft"] == "theirs again"
    http.put(f"/v1/sessions/{providers.room}/members/vera", json={"role": "editor"})
    providers.until("reloaded", lambda count: count["scope"] == "read-write")
    js("call", peer="reloaded", method="forceSync")
    providers.settled("reloaded")
    js.until(lambda dump: "mine" in dump["draft"], command="dump", peer="owner")


@pytest.mark.parametrize("version", [4, 3])
@pytest.mark.sampled(3)
def test_a_token_is_renewed_while_the_connection_lasts(guarded_providers, js):
    providers, _ = guarded_providers
    providers.attach("ann", tokens=[token("ann", "editor", ttl_s=4), token("ann", "editor")])
    providers.settled("ann")
    providers.until("ann", lambda count: count["tokensAsked"] == 2)
    js("insert", peer="ann", index=0, text="x")
    providers.settled("ann")
    assert js("count", peer="ann")["closes"] == []


@VERSIONS
@pytest.mark.sampled(3)
def test_a_token_that_has_ended_is_asked_for_at_the_next_connection(guarded_providers, js):
    providers, _ = guarded_providers
    brief = token("ann", "editor", ttl_s=2)
    asked = 1 if providers.version == 2 else 2  # in time, by those that understand it
    providers.attach("ann", tokens=[brief] * asked + [token("ann", "editor")])
    providers.settled("ann")
    providers.until("ann", lambda count: 4501 in count["closes"])
    js("insert", peer="ann", index=0, text="meanwhile")
    providers.settled("ann")


@VERSIONS
@pytest.mark.sampled(3)
def test_one_document_is_refused_and_another_one_of_the_socket_is_not(guarded_providers, js):
    providers, _ = guarded_providers
    providers.socket("shared")
    providers.attach("good", socket="shared", tokens=[TOKENS[Role.EDITOR]])
    providers.attach("bad", f"{providers.room} other", socket="shared", tokens=["nonsense"])
    assert providers.until("bad", lambda count: count["denied"])["denied"][0].startswith("4401 ")
    js("insert", peer="good", index=0, text="x")
    providers.settled("good")
