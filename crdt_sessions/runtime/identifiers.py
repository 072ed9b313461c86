"""What must be fresh: Yjs client ids, for every document that is loaded, and lineages of sessions."""

from __future__ import annotations

import random


class Identifiers:
    """A source of names that nobody else has.

    Args:
        rng: where they come from.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def client_id(self) -> int:
        """Return a fresh Yjs client id."""
        return self._rng.randrange(1, 2**32)

    def lineage(self) -> str:
        """Return a name for a session that is about to be created, which no other one has."""
        return f"{self._rng.getrandbits(64):016x}"
