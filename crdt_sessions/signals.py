"""Waiting for a condition on state that one task changes and many watch; and what ended the waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


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

    async def wait_within(self, condition: Callable[[], bool], patience: Awaitable[None]) -> None:
        """Return once *condition* holds, as :meth:`wait_for`, or *patience* has ended, such as a clock's sleep."""
        waiting, patient = asyncio.ensure_future(self.wait_for(condition)), asyncio.ensure_future(patience)
        try:
            await asyncio.wait({waiting, patient}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (waiting, patient):
                each.cancel()
            await asyncio.gather(waiting, patient, return_exceptions=True)


def is_cancelled() -> bool:
    """Whether somebody has cancelled the current task. Else a ``CancelledError`` is of something that it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
