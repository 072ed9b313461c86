"""How fast one may go: a token bucket. Source: the leaky bucket of ITU-T I.371, counted in milliseconds."""

from __future__ import annotations

from crdt_sessions.ids import Millis


class Pace:
    """Lets *per_s* a second pass for long, and *burst* more at once.

    What comes in one piece may use up more than there is; then it takes longer until the next piece may pass.

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
        """Count *count* and tell that they may pass; count nothing, and tell that they are to wait."""
        if now != self._then:
            self._left = min(self._burst, self._left + (now - self._then) * self._per_ms)
            self._then = now
        if self._left < min(count, 1):
            return False
        self._left -= count
        return True

    def charge(self, now: Millis, count: int) -> bool:
        """Count *count* that have passed already, and tell whether the next one may."""
        counted = self.take(now)
        self._left -= count - counted
        return self._left >= 1

    @property
    def wait_s(self) -> float:
        """After how many seconds the next one may pass, as it stood when last asked; a millisecond at least."""
        return max(1.0, (1 - self._left) / self._per_ms) / 1000
