"""The engine's rules, one by one, without a socket and without sleeping."""

import json

import pytest
from pycrdt import Array, Doc, Map, Text, merge_updates

from crdt_sessions.errors import (
    AccessDenied,
    MalformedUpdate,
    PanickedUpdate,
    SessionClosed,
    TooLarge,
    TooSlow,
    WireError,
)
from crdt_sessions.ids import Millis, PeerId, Seq
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.model import (
    Author,
    MessageHead,
    SessionDoc,
    TextPart,
    extent_of,
    seed,
    settled_meta,
)
from crdt_sessions.sync import (
    ALL,
    READ_ONLY,
    TRUSTED,
    Answered,
    CallId,
    ClosePeer,
    Committed,
    Describe,
    EditFailed,
    Panics,
    PeerJoined,
    PeerLeft,
    Persist,
    Ready,
    Reload,
    Replica,
    Resume,
    RightsChanged,
    SessionEngine,
    Tick,
    Tried,
    Try,
    UpdateBrought,
    Violation,
    received,
)
from crdt_sessions.testing import SimNetwork, content
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    KEEPALIVE,
    Ack,
    AwarenessEntry,
    AwarenessFrame,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    YWebSocket,
    decode,
    decode_awareness,
    encode,
    encode_awareness,
)
from crdt_sessions.wire.varint import varuint

NOW = Millis(1_700_000_000_000)
A, B, C = PeerId(1), PeerId(2), PeerId(3)


class Bench:
    """An engine and its peers; what it persists is committed at once unless told otherwise."""

    def __init__(self, **options):
        self.now = NOW
        document = SessionDoc(1)
        document.apply(seed("room", generation=1, created_at=NOW, client_id=2))
        self.engine = SessionEngine(
            "room", document, after=Seq(1), settled_meta=settled_meta("room", 1, NOW, "active"), **options
        )
        self.codec = YWebSocket(self.engine.limits.max_frame_bytes)
        self.codecs = {}
        self.rows, self.commits, self.verdicts = [], True, {}
        self.do(self.engine.start(NOW))

    def do(self, effects):
        rows = [effect for effect in effects if isinstance(effect, Persist)]
        self.rows += rows
        if rows and self.commits:
            self.do(self.engine.handle(Committed(rows[-1].seq), self.now))
        for effect in effects:
            if isinstance(effect, Try):
                verdict = self.verdicts.get(effect.update, TRUSTED)
                effects = [*effects, *self.do(self.engine.handle(Tried(effect.trial, verdict), self.now))]
        return [effect for effect in effects if not isinstance(effect, Try | Resume)]

    def apply(self, update, actor=None):
        """Bring an update by another way than a peer's; return the effects, or raise why it is not taken."""
        effects = self.do(self.engine.handle(UpdateBrought(CallId(1), update, actor), self.now))
        (answer,) = [effect for effect in effects if isinstance(effect, Answered)]
        if answer.error is not None:
            raise answer.error
        return effects

    def join(self, *peers, rights=ALL, principal="p", synced=True):
        for peer in peers:
            self.do(self.engine.handle(PeerJoined(peer, principal, rights), self.now))
            if synced:
                self.send(peer, SyncStep1(b"\x00"))
                self.send(peer, SyncStep2(EMPTY_UPDATE))
                self.take(peer)

    def send(self, peer, frame):
        data = frame if isinstance(frame, bytes) else encode(frame)
        return self.do(self.engine.handle(received(peer, data, self.codec), self.now))

    def take(self, peer):
        codec = self.codecs.setdefault(peer, YWebSocket(self.engine.limits.max_frame_bytes))
        return [frame for data in codec.write(self.engine.take(peer, self.now)) for frame in decode(data)]

    def pass_time(self, seconds):
        self.now = Millis(self.now + int(seconds * 1000))
        return self.do(self.engine.handle(Tick(), self.now))


READ_ONLY_HERE = PermissionDenied(str(AccessDenied(what="this connection is read-only")))


@pytest.fixture
def bench():
    return Bench()


def updates_of(change, client_id=50):
    """Return the updates a stock client makes of *change*."""
    doc, updates = Doc(client_id=client_id), []
    doc.observe(lambda event: updates.append(event.update))
    change(doc)
    return updates


def letters(text, client_id=50):
    def change(doc):
        shared = doc.get("draft", type=Text)
        for letter in text:
            shared += letter

    return updates_of(change, client_id)


