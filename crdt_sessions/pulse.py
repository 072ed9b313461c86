"""Waiting for a condition on state that one task changes and many watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Pulse:
    """Wakes everybody who waits; each looks for itself whether what it waits for has come."""

    def __init__(self) -> None:
        self.count = 0
        """Number of beats so far."""
        self._event = asyncio.Event()

    def beat(self) -> None:
        """Wake everybody."""
        self.count += 1
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds. It is looked at now and after every beat; what it raises is raised."""
        while not condition():
            await self._event.wait()
