"""Ends an application's coroutines: one may never return, and may not heed that it is cancelled."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

_log = logging.getLogger("crdt_sessions.client")
_GRACE_S = 2.0
"""How long what was cancelled may go on before nobody waits for it any more."""
_left: set[asyncio.Future[Any]] = set()
"""What goes on all the same. Nothing else may hold it: the loop does so weakly."""


async def end_all(doing: Iterable[asyncio.Future[Any]], what: str) -> None:
    """Cancel those that have not ended, and wait for them; for one that goes on all the same, only for a moment.

    Args:
        doing: what to end.
        what: names it, for the log.
    """
    ending = {each for each in doing if not each.done()}
    for each in ending:
        each.cancel()
    if not ending:
        return
    ended, left = await asyncio.wait(ending, timeout=_GRACE_S)
    for each in ended:
        if not each.cancelled() and (error := each.exception()) is not None:
            _log.warning("%s failed while it was ended: %r", what, error)
    for each in left:
        _left.add(each)
        each.add_done_callback(_left.discard)
    if left:
        _log.warning("%s goes on though it was cancelled; nobody waits for it any more", what)
