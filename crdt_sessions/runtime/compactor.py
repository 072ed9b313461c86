"""Folds the rows of a session into one snapshot, away from the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from crdt_sessions.clock import Clock
from crdt_sessions.errors import SessionNotFound
from crdt_sessions.ids import Seq, SessionId
from crdt_sessions.limits import NO_PAST, Compaction, Retention
from crdt_sessions.model import Folded
from crdt_sessions.storage import Row, UpdateStore

_log = logging.getLogger("crdt_sessions.session")


class Compactor:
    """Folds what the store holds of one session.

    Args:
        session: its id.
        store: where its rows are.
        clock: the only source of time.
        fold: makes one update of many, verified, away from the event loop.
        compaction: when rows are folded.
        retention: which versions are kept.
        rows: number of rows the store holds.
        turn: held while rows are folded for the sake of order; sessions that share one take turns.
    """

    def __init__(
        self,
        session: SessionId,
        store: UpdateStore,
        *,
        clock: Clock,
        fold: Callable[[list[bytes]], Awaitable[Folded]],
        compaction: Compaction,
        retention: Retention,
        rows: int,
        turn: asyncio.Lock,
    ) -> None:
        self._session = session
        self._store = store
        self._clock = clock
        self._merge = fold
        self._compaction = compaction
        self._retention = retention
        self._rows = rows
        self._turn = turn
        self._task: asyncio.Task[Seq] | None = None

    @property
    def folding(self) -> bool:
        """Whether rows are being folded."""
        return self._task is not None

    @property
    def due_on_unload(self) -> bool:
        """Whether there are enough rows to be folded before the session leaves memory."""
        return self._rows >= self._compaction.min_rows_on_unload

    def stored(self, rows: int) -> None:
        """Note that the store has so many rows more."""
        self._rows += rows

    def fold_if_due(self) -> None:
        """Begin to fold if there are too many rows."""
        if self._rows > self._compaction.max_rows and self._task is None:
            self.fold()

    def fold(self) -> None:
        """Begin to fold. To be called while it is :meth:`idle`."""
        self._start(None, keep_rows=False)

    async def idle(self) -> None:
        """Return once nothing is being folded."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def snapshot(self, name: str | None, *, keep_rows: bool) -> Seq:
        """Fold everything stored, as :meth:`Session.snapshot` says. To be called while it is :meth:`idle`."""
        return await asyncio.shield(self._start(name, keep_rows=keep_rows))

    async def forget_past(self) -> Seq:
        """Fold everything stored, and forget all versions. To be called while it is :meth:`idle`."""
        return await asyncio.shield(self._start(None, keep_rows=False, retention=NO_PAST))

    async def export(self) -> bytes:
        """Return everything stored as one update."""
        stored = await self._store.load(self._session)
        return (await self._merge([row.update for row in stored.rows] if stored else [])).update

    def _start(self, name: str | None, *, keep_rows: bool, retention: Retention | None = None) -> asyncio.Task[Seq]:
        fold = self._compact(name, keep_rows, retention or self._retention)
        self._task = asyncio.create_task(fold, name=f"fold {self._session}")
        self._task.add_done_callback(self._ended)
        return self._task

    async def _compact(self, name: str | None, keep_rows: bool, retention: Retention) -> Seq:
        if keep_rows:  # somebody waits for a version
            return await self._replace(name, keep_rows, retention)
        async with self._turn:  # sessions that began together are due together, with all their rows in memory
            return await self._replace(name, keep_rows, retention)

    async def _replace(self, name: str | None, keep_rows: bool, retention: Retention) -> Seq:
        stored = await self._store.load(self._session)
        if stored is None:
            raise SessionNotFound(session=self._session)
        folded = await self._merge([row.update for row in stored.rows])
        await self._store.replace_with_snapshot(
            self._session,
            Row(stored.last_seq, folded.update, folded.waits),
            retention=retention,
            name=name,
            keep_rows=keep_rows,
            now=self._clock.now(),
        )
        if not keep_rows:
            self._rows -= len(stored.rows) - 1
        _log.info(
            "compacted",
            extra={"session": self._session, "rows": len(stored.rows), "snapshot_bytes": len(folded.update)},
        )
        return stored.last_seq

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:  # the rows stay as they are
            _log.error("folding failed: %s", error, extra={"session": self._session})
