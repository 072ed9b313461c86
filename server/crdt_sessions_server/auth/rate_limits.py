"""How often: token buckets for principals and addresses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from crdt_sessions.errors import TooMany

_KEPT = 50_000


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may happen.

    Args:
        per_s: times a second, for long.
        burst: times at once, after a rest.
    """

    per_s: float
    burst: int


class Buckets:
    """A token bucket for each key that asks; those that have not asked for longest are forgotten.

    Args:
        what: is done, for the error.
        rate: how often a key may.
        time: seconds that do not jump.
    """

    def __init__(self, what: str, rate: Rate, time: Callable[[], float]) -> None:
        self._what = what
        self._rate = rate
        self._time = time
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.refused = 0
        """Times that a key was told to come back later."""

    def take(self, key: str) -> None:
        """Count once.

        Raises:
            TooMany: the key does it too often.
        """
        self.check(key)
        self._buckets[key] = (self._level(key) - 1.0, self._time())
        self._buckets.move_to_end(key)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)

    def check(self, key: str) -> None:
        """Return if the key may do it once more, without counting.

        Raises:
            TooMany: it does it too often.
        """
        if self._level(key) < 1.0:
            self.refused += 1
            raise TooMany(what=f"{self._what} at once, then {self._rate.per_s:g} a second", limit=self._rate.burst)

    def _level(self, key: str) -> float:
        level, since = self._buckets.get(key, (float(self._rate.burst), self._time()))
        return min(float(self._rate.burst), level + (self._time() - since) * self._rate.per_s)


class Rates:
    """The limits on how often, of a service.

    Args:
        connects: connections and streams that an address begins.
        failures: times that an address presents a token that is not good; then none of its tokens is looked at.
        posts: times that a principal says or asks something.
        claims: times that a principal asks for work.
        time: seconds that do not jump.
    """

    def __init__(
        self, connects: Rate, failures: Rate, posts: Rate, claims: Rate, *, time: Callable[[], float]
    ) -> None:
        self.connects = Buckets("connections of an address", connects, time)
        self.failures = Buckets("bad tokens of an address", failures, time)
        self.posts = Buckets("requests of a principal", posts, time)
        self.claims = Buckets("claims of a principal", claims, time)
