"""Who is there, and who was there lately: by any connection, stream or sync request of this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

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

    @contextmanager
    def counted(self, tenant: str, principal: str) -> Iterator[None]:
        """Return a context in which a principal is there by one connection more."""
        who = (tenant, principal)
        self._here[who] += 1
        try:
            yield
        finally:
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
