"""The sessions an agent has worked in, kept warm so that its next run there begins sooner.

For a while the agent stays in a session, unseen, and need not dial for the next run. After that it remembers the
document, and need not fetch it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from dataclasses import dataclass

from crdt_sessions.client.session import SessionPeer
from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.sync import Replica

_log = logging.getLogger("crdt_sessions.agent")
_MOST_PARKED = 64
"""Sessions an agent stays in at the same time: each is a connection."""


@dataclass(frozen=True, slots=True)
class _Parked:
    lineage: str
    peer: SessionPeer
    watch: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Remembered:
    lineage: str
    replica: Replica
    size: int


class WarmSessions:
    """Parked peers, which are still connected, and replicas that are ready for the next connection.

    Each is a new Yjs client: the former one belongs to the run that has ended.

    Args:
        max_bytes: of all documents that are remembered, encoded; in memory they are several times that.
        linger_s: how long to stay in a session; 0 to leave at once.
        rng: source of client ids.
    """

    def __init__(self, max_bytes: int, linger_s: float, rng: random.Random) -> None:
        self._max_bytes = max_bytes
        self._linger_s = linger_s
        self._rng = rng
        self._bytes = 0
        self._parked: OrderedDict[str, _Parked] = OrderedDict()
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

    async def park(self, session: str, lineage: str, peer: SessionPeer) -> None:
        """Keep a peer in its session after its run; let it leave where it cannot stay."""
        try:
            stays = self._linger_s > 0 and await peer.park()
        except CrdtSessionsError as error:  # the service has closed the connection; what was done is done
            _log.info("cannot stay: %s", error, extra={"session": session})
            await peer.leave()
            return
        except BaseException:  # cancelled: nobody else would make it leave
            await peer.leave()
            raise
        if stays and session not in self._parked:
            self.forget(session)
            watch = asyncio.create_task(self._watch(session), name=f"parked in {session}")
            self._parked[session] = _Parked(lineage, peer, watch)
            if len(self._parked) > _MOST_PARKED:
                await self._leave(next(iter(self._parked)))
        else:
            await self._remember(session, lineage, peer)

    def pick_up(self, session: str, lineage: str) -> SessionPeer | Replica | None:
        """Hand out the peer that is parked in a session, or else a replica of it; None if there is neither.

        Neither is handed out if it is of an earlier session of that name.
        """
        entry = self._parked.get(session)
        if entry is not None and entry.lineage == lineage and entry.peer.parked:
            del self._parked[session]
            entry.watch.cancel()
            return entry.peer
        kept = self._remembered.get(session)
        if kept is None or kept.lineage != lineage:
            self.forget(session)
            return None
        del self._remembered[session]
        self._bytes -= kept.size
        return kept.replica

    def remember(self, session: str, lineage: str, document: bytes) -> None:
        """Remember a document that the service has in full; the sessions left longest ago make room."""
        self.forget(session)
        if len(document) > self._max_bytes:
            return
        replica = Replica(self._rng.randrange(1, 2**32))
        replica.begin(document)
        self._remembered[session] = _Remembered(lineage, replica, len(document))
        self._bytes += len(document)
        while self._bytes > self._max_bytes:
            self.forget(next(iter(self._remembered)))

    def forget(self, session: str) -> None:
        """Remember nothing of a session."""
        kept = self._remembered.pop(session, None)
        if kept is not None:
            self._bytes -= kept.size
            kept.replica.close()

    async def close(self) -> None:
        """Leave everywhere, and remember nothing."""
        await asyncio.gather(*map(self._leave, list(self._parked)))
        for session in list(self._remembered):
            self.forget(session)

    async def _watch(self, session: str) -> None:
        """Leave a session when no run came for long, or when the connection broke."""
        peer = self._parked[session].peer
        try:
            async with asyncio.timeout(self._linger_s):
                await peer.until(lambda: not peer.parked)
        except (TimeoutError, CrdtSessionsError):
            pass  # either way it is over
        if session in self._parked and self._parked[session].peer is peer:
            await self._leave(session)

    async def _leave(self, session: str) -> None:
        entry = self._parked.pop(session)
        if entry.watch is not asyncio.current_task():
            entry.watch.cancel()
        await self._remember(session, entry.lineage, entry.peer)

    async def _remember(self, session: str, lineage: str, peer: SessionPeer) -> None:
        if peer.unacknowledged == 0:
            self.remember(session, lineage, peer.encode())
        await peer.leave()