def test_a_stranger_is_told_nothing_before_it_was_seen_what_it_has(bench):
    def answered():
        return any(isinstance(frame, SyncStep2) for frame in bench.take(B))

    strange = letters("x", client_id=99)[0]
    for says in (
        lambda: bench.send(B, SyncStep2(strange)),
        lambda: bench.send(B, SyncStep2(b"\x00\x00")),
        lambda: bench.pass_time(40),
    ):
        bench.do(bench.engine.handle(PeerJoined(B, "p", ALL), bench.now))
        bench.send(B, SyncStep1(b"\x01" + varuint(77) + varuint(1)))
        assert not answered()
        says()
        assert answered()
        bench.send(B, SyncStep1(b"\x01" + varuint(77) + varuint(1)))
        assert answered(), "it is known"
        bench.do(bench.engine.handle(PeerLeft(B, False), bench.now))
    for vector in (b"\x00", b"\x01" + varuint(2) + varuint(1)):  # it has nothing, or our beginning
        bench.do(bench.engine.handle(PeerJoined(B, "p", ALL), bench.now))
        bench.send(B, SyncStep1(vector))
        assert answered()


STRANGE = b"\x01" + varuint(99) + varuint(1)


@pytest.mark.parametrize("first", [SyncStep1(STRANGE), None])
def test_what_a_stranger_writes_is_left_out_and_its_answer_brings_it(bench, first):
    """One that said nothing yet is a stranger, too: y-websocket lets a page write before its SyncStep1 is sent."""
    (old,), (new,) = letters("x", client_id=99), letters("y", client_id=97)
    bench.join(A)
    bench.do(bench.engine.handle(PeerJoined(B, "p", ALL), bench.now))
    if first is not None:
        bench.send(B, first)
    assert not bench.send(B, Update(new))
    bench.send(B, Ack(b"y"))
    if first is None:
        bench.send(B, SyncStep1(b"\x00"))
    assert not any(isinstance(frame, SyncStep2 | Ack) for frame in bench.take(B))
    bench.send(B, SyncStep2(merge_updates(old, new)))
    told = bench.take(B)
    assert Ack(b"y") in told
    assert any(isinstance(frame, SyncStep2) for frame in told)
    (later,) = letters("z", client_id=98)
    bench.send(B, Update(later))
    assert sorted(str(bench.engine.document.doc.get("draft", type=Text))) == ["x", "y", "z"]


def test_a_stranger_that_writes_and_never_says_what_it_has_is_told_what_it_waits_for(bench):
    bench.do(bench.engine.handle(PeerJoined(B, "p", ALL), bench.now))
    bench.send(B, SyncStep1(STRANGE))
    bench.send(B, Update(letters("x", client_id=99)[0]))
    bench.send(B, Ack(b"x"))
    (closed,) = (effect for effect in bench.pass_time(40) if isinstance(effect, ClosePeer))
    assert closed.peer == B
    assert "SyncStep1 was not answered" in str(closed.error)
    assert Ack(b"x") not in bench.take(B)


# -- persist, broadcast, acknowledge (the table of the brief's pitfalls, section 3) ------------------------------------


def test_a_new_update_is_stored_as_it_came_and_sent_to_others(bench):
    bench.join(A, B)
    (update,) = letters("a")
    effects = bench.send(A, Update(update))
    assert [effect.update for effect in effects if isinstance(effect, Persist)] == [update]
    assert bench.take(B) == [Update(update)]
    assert bench.take(A) == []


def test_a_deletion_is_stored_and_sent_though_the_state_vector_stands_still(bench):
    bench.join(A, B)

    def change(doc):
        shared = doc.get("draft", type=Text)
        shared += "abc"
        del shared[1:2]

    insertion, deletion = updates_of(change)
    bench.send(A, Update(insertion))
    vector = bench.engine.document.state_vector()
    bench.send(A, Update(deletion))
    assert bench.engine.document.state_vector() == vector
    assert bench.rows[-1].update == deletion
    assert len(bench.take(B)) == 1


def test_an_echo_is_neither_stored_nor_sent_but_acknowledged(bench):
    bench.join(A, B)
    (update,) = letters("a")
    bench.send(A, Update(update))
    bench.take(B)
    rows = len(bench.rows)
    assert bench.send(B, Update(update)) == []
    bench.send(B, Ack(b"x"))
    assert len(bench.rows) == rows
    assert bench.take(B) == [Ack(b"x")]
    assert bench.take(A) == []


def test_an_update_that_waits_is_stored_and_acknowledged_and_sent_when_the_gap_fills_and_not_before(bench):
    bench.join(A, B)
    first, second, third = letters("abc")
    bench.send(A, Update(first))
    bench.take(B)
    bench.send(A, Update(third))
    bench.send(A, Ack(b"x"))
    assert bench.rows[-1].update == first
    assert [type(frame) for frame in bench.take(A)] == [SyncStep1]
    assert bench.take(B) == []
    bench.send(A, Update(second))
    assert [row.update for row in bench.rows[-2:]] == [second, third]
    assert bench.take(A) == [Ack(b"x")]
    reader = SessionDoc(9)
    for update in [first, *[frame.update for frame in bench.take(B)]]:
        reader.apply(update)
    assert str(reader.doc.get("draft", type=Text)) == "abc"


