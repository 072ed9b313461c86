"""Work that goes on to its end although whoever asked for it is gone, as clients are who hang up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.endings")
_going_on: set[asyncio.Task[Any]] = set()
"""Nothing else may hold them: the loop does so weakly."""


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Return what *work* returns; if the caller is cancelled, it goes on without them.

    This is for what writes to a store and then to memory, which have to agree. What it raises is raised, or logged if
    nobody waits for it any more.
    """
    task = asyncio.create_task(work)
    _going_on.add(task)
    task.add_done_callback(_going_on.discard)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_log_failure)
        raise


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("what nobody waits for any more has failed: %s", error, exc_info=error)
