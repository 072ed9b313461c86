"""The whole store: one class out of its concerns, over one database."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from crdt_sessions.ids import SessionId
from crdt_sessions.storage.base import UpdateStore
from crdt_sessions.storage.peers import Peer
from crdt_sessions.storage.postgres.access import PostgresAccessRecords
from crdt_sessions.storage.postgres.attendance import PostgresAttendance
from crdt_sessions.storage.postgres.audit import PostgresAuditRecords
from crdt_sessions.storage.postgres.changes import PostgresChanges
from crdt_sessions.storage.postgres.database import Database
from crdt_sessions.storage.postgres.deliveries import PostgresDeliveries
from crdt_sessions.storage.postgres.lists import PostgresSessionIndex
from crdt_sessions.storage.postgres.log import PostgresSessionLog
from crdt_sessions.storage.postgres.nodes import Lease, Nodes
from crdt_sessions.storage.postgres.runs import PostgresRunIndex
from crdt_sessions.storage.postgres.streams import PostgresStreams
from crdt_sessions.storage.postgres.usage import PostgresUsageRecords

SCHEMA = "crdt_sessions"


def _nobody() -> None:
    """Nobody is told."""


class PostgresStore(
    PostgresSessionLog,
    PostgresSessionIndex,
    PostgresChanges,
    PostgresRunIndex,
    PostgresDeliveries,
    PostgresAccessRecords,
    PostgresUsageRecords,
    PostgresAuditRecords,
    PostgresAttendance,
    PostgresStreams,
    UpdateStore,
):
    """An :class:`UpdateStore` in a PostgreSQL database, which other nodes may share. Open it as a context manager.

    A session belongs to the node that loads or writes it, until that one leaves or is gone. Another one that wants
    it is told so by :class:`HeldElsewhere`.

    Args:
        url: of the database, such as ``postgresql://app@db/sessions``. A password is better kept in the file that
            ``PGPASSFILE`` names.
        schema: the PostgreSQL schema that holds the tables; it is created if missing.
        lanes: how many connections write.
        quorum: whether what is acknowledged must be on another server, too: then the server must be set up to wait
            for a standby.
        lease: when a node counts as gone.
        address: where this node listens for the others; empty if it does not.
        fenced: called when this node was counted as gone. Then nothing is known of what is stored: whatever was
            loaded must be loaded anew.

    Raises:
        ForeignDatabase: (on entering) the schema belongs to something else.
        NewerSchema: (on entering) a newer release wrote it.
        StoreUnavailable: (on entering) there is no way to the server.
        StorageError: (on entering) it cannot be used; the message says why.
    """

    shared = True

    def __init__(
        self,
        url: str,
        *,
        schema: str = SCHEMA,
        lanes: int = 2,
        quorum: bool = False,
        lease: Lease | None = None,
        address: str = "",
        fenced: Callable[[], None] = _nobody,
    ) -> None:
        self._database = Database(
            url,
            schema=schema,
            lanes=lanes,
            quorum=quorum,
            lease=lease or Lease(),
            address=address,
            fenced=fenced,
        )

    def now_ns(self) -> int:
        """Return the time by the database's clock, in nanoseconds since the Unix epoch, while the store is open."""
        return self._database.nodes.time.now_ns()

    @property
    def nodes(self) -> Nodes:
        """This process as a node, and the others."""
        return self._database.nodes

    async def owner(self, session: SessionId) -> Peer | None:
        """Return the other node that owns a session and lives; None if it is this one, or nobody does.

        Raises:
            StorageError: it cannot be looked up.
        """
        return await self._database.owner(session)

    async def __aenter__(self) -> PostgresStore:
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def node(self) -> str:
        return str(self._database.nodes.me)

    async def check(self) -> None:
        await self._database.check()

    async def close(self) -> None:
        """Finish the writes that wait, then leave: what this node owns is free."""
        await self._database.close()