def test_a_malformed_update_closes_its_peer_and_nothing_else(bench):
    bench.join(A, B)
    rows = len(bench.rows)
    effects = bench.send(A, Update(b"\xff\xff\xff"))
    assert [type(effect) for effect in effects] == [ClosePeer]
    assert len(bench.rows) == rows
    assert bench.send(A, Update(letters("a")[0])) == []  # it is not listened to any more
    bench.send(B, Update(letters("b")[0]))
    assert str(bench.engine.document.doc.get("draft", type=Text)) == "b"


class PanicException(BaseException):
    """As pyo3's: a BaseException that cannot be imported."""


@pytest.mark.parametrize("error", [PanicException("rust"), RuntimeError("Cannot apply update: block parent ...")])
def test_a_panic_closes_its_peer_and_the_document_is_loaded_anew(bench, monkeypatch, error):
    def panic(update):
        raise error

    bench.join(A, B)
    monkeypatch.setattr(bench.engine.document.doc, "apply_update", panic)
    closed, reload = bench.send(A, Update(letters("a")[0]))
    assert isinstance(closed, ClosePeer)
    assert isinstance(closed.error, PanickedUpdate)
    assert isinstance(reload, Reload)


def test_an_update_that_panicked_is_refused_without_another_reload(monkeypatch):
    """Old clients send it again with every reconnect; each would throw everybody out."""
    panics = Panics()
    update = letters("a")[0]
    first, second = Bench(panics=panics), Bench(panics=panics)

    def panic(update):
        raise PanicException("rust")

    first.join(A)
    monkeypatch.setattr(first.engine.document.doc, "apply_update", panic)
    assert any(isinstance(effect, Reload) for effect in first.send(A, Update(update)))
    second.join(A, B)
    (closed,) = second.send(A, Update(update))
    assert (closed.peer, type(closed.error)) == (A, MalformedUpdate)
    second.send(B, Update(letters("b")[0]))
    assert str(second.engine.document.doc.get("draft", type=Text)) == "b"
    for number in range(300):
        panics.add(b"%d" % number)
    assert (update in panics, b"299" in panics) == (False, True)


def test_an_interrupt_is_not_taken_for_a_panic(bench, monkeypatch):
    bench.join(A)

    def interrupt(update):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.engine.document.doc, "apply_update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.send(A, Update(letters("a")[0]))


def test_nothing_is_broadcast_or_acknowledged_before_it_is_committed(bench):
    bench.join(A, B)
    bench.commits = False
    bench.send(A, Update(letters("a")[0]))
    bench.send(A, Ack(b"1"))
    assert (bench.take(A), bench.take(B)) == ([], [])
    bench.do(bench.engine.handle(Committed(bench.rows[-1].seq), NOW))
    assert bench.take(A) == [Ack(b"1")]
    assert len(bench.take(B)) == 1


def test_acknowledgements_keep_their_order_and_stand_for_what_came_before(bench):
    bench.join(A)
    bench.commits = False
    first, second = letters("ab")
    bench.send(A, Ack(b"0"))
    bench.send(A, Update(first))
    bench.send(A, Ack(b"1"))
    bench.send(A, Update(second))
    bench.send(A, Ack(b"2"))
    assert bench.take(A) == [Ack(b"0")]
    bench.engine.handle(Committed(bench.rows[0].seq), NOW)
    assert bench.take(A) == [Ack(b"1")]
    bench.engine.handle(Committed(bench.rows[1].seq), NOW)
    assert bench.take(A) == [Ack(b"2")]


def test_unread_acknowledgements_are_bounded():
    bench = Bench(limits=Limits(max_unread_acks=3))
    bench.join(A)
    for _ in range(3):
        bench.send(A, Ack(b"x"))
    (effect,) = bench.send(A, Ack(b"x"))
    assert isinstance(effect.error, TooSlow)


# -- the handshake -------------------------------------------------------------------------------------------------


def test_no_update_is_sent_before_the_step1_was_answered(bench):
    bench.join(A)
    bench.join(B, synced=False)
    assert [type(frame) for frame in bench.take(B)] == [SyncStep1]
    bench.send(A, Update(letters("a")[0]))
    assert bench.take(B) == []
    bench.send(B, SyncStep1(b"\x00"))
    (step2,) = bench.take(B)
    reader = Doc()
    reader.apply_update(step2.update)
    assert str(reader.get("draft", type=Text)) == "a"


def test_every_step1_is_answered(bench):
    bench.join(A)
    for _ in range(3):
        bench.send(A, SyncStep1(b"\x00"))
        assert [type(frame) for frame in bench.take(A)] == [SyncStep2]


