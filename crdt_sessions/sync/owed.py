"""What a peer is owed: answers, what others wrote, acknowledgements, presence. Nothing of it stands in a queue."""

from __future__ import annotations

from crdt_sessions.ids import Millis, PeerId
from crdt_sessions.limits import Timing
from crdt_sessions.sync.awareness import Roster
from crdt_sessions.sync.log import UpdateLog
from crdt_sessions.sync.merge import Merger
from crdt_sessions.sync.peers import Peer
from crdt_sessions.wire import KEEPALIVE, Frame, Shared, SyncStep1, SyncStep2, Update


class Owed:
    """Makes the frames that peers are sent. Nobody has a queue: a peer is a cursor into what all share.

    Args:
        log: what was written, as far as it is committed.
        roster: who is present.
        merger: has the document.
        timing: how long a peer may hear nothing.
    """

    def __init__(self, log: UpdateLog, roster: Roster, merger: Merger, timing: Timing) -> None:
        self._log = log
        self._roster = roster
        self._merger = merger
        self._keepalive_ms = timing.keepalive_s * 1000

    def take(self, peer_id: PeerId, peer: Peer, now: Millis) -> list[Frame | Shared]:
        """Return the frames *peer* is owed now, and consider them sent."""
        frames: list[Frame | Shared] = []
        self._sync(peer_id, peer, frames)
        if peer.due:
            frames += peer.take_due(self._log.tail)
        if peer.cursor is not None and (peer.presence_version < self._roster.version or peer.asks_who):
            self._presence(peer_id, peer, frames)
        if frames:
            peer.told = now
        elif now - peer.told >= self._keepalive_ms:
            return keepalive(peer, now)
        return frames

    def _sync(self, peer_id: PeerId, peer: Peer, frames: list[Frame | Shared]) -> None:
        document, log = self._merger.document, self._log
        if not peer.asked:
            peer.asked = True
            frames.append(SyncStep1(self._merger.all_there_is()[1]))
        if peer.step1 is not None and peer.stranger_since is None:
            asked, peer.step1 = peer.step1, None
            frames.append(SyncStep2(document.encode(asked)))
            peer.vector = self._merger.all_there_is()
            peer.cursor = log.head
        cursor = peer.cursor  # each token comes by here for each peer
        if cursor is None:
            return
        if cursor < log.start:  # the peer fell off the log: it is sent what it lacks of the document
            frames.append(Update(document.encode(peer.vector[1])))
            peer.vector = self._merger.all_there_is()
            cursor = log.head
        while cursor < log.tail and (portion := log.portion(cursor, peer_id)) is not None:
            cursor, frame = portion
            if frame is not None:
                frames.append(frame)
        # Only a peer that has the whole log has what the document has.
        if peer.moved(cursor) and cursor == log.head:
            peer.vector = self._merger.all_there_is()

    def _presence(self, peer_id: PeerId, peer: Peer, frames: list[Frame | Shared]) -> None:
        if not peer.introduced:
            return
        frames += news_of_presence(self._roster, peer_id, peer)


def news_of_presence(roster: Roster, peer_id: PeerId, peer: Peer) -> list[Frame | Shared]:
    """Return what a peer does not know of who is present, and consider it sent."""
    since = 0 if peer.asks_who else peer.presence_version
    peer.presence_version, peer.asks_who = roster.version, False
    frame = roster.frame_since(since, peer_id)
    return [frame] if frame is not None else []


def keepalive(peer: Peer, now: Millis) -> list[Frame | Shared]:
    """Return the frame that says nothing, for a peer that heard nothing for long."""
    peer.told = now
    return [KEEPALIVE]
