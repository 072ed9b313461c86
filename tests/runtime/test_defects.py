"""Defects of ours: whatever raises, wherever, costs a reload of the session, never the session or anybody in it."""

import asyncio
import contextlib
import logging
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crdt_sessions.errors import CrdtSessionsError, LeaseLost, NotFound, SessionClosed, SessionFailed, WireError
from crdt_sessions.ids import PeerId, session_id
from crdt_sessions.limits import RunRules
from crdt_sessions.model import Author, MessageHead, RunCancel, RunRequest, SessionDoc, SessionView, TextPart
from crdt_sessions.model.messages import Messages
from crdt_sessions.model.runs import Runs
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.runtime.claimants import Claimant
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import RunSteward, SessionEngine, Steward
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.rules import FieldRules
from crdt_sessions.sync.runs.endings import Endings
from crdt_sessions.sync.runs.leases import Leases
from crdt_sessions.sync.runs.questions import Questions
from crdt_sessions.sync.runs.table import RunTable
from crdt_sessions.sync.runs.turns import Turns
from crdt_sessions.testing import FakeClock, settle
from crdt_sessions.wire.closing import is_permanent
from tests.processes import PATIENCE

from .conftest import ROOM, Peer, until

DOORS = ("start", "handle", "edit", "decide", "set_status", "forget_presence", "take", "rests_until")
INSIDE = {
    Steward: ("start", "decide", "take", "record_meta"),
    RunSteward: ("start", "tick", "look_at_run", "look_at_message", "answer"),
    Endings: ("end", "requeue"),
    RunTable: ("take", "put"),
    Turns: ("queue",),
    Leases: ("look", "lend", "release"),
    Questions: ("hear",),
    FieldRules: ("start", "check", "_check_run", "_check_questions"),
    Messages: ("find", "value", "ids"),
    Runs: ("value", "read", "settle", "ids"),
    Roster: ("hear", "leave", "tick", "frame_since", "forget"),
}
ERRORS = (
    lambda: RuntimeError("my database password is 1234"),
    lambda: NotFound(what="message", id="m"),
    lambda: LeaseLost(run="r"),
    lambda: SessionClosed(session="room"),
    lambda: WireError("a defect"),
)


class Faults:
    """Makes what the engine calls raise at random, before or after it did something."""

    def __init__(self, monkeypatch):
        self.chance, self._random, self._inside, self.raised = 0.0, random.Random(), 0, 0
        for name in DOORS:
            monkeypatch.setattr(SessionEngine, name, self._door(getattr(SessionEngine, name)))
        for owner, names in INSIDE.items():
            for name in names:
                monkeypatch.setattr(owner, name, self._frail(getattr(owner, name)))

    def begin(self, seed, chance):
        self._random, self.chance = random.Random(seed), chance

    def _door(self, method):
        def inside(*arguments, **named):
            self._inside += 1
            try:
                return method(*arguments, **named)
            finally:
                self._inside -= 1

        return inside

    def _frail(self, method):
        def frail(*arguments, **named):
            self._maybe()
            result = method(*arguments, **named)
            self._maybe()
            return result

        return frail

    def _maybe(self):
        if self._inside and self._random.random() < self.chance:
            self.raised += 1
            raise self._random.choice(ERRORS)()


def post(id, at=1, **more):
    head = MessageHead(id=id, role="user", author=Author(id="ann"), created_at=at, **more)
    return lambda view: view.messages.add(head, [TextPart(type="text", text="?")])


def asked(run_id, message_id):
    return lambda view: view.runs.request(run_id, RunRequest(message_id=message_id, agent="writer", created_at=1))


def update(change):
    document = SessionDoc(random.randrange(1, 2**32))
    document.transact(lambda _: change(SessionView(document)))
    whole = document.encode()
    document.close()
    return whole


def placed(peer):
    """Whether its ordinary message has got its place, and everything it did is durable."""
    return (
        peer.replica.view.messages.value("ordinary").seq is not None and peer.replica.durable == peer.replica.version
    )


