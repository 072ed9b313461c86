"""The stock Yjs provider of Durable Streams, while connections are cut and the service is killed."""

import random
import time

import pytest

from tests.interop.node import NodePeers
from tests.processes import Server
from tests.profiles import NIGHTLY
from tests.streams.node import JS, needs_node

pytestmark = [pytest.mark.interop, pytest.mark.crash, needs_node]

WORDS, CUTS = 20, 10
PATIENT_S = 2.0
LIVE = ("sse", "long-poll") if NIGHTLY else ("sse",)


class Writer:
    """Somebody who writes with the provider, on a new page whenever the old one has lost something.

    The provider sends a change once: if that fails, nothing it writes later can be read any more.
    """

    def __init__(self, clients, url):
        self._clients, self._url, self.pages = clients, url, 0
        self._open()

    def _open(self):
        self.pages += 1
        self.name = f"writer-{self.pages}"
        self._clients("yjs.open", name=self.name, url=self._url, session="s", insist=True)
        self._clients.until(lambda seen: seen["synced"], command="yjs.see", name=self.name)

    def say(self, key, value, reader):
        """Write, and return once the reader has it."""
        while True:
            self._clients("yjs.set", name=self.name, key=key, value=value)
            until = time.monotonic() + PATIENT_S
            while time.monotonic() < until:
                if self._clients("yjs.see", name=reader)["state"].get(key) == value:
                    return
                time.sleep(0.02)
            self._clients("yjs.close", name=self.name)
            self._open()


@pytest.mark.parametrize("live", LIVE)
def test_what_a_reader_has_seen_is_kept_and_all_have_the_same_in_the_end(tmp_path, live):
    clients, rng = NodePeers(JS / "clients.mjs"), random.Random(live)
    server = Server(tmp_path / "s.db", "--long-poll-s", 1)
    kills = set(rng.sample(range(2, WORDS), 5 if NIGHTLY else 1))
    cuts = [rng.randrange(WORDS) for _ in range(CUTS)]
    try:
        writer = Writer(clients, server.url)
        clients("yjs.open", name="reader", url=server.url, session="s", live=live, insist=True)
        for at in range(WORDS):
            for _ in range(cuts.count(at)):
                clients("yjs.leave", name=rng.choice(["reader", writer.name]))
            if at in kills:
                clients("yjs.set", name=writer.name, key="unheard", value=at)
                server.kill()
                server = server.again()
            writer.say(str(at), at, "reader")
        with server.http() as http:
            state = http.get("/v1/sessions/s/state").json()["state"]
            assert {key: value for key, value in state.items() if key != "unheard"} == {
                str(at): at for at in range(WORDS)
            }, "nothing that was shown is missing"
            clients("yjs.open", name="device", url=server.url, session="s", live=live)
            for name in ("reader", "device"):
                clients.until(lambda seen: seen["state"] == state, command="yjs.see", name=name)
    finally:
        clients.close()
        server.close()
