"""How long to wait before the next attempt: exponential, capped, with full jitter.

Without jitter a restart would bring all clients back at the same instants. Source: M. Brooker, "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random


class Backoff:
    """Delays between attempts.

    Args:
        first_s: upper bound of the first delay.
        most_s: upper bound of every delay.
        rng: source of the jitter.
    """

    def __init__(self, first_s: float = 0.2, most_s: float = 10.0, rng: random.Random | None = None) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng or random.Random()
        self._attempts = 0

    def next(self) -> float:
        """Return the delay before the next attempt, in seconds."""
        ceiling = min(self._most_s, self._first_s * 2.0**self._attempts)
        self._attempts = min(self._attempts + 1, 30)
        return self._rng.uniform(ceiling / 10, ceiling)

    def reset(self) -> None:
        """Begin anew: an attempt went well."""
        self._attempts = 0
