"""A session whose peers stay and do nothing: who is connected and who is present, and neither document nor engine.

Clients that do nothing renew their presence all the same, and hang up if they hear nothing. So much happens here;
for anything else the engine is made anew, of the session's rows and of this
(``docs/decisions/0073-sessions-that-sleep.md``).
"""

from __future__ import annotations

from collections.abc import Callable

from crdt_sessions.errors import TooSlow, WireError
from crdt_sessions.ids import Millis, PeerId, Seq
from crdt_sessions.limits import Timing
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.events import ClosePeer, Effect, Event, FrameReceived, PeerLeft, Ready, Tick
from crdt_sessions.sync.owed import keepalive, news_of_presence
from crdt_sessions.sync.peers import Peer
from crdt_sessions.sync.presence import told
from crdt_sessions.wire import AwarenessEntry, AwarenessFrame, Frame, Shared, decode_awareness


class Asleep:
    """What is left of an engine: made by :meth:`SessionEngine.sleep`, and given to the next one.

    Args:
        roster: who is present.
        peers: the connections. Each has the whole log, and is owed nothing.
        head: the last row of the session.
        timing: periods.
    """

    def __init__(self, roster: Roster, peers: dict[PeerId, Peer], head: Seq, timing: Timing) -> None:
        self.roster = roster
        self.peers = peers
        self.head = head
        self._timing = timing

    def handle(self, event: Event, now: Millis) -> list[Effect] | None:
        """Take *event* and return what the runtime must now do; None if the session must be woken up for it first."""
        match event:
            case FrameReceived(peer_id, frames):
                return self._hear(peer_id, frames, now)
            case PeerLeft(peer_id, abrupt):
                self.peers.pop(peer_id, None)
                return self._told(lambda: self.roster.leave(peer_id, now, abrupt=abrupt))
            case Tick():
                return self._tick(now)
            case _:
                return None

    def take(self, peer_id: PeerId, now: Millis) -> list[Frame | Shared]:
        """Return the frames a peer is owed now, and consider them sent."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return []
        if peer.presence_version < self.roster.version and (news := news_of_presence(self.roster, peer_id, peer)):
            peer.told = now
            return news
        return keepalive(peer, now) if now - peer.told >= self._timing.keepalive_s * 1000 else []

    def rests_until(self, now: Millis) -> Millis:
        """Return the earliest time at which a :class:`Tick` has something to do, if nobody leaves."""
        if self.roster.waiting:
            return now
        due, quiet = [self.roster.rests_until(now)], int(self._timing.keepalive_s * 1000)
        for peer_id, peer in self.peers.items():
            told = peer.told if now - peer.told < quiet else now  # one that is due is sent in this turn
            due.append(Millis(told + quiet))
            if self.roster.announces(peer_id):
                due.append(Millis(peer.heard + int(self._timing.silent_peer_s * 1000)))
        return min(due)

    def _hear(self, peer_id: PeerId, frames: list[Frame], now: Millis) -> list[Effect] | None:
        """Take a message that says nothing new."""
        peer = self.peers.get(peer_id)
        if peer is None:
            return []
        entries: list[AwarenessEntry] = []
        try:
            for frame in frames:
                if not isinstance(frame, AwarenessFrame):
                    return None
                entries += decode_awareness(frame.payload)
        except WireError:  # who is awake says so
            return None
        if not all(self.roster.renews(peer_id, entry, told=peer.presence_version) for entry in entries):
            return None
        peer.heard = now
        told = peer.presence_version
        return self._told(lambda: self.roster.hear(peer_id, peer.actor, entries, now, told=told))

    def _tick(self, now: Millis) -> list[Effect]:
        effects = self._told(lambda: self.roster.tick(now))
        for peer_id, peer in self.peers.items():
            silent = now - peer.heard >= self._timing.silent_peer_s * 1000
            if silent and self.roster.announces(peer_id):
                effects.append(ClosePeer(peer_id, TooSlow(what="the presence was not renewed")))
            elif now - peer.told >= self._timing.keepalive_s * 1000:
                effects.append(Ready(peer_id))
        return effects

    def _told(self, change: Callable[[], None]) -> list[Effect]:
        return told(self.roster, change)
