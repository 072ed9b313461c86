"""Many callbacks called by one of the loop's, which costs more than most of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

Callback = Callable[[], None]


def call_all(callbacks: Iterable[Callback]) -> None:
    """Call each. As with callbacks of the loop, an error of one is told by the loop and stops none."""
    for call in callbacks:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - see above
            told = {"message": f"an error in {call!r}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)


class EndOfTurn:
    """Has things done at the end of a turn of the loop, for everybody who asked in it."""

    def __init__(self) -> None:
        self._due: list[Callback] = []

    def call(self, callback: Callback) -> None:
        """Call *callback* at the end of this turn."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._call_due)
        self._due.append(callback)

    def _call_due(self) -> None:
        due, self._due = self._due, []
        call_all(due)