def test_readers_at_the_same_place_share_one_frame_however_many_updates_it_holds(bench):
    bench.join(A, B, C)
    for update in letters("abcdef"):
        bench.send(A, Update(update))
    (one,), (other,) = bench.engine.take(B, NOW), bench.engine.take(C, NOW)
    (message,), (again,) = bench.codec.write([one]), bench.codec.write([other])
    assert message is again, "it is written once"
    (frame,) = decode(message)
    reader = Doc()
    reader.apply_update(frame.update)
    assert str(reader.get("draft", type=Text)) == "abcdef"


def test_a_peer_that_fell_off_the_log_is_resynced_from_the_document():
    bench = Bench(limits=Limits(log_bytes=100))
    bench.join(A, B)
    for update in letters("x" * 50):
        bench.send(A, Update(update))
    assert len(bench.engine.log) <= 10
    frames = bench.take(B)
    assert len(frames) == 1
    reader = Doc()
    reader.apply_update(frames[0].update)
    assert str(reader.get("draft", type=Text)) == "x" * 50
    bench.send(A, Update(letters("y", client_id=51)[0]))
    assert len(bench.take(B)) == 1


def test_a_log_whose_readers_keep_up_stays_short(bench):
    """Entries cost more than their bytes, and a busy session has thousands of them within a minute."""
    bench.join(A, B)
    for update in letters("x" * 500):
        bench.send(A, Update(update))
        bench.take(A)
        bench.take(B)
        assert len(bench.engine.log) <= 65
    bench.pass_time(1)
    assert len(bench.engine.log) == 0
    bench.join(C, synced=False)  # who has not asked yet needs nothing of it
    for update in letters("y" * 100, client_id=51):
        bench.send(A, Update(update))
        bench.take(A)
    assert len(bench.engine.log) >= 100, "but B does"
    assert len(bench.take(B)) == 1


# -- rights and limits ---------------------------------------------------------------------------------------------


def test_a_reader_may_say_what_is_known_and_nothing_new(bench):
    bench.join(A)
    bench.join(B, rights=READ_ONLY)
    (update,) = letters("a")
    bench.send(A, Update(update))
    assert bench.send(B, SyncStep2(b"\x00\x00")) == []
    assert bench.send(B, SyncStep2(update)) == []
    news = SyncStep2(letters("b", client_id=51)[0])
    assert bench.send(B, news)[:2] == [Ready(B), Violation("p", "write")]
    bench.send(B, Ack(b"1"))
    assert bench.engine.take(B, NOW)[-2:] == [READ_ONLY_HERE, Ack(b"1")]
    assert Violation("p", "write") not in bench.send(B, news), "it is noted once"
    bench.send(B, Ack(b"2"))
    assert bench.take(B) == [READ_ONLY_HERE], "an Ack of y-websocket would say that all is durable"
    bench.send(B, Ack(b"3"))
    assert bench.take(B) == []
    bench.send(A, Update(letters("bc")[1]))
    assert any(isinstance(frame, Update) for frame in bench.take(B)), "it goes on reading"


def test_what_a_reader_may_not_write_may_be_taken_when_it_may(bench):
    bench.join(A)
    bench.join(B, rights=READ_ONLY)
    first, second = letters("ab", client_id=51)
    bench.send(B, SyncStep2(first))
    assert bench.take(B) == [READ_ONLY_HERE]
    bench.do(bench.engine.handle(RightsChanged(B, ALL), bench.now))
    bench.send(B, Update(second))
    assert len(bench.engine.waiting) == 1, "it builds on what was refused, which the peer is asked for"
    bench.send(B, SyncStep2(merge_updates(first, second)))
    assert str(bench.engine.document.doc.get("draft", type=Text)) == "ab"


def test_a_stranger_that_may_not_write_is_told_what_there_is(bench):
    bench.apply(letters("a")[0])
    bench.join(B, rights=READ_ONLY, synced=False)
    bench.send(B, SyncStep1(b"\x01\x33\x01"))
    assert not any(isinstance(frame, SyncStep2) for frame in bench.take(B)), "its copy may be of another session"
    bench.send(B, SyncStep2(letters("b", client_id=51)[0]))
    told = bench.take(B)
    assert READ_ONLY_HERE in told
    assert any(isinstance(frame, SyncStep2) for frame in told)


def test_a_closed_session_takes_no_writes_from_anybody(bench):
    bench.join(A)
    bench.do(bench.engine.set_status("closed"))
    bench.send(A, Update(letters("a")[0]))
    assert PermissionDenied(str(SessionClosed(session="room"))) in bench.take(A)
    with pytest.raises(SessionClosed):
        bench.engine.edit(lambda view: view.set_title("x"), NOW)
    with pytest.raises(SessionClosed):
        bench.apply(letters("a")[0])
    bench.do(bench.engine.set_status("active"))
    bench.apply(letters("a")[0])
    assert str(bench.engine.document.doc.get("draft", type=Text)) == "a"


