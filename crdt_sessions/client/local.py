"""A peer's own copy of a session in a local SQLite file: work offline, die, come back and merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crdt_sessions.clock import Clock
from crdt_sessions.ids import Seq, SessionId
from crdt_sessions.limits import NO_PAST, Compaction
from crdt_sessions.model import fold
from crdt_sessions.signals import Signal
from crdt_sessions.storage import Row, SqliteStore
from crdt_sessions.sync import Replica
from crdt_sessions.wire import EMPTY_UPDATE


class LocalFile:
    """The updates of one session, as this peer knows them. Use it as a context manager.

    Args:
        path: the SQLite file. Several sessions may be kept in it, but one peer at a time has it open.
        session: which one.
        clock: the only source of time.

    Raises:
        DatabaseInUse: (on entering) another process or peer has the file.
        StorageError: (on entering) it cannot be opened.
    """

    def __init__(self, path: Path, session: SessionId, clock: Clock) -> None:
        self._store = SqliteStore(path)
        self._session = session
        self._clock = clock
        self._seq = 0
        self._rows = 0
        self.saved = 0
        """The version of the replica up to which its changes are on disk."""

    async def __aenter__(self) -> LocalFile:
        await self._store.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._store.close()

    async def restore(self, replica: Replica) -> None:
        """Bring a replica what is kept so far; the server may lack it.

        Raises:
            DamagedLog: the file is damaged; remove it to begin anew from the server.
        """
        updates = await self._load()
        for update in updates:
            replica.restore(update)
        if updates:
            replica.restored_unacknowledged()

    async def follow(self, replica: Replica, changed: Signal, closing: Callable[[], bool]) -> None:
        """Keep each change of a replica, in order, and the last ones on closing.

        Args:
            replica: whose changes.
            changed: notified when there may be some; notifies of those that are on disk.
            closing: whether there will be no more.

        Raises:
            StorageError: they cannot be kept.
        """
        while not (closing() and not replica.has_incoming):
            await changed.wait_for(lambda: replica.has_incoming or closing())
            version, updates = replica.version, replica.take_incoming()
            if updates:
                await self._keep(updates)
            self.saved = version
            changed.notify_all()

    async def _load(self) -> list[bytes]:
        stored = await self._store.load(self._session)
        if stored is None:
            await self._store.create(self._session, EMPTY_UPDATE, generation=1, title=None, now=self._clock.now())
            self._seq, self._rows = 1, 1
            return []
        self._seq, self._rows = stored.last_seq, len(stored.rows)
        return [row.update for row in stored.rows]

    async def _keep(self, updates: list[bytes]) -> None:
        """Append updates; return once they are on disk."""
        rows = [Row(Seq(self._seq + 1 + index), update) for index, update in enumerate(updates)]
        await self._store.append(self._session, rows, now=self._clock.now())
        self._seq += len(rows)
        self._rows += len(rows)
        if self._rows > Compaction().max_rows:
            await self._fold()

    async def _fold(self) -> None:
        stored = await self._store.load(self._session)
        if stored is not None:
            folded = fold(row.update for row in stored.rows)
            snapshot = Row(stored.last_seq, folded.update, folded.waits)
            now = self._clock.now()
            await self._store.replace_with_snapshot(self._session, snapshot, retention=NO_PAST, now=now)
            self._rows = 1