class Room:
    """Everything that can be done with a session, by whoever may be refused for a moment, but not for good."""

    def __init__(self, registry, clock):
        self.registry, self.clock, self.count, self.peers = registry, clock, 0, []
        self.refusals = []

    async def do(self, action):
        self.count += 1
        with contextlib.suppress(CrdtSessionsError):
            await getattr(self, action)(f"{action}-{self.count}")
        await settle()

    async def join(self, _):
        peer = Peer(self.registry, access=None)
        await peer.__aenter__()
        self.peers.append(peer)

    async def leave(self, _):
        if self.peers:
            await self._left(self.peers.pop(0))

    async def _left(self, peer):
        async with asyncio.timeout(PATIENCE):
            await peer.__aexit__(None, None, None)
        self.refusals.append(peer.closing.code)

    async def frame(self, id):
        if self.peers:
            await self.peers[0].edit(post(id))
            await self.peers[-1].edit(asked(f"run-of-{id}", id))

    async def presence(self, id):
        if self.peers:
            self.peers[0].replica.set_presence({"name": id})
            await self.peers[0].pump()

    async def edit(self, id):
        async with self.registry.open(ROOM) as session:
            with contextlib.suppress(RuntimeError):  # what a caller's own change raises is the caller's
                await session.edit(post(id))

    async def fail_to_edit(self, id):
        def change(view):
            post(id)(view)
            raise KeyError(id)

        async with self.registry.open(ROOM) as session:
            with contextlib.suppress(KeyError, RuntimeError):
                await session.edit(change)

    async def apply(self, id):
        async with self.registry.open(ROOM) as session:
            await session.apply(update(lambda view: (post(id)(view), asked(f"run-of-{id}", id)(view))))

    async def claim(self, _):
        async with self.registry.open(ROOM) as session:
            for run_id in session.view.runs.ids():
                if session.engine.runs.table.is_ready(run_id):
                    session.assign(run_id, Claimant(("writer",), "bob", 1.0, None, None))
                    await session.durable()
                    return

    async def cancel(self, id):
        async with self.registry.open(ROOM) as session:
            if runs := session.view.runs.ids():
                await session.edit(lambda view: view.runs.cancel(runs[0], RunCancel(by="ann", at=1)))

    async def status(self, _):
        async with self.registry.open(ROOM) as session:
            await session.set_status("active")

    async def forget(self, _):
        async with self.registry.open(ROOM) as session:
            session.presence.forget("ann")

    async def read(self, _):
        async with self.registry.open(ROOM) as session:
            await session.readable()

    async def hold(self, _):
        async with self.registry.open(ROOM) as session:
            session.held("run", "token")

    async def tick(self, _):
        await self.clock.advance(2)

    async def rest(self, _):
        await self.clock.advance(70)


ACTIONS = [name for name in vars(Room) if not name.startswith("_") and name != "do"]