@pytest.mark.parametrize(
    ("limits", "frame"),
    [
        (Limits(max_frame_bytes=10), Update(b"x" * 20)),
        (Limits(max_document_bytes=300), Update(letters("x")[0][:-1] + b"\x00")),
        (Limits(max_presence_bytes=10), AwarenessFrame(encode_awareness([AwarenessEntry(1, 1, '"12345678901"')]))),
        (Limits(max_ack_bytes=3), Ack(b"1234")),
    ],
)
def test_input_over_a_limit_is_refused(limits, frame):
    bench = Bench(limits=limits)
    bench.join(A)
    while not (effects := bench.send(A, frame)) or not isinstance(effects[0], ClosePeer):
        frame = Update(letters("x" * 60, client_id=len(bench.rows) + 100)[-1])
        frame = Update(_whole("x" * 60, len(bench.rows) + 100))
    assert isinstance(effects[0].error, TooLarge)


def _whole(text, client_id):
    doc = Doc(client_id=client_id)
    shared = doc.get("draft", type=Text)
    shared += text
    return doc.get_update()


# -- presence --------------------------------------------------------------------------------------------------------


def presence(client, clock, state="{}"):
    return AwarenessFrame(encode_awareness([AwarenessEntry(client, clock, state)]))


def seen(frames):
    return {
        e.client_id: (e.clock, e.state)
        for f in frames
        if isinstance(f, AwarenessFrame)
        for e in decode_awareness(f.payload)
    }


def test_a_joiner_sees_everybody_and_a_change_costs_one_frame_for_each(bench):
    peers = [PeerId(n) for n in range(1, 21)]
    bench.join(*peers)
    for n, peer in enumerate(peers):
        bench.send(peer, presence(100 + n, 1))
    for peer in peers:
        bench.take(peer)
    bench.send(peers[0], presence(100, 2, '{"x":1}'))
    frames = [bench.take(peer) for peer in peers]
    assert [len(each) for each in frames] == [0] + [1] * 19
    bench.join(PeerId(99), synced=False)
    bench.send(PeerId(99), SyncStep1(b"\x00"))
    bench.send(PeerId(99), SyncStep2(EMPTY_UPDATE))
    assert len(seen(bench.take(PeerId(99)))) == 20


def test_relayed_presence_costs_nothing_and_gives_no_rights(bench):
    bench.join(A, B)
    bench.send(A, presence(10, 5))
    bench.send(B, presence(20, 1))
    bench.take(A), bench.take(B)
    bench.send(B, presence(10, 5))  # a relay
    bench.send(B, presence(10, 6, '"forged"'))
    bench.send(B, presence(10, 6, "null"))
    assert bench.take(A) == []
    assert bench.engine.roster.ignored == 3
    bench.do(bench.engine.handle(PeerLeft(B), NOW))
    assert seen(bench.take(A)) == {20: (1, "null")}


@pytest.mark.parametrize("clock", [0, 3, 4])
def test_entries_with_old_or_equal_clocks_are_dropped(bench, clock):
    bench.join(A, B)
    bench.send(A, presence(10, 4))
    bench.take(B)
    bench.send(A, presence(10, clock, '"other"'))
    assert bench.take(B) == []


def test_the_first_announcement_has_clock_zero_and_shows_nothing_yet(bench):
    bench.join(A, B)
    bench.send(A, presence(10, 0))
    assert bench.take(B) == []
    bench.send(A, presence(10, 1))
    assert seen(bench.take(B)) == {10: (1, "{}")}


def test_a_client_that_leaves_is_removed_at_its_own_clock(bench):
    bench.join(A, B)
    bench.send(A, presence(10, 7))
    bench.take(B)
    bench.do(bench.engine.handle(PeerLeft(A), NOW))
    assert seen(bench.take(B)) == {10: (7, "null")}


def test_a_broken_connection_has_a_moment_to_come_back(bench):
    bench.join(A, B)
    bench.send(A, presence(10, 7))
    bench.take(B)
    bench.do(bench.engine.handle(PeerLeft(A, abrupt=True), bench.now))
    bench.pass_time(2)
    assert bench.take(B) == []
    bench.join(C, synced=False)
    bench.send(C, SyncStep1(b"\x00"))
    bench.take(C)
    bench.send(C, presence(10, 7))  # the same client, the same clock, a new connection
    bench.pass_time(5)
    assert bench.take(B) == []
    bench.do(bench.engine.handle(PeerLeft(C, abrupt=True), bench.now))
    bench.pass_time(4)
    assert seen(bench.take(B)) == {10: (7, "null")}


