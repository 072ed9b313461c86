"""What an agent keeps of the sessions it has worked in, so that its next run there begins sooner.

For a while it stays in them, unseen, and need not dial when it comes back; afterwards it remembers what they held,
and need not fetch it.
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
_MOST_WAITING = 64
"""Sessions an agent stays in at the same time: each is a connection."""

Origin = str
"""The lineage of a session; see :class:`Grant`."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    origin: Origin
    peer: SessionPeer
    watch: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Known:
    origin: Origin
    replica: Replica
    size: int


class KnownSessions:
    """Peers that wait where they are, and replicas that are ready for the next connection.

    Each is a Yjs client of its own: the one that was used belongs to the run that has ended.

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
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def keep(self, session: str, origin: Origin, peer: SessionPeer) -> None:
        """Stay in a session with a peer that has done its work; leave where that is not possible."""
        try:
            stays = self._linger_s > 0 and await peer.step_back()
        except CrdtSessionsError as error:  # the service has closed the connection; what was done is done
            _log.info("cannot stay: %s", error, extra={"session": session})
            await peer.leave()
            return
        if stays and session not in self._waiting:
            self.forget(session)
            watch = asyncio.create_task(self._watch(session), name=f"wait in {session}")
            self._waiting[session] = _Waiting(origin, peer, watch)
            if len(self._waiting) > _MOST_WAITING:
                await self._leave(next(iter(self._waiting)))
        else:
            await self._remember(session, origin, peer)

    def take(self, session: str, origin: Origin) -> SessionPeer | Replica | None:
        """Give away the peer that waits in a session, or else its replica; None if there is none.

        Nothing is given of another session that had its name.
        """
        waiting = self._waiting.get(session)
        if waiting is not None and waiting.origin == origin and waiting.peer.waits:
            del self._waiting[session]
            waiting.watch.cancel()
            return waiting.peer
        known = self._known.get(session)
        if known is None or known.origin != origin:
            self.forget(session)
            return None
        del self._known[session]
        self._bytes -= known.size
        return known.replica

    def remember(self, session: str, origin: Origin, document: bytes) -> None:
        """Remember a document of which the service has everything; those left longest ago make room."""
        self.forget(session)
        if len(document) > self._max_bytes:
            return
        replica = Replica(self._rng.randrange(1, 2**32))
        replica.begin(document)
        self._known[session] = _Known(origin, replica, len(document))
        self._bytes += len(document)
        while self._bytes > self._max_bytes:
            self.forget(next(iter(self._known)))

    def forget(self, session: str) -> None:
        """Remember nothing of a session."""
        known = self._known.pop(session, None)
        if known is not None:
            self._bytes -= known.size
            known.replica.close()

    async def close(self) -> None:
        """Leave everywhere, and remember nothing."""
        await asyncio.gather(*map(self._leave, list(self._waiting)))
        for session in list(self._known):
            self.forget(session)

    async def _watch(self, session: str) -> None:
        """Leave a session that nothing was to be done in for long, or whose connection broke."""
        peer = self._waiting[session].peer
        try:
            async with asyncio.timeout(self._linger_s):
                await peer.until(lambda: not peer.waits)
        except (TimeoutError, CrdtSessionsError):
            pass  # either way it is over
        if session in self._waiting and self._waiting[session].peer is peer:
            await self._leave(session)

    async def _leave(self, session: str) -> None:
        waiting = self._waiting.pop(session)
        if waiting.watch is not asyncio.current_task():
            waiting.watch.cancel()
        await self._remember(session, waiting.origin, waiting.peer)

    async def _remember(self, session: str, origin: Origin, peer: SessionPeer) -> None:
        if peer.unacknowledged == 0:
            self.remember(session, origin, peer.encode())
        await peer.leave()
