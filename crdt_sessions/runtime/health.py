"""Whether the store takes writes: sessions say when it did not, looks every now and then say when it does again.

While it does not, sessions can be read and nothing is taken that could not be kept. Who comes for one that cannot be
loaded is kept waiting for a while, since clients that are sent away come back ever more seldom. Nobody has to restart
anything.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from crdt_sessions.clock import Clock
from crdt_sessions.errors import StorageError, StoreUnavailable
from crdt_sessions.ids import Millis
from crdt_sessions.signals import Signal
from crdt_sessions.storage import UpdateStore

Result = TypeVar("Result")

_OUTAGE_S = 20.0
"""How long who comes is kept waiting: clients take a connection for dead that says nothing for half a minute."""
_FRESH_MS = 1000
_LOOK_S = (0.1, 0.3)
"""Pauses between two looks while it takes no writes. They differ, since many processes may have one store."""

_log = logging.getLogger("crdt_sessions.storage")


class StoreHealth:
    """What is known of one store.

    Args:
        store: the store.
        clock: the only source of time.
        rng: source of jitter.
    """

    def __init__(self, store: UpdateStore, clock: Clock, rng: random.Random | None = None) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng or random.Random()
        self._stopped = False
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
            self._signal.notify_all()
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

    async def watch(self, well: Callable[[], None]) -> None:
        """Try again while the store takes no writes, and call *well* whenever it does again; until cancelled."""
        while True:
            await self._signal.wait_for(lambda: self.error is not None)
            await self._clock.sleep(self._rng.uniform(*_LOOK_S))
            async with self._trying:
                self._tried_at = self._clock.now()
                try:
                    await self._try()
                except StorageError as error:
                    _log.error("the store cannot be tried: %s", error)
            if self.error is None:
                well()

    def stop(self) -> None:
        """Keep nobody waiting any more."""
        self._stopped = True
        self._signal.notify_all()

    async def outlast(self, do: Callable[[], Awaitable[Result]], patience_s: float = _OUTAGE_S) -> Result:
        """Return what *do* returns, once the store is there for it.

        Args:
            do: is called again when the store is back. It may be called as often as it raises
                :class:`StoreUnavailable`.
            patience_s: how long all of it may wait.

        Raises:
            StorageError: the store was not there in time.
        """
        until = self._clock.now() + patience_s * 1000
        while True:
            try:
                return await do()
            except StoreUnavailable as error:
                self.failed(error)
                left_s = (until - self._clock.now()) / 1000
                if left_s <= 0 or self._stopped:
                    raise
                await self.well(left_s)

    async def well(self, patience_s: float) -> None:
        """Return once the store takes writes.

        Raises:
            StorageError: it did not within *patience_s*.
        """
        if self.error is None:
            return
        await self._signal.wait_within(lambda: self.error is None or self._stopped, self._clock.sleep(patience_s))
        if self.error is not None:
            raise self.error
