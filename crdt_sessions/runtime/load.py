"""How much there is to do: the lag of the event loop and the memory of the process.

When it is too much, newcomers are told to come back later, so that those who are here are served. Memory is first
taken back from sessions that nobody uses.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from bisect import bisect_left
from collections.abc import Callable
from functools import cache

from crdt_sessions.errors import Overloaded
from crdt_sessions.limits import Limits

_EVERY_S = 0.1
_SMOOTH = 0.2
"""Share of the newest measurement: a single pause of a second is not yet overload, three of them are."""
LATE_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""How late the event loop may be, in classes; the last one has no end."""


@cache
def _figures(process: int) -> int:
    """Return a file of what a *process* uses. It stays open: each session asks, and to open it takes longest."""
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def resident_bytes() -> int:
    """Return the memory this process uses; 0 where the system does not say."""
    try:
        return int(os.pread(_figures(os.getpid()), 128, 0).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Load:
    """Measures, for as long as :meth:`run` runs.

    Args:
        limits: the bounds.
        memory: returns the bytes in use; for tests.
        free_garbage: frees what is garbage and was not freed. Whoever has a policy for Python's collector gives one
            (the service does); without it the collector goes its usual way.
    """

    def __init__(
        self,
        limits: Limits,
        memory: Callable[[], int] = resident_bytes,
        *,
        free_garbage: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits
        self._memory = memory
        self._free_garbage = free_garbage
        self.lag_s = 0.0
        """How late the event loop has been of late."""
        self.late = [0] * (len(LATE_S) + 1)
        """How often it was found to be late by how much: a count for each class of :data:`LATE_S`."""
        self.late_s = 0.0
        """The sum of that."""

    async def run(self) -> None:
        """Measure, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self.note_lag(loop.time() - due)

    def note_lag(self, seconds: float) -> None:
        """Take a measurement."""
        self.late[bisect_left(LATE_S, seconds)] += 1
        self.late_s += max(seconds, 0.0)
        self.lag_s += (max(seconds, 0.0) - self.lag_s) * _SMOOTH

    def check_lag(self) -> None:
        """Return if there is room for one more connection.

        Raises:
            Overloaded: the event loop lags.
        """
        if self.lag_s > self._limits.max_lag_s:
            raise Overloaded(what=f"the event loop is {self.lag_s:.1f} s late")

    @property
    def crowded(self) -> bool:
        """Whether the process uses more memory than it should."""
        return self._memory() > self._limits.memory_watermark_bytes

    def check_memory(self) -> None:
        """Return if there is room for one more session.

        Raises:
            Overloaded: the process uses more memory than it should.
        """
        if self.crowded:
            raise Overloaded(what=f"more than {self._limits.memory_watermark_bytes} bytes of memory are in use")

    def give_back_memory(self, *, garbage: bool) -> None:
        """Return freed memory to the system.

        Args:
            garbage: whether there may be some that was not freed yet.
        """
        if garbage:
            self._free_garbage()
        if sys.platform == "linux":
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none, and needs none
            if trim is not None:
                trim(0)
