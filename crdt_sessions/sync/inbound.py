"""What peers send: the frames of each message, taken in order, up to an update that must be tried first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from crdt_sessions.errors import (
    AccessDenied,
    LeaseLost,
    Overloaded,
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
from crdt_sessions.ids import Millis, PeerId
from crdt_sessions.limits import Limits
from crdt_sessions.sync.admission import Admission, Message
from crdt_sessions.sync.attached import Attached
from crdt_sessions.sync.due import DueUpdates
from crdt_sessions.sync.events import Effect, Ready, Resume, Violation
from crdt_sessions.sync.merge import Merger
from crdt_sessions.sync.peers import Peer
from crdt_sessions.sync.presence import Presence
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.verdicts import Doubt, Judged, Verdicts
from crdt_sessions.sync.writers import Writers
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    Ack,
    AwarenessFrame,
    Frame,
    Hold,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
)
from crdt_sessions.wire.varint import decode_state_vector

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


class Inbound:
    """Takes what the peers of one session send.

    Args:
        attached: the connections.
        presence: hears who is present.
        admission: holds messages that must wait.
        verdicts: tells which updates may be taken.
        merger: moves the document.
        due: keeps updates that need others.
        writers: counts new structs of somebody else's clients.
        runs: hears that holders of leases are alive.
        limits: sizes.
    """

    def __init__(
        self,
        attached: Attached,
        presence: Presence,
        admission: Admission,
        verdicts: Verdicts,
        merger: Merger,
        due: DueUpdates,
        writers: Writers,
        runs: RunSteward,
        limits: Limits,
    ) -> None:
        self._attached = attached
        self._peers = attached.peers
        self._presence = presence
        self._admission = admission
        self._verdicts = verdicts
        self._merger = merger
        self._due = due
        self._waits = due.waiting.clients
        self._writers = writers
        self._runs = runs
        self._limits = limits

    def receive(
        self, peer_id: PeerId, frames: list[Frame], now: Millis, refused: WireError | TooLarge | None = None
    ) -> list[Effect]:
        """Take a message of a peer, or hold it while earlier work waits; *refused* says why it cannot be read."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return []
        admission = self._admission
        if admission.trial is None and refused is None and peer_id not in admission.held:  # as nearly always
            return self._take_frames(peer_id, peer, frames, now)
        message = Message(peer_id, frames, refused)
        if admission.trial is None and peer_id not in admission.held:
            return self.take_message(message, peer, now)
        peer.heard = now
        try:
            admission.hold(message)
        except TooMany as error:
            return self._attached.close(peer_id, peer, error, now)
        return []

    def take_message(self, message: Message, peer: Peer, now: Millis, judged: Judged | None = None) -> list[Effect]:
        """Take a message that has waited, or the rest of one."""
        if message.refused is not None:
            peer.heard = now
            effects = self._attached.close(message.peer, peer, message.refused, now)
        else:
            effects = self._take_frames(message.peer, peer, message.frames, now, judged)
        return effects if message.peer in self._admission.held else [*effects, Resume(message.peer)]

    def _take_frames(
        self, peer_id: PeerId, peer: Peer, frames: list[Frame], now: Millis, judged: Judged | None = None
    ) -> list[Effect]:
        """Take the frames of a message, up to an update that nobody can vouch for: the rest waits for its trial."""
        peer.heard = now
        if peer.actor.lease is not None:
            self._runs.leases.renew(*peer.actor.lease, now)
        effects: list[Effect] = []
        try:
            if not peer.known:
                frames = peer.leave_out_early(frames, now)
            for at, frame in enumerate(frames):
                try:
                    taken = self._dispatch(peer_id, peer, frame, now, judged)
                except (AccessDenied, SessionClosed) as error:
                    taken = self._attached.decline(peer_id, peer, error)
                if isinstance(taken, Doubt):
                    return [*effects, *self._verdicts.wait(Message(peer_id, frames[at:]), taken, now)]
                effects += taken
                judged = None
                if not peer.introduced and not isinstance(frame, SyncStep1):
                    effects += self._attached.introduce(peer_id, peer)
        except _REFUSALS as error:
            effects += self._attached.close(peer_id, peer, error, now)
        if self._waits:
            effects += self._due.look(now)
        return effects

    def _dispatch(
        self, peer_id: PeerId, peer: Peer, frame: Frame, now: Millis, judged: Judged | None
    ) -> list[Effect] | Doubt:
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
                return self._presence.hear(peer_id, peer, payload, now)
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
        self, peer_id: PeerId, peer: Peer, update: bytes, now: Millis, judged: Judged | None
    ) -> list[Effect] | Doubt:
        peer.answered = True
        taken = self._take_update(peer_id, peer, update, now, judged)
        if peer.known or isinstance(taken, Doubt):
            return taken
        return [*taken, *self._attached.recognize(peer_id, peer)]

    def _take_update(
        self, peer_id: PeerId, peer: Peer, update: bytes, now: Millis, judged: Judged | None
    ) -> list[Effect] | Doubt:
        if update == EMPTY_UPDATE:
            return []  # as most have nothing that is new when they join
        writes = peer.actor.rights.write
        verdict = self._verdicts.vouch(update, judged)
        if verdict is None:
            return Doubt(update, apply=writes and self._verdicts.writable and self._admission.outage is None)
        if judged is not None or not writes or self._admission.outage is not None or not self._verdicts.writable:
            merges = self._verdicts.may_merge(update, verdict, judged, writes=writes)
            if isinstance(merges, Doubt):
                return merges
            if not merges:
                return []
        foreign = self._writers.foreign
        effects, later = self._merger.merge(update, verdict, peer_id, peer.actor, now)
        if later is not None:
            effects += self._due.keep(later, peer_id, peer.actor, now)
        if self._writers.foreign > foreign:  # it is only recorded
            effects.append(Violation(peer.actor.principal, "client"))
        return effects

    def _shares(self, theirs: Mapping[int, int]) -> bool:
        """Whether a replica with that state vector has a part of the document, or the document is empty."""
        ours = self._merger.clocks()
        return not ours or not ours.keys().isdisjoint(theirs)

    def _promise(self, peer_id: PeerId, peer: Peer, ack: Ack) -> list[Effect]:
        if len(ack.payload) > self._limits.max_ack_bytes:
            raise TooLarge(what="an acknowledgement", size=len(ack.payload), limit=self._limits.max_ack_bytes)
        return self._attached.owe(peer_id, peer, ack)

    def _hold(self, peer_id: PeerId, peer: Peer, token: str, now: Millis) -> list[Effect]:
        """Make a connection the one of a lease's holder, which announces a presence of its own."""
        former = peer.actor.lease
        self._attached.attach(peer, token, now)
        if former is not None:
            self._runs.leases.detached(*former, now)
        return self._presence.leave(peer_id, now, abrupt=False)
