"""Who is here, as stock clients see it: they echo what they hear, hide, come back, and sit in tabs beside each other."""

import json
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crdt_sessions.ids import Millis, PeerId, Seq
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.model import SessionDoc, seed, settled_meta
from crdt_sessions.sync import (
    ALL,
    Actor,
    Committed,
    PeerJoined,
    PeerLeft,
    Persist,
    Replica,
    SessionEngine,
    Tick,
    received,
)
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    AwarenessEntry,
    AwarenessFrame,
    SyncStep1,
    SyncStep2,
    YWebSocket,
    decode,
    decode_awareness,
    encode,
    encode_awareness,
)
from crdt_sessions.wire.update_v1 import MAX_CLOCK
from crdt_sessions.wire.varint import MAX_VARUINT

_NOW = Millis(1_700_000_000_000)
CODEC = YWebSocket(Limits().max_frame_bytes)


class Stock:
    """What y-protocols' Awareness and y-websocket's provider do about presence (all versions do the same)."""

    def __init__(self, world, id, state, tabs):
        self.world, self.id, self.tabs = world, id, tabs
        self.clocks, self.states = {id: 0}, {} if state is None else {id: state}
        self.heard = {id: world.now}
        self.peer, self.wanted = None, False
        self.up, self.down = deque(), deque()
        self.saw_leave = []
        if state != "{}":  # what a new Awareness says by itself; the application has said something else
            self.clocks[id] = 1

    # -- Awareness

    def show(self, state):
        self.clocks[self.id] += 1
        self.heard[self.id] = self.world.now
        if state is None:
            self.states.pop(self.id, None)
        else:
            self.states[self.id] = state
        self._broadcast([self.id])

    def _apply(self, entries):
        changed = []
        for entry in entries:
            clock, known = entry.clock, self.clocks.get(entry.client_id)
            newer = (known or 0) < clock
            if not (newer or (known == clock and entry.gone and entry.client_id in self.states)):
                continue
            if not entry.gone:
                self.states[entry.client_id] = entry.state
            elif entry.client_id == self.id and self.id in self.states:
                clock += 1
            else:
                self.states.pop(entry.client_id, None)
                self.saw_leave.append(entry.client_id)
            self.clocks[entry.client_id], self.heard[entry.client_id] = clock, self.world.now
            if known is not None or not entry.gone:
                changed.append(entry.client_id)
        if changed:
            self._broadcast(changed)

    def _forget(self, clients):
        gone = [client for client in clients if self.states.pop(client, None) is not None]
        if gone:
            self._broadcast(gone)

    def tick(self):
        if self.id in self.states and self.world.now - self.heard.get(self.id, 0) >= 15_000:
            self.show(self.states[self.id])
        silent = [c for c in self.states if c != self.id and self.world.now - self.heard[c] >= 30_000]
        self._forget(silent)

    def _entries(self, clients):
        return [AwarenessEntry(c, self.clocks[c], self.states.get(c, "null")) for c in clients]

    # -- the provider

    def _broadcast(self, clients, entries=None):
        entries = entries or self._entries(clients)
        if self.peer is not None:
            self.up.append(encode(AwarenessFrame(encode_awareness(entries))))
        if self.wanted:
            for tab in self.world.clients:
                if tab is not self and tab.tabs == self.tabs is not None and tab.wanted:
                    self.world.between_tabs.append((tab, entries))

    def connect(self):
        self.wanted = True
        if self.peer is None:
            self.peer = self.world.join()
            self.up.append(encode(SyncStep1(b"\x00")))
            if self.id in self.states:
                self.up.append(encode(AwarenessFrame(encode_awareness(self._entries([self.id])))))

    def lost(self):
        """The socket is gone; what was under way on it, too."""
        self.peer = None
        self.up.clear()
        self.down.clear()
        self._forget([client for client in self.states if client != self.id])

    def leave(self):
        self._broadcast([], [AwarenessEntry(self.id, self.clocks[self.id], "null")])
        self.wanted = False
        if self.peer is not None:
            while self.up:  # a closing handshake comes behind what was sent
                self.deliver(up=True)
            self.world.left(self.peer, abrupt=False)
            self.lost()

    def drop(self):
        if self.peer is not None:
            self.world.left(self.peer, abrupt=True)
            self.lost()

    def deliver(self, *, up):
        if up and self.up:
            self.world.receive(self.peer, self.up.popleft())
        elif not up and self.down:
            for frame in decode(self.down.popleft()):
                if isinstance(frame, SyncStep1):
                    self.up.append(encode(SyncStep2(EMPTY_UPDATE)))
                elif isinstance(frame, AwarenessFrame):
                    self._apply(decode_awareness(frame.payload))


