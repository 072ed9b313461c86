"""Unmodified Hocuspocus providers of three generations, on /v1/hocuspocus."""

import pytest

from tests.interop.node import needs_node

pytestmark = [pytest.mark.interop, needs_node]
VERSIONS = pytest.mark.parametrize("version", [2, 3, 4])


class Providers:
    """Providers in a process of Node, each on a socket of its own unless it is said on which."""

    def __init__(self, js, server, version):
        self.js = js
        self.url = f"{server.url.replace('http', 'ws', 1)}/v1/hocuspocus"
        self.version = version

    def socket(self, socket):
        self.js("socket", socket=socket, url=self.url, version=self.version)

    def attach(self, peer, name="room", *, socket=None, **options):
        if socket is None:
            self.socket(peer)
        self.js("attach", peer=peer, socket=socket or peer, name=name, version=self.version, **options)

    def until(self, peer, condition):
        return self.js.until(condition, command="count", peer=peer)

    def settled(self, *peers):
        for peer in peers:
            self.until(peer, lambda count: count["synced"] and count["unsynced"] == 0)

    def draft(self, peer, text):
        self.js.until(lambda dump: dump["draft"] == text, command="dump", peer=peer)


@pytest.fixture
def providers(js, server, version):
    return Providers(js, server, version)


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