def test_a_device_takes_its_presence_over_from_its_dead_socket_and_nobody_elses(bench):
    bench.join(A, principal="ann")
    bench.send(A, presence(10, 7))
    bench.join(B, principal="eve")
    bench.send(B, presence(10, 8, '"eve"'))
    bench.join(C, principal="ann")
    bench.send(C, presence(10, 8, '"ann"'))
    assert list(bench.engine.roster.present().values()) == ['"ann"']
    bench.do(bench.engine.handle(PeerLeft(A), bench.now))
    assert list(bench.engine.roster.present().values()) == ['"ann"']


def test_presence_that_is_not_renewed_expires_for_everybody(bench):
    bench.join(A, B)
    bench.send(A, presence(10, 1))
    bench.take(B)
    bench.pass_time(25)
    bench.send(A, presence(10, 2))
    bench.take(B)
    bench.pass_time(25)
    assert seen(bench.take(B)) == {}
    bench.pass_time(10)
    assert seen(bench.take(B)) == {10: (2, "null")}


def test_asking_for_presence_gets_all_of_it(bench):
    bench.join(A, B)
    bench.send(A, presence(10, 1))
    bench.take(B)
    bench.send(B, QueryAwareness())
    assert seen(bench.take(B)) == {10: (1, "{}")}


def test_the_server_is_no_participant(bench):
    bench.join(A)
    assert bench.engine.roster.present() == {}


def test_presences_are_bounded():
    bench = Bench(limits=Limits(max_presences=2))
    peers = [PeerId(n) for n in range(1, 5)]
    bench.join(*peers)
    for peer in peers:
        bench.send(peer, presence(100 + peer, 1))
    assert len(bench.engine.roster.present()) == 2


# -- time ------------------------------------------------------------------------------------------------------------


def test_silence_is_filled_before_stock_clients_hang_up(bench):
    bench.join(A)
    bench.pass_time(19)
    assert bench.engine.take(A, bench.now) == []
    effects = bench.pass_time(2)
    assert Ready(A) in effects
    assert bench.engine.take(A, bench.now) == [KEEPALIVE]
    assert bench.engine.take(A, bench.now) == []


def test_a_peer_that_renewed_its_presence_and_then_falls_silent_is_closed(bench):
    bench.join(A, B)
    bench.send(A, presence(10, 1))
    effects = bench.pass_time(Timing().silent_peer_s + 1)
    closed = [effect.peer for effect in effects if isinstance(effect, ClosePeer)]
    assert closed == [A]  # B never announced anything: stock pycrdt providers say nothing for hours


# -- the steward -------------------------------------------------------------------------------------------------------


def post(id, at=1, **more):
    head = MessageHead(id=id, role="user", author=Author(id="ann"), created_at=at, **more)
    return lambda view: view.messages.add(head, [TextPart(type="text", text=id)])


def test_messages_get_their_place_once_in_order_of_time(bench):
    bench.do(bench.engine.edit(lambda view: [post("late", 9)(view), post("early", 3)(view)], NOW)[1])
    bench.do(bench.engine.edit(post("older", 1), NOW)[1])
    assert [(m.id, m.seq) for m in bench.engine.view.messages.ordered()] == [("early", 1), ("late", 2), ("older", 3)]


def test_messages_that_come_at_once_keep_the_order_in_which_their_client_wrote_them(bench):
    bench.do(bench.engine.edit(lambda view: [post(id, 5)(view) for id in "dbcae"], NOW)[1])
    assert [m.id for m in bench.engine.view.messages.ordered()] == list("dbcae"), "also of one millisecond"


def test_no_message_is_placed_in_front_of_what_it_comes_after_whatever_clocks_say(bench):
    def late(view):
        for id, at, links in (
            ("reply", 3, {"parent": "said"}),
            ("edited", 2, {"replaces": "reply"}),
            ("said", 9, {}),
            ("round", 1, {"parent": "about"}),
            ("about", 1, {"parent": "round"}),
        ):
            view.messages.add(
                MessageHead(id=id, role="user", author=Author(id="ann"), created_at=at, **links),
                [TextPart(type="text", text=id)],
            )

    bench.do(bench.engine.edit(late, NOW)[1])
    placed = [m.id for m in bench.engine.view.messages.ordered()]
    assert placed.index("said") < placed.index("reply") < placed.index("edited")
    assert sorted(placed) == ["about", "edited", "reply", "round", "said"], "a circle loses nobody its place"


def test_imported_history_is_not_answered(bench):
    bench.engine.view.document.edit(lambda _: bench.engine.view.set_agent("writer"))
    bench.do(bench.engine.edit(lambda view: [post("old", imported=True)(view), post("new")(view)], NOW)[1])
    assert bench.engine.view.runs.ids() == ["run-new"]


def test_a_head_that_comes_late_is_waited_for(bench):
    bench.join(A)

    def careless(doc):
        messages = doc.get("messages", type=Map)
        messages["m"] = Map()
        messages["m"]["head"] = {"id": "m", "role": "user", "author": {"id": "x"}, "createdAt": 1}

    for update in updates_of(careless):
        bench.send(A, Update(update))
    assert bench.engine.view.messages.value("m").seq == 1


