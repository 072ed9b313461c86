"""Loops that last as long as the process: a defect in one is logged and costs it a pause, never the loop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from crdt_sessions.clock import Clock
from crdt_sessions.defects import log_defect

_log = logging.getLogger("crdt_sessions.defects")
_PAUSE_S = 1.0


def logged(error: Exception, where: str) -> str:
    """Log a defect, and return what is told of it: the log says more, under the reference that this names.

    Args:
        error: the defect.
        where: in what it was met.
    """
    said = f"a defect in {where}"
    return f"{said}; the log says more (reference {log_defect(_log, said, error)})"


@contextmanager
def outlived(where: str) -> Iterator[None]:
    """Return a context that ends at a defect, which is logged; what follows the context goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a loop that ends is missed by nobody until it is too late
        logged(error, where)


async def keep_going(where: str, run: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Run a loop until it returns, or this is cancelled; after a defect it begins anew, a second later.

    Args:
        where: what the log calls it.
        run: runs the loop; called again after a defect.
        clock: measures the pause.
    """
    ended = False
    while not ended:
        with outlived(where):
            await run()
            ended = True
        if not ended:
            await clock.sleep(_PAUSE_S)
