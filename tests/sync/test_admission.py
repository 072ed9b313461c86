"""Whatever nobody can vouch for meets the document after its trial only, and what comes meanwhile waits in order."""

import pytest
from pycrdt import Text

from crdt_sessions.errors import (
    EarlyUpdate,
    MalformedUpdate,
    Overloaded,
    PanickedUpdate,
    StoreUnavailable,
    TooMany,
    WrongLineage,
)
from crdt_sessions.ids import PeerId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.model import SessionDoc
from crdt_sessions.sync import (
    ALL,
    READ_ONLY,
    TRUSTED,
    Answered,
    CallId,
    ClosePeer,
    FrameReceived,
    Harmless,
    PeerLeft,
    Persist,
    Refused,
    Reload,
    Resume,
    RightsChanged,
    StoreChanged,
    TrialId,
    Tried,
    Try,
    UpdateBrought,
)
from crdt_sessions.testing import SimNetwork
from crdt_sessions.wire import Ack, PermissionDenied, SyncStep2, Update
from tests.sync.test_engine import Bench, letters

A, B, C = PeerId(1), PeerId(2), PeerId(3)
FULL = StoreUnavailable("the disk is full")


@pytest.fixture
def bench():
    bench = Bench()
    bench.join(A, B)
    return bench


def writing(key="k", value=1, client=60):
    """An update whose shape says nothing."""
    document = SessionDoc(client)
    _, update = document.edit(lambda doc: doc.roots.state.__setitem__(key, value))
    document.close()
    return update


def handle(bench, event):
    """Let the engine take an event; what is to be tried is not."""
    return bench.engine.handle(event, bench.now)


def send(bench, peer, *frames):
    return handle(bench, FrameReceived(peer, list(frames)))


def tried(bench, trial, verdict=TRUSTED):
    return handle(bench, Tried(trial, verdict))


def state(bench):
    return bench.engine.document.roots.state.to_py()


def draft(bench):
    return str(bench.engine.document.doc.get("draft", type=Text))


def of(kind, effects):
    return [effect for effect in effects if isinstance(effect, kind)]


@pytest.mark.parametrize("frame", [Update, SyncStep2])
def test_an_unknown_update_does_not_reach_the_document_without_a_verdict(bench, frame):
    before = bench.engine.document.encode()
    assert send(bench, A, frame(writing())) == [Try(TrialId(1), writing(), apply=True)]
    handle(bench, UpdateBrought(CallId(1), writing("other"), foreign=True))
    for _ in range(60):
        bench.pass_time(1)
    assert bench.engine.document.encode() == before
    assert bench.engine.log.head == bench.engine.log.tail


@pytest.mark.parametrize(
    "verdict",
    [
        Refused(MalformedUpdate(size=1)),
        Refused(PanickedUpdate(size=1)),
        Refused(WrongLineage(session="room", theirs="x", ours="y")),
        Refused(Overloaded(what="trials")),
    ],
)
def test_a_refused_update_changes_nothing_and_closes_its_peer(bench, verdict):
    before = bench.engine.document.encode()
    send(bench, A, Update(writing()))
    effects = tried(bench, 1, verdict)
    assert [effect.peer for effect in of(ClosePeer, effects)] == [A]
    assert of(Persist, effects) == of(Reload, effects) == []
    assert bench.engine.document.encode() == before


def test_a_harmful_update_is_not_tried_again(bench):
    send(bench, A, Update(writing()))
    tried(bench, 1, Refused(PanickedUpdate(size=1)))
    effects = send(bench, B, Update(writing()))
    assert of(Try, effects) == []
    assert [type(effect.error) for effect in of(ClosePeer, effects)] == [MalformedUpdate]


def test_the_rewritten_update_is_applied_and_stored(bench):
    clean = writing(value=2)
    send(bench, A, Update(writing()))
    effects = tried(bench, 1, Harmless(clean, held=False, authors=()))
    assert [effect.update for effect in of(Persist, effects)] == [clean]
    assert state(bench) == {"k": 2}


def test_tokens_pass_at_once(bench):
    first, second = letters("ab", 50)
    send(bench, A, Update(first))
    tried(bench, 1)
    effects = send(bench, A, Update(second), Ack(b"x"))
    assert (of(Try, effects), len(of(Persist, effects)), draft(bench)) == ([], 1, "ab")