@settings(max_examples=settings().max_examples // 2)
@example(seed=33726, chance=0.01, actions=["join", "join", "join", "leave", "presence"])  # presence is heard
@given(
    seed=st.integers(0, 2**32),
    chance=st.sampled_from([0.002, 0.01, 0.05, 0.3]),
    actions=st.lists(st.sampled_from(ACTIONS), min_size=5, max_size=30),
)
def test_whatever_raises_afterwards_a_message_gets_its_place_and_the_service_stops(seed, chance, actions):
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("session", "registry"):  # each defect is a traceback
            monkeypatch.setattr(logging.getLogger(f"crdt_sessions.{name}"), "disabled", True)
        asyncio.run(_endure(Faults(monkeypatch), seed, chance, actions))


async def _endure(faults, seed, chance, actions):
    clock = FakeClock()
    rules = RunRules(default_agent="writer", lease_s=1)
    async with asyncio.timeout(PATIENCE), SessionRegistry(MemoryStore(), clock=clock, rules=rules) as registry:
        await registry.create(ROOM)
        room = Room(registry, clock)
        faults.begin(seed, chance)
        for action in actions:
            async with asyncio.timeout(PATIENCE):  # nobody hangs
                await room.do(action)
        faults.begin(seed, 0)
        await clock.advance(120)  # a session that failed again and again rests for half a minute
        async with Peer(registry) as peer:
            await peer.edit(post("ordinary", at=10**9))
            await until(lambda: placed(peer))
        assert not is_permanent(peer.closing.code)
        for peer in room.peers:
            await room._left(peer)
        assert not [code for code in room.refusals if is_permanent(code)]


def broken_at(monkeypatch, owner, name, when, error=lambda: RuntimeError("my database password is 1234")):
    """Let a method raise whenever *when* holds for its arguments."""
    method = getattr(owner, name)

    def frail(self, *arguments, **named):
        if when(*arguments):
            raise error()
        return method(self, *arguments, **named)

    monkeypatch.setattr(owner, name, frail)


async def test_a_defect_is_told_as_a_reference_and_its_text_is_the_operators(registry, monkeypatch, caplog):
    broken_at(monkeypatch, RunSteward, "look_at_message", lambda message_id, *_: message_id == "poison")
    async with registry.open(ROOM, create=True) as session:
        async with Peer(registry) as peer:
            with pytest.raises(SessionFailed) as failure:
                await session.edit(post("poison"))
            await settle()
        assert (peer.closing.code, peer.closing.reason) == (1011, str(failure.value))
        assert "password" not in str(failure.value)
        assert failure.value.reference in str(failure.value)
    (record,) = [each for each in caplog.records if getattr(each, "reference", "") == failure.value.reference]
    assert "my database password" in str(record.exc_info[1].__cause__)


@pytest.mark.parametrize("error", ERRORS)
async def test_a_defect_while_presence_is_heard_is_no_refusal(registry, monkeypatch, error):
    broken_at(monkeypatch, Roster, "hear", lambda *_: True, error)
    async with Peer(registry) as peer:
        peer.replica.set_presence({"name": "ann"})
        await peer.pump()
        await settle()
    assert peer.closing.code == 1011


@pytest.mark.parametrize(
    ("owner", "method", "at"),
    [
        (RunSteward, "answer", lambda head, *_: head.id == "poison"),
        (RunSteward, "look_at_message", lambda message_id, *_: message_id == "poison"),
        (RunSteward, "look_at_run", lambda run, *_: run.id == "poison"),
        (FieldRules, "_check_run", lambda run_id, *_: run_id == "poison"),
        (Runs, "settle", lambda run, *_: run.id == "poison"),
    ],
)
async def test_what_the_steward_cannot_decide_about_is_left_alone_from_the_second_time_on(
    registry, monkeypatch, owner, method, at
):
    broken_at(monkeypatch, owner, method, at)
    async with Peer(registry) as guilty, Peer(registry) as other:
        await guilty.edit(lambda view: (post("poison")(view), asked("poison", "poison")(view)))
    assert other.closing.code in (1000, 1011)
    async with registry.open(ROOM) as session:
        with contextlib.suppress(SessionFailed):  # the same bytes come again, as from every stock client
            await session.apply(guilty.replica.document.encode())
    async with Peer(registry) as other:
        async with registry.open(ROOM) as session:
            await session.apply(guilty.replica.document.encode())
        await other.edit(post("ordinary"))
        await until(lambda: placed(other))
        assert other.replica.view.messages.value("poison") is not None
    assert other.closing.code == 1000


async def test_a_run_that_cannot_be_decided_about_does_not_hold_the_queue(store, clock, monkeypatch):
    async with SessionRegistry(store, clock=clock) as registry:
        async with registry.open(ROOM, create=True) as session:
            await session.edit(lambda view: (post("m")(view), asked("poison", "m")(view)))
            await session.edit(lambda view: (post("n")(view), asked("next", "n")(view)))
            assert not session.engine.runs.table.is_ready("next")
    broken_at(monkeypatch, RunSteward, "look_at_run", lambda run, *_: run.id == "poison")
    async with SessionRegistry(store, clock=clock) as registry, registry.open(ROOM) as session:
        await session.durable()
        assert session.engine.runs.table.is_ready("next")
        run = session.view.runs.value("poison")
        assert (run.status, run.outcome.reason) == ("interrupted", "the service cannot decide about this run")


async def test_a_session_that_fails_for_no_known_reason_rests_and_the_others_go_on(registry, clock, monkeypatch):
    async with registry.open(ROOM, create=True) as session:
        await session.edit(post("m"))
    await clock.advance(70)
    assert registry.live == []
    with monkeypatch.context() as broken:
        starts = []
        broken_at(broken, SessionEngine, "start", lambda *_: starts.append(1) or True, lambda: SystemError("no idea"))
        for _ in range(10):
            with pytest.raises(SessionFailed):
                async with registry.open(ROOM):
                    pass
        assert len(starts) <= 2
    assert ROOM in registry.quarantined
    async with Peer(registry, session=session_id("another")) as other:
        await other.edit(post("ordinary"))
        await until(lambda: placed(other))
    await clock.advance(40)
    async with registry.open(ROOM) as session:
        assert session.view.messages.value("m").seq == 1


async def test_a_peer_that_cannot_be_written_to_leaves_alone(registry, monkeypatch):
    async with Peer(registry) as other:
        seen: list[PeerId] = []
        take = SessionEngine.take
        monkeypatch.setattr(
            SessionEngine, "take", lambda engine, who, now: seen.append(who) or take(engine, who, now)
        )
        async with Peer(registry) as peer:
            guilty = max(seen)
            broken_at(monkeypatch, SessionEngine, "take", lambda peer_id, *_: peer_id == guilty)
            await other.edit(post("m"))
            await settle()
        assert peer.closing.code == 1011
        await other.edit(post("ordinary"))
        await until(lambda: placed(other))
    assert other.closing.code == 1000


@pytest.mark.parametrize(
    "look",
    [
        lambda session: session.view,
        lambda session: session.document,
        lambda session: session.edit(lambda view: view.messages.ids()),
    ],
)
async def test_a_document_that_lacks_what_was_known_to_apply_is_loaded_anew_with_all_that_is_stored(look):
    """Decision 0058: a check that is wrong costs a reload."""
    async with SessionRegistry(MemoryStore(), clock=FakeClock()) as registry:
        async with Peer(registry) as peer, registry.open(ROOM) as session:
            await peer.edit(lambda view: view.set_title("kept"))
            await settle(50)
            session.engine.document.defer(7, 9, b"\x01\x01\x07\x08\x84\x07\x07\x01a\x00", 7)
            with pytest.raises(SessionFailed):
                await look(session)
        assert peer.closing.code == 1011
        async with registry.open(ROOM) as session:
            assert session.view.meta.title == "kept"
