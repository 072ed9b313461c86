"""The whole store: one class out of its concerns, over one database."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from crdt_sessions.limits import Limits
from crdt_sessions.storage.base import UpdateStore
from crdt_sessions.storage.counts import SessionCounts
from crdt_sessions.storage.sqlite.access import SqliteAccessRecords
from crdt_sessions.storage.sqlite.audit import SqliteAuditRecords
from crdt_sessions.storage.sqlite.changes import SqliteChanges
from crdt_sessions.storage.sqlite.database import Database
from crdt_sessions.storage.sqlite.deliveries import SqliteDeliveries
from crdt_sessions.storage.sqlite.lists import SqliteSessionIndex
from crdt_sessions.storage.sqlite.log import SqliteSessionLog
from crdt_sessions.storage.sqlite.runs import SqliteRunIndex
from crdt_sessions.storage.sqlite.streams import SqliteStreams
from crdt_sessions.storage.sqlite.usage import SqliteUsageRecords


class SqliteStore(
    SqliteSessionLog,
    SqliteSessionIndex,
    SqliteChanges,
    SqliteRunIndex,
    SqliteDeliveries,
    SqliteAccessRecords,
    SqliteUsageRecords,
    SqliteAuditRecords,
    SqliteStreams,
    UpdateStore,
):
    """An :class:`UpdateStore` in a SQLite file. Open it as a context manager.

    Args:
        path: the database file; it is created if missing. A lock on it, and on ``<path>.lock`` beside it, keeps a
            second process out.
        max_bytes: what the database may grow to; then it counts as full until something is deleted.
        max_wal_bytes: what its write-ahead log may grow to; by one commit more, and while another process reads one
            state of it, such as a backup, by what is written meanwhile.

    Raises:
        DatabaseInUse: (on entering) another process has it open.
        DatabaseHasOtherNames: (on entering) the file has several hard links.
        ForeignDatabase: (on entering) it is no database, or one of something else. It is left as it is.
        NewerSchema: (on entering) a newer release wrote it.
        StorageError: (on entering) it cannot be opened.
    """

    def __init__(
        self, path: Path | str, *, max_bytes: int | None = None, max_wal_bytes: int = Limits().max_wal_bytes
    ) -> None:
        self.path = Path(path)
        self._database = Database(self.path, max_bytes=max_bytes, max_wal_bytes=max_wal_bytes)
        self._counts = SessionCounts(self.count)

    async def __aenter__(self) -> SqliteStore:
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def check(self) -> None:
        await self._database.check()

    async def close(self) -> None:
        """Finish the writes that wait, then close the file."""
        await self._database.close()
