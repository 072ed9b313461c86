"""The clock seam: the only source of time for the asyncio shell. The core takes ``now`` as an argument."""

from __future__ import annotations

import asyncio
import time
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
    """The machine's clock."""

    def now(self) -> Millis:
        """Return the wall-clock time."""
        return Millis(time.time_ns() // 1_000_000)

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        await asyncio.sleep(seconds)