def test_messages_during_a_trial_wait_in_order(bench):
    """Also what would pass by its shape: what the mirror and the document see must be the same."""
    first, second = letters("ab", 50)
    bench.send(A, Update(first))
    (trial,) = of(Try, send(bench, A, Update(writing())))
    assert send(bench, B, Update(second), Ack(b"b")) == send(bench, A, Ack(b"a")) == []
    assert set(bench.engine.admission.held) == {A, B}
    assert draft(bench) == "a"
    effects = tried(bench, trial.trial)
    assert [len(effect.update) for effect in of(Persist, effects)] == [len(writing()), len(second)]
    assert [effect.peer for effect in of(Resume, effects)] == [B, A]
    assert bench.engine.admission.held == {}


def test_of_one_message_what_follows_is_looked_at_after_what_came_before(bench):
    first, second = letters("ab", 50)
    (trial,) = of(Try, send(bench, A, Update(first), Update(second), Update(writing()), Ack(b"x")))
    assert trial.update == first
    (trial,) = of(Try, tried(bench, trial.trial))
    assert (trial.update, draft(bench)) == (writing(), "ab"), "the second letter passed"
    assert [effect.peer for effect in of(Resume, tried(bench, trial.trial))] == [A]


def test_a_verdict_on_another_trial_changes_nothing(bench):
    (trial,) = of(Try, send(bench, A, Update(writing())))
    assert tried(bench, trial.trial + 1) == []
    assert state(bench) == {}
    tried(bench, trial.trial)
    assert tried(bench, trial.trial, Harmless(writing("again"), held=False, authors=())) == []
    assert state(bench) == {"k": 1}


def test_a_peer_that_leaves_during_a_trial_is_not_waited_for(bench):
    (trial,) = of(Try, send(bench, A, Update(writing())))
    send(bench, A, Ack(b"x"))
    send(bench, B, Update(writing("b", client=61)))
    handle(bench, PeerLeft(A))
    (after,) = of(Try, tried(bench, trial.trial))
    assert (after.update, state(bench)) == (writing("b", client=61), {})
    tried(bench, after.trial)
    assert state(bench) == {"b": 1}


def test_rights_count_as_of_the_verdict(bench):
    (trial,) = of(Try, send(bench, A, Update(writing())))
    handle(bench, RightsChanged(A, READ_ONLY))
    bench.do(tried(bench, trial.trial, Harmless(writing(), held=False, authors=())))
    assert any(isinstance(frame, PermissionDenied) for frame in bench.take(A))
    assert state(bench) == {}


def test_a_compared_update_is_tried_again_once_it_may_be_taken(bench):
    handle(bench, RightsChanged(A, READ_ONLY))
    (trial,) = of(Try, send(bench, A, Update(writing()), Ack(b"x")))
    assert not trial.apply
    handle(bench, RightsChanged(A, ALL))
    (again,) = of(Try, tried(bench, trial.trial, Harmless(None, held=False, authors=())))
    assert again.apply
    bench.do(tried(bench, again.trial, Harmless(writing(), held=False, authors=())))
    assert state(bench) == {"k": 1}
    assert Ack(b"x") in bench.take(A)


def test_waiting_messages_of_a_connection_are_bounded():
    bench = Bench(limits=Limits(max_frame_bytes=10_000))
    bench.join(A, B)
    send(bench, A, Update(writing()))
    for _ in range(100):
        closed = of(ClosePeer, send(bench, B, Update(b"\x00" * 1000)))
        if closed:
            break
    assert [type(effect.error) for effect in closed] == [TooMany]
    assert B not in bench.engine.admission.held
    assert len(bench.engine.admission.queue) == 0


# -- by another way -----------------------------------------------------------------------------------------------


def test_who_brings_an_update_by_another_way_waits_for_its_turn_and_is_answered(bench):
    (trial,) = of(Try, send(bench, A, Update(writing())))
    assert handle(bench, UpdateBrought(CallId(7), writing("b", client=61), foreign=True)) == []
    assert handle(bench, UpdateBrought(CallId(8), writing(), compare=True)) == []
    (trial,) = of(Try, tried(bench, trial.trial))
    assert (trial.update, trial.apply, trial.foreign) == (writing("b", client=61), True, True)
    effects = tried(bench, trial.trial)
    assert of(Answered, effects) == [Answered(CallId(7))]
    (trial,) = of(Try, effects)
    assert not trial.apply
    assert tried(bench, trial.trial) == [Answered(CallId(8), held=True)]