class World:
    """A server, and clients with states of their own, none, or none yet."""

    def __init__(self, kinds, **options):
        self.now, self.ids, self.options = _NOW, 0, options
        self.engine, self.between_tabs = None, deque()
        self.restart()
        self.clients = [Stock(self, 100 + n, *kind) for n, kind in enumerate(kinds)]

    def restart(self):
        document = SessionDoc(1)
        document.apply(seed("room", generation=1, created_at=_NOW, client_id=2))
        settled = settled_meta("room", 1, _NOW, "active")
        self.engine = SessionEngine("room", document, after=Seq(1), settled_meta=settled, **self.options)
        self._do(self.engine.start(self.now))

    def crash(self):
        for client in self.clients:
            client.lost()
        self.restart()

    def _do(self, effects):
        rows = [effect for effect in effects if isinstance(effect, Persist)]
        if rows:
            self._do(self.engine.handle(Committed(rows[-1].seq), self.now))

    def join(self):
        self.ids += 1
        self._do(self.engine.handle(PeerJoined(PeerId(self.ids), "somebody", ALL), self.now))
        return PeerId(self.ids)

    def left(self, peer, *, abrupt):
        self._do(self.engine.handle(PeerLeft(peer, abrupt), self.now))

    def receive(self, peer, data):
        self._do(self.engine.handle(received(peer, data, CODEC), self.now))

    def pump(self):
        for client in self.clients:
            if client.peer is not None:
                client.down.extend(CODEC.write(self.engine.take(client.peer, self.now)))

    def pass_time(self, ms=1000):
        self.now = Millis(self.now + ms)
        self._do(self.engine.handle(Tick(), self.now))
        for client in self.clients:
            client.tick()

    def settle(self):
        moved = True
        while moved:
            self.pump()
            moved = False
            for client in self.clients:
                while client.up or client.down:
                    client.deliver(up=bool(client.up))
                    moved = True
            while self.between_tabs:
                tab, entries = self.between_tabs.popleft()
                if tab.wanted:
                    tab._apply(entries)
                moved = True

    def rest(self, seconds):
        for _ in range(seconds):
            self.settle()
            self.pass_time()
        self.settle()

    def shown(self):
        return {
            client.id: client.states[client.id]
            for client in self.clients
            if client.peer and client.id in client.states
        }


def step(world, action, which, value):
    client = world.clients[which % len(world.clients)]
    match action:
        case "connect":
            client.connect()
        case "drop":
            client.drop()
        case "leave":
            client.leave()
        case "show":
            client.show(f'{{"n":{value}}}')
        case "hide":
            client.show(None)
        case "up" | "down":
            client.deliver(up=action == "up")
        case "pump":
            world.pump()
        case "tab":
            if world.between_tabs:
                tab, entries = world.between_tabs.popleft()
                if tab.wanted:
                    tab._apply(entries)
        case "wait":
            world.pass_time(1000 + 1000 * (value % 7))
        case "settle":
            world.settle()
        case "crash":
            world.crash()


ACTIONS = (
    ["connect"] * 3 + ["show", "hide", "drop", "leave", "wait", "settle", "crash"] + ["up", "down", "pump", "tab"] * 2
)
STEPS = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 99)), max_size=40)
STATES = st.sampled_from(['{"n":1}', None, "{}"])


def converge(world, steps):
    for each in steps:
        step(world, *each)
    for client in world.clients:
        if client.wanted:
            client.connect()
    world.rest(40)
    present = world.engine.roster.present()
    assert present == world.shown()
    for client in world.clients:
        if client.peer is not None:
            assert client.states == present


@given(kinds=st.lists(st.tuples(STATES, st.none()), min_size=2, max_size=5), steps=STEPS)
@example(
    kinds=[('{"n":1}', None), (None, None)],
    steps=[("connect", 0, 0), ("settle", 0, 0), ("connect", 1, 0), ("settle", 0, 0), ("show", 1, 2)],
)
def test_whatever_stock_clients_do_in_the_end_all_see_who_is_here(kinds, steps):
    converge(World(kinds), steps)


@given(kinds=st.lists(st.tuples(STATES, st.integers(0, 1)), min_size=2, max_size=5), steps=STEPS)
def test_tabs_that_hear_each_other_beside_the_server_change_nothing_about_it(kinds, steps):
    converge(World(kinds), steps)


def together(*states, **options):
    """Clients that are connected and know of each other."""
    world = World([(state, None) for state in states], **options)
    for client in world.clients:
        client.connect()
        world.settle()
    return world


