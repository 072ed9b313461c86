"""Loads sessions in which something is due while nobody is there: a lease that runs out, a question that expires."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from crdt_sessions.clock import Clock
from crdt_sessions.errors import CrdtSessionsError, StorageError
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime.quarantine import Quarantine
from crdt_sessions.runtime.slots import Slots
from crdt_sessions.storage.runs import RunIndex

_log = logging.getLogger("crdt_sessions.registry")
_AT_ONCE = 100
"""Sessions of nobody's that a process takes upon itself at a time, so that others share those of one that is gone."""


class Wakeups:
    """Wakes sessions for what is due in them; each is unloaded again once nothing keeps it in memory.

    Args:
        store: knows what is due, and when.
        slots: the sessions that are in memory, which look after themselves.
        open: loads a session, and keeps it for as long as its context lasts.
        clock: tells the time.
        quarantine: says which sessions are left alone, and hears which could not be loaded.
    """

    def __init__(
        self,
        store: RunIndex,
        slots: Slots,
        open: Callable[[SessionId], AbstractAsyncContextManager[object]],
        clock: Clock,
        quarantine: Quarantine,
    ) -> None:
        self._store = store
        self._slots = slots
        self._open = open
        self._clock = clock
        self._quarantine = quarantine
        self._waking: set[asyncio.Task[None]] = set()

    async def look(self) -> None:
        """Begin to wake the sessions in which something is due by now.

        A process that gives its sessions away takes none: those that belonged to nobody would be its own.
        """
        if self._slots.leaving:
            return
        try:
            due = await self._store.take_due(self._clock.now(), limit=_AT_ONCE)
        except StorageError as error:
            _log.error("cannot look for runs that are due: %s", error)
            return
        for session_id in due:
            absent = session_id not in self._slots or self._slots.sleeping(session_id) is not None
            if absent and self._quarantine.may_wake(session_id):
                task = asyncio.create_task(self._wake(session_id), name=f"wake {session_id}")
                self._waking.add(task)
                task.add_done_callback(self._waking.discard)

    def stop(self) -> list[asyncio.Task[None]]:
        """Wake no more of those that were begun; return what ends with them."""
        for task in self._waking:
            task.cancel()
        return list(self._waking)

    async def _wake(self, session_id: SessionId) -> None:
        try:
            async with self._open(session_id):
                _log.debug("woken", extra={"session": session_id})
            self._quarantine.note_well(session_id)
        except CrdtSessionsError as error:
            self._quarantine.note_unwell(session_id)
            _log.error("cannot look after its runs: %s", error, extra={"session": session_id})
