"""Stock clients as people use them: several tabs that hear each other, sockets that drop, tabs closed and loaded anew.

What a tab shows as synced, and what was acknowledged, is on the server in the end, or that tab was told otherwise.
"""

import random
import time

import pytest

from tests.interop.node import JS, NodePeers, needs_node
from tests.processes import PATIENCE, Server
from tests.profiles import sample

pytestmark = [pytest.mark.interop, needs_node]

SCHEDULES = sample("tabs")
STEPS = 50
_REMINDED_S = 20
"""The service asks for what tabs have heard from others every so often."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("tabs") / "s.db")
    yield server
    server.close()


@pytest.fixture(scope="module")
def browser():
    peers = NodePeers(JS / "tabs.mjs")
    yield peers
    peers.close()


class Story:
    """A schedule, from a seed."""

    def __init__(self, browser, service, seed):
        self.js, self.url, self.rng = browser, service.ws, random.Random(seed)
        self.room = f"tabs-{seed}-{time.time_ns()}"
        self.open, self.count = [], 0
        self.acked = {}
        """By client, the clock that was acknowledged."""

    def open_one(self):
        self.count += 1
        name = f"{self.room}-{self.count}"
        online = self.rng.random() < 0.6
        self.js("open", tab=name, url=self.url, room=self.room, version=self.rng.choice([2, 3]), online=online)
        self.open.append(name)

    def heard(self, looked):
        assert not [code for code in looked["closes"] if 4400 <= code < 4500], looked
        for client, clock in looked["acked"]:
            self.acked[client] = max(clock, self.acked.get(client, 0))

    def step(self, number):
        rng = self.rng
        tab = rng.choice(self.open)
        match rng.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                # No pairs of surrogates: cut in two, the library of the service cannot write them down.
                self.js("insert", tab=tab, where=rng.random(), text=rng.choice(["a", "bc", "é"]))
            case 5:
                self.js("remove", tab=tab, where=rng.random())
            case 6 | 7:
                self.js("network", tab=tab, online=rng.random() < 0.6)
            case 8:
                self.js("mark", tab=tab, number=number)
            case 9 if rng.random() < 0.5:
                self.heard(self.js("close", tab=tab))
                self.open.remove(tab)
                self.open_one()
            case 10 if len(self.open) < 4:
                self.open_one()
            case _:
                time.sleep(rng.uniform(0, 0.15))

    def run(self):
        self.open_one()
        for number in range(STEPS):
            self.step(number)

    def settle(self):
        """Some of the networks come back; return once what those tabs show and what was acknowledged is there."""
        online = [tab for tab in self.open if self.rng.random() < 0.7]
        for tab in self.open:
            self.js("network", tab=tab, online=tab in online)
        for tab in online:
            looked = self.js.until(lambda looked: looked["synced"] or looked["reason"], command="look", tab=tab)
            self.heard(looked)
        observer = f"{self.room}-observer"
        self.js("open", tab=observer, url=self.url, room=self.room, beside=False)
        self.js.until(lambda looked: looked["synced"], command="look", tab=observer)
        deadline = time.monotonic() + _REMINDED_S + PATIENCE
        while lacking := self.lacking(observer, online):
            assert time.monotonic() < deadline, lacking
            time.sleep(0.2)
        for tab in [*self.open, observer]:
            self.heard(self.js("close", tab=tab))

    def lacking(self, observer, online):
        there = dict(self.js("look", tab=observer)["vector"])
        lacking = {}
        for tab in online:
            looked = self.js("look", tab=tab)
            self.heard(looked)
            shown = {client: clock for client, clock in looked["vector"] if there.get(client, 0) < clock}
            if shown:
                lacking[tab] = shown
        acked = {client: clock for client, clock in self.acked.items() if there.get(client, 0) < clock}
        return lacking | ({"acknowledged": acked} if acked else {})


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_what_tabs_show_as_synced_and_what_was_acknowledged_is_there_in_the_end(browser, service, seed):
    story = Story(browser, service, seed)
    story.run()
    story.settle()


def test_what_is_written_behind_a_tab_without_a_socket_outlives_the_tab_that_wrote_it(browser, service):
    room = f"behind-{time.time_ns()}"
    browser("open", tab=f"{room}-a", url=service.ws, room=room, online=False)
    browser("open", tab=f"{room}-b", url=service.ws, room=room)
    browser.until(lambda looked: looked["synced"], command="look", tab=f"{room}-b")
    browser("insert", tab=f"{room}-a", where=0, text="from A. ")
    browser("insert", tab=f"{room}-b", where=1, text="from B. ")
    browser("open", tab=f"{room}-c", url=service.ws, room=room, beside=False)
    browser.until(lambda looked: looked["draft"] == "from A. from B. ", command="look", tab=f"{room}-c")
    for tab in "abc":
        browser("close", tab=f"{room}-{tab}")
