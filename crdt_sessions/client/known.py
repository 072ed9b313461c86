"""What an agent remembers of the sessions it has worked in, so that the next run there need not fetch everything."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass

from crdt_sessions.sync import Replica


@dataclass(frozen=True, slots=True)
class _Known:
    origin: tuple[int, int]
    replica: Replica
    size: int


class KnownSessions:
    """Replicas that are ready for the next connection, of the sessions that were left last.

    Each is a new one, with a client ID of its own: the one that was used belongs to the run that has ended.

    Args:
        max_bytes: of all documents together, encoded; in memory they are several times that.
        rng: source of client ids.
    """

    def __init__(self, max_bytes: int, rng: random.Random) -> None:
        self._max_bytes = max_bytes
        self._rng = rng
        self._bytes = 0
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def keep(self, session: str, origin: tuple[int, int], document: bytes) -> None:
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

    def take(self, session: str, origin: tuple[int, int]) -> Replica | None:
        """Give a session's replica away; None if there is none, or of another session that had its name.

        Args:
            session: the name.
            origin: generation and creation time; see :class:`Grant`.
        """
        known = self._known.get(session)
        if known is None or known.origin != origin:
            self.forget(session)
            return None
        del self._known[session]
        self._bytes -= known.size
        return known.replica

    def forget(self, session: str) -> None:
        """Remember nothing of a session."""
        known = self._known.pop(session, None)
        if known is not None:
            self._bytes -= known.size
            known.replica.close()
