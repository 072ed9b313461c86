"""A simulated network: one server, named peers, messages held until somebody delivers them.

Everything is synchronous and nothing sleeps: a schedule is a list of calls, chosen by a test or by
Hypothesis. The server is the real :class:`SessionEngine` over a simulated disk that can crash between an
append and its commit; the peers are real :class:`Replica` objects. A simulated sandbox says what becomes of updates,
whenever somebody lets it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pycrdt import Text

from crdt_sessions.errors import CrdtSessionsError, StoreUnavailable
from crdt_sessions.ids import Millis, PeerId, Seq, SessionId
from crdt_sessions.limits import Limits, RunRules, Timing
from crdt_sessions.model import ROOT_NAMES, SessionDoc, SessionView, extent_of, fold, seed, settled_meta
from crdt_sessions.sync import (
    ALL,
    Actor,
    Answered,
    Asleep,
    CallId,
    ClosePeer,
    Committed,
    Effect,
    Event,
    PeerJoined,
    PeerLeft,
    Persist,
    Ready,
    Records,
    Replica,
    Rights,
    RunSteward,
    SessionEngine,
    StoreChanged,
    Tick,
    Try,
    Unreadable,
    UpdateBrought,
    Violation,
    received,
)
from crdt_sessions.testing.sandbox import SimSandbox
from crdt_sessions.wire import YWebSocket

Result = TypeVar("Result")

_SESSION = SessionId("simulated")
_SYNC_UPDATES = (b"\x00\x01", b"\x00\x02")


@dataclass
class SimPeer:
    """A named peer: its replica and what is in flight in both directions."""

    replica: Replica
    connection: PeerId | None = None
    uplink: deque[bytes] = field(default_factory=deque)
    downlink: deque[bytes] = field(default_factory=deque)
    closed_by: CrdtSessionsError | None = None
    """Why the server closed this peer, if it did."""


class SimNetwork:
    """One session, its server and its peers.

    Args:
        limits: of the server and the peers.
        timing: of the server.
        rules: of the server, for runs.
        engine_class: the engine under test; tests pass a broken one to see that they notice.
        sandbox: whether updates are tried before they are taken, by :meth:`answer`; else they are trusted.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        timing: Timing | None = None,
        rules: RunRules | None = None,
        engine_class: type[SessionEngine] = SessionEngine,
        sandbox: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.rules = rules or RunRules()
        self.now = Millis(1_700_000_000_000)
        self.peers: dict[str, SimPeer] = {}
        self.restarts = 0
        self._engine_class = engine_class
        self._codec = YWebSocket(self.limits.max_frame_bytes)
        self._ids = 0
        self._created = self.now
        self.rows: list[tuple[Seq, bytes]] = [
            (Seq(1), seed(_SESSION, generation=1, created_at=self.now, client_id=1))
        ]
        """What is on the simulated disk."""
        self.records = Records()
        """What is on record there; notices are only collected."""
        self.violations: list[tuple[str, str]] = []
        """Who broke which rule."""
        self.unreadable: list[Unreadable] = []
        """What was told not to be of layout 1."""
        self.unwritten: list[Persist] = []
        """What was handed to the disk and is not committed."""
        self.sandbox = SimSandbox()
        """What updates are tried in, and what was."""
        self.answers: dict[CallId, Answered] = {}
        """What became of what was brought by another way than a peer's."""
        self._tries = sandbox
        self._fails = False
        self._disk: SessionDoc | None = None
        self._asleep: Asleep | None = None
        self._came: list[Event] = []
        self._awake: SessionEngine | None = None
        self._load()

    @property
    def engine(self) -> SessionEngine:
        """The engine; a session that sleeps wakes up for whoever asks for it."""
        if self._awake is None:
            self._wake()
        assert self._awake is not None
        return self._awake

    def close(self) -> None:
        """Release every document; without this none of them is ever freed."""
        for document in self.documents().values():
            document.close()

    # -- peers -------------------------------------------------------------------------------------------------

    def add(self, name: str, client_id: int | None = None) -> SimPeer:
        """Add a peer, not connected yet; without a client id of its own it has a smaller one than the server."""
        self._ids += 1
        self.peers[name] = SimPeer(Replica(client_id or 1000 + self._ids, limits=self.limits))
        return self.peers[name]

    def connect(self, name: str, *, rights: Rights = ALL, lease: str | None = None) -> None:
        """Connect a peer, with a lease's token if it holds one; nothing happens if it is connected."""
        peer = self.peers[name]
        if peer.connection is not None:
            return
        self._ids += 1
        peer.connection, peer.closed_by = PeerId(self._ids), None
        peer.replica.open(self.now)
        self._handle(PeerJoined(peer.connection, name, rights, lease))
        if peer.connection is None:
            return
        self._pump(peer)

    def take_over(self, name: str, token: str) -> None:
        """Let a connected peer, of which all is durable, go on as another client that holds a lease."""
        peer = self.peers[name]
        self._ids += 1
        peer.replica = peer.replica.successor(1000 + self._ids)
        peer.replica.hold(token)
        self._pump(peer)

    def drop(self, name: str, *, abrupt: bool = True) -> None:
        """Cut a peer's connection; what is in flight is lost."""
        peer = self.peers[name]
        if peer.connection is None:
            return
        connection, peer.connection = peer.connection, None
        peer.uplink.clear()
        peer.downlink.clear()
        peer.replica.lost(self.now)
        self._handle(PeerLeft(connection, abrupt))

    def edit(self, name: str, change: Callable[[SessionView], Result]) -> Result:
        """Let a peer change its replica."""
        return self.act(name, lambda replica: replica.edit(change))

    def act(self, name: str, action: Callable[[Replica], Result]) -> Result:
        """Let a peer do something with its replica."""
        peer = self.peers[name]
        result = action(peer.replica)
        self._pump(peer)
        return result

    def deliver(self, name: str, *, up: bool) -> bool:
        """Deliver the oldest message in flight from (*up*) or to a peer; tell whether there was one."""
        peer = self.peers[name]
        queue = peer.uplink if up else peer.downlink
        if not queue or peer.connection is None or (up and self._holds(peer.connection)):
            return False
        data = queue.popleft()
        if up:
            self._handle(received(peer.connection, data, self._codec))
        else:
            peer.replica.receive(data, self.now)
        self._pump(peer)
        return True

    def duplicate(self, name: str, *, up: bool) -> None:
        """Put a copy of the newest update in flight behind it."""
        queue = self.peers[name].uplink if up else self.peers[name].downlink
        if queue and queue[-1].startswith(_SYNC_UPDATES):
            queue.append(queue[-1])

    def reorder(self, name: str, *, up: bool) -> None:
        """Let the oldest update in flight be overtaken by all updates right behind it."""
        queue = self.peers[name].uplink if up else self.peers[name].downlink
        run = 0
        while run < len(queue) and queue[run].startswith(_SYNC_UPDATES):
            run += 1
        if run > 1:
            queue.insert(run - 1, queue.popleft())

    # -- the server ----------------------------------------------------------------------------------------------

    def answer(self) -> bool:
        """Let the sandbox say what became of what it was given; tell whether there was something."""
        tried = self.sandbox.end()
        if tried is not None:
            self._handle(tried)
        return tried is not None

    def bring(self, update: bytes, actor: Actor | None = None) -> CallId:
        """Bring an update by another way than a peer's; :attr:`answers` says what became of it."""
        self._ids += 1
        self._handle(UpdateBrought(CallId(self._ids), update, actor))
        return CallId(self._ids)

    def fail_store(self, *, fails: bool) -> None:
        """Let the disk take no writes, or take them again."""
        self._fails = fails
        self._handle(StoreChanged(StoreUnavailable("the disk is full") if fails else None))

    def commit(self) -> None:
        """Let the disk commit everything handed to it."""
        if self.unwritten and not self._fails:
            written, self.unwritten = self.unwritten, []
            self.rows += [(effect.seq, effect.update) for effect in written]
            for effect in written:
                if effect.records is not None:
                    self.records.runs.update(effect.records.runs)
                    self.records.writers.update(effect.records.writers)
                    self.records.notices += effect.records.notices
            self._handle(Committed(written[-1].seq))

    def sleep(self) -> bool:
        """Let the session sleep, if it may; tell whether it does. What it needs to be awake for wakes it up."""
        if self._awake is None:
            return True
        if self.unwritten or self.sandbox.trial is not None or not self._awake.may_sleep(self.now):
            return False
        self._asleep = self._awake.sleep()
        self._awake.document.close()
        self._awake = None
        return True

    @property
    def asleep(self) -> bool:
        """Whether the session sleeps."""
        return self._awake is None

    def wake(self) -> None:
        """Wake the session up, for what came while it slept."""
        if self._awake is None:
            self._wake()

    def decide(self, decision: Callable[[RunSteward], Result]) -> Result:
        """Let the server decide something about runs, such as a claim."""
        result, effects = self.engine.decide(decision)
        self._perform(self.engine, effects)
        return result

    def crash(self) -> None:
        """Kill the server: memory and whatever is not committed are gone. It starts again from its rows."""
        self.unwritten = []
        self.sandbox.trial, self._fails = None, False
        for name in self.peers:
            self._cut(name)
        if self._awake is not None:
            self._awake.document.close()
        self._asleep, self._came = None, []
        self.restarts += 1
        self._load()

    def compact(self) -> None:
        """Fold the rows on disk into a snapshot."""
        self.rows = [(self.rows[-1][0], fold(update for _, update in self.rows).update)]

    def pass_time(self, seconds: float) -> None:
        """Advance the clock and let everybody look at it."""
        self.now = Millis(self.now + int(seconds * 1000))
        if self._awake is None and any(
            (each.due_at or self.now + 1) <= self.now for each in self.records.runs.values()
        ):
            self._wake()
        self._handle(Tick())
        for peer in self.peers.values():
            self._pump(peer)

    def run_until_quiet(self) -> None:
        """Commit, deliver and try until nothing is in flight."""
        moved = True
        while moved:
            if self._came:
                self.wake()
            while self.answer():
                pass
            self.commit()
            for peer in self.peers.values():
                self._pump(peer)
            moved = bool(self.unwritten) or self.sandbox.trial is not None
            for name in self.peers:
                for up in (True, False):
                    while self.deliver(name, up=up):
                        moved = True

    # -- what to compare -----------------------------------------------------------------------------------------

    def documents(self) -> dict[str, SessionDoc]:
        """Return every replica by name, the server's as ``server``, and ``disk`` rebuilt from the rows.

        The one that ``disk`` was before is closed.
        """
        if self._disk is not None:
            self._disk.close()
        disk = self._disk = SessionDoc(2)
        for _, update in self.rows:
            disk.apply(update)
        return {
            **{name: peer.replica.document for name, peer in self.peers.items()},
            "server": self.engine.document,
            "disk": disk,
        }

    # -- inside --------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        document = SessionDoc(1_000_000 + self.restarts)
        for _, update in self.rows:
            document.apply(update)
        engine = self._engine_class(
            _SESSION,
            document,
            after=self.rows[-1][0],
            settled_meta=settled_meta(_SESSION, 1, self._created, "active"),
            runs=self.records.runs.values(),
            writers=self.records.writers.values(),
            limits=self.limits,
            timing=self.timing,
            rules=self.rules,
            asleep=self._asleep,
        )
        self._awake, self._asleep = engine, None
        self._perform(engine, engine.start(self.now))

    def _wake(self) -> None:
        self.restarts += 1
        self._load()
        came, self._came = self._came, []
        for event in came:
            self._handle(event)

    @property
    def _server(self) -> SessionEngine | Asleep:
        server = self._awake or self._asleep
        assert server is not None
        return server

    def _holds(self, connection: PeerId) -> bool:
        return bool(self._came) if self._awake is None else connection in self._awake.admission.held

    def _handle(self, event: Event) -> None:
        server = self._server
        effects = server.handle(event, self.now) if not self._came else None  # in order
        if effects is None:
            self._came.append(event)
        else:
            self._perform(server, effects)

    def _perform(self, engine: SessionEngine | Asleep, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.unwritten.append(effect)
            elif isinstance(effect, ClosePeer):
                self._close(effect)
            elif isinstance(effect, Try):
                assert isinstance(engine, SessionEngine)
                self._try(engine, effect)
            else:
                self._note(effect)
        if any(isinstance(effect, Ready) for effect in effects):
            for peer in self.peers.values():
                if peer.connection is not None:
                    peer.downlink.extend(self._codec.write(engine.take(peer.connection, self.now)))

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, Violation):
            self.violations.append((effect.principal, effect.what))
        elif isinstance(effect, Unreadable):
            self.unreadable.append(effect)
        elif isinstance(effect, Answered):
            self.answers[effect.call] = effect

    def _try(self, engine: SessionEngine, trial: Try) -> None:
        if self._tries:
            self.sandbox.begin(engine.document, trial)
        else:
            self._perform(engine, engine.handle(self.sandbox.trusted(trial), self.now))

    def _close(self, effect: ClosePeer) -> None:
        for name, peer in self.peers.items():
            if peer.connection == effect.peer:
                peer.closed_by = effect.error
                self._cut(name)
                self._server.handle(PeerLeft(effect.peer), self.now)

    def _cut(self, name: str) -> None:
        peer = self.peers[name]
        if peer.connection is not None:
            peer.connection = None
            peer.uplink.clear()
            peer.downlink.clear()
            peer.replica.lost(self.now)

    def _pump(self, peer: SimPeer) -> None:
        if peer.connection is not None:
            peer.uplink.extend(peer.replica.take(self.now))


def content(document: SessionDoc) -> dict[str, Any]:
    """Return what is equal on replicas that agree: state vector, delete set and JSON of layout 1's roots.

    The free root text ``draft`` is part of it.
    """
    version = extent_of(document.doc)
    return {
        "deleted": version.deleted,
        "clocks": version.clocks,
        "json": {name: getattr(document.roots, name).to_py() for name in ROOT_NAMES},
        "draft": str(document.doc.get("draft", type=Text)),
    }
