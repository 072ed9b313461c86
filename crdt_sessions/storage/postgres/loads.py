"""Sessions that are loaded at the same time are read together: many come at once when a node ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Protocol, TypeVar

from crdt_sessions.errors import CrdtSessionsError, StorageError
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.defects import contained
from crdt_sessions.storage.postgres import rows
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.stored import StoredSession

Result = TypeVar("Result")
_AT_ONCE = 16
"""Sessions that are read together; each may be large."""
_READING = 2
"""Readings that go on beside each other: a large session holds up one of them."""


class View(Protocol):
    """Reads everything as it is at one moment."""

    async def __call__(self, read: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Return what *read* returns."""
        ...


class Loads:
    """Reads sessions as they are stored. What comes while it reads is read next, together.

    Args:
        view: reads.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._waiting: dict[SessionId, asyncio.Future[StoredSession | None]] = {}
        self._reading = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self, session: SessionId) -> StoredSession | None:
        """Return everything that is stored of a session by now; None if there is none.

        Raises:
            DamagedLog: a row does not match its checksum, or one is missing.
            StorageError: it cannot be read.
        """
        loaded = self._waiting.get(session)
        if loaded is None:
            loaded = self._waiting[session] = asyncio.get_running_loop().create_future()
        if self._reading < _READING:
            self._reading += 1
            reading = asyncio.create_task(self._read(), name="postgres loads")
            self._tasks.add(reading)
            reading.add_done_callback(self._tasks.discard)
        return await asyncio.shield(loaded)

    async def _read(self) -> None:
        try:
            while self._waiting:
                taken = {session: self._waiting.pop(session) for session in [*islice(self._waiting, _AT_ONCE)]}
                await self._read_together(taken)
        finally:
            self._reading -= 1  # at once: who comes before this task counts as done must not rely on it

    async def _read_together(self, taken: dict[SessionId, asyncio.Future[StoredSession | None]]) -> None:
        try:
            found = await self._view(lambda connection: rows.load_all(connection, [*taken]))
        except Exception as error:  # noqa: BLE001 - a defect, too; whoever waits is told, and the next are read
            failed = contained(error)
            for loaded in taken.values():
                _fail(loaded, failed)
        else:
            for session, loaded in taken.items():
                stored = found.get(session)
                if isinstance(stored, CrdtSessionsError):
                    _fail(loaded, stored)
                elif not loaded.done():
                    loaded.set_result(stored)
        finally:
            for loaded in taken.values():  # where the task is cancelled
                _fail(loaded, StorageError("it was not read"))


def _fail(loaded: asyncio.Future[StoredSession | None], error: CrdtSessionsError) -> None:
    if not loaded.done():
        loaded.set_exception(error)
        loaded.exception()  # whoever asked may have gone
