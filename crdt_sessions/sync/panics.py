"""Updates on which the CRDT library panicked, known by their digests: each costs one reload, not one a retry.

Old clients send such an update again with every reconnect (docs/decisions/0004-guarded-apply.md).
"""

from __future__ import annotations

import hashlib

_MOST = 256


class Panics:
    """What is known of one session. It outlives the session's engines."""

    def __init__(self) -> None:
        self._digests: dict[bytes, None] = {}

    def add(self, update: bytes) -> None:
        """Remember *update*; the oldest is forgotten when there are many."""
        self._digests[_digest(update)] = None
        if len(self._digests) > _MOST:
            del self._digests[next(iter(self._digests))]

    def __contains__(self, update: object) -> bool:
        return bool(self._digests) and isinstance(update, bytes) and _digest(update) in self._digests


def _digest(update: bytes) -> bytes:
    return hashlib.sha256(update).digest()
