"""The session engine: events in, effects out.

It holds one Yjs document, the peers attached to it, the log they read and the roster of who is present.
It never sends, stores, sleeps or looks at a clock. The runtime performs the effects in the order given,
feeds the outcomes back as events, and lets each connection :meth:`~SessionEngine.take` what it is owed.

Invariants:

1. An update is applied before it is persisted, so bytes that the CRDT rejects are never stored.
2. The store gets the accepted bytes, peers get what the document says changed: an update that waits for
   another survives a restart, and an echo is neither stored nor sent.
3. A peer is sent no Update before its SyncStep1 was answered.
4. An update is broadcast, and acknowledged, only after its row was committed.
5. What a peer is owed is a cursor into shared state: nobody has a queue that can grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, assert_never

from crdt_sessions.errors import (
    AccessDenied,
    CrdtSessionsError,
    ForeignWriter,
    LeaseLost,
    MalformedUpdate,
    PanickedUpdate,
    SessionClosed,
    TooLarge,
    TooSlow,
    UnknownFrame,
    UpdateError,
    WireError,
)
from crdt_sessions.ids import ClientId, Millis, PeerId, Seq
from crdt_sessions.limits import Limits, RunRules, Timing
from crdt_sessions.model import SessionDoc, SessionView, Touched
from crdt_sessions.sync.actor import Actor
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.changes import ChangeIndex
from crdt_sessions.sync.events import (
    ClosePeer,
    Committed,
    Describe,
    Effect,
    Event,
    FrameReceived,
    PeerJoined,
    PeerLeft,
    Persist,
    Ready,
    Reload,
    RightsChanged,
    Tasted,
    Tick,
    Violation,
)
from crdt_sessions.sync.log import UpdateLog
from crdt_sessions.sync.panics import Panics
from crdt_sessions.sync.plain import Inspector, Passed
from crdt_sessions.sync.records import Records, RunRecord, Writer
from crdt_sessions.sync.rules import FieldRules
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.steward import Steward
from crdt_sessions.sync.writers import Writers
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    KEEPALIVE,
    Ack,
    AwarenessFrame,
    Frame,
    Given,
    Hold,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode,
    decode_awareness,
    encode,
    sole_update,
)
from crdt_sessions.wire.varint import decode_state_vector

Result = TypeVar("Result")

_VECTOR_EVERY = 64
"""How many log entries a peer's remembered state vector may lag; it is only needed once it falls off the log."""


_MAX_TITLE = 500


@dataclass(slots=True)
class _Peer:
    """What the engine knows of one connection."""

    actor: Actor
    heard: Millis
    told: Millis
    presence_version: int = 0
    greeted: bool = False
    step1: bytes | None = None
    """The state vector of a SyncStep1 that is not answered yet."""
    cursor: Seq | None = None
    """Last log entry the peer has; None until its SyncStep1 was answered."""
    vector: tuple[Seq, bytes] = (Seq(0), b"\x00")
    """A lower bound of what the peer has: (log entry, state vector)."""
    due: deque[tuple[Seq, Ack | Given]] = field(default_factory=deque)
    """What to say once the log entry is committed."""
    worker: tuple[str, str] | None = None
    """Owner and name of the worker whose connection it is, if that is known from a lease."""


class EditFailed(Exception):
    """A change from within the server raised; its cause says why.

    A CRDT cannot roll back, so what the change did before is stored and broadcast like any other.
    """

    def __init__(self, effects: list[Effect]) -> None:
        super().__init__("a change raised")
        self.effects = effects