def test_fields_of_the_server_are_restored_when_peers_overwrite_them(bench):
    bench.do(bench.engine.edit(post("m"), NOW)[1])
    bench.join(A)
    replica = Doc(client_id=70)
    replica.apply_update(bench.engine.document.encode())
    updates = []
    replica.observe(lambda event: updates.append(event.update))
    replica.get("messages", type=Map)["m"]["seq"] = 99
    meta = replica.get("meta", type=Map)
    meta["status"], meta["generation"], meta["title"] = "closed", 8, "theirs"
    for update in updates:
        bench.send(A, Update(update))
    assert bench.engine.view.messages.value("m").seq == 1
    assert (bench.engine.view.meta.status, bench.engine.view.meta.generation) == ("active", 1)
    assert bench.engine.view.meta.title == "theirs"


def test_the_title_is_described(bench):
    _, effects = bench.engine.edit(lambda view: view.set_title("Oslo"), NOW)
    assert Describe("Oslo") in effects


def test_settled_fields_survive_a_restart_of_the_engine(bench):
    bench.do(bench.engine.edit(post("m"), NOW)[1])
    document = SessionDoc(3)
    document.apply(bench.engine.document.encode())
    again = SessionEngine("room", document, after=Seq(9), settled_meta=settled_meta("room", 1, NOW, "active"))
    assert again.start(NOW) == []
    again.edit(post("n"), NOW)
    assert [m.seq for m in again.view.messages.ordered()] == [1, 2]


def test_nonsense_among_messages_and_runs_does_not_stop_the_steward(bench):
    bench.join(A)

    def scribble(doc):
        messages, runs, meta = (doc.get(name, type=Map) for name in ("messages", "runs", "meta"))
        messages["number"], messages["empty"], messages["array"] = 5, Map(), Array([1])
        messages["odd"] = Map({"seq": float("inf"), "head": 7})
        messages["nan"] = Map({"seq": float("nan")})
        runs["number"], runs["odd"] = 5, Map({"result": 7, "status": {"x": 1}})
        meta["title"], meta["status"] = Map(), 9

    for update in updates_of(scribble):
        effects = bench.send(A, Update(update))
        assert not any(isinstance(effect, ClosePeer) for effect in effects)
    bench.do(bench.engine.edit(post("m"), NOW)[1])
    assert bench.engine.view.messages.value("m").seq == 1
    assert (bench.engine.view.meta.status, bench.engine.view.meta.title) == ("active", None)
    again = SessionDoc(3)
    again.apply(bench.engine.document.encode())
    engine = SessionEngine("room", again, after=Seq(99), settled_meta=settled_meta("room", 1, NOW, "active"))
    engine.start(NOW)
    assert engine.view.messages.value("m").seq == 1


def test_what_a_failed_edit_did_before_it_failed_is_stored_and_sent(bench):
    bench.join(A)

    def change(view):
        view.state["before"] = 1
        raise LookupError("no more")

    with pytest.raises(EditFailed) as failed:
        bench.engine.edit(change, NOW)
    assert isinstance(failed.value.__cause__, LookupError)
    bench.do(failed.value.effects)
    replayed = SessionDoc(5)
    for row in bench.rows:
        replayed.apply(row.update)
    assert replayed.roots.state.to_py() == {"before": 1.0}
    assert len(bench.take(A)) == 1


# -- the other end ---------------------------------------------------------------------------------------------------


def test_a_returning_replica_announces_itself_with_a_raised_clock():
    network = SimNetwork()
    for name in ("ann", "bob"):
        network.add(name).replica.set_presence({"user": {"name": name}})
        network.connect(name)
    network.run_until_quiet()
    assert len(network.peers["bob"].replica.presences()) == 1
    network.drop("ann", abrupt=False)
    network.run_until_quiet()
    assert network.peers["bob"].replica.presences() == {}
    network.connect("ann")
    network.run_until_quiet()
    assert len(network.peers["bob"].replica.presences()) == 1


def test_a_replica_that_leaves_is_gone_at_once_and_knows_that_it_was_heard():
    network = SimNetwork()
    for name in ("ann", "bob"):
        network.add(name).replica.set_presence({"user": {"name": name}})
        network.connect(name)
    network.run_until_quiet()
    ann = network.peers["ann"].replica
    ann.leave()
    network.edit("ann", lambda view: None)
    assert ann.durable < ann.version
    network.run_until_quiet()
    assert ann.durable == ann.version
    assert network.peers["bob"].replica.presences() == {}


