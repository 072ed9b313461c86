"""The connections of a session: who joins and leaves, what they are asked and answered, and why they are closed.

What a connection is sent follows from its record (:class:`~crdt_sessions.sync.peers.Peer`), as
:mod:`crdt_sessions.sync.owed` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from crdt_sessions.errors import (
    AccessDenied,
    CrdtSessionsError,
    ForeignWriter,
    LeaseLost,
    Overloaded,
    PanickedUpdate,
    SessionClosed,
    StorageError,
    TooLarge,
    TooMany,
    TooSlow,
)
from crdt_sessions.ids import Millis, PeerId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.sync.actor import Actor, Rights
from crdt_sessions.sync.admission import Admission
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.events import ClosePeer, Effect, PeerJoined, Ready, Reload, Violation
from crdt_sessions.sync.log import UpdateLog
from crdt_sessions.sync.peers import INTRODUCED_MS, REMIND_MS, STRANGER_MS, Answer, Peer
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.waiting import WaitingUpdates
from crdt_sessions.wire import PermissionDenied

_ASK_ALL_MS = 30_000
"""When a peer has gone, all others are asked what they have, at most once in this time."""
_COMES_BACK = (TooLarge, TooMany, TooSlow, SessionClosed, StorageError, Overloaded)
"""Refusals that say nothing against what a peer brought before."""


class Attached:
    """The connections of one session.

    Args:
        log: what was written.
        roster: who is present.
        runs: knows the leases.
        admission: has the messages that wait.
        waiting: the updates that need others which have not arrived.
        limits: sizes.
        timing: periods.
    """

    def __init__(
        self,
        log: UpdateLog,
        roster: Roster,
        runs: RunSteward,
        admission: Admission,
        waiting: WaitingUpdates,
        limits: Limits,
        timing: Timing,
    ) -> None:
        self._log = log
        self._roster = roster
        self._runs = runs
        self._admission = admission
        self._waiting = waiting
        self._limits = limits
        self._timing = timing
        self.peers: dict[PeerId, Peer] = {}
        """The records of the connections. It is always the same dictionary."""
        self._asked_all = Millis(0)

    # -- coming and going ------------------------------------------------------------------------------------------

    def join(self, event: PeerJoined, now: Millis) -> list[Effect]:
        """Add a connection, unless it comes with a lease that has ended."""
        peer = Peer(Actor(event.principal, event.rights), now, now, now, stranger_since=now)
        try:
            if event.lease is not None:
                self.attach(peer, event.lease, now)
        except LeaseLost as error:
            return [ClosePeer(event.peer, error)]
        self.peers[event.peer] = peer
        return [Ready(event.peer)]

    def welcome(self, peers: Mapping[PeerId, Peer]) -> None:
        """Take over connections that stayed while the session slept."""
        self.peers.update(peers)

    def attach(self, peer: Peer, token: str, now: Millis) -> None:
        """Make a connection the one of a lease's holder."""
        record = self._runs.table.holder(token)
        if record is None:
            raise LeaseLost
        self._runs.leases.attached(record.id, now)
        peer.actor = replace(peer.actor, lease=(record.id, record.epoch))

    def forget(self, peer_id: PeerId, now: Millis) -> list[Effect]:
        """Note that a connection has ended. If it leaves waiting updates, ask the others for what these need."""
        peer = self.peers.pop(peer_id, None)
        if peer is None:
            return []
        self._admission.drop(peer_id)
        if peer.actor.lease is not None:
            self._runs.leases.detached(*peer.actor.lease, now)
        return self.ask_all(now) if self._waiting.left(peer_id, peer.actor, now) else []

    def change_rights(self, peer_id: PeerId, rights: Rights) -> None:
        """Note what a connection may do from now on."""
        peer = self.peers.get(peer_id)
        if peer is not None:
            peer.actor = replace(peer.actor, rights=rights)

    # -- closing ---------------------------------------------------------------------------------------------------

    def close(self, peer_id: PeerId, peer: Peer, error: CrdtSessionsError, now: Millis) -> list[Effect]:
        """Close a peer because of what it sent."""
        if not isinstance(error, _COMES_BACK):
            self._waiting.drop(peer_id)
        effects = self.forget(peer_id, now)  # nothing more is taken from it; the roster hears of PeerLeft later
        return [*effects, *self._refuse(peer_id, error), *violations(peer.actor, error)]

    def _refuse(self, peer_id: PeerId, error: CrdtSessionsError) -> list[Effect]:
        effects: list[Effect] = [ClosePeer(peer_id, error)]
        if isinstance(error, PanickedUpdate):
            effects.append(Reload(error))
        return effects

    def watch_aside(self, now: Millis) -> list[Effect]:
        """Close peers that have waited too long for the store."""
        effects: list[Effect] = []
        for peer_id in self._admission.lost_patience(Millis(now - int(self._timing.storage_patience_s * 1000))):
            peer, outage = self.peers.get(peer_id), self._admission.outage
            if peer is not None and outage is not None:
                effects += self.close(peer_id, peer, outage, now)
        return effects

    # -- answers ---------------------------------------------------------------------------------------------------

    def recognize(self, peer_id: PeerId, peer: Peer) -> list[Effect]:
        """Accept a peer as one of this session: it has sent all it has."""
        promises = [effect for early in peer.recognized() for effect in self.owe(peer_id, peer, early)]
        return [Ready(peer_id), *promises]

    def owe(self, peer_id: PeerId, peer: Peer, answer: Answer) -> list[Effect]:
        """Have a peer told what became of what it sent, behind what it is told of earlier ones."""
        if peer.unread_answers >= self._limits.max_unread_acks:
            raise TooSlow(what="too many acknowledgements are unread")
        if peer.left_out:
            peer.early.append(answer)
            return []
        if (last := self._waiting.last_of(peer_id)) is not None:
            peer.held.append((last, answer))
            return []
        peer.due.append((self._log.head, answer))
        return [Ready(peer_id)] if self._log.head <= self._log.tail else []  # the commit makes all peers ready

    def decline(self, peer_id: PeerId, peer: Peer, error: AccessDenied | SessionClosed) -> list[Effect]:
        """Refuse a change, say so, and go on: who may not write may read.

        A connection that ended here would end again each time it came back, since its client brings the change again.

        Raises:
            AccessDenied, SessionClosed: it is the connection of a lease's holder, who has nothing to read on for.
            TooSlow: it does not read what it is told.
        """
        if peer.actor.lease is not None:
            raise error
        effects = self.owe(peer_id, peer, PermissionDenied(str(error)))
        if not peer.known and peer.answered:  # nothing said that what it brought is of another session
            effects += self.recognize(peer_id, peer)
        return [*effects, *first_violation(peer, error)]

    def release(self, author: PeerId | None) -> list[Effect]:
        """Let go of a peer's acknowledgements that waited for an update which has arrived."""
        peer = self.peers.get(author) if author is not None else None
        if author is None or peer is None or not peer.held:
            return []
        peer.release(self._waiting.first_of(author), self._log.head)
        return [Ready(author)]

    # -- what they are asked and told in time ------------------------------------------------------------------------

    def introduce(self, peer_id: PeerId, peer: Peer) -> list[Effect]:
        """From now on, tell a peer who else is here."""
        peer.introduced = True
        return [Ready(peer_id)] if self._roster.version else []

    def ask(self, peer_id: PeerId, now: Millis) -> list[Effect]:
        """Ask a peer what it has, unless it was asked and may still answer."""
        peer = self.peers.get(peer_id)
        if peer is None or not peer.may_be_asked(now):
            return []
        peer.ask(now)
        return [Ready(peer_id)]

    def ask_all(self, now: Millis) -> list[Effect]:
        """Ask every peer what it has: a tab may know from another tab what that one never sent."""
        if now - self._asked_all < _ASK_ALL_MS:
            return []
        self._asked_all = now
        return [effect for peer_id in self.peers for effect in self.ask(peer_id, now)]

    def watch(self, now: Millis) -> list[Effect]:
        """Close who is silent or stays a stranger, and do what is due: keepalives, introductions, questions."""
        effects: list[Effect] = []
        for peer_id, peer in list(self.peers.items()):
            if peer.stays_strange(now):
                if peer.left_out:
                    error = TooSlow(
                        what="the service's SyncStep1 was not answered, and what was written waits for that"
                    )
                    effects += self.close(peer_id, peer, error, now)
                    continue
                peer.stranger_since = None
                effects.append(Ready(peer_id))
            silent = now - peer.heard >= self._timing.silent_peer_s * 1000
            if silent and self._roster.announces(peer_id):
                effects.append(ClosePeer(peer_id, TooSlow(what="the presence was not renewed")))
            elif now - peer.told >= self._timing.keepalive_s * 1000:
                effects.append(Ready(peer_id))
            elif not peer.introduced and now - peer.told >= INTRODUCED_MS:
                effects += self.introduce(peer_id, peer)
            if peer.tabs and now >= peer.asked_at + REMIND_MS:
                peer.tabs = self._roster.speaks_for_several(peer_id)
                effects += self.ask(peer_id, now)
        return effects

    def due(self) -> Iterator[Millis]:
        """Yield the times at which :meth:`watch` has something to do, if no lease runs and nothing waits."""
        quiet, silent = int(self._timing.keepalive_s * 1000), int(self._timing.silent_peer_s * 1000)
        for peer_id, peer in self.peers.items():
            yield Millis(peer.told + (quiet if peer.introduced else INTRODUCED_MS))
            if peer.tabs:
                yield Millis(peer.asked_at + REMIND_MS)
            if peer.stranger_since is not None:
                yield Millis(peer.stranger_since + STRANGER_MS)
            if self._roster.announces(peer_id):
                yield Millis(peer.heard + silent)


def first_violation(peer: Peer, error: CrdtSessionsError) -> list[Effect]:
    """Return the violation, if it is the first of a connection: one that goes on may do the same a thousand times."""
    first, peer.declined = not peer.declined, True
    return violations(peer.actor, error) if first else []


def violations(actor: Actor, error: CrdtSessionsError) -> list[Effect]:
    """Return the violation that the audit log must have of a refusal."""
    if not isinstance(error, AccessDenied):
        return []
    return [Violation(actor.principal, "client" if isinstance(error, ForeignWriter) else "write")]
