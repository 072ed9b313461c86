"""Hands a session's rows to the store, and reports the outcome.

Rows are handed over when the store is about to write: soon, and those of one turn of the loop together. The store
tells of a commit at once, and of all sessions that have rows in it in one turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crdt_sessions.clock import Clock
from crdt_sessions.ids import SessionId
from crdt_sessions.limits import Limits
from crdt_sessions.runtime.backlog import Backlog
from crdt_sessions.runtime.entries import entries_of
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.storage import NO_ENTRIES, Delivery, Row, UpdateStore
from crdt_sessions.storage.outcome import Outcome, outcome_of
from crdt_sessions.sync import Persist, Records

_ALWAYS_BYTES = 16 * 1024
"""Bytes of one session that may wait for the disk even when all sessions together have too many."""
_ROW_BYTES = 300
"""Memory of a row in addition to its update: the entry in the log, its number, and the delta's header."""


@dataclass(slots=True, eq=False)
class Write:
    """Rows, or a title, that were handed to the store."""

    done: Outcome
    rows: list[Row] = field(default_factory=list)
    records: list[Records] = field(default_factory=list)
    titled: bool = False
    """Whether it is a title."""


class Journal:
    """Stores what one session writes.

    Args:
        session: the session's id.
        store: takes the rows.
        clock: the only source of time.
        health: says whether the store takes writes. While it does not, nothing is handed over.
        backlog: counts the bytes that wait for the disk, here and in other sessions.
        limits: how much may wait.
        deliveries: returns the notices to absent people that belong to these records.
        stored: called with each write that is on disk, in order.
        failed: called with the error of the first write that failed. Then :meth:`stop` should be called.
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
        self._title: str | None = None  # a title that was not handed over yet
        self._due = False  # whether _flush is scheduled
        self._writes: list[Write] = []  # few: what the store has not answered yet
        self._stopped = False

    # -- what there is -------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether something was not handed to the store yet."""
        return bool(self._rows) or self._title is not None

    @property
    def flushing(self) -> bool:
        """Whether something is being stored, or will soon be handed over."""
        return self._due or bool(self._writes)

    @property
    def titling(self) -> bool:
        """Whether a title is not stored yet."""
        return self._title is not None or any(write.titled for write in self._writes)

    @property
    def behind(self) -> bool:
        """Whether too much of this session waits for the disk; never so for a session that writes little."""
        own = self._bytes
        if own <= self._freely:
            return False
        return own > self._most or (own > _ALWAYS_BYTES and self._backlog.full)

    # -- writing -------------------------------------------------------------------------------------------------

    def append(self, effect: Persist) -> None:
        """Store a row together with its records."""
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
        """Hand everything that waits to the store, as soon as it is about to write."""
        if not self._due and not self._stopped and self._health.error is None:
            self._due = True
            self._store.before_commit(self._flush)

    def stop(self) -> None:
        """Hand nothing over any more, and report no more outcomes."""
        self._stopped = True

    async def close(self) -> None:
        """Hand over everything, unless stopped; return once the store has answered.

        Do not cancel this: a write under way would end after the session has been loaded again.
        """
        while self.flushing and not self._stopped:
            self._flush()
            await self._answered()
        await self._answered()
        self._forget(self._bytes)  # some are left if the session failed
        self.release()

    def release(self) -> None:
        """Tell nobody of anything any more: no cycle is left."""
        self._deliveries, self._stored, self._failed = _no_deliveries, _ignored, _ignored

    async def _answered(self) -> None:
        for write in list(self._writes):
            await write.done.reached()

    def _flush(self) -> None:
        self._due = False
        if self._stopped:
            return
        try:
            self._hand_over()
        except Exception as error:  # noqa: BLE001 - the session decides what follows
            self._failed(error)

    def _hand_over(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            records, self._records = self._records, []
            entries = entries_of(records, self._deliveries(records)) if records else NO_ENTRIES
            appended = self._store.append(self._session, rows, entries=entries, now=self._clock.now())
            self._await(Write(outcome_of(appended), rows, records))
        if self._title is not None:
            title, self._title = self._title, None
            described = self._store.describe(self._session, title=title, now=self._clock.now())
            self._await(Write(outcome_of(described), titled=True))

    def _await(self, write: Write) -> None:
        self._writes.append(write)
        write.done.tell(self._written)

    def _written(self) -> None:
        """Report outcomes in the order in which the writes were handed over."""
        while self._writes and self._writes[0].done.known:
            write = self._writes.pop(0)
            error = write.done.error
            if self._stopped or isinstance(error, asyncio.CancelledError):
                continue  # an earlier one failed, and so did this, as the store leaves no gaps; or the process ends
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
