"""Remembers the digests of updates on which the CRDT library panicked, so that each costs one reload and no more.

Old clients send such an update again each time they reconnect (docs/decisions/0004-guarded-apply.md).
"""

from __future__ import annotations

import hashlib

_MOST = 256


class Panics:
    """The digests of one session. They outlive the session's engines."""

    def __init__(self) -> None:
        self._digests: dict[bytes, None] = {}

    def add(self, update: bytes) -> None:
        """Remember *update*; if there are too many, forget the oldest."""
        self._digests[_digest(update)] = None
        if len(self._digests) > _MOST:
            del self._digests[next(iter(self._digests))]

    def __contains__(self, update: object) -> bool:
        return bool(self._digests) and isinstance(update, bytes) and _digest(update) in self._digests


def _digest(update: bytes) -> bytes:
    return hashlib.sha256(update).digest()
