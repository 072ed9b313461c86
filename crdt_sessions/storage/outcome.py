"""What becomes of a write, told at once to whoever waits for it.

A future would tell each in a turn of the loop of its own, and there are the tokens of many sessions in one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

from crdt_sessions.callbacks import Callback, call_all


class Outcome:
    """What becomes of a write. To be awaited, or told of."""

    __slots__ = ("_waiting", "error", "known")

    def __init__(self) -> None:
        self.known = False
        """Whether it is known."""
        self.error: BaseException | None = None
        """Why the write failed, if it did."""
        self._waiting: list[Callback] = []

    def settle(self, error: BaseException | None = None) -> None:
        """Say what became of the write, and tell everybody before this returns. Only the first time counts."""
        if not self.known:
            self.known, self.error = True, error
            waiting, self._waiting = self._waiting, []
            call_all(waiting)

    def tell(self, told: Callback) -> None:
        """Call *told* once it is known; now, if it is."""
        if self.known:
            told()
        else:
            self._waiting.append(told)

    async def reached(self) -> None:
        """Return once it is known, whatever it is."""
        if not self.known:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.tell(lambda: _reach(reached))
            await reached

    def __await__(self) -> Generator[Any, None, None]:
        yield from self.reached().__await__()
        if self.error is not None:
            raise self.error


def _reach(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():  # whoever waits may have been cancelled
        waiting.set_result(None)


def outcome_of(write: Awaitable[None]) -> Outcome:
    """Return what becomes of a *write* of any kind; it begins now. If it is cancelled, that is its error."""
    if isinstance(write, Outcome):
        return write
    outcome = Outcome()

    def settle(done: asyncio.Future[None]) -> None:
        outcome.settle(asyncio.CancelledError() if done.cancelled() else done.exception())

    asyncio.ensure_future(write).add_done_callback(settle)
    return outcome