def test_a_viewer_that_shows_itself_later_is_seen_and_goes_on_seeing():
    world = together('"ann"', '"bob"', None)
    ann, bob, viewer = world.clients
    viewer.show('"viewer"')
    world.settle()
    ann.show('"ann moved"')
    bob.show('"bob moved"')
    world.settle()
    for client in world.clients:
        assert client.states == {100: '"ann moved"', 101: '"bob moved"', 102: '"viewer"'}


def test_viewers_neither_keep_nor_remove_whom_they_hear_of():
    world = together('"ann"', '"bob"', None, None)
    ann, bob, viewer, other = world.clients
    other.leave()
    viewer.drop()
    world.rest(5)
    assert set(world.engine.roster.present()) == {100, 101}
    viewer.connect()
    world.rest(20)  # stock clients do not take in again what they have known, until it is renewed
    ann.drop()
    world.rest(5)
    assert (bob.states, viewer.states) == ({101: '"bob"'}, {101: '"bob"'})


def test_a_client_that_is_back_in_time_was_never_away_for_others():
    world = together('"ann"', '"bob"')
    ann, bob = world.clients
    for _ in range(3):
        ann.drop()
        world.pass_time()
        ann.connect()
        ann.deliver(up=True)
        world.pump()  # its SyncStep1 is answered before it announces itself
        world.rest(5)
        assert (bob.states, bob.saw_leave) == ({100: '"ann"', 101: '"bob"'}, [])


def test_a_device_that_is_back_before_its_old_socket_is_dead_stays_when_that_one_ends():
    world = together('"ann"', '"bob"')
    ann, bob = world.clients
    old = ann.peer
    ann.lost()
    ann.connect()
    world.settle()
    ann.show('"ann again"')
    world.settle()
    world.left(old, abrupt=True)
    world.rest(5)
    assert (bob.states[100], bob.saw_leave) == ('"ann again"', [])
    ann.leave()
    world.settle()
    assert bob.states == {101: '"bob"'}


def test_a_tab_without_a_connection_is_seen_through_the_one_beside_it_and_goes_with_it():
    world = World([('"ann"', 0), ('"tab"', 0), ('"bob"', None)])
    ann, tab, bob = world.clients
    tab.wanted = True  # its socket does not come about
    for client in (ann, bob):
        client.connect()
    tab.show('"tab moved"')
    world.settle()
    assert bob.states == {100: '"ann"', 101: '"tab moved"', 102: '"bob"'}
    ann.drop()
    world.rest(5)
    assert bob.states == {102: '"bob"'}


def test_a_connection_speaks_for_few():
    world = together('"ann"', '"bob"', limits=Limits(max_presences_per_connection=3))
    ann, bob = world.clients
    flood = [AwarenessEntry(1000 + n, 1, '"x"') for n in range(100)]
    world.receive(ann.peer, encode(AwarenessFrame(encode_awareness(flood))))
    world.settle()
    assert set(bob.states) == {100, 101, 1000, 1001}
    ann.leave()
    world.settle()
    assert set(bob.states) == {101}


def test_a_connection_that_announced_itself_speaks_for_no_other_client():
    world = together('"ann"', '"mallory"', '"bob"')
    ann, mallory, bob = world.clients
    for clock, text in ((1, "null"), (9, '"not ann"'), (10, "null")):
        world.receive(mallory.peer, encode(AwarenessFrame(encode_awareness([AwarenessEntry(100, clock, text)]))))
        world.settle()
        assert bob.states[100] == '"ann"'
    ann.show('"ann goes on"')
    world.settle()
    assert bob.states[100] == '"ann goes on"'
    assert world.engine.roster.ignored


@pytest.mark.parametrize("clock", [MAX_CLOCK, MAX_VARUINT])
def test_clocks_that_no_client_could_raise_are_ignored(clock):
    world = together('"ann"', '"bob"')
    ann, bob = world.clients
    for text in ('"not ann"', "null"):
        entry = AwarenessEntry(100, clock, text)
        world.receive(ann.peer, encode(AwarenessFrame(encode_awareness([entry]))))
        world.settle()
    assert bob.states[100] == '"ann"'
    assert world.engine.roster.ignored >= 2
    ann.show('"ann goes on"')
    world.settle()
    assert bob.states[100] == '"ann goes on"'


def said_of(client, clock, text='"not ann"'):
    return encode(AwarenessFrame(encode_awareness([AwarenessEntry(client, clock, text)])))


def beside():
    """Return a world of Ann, Bob, and a device of hers that is connected and announces nobody."""
    world = World([('"ann"', None), ('"bob"', None), (None, None)])
    for client in world.clients:
        client.connect()
    world.settle()
    return world, *world.clients


