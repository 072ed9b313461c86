"""Which node a request goes to: the one that owns its session.

What the database says is the truth. What it said a moment ago is good enough for HTTP, whose owner says so if it is
none any more; a WebSocket is looked up each time.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from crdt_sessions.errors import HeldElsewhere, NodeUnreachable
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.peers import Peer

_log = logging.getLogger("crdt_sessions.cluster")
_FRESH_S = 2.0
_MOST_KNOWN = 10_000
_ATTEMPTS = 3
Result = TypeVar("Result")


class Moved(Exception):
    """The node that was asked does not own the session any more."""


class Ownership(Protocol):
    """Who owns sessions: the store knows."""

    async def owner(self, session: SessionId) -> Peer | None:
        """Return the other node that owns a session and lives; None if it is this one, or nobody does."""
        ...


class Router:
    """Finds the owners of sessions.

    Args:
        ownership: knows them.
        suspect: has the sessions of a node be free at whose address nobody is, if it has died.
        holds: whether a session is in this node's memory.
        heirs: the nodes that take sessions which nobody has, since this one does not any more; none while it does.
        failed: counts what went wrong, by reason.
    """

    def __init__(
        self,
        ownership: Ownership,
        suspect: Callable[[int], Awaitable[None]],
        holds: Callable[[SessionId], bool],
        heirs: Callable[[], Sequence[Peer]],
        failed: Counter[str],
    ) -> None:
        self._failed = failed
        self._heirs = heirs
        self._ownership = ownership
        self._suspect = suspect
        self._holds = holds
        self._known: dict[SessionId, tuple[Peer, float]] = {}
        self._ties: defaultdict[int, set[Callable[[], None]]] = defaultdict(set)

    async def owner(self, session: SessionId, *, fresh: bool = True) -> Peer | None:
        """Return the node that serves a session; None if this one does, or is to.

        Args:
            session: which.
            fresh: whether it must be true now.

        Raises:
            StorageError: it cannot be looked up.
        """
        if self._holds(session):
            return None
        now = asyncio.get_running_loop().time()
        known = self._known.pop(session, None)
        if known is None or fresh or known[1] < now:
            peer = await self._ownership.owner(session) or _heir(session, self._heirs())
            if peer is None:
                return None
            known = (peer, now + _FRESH_S)
        self._known[session] = known  # the last one, so that the first one is the oldest
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return known[0]

    async def at_owner(
        self, session: SessionId, do: Callable[[Peer], Awaitable[Result]], *, fresh: bool = True
    ) -> Result | None:
        """Return what *do* does with the node that serves a session; None if that is this one.

        If it moved, or its owner died, it is looked up again.

        Args:
            session: which.
            do: is given the node. It may raise :class:`Moved`.
            fresh: whether what was known a moment ago may be too old.

        Raises:
            NodeUnreachable: its owner does not answer, but may come back.
            HeldElsewhere: it has moved too often, or its owner listens to nobody.
            StorageError: it cannot be looked up.
        """
        peer = await self.owner(session, fresh=fresh)
        unreachable: NodeUnreachable | None = None
        for _ in range(_ATTEMPTS):
            if peer is None:
                return None
            if not peer.address:
                raise HeldElsewhere(session=session, node=peer.node)
            try:
                return await do(peer)
            except Moved:
                self._failed["moved"] += 1
                unreachable = None
            except NodeUnreachable as error:
                self._failed["gone" if error.refused else "silent"] += 1
                _log.info("%s", error, extra={"session": session, "node": error.node})
                if not error.refused:
                    raise
                unreachable = error
                await self._suspect(peer.node)
            peer = await self.owner(session)
        self._failed["given-up"] += 1
        raise unreachable or HeldElsewhere(session=session, node=peer.node if peer is not None else 0)

    # -- nodes that die --------------------------------------------------------------------------------------------

    @contextmanager
    def tied(self, peer: Peer, break_off: Callable[[], None]) -> Iterator[None]:
        """Have *break_off* called if a node is gone, though its connections may say nothing of that."""
        ties = self._ties[peer.node]
        ties.add(break_off)
        try:
            yield
        finally:
            ties.discard(break_off)
            if not ties:
                self._ties.pop(peer.node, None)

    async def break_off_all(self, per_s: float) -> None:
        """Break off, one after the other, everything that goes to other nodes.

        Args:
            per_s: so many a second.
        """
        for break_off in [each for ties in self._ties.values() for each in ties]:
            break_off()
            await asyncio.sleep(1 / per_s)

    def seen(self, living: Collection[int]) -> None:
        """Take note of which nodes live."""
        for node in [node for node in self._ties if node not in living]:
            for break_off in list(self._ties[node]):
                break_off()


def _heir(session: SessionId, heirs: Sequence[Peer]) -> Peer | None:
    """Return the node that takes a session: the same one, whoever asks, and one after the other over all sessions."""
    return max(heirs, key=lambda peer: zlib.crc32(f"{peer.node} {session}".encode(errors="replace")), default=None)
