"""The database, open: lanes that write, connections that read, and this process as one of the nodes that share it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, TypeVar

import asyncpg

from crdt_sessions.errors import HeldElsewhere, StorageError, StoreUnavailable
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.peers import Peer
from crdt_sessions.storage.postgres import checks
from crdt_sessions.storage.postgres.connection import Connection, close
from crdt_sessions.storage.postgres.errors import translated
from crdt_sessions.storage.postgres.lane import Lane, Own, Release, nothing
from crdt_sessions.storage.postgres.loads import Loads
from crdt_sessions.storage.postgres.migration import migrate
from crdt_sessions.storage.postgres.nodes import Lease, Nodes
from crdt_sessions.storage.postgres.readers import Readers
from crdt_sessions.storage.postgres.records import Append
from crdt_sessions.storage.postgres.servers import Servers
from crdt_sessions.storage.postgres.statements import fenced
from crdt_sessions.storage.stored import StoredSession

Result = TypeVar("Result")

_NAME = "crdt-sessions"
_READERS = 3
_NOTHING = fenced()
_OWNER = (
    "SELECT node, address, draining, name FROM nodes WHERE NOT gone AND node <> $2"
    " AND node = (SELECT owner FROM sessions WHERE id = $1 AND deleted_at IS NULL)"
)


class Database:
    """A database of sessions.

    Args:
        url: its address.
        schema: the PostgreSQL schema of the tables.
        lanes: how many connections write.
        quorum: whether a commit must be on another server, too.
        lease: when a node counts as gone.
        address: where this process listens for other nodes; empty if it does not.
        fenced: called when this process was fenced.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        lanes: int,
        quorum: bool,
        lease: Lease,
        address: str,
        fenced: Callable[[], None],
    ) -> None:
        self._url = url
        self._schema = schema
        self._quorum = quorum
        self._connect = Servers(url, schema).connect
        self._readers = Readers(lambda: self._connect(_NAME), _READERS)
        self._loads = Loads(self.view)
        self._count = lanes
        self._lanes: list[Lane] = []
        self.nodes = Nodes(
            self._connect,
            lanes=lanes,
            version=version("crdt-sessions"),
            address=address,
            lease=lease,
            fenced=fenced,
        )
        self.nodes.on_silence = self._leave_server

    async def open(self) -> None:
        """Look at the server, bring the schema up to date, and join. Errors as :class:`PostgresStore` says."""
        connection = await self._connect(_NAME)
        try:
            await checks.check_server(connection, url=self._url, quorum=self._quorum)
            with translated():
                await migrate(connection, self._schema)
            another = await self._connect(_NAME)
            try:
                await checks.check_pooler(connection, another, url=self._url)
            finally:
                await close(another)
        finally:
            await close(connection)
        await self.nodes.joined()
        self._lanes = [Lane(number, self.nodes, self._connect) for number in range(self._count)]
        self.nodes.start()

    async def close(self) -> None:
        """Finish the writes that wait, then leave."""
        lanes, self._lanes = self._lanes, []
        if not lanes:
            return
        await asyncio.gather(*(lane.close() for lane in lanes))
        await self.nodes.leave()
        await self._readers.close()

    async def check(self) -> None:
        """Return if one can write.

        Raises:
            StoreUnavailable: one cannot.
        """
        if self._quorum:
            await checks.check_quorum(self.select)
        await asyncio.gather(*(self._in(lane, _touch) for lane in self._open_lanes()))

    def append(self, job: Append) -> asyncio.Future[None]:
        """Have rows appended in their session's turn."""
        return self._in(self._lane(job.session), job)

    def submit(self, job: Callable[[Lane], Awaitable[Result]], of: str = "") -> asyncio.Future[Result]:
        """Have *job* done in the turn of a session or stream, or of what belongs to none."""
        return self._in(self._lane(of), job)

    async def own(self, session: SessionId) -> int:
        """Return the ``sid`` of a session that belongs to this node from now on.

        A node that is silent is waited for: either it speaks up or it is fenced.

        Raises:
            SessionNotFound: there is none.
            HeldElsewhere: it belongs to another node that lives.
            StorageError: it cannot be taken.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self.nodes.patience_s
        while True:
            try:
                return int(await self._in(self._lane(session), Own(session)))
            except HeldElsewhere as error:
                if loop.time() >= until or not self.nodes.silent(error.node):
                    raise
            await self.nodes.looked()

    async def owner(self, session: SessionId) -> Peer | None:
        """Return the other node that owns a session and lives; None if it is this one, or nobody does."""
        found = await self.select(_OWNER, session, self.nodes.me)
        return Peer(**found[0]) if found else None

    async def release(self, session: SessionId) -> None:
        """Own a session no more, after everything that was written of it."""
        await self._in(self._lane(session), Release(session))

    async def caught_up(self, session: SessionId | None = None) -> None:
        """Return once ``sessions`` says where a log of this node ends, or all."""
        lanes = self._lanes if session is None else [self._lane(session)]
        for lane in lanes:
            if lane.lags(session):
                try:
                    await lane.submit(nothing)
                except StoreUnavailable:
                    return  # one can read all the same, perhaps; only times are a second old

    async def select(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Return the rows that a statement finds."""
        return await self._readers.select(statement, *values)

    async def view(self, read: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Read everything as it is at one moment."""
        return await self._readers.view(read)

    async def load(self, session: SessionId) -> StoredSession | None:
        """Return everything stored of a session; see :meth:`Loads.load`."""
        return await self._loads.load(session)

    def _leave_server(self) -> None:
        """Wait no longer for a server that says nothing: whoever needs one connects anew, to the one that does."""
        self._readers.leave()
        for lane in self._lanes:
            lane.leave()

    def _open_lanes(self) -> list[Lane]:
        if not self._lanes:
            raise StorageError("the store is closed")
        return self._lanes

    def _lane(self, of: str) -> Lane:
        """Return the lane of a session: always the same one, so that its writes stay in order."""
        lanes = self._open_lanes()
        return lanes[zlib.crc32(of.encode(errors="replace")) % len(lanes)]

    def _in(self, lane: Lane, job: Any) -> asyncio.Future[Any]:
        return lane.submit(job)


async def _touch(lane: Lane) -> None:
    await lane.write(_NOTHING)


class OfDatabase:
    """A concern of a store that is kept in a database."""

    _database: Database