def test_what_is_refused_by_another_way_says_why(bench):
    handle(bench, UpdateBrought(CallId(1), writing()))
    error = MalformedUpdate(size=3)
    assert tried(bench, 1, Refused(error)) == [Answered(CallId(1), error)]
    gap = letters("ab", 70)[1]
    handle(bench, UpdateBrought(CallId(2), gap))
    (answer,) = of(Answered, tried(bench, 2))
    assert isinstance(answer.error, EarlyUpdate)


# -- while nothing can be stored ----------------------------------------------------------------------------------


def test_news_waits_for_the_store_and_everything_of_its_connection_behind_it(bench):
    first, second = letters("ab", 50)
    bench.send(A, Update(first))
    handle(bench, StoreChanged(FULL))
    assert of(Persist, send(bench, A, Update(second))) == []
    send(bench, A, Ack(b"a"))
    (trial,) = of(Try, send(bench, B, Update(first), Ack(b"b")))
    assert not trial.apply
    tried(bench, trial.trial, Harmless(None, held=True, authors=()))
    assert (draft(bench), set(bench.engine.admission.held)) == ("a", {A}), "an echo is no news"
    effects = handle(bench, StoreChanged(None))
    assert (draft(bench), len(of(Persist, effects)), of(Resume, effects)[-1]) == ("ab", 1, Resume(A))


@pytest.mark.parametrize("plain", [True, False])
def test_a_peer_that_waits_too_long_for_the_store_is_closed(plain):
    bench = Bench(timing=Timing(storage_patience_s=5))
    bench.join(A)
    update = writing()
    if plain:
        first, update = letters("ab", 50)
        bench.send(A, Update(first))
    handle(bench, StoreChanged(FULL))
    for trial in of(Try, send(bench, A, Update(update))):
        assert not trial.apply
        tried(bench, trial.trial, Harmless(None, held=False, authors=()))
    assert of(ClosePeer, bench.pass_time(4)) == []
    assert [effect.error for effect in of(ClosePeer, bench.pass_time(2))] == [FULL]


def test_an_update_on_trial_when_the_store_fails_is_not_taken(bench):
    (trial,) = of(Try, send(bench, A, Update(writing())))
    handle(bench, StoreChanged(FULL))
    (closed,) = of(ClosePeer, tried(bench, trial.trial, Harmless(writing(), held=False, authors=())))
    assert (closed.error, state(bench)) == (FULL, {})


# -- on the simulated network -------------------------------------------------------------------------------------


@pytest.fixture
def network():
    network = SimNetwork(sandbox=True)
    for name in ("ann", "bob"):
        network.add(name)
        network.connect(name)
    network.run_until_quiet()
    yield network
    network.close()


def test_what_the_server_writes_during_a_trial_is_there_afterwards(network):
    network.edit("ann", lambda view: view.set_title("ann's"))
    while network.sandbox.trial is None:
        network.deliver("ann", up=True)
    _, effects = network.engine.edit(lambda view: view.state.__setitem__("made", 1), network.now)
    network._perform(network.engine, effects)
    network.edit("bob", lambda view: view.state.__setitem__("bob", 2))
    assert network.engine.view.meta.title is None
    network.run_until_quiet()
    assert network.engine.view.meta.title == "ann's"
    assert network.engine.view.state.to_py() == {"made": 1, "bob": 2}


def test_a_crash_during_a_trial_loses_nothing(network):
    network.edit("ann", lambda view: view.set_title("ann's"))
    while network.sandbox.trial is None:
        network.deliver("ann", up=True)
    network.crash()
    assert network.engine.view.meta.title is None
    network.connect("ann")
    network.run_until_quiet()
    assert network.engine.view.meta.title == "ann's"


def test_a_trial_is_not_ended_by_passing_time(network):
    network.edit("ann", lambda view: view.set_title("ann's"))
    while network.sandbox.trial is None:
        network.deliver("ann", up=True)
    network.pass_time(60)
    network.drop("bob")
    assert network.sandbox.trial is not None
    network.run_until_quiet()
    assert network.engine.view.meta.title == "ann's"
