"""How fast one may go: a token bucket. Source: the leaky bucket of ITU-T I.371, counted in milliseconds."""

from __future__ import annotations

from crdt_sessions.ids import Millis


class Pace:
    """Takes *per_s* a second for long, and *burst* more at once.

    Args:
        per_s: how many a second.
        burst: how many at once after a rest.
        now: the time.
    """

    __slots__ = ("_burst", "_left", "_per_ms", "_then")

    def __init__(self, per_s: float, burst: float, now: Millis) -> None:
        self._per_ms = per_s / 1000
        self._burst = burst
        self._left = burst
        self._then = now

    def take(self, now: Millis, count: int = 1) -> bool:
        """Count *count*; tell whether they were within the pace."""
        if now != self._then:
            self._left = min(self._burst, self._left + (now - self._then) * self._per_ms)
            self._then = now
        if self._left < count:
            return False
        self._left -= count
        return True