def test_no_device_of_the_same_person_takes_all_clocks_from_another():
    """It may speak for the other one, since it may be the same device that is back; not for good."""
    world, ann, bob, other = beside()
    world.receive(other.peer, said_of(100, MAX_CLOCK - 1))
    world.settle()
    assert bob.states[100] == '"ann"'
    ann.show('"ann goes on"')
    world.settle()
    assert bob.states[100] == '"ann goes on"'


def test_no_device_takes_them_little_by_little():
    world, ann, bob, other = beside()
    roster, clock = world.engine.roster, 1
    while clock < MAX_CLOCK:
        world.receive(other.peer, said_of(100, clock))
        clock += 2**16
    assert roster.clock(100) <= 1 + 2**16
    world.settle()
    assert bob.states[100] == '"not ann"'
    world.pass_time(1)
    ann.show('"ann goes on"')
    world.settle()
    assert bob.states[100] == '"ann goes on"', "she was told, and went on from there"


def test_no_device_takes_them_while_the_other_one_is_away():
    world, ann, bob, other = beside()
    ann.drop()
    world.rest(10)
    assert 100 not in bob.states
    for clock in (MAX_CLOCK - 1, 2**30, 2**20):
        world.receive(other.peer, said_of(100, clock))
    world.settle()
    assert 100 not in bob.states
    ann.connect()
    world.settle()
    ann.show('"ann again"')
    world.settle()
    assert bob.states[100] == '"ann again"'


@pytest.mark.parametrize("clock", [MAX_CLOCK - 1, 2**30 - 1])
def test_no_device_takes_them_where_nobody_was_heard_of_yet(clock):
    world = World([('"ann"', None), ('"bob"', None), (None, None)])
    ann, bob, other = world.clients
    bob.connect()
    other.connect()
    world.receive(other.peer, said_of(100, clock))
    world.settle()
    ann.connect()
    world.settle()
    ann.show('"ann"')
    world.settle()
    assert bob.states[100] == '"ann"'


def test_a_device_that_was_away_for_hours_is_seen_with_all_that_it_said_meanwhile():
    world, ann, bob, _ = beside()
    ann.drop()
    for number in range(20_000):
        ann.show(f'"{number}"')
    ann.connect()
    world.settle()
    assert bob.states[100] == '"19999"'
    ann.drop()
    world.rest(200)
    assert 100 not in bob.states
    ann.clocks[100] += 200 * 60  # a cursor that follows the mouse
    ann.connect()
    world.settle()
    assert bob.states[100] == '"19999"'


def test_a_replica_for_which_somebody_spoke_goes_on_from_there():
    replica = Replica(77)
    replica.set_presence({"user": {"name": "ann"}})
    replica.open(_NOW)
    replica.receive(said_of(77, 500), _NOW)
    replica.set_presence({"user": {"name": "ann"}, "activity": "typing"})
    said = [frame for each in replica.take(_NOW) for frame in decode(each)]
    ((entry,),) = [decode_awareness(frame.payload) for frame in said if isinstance(frame, AwarenessFrame)]
    assert 500 < entry.clock < 510
    assert json.loads(entry.state)["activity"] == "typing"


def test_a_replica_that_hears_such_a_clock_goes_on():
    replica = Replica(77)
    replica.set_presence({"user": {"name": "ann"}})
    replica.open(_NOW)
    for client, text in ((77, "null"), (78, '{"user": {}}')):
        replica.receive(encode(AwarenessFrame(encode_awareness([AwarenessEntry(client, MAX_VARUINT, text)]))), _NOW)
    assert not replica.presences()
    said = [frame for each in replica.take(_NOW) for frame in decode(each)]
    ((entry,),) = [decode_awareness(frame.payload) for frame in said if isinstance(frame, AwarenessFrame)]
    assert (entry.client_id, entry.gone) == (77, False)
    assert entry.clock < 10


def test_clients_that_left_are_forgotten_in_the_end():
    world = together('"ann"', '"bob"')
    for client in world.clients:
        client.leave()
    world.pass_time(400_000)
    roster = world.engine.roster
    assert not any((roster._principals, roster._speakers, roster._clients, roster._heirs, len(roster._table)))
    assert not roster._courses


def test_frames_that_readers_share_are_bounded_by_their_size():
    roster = Roster(Limits(), Timing())
    actor, now = Actor("p", ALL), Millis(0)
    for number in range(60):
        state = json.dumps({"x": "x" * 16_000})
        roster.hear(PeerId(number), actor, [AwarenessEntry(1000 + number, 1, state)], now)
    for version in range(60):  # sixty readers, each of which has seen one more
        assert len(roster.frame_since(version, PeerId(999)).frame.payload) > 16_000 * (60 - version)
        assert sum(len(each.frame.payload) for each in roster._shared.values()) < 2 * 1024 * 1024, (
            "the bound, and one more"
        )
