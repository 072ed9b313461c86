"""Whether the store takes writes: sessions say when it did not, a look now and then says when it does again.

While it does not, sessions can be read and nothing is taken that could not be kept. Nobody has to restart anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from crdt_sessions.clock import Clock
from crdt_sessions.errors import StorageError, StoreUnavailable
from crdt_sessions.ids import Millis
from crdt_sessions.signals import Signal
from crdt_sessions.storage import UpdateStore

_FRESH_MS = 1000

_log = logging.getLogger("crdt_sessions.storage")


class StoreHealth:
    """What is known of one store.

    Args:
        store: the store.
        clock: the only source of time.
    """

    def __init__(self, store: UpdateStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._signal = Signal()
        self._tried_at: Millis | None = None
        self._trying = asyncio.Lock()
        self.error: StorageError | None = None
        """Why it takes no writes; None if it does."""
        self.since: Millis | None = None
        """Since when."""

    def failed(self, error: StorageError) -> None:
        """Note that a write failed; only what concerns the store as a whole counts."""
        if not isinstance(error, StoreUnavailable):
            return
        first, self.error = self.error is None, error
        if first:
            self.since = self._clock.now()
            _log.error("the store takes no writes: %s; sessions are read-only until it does", error)

    async def check(self) -> None:
        """Tell whether the store takes writes; it is tried at most once a second.

        Raises:
            StorageError: it does not.
        """
        async with self._trying:
            if self._tried_at is None or self._clock.now() - self._tried_at >= _FRESH_MS:
                self._tried_at = self._clock.now()
                await self._try()
        if self.error is not None:
            raise self.error

    async def _try(self) -> None:
        try:
            await self._store.check()
        except StoreUnavailable as error:
            self.failed(error)
            return
        if self.error is not None:
            _log.warning("the store takes writes again")
            self.error = self.since = None
            self._signal.notify_all()

    async def look(self) -> None:
        """Try again, if the store did not take writes."""
        if self.error is not None:
            with contextlib.suppress(StorageError):  # it is remembered
                await self.check()

    async def well(self, patience_s: float) -> None:
        """Return once the store takes writes.

        Raises:
            StorageError: it did not within *patience_s*.
        """
        if self.error is None:
            return
        await self._signal.wait_within(lambda: self.error is None, self._clock.sleep(patience_s))
        if self.error is not None:
            raise self.error
