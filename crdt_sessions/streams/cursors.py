"""Cursors of live reads: a number that grows with time, so that no cache answers the same request for ever.

Section 8.1 of the protocol: intervals of 20 seconds since 2024-10-09T00:00:00Z.
"""

from __future__ import annotations

from crdt_sessions.ids import Millis

_EPOCH_MS = 1_728_432_000_000
_INTERVAL_MS = 20_000
MOST_AHEAD_S = 3600
"""How far ahead of the time a cursor may go at once."""


def next_cursor(now: Millis, asked: int | None, ahead_s: int) -> str:
    """Return the cursor of an answer.

    Args:
        now: the time.
        asked: the cursor that the request brings, if one.
        ahead_s: by how many seconds to go beyond that if it is not past, from 1 to :data:`MOST_AHEAD_S`; by chance.
    """
    current = (now - _EPOCH_MS) // _INTERVAL_MS
    if asked is None or asked < current:
        return str(current)
    return str(asked + max(1, ahead_s * 1000 // _INTERVAL_MS))
