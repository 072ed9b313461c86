"""Updates that need what has not arrived: asked for, kept within bounds, their author's whoever brings the rest."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Map, Text, merge_updates

from crdt_sessions.errors import EarlyUpdate, ForeignWriter, MalformedUpdate, PanickedUpdate, TooMany
from crdt_sessions.ids import Millis, PeerId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.model import Later, SessionDoc
from crdt_sessions.sync import (
    READ_ONLY,
    Actor,
    ClosePeer,
    PrincipalChanged,
    Refused,
    Rights,
    RightsChanged,
    Try,
    Violation,
    WaitingUpdates,
)
from crdt_sessions.sync.events import PeerLeft
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    Ack,
    AwarenessEntry,
    AwarenessFrame,
    PermissionDenied,
    SyncStep1,
    SyncStep2,
    Update,
    encode,
    encode_awareness,
)
from tests.sync.runs import World
from tests.sync.test_engine import Bench, letters

A, B, C = PeerId(1), PeerId(2), PeerId(3)
KNOWN = Rights(verified=True)


@pytest.fixture
def bench():
    return Bench()


def draft(bench):
    return str(bench.engine.document.doc.get("draft", type=Text))


def tabs():
    """Two tabs of one browser: the second one goes on writing what it heard from the first one."""
    first, second = SessionDoc(11), SessionDoc(22)
    shared = first.doc.get("draft", type=Text)
    _, of_first = first.edit(lambda _: shared.__iadd__("from A. "))
    second.apply(of_first)
    second.take_delta()
    other = second.doc.get("draft", type=Text)
    _, of_second = second.edit(lambda _: other.__iadd__("from B. "))
    return of_first, of_second, second


def questions(frames):
    return [frame for frame in frames if isinstance(frame, SyncStep1)]


def answered(bench, *peers):
    for peer in peers:
        bench.send(peer, SyncStep2(EMPTY_UPDATE))


# -- asking -------------------------------------------------------------------------------------------------------


def test_a_peer_that_brings_a_pending_update_is_asked_for_the_rest_at_once(bench):
    bench.join(A)
    answered(bench, A)
    of_second, second = tabs()[1:]
    bench.send(A, Update(of_second))
    bench.send(A, Ack(b"x"))
    (question, *others) = bench.take(A)
    assert others == [], "it is not acknowledged while it waits"
    bench.send(A, SyncStep2(second.encode(question.state_vector)))
    assert draft(bench) == "from A. from B. "
    assert bench.take(A) == [Ack(b"x")]
    assert len(bench.engine.waiting) == 0


def test_many_pending_updates_cause_one_question(bench):
    bench.join(A)
    answered(bench, A)
    made = letters("x" * 100)
    for update in made[1:]:
        bench.send(A, Update(update))
    assert len(questions(bench.take(A))) == 1
    bench.send(A, SyncStep2(merge_updates(*made)))
    assert draft(bench) == "x" * 100
    assert len(bench.engine.waiting) == bench.engine.waiting.bytes == 0
    assert len(bench.rows) <= 4, "what came by another way is not tried"


def test_who_does_not_answer_is_asked_again_now_and_then(bench):
    bench.join(A)
    answered(bench, A)
    bench.send(A, Update(letters("ab")[1]))
    asked = []
    for second in range(1, 130):
        bench.pass_time(1)
        asked += [second for _ in questions(bench.take(A))]
    assert len(asked) in range(4, 9)
    assert asked[1] - asked[0] < asked[-1] - asked[-2]


def test_who_is_asked_and_says_the_same_again_is_not_asked_in_a_circle(bench):
    """Yjs says what waits in its document along with what that has."""
    bench.join(A)
    answered(bench, A)
    second = letters("abc")[1]
    bench.send(A, SyncStep2(second))
    for _ in range(10):
        asked = questions(bench.take(A))
        for _ in asked:
            bench.send(A, SyncStep2(second))
    assert asked == []
    assert len(bench.engine.waiting) == 1


def test_when_somebody_leaves_what_waits_the_others_are_asked_once_in_a_while(bench):
    """Tabs do not pass on what they hear from each other unless they are asked."""
    bench.join(A, B, C)
    answered(bench, A, B, C)
    of_first, of_second, _ = tabs()
    bench.send(A, Update(of_second))
    bench.do(bench.engine.handle(PeerLeft(A), bench.now))
    assert len(questions(bench.take(B))) == len(questions(bench.take(C))) == 1
    bench.send(B, SyncStep2(of_first))
    assert draft(bench) == "from A. from B. "


def test_who_tells_of_tabs_beside_it_is_asked_for_what_they_have_written_now_and_then(bench):
    """A stock client passes on their presence by itself, and nothing else."""
    bench.join(A, B)
    answered(bench, A, B)

    def moves(clock, *clients):
        bench.send(A, AwarenessFrame(encode_awareness([AwarenessEntry(client, clock, "{}") for client in clients])))
        return len(questions(bench.take(A)))

    bench.pass_time(60)
    assert moves(1, 11) == 0, "it is alone"
    assert moves(2, 11, 12) == 1
    answered(bench, A)
    assert sum(moves(clock, 11, 12) for clock in range(3, 100)) == 0
    bench.pass_time(10)
    assert moves(100, 11, 12) == 1
    assert questions(bench.take(B)) == []


# -- order --------------------------------------------------------------------------------------------------------


@given(st.permutations(range(5)), st.booleans(), st.integers(1, 5))
def test_in_every_order_all_is_there_and_acknowledged_in_the_end(order, joined, connections):
    bench = Bench()
    peers = [PeerId(number + 1) for number in range(connections)]
    bench.join(*peers)
    made = letters("01234")
    for place, number in enumerate(order):
        peer = peers[place % connections]
        bench.send(peer, Update(made[number]))
        bench.send(peer, Ack(bytes([number])))
    assert draft(bench) == "01234"
    acks = [frame.payload[0] for peer in peers for frame in bench.take(peer) if isinstance(frame, Ack)]
    assert sorted(acks) == [0, 1, 2, 3, 4]


@given(st.integers(0, 10_000))
def test_an_acknowledgement_comes_when_everything_before_it_is_there_and_not_before(seed):
    rng = random.Random(seed)
    bench = Bench()
    bench.join(A)
    made = [update for client in (50, 60, 70) for update in letters("abcd", client)]
    rng.shuffle(made)
    sent, reader = [], SessionDoc(9)
    for number, update in enumerate(made):
        bench.send(A, Update(update))
        bench.send(A, Ack(bytes([number])))
        sent.append(update)
        for ack in [frame for frame in bench.take(A) if isinstance(frame, Ack)]:
            for row in bench.rows:
                reader.apply(row.update)
            assert all(reader.contains(each) for each in sent[: ack.payload[0] + 1])
    assert len(bench.engine.waiting) == 0
    reader.close()


def test_updates_that_need_no_pending_one_are_taken_at_once(bench):
    bench.join(A, B)
    waits = letters("ab", 50)[1]
    bench.send(A, Update(waits))
    bench.send(A, Update(letters("hello", 60)[0]))
    assert draft(bench) == "h"
    assert [type(frame) for frame in bench.take(B)] == [Update]


def test_no_pending_update_is_stored_or_sent(bench):
    bench.join(A, B)
    rows = len(bench.rows)
    for client in range(50, 60):
        bench.send(A, Update(letters("ab", client)[1]))
    assert len(bench.rows) == rows
    assert bench.take(B) == []


def test_the_part_of_an_update_that_needs_nothing_is_taken(bench):
    bench.join(A)
    first, _, third = letters("abc", 50)
    bench.send(A, SyncStep2(merge_updates(first, third, *letters("d", 60))))
    assert sorted(draft(bench)) == ["a", "d"]
    assert len(bench.engine.waiting) == 1
    with pytest.raises(EarlyUpdate):
        bench.apply(merge_updates(*letters("e", 70), letters("fg", 80)[1]))
    assert sorted(draft(bench)) == ["a", "d", "e"]
    assert len(bench.engine.waiting) == 1, "over HTTP it is not kept: whoever sent it is told"


def test_what_the_server_writes_fills_a_gap_too(bench):
    bench.join(A)
    device = SessionDoc(77)
    device.apply(bench.engine.document.encode())
    made, effects = bench.engine.edit(lambda view: view.document.roots.state.__setitem__("made", Map({})), bench.now)
    assert made is None
    device.apply(bench.engine.document.encode())
    device.take_delta()
    _, needs_it = device.edit(lambda doc: doc.roots.state["made"].__setitem__("by", "a device"))
    bench.do(effects)
    bench.send(A, Update(needs_it))
    assert bench.engine.document.roots.state["made"]["by"] == "a device"


# -- whose it is --------------------------------------------------------------------------------------------------


def test_a_pending_update_outlives_its_connection(bench):
    bench.join(A, B)
    first, second = letters("ab", 50)
    bench.send(A, Update(second))
    bench.do(bench.engine.handle(PeerLeft(A), bench.now))
    bench.send(B, Update(first))
    assert draft(bench) == "ab"


def test_what_was_left_in_the_name_of_a_client_that_became_somebody_elses_is_not_taken(bench):
    bench.join(A, principal="ann", rights=KNOWN)
    bench.join(B, principal="bob", rights=KNOWN)
    first, second = letters("ab", 50)
    bench.send(A, Update(second))
    bench.do(bench.engine.handle(PeerLeft(A), bench.now))
    assert Violation("ann", "client") in bench.send(B, Update(first))
    assert draft(bench) == "a"


def test_what_an_author_may_not_write_any_more_is_not_taken(bench):
    bench.join(A, principal="ann")
    bench.join(B, principal="bob")
    made = letters("abc", 50)
    bench.send(A, Update(made[2]))
    bench.send(A, Ack(b"1"))
    bench.do(bench.engine.handle(RightsChanged(A, READ_ONLY), bench.now))
    bench.send(B, Update(made[0]))
    effects = bench.send(B, Update(made[1]))
    assert Violation("ann", "write") in effects
    told = [frame for frame in bench.engine.take(A, bench.now) if isinstance(frame, Ack | PermissionDenied)]
    assert [type(frame) for frame in told] == [PermissionDenied, Ack]
    assert draft(bench) == "ab"


@pytest.mark.parametrize("whose", ["ann", None])
def test_what_somebody_left_is_forgotten_when_their_rights_are_in_doubt(bench, whose):
    bench.join(A, principal="ann")
    bench.join(B, principal="bob")
    made = letters("ab", 50)
    bench.send(A, Update(made[1]))
    bench.do(bench.engine.handle(PeerLeft(A), bench.now))
    bench.do(bench.engine.handle(PrincipalChanged("carl"), bench.now))
    assert len(bench.engine.waiting) == 1
    bench.do(bench.engine.handle(PrincipalChanged(whose), bench.now))
    bench.send(B, Update(made[0]))
    assert draft(bench) == "a"


def test_a_reopened_session_takes_a_pending_update(bench):
    bench.join(A, B)
    made = letters("ab", 50)
    bench.send(A, Update(made[1]))
    bench.do(bench.engine.set_status("closed"))
    _, effects = bench.engine.edit(lambda view: view.document.apply(made[0]), bench.now, administrative=True)
    assert [effect for effect in effects if isinstance(effect, Try)] == []
    bench.do(effects)
    assert draft(bench) == "a"
    bench.do(bench.engine.set_status("active"))
    for _ in range(3):
        bench.pass_time(8)
    assert draft(bench) == "ab"


def test_what_a_holder_left_is_not_taken_once_its_lease_has_ended():
    """The client is unknown until something of it is taken, so it could not be fenced."""
    world = World()
    network = world.network
    world.post()
    world.ask()
    network.run_until_quiet()
    holder = world.claim()
    network.run_until_quiet()
    first, second = letters("ab", 900)
    network.peers[holder.name].uplink.append(encode(Update(second)))
    network.deliver(holder.name, up=True)
    network.drop(holder.name)
    network.pass_time(5)
    network.peers["ann"].uplink.append(encode(Update(first)))
    network.run_until_quiet()
    assert str(network.engine.document.doc.get("draft", type=Text)) == "a"
    assert len(network.engine.waiting) == 0


def test_harm_is_its_authors_whoever_brings_what_it_waited_for(bench):
    """The sandbox says what is harmful; here it is told so."""
    bench.join(A, B)
    author = SessionDoc(50)
    text = author.doc.get("draft", type=Text)
    _, first = author.edit(lambda _: text.__iadd__("a"))
    _, harm = author.edit(lambda doc: doc.roots.state.__setitem__("k", 1))
    bench.send(A, Update(harm))
    later = bench.engine.waiting.get(1).later.update
    bench.verdicts[later] = Refused(PanickedUpdate(size=len(later)))
    effects = bench.send(B, Update(first))
    (closing,) = [effect for effect in effects if isinstance(effect, ClosePeer)]
    assert (closing.peer, type(closing.error)) == (A, MalformedUpdate)
    assert len(bench.engine.waiting) == 0


@pytest.mark.parametrize("principal", ["eve", "ann"])
def test_a_client_that_is_present_is_nobody_elses_before_it_has_written(bench, principal):
    """Its id can be read from its presence."""
    bench.join(A, principal="ann", rights=KNOWN)
    bench.join(B, principal=principal, rights=KNOWN)
    bench.send(A, AwarenessFrame(encode_awareness([AwarenessEntry(50, 1, "{}")])))
    made = letters("abcdef", 50)
    for update in (made[0], made[5]):  # in its place, and far away
        effects = bench.send(B, Update(update))
        told = [frame for frame in bench.take(B) if isinstance(frame, PermissionDenied)]
        if principal == "eve":
            assert told == [PermissionDenied(str(ForeignWriter(client=50)))]
            assert (Violation("eve", "client") in effects) is (update == made[0])
    assert draft(bench) == ("" if principal == "eve" else "a")
    for update in made:
        bench.send(A, Update(update))
    assert draft(bench) == "abcdef"


# -- bounds -------------------------------------------------------------------------------------------------------


def test_pending_updates_are_bounded_in_number_and_memory():
    for limits, many, size in ((Limits(max_waiting=20), 30, 1), (Limits(max_waiting_bytes=200_000), 10**6, 3000)):
        bench = Bench(limits=limits)
        for peer in map(PeerId, range(1, 6)):
            bench.join(peer, rights=KNOWN, principal=f"p{peer}")
            for client in range(100 * peer, 100 * peer + min(many, 90)):
                effects = bench.send(peer, Update(letters(["a", "b" * size], client)[1]))
                if closed := [effect for effect in effects if isinstance(effect, ClosePeer)]:
                    break
            assert isinstance(closed[0].error, TooMany)
            assert len(bench.engine.waiting) <= limits.max_waiting
            assert bench.engine.waiting.bytes <= limits.max_waiting_bytes
        assert len(bench.engine.waiting) >= 2, "what was left before made room, and no more than that"


def test_those_who_are_there_do_not_lose_what_waits_to_those_who_come():
    bench = Bench(limits=Limits(max_waiting=4))
    bench.join(A, B, C)
    for peer in (A, B):
        for client in (10 * peer, 10 * peer + 1):
            bench.send(peer, Update(letters("ab", client)[1]))
    effects = bench.send(C, Update(letters("ab", 90)[1]))
    assert [(each.peer, type(each.error)) for each in effects if isinstance(each, ClosePeer)] == [(C, TooMany)]
    assert len(bench.engine.waiting) == 4


def test_pending_updates_of_ended_connections_expire():
    bench = Bench(timing=Timing(waiting_s=100))
    bench.join(A)
    bench.send(A, Update(letters("ab", 50)[1]))
    bench.pass_time(1000)
    assert len(bench.engine.waiting) == 1, "as long as the connection lasts, it waits"
    bench.do(bench.engine.handle(PeerLeft(A), bench.now))
    bench.pass_time(99)
    assert len(bench.engine.waiting) == 1
    bench.pass_time(2)
    assert len(bench.engine.waiting) == 0


def test_an_author_that_returns_with_the_same_update_takes_it_over(bench):
    bench.join(A)
    bench.send(A, Update(letters("ab", 50)[1]))
    bench.do(bench.engine.handle(PeerLeft(A), bench.now))
    bench.join(B)
    bench.send(B, Update(letters("ab", 50)[1]))
    bench.send(B, Ack(b"x"))
    assert len(bench.engine.waiting) == 1
    bench.send(B, Update(letters("ab", 50)[0]))
    assert Ack(b"x") in bench.take(B)


def test_the_memory_of_pending_updates_is_counted_and_released():
    waiting, rng = WaitingUpdates(Limits()), random.Random(1)
    for number in range(50):
        later = Later(bytes(rng.randrange(1000)), {5: number + 1}, {6: 9}, deletes=False)
        waiting.add(later, PeerId(number % 3), Actor("p"))
    assert waiting.bytes > 50 * 1024
    due, done = waiting.ready({5: 25}, Millis(1))
    assert (len(due), len(done)) == (25, 0)
    waiting.left(PeerId(0), Actor("p"), Millis(1))
    waiting.drop(PeerId(1))
    waiting.expire(Millis(2))
    assert waiting.ready({5: 50, 6: 9}, Millis(3))[1]
    assert (len(waiting), waiting.bytes, waiting.clients) == (0, 0, {})
