"""How sessions end for good: somebody deletes them, or nobody has used them for long."""

from __future__ import annotations

import logging
from collections.abc import Callable

from crdt_sessions.clock import Clock
from crdt_sessions.errors import DamagedDatabase, DamagedLog, SessionDeleted
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime.quarantine import Quarantine
from crdt_sessions.runtime.slot import Slot
from crdt_sessions.runtime.slots import Slots
from crdt_sessions.storage import SessionLog
from crdt_sessions.wire import closing_for

_log = logging.getLogger("crdt_sessions.registry")


class Deletion:
    """Deletes sessions.

    Args:
        log: where they are stored.
        slots: the ones in memory.
        quarantine: which ones are left alone.
        clock: tells the time.
    """

    def __init__(self, log: SessionLog, slots: Slots, quarantine: Quarantine, clock: Clock) -> None:
        self._log = log
        self._slots = slots
        self._quarantine = quarantine
        self._clock = clock

    async def delete(self, session_id: SessionId) -> None:
        """Delete a session. Errors as :meth:`SessionRegistry.delete`."""
        await self._delete(session_id, lambda slot: False)

    async def expire(self, session_id: SessionId, before: float) -> bool:
        """Delete a session unless it is used. Arguments and errors as :meth:`SessionRegistry.expire`."""

        def spared(slot: Slot) -> bool:  # somebody may have come, and even left, while it was loaded
            used = slot.users > 1 or slot.idle_since is not None
            return used or slot.session is None or slot.session.record.updated_at >= before

        return session_id not in self._slots and await self._delete(session_id, spared)

    async def _delete(self, session_id: SessionId, spared: Callable[[Slot], bool]) -> bool:
        try:
            slot = await self._slots.enter(session_id)
        except (DamagedLog, DamagedDatabase):  # what cannot be read can still be deleted
            await self._delete_stored(session_id)
            self._quarantine.release(session_id)
            return True
        if spared(slot):
            self._slots.leave(slot)
            return False
        closing = closing_for(SessionDeleted(session=session_id))
        await self._slots.end(slot, closing, lambda: self._delete_stored(session_id))
        return True

    async def _delete_stored(self, session_id: SessionId) -> None:
        await self._log.delete(session_id, now=self._clock.now())
        _log.info("session ends", extra={"session": session_id, "status": "deleted"})