def test_a_replica_renews_its_presence_and_objects_to_being_declared_gone():
    network = SimNetwork()
    for name in ("ann", "bob"):
        network.add(name).replica.set_presence({"user": {"name": name}})
        network.connect(name)
    network.run_until_quiet()
    for _ in range(6):
        network.pass_time(14)
        network.run_until_quiet()
    ann = network.peers["ann"].replica
    assert ann.presences()
    gone = encode(AwarenessFrame(encode_awareness([AwarenessEntry(ann.client_id, 10_000, "null")])))
    ann.receive(gone, network.now)
    (frame,) = [f for data in ann.take(network.now) for f in decode(data) if isinstance(f, AwarenessFrame)]
    assert decode_awareness(frame.payload)[0].clock == 10_001


def with_a_deletion():
    """A network with a peer, whose title has taken the place of another one."""
    network = SimNetwork()
    network.add("ann")
    network.connect("ann")
    network.edit("ann", post("m"))
    network.edit("ann", lambda view: view.set_title("gone"))
    network.edit("ann", lambda view: view.set_title("there"))
    network.run_until_quiet()
    return network


def test_a_replica_that_begins_with_what_the_server_has_sends_nothing_back_and_what_it_lacks_all_the_same():
    network = with_a_deletion()
    ann = network.peers["ann"].replica
    known, asked = Replica(5), SyncStep1(network.engine.document.state_vector())
    known.begin(ann.document.encode())
    assert known.view.meta.title == "there"
    assert [subject for subject in known.changes.since(Seq(0)) if subject[0] == "message"] == [("message", "m")]

    def answer(to):
        known.open(network.now)
        known.receive(encode(to), network.now)
        (step2,) = [f for data in known.take(network.now) for f in decode(data) if isinstance(f, SyncStep2)]
        return step2.update

    assert answer(asked) == EMPTY_UPDATE
    empty = SessionDoc(6)
    restored = answer(SyncStep1(empty.state_vector()))  # a server that came back from an old backup
    assert empty.apply(restored) is not None
    assert extent_of(empty.doc) == extent_of(known.document.doc)
    known.edit(lambda view: view.set_title("mine"))
    assert answer(asked) != EMPTY_UPDATE


def test_a_replica_counts_as_durable_only_what_came_back():
    network = SimNetwork()
    network.add("ann")
    network.connect("ann")
    ann = network.peers["ann"].replica
    network.edit("ann", post("m"))
    while network.deliver("ann", up=True) or network.deliver("ann", up=False):
        pass
    assert (ann.version, ann.durable) == (1, 0)
    network.run_until_quiet()
    assert (ann.version, ann.durable) == (1, 1)


def test_what_comes_back_to_a_predecessor_says_nothing_of_its_successors_changes():
    network = SimNetwork()
    network.add("ann")
    network.connect("ann")
    network.edit("ann", post("m"))
    network.edit("ann", post("n"))
    network.run_until_quiet()
    former = network.peers["ann"].replica
    ann = former.successor(77)
    assert (ann.synced, ann.version - ann.durable) == (True, 0)
    ann.edit(post("o"))
    ann.receive(encode(Ack(varuint(former.version))), network.now)  # it was on its way
    assert ann.version - ann.durable == 1
    sent = [frame for data in ann.take(network.now) for frame in decode(data)]
    assert [type(frame) for frame in sent] == [Update, Ack]
    ann.receive(encode(sent[1]), network.now)
    assert ann.version == ann.durable


def test_a_successor_that_wrote_nothing_sends_nothing_back():
    network = with_a_deletion()
    ann = network.peers["ann"].replica.successor(77)
    ann.lost(network.now)
    ann.open(network.now)
    ann.receive(encode(SyncStep1(network.engine.document.state_vector())), network.now)
    (step2,) = [f for data in ann.take(network.now) for f in decode(data) if isinstance(f, SyncStep2)]
    assert step2.update == EMPTY_UPDATE


def test_a_replica_does_not_send_what_the_server_would_refuse():
    replica = Replica(5, limits=Limits(max_frame_bytes=100))
    replica.open(NOW)
    replica.receive(encode(SyncStep1(b"\x00")), NOW)
    replica.edit(post("x" * 200))
    with pytest.raises(TooLarge):
        replica.take(NOW)


def test_presence_must_be_json():
    with pytest.raises(ValueError, match="JSON"):
        Replica(5).set_presence({"x": float("nan")})


def test_an_unreadable_frame_from_the_server_is_an_error():
    with pytest.raises(WireError):
        Replica(5).receive(b"\x63", NOW)


def test_everybody_agrees_after_a_small_story():
    network = SimNetwork()
    for name in ("ann", "bob"):
        network.add(name)
    network.connect("ann")
    network.edit("ann", post("m1"))
    network.run_until_quiet()
    network.edit("bob", post("m2"))  # offline
    network.crash()
    network.connect("bob")
    network.connect("ann")
    network.run_until_quiet()
    contents = [json.dumps(content(document)["json"], sort_keys=True) for document in network.documents().values()]
    assert len(set(contents)) == 1
