"""A clock that only moves when told to."""

from __future__ import annotations

import asyncio
import heapq

from crdt_sessions.ids import Millis


class FakeClock:
    """A :class:`crdt_sessions.clock.Clock` for tests: time passes by :meth:`advance` alone.

    Args:
        start: the first answer of :meth:`now`.
    """

    def __init__(self, start: int = 1_700_000_000_000) -> None:
        self._now = start
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now(self) -> Millis:
        """Return the fake time."""
        return Millis(self._now)

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was advanced by *seconds*."""
        self._count += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + int(seconds * 1000), self._count, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass: wake every sleeper in order of time, and let what it does settle."""
        target = self._now + int(seconds * 1000)
        await settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, future = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            if not future.done():
                future.set_result(None)
            await settle()
        self._now = target
        await settle()


async def settle(turns: int = 20) -> None:
    """Let the event loop run all ready callbacks, *turns* times."""
    for _ in range(turns):
        await asyncio.sleep(0)