class SessionEngine:
    """One live session, without I/O.

    Args:
        session: the session's id, for errors.
        document: the loaded document.
        after: the last row the document was loaded from.
        settled_meta: the server's keys of ``meta``, as on record.
        runs: the runs on record.
        writers: the clients on record that wrote for runs.
        limits: sizes.
        timing: periods.
        rules: how runs are admitted and when agents are given up.
        panics: updates on which the library is known to panic.
        enforce: whether what is new by somebody else's Yjs client is refused, or only counted.

    Call :meth:`start` once before anything else.
    """

    def __init__(
        self,
        session: str,
        document: SessionDoc,
        *,
        after: Seq,
        settled_meta: dict[str, Any],
        runs: Iterable[RunRecord] = (),
        writers: Iterable[Writer] = (),
        limits: Limits | None = None,
        timing: Timing | None = None,
        rules: RunRules | None = None,
        panics: Panics | None = None,
        enforce: bool = True,
    ) -> None:
        self.session = session
        self.document = document
        self.view = SessionView(document)
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.log = UpdateLog(after, self.limits.log_bytes)
        self.roster = Roster(self.limits, self.timing)
        self.changes = ChangeIndex()
        self.runs = RunSteward(self.view, runs, rules or RunRules())
        self._inspector = Inspector(document)
        self._tasted: dict[bytes, Tasted] = {}
        self._last: tuple[bytes, list[Frame]] | None = None
        self._writers = Writers(writers, enforce=enforce)
        self._rules = FieldRules(self.view, self.runs)
        self._panics = panics if panics is not None else Panics()
        self._steward = Steward(self.view, settled_meta, self.runs)
        self._peers: dict[PeerId, _Peer] = {}
        self._size_bound = len(document.encode())

    # -- events ----------------------------------------------------------------------------------------------

    def start(self, now: Millis) -> list[Effect]:
        """Settle what the loaded document left open. Call once, first."""
        self.document.take_touched()
        messages: dict[str, set[str]] = {message_id: set() for message_id in self.view.messages.ids()}
        everything = Touched({"title"}, messages, set(self.view.runs.ids()))
        self.changes.note(everything, self.log.head)
        self._rules.start()
        self._steward.start(now)
        return self._carry_out()

    def handle(self, event: Event, now: Millis) -> list[Effect]:
        """Take *event* and return what the runtime must now do, in order."""
        match event:
            case FrameReceived(peer, data):
                return self._receive(peer, data, now)
            case Committed(seq):
                self.log.commit(seq)
                return [Ready(None)]
            case PeerJoined():
                return self._join(event, now)
            case RightsChanged(peer, rights):
                if peer in self._peers:
                    self._peers[peer].actor = replace(self._peers[peer].actor, rights=rights)
                return []
            case PeerLeft(peer, abrupt):
                self._forget(peer, now)
                return self._presence(lambda: self.roster.leave(peer, now, abrupt=abrupt))
            case Tick():
                self.runs.tick(now)
                return [*self._carry_out(), *self._presence(lambda: self.roster.tick(now)), *self._watch(now)]
            case _:
                assert_never(event)

    def updates(self, peer_id: PeerId, data: bytes) -> list[bytes]:
        """Return the updates in a message, as far as :meth:`handle` will not refuse it as a message anyway."""
        if peer_id not in self._peers or len(data) > self.limits.max_frame_bytes:
            return []
        try:
            frames = self._decoded(data)
        except WireError:
            return []
        found = (frame.update for frame in frames if isinstance(frame, SyncStep2 | Update))
        return [update for update in found if update != EMPTY_UPDATE]

    def promises(self, data: bytes) -> bool:
        """Tell whether a message asks for an acknowledgement of what came before it."""
        try:
            return any(isinstance(frame, Ack) for frame in self._decoded(data))
        except WireError:
            return False

    def doubtful(self, peer_id: PeerId, data: bytes) -> list[tuple[bytes, bool]]:
        """Return the updates in a message that should be tried elsewhere before the message is handled.

        With each stands whether it is going to be applied, or only compared because the peer may not write.
        """
        return [
            (update, self._peers[peer_id].actor.rights.write and self.writable)
            for update in self.updates(peer_id, data)
            if update not in self._panics and not self._inspector.passes(update)
        ]

    def learn(self, tasted: Mapping[bytes, Tasted]) -> None:
        """Take in what became of updates elsewhere. Until the next call they are not looked at here any more.

        The document takes what the library has written anew, not what somebody has sent.
        """
        self._tasted = dict(tasted)

    def condemn(self, update: bytes) -> None:
        """Refuse *update* from now on, at once: it is known to do harm."""
        self._panics.add(update)

    def edit(
        self,
        change: Callable[[SessionView], Result],
        now: Millis,
        *,
        by: str | None = None,
        administrative: bool = False,
    ) -> tuple[Result, list[Effect]]:
        """Change the document from within the server; return the change's result and the effects.

        Args:
            change: called once, inside a transaction.
            now: the time.
            by: the principal for whom, if that is known; whether they may was checked.
            administrative: whether the change may be made to a closed session.

        Raises:
            SessionClosed: the session takes no more writes.
            EditFailed: *change* raised; what it did before has effects all the same.
        """
        if not (self.writable or administrative):
            raise SessionClosed(session=self.session)
        try:
            result = self.document.transact(lambda _: change(self.view))
        except Exception as error:
            raise EditFailed(self._edited(now, by)) from error
        return result, self._edited(now, by)

    def _edited(self, now: Millis, by: str | None) -> list[Effect]:
        delta = self.document.take_delta()
        return [] if delta is None else [self._persist(delta, delta, None), *self._settle(now, by=by)]

    def apply(self, update: bytes, now: Millis, actor: Actor | None = None) -> list[Effect]:
        """Merge an update that came by another way than a peer's frame (HTTP, an import).

        Args:
            update: the update.
            now: the time.
            actor: whose it is; None for the server's own.

        Raises:
            SessionClosed: the session takes no more writes.
            TooLarge: the document would exceed its limit.
            UpdateError: the update cannot be decoded; nothing was applied.
            ForeignWriter: something new in it is by somebody else's Yjs client; nothing was applied.
        """
        if not self.writable and not self.holds(update):
            raise SessionClosed(session=self.session)
        return self._merge(update, None, actor, now)

    def forget_presence(self, principal: str, now: Millis) -> tuple[int, list[Effect]]:
        """Remove the presence of a principal; return of how many clients, and the effects."""
        found: list[int] = []
        effects = self._presence(lambda: found.append(self.roster.forget(principal, now)))
        return found[0], effects

    def decide(self, decision: Callable[[RunSteward], Result]) -> tuple[Result, list[Effect]]:
        """Let the steward decide something about runs; return what *decision* returns, and the effects.

        Raises:
            SessionClosed: the session takes no more writes.
        """
        if not self.writable:
            raise SessionClosed(session=self.session)
        result = decision(self.runs)
        return result, self._carry_out()

    def answer_claim(self, run: RunRecord, token: str) -> None:
        """Have a worker that was given a run hear of it on its connections, once that is durable.

        Those are the ones on which it holds, or held, a lease: it gets there behind what the run is about, and
        sooner than by a request of its own.
        """
        for peer in self._peers.values() if run.held_by is not None else ():
            if peer.worker == run.held_by:
                peer.due.append((self.log.head, Given(run.id, token)))

    def set_status(self, status: str) -> list[Effect]:
        """Open or close the session; ``active`` is the only status in which it takes writes."""
        self._steward.record_meta("status", status)
        return self._carry_out()

    @property
    def writable(self) -> bool:
        """Whether the session takes writes."""
        return bool(self._steward.recorded("status") == "active")

    def rests_until(self, now: Millis) -> Millis:
        """Return when a :class:`Tick` has something to do at the earliest, if nobody joins or leaves.

        That is now while something may become due at any moment: a lease runs, somebody's connection broke.
        """
        if self.runs.timed or self.roster.waiting:
            return now
        quiet, silent = int(self.timing.keepalive_s * 1000), int(self.timing.silent_peer_s * 1000)
        due = [peer.told + quiet for peer in self._peers.values()]
        due += [peer.heard + silent for peer_id, peer in self._peers.items() if self.roster.announces(peer_id)]
        return Millis(min([*due, self.roster.rests_until(now)]))

    @property
    def writers(self) -> list[Writer]:
        """Whose the Yjs clients are, as far as that is known."""
        return self._writers.all()

    @property
    def peers(self) -> int:
        """Number of attached connections."""
        return len(self._peers)

    # -- what a peer is owed -----------------------------------------------------------------------------------

    def take(self, peer_id: PeerId, now: Millis) -> list[bytes]:
        """Return the frames *peer_id* is owed now, and consider them sent."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return []
        frames: list[bytes] = []
        self._take_sync(peer_id, peer, frames)
        self._take_due(peer, frames)
        if peer.cursor is not None and peer.presence_version < self.roster.version:
            self._take_presence(peer_id, peer, frames)
        if frames:
            peer.told = now
        elif now - peer.told >= self.timing.keepalive_s * 1000:
            frames.append(KEEPALIVE)
            peer.told = now
        return frames

    def _take_sync(self, peer_id: PeerId, peer: _Peer, frames: list[bytes]) -> None:
        if not peer.greeted:
            peer.greeted = True
            frames.append(encode(SyncStep1(self.document.state_vector())))
        if peer.step1 is not None:
            asked, peer.step1 = peer.step1, None
            frames.append(encode(SyncStep2(self.document.encode(asked))))
            peer.cursor = self.log.head
            peer.vector = (peer.cursor, self.document.state_vector())
        if peer.cursor is None:
            return
        if peer.cursor < self.log.start:  # fell off: resync from the document
            frames.append(encode(Update(self.document.encode(peer.vector[1]))))
            peer.cursor = self.log.head
            peer.vector = (peer.cursor, self.document.state_vector())
        while peer.cursor < self.log.tail and (portion := self.log.portion(peer.cursor, peer_id)) is not None:
            peer.cursor = portion.cursor
            if portion.frame is not None:
                frames.append(portion.frame)
        self._remember(peer)

    def _remember(self, peer: _Peer) -> None:
        """Note what the peer has, if it has all there is: only then is it what the document has."""
        if peer.cursor == self.log.head and peer.cursor >= peer.vector[0] + _VECTOR_EVERY:
            peer.vector = (peer.cursor, self.document.state_vector())

    def _take_due(self, peer: _Peer, frames: list[bytes]) -> None:
        while peer.due and peer.due[0][0] <= self.log.tail:
            frames.append(encode(peer.due.popleft()[1]))

    def _take_presence(self, peer_id: PeerId, peer: _Peer, frames: list[bytes]) -> None:
        since, peer.presence_version = peer.presence_version, self.roster.version
        if (frame := self.roster.frame_since(since, peer_id)) is not None:
            frames.append(frame)

    def _join(self, event: PeerJoined, now: Millis) -> list[Effect]:
        peer = _Peer(Actor(event.principal, event.rights), heard=now, told=now)
        try:
            if event.lease is not None:
                self._attach(peer, event.lease, now)
        except LeaseLost as error:
            return [ClosePeer(event.peer, error)]
        self._peers[event.peer] = peer
        return [Ready(event.peer)]

    def _attach(self, peer: _Peer, token: str, now: Millis) -> None:
        """Take a connection for that of a lease's holder."""
        record = self.runs.holder(token)
        if record is None:
            raise LeaseLost
        self.runs.attached(record.id, now)
        peer.actor = replace(peer.actor, lease=(record.id, record.epoch))
        peer.worker = record.held_by

    def _forget(self, peer_id: PeerId, now: Millis) -> None:
        peer = self._peers.pop(peer_id, None)
        if peer is not None and peer.actor.lease is not None:
            self.runs.detached(*peer.actor.lease, now)

    # -- frames --------------------------------------------------------------------------------------------------

    def _receive(self, peer_id: PeerId, data: bytes, now: Millis) -> list[Effect]:
        peer = self._peers.get(peer_id)
        if peer is None:
            return []
        peer.heard = now
        if peer.actor.lease is not None:
            self.runs.renew(*peer.actor.lease, now)
        effects: list[Effect] = []
        try:
            if len(data) > self.limits.max_frame_bytes:
                raise TooLarge(what="a frame", size=len(data), limit=self.limits.max_frame_bytes)
            for frame in self._decoded(data):  # all or nothing: a message that ends in garbage is refused whole
                effects += self._dispatch(peer_id, peer, frame, now)
        except (WireError, UpdateError, TooLarge, TooSlow, AccessDenied, SessionClosed, LeaseLost) as error:
            self._forget(peer_id, now)  # nothing more is taken from it; the roster hears of PeerLeft later
            effects += self._refuse(peer_id, error)
            if isinstance(error, AccessDenied):
                what = "client" if isinstance(error, ForeignWriter) else "write"
                effects.append(Violation(peer.actor.principal, what))
        self._last = None
        return effects

    def _decoded(self, data: bytes) -> list[Frame]:
        """Return the frames in a message. It is asked for them several times in a row."""
        if self._last is None or self._last[0] is not data:
            update = sole_update(data)
            self._last = (data, [Update(update)] if update is not None else list(decode(data)))
        return self._last[1]

    def _refuse(self, peer_id: PeerId, error: CrdtSessionsError) -> list[Effect]:
        effects: list[Effect] = [ClosePeer(peer_id, error)]
        if isinstance(error, PanickedUpdate):
            effects.append(Reload(error))
        return effects

    def _dispatch(self, peer_id: PeerId, peer: _Peer, frame: Frame, now: Millis) -> list[Effect]:
        match frame:
            case Update() | SyncStep2():
                return self._take_update(peer_id, peer, frame.update, now)
            case SyncStep1(state_vector):
                decode_state_vector(state_vector)  # refuse now what could not be answered later
                peer.step1 = state_vector
                return [Ready(peer_id)]
            case AwarenessFrame(payload):
                return self._hear(peer_id, peer, payload, now)
            case QueryAwareness():
                peer.presence_version = 0
                return [Ready(peer_id)]
            case Ack(payload):
                return self._promise(peer_id, peer, payload)
            case Hold(token):
                return self._hold(peer_id, peer, token, now)
            case PermissionDenied():
                raise UnknownFrame(kind=2)  # only a server says that
            case Given():
                raise UnknownFrame(kind=104)
            case _:
                assert_never(frame)

    def _take_update(self, peer_id: PeerId, peer: _Peer, update: bytes, now: Millis) -> list[Effect]:
        can_write = peer.actor.rights.write
        if can_write and self.writable:
            foreign = self._writers.foreign
            effects = self._merge(update, peer_id, peer.actor, now)
            if self._writers.foreign > foreign:  # it is only recorded
                effects.append(Violation(peer.actor.principal, "client"))
            return effects
        if self.holds(update):
            return []
        if can_write:
            raise SessionClosed(session=self.session)
        raise AccessDenied(what="this connection is read-only")

    def _promise(self, peer_id: PeerId, peer: _Peer, payload: bytes) -> list[Effect]:
        if len(payload) > self.limits.max_ack_bytes:
            raise TooLarge(what="an acknowledgement", size=len(payload), limit=self.limits.max_ack_bytes)
        if len(peer.due) >= self.limits.max_unread_acks:
            raise TooSlow(what="too many acknowledgements are unread")
        peer.due.append((self.log.head, Ack(payload)))
        return [Ready(peer_id)]

    def _hold(self, peer_id: PeerId, peer: _Peer, token: str, now: Millis) -> list[Effect]:
        """Take a connection for that of a lease's holder, who is present as a client of its own."""
        former = peer.actor.lease
        self._attach(peer, token, now)
        if former is not None:
            self.runs.detached(*former, now)
        return self._presence(lambda: self.roster.leave(peer_id, now, abrupt=False))

    def _hear(self, peer_id: PeerId, peer: _Peer, payload: bytes, now: Millis) -> list[Effect]:
        entries = decode_awareness(payload)
        for entry in entries:
            if len(entry.state) > self.limits.max_presence_bytes:
                raise TooLarge(what="a presence", size=len(entry.state), limit=self.limits.max_presence_bytes)
        forged = self.roster.forged
        effects = self._presence(lambda: self.roster.hear(peer_id, peer.actor, entries, now))
        if self.roster.forged > forged:
            effects.append(Violation(peer.actor.principal, "presence"))
        return effects

    def _presence(self, change: Callable[[], None]) -> list[Effect]:
        before = self.roster.version
        change()
        return [Ready(None)] if self.roster.version != before else []

    def _watch(self, now: Millis) -> list[Effect]:
        effects: list[Effect] = []
        for peer_id, peer in self._peers.items():
            silent = now - peer.heard >= self.timing.silent_peer_s * 1000
            if silent and self.roster.announces(peer_id):
                effects.append(ClosePeer(peer_id, TooSlow(what="the presence was not renewed")))
            elif now - peer.told >= self.timing.keepalive_s * 1000:
                effects.append(Ready(peer_id))
        return effects

    # -- the document ----------------------------------------------------------------------------------------------

    def _merge(self, update: bytes, author: PeerId | None, actor: Actor | None, now: Millis) -> list[Effect]:
        self._check_size(len(update))
        if (passed := self._inspector.passed(update)) is not None:
            return self._merge_passed(passed, author, actor, now)
        if self._tasted and (tasted := self._tasted.get(update)) is not None:
            return self._merge_tasted(tasted, author, actor, now)
        self._writers.check(self.document, update)
        bound: Sequence[Writer] = ()
        if actor is not None and actor.lease is not None:
            run, epoch = actor.lease
            bound = self._writers.bind(self.document, update, principal=actor.principal, run=run, epoch=epoch)
        elif actor is not None and actor.rights.bound:
            bound = self._writers.claim(self.document, update, actor.principal)
        records = Records(writers={writer.client: writer for writer in bound})
        delta = self._apply(self.document.apply, update)
        if delta is None:
            return []  # an echo: it is stored already, or on its way
        if delta == EMPTY_UPDATE:
            return [self._persist(update, None, author, records, waits=True)]  # for one that has not arrived
        waits = self.document.waiting != EMPTY_UPDATE
        return [
            self._persist(update, delta, author, records, waits=waits),
            *self._settle(now, actor=actor),
        ]

    def _merge_passed(self, passed: Passed, author: PeerId | None, actor: Actor | None, now: Millis) -> list[Effect]:
        """Merge what a client put next to other text, which is most of what there ever is, or something new."""
        update = passed.update
        records = self._bind((ClientId(passed.client),), actor)
        self._apply(self.document.append, update)
        persist = self._persist(update, update, author, records)
        if not self.document.touched:
            return [persist]
        touched = self._noted()
        if passed.arrays is None and touched.within_messages:  # about text there is nothing to be decided
            return [persist]
        return [persist, *self._judge(touched, now, actor)]

    def _bind(self, found: Sequence[ClientId], actor: Actor | None) -> Records | None:
        """Check and note whose clients these are, by whom there is something new; return what goes on record.

        Raises:
            LeaseLost: one of them is fenced, or writes for another lease than *actor*.
            ForeignWriter: one of them is somebody else's.
        """
        self._writers.check_authors(found)
        bound: Sequence[Writer] = ()
        if actor is not None and actor.lease is not None:
            run, epoch = actor.lease
            bound = self._writers.bind_authors(found, principal=actor.principal, run=run, epoch=epoch)
        elif actor is not None and actor.rights.bound:
            bound = self._writers.claim_authors(found, actor.principal)
        return Records(writers={writer.client: writer for writer in bound}) if bound else None

    def _merge_tasted(self, tasted: Tasted, author: PeerId | None, actor: Actor | None, now: Millis) -> list[Effect]:
        records = self._bind(tasted.authors, actor)
        delta = self._apply(self.document.apply, tasted.delta) if tasted.delta is not None else None
        if tasted.delta is None or delta is None:
            return []  # an echo
        waits = self.document.waiting != EMPTY_UPDATE  # of what was stored without a sandbox
        # The sandbox's bytes, not the document's, which are other ones each time: keys of objects come in any order.
        return [
            self._persist(tasted.delta, delta, author, records, waits=waits),
            *self._settle(now, actor=actor),
        ]

    def holds(self, update: bytes) -> bool:
        """Tell whether the document holds all of a foreign update.

        Raises:
            UpdateError: it cannot be decoded.
        """
        tasted = self._tasted.get(update)
        return tasted.held if tasted is not None else self.document.contains(update)

    def _apply(self, how: Callable[[bytes], Result], update: bytes) -> Result:
        if update in self._panics:
            raise MalformedUpdate(size=len(update))
        try:
            return how(update)
        except PanickedUpdate:
            self._panics.add(update)
            raise

    def _check_size(self, growth: int) -> None:
        limit = self.limits.max_document_bytes
        if self._size_bound + growth > limit:
            self._size_bound = len(self.document.encode())
            if self._size_bound + growth > limit:
                raise TooLarge(what="the document", size=self._size_bound + growth, limit=limit)

    def _persist(
        self,
        update: bytes,
        delta: bytes | None,
        author: PeerId | None,
        records: Records | None = None,
        *,
        waits: bool = False,
    ) -> Persist:
        self._size_bound += len(update)
        self._inspector.took(update)
        return Persist(self.log.append(delta, author), update, waits, records)

    def _settle(self, now: Millis, *, actor: Actor | None = None, by: str | None = None) -> list[Effect]:
        """Note what changed, put back what *actor* may not have written, and let the steward decide."""
        self.changes.note_elsewhere(self.log.head)
        return self._judge(self._noted(), now, actor, by) if self.document.touched else []

    def _noted(self) -> Touched:
        """Return what the document has been changed in, and note it for readers."""
        touched = self.document.take_touched()
        self.changes.note(touched, self.log.head)
        return touched

    def _judge(self, touched: Touched, now: Millis, actor: Actor | None, by: str | None = None) -> list[Effect]:
        """Put back what *actor* may not have written, and let the steward decide about the rest."""
        effects: list[Effect] = self._put_back(touched, actor)
        if "title" in touched.meta:
            title = self.document.roots.meta.get("title")
            effects.append(Describe(title[:_MAX_TITLE] if isinstance(title, str) else None))
        if actor is not None and actor.rights.bound:
            by = actor.principal
        self._steward.decide(touched, now, by)
        return effects + self._carry_out(actor)

    def _put_back(self, touched: Touched, actor: Actor | None) -> list[Effect]:
        writes, violated = self._rules.check(touched, actor)
        if actor is None or not violated:
            return []
        effects: list[Effect] = [Violation(actor.principal, what) for what in violated]
        _, delta = self.document.edit(lambda _: [write(self.view) for write in writes], origin="steward")
        if delta is not None:
            effects.append(self._persist(delta, delta, None))
            self._noted()
        return effects

    def _carry_out(self, actor: Actor | None = None) -> list[Effect]:
        """Mirror in the document what the steward has decided, and have both stored together."""
        if not self._steward.decided:
            return []
        decided = self._steward.take()
        fenced = self._writers.fence(self.document, decided.released) if decided.released else []
        decided.records.writers.update((writer.client, writer) for writer in fenced)
        delta: bytes | None = None
        if decided.writes:
            _, delta = self.document.edit(lambda _: [write(self.view) for write in decided.writes], origin="steward")
        effects: list[Effect] = []
        if actor is not None:
            effects += [Violation(actor.principal, what) for what in decided.restored]
        for deed in decided.deeds:
            cancelled = deed.action == "run.cancel" and actor is not None and actor.rights.bound
            effects.append(replace(deed, principal=actor.principal) if cancelled and actor is not None else deed)
        if delta is not None or decided.records:
            effects.append(self._persist(delta or EMPTY_UPDATE, delta, None, decided.records))
            self._rules.check(self._noted(), None)  # from here on that is how it is
        if decided.evicted:  # seldom, and a session may have a thousand peers
            for peer_id, peer in self._peers.items():
                lease = peer.actor.lease
                if lease is not None and lease in decided.evicted:
                    effects.append(ClosePeer(peer_id, LeaseLost(run=lease[0])))
        return effects
