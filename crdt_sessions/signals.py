"""Waiting for a condition on state that one task changes and many watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Signal:
    """Wakes everybody who waits; each looks for itself whether what it waits for has come."""

    def __init__(self) -> None:
        self.count = 0
        """How often it was notified so far."""
        self._event: asyncio.Event | None = None  # while somebody waits

    def notify_all(self) -> None:
        """Wake everybody."""
        self.count += 1
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds: it is asked now and after each notification. What it raises is raised."""
        while not condition():
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()
