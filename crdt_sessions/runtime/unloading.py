"""How sessions leave memory: what there is of one is stored, then it is closed and forgotten.

A session that is not in memory any more is given up, so that another process may have it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from crdt_sessions import failpoints
from crdt_sessions.clock import Clock
from crdt_sessions.errors import CrdtSessionsError, ShuttingDown
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime.slot import Slot
from crdt_sessions.wire.closing import Closing

_log = logging.getLogger("crdt_sessions.registry")

_TOGETHER_S = 0.02
"""Sessions that are to be given away within so long go together, so that a commit frees several of them."""


class Unloading:
    """Drops sessions.

    Args:
        slots: those in memory; who is dropped is taken out.
        clock: the only source of time.
        release: lets another process have a session that is not in memory any more.
    """

    def __init__(
        self, slots: dict[SessionId, Slot], clock: Clock, release: Callable[[SessionId], Awaitable[None]]
    ) -> None:
        self._slots = slots
        self._clock = clock
        self._release = release
        self.dropped = False
        """Whether there may be garbage worth a full collection."""

    # -- one of them -------------------------------------------------------------------------------------------

    def unload(self, slot: Slot) -> asyncio.Task[None]:
        """Begin to drop a session that nobody uses, once all of it is stored; return what ends with that."""
        return self._drop_after(self._unload, slot, "unload")

    def drop(self, slot: Slot) -> None:
        """Begin to drop a session of which nothing more is to be stored."""
        self._drop_after(_nothing, slot, "drop")

    async def end(self, slot: Slot, closing: Closing, finish: Callable[[], Awaitable[None]]) -> None:
        """Drop a session: close its peers, store what there is, then *finish*. Errors as :meth:`Slots.end`."""

        async def last(slot: Slot) -> None:
            session = await slot.loaded()
            session.close_peers(closing)
            await session.drain()
            await finish()

        await asyncio.shield(self._drop_after(last, slot, "delete"))

    def forget(self, slot: Slot) -> None:
        """Make room for another load."""
        if self._slots.get(slot.session_id) is slot:
            del self._slots[slot.session_id]

    def _drop_after(self, last: Callable[[Slot], Awaitable[None]], slot: Slot, why: str) -> asyncio.Task[None]:
        """Drop a session once *last* has ended, in whatever way: else who comes for it would wait for ever."""

        async def drain() -> None:
            try:
                await last(slot)
            finally:
                await self._close(slot)

        slot.draining = asyncio.create_task(drain(), name=f"{why} {slot.session_id}")
        slot.draining.add_done_callback(_logged)
        return slot.draining

    async def _unload(self, slot: Slot) -> None:
        session = await slot.loaded()
        try:
            await session.drain()
            failpoints.reach("unload")
            await self._give_up(slot.session_id)
            _log.debug("unloaded", extra={"session": slot.session_id})
        except CrdtSessionsError as error:
            _note_loss(slot, error)

    async def _close(self, slot: Slot) -> None:
        try:
            if (session := slot.session) is not None:
                await session.close()
        finally:
            self.forget(slot)
            self.dropped = True

    async def _give_up(self, session_id: SessionId) -> None:
        try:
            await self._release(session_id)
        except CrdtSessionsError as error:  # another process waits for the end of this one then
            _log.warning("it is not free yet: %s", error, extra={"session": session_id})

    # -- all of them -------------------------------------------------------------------------------------------

    async def hand_over(self, per_s: float) -> None:
        """Let other processes have one session after the other: its peers are told 1012.

        Args:
            per_s: so many a second, since all of their clients come back at once.
        """
        going: set[asyncio.Task[None]] = set()
        begun = self._clock.now()
        for number, slot in enumerate(list(self._slots.values()), 1):
            if slot.draining is None:
                self._drop_after(self._leave_to_others, slot, "hand over")
            assert slot.draining is not None
            going.add(slot.draining)
            ahead_s = number / per_s - (self._clock.now() - begun) / 1000  # a busy loop sleeps for longer than told
            if ahead_s >= _TOGETHER_S:
                await self._clock.sleep(ahead_s)
        if going:
            await asyncio.wait(going)

    async def _leave_to_others(self, slot: Slot) -> None:
        if (session := await slot.settled()) is None:
            return
        try:
            await session.stop(ShuttingDown())
            await session.drain(fold=False)
        except CrdtSessionsError as error:
            _note_loss(slot, error)
        failpoints.reach("handover")
        await self._give_up(slot.session_id)  # before anybody here may load it anew

    async def stop(self) -> None:
        """Store everything, close every connection with 1012, drop every session."""
        await asyncio.gather(*(self._stop(slot) for slot in list(self._slots.values())))

    async def _stop(self, slot: Slot) -> None:
        if slot.draining is not None:
            await asyncio.gather(slot.draining, return_exceptions=True)
            return
        if (session := await slot.settled()) is None:
            return
        try:
            await session.stop(ShuttingDown())
            failpoints.reach("shutdown")
            await session.drain()
        except CrdtSessionsError as error:
            _note_loss(slot, error)
        await self._close(slot)


def _note_loss(slot: Slot, error: CrdtSessionsError) -> None:
    _log.error("lost what was not acknowledged: %s", error, extra={"session": slot.session_id})


async def _nothing(_: Slot) -> None:
    """There is nothing left to do for it."""


def _logged(task: asyncio.Task[None]) -> None:
    """Say what went wrong when a session was dropped: nobody may wait for that."""
    if not task.cancelled() and (error := task.exception()) is not None:
        defect = None if isinstance(error, CrdtSessionsError) else error
        _log.error("%s: %s", task.get_name(), error, exc_info=defect)
