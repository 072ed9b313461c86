"""The clock seam: the only source of time for the asyncio shell. The core takes ``now`` as an argument."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Protocol

from crdt_sessions.ids import Millis


class Clock(Protocol):
    """What the runtime and the client need of time. ``crdt_sessions.testing.FakeClock`` is the other one."""

    def now(self) -> Millis:
        """Return the wall-clock time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        ...


class SystemClock:
    """The machine's clock, without its jumps.

    Leases, presence and deadlines are differences of :meth:`now`. If somebody sets the machine's clock, they must
    neither all run out nor all last an hour longer: time here never goes back, and follows a clock that was set by
    a tenth faster or slower than it passes.

    Args:
        wall: nanoseconds since the Unix epoch.
        steady: nanoseconds that pass evenly, suspension of the machine included.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] | None = None) -> None:
        self._wall = wall
        self._steady = steady or steady_ns
        self._now = wall()
        self._then = self._steady()

    def go_by(self, wall: Callable[[], int]) -> None:
        """Go by another clock from now on, and jump to it: for before anything has happened by this one.

        Args:
            wall: nanoseconds since the Unix epoch.
        """
        self._wall = wall
        self._now, self._then = wall(), self._steady()

    def now(self) -> Millis:
        """Return the time."""
        steady = self._steady()
        passed = steady - self._then
        if passed < _BRIEF_NS:  # the other clock will not have been set meanwhile
            return Millis((self._now + passed) // 1_000_000)
        self._then = steady
        off = self._wall() - (self._now + passed)
        self._now += passed + max(-passed // _FOLLOW, min(off, passed // _FOLLOW))
        return Millis(self._now // 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        await asyncio.sleep(seconds)


_FOLLOW = 10
_BRIEF_NS = 1_000_000


if sys.platform == "linux":

    def steady_ns() -> int:
        """Return the nanoseconds of a clock that nobody sets, and that goes on while process and machine sleep."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
else:
    steady_ns = time.monotonic_ns
