"""The way of a session's rows to the store, and of the outcome back.

What a session writes in one turn of the loop is handed over at its end, also while the store still writes: all that
waits there will be one commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crdt_sessions.clock import Clock
from crdt_sessions.ids import SessionId
from crdt_sessions.limits import Limits
from crdt_sessions.runtime.backlog import Backlog
from crdt_sessions.runtime.entries import entries_of
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.storage import NO_ENTRIES, Delivery, Row, UpdateStore
from crdt_sessions.sync import Persist, Records

_ALWAYS_BYTES = 16 * 1024
"""What a session may have waiting for the disk though all sessions together have too much."""
_ROW_BYTES = 300
"""What a row costs beside its update: the entry of the log, its number, and the delta's header."""


@dataclass(slots=True, eq=False)
class Write:
    """Something that was handed over to the store."""

    done: asyncio.Future[None]
    rows: list[Row] = field(default_factory=list)
    records: list[Records] = field(default_factory=list)
    titled: bool = False
    """Whether it is the title."""


class Journal:
    """Stores what one session writes.

    Args:
        session: its id.
        store: where rows go.
        clock: the only source of time.
        health: whether the store takes writes. While it does not, nothing is handed over.
        backlog: what waits for the disk here and in other sessions.
        limits: how much may wait.
        deliveries: returns the notices to people who are absent that belong to these records.
        stored: called with each write that is on disk, in their order.
        failed: called with the error of the first write that is not. The next call should be :meth:`stop`.
    """

    def __init__(
        self,
        session: SessionId,
        store: UpdateStore,
        *,
        clock: Clock,
        health: StoreHealth,
        backlog: Backlog,
        limits: Limits,
        deliveries: Callable[[Sequence[Records]], list[Delivery]],
        stored: Callable[[Write], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._session = session
        self._store = store
        self._clock = clock
        self._health = health
        self._backlog = backlog
        self._most = limits.max_uncommitted_bytes
        self._freely = min(_ALWAYS_BYTES, self._most)
        self._deliveries = deliveries
        self._stored = stored
        self._failed = failed
        self._rows: list[Row] = []
        self._records: list[Records] = []
        self._bytes = 0
        self._title: str | None = None  # none that is new
        self._due = False  # before the loop turns again
        self._writes: deque[Write] = deque()
        self._stopped = False

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether there is something that was not handed to the store yet."""
        return bool(self._rows) or self._title is not None

    @property
    def flushing(self) -> bool:
        """Whether something is being stored, or will be before the loop turns again."""
        return self._due or bool(self._writes)

    @property
    def titling(self) -> bool:
        """Whether a title is not stored yet."""
        return self._title is not None or any(write.titled for write in self._writes)

    @property
    def behind(self) -> bool:
        """Whether the disk is behind with what came from here; a session that writes little never is."""
        own = self._bytes
        if own <= self._freely:
            return False
        return own > self._most or (own > _ALWAYS_BYTES and self._backlog.full)

    # -- writing -------------------------------------------------------------------------------------------------

    def append(self, effect: Persist) -> None:
        """Store a row, and its records with it."""
        self._rows.append(Row(effect.seq, effect.update))
        self._bytes += (cost := len(effect.update) + _ROW_BYTES)
        self._backlog.bytes += cost
        if effect.records:
            self._records.append(effect.records)
        self.flush_soon()

    def describe(self, title: str) -> None:
        """Store the session's title."""
        self._title = title
        self.flush_soon()

    def flush_soon(self) -> None:
        """Hand what there is to the store at the end of this turn of the loop."""
        if not self._due and not self._stopped and self._health.error is None:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def stop(self) -> None:
        """Hand nothing over any more; what was is not told of either."""
        self._stopped = True

    async def close(self) -> None:
        """Hand over everything, unless it was stopped; return once the store has answered.

        It is never cancelled: a write that is under way would end after the session has been loaded again.
        """
        while self.flushing and not self._stopped:
            self._flush()
            await self._answered()
        await self._answered()
        self._forget(self._bytes)  # of a session that failed
        self._deliveries, self._stored, self._failed = _no_deliveries, _ignored, _ignored  # no circle is left

    async def _answered(self) -> None:
        if self._writes:
            await asyncio.wait({write.done for write in self._writes})

    def _flush(self) -> None:
        self._due = False
        if self._stopped:
            return
        try:
            self._hand_over()
        except Exception as error:  # noqa: BLE001 - the session decides what it means
            self._failed(error)

    def _hand_over(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            records, self._records = self._records, []
            entries = entries_of(records, self._deliveries(records)) if records else NO_ENTRIES
            # Each token of a stream comes by here: if the store gives a future, there is no task.
            appended = self._store.append(self._session, rows, entries=entries, now=self._clock.now())
            self._await(Write(asyncio.ensure_future(appended), rows, records))
        if self._title is not None:
            title, self._title = self._title, None
            described = self._store.describe(self._session, title=title, now=self._clock.now())
            self._await(Write(asyncio.ensure_future(described), titled=True))

    def _await(self, write: Write) -> None:
        self._writes.append(write)
        write.done.add_done_callback(self._written)

    def _written(self, _: asyncio.Future[None]) -> None:
        """Tell of what is stored, in the order in which it was handed over."""
        while self._writes and self._writes[0].done.done():
            write = self._writes.popleft()
            if write.done.cancelled():
                continue
            error = write.done.exception()
            if self._stopped:
                continue  # it failed with an earlier one: the store lets no gap arise
            if error is None:
                self._forget(sum(len(row.update) + _ROW_BYTES for row in write.rows))
                self._stored(write)
            else:
                self._failed(error)

    def _forget(self, size: int) -> None:
        self._bytes -= size
        self._backlog.bytes -= size


def _ignored(_: object) -> None:
    """Nobody is told any more."""


def _no_deliveries(_: Sequence[Records]) -> list[Delivery]:
    return []
