"""Tabs of one browser, which hear each other and pass on only what is their own, over a simulated network.

As stock y-websocket providers do: what a tab writes goes to the service, if it is connected, and to the tabs beside it;
what it hears from those it shows, writes behind, and does not pass on. Their presence, the cursor that moves with each
letter, it does pass on.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Text

from crdt_sessions.model import split, text
from crdt_sessions.testing import SimNetwork
from crdt_sessions.wire import EMPTY_UPDATE, AwarenessEntry, AwarenessFrame, encode, encode_awareness
from crdt_sessions.wire.varint import decode_state_vector

STEPS = 100


class Tab:
    def __init__(self, name, peer, *, hears=True):
        self.name, self.peer, self.hears = name, peer, hears
        self.inbox = []
        """What the tabs beside it have said and it has not heard yet."""
        self.lacking = []
        """What it has heard and lacks something."""
        self.written = {0: 0}
        """Number of its changes to its clock then."""

    @property
    def replica(self):
        return self.peer.replica

    @property
    def client(self):
        return self.replica.client_id

    def take(self, said):
        """Take what can be integrated, as Yjs does; pycrdt would show what stands behind a gap, and write there."""
        self.lacking.append(said)
        moved = True
        while moved:
            moved = False
            for each in list(self.lacking):
                now, _, later = split(each, self.clocks())
                if now != EMPTY_UPDATE or later is None:
                    self.lacking.remove(each)
                    self.lacking += [later.update] if later is not None else []
                    self.replica._merge(now)
                    moved = True

    def clocks(self):
        return decode_state_vector(self.replica.document.state_vector())


class Browser:
    """Some tabs, and a service that may crash."""

    def __init__(self, rng):
        self.rng, self.network = rng, SimNetwork()
        self.tabs = []
        self.count = self.presence = 0
        self.promised = {}
        """By client, the clock up to which it was told that all is durable."""

    def open(self):
        self.count += 1
        name = f"tab-{self.count}"
        tab = Tab(name, self.network.add(name), hears=self.rng.random() < 0.9)
        self.tabs.append(tab)
        if tab.hears:
            for other in [other for other in self.tabs if other is not tab and other.hears]:
                tab.inbox.append((other.replica.document.encode(), other.client))
        if self.rng.random() < 0.6:
            self.network.connect(name)

    def write(self, tab):
        before = tab.replica.document.state_vector()

        def change(view):
            draft = view.document.doc.get("draft", type=Text)
            length = len(str(draft))
            if length > 4 and self.rng.random() < 0.3:
                text.delete(draft, self.rng.randrange(length - 1), 1)
            else:
                text.insert(draft, self.rng.randint(0, length), self.rng.choice("ab😀"))
            if self.rng.random() < 0.3:
                view.state[self.rng.choice("xyz")] = self.rng.random()

        self.network.edit(tab.name, change)
        tab.written[tab.replica.version] = tab.clocks().get(tab.client, 0)
        said = tab.replica.document.encode(before)
        for other in self.tabs:
            if other is not tab and other.hears and tab.hears:
                other.inbox.append((said, tab.client))

    def hear(self, tab):
        if tab.inbox:
            said, client = tab.inbox.pop(0)
            tab.take(said)
            self.present(tab, client)

    def present(self, tab, *heard):
        """Tell where its cursor is, and where that of a tab is from which it has heard."""
        self.presence += 1
        heard = [*heard, *(other.client for other in self.tabs if other is tab or (other.hears and tab.hears))]
        entries = [AwarenessEntry(client, self.presence, "{}") for client in dict.fromkeys(heard)]
        if tab.peer.connection is not None:
            tab.peer.uplink.append(encode(AwarenessFrame(encode_awareness(entries))))

    def close(self, tab):
        """What it has sent is sent; what it would be asked it does not hear any more."""
        while self.network.deliver(tab.name, up=True):
            pass
        self.note(tab)
        self.network.drop(tab.name, abrupt=False)
        self.tabs.remove(tab)

    def note(self, tab):
        version = max(number for number in tab.written if number <= tab.replica.durable)
        self.promised[tab.client] = max(tab.written[version], self.promised.get(tab.client, 0))

    def step(self):
        rng, network = self.rng, self.network
        tab = rng.choice(self.tabs)
        match rng.randrange(18):
            case 0 | 1 | 2 | 3:
                self.write(tab)
            case 4 | 5 | 6:
                for _ in range(rng.randrange(1, 4)):
                    self.hear(tab)
            case 7 | 8 | 9 | 10:
                for each in rng.sample(self.tabs, len(self.tabs)):
                    for up in rng.sample([True, False] * 3, rng.randrange(6)):
                        network.deliver(each.name, up=up)
            case 11 | 12:
                network.commit()
            case 13 if rng.random() < 0.5:
                (network.drop if tab.peer.connection is not None else network.connect)(tab.name)
            case 14 if rng.random() < 0.5:
                self.close(tab)
                self.open()
            case 15 if rng.random() < 0.2:
                network.crash()
                for each in self.tabs:
                    if rng.random() < 0.7:
                        network.connect(each.name)
            case 16 if len(self.tabs) < 4:
                self.open()
            case 17:
                network.pass_time(rng.choice([0.1, 3, 20]))
                self.present(tab)
            case _:
                self.write(tab)
        for each in self.tabs:
            self.note(each)

    def settle(self):
        """Let everything arrive, and some time pass."""
        for _ in range(4):
            for tab in self.tabs:
                while tab.inbox:
                    self.hear(tab)
            self.network.run_until_quiet()
            self.network.pass_time(61)
            for tab in self.tabs:
                self.present(tab)
            self.network.run_until_quiet()


@given(st.integers(0, 2**32))
def test_what_a_connected_tab_shows_and_what_was_acknowledged_is_there_in_the_end(seed):
    browser = Browser(random.Random(seed))
    browser.open()
    for _ in range(STEPS):
        browser.step()
    browser.settle()
    documents = browser.network.documents()
    clocks = decode_state_vector(documents["disk"].state_vector())
    for tab in browser.tabs:
        if tab.peer.connection is not None:
            assert tab.peer.closed_by is None
            for client, clock in tab.clocks().items():
                assert clocks.get(client, 0) >= clock, f"{tab.name} shows what the service has not got"
    for client, clock in browser.promised.items():
        assert clocks.get(client, 0) >= clock, "acknowledged, and not there"
    browser.network.close()


@pytest.mark.slow
def test_the_schedules_are_not_harmless():
    """Of a few, things wait, and some of them are left behind."""
    waited = left = 0
    for seed in range(40):
        browser = Browser(random.Random(seed))
        browser.open()
        for _ in range(STEPS):
            browser.step()
            waiting = browser.network.engine.waiting
            waited += bool(len(waiting))
            left += len(waiting) > sum(len(waiting._of[author]) for author in waiting.authors)
    assert waited > 20
    assert left > 2
