"""The session engine: events in, effects out.

It holds one Yjs document, the peers attached to it, the log they read and the roster of who is present.
It never sends, stores, sleeps or looks at a clock. The runtime performs the effects in the order given,
feeds the outcomes back as events, and lets each connection :meth:`~SessionEngine.take` what it is owed.

Invariants:

1. An update is known to apply before it is persisted, so bytes that the CRDT rejects are never stored: it was
   applied, or it is text that goes on where its client's last text ended. That may be applied later, but before
   anybody sees the document (``docs/decisions/0058-known-to-apply-before-stored.md``).
2. An update that needs another one which has not arrived is not applied: it waits, unstored and unacknowledged, and
   the peer that sent it is asked for the rest. It stays its author's, whoever sends the rest. An echo is neither
   stored nor sent.
3. A peer is sent no Update before its SyncStep1 was answered.
4. An update is broadcast, and acknowledged, only after its row was committed.
5. What a peer is owed is a cursor into shared state: nobody has a queue that can grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, assert_never

from crdt_sessions.errors import CrdtSessionsError, MalformedUpdate, PanickedUpdate, SessionClosed
from crdt_sessions.ids import ClientId, Millis, PeerId, Seq
from crdt_sessions.limits import Limits, RunRules, Timing
from crdt_sessions.model import Later, SessionDoc, SessionView
from crdt_sessions.sync.actor import NOBODY_KNOWN, Actor, Asker
from crdt_sessions.sync.admission import Admission, Due, Message, Request, Work
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.asleep import Asleep
from crdt_sessions.sync.attached import Attached
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.brought import BroughtUpdates
from crdt_sessions.sync.changes import ChangeIndex
from crdt_sessions.sync.due import DueUpdates
from crdt_sessions.sync.events import (
    Committed,
    Effect,
    Event,
    FrameReceived,
    FrameRefused,
    PeerJoined,
    PeerLeft,
    PrincipalChanged,
    Ready,
    Refused,
    RightsChanged,
    StoreChanged,
    Tick,
    Tried,
    UpdateBrought,
)
from crdt_sessions.sync.inbound import Inbound
from crdt_sessions.sync.log import LogMemory, UpdateLog
from crdt_sessions.sync.merge import EngineFailed, Merger, moved
from crdt_sessions.sync.owed import Owed
from crdt_sessions.sync.panics import Panics
from crdt_sessions.sync.presence import Presence
from crdt_sessions.sync.records import RunRecord, Writer
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.steward import Steward
from crdt_sessions.sync.verdicts import Judged, Verdicts
from crdt_sessions.sync.waiting import WaitingUpdates
from crdt_sessions.sync.writers import Writers
from crdt_sessions.wire import AwarenessEntry, Frame, Shared

Result = TypeVar("Result")

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
        asleep: what the former engine of this session left, whose peers have stayed.

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
        asleep: Asleep | None = None,
    ) -> None:
        aside = aside or Aside()
        self.session = session
        self.document = document
        self.view = SessionView(document)
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.log = UpdateLog(after, self.limits.log_bytes, log_memory)
        self.roster = asleep.roster if asleep is not None else Roster(self.limits, self.timing)
        self.changes = ChangeIndex()
        self.runs = RunSteward(self.view, runs, rules or RunRules(), aside)
        self._panics = panics if panics is not None else Panics()
        self._steward = Steward(self.view, settled_meta, self.runs, aside)
        self._writers = Writers(writers, enforce=enforce, announced_by=self.roster.announced_by)
        self.waiting = WaitingUpdates(self.limits)
        """Updates that need others which have not arrived."""
        self.admission = Admission(self.limits.max_frame_bytes)
        """Messages and requests that wait for a trial, or for the store."""
        self._attached = Attached(
            self.log, self.roster, self.runs, self.admission, self.waiting, self.limits, self.timing
        )
        self._peers = self._attached.peers
        if asleep is not None:
            self._attached.welcome(asleep.peers)
        self._presence = Presence(self.roster, self._attached, self.limits, self.timing)
        self.guests = self._presence.guests
        """Those who are present without a connection."""
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
        self._verdicts = Verdicts(session, self._merger, self.admission, self._steward)
        self._due = DueUpdates(
            self.waiting,
            self.log,
            self._merger,
            self._verdicts,
            self.admission,
            self._attached,
            self.runs,
            self.timing,
        )
        self._inbound = Inbound(
            self._attached,
            self._presence,
            self.admission,
            self._verdicts,
            self._merger,
            self._due,
            self._writers,
            self.runs,
            self.limits,
        )
        self._brought = BroughtUpdates(self.admission, self._verdicts, self._merger, self._due)
        self.owed = Owed(self.log, self.roster, self._merger, self.timing)
        """What peers are sent."""

    # -- events ----------------------------------------------------------------------------------------------

    @moved
    def start(self, now: Millis) -> list[Effect]:
        """Settle what the loaded document left open. Call once, first."""
        self._merger.start(now)
        return [*self._merger.carry_out(), *self._due.look(now), *self._admit(now)]

    def waits_on_record(self, later: Later) -> None:
        """Take over an update of the loaded rows that could not be integrated. Call before :meth:`start`."""
        self.waiting.add(later, None, None)

    def handle(self, event: Event, now: Millis) -> list[Effect]:
        """Take *event* and return what the runtime must now do, in order."""
        if isinstance(event, FrameReceived):
            effects = self._inbound.receive(event.peer, event.frames, now)
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
                return self._inbound.receive(event.peer, [], now, event.error)
            case Tried():
                return self._go_on(event, now)
            case UpdateBrought():
                self._brought.receive(event)
                return []
            case StoreChanged(outage):
                self.admission.store_takes(outage)
                return []
            case PeerJoined():
                return self._attached.join(event, now)
            case RightsChanged(peer, rights):
                self._attached.change_rights(peer, rights)
                return []
            case PrincipalChanged(principal):
                self.waiting.forget(principal)
                return self._presence.forget_guests(principal, now)
            case PeerLeft(peer, abrupt):
                asked = self._attached.forget(peer, now)
                return [*asked, *self._presence.leave(peer, now, abrupt=abrupt)]
            case Tick():
                return self._tick(now)
            case _:
                assert_never(event)

    def _tick(self, now: Millis) -> list[Effect]:
        if self.runs.calls.waiting:
            self.runs.calls.hear({str(client) for client in self.roster.present()}, now)
        self.document.settle()
        self.runs.tick(now)
        self._trim()
        effects = [*self._merger.carry_out(), *self._presence.tick(now), *self._attached.watch(now)]
        if self.admission.any_aside:
            effects += self._attached.watch_aside(now)
        return [*effects, *self._due.watch(now)] if len(self.waiting) else effects

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
        self.settle()
        try:
            result = self.document.transact(lambda _: change(self.view))
        except Exception as error:
            raise EditFailed(self._edited(now, by)) from error
        return result, self._edited(now, by)

    @moved
    def _edited(self, now: Millis, by: Asker) -> list[Effect]:
        effects = self._merger.edited(now, by)
        return [*effects, *self._due.look(now), *self._admit(now)] if effects else []

    def forget_presence(self, principal: str, now: Millis) -> tuple[int, list[Effect]]:
        """Remove the presence of a principal; return the number of its clients, and the effects."""
        return self._presence.forget(principal, now)

    def announce(
        self, actor: Actor, name: str, client: ClientId, state: str, until: Millis, now: Millis
    ) -> tuple[ClientId, list[Effect]]:
        """Announce the presence of somebody without a connection; as :meth:`Guests.announce`, with the effects."""
        return self._presence.announce(actor, name, client, state, until, now)

    def relay(self, actor: Actor, entry: AwarenessEntry, until: Millis, now: Millis) -> list[Effect]:
        """Take what a Yjs client without a connection says of itself; as :meth:`Guests.relay`, with the effects."""
        return self._presence.relay(actor, entry, until, now)

    def withdraw(self, principal: str, name: str, now: Millis) -> list[Effect]:
        """End a presence that was announced without a connection, if there is one; return the effects."""
        return self._presence.withdraw(principal, name, now)

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
        return self._verdicts.writable

    def rests_until(self, now: Millis) -> Millis:
        """Return the earliest time at which a :class:`Tick` has something to do, if nobody joins or leaves.

        That is now while something may become due at any moment: a lease runs, somebody's connection broke.
        """
        if self.runs.table.timed() or self.roster.waiting or len(self.waiting) or self.admission.outage is not None:
            return now
        return Millis(min([*self._attached.due(), *self._presence.due(now)]))

    def may_sleep(self, soon: Millis) -> bool:
        """Whether everybody has everything, nothing is awaited of anybody, and nothing is due before *soon*."""
        runs, admission = self.runs, self.admission
        waits = runs.calls.waiting or len(self.waiting) or len(self.guests) or self.roster.waiting
        busy = admission.trial is not None or admission.queue or admission.held or admission.outage is not None
        head, present = self.log.head, self.roster.version
        return (
            not (waits or busy or runs.table.due_before(soon))
            and self.log.tail == head
            and all(peer.has_everything(head, present) for peer in self._peers.values())
        )

    def sleep(self) -> Asleep:
        """Return what the next engine of this session goes on with. Of this one only :attr:`document` may be used."""
        return Asleep(self.roster, self._peers, self.log.head, self.timing)

    @moved
    def settle(self) -> None:
        """Let the document take what was deferred.

        Raises:
            EngineFailed: it does not.
        """
        self.document.settle()

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

    # -- what waits for a trial, or for the store ------------------------------------------------------------------

    def _admit(self, now: Millis) -> list[Effect]:
        """Take everything whose turn it is, one after the other."""
        effects: list[Effect] = []
        while self.admission.moves:
            effects += self._take_work(self.admission.next(), now)
        return effects

    def _take_work(self, work: Work, now: Millis, judged: Judged | None = None) -> list[Effect]:
        match work:
            case Message():
                peer = self._peers.get(work.peer)
                return self._inbound.take_message(work, peer, now, judged) if peer is not None else []
            case Request():
                return self._brought.take(work, now, judged)
            case Due():
                return self._due.take(work, now, judged)
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
        return self._take_work(trial.work, now, Judged(verdict, trial.apply))
