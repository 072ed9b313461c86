"""Garbage collection for a process that holds a great many objects for a long time.

Python's full collections look through everything there is: with thousands of sessions that is most of a second, in
which nobody is served, again and again while sessions come. So there are none by themselves. Several times a second
what is new is looked through, and what survives is frozen: never looked through again, until the heap has doubled
(``docs/decisions/0020-frozen-heap.md``). Sessions and connections end without cycles; what frozen cycles others
leave is at most as much again as what is in use.
"""

from __future__ import annotations

import asyncio
import gc
import sys

_EVERY_S = 0.1
_NEVER = 2**31 - 1
_ENOUGH = 10
"""Collections of the younger generations that make a look worth while; Python's own number."""
_LEAST = 500_000
"""Blocks of memory below which the heap is small: looking through all of it takes some 50 ms."""


def look_at_nothing_more() -> None:
    """Have the process end without a last look through all it holds, which took 0.3 s of a core.

    Python does it again and again while it takes its modules apart. All of it goes with the process.
    """
    gc.freeze()


class Heap:
    """The process's heap. Use it as an asynchronous context manager, in which it is looked after.

    Args:
        least: blocks of memory that do not count as growth.
    """

    def __init__(self, least: int = _LEAST) -> None:
        self._usual = self._least = least
        self._threshold = gc.get_threshold()
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Heap:
        gc.set_threshold(*self._threshold[:2], _NEVER)
        self.look()
        self._looking = asyncio.create_task(self._look_often(), name="heap")
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._looking is not None
        self._looking.cancel()
        await asyncio.gather(self._looking, return_exceptions=True)
        gc.set_threshold(*self._threshold)
        gc.unfreeze()

    async def _look_often(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            if gc.get_count()[2] >= _ENOUGH:
                self.look()

    def look(self) -> None:
        """Free what is garbage among what is new; among everything, if the heap has doubled since that was done."""
        grown = sys.getallocatedblocks() > 2 * self._usual
        if grown:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
        if grown:
            self._usual = max(sys.getallocatedblocks(), self._least)

    def free(self) -> None:
        """Free all garbage there is, also what was frozen. This looks through everything."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
