"""Who is there, and who was there lately: by any connection, stream or sync request of this process."""

from __future__ import annotations

from collections import Counter

from crdt_sessions.clock import Clock
from crdt_sessions.ids import Millis
from crdt_sessions.runtime.recent import Recent

_REMEMBERED = 100_000
"""Principals of which is known when they left; others count as away."""


class Attendance:
    """Counts the connections of principals.

    Args:
        clock: the only source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._here: Counter[tuple[str, str]] = Counter()
        self._left: Recent[tuple[str, str], Millis] = Recent(_REMEMBERED)

    def come(self, tenant: str, principal: str) -> None:
        """Count a connection more, until it leaves."""
        self._here[tenant, principal] += 1

    def leave(self, tenant: str, principal: str) -> None:
        """Count a connection less."""
        who = (tenant, principal)
        self._here[who] -= 1
        if not self._here[who]:
            del self._here[who]
        self._left.remember(who, self._clock.now())

    def connections(self, tenant: str, principal: str) -> int:
        """Return how many connections a principal has."""
        return self._here[tenant, principal]

    def there_since(self, tenant: str, principal: str, since: Millis) -> bool:
        """Tell whether a principal is there, or was at some time after *since*, as far as that is remembered."""
        who = (tenant, principal)
        return who in self._here or self._left.get(who, Millis(-1)) >= since
