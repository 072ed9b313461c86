"""The session engine: events in, effects out.

It holds one Yjs document, the peers attached to it, the log they read and the roster of who is present.
It never sends, stores, sleeps or looks at a clock. The runtime performs the effects in the order given,
feeds the outcomes back as events, and lets each connection :meth:`~SessionEngine.take` what it is owed.

Invariants:

1. An update is applied before it is persisted, so bytes that the CRDT rejects are never stored.
2. An update that needs another one which has not arrived is not applied: it waits, unstored and unacknowledged, and
   the peer that sent it is asked for the rest. It stays its author's, whoever sends the rest. An echo is neither
   stored nor sent.
3. A peer is sent no Update before its SyncStep1 was answered.
4. An update is broadcast, and acknowledged, only after its row was committed.
5. What a peer is owed is a cursor into shared state: nobody has a queue that can grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, assert_never

from crdt_sessions.errors import (
    AccessDenied,
    CrdtSessionsError,
    EarlyUpdate,
    ForeignWriter,
    LeaseLost,
    MalformedUpdate,
    Overloaded,
    PanickedUpdate,
    SessionClosed,
    StorageError,
    TooLarge,
    TooMany,
    TooSlow,
    UnknownFrame,
    UpdateError,
    WireError,
    WrongLineage,
)
from crdt_sessions.ids import ClientId, Millis, PeerId, Seq
from crdt_sessions.limits import Limits, RunRules, Timing
from crdt_sessions.model import Later, SessionDoc, SessionView
from crdt_sessions.sync.actor import NOBODY_KNOWN, Actor, Asker
from crdt_sessions.sync.admission import Admission, Due, Message, Request, Work
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.changes import ChangeIndex
from crdt_sessions.sync.events import (
    Answered,
    ClosePeer,
    Committed,
    Effect,
    Event,
    FrameReceived,
    FrameRefused,
    Harmless,
    PeerJoined,
    PeerLeft,
    PrincipalChanged,
    Ready,
    Refused,
    Reload,
    Resume,
    RightsChanged,
    StoreChanged,
    Tick,
    Tried,
    Try,
    UpdateBrought,
    Verdict,
    Violation,
)
from crdt_sessions.sync.guests import Guests
from crdt_sessions.sync.log import LogMemory, UpdateLog
from crdt_sessions.sync.merge import EngineFailed, Merger, Vouched, moved
from crdt_sessions.sync.owed import Owed
from crdt_sessions.sync.panics import Panics
from crdt_sessions.sync.peers import INTRODUCED_MS, REMIND_MS, STRANGER_MS, Answer, Peer
from crdt_sessions.sync.records import RunRecord, Writer
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.steward import Steward
from crdt_sessions.sync.waiting import WaitingUpdate, WaitingUpdates
from crdt_sessions.sync.writers import Writers
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    Ack,
    AwarenessFrame,
    Frame,
    Hold,
    PermissionDenied,
    QueryAwareness,
    Shared,
    SyncStep1,
    SyncStep2,
    Update,
    decode_awareness,
)
from crdt_sessions.wire.varint import decode_state_vector

Result = TypeVar("Result")

_ASK_ALL_MS = 30_000
"""When a peer has gone, all others are asked what they have, at most once in this time."""
_TABS_MS = 5_000
"""How often a peer is asked again while tabs beside it have no connection of their own. It passes on their presence
by itself, and their writes only when it is asked. It is asked once more after they have gone."""
_TRIED_MS = 10_000
"""An update whose trial had no outcome for so long is tried again."""
_COMES_BACK = (TooLarge, TooMany, TooSlow, SessionClosed, StorageError, Overloaded)
"""Refusals that say nothing against what a peer brought before."""
_REFUSALS = (
    WireError,
    UpdateError,
    WrongLineage,
    TooLarge,
    TooMany,
    TooSlow,
    AccessDenied,
    SessionClosed,
    LeaseLost,
    StorageError,
    Overloaded,
)
"""Errors that close the connection of the peer that caused them."""
_SeldomEvent = (
    PeerJoined
    | RightsChanged
    | PrincipalChanged
    | FrameRefused
    | PeerLeft
    | UpdateBrought
    | Tried
    | StoreChanged
    | Tick
)


class _Judged(NamedTuple):
    """The outcome of a trial."""

    verdict: Verdict
    applied: bool
    """Whether the mirror took the update; else it was only compared."""


class _Doubt(NamedTuple):
    """Why the rest of a message must wait."""

    update: bytes
    apply: bool
    """Whether the update will be taken; else it is only compared."""
    unstorable: bool = False
    """Whether it waits for the store, and not for a trial."""


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
        aside: what the steward is known not to be able to decide about.
        enforce: whether what is new by somebody else's Yjs client is refused, or only counted.
        log_memory: a bound for the logs of all sessions together.

    Call :meth:`start` once before anything else. Refusals are errors of the one tree and leave nothing behind;
    after any other error, such as :class:`EngineFailed`, the engine must not be used any more.
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
        aside: Aside | None = None,
        enforce: bool = True,
        log_memory: LogMemory | None = None,
    ) -> None:
        aside = aside or Aside()
        self.session = session
        self.document = document
        self.view = SessionView(document)
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.log = UpdateLog(after, self.limits.log_bytes, log_memory)
        self.roster = Roster(self.limits, self.timing)
        self.guests = Guests(self.roster, self.limits, self.timing)
        """Those who are present without a connection."""
        self.changes = ChangeIndex()
        self.runs = RunSteward(self.view, runs, rules or RunRules(), aside)
        self._panics = panics if panics is not None else Panics()
        self._steward = Steward(self.view, settled_meta, self.runs, aside)
        self._writers = Writers(writers, enforce=enforce, announced_by=self.roster.announced_by)
        self._peers: dict[PeerId, Peer] = {}
        self.waiting = WaitingUpdates(self.limits)
        """Updates that need others which have not arrived."""
        self._waits = self.waiting.clients
        self._merger = Merger(
            session,
            self.view,
            str(settled_meta.get("lineage", "")),
            log=self.log,
            changes=self.changes,
            runs=self.runs,
            steward=self._steward,
            writers=self._writers,
            waiting=self.waiting,
            peers=self._peers,
            limits=self.limits,
            panics=self._panics,
            aside=aside,
        )
        self.admission = Admission(self.limits.max_frame_bytes)
        """Messages and requests that wait for a trial, or for the store."""
        self.owed = Owed(self.log, self.roster, self._merger, self.timing)
        """What peers are sent."""
        self._looked: Seq | None = None  # the log's last entry when the waiting updates were last looked at
        self._asked_all = Millis(0)

    # -- events ----------------------------------------------------------------------------------------------

    @moved
    def start(self, now: Millis) -> list[Effect]:
        """Settle what the loaded document left open. Call once, first."""
        self._merger.start(now)
        return [*self._merger.carry_out(), *self._look_at_waiting(now), *self._admit(now)]

    def waits_on_record(self, later: Later) -> None:
        """Take over an update of the loaded rows that could not be integrated. Call before :meth:`start`."""
        self.waiting.add(later, None, None)

    def handle(self, event: Event, now: Millis) -> list[Effect]:
        """Take *event* and return what the runtime must now do, in order."""
        if isinstance(event, FrameReceived):
            effects = self._receive(event.peer, event.frames, now)
        elif isinstance(event, Committed):
            if self.log.commit(event.seq):
                self._trim()
            return [Ready(None)]
        else:
            effects = self._take_event(event, now)
        return [*effects, *self._admit(now)] if self.admission.queue else effects

    def _take_event(self, event: _SeldomEvent, now: Millis) -> list[Effect]:
        match event:
            case FrameRefused():
                return self._receive(event.peer, [], now, event.error)
            case Tried():
                return self._go_on(event, now)
            case UpdateBrought():
                request = Request(event.call, event.update, event.actor, event.foreign, event.compare)
                self.admission.ask(request)
                return []
            case StoreChanged(outage):
                self.admission.store_takes(outage)
                return []
            case PeerJoined():
                return self._join(event, now)
            case RightsChanged() | PrincipalChanged():
                return self._note_rights(event, now)
            case PeerLeft(peer, abrupt):
                asked = self._forget(peer, now)
                return [*asked, *self._presence(lambda: self.roster.leave(peer, now, abrupt=abrupt))]
            case Tick():
                return self._tick(now)
            case _:
                assert_never(event)

    def _tick(self, now: Millis) -> list[Effect]:
        if self.runs.calls.waiting:
            self.runs.calls.hear({str(client) for client in self.roster.present()}, now)
        self.runs.tick(now)
        self._trim()
        effects = [*self._merger.carry_out(), *self._presence(lambda: self._tick_presence(now)), *self._watch(now)]
        if self.admission.any_aside:
            effects += self._watch_aside(now)
        return [*effects, *self._watch_waiting(now)] if len(self.waiting) else effects

    def _tick_presence(self, now: Millis) -> None:
        self.guests.tick(now)
        self.roster.tick(now)

    def _note_rights(self, event: RightsChanged | PrincipalChanged, now: Millis) -> list[Effect]:
        if isinstance(event, PrincipalChanged):
            self.waiting.forget(event.principal)
            return self._presence(lambda: self.guests.forget(event.principal, now))
        if event.peer in self._peers:
            self._peers[event.peer].actor = replace(self._peers[event.peer].actor, rights=event.rights)
        return []

    def edit(
        self,
        change: Callable[[SessionView], Result],
        now: Millis,
        *,
        by: Asker = NOBODY_KNOWN,
        administrative: bool = False,
    ) -> tuple[Result, list[Effect]]:
        """Change the document from within the server; return the change's result and the effects.

        Args:
            change: called once, inside a transaction.
            now: the time.
            by: for whom, as far as that is known; whether they may was checked.
            administrative: whether the change may be made to a closed session.

        Raises:
            SessionClosed: the session takes no more writes.
            EditFailed: *change* raised; what it did before has effects all the same.
            EngineFailed: the steward did.
        """
        if not (self.writable or administrative):
            raise SessionClosed(session=self.session)
        try:
            result = self.document.transact(lambda _: change(self.view))
        except Exception as error:
            raise EditFailed(self._edited(now, by)) from error
        return result, self._edited(now, by)

    @moved
    def _edited(self, now: Millis, by: Asker) -> list[Effect]:
        effects = self._merger.edited(now, by)
        return [*effects, *self._look_at_waiting(now), *self._admit(now)] if effects else []

    def forget_presence(self, principal: str, now: Millis) -> tuple[int, list[Effect]]:
        """Remove the presence of a principal; return the number of its clients, and the effects."""
        found: list[int] = []

        def forget() -> None:
            found.append(self.roster.forget(principal, now))
            self.guests.forget(principal, now)

        effects = self._presence(forget)
        return found[0], effects

    def announce(
        self, actor: Actor, name: str, client: ClientId, state: str, until: Millis, now: Millis
    ) -> tuple[ClientId, list[Effect]]:
        """Announce the presence of somebody without a connection; as :meth:`Guests.announce`, with the effects."""
        clients: list[ClientId] = []
        effects = self._presence(lambda: clients.append(self.guests.announce(actor, name, client, state, until, now)))
        return clients[0], effects

    def withdraw(self, principal: str, name: str, now: Millis) -> list[Effect]:
        """End a presence that was announced without a connection, if there is one; return the effects."""
        return self._presence(lambda: self.guests.withdraw(principal, name, now))

    def decide(self, decision: Callable[[RunSteward], Result]) -> tuple[Result, list[Effect]]:
        """Let the steward decide about runs; return what *decision* returns, and the effects.

        Raises:
            SessionClosed: the session takes no more writes.
            CrdtSessionsError: *decision* refuses; nothing was decided.
            EngineFailed: it raised in the middle.
        """
        if not self.writable:
            raise SessionClosed(session=self.session)
        try:
            result = decision(self.runs)
        except CrdtSessionsError as error:
            if self._steward.decided:
                raise EngineFailed from error
            raise
        return result, self._merger.carry_out()

    def check_room(self, size: int) -> None:
        """Return if the document may grow by *size* bytes.

        Raises:
            TooLarge: it would exceed its limit.
        """
        self._merger.check_size(size)

    @moved
    def set_status(self, status: str) -> list[Effect]:
        """Open or close the session; ``active`` is the only status in which it takes writes."""
        self._steward.record_meta("status", status)
        return self._merger.carry_out()

    @property
    def writable(self) -> bool:
        """Whether the session takes writes."""
        return bool(self._steward.recorded("status") == "active")

    def rests_until(self, now: Millis) -> Millis:
        """Return the earliest time at which a :class:`Tick` has something to do, if nobody joins or leaves.

        That is now while something may become due at any moment: a lease runs, somebody's connection broke.
        """
        if self.runs.table.timed() or self.roster.waiting or len(self.waiting) or self.admission.outage is not None:
            return now
        quiet, silent = int(self.timing.keepalive_s * 1000), int(self.timing.silent_peer_s * 1000)
        due = [peer.told + (quiet if peer.introduced else INTRODUCED_MS) for peer in self._peers.values()]
        due += [peer.asked_at + REMIND_MS for peer in self._peers.values() if peer.tabs]
        due += [since + STRANGER_MS for peer in self._peers.values() if (since := peer.stranger_since) is not None]
        due += [peer.heard + silent for peer_id, peer in self._peers.items() if self.roster.announces(peer_id)]
        return Millis(min([*due, *self.guests.due(), self.roster.rests_until(now)]))

    @property
    def writers(self) -> list[Writer]:
        """The known owners of Yjs clients."""
        return self._writers.all()

    @property
    def peers(self) -> int:
        """Number of attached connections."""
        return len(self._peers)

    # -- what a peer is owed -----------------------------------------------------------------------------------

    def take(self, peer_id: PeerId, now: Millis) -> list[Frame | Shared]:
        """Return the frames *peer_id* is owed now, and consider them sent."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return []
        return self.owed.take(peer_id, peer, now)

    def _trim(self) -> None:
        """Drop the log entries that every peer has."""
        cursors = (peer.cursor for peer in self._peers.values() if peer.cursor is not None)
        self.log.forget(min(cursors, default=self.log.tail))

    def _join(self, event: PeerJoined, now: Millis) -> list[Effect]:
        peer = Peer(Actor(event.principal, event.rights), now, now, now, stranger_since=now)
        try:
            if event.lease is not None:
                self._attach(peer, event.lease, now)
        except LeaseLost as error:
            return [ClosePeer(event.peer, error)]
        self._peers[event.peer] = peer
        return [Ready(event.peer)]

    def _attach(self, peer: Peer, token: str, now: Millis) -> None:
        """Make a connection the one of a lease's holder."""
        record = self.runs.table.holder(token)
        if record is None:
            raise LeaseLost
        self.runs.leases.attached(record.id, now)
        peer.actor = replace(peer.actor, lease=(record.id, record.epoch))

    def _forget(self, peer_id: PeerId, now: Millis) -> list[Effect]:
        """Note that a connection has ended. If it leaves waiting updates, ask the others for what these need."""
        peer = self._peers.pop(peer_id, None)
        if peer is None:
            return []
        self.admission.drop(peer_id)
        if peer.actor.lease is not None:
            self.runs.leases.detached(*peer.actor.lease, now)
        return self._ask_all(now) if self.waiting.left(peer_id, peer.actor, now) else []

    # -- frames --------------------------------------------------------------------------------------------------

    def _receive(
        self, peer_id: PeerId, frames: list[Frame], now: Millis, refused: WireError | TooLarge | None = None
    ) -> list[Effect]:
        peer = self._peers.get(peer_id)
        if peer is None:
            return []
        admission = self.admission
        if admission.trial is None and refused is None and peer_id not in admission.held:  # as nearly always
            return self._take_frames(peer_id, peer, frames, now)
        message = Message(peer_id, frames, refused)
        if admission.trial is None and peer_id not in admission.held:
            return self._take_message(message, peer, now)
        peer.heard = now
        try:
            admission.hold(message)
        except TooMany as error:
            return self._close(peer_id, peer, error, now)
        return []

    def _take_message(self, message: Message, peer: Peer, now: Millis, judged: _Judged | None = None) -> list[Effect]:
        """Take a message that has waited, or the rest of one."""
        if message.refused is not None:
            peer.heard = now
            effects = self._close(message.peer, peer, message.refused, now)
        else:
            effects = self._take_frames(message.peer, peer, message.frames, now, judged)
        return effects if message.peer in self.admission.held else [*effects, Resume(message.peer)]

    def _take_frames(
        self, peer_id: PeerId, peer: Peer, frames: list[Frame], now: Millis, judged: _Judged | None = None
    ) -> list[Effect]:
        """Take the frames of a message, up to an update that nobody can vouch for: the rest waits for its trial."""
        peer.heard = now
        if peer.actor.lease is not None:
            self.runs.leases.renew(*peer.actor.lease, now)
        effects: list[Effect] = []
        try:
            if not peer.known:
                frames = peer.leave_out_early(frames, now)
            for at, frame in enumerate(frames):
                try:
                    taken = self._dispatch(peer_id, peer, frame, now, judged)
                except (AccessDenied, SessionClosed) as error:
                    taken = self._decline(peer_id, peer, error)
                if isinstance(taken, _Doubt):
                    return [*effects, *self._wait(Message(peer_id, frames[at:]), taken, now)]
                effects += taken
                judged = None
                if not peer.introduced and not isinstance(frame, SyncStep1):
                    effects += self._introduce(peer_id, peer)
        except _REFUSALS as error:
            effects += self._close(peer_id, peer, error, now)
        if self._waits:
            effects += self._look_at_waiting(now)
        return effects

    # -- what waits for a trial, or for the store ------------------------------------------------------------------

    def _wait(self, work: Work, doubt: _Doubt, now: Millis) -> list[Effect]:
        """Let *work* wait until its update was tried, or can be stored."""
        if doubt.unstorable and isinstance(work, Message):
            self.admission.set_aside(work, now)
            return []
        foreign = isinstance(work, Request) and work.foreign
        trial = self.admission.begin(work, doubt.update, apply=doubt.apply)
        return [Try(trial, doubt.update, doubt.apply, foreign)]

    def _admit(self, now: Millis) -> list[Effect]:
        """Take everything whose turn it is, one after the other."""
        effects: list[Effect] = []
        while self.admission.moves:
            effects += self._take_work(self.admission.next(), now)
        return effects

    def _take_work(self, work: Work, now: Millis, judged: _Judged | None = None) -> list[Effect]:
        match work:
            case Message():
                peer = self._peers.get(work.peer)
                return self._take_message(work, peer, now, judged) if peer is not None else []
            case Request():
                return self._take_request(work, now, judged)
            case Due():
                return self._take_waiting(work, now, judged)
            case _:
                assert_never(work)

    def _go_on(self, event: Tried, now: Millis) -> list[Effect]:
        """Go on with the work that waited for this trial."""
        trial = self.admission.end(event.trial)
        if trial is None:
            return []
        verdict = event.verdict
        if isinstance(verdict, Refused) and isinstance(verdict.error, PanickedUpdate):
            self._panics.add(trial.update)
            verdict = Refused(MalformedUpdate(size=len(trial.update)))  # nothing was applied here
        return self._take_work(trial.work, now, _Judged(verdict, trial.apply))

    def _vouch(self, update: bytes, judged: _Judged | None) -> Vouched | None:
        """Return why *update* may be applied; None if it must be tried first.

        Raises:
            UpdateError, WrongLineage, StorageError, Overloaded: it was tried, and may not.
        """
        if judged is not None:
            if isinstance(judged.verdict, Refused):
                raise judged.verdict.error
            return judged.verdict
        return self._merger.passes(update)

    def _may_merge(self, update: bytes, verdict: Vouched, judged: _Judged | None, *, writes: bool) -> bool | _Doubt:
        """Return True to take an update, False if the document has it, or the reason why it must wait.

        Raises:
            StorageError: the store has failed while it was tried: nothing is taken that is not kept.
            AccessDenied, SessionClosed: it is news, and may not be taken.
        """
        outage = self.admission.outage
        if writes and self.writable and outage is None:
            if not isinstance(verdict, Harmless) or judged is None or judged.applied:
                return True
            return False if verdict.held else _Doubt(update, apply=True)  # what was compared is no delta
        if self._merger.holds(update, verdict):
            return False
        if not writes:
            raise AccessDenied(what="this connection is read-only")
        if not self.writable:
            raise SessionClosed(session=self.session)
        if outage is not None and judged is not None and judged.applied:
            raise outage
        return _Doubt(update, apply=False, unstorable=True)

    def _take_request(self, request: Request, now: Millis, judged: _Judged | None) -> list[Effect]:
        """Take an update that came by another way than a peer's message, and answer the caller."""
        update = request.update
        try:
            verdict = self._vouch(update, judged)
            if verdict is None:
                takes = not request.compare and self.writable and self.admission.outage is None
                return self._wait(request, _Doubt(update, apply=takes), now)
            if request.compare:
                return [Answered(request.call, held=self._merger.holds(update, verdict))]
            merges = self._may_merge(update, verdict, judged, writes=True)
            if isinstance(merges, _Doubt):
                if merges.unstorable and self.admission.outage is not None:
                    raise self.admission.outage
                return self._wait(request, merges, now)
            if not merges:
                return [Answered(request.call, held=True)]
            effects, later = self._merger.merge(update, verdict, None, request.actor, now, foreign=request.foreign)
        except CrdtSessionsError as error:
            answer: list[Effect] = [Answered(request.call, error)]
            return [*answer, Reload(error)] if isinstance(error, PanickedUpdate) else answer
        early = EarlyUpdate(size=len(later.update)) if later is not None else None
        return [*effects, *self._look_at_waiting(now), Answered(request.call, early)]

    def _watch_aside(self, now: Millis) -> list[Effect]:
        """Close peers that have waited too long for the store."""
        effects: list[Effect] = []
        for peer_id in self.admission.lost_patience(Millis(now - int(self.timing.storage_patience_s * 1000))):
            peer, outage = self._peers.get(peer_id), self.admission.outage
            if peer is not None and outage is not None:
                effects += self._close(peer_id, peer, outage, now)
        return effects

    def _close(self, peer_id: PeerId, peer: Peer, error: CrdtSessionsError, now: Millis) -> list[Effect]:
        """Close a peer because of what it sent."""
        if not isinstance(error, _COMES_BACK):
            self.waiting.drop(peer_id)
        effects = self._forget(peer_id, now)  # nothing more is taken from it; the roster hears of PeerLeft later
        return [*effects, *self._refuse(peer_id, error), *_violations(peer.actor, error)]

    def _decline(self, peer_id: PeerId, peer: Peer, error: AccessDenied | SessionClosed) -> list[Effect]:
        """Refuse a change, say so, and go on: who may not write may read.

        A connection that ended here would end again each time it came back, since its client brings the change again.

        Raises:
            AccessDenied, SessionClosed: it is the connection of a lease's holder, who has nothing to read on for.
            TooSlow: it does not read what it is told.
        """
        if peer.actor.lease is not None:
            raise error
        effects = self._owe(peer_id, peer, PermissionDenied(str(error)))
        if not peer.known and peer.answered:  # nothing said that what it brought is of another session
            effects += self._recognize(peer_id, peer)
        return [*effects, *_first_violation(peer, error)]

    def _introduce(self, peer_id: PeerId, peer: Peer) -> list[Effect]:
        """From now on, tell a peer who else is here."""
        peer.introduced = True
        return [Ready(peer_id)] if self.roster.version else []

    def _refuse(self, peer_id: PeerId, error: CrdtSessionsError) -> list[Effect]:
        effects: list[Effect] = [ClosePeer(peer_id, error)]
        if isinstance(error, PanickedUpdate):
            effects.append(Reload(error))
        return effects

    def _dispatch(
        self, peer_id: PeerId, peer: Peer, frame: Frame, now: Millis, judged: _Judged | None
    ) -> list[Effect] | _Doubt:
        match frame:
            case Update():
                return self._take_update(peer_id, peer, frame.update, now, judged)
            case SyncStep2():
                return self._take_answer(peer_id, peer, frame.update, now, judged)
            case SyncStep1(state_vector):
                theirs = decode_state_vector(state_vector)  # refuse now what could not be answered later
                strange = bool(theirs) and peer.cursor is None and not self._shares(theirs)
                peer.told_what_it_has(frame, now, strange=strange)
                return [Ready(peer_id)]
            case AwarenessFrame(payload):
                return self._hear(peer_id, peer, payload, now)
            case QueryAwareness():
                peer.asks_who = True
                return [Ready(peer_id)]
            case Ack():
                return self._promise(peer_id, peer, frame)
            case Hold(token):
                return self._hold(peer_id, peer, token, now)
            case PermissionDenied():
                raise UnknownFrame(kind=2)  # only a server says that
            case _:
                assert_never(frame)

    def _take_answer(
        self, peer_id: PeerId, peer: Peer, update: bytes, now: Millis, judged: _Judged | None
    ) -> list[Effect] | _Doubt:
        peer.answered = True
        taken = self._take_update(peer_id, peer, update, now, judged)
        if peer.known or isinstance(taken, _Doubt):
            return taken
        return [*taken, *self._recognize(peer_id, peer)]

    def _take_update(
        self, peer_id: PeerId, peer: Peer, update: bytes, now: Millis, judged: _Judged | None
    ) -> list[Effect] | _Doubt:
        if update == EMPTY_UPDATE:
            return []  # as most have nothing that is new when they join
        writes = peer.actor.rights.write
        verdict = self._vouch(update, judged)
        if verdict is None:
            return _Doubt(update, apply=writes and self.writable and self.admission.outage is None)
        if judged is not None or not writes or self.admission.outage is not None or not self.writable:
            merges = self._may_merge(update, verdict, judged, writes=writes)
            if isinstance(merges, _Doubt):
                return merges
            if not merges:
                return []
        foreign = self._writers.foreign
        effects, later = self._merger.merge(update, verdict, peer_id, peer.actor, now)
        if later is not None:
            effects += self._keep(later, peer_id, peer.actor, now)
        if self._writers.foreign > foreign:  # it is only recorded
            effects.append(Violation(peer.actor.principal, "client"))
        return effects

    def _shares(self, theirs: Mapping[int, int]) -> bool:
        """Whether a replica with that state vector has a part of the document, or the document is empty."""
        ours = self._merger.clocks()
        return not ours or not ours.keys().isdisjoint(theirs)

    def _recognize(self, peer_id: PeerId, peer: Peer) -> list[Effect]:
        """Accept a peer as one of this session: it has sent all it has."""
        promises = [effect for early in peer.recognized() for effect in self._owe(peer_id, peer, early)]
        return [Ready(peer_id), *promises]

    def _promise(self, peer_id: PeerId, peer: Peer, ack: Ack) -> list[Effect]:
        if len(ack.payload) > self.limits.max_ack_bytes:
            raise TooLarge(what="an acknowledgement", size=len(ack.payload), limit=self.limits.max_ack_bytes)
        return self._owe(peer_id, peer, ack)

    def _owe(self, peer_id: PeerId, peer: Peer, answer: Answer) -> list[Effect]:
        """Have a peer told what became of what it sent, behind what it is told of earlier ones."""
        if peer.unread_answers >= self.limits.max_unread_acks:
            raise TooSlow(what="too many acknowledgements are unread")
        if peer.left_out:
            peer.early.append(answer)
            return []
        if (last := self.waiting.last_of(peer_id)) is not None:
            peer.held.append((last, answer))
            return []
        peer.due.append((self.log.head, answer))
        return [Ready(peer_id)]

    def _hold(self, peer_id: PeerId, peer: Peer, token: str, now: Millis) -> list[Effect]:
        """Make a connection the one of a lease's holder, which announces a presence of its own."""
        former = peer.actor.lease
        self._attach(peer, token, now)
        if former is not None:
            self.runs.leases.detached(*former, now)
        return self._presence(lambda: self.roster.leave(peer_id, now, abrupt=False))

    def _hear(self, peer_id: PeerId, peer: Peer, payload: bytes, now: Millis) -> list[Effect]:
        entries = decode_awareness(payload)
        for entry in entries:
            if len(entry.state) > self.limits.max_presence_bytes:
                raise TooLarge(what="a presence", size=len(entry.state), limit=self.limits.max_presence_bytes)
        forged, overheard, told = self.roster.forged, self.roster.overheard, peer.presence_version
        effects = self._presence(lambda: self.roster.hear(peer_id, peer.actor, entries, now, told=told))
        if self.roster.forged > forged:
            effects.append(Violation(peer.actor.principal, "presence"))
        peer.tabs = peer.tabs or self.roster.overheard > overheard
        if self.roster.speaks_for_several(peer_id):
            peer.tabs = True
            if now >= peer.asked_at + _TABS_MS:
                effects += self._ask(peer_id, now)
        return effects

    def _presence(self, change: Callable[[], None]) -> list[Effect]:
        before = self.roster.version
        change()
        return [Ready(None)] if self.roster.version != before else []

    def _watch(self, now: Millis) -> list[Effect]:
        effects: list[Effect] = []
        for peer_id, peer in list(self._peers.items()):
            if peer.stays_strange(now):
                if peer.left_out:
                    error = TooSlow(
                        what="the service's SyncStep1 was not answered, and what was written waits for that"
                    )
                    effects += self._close(peer_id, peer, error, now)
                    continue
                peer.stranger_since = None
                effects.append(Ready(peer_id))
            silent = now - peer.heard >= self.timing.silent_peer_s * 1000
            if silent and self.roster.announces(peer_id):
                effects.append(ClosePeer(peer_id, TooSlow(what="the presence was not renewed")))
            elif now - peer.told >= self.timing.keepalive_s * 1000:
                effects.append(Ready(peer_id))
            elif not peer.introduced and now - peer.told >= INTRODUCED_MS:
                effects += self._introduce(peer_id, peer)
            if peer.tabs and now >= peer.asked_at + REMIND_MS:
                peer.tabs = self.roster.speaks_for_several(peer_id)
                effects += self._ask(peer_id, now)
        return effects

    # -- updates that wait for others ------------------------------------------------------------------------------

    def _keep(self, later: Later, author: PeerId, actor: Actor, now: Millis) -> list[Effect]:
        """Keep an update that must wait, and ask its author for what it needs."""
        self._looked = None  # it may be there by now
        return self._ask(author, now) if self.waiting.add(later, author, actor) else []

    def _ask(self, peer_id: PeerId, now: Millis) -> list[Effect]:
        """Ask a peer what it has, unless it was asked and may still answer."""
        peer = self._peers.get(peer_id)
        if peer is None or not peer.may_be_asked(now):
            return []
        peer.ask(now)
        return [Ready(peer_id)]

    def _ask_all(self, now: Millis) -> list[Effect]:
        """Ask every peer what it has: a tab may know from another tab what that one never sent."""
        if now - self._asked_all < _ASK_ALL_MS:
            return []
        self._asked_all = now
        return [effect for peer_id in self._peers for effect in self._ask(peer_id, now)]

    def _look_at_waiting(self, now: Millis) -> list[Effect]:
        """Queue the waiting updates that can be taken now, and forget those that came by another way."""
        if not self._waits or self._looked == self.log.head:
            return []
        self._looked = self.log.head
        due, done = self.waiting.ready(self._merger.clocks(), now)
        for each in due:
            self.admission.due(each.number)
        return [effect for each in done for effect in self._release(each.author)]

    def _watch_waiting(self, now: Millis) -> list[Effect]:
        """Repeat trials without an outcome, ask again for what is missing, forget what is too old."""
        self.waiting.expire(Millis(now - int(self.timing.waiting_s * 1000)))
        effects = self._look_at_waiting(now)
        for each in self.waiting.overdue(Millis(now - _TRIED_MS)) if self.writable else ():
            each.tried = now
            self.admission.due(each.number)
        for author in list(self.waiting.authors):
            peer = self._peers.get(author)
            if peer is not None and (not peer.answered or now - peer.asked_at >= REMIND_MS):
                effects += self._ask(author, now)
        return effects

    def _take_waiting(self, due: Due, now: Millis, judged: _Judged | None) -> list[Effect]:
        """Take a waiting update that is due, with its author's present rights."""
        waiting = self.waiting.get(due.number)
        if waiting is None:
            return []
        try:
            verdict = self._vouch(waiting.later.update, judged)
            if not self.writable or self.admission.outage is not None:
                return []  # it is tried again, in a while
            if verdict is None:
                return self._wait(due, _Doubt(waiting.later.update, apply=True), now)
            return self._take_due_one(waiting, verdict, now)
        except (StorageError, Overloaded):
            return []  # so is that
        except (UpdateError, WrongLineage) as error:
            self.waiting.take(waiting.number)
            return self._went_on(waiting, self._blame(waiting, error, now), now)

    def _take_due_one(self, waiting: WaitingUpdate, verdict: Vouched, now: Millis) -> list[Effect]:
        self.waiting.take(waiting.number)
        peer = self._peers.get(waiting.author) if waiting.author is not None else None
        try:
            effects = self._merge_waiting(waiting, verdict, peer.actor if peer is not None else waiting.actor, now)
        except (UpdateError, WrongLineage, TooLarge, TooMany, AccessDenied, LeaseLost) as error:
            effects = self._blame(waiting, error, now)
        return self._went_on(waiting, effects, now)

    def _went_on(self, waiting: WaitingUpdate, effects: list[Effect], now: Millis) -> list[Effect]:
        self._looked = None
        return [*effects, *self._release(waiting.author), *self._look_at_waiting(now)]

    def _merge_waiting(
        self, waiting: WaitingUpdate, verdict: Vouched, actor: Actor | None, now: Millis
    ) -> list[Effect]:
        """Take as much of it as possible, and put the rest back.

        Raises:
            UpdateError, AccessDenied, LeaseLost, TooLarge: it is not taken.
        """
        if actor is not None and not actor.rights.write:
            raise AccessDenied(what="this connection is read-only")
        if actor is not None and actor.lease is not None and not self.runs.table.holds(*actor.lease):
            raise LeaseLost(run=actor.lease[0])
        effects, later = self._merger.merge(waiting.later.update, verdict, waiting.author, actor, now)
        if later is not None:
            self.waiting.put(replace(waiting, later=later))
        return effects

    def _blame(self, waiting: WaitingUpdate, error: CrdtSessionsError, now: Millis) -> list[Effect]:
        """Tell the connection that sent a waiting update which was refused, or close it, if it is still there."""
        peer = self._peers.get(waiting.author) if waiting.author is not None else None
        if waiting.author is not None and peer is not None:
            if isinstance(error, AccessDenied) and peer.actor.lease is None:
                peer.refuse_held(waiting.number, PermissionDenied(str(error)))
                return _first_violation(peer, error)
            return self._close(waiting.author, peer, error, now)
        effects: list[Effect] = [Reload(error)] if isinstance(error, PanickedUpdate) else []
        return effects if waiting.actor is None else [*effects, *_violations(waiting.actor, error)]

    def _release(self, author: PeerId | None) -> list[Effect]:
        """Let go of a peer's acknowledgements that waited for an update which has arrived."""
        peer = self._peers.get(author) if author is not None else None
        if author is None or peer is None or not peer.held:
            return []
        peer.release(self.waiting.first_of(author), self.log.head)
        return [Ready(author)]


def _first_violation(peer: Peer, error: CrdtSessionsError) -> list[Effect]:
    """Return the violation, if it is the first of a connection: one that goes on may do the same a thousand times."""
    first, peer.declined = not peer.declined, True
    return _violations(peer.actor, error) if first else []


def _violations(actor: Actor, error: CrdtSessionsError) -> list[Effect]:
    """Return the violation that the audit log must have of a refusal."""
    if not isinstance(error, AccessDenied):
        return []
    return [Violation(actor.principal, "client" if isinstance(error, ForeignWriter) else "write")]
