"""The connection of a lane, and what became of a statement whose answer was lost.

Every write is one statement, so that the server never waits for this process inside a transaction, and locks the
lane's row: see :func:`~crdt_sessions.storage.postgres.statements.fenced`.

A lost connection leaves it open whether a statement was committed. This looks it up: it ends the old connection at
the server, waits for the lane's row, and reads there how many commits there were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import asyncpg

from crdt_sessions.errors import Fenced, StoreUnavailable
from crdt_sessions.storage.postgres.connection import Connection, Values, application_name, close
from crdt_sessions.storage.postgres.errors import Again, Refused, Unknown, translated
from crdt_sessions.storage.postgres.heads import Heads
from crdt_sessions.storage.postgres.statements import FENCED

ANSWER_S = 10.0
"""A server that does not answer for so long is left, and what became of the statement is looked up."""
PATIENCE_S = 5.0
"""For how long a write waits for a server that was there."""
_TRY_S = 0.05

_MINE = "UPDATE lanes SET commits = commits WHERE node = $1 AND lane = $2 RETURNING commits, fenced, pg_backend_pid()"
"""Waits for what is under way in the lane, and commits something: with a standby it returns when that has it all."""
_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = $1 AND application_name = $2 AND pid <> pg_backend_pid()"
)


class Membership(Protocol):
    """Which node this process is."""

    async def joined(self) -> int:
        """Return the node's id; it becomes a new one if it was fenced."""
        ...

    def lost(self, node: int) -> None:
        """Take note that the node *node* was fenced."""
        ...


class LaneConnection:
    """Connects when it must, and again when the connection is lost.

    Args:
        number: which of the node's lanes it is of.
        membership: says which node this is.
        connect: makes a connection of a name.
        heads: what is known by the connection, and left with it.
    """

    def __init__(
        self, number: int, membership: Membership, connect: Callable[[str], Awaitable[Connection]], heads: Heads
    ) -> None:
        self._number = number
        self._membership = membership
        self._connect = connect
        self._heads = heads
        self._node = 0
        self._connection: Connection | None = None
        self._pid = 0
        self._commits = 0
        self._unreplicated = False  # the server has said that it gave up waiting for a standby
        self._up = True

    @property
    def node(self) -> int:
        """The node that it has written for last."""
        return self._node

    async def close(self) -> None:
        """Close the connection."""
        await close(self._connection)

    def leave(self) -> None:
        """End the connection: the server that it leads to says nothing. What is under way is looked up elsewhere."""
        if self._connection is not None:
            self._connection.terminate()

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Return what a statement finds that changes nothing."""
        connection = await self.connected()
        try:
            return await self._ask(connection, statement, values)
        except Unknown as error:
            await self._leave()
            raise Again(*error.args) from error

    async def write(self, statement: str, *values: Any) -> None:
        """Return once a statement of :func:`fenced` is durable.

        Raises:
            Refused: it found nothing to change.
            Fenced: others counted this node as gone.
            Again: nothing is stored, and what the job has read may not hold any more.
            StorageError: it cannot be stored.
        """
        connection = await self.connected()
        number, node = self._commits + 1, self._node
        self._unreplicated = False
        try:
            await self._ask(connection, statement, (number, node, self._number, *values))
            if self._unreplicated:
                raise Unknown("PostgreSQL: no standby has it")
        except Unknown as error:
            await self._leave()
            is_fenced = await self._reconnect(node)
            if self._commits < number:
                raise (Fenced(node=node) if is_fenced else Again(*error.args)) from error
        except Refused as error:
            if error.why != FENCED:
                raise
            self._membership.lost(node)
            raise Fenced(node=node) from None
        self._commits = number

    async def _ask(self, connection: Connection, statement: str, values: Values) -> list[asyncpg.Record]:
        hung = asyncio.get_running_loop().call_later(ANSWER_S, connection.terminate)
        try:
            with translated(writing=True):
                return await connection.fetch(statement, *values)
        finally:
            hung.cancel()

    async def connected(self) -> Connection:
        """Return the connection, through which this node may write as far as is known.

        Raises:
            Fenced: others counted this node as gone.
            StoreUnavailable: there is no way to the server.
        """
        node = await self._membership.joined()
        if node != self._node:
            await self._leave()
            self._node, self._pid, self._commits = node, 0, 0
            self._heads.clear()
        if self._connection is None or self._connection.is_closed():
            await self._leave()
            if await self._reconnect(node):
                raise Fenced(node=node)
        assert self._connection is not None
        return self._connection

    async def _leave(self) -> None:
        """Leave the connection, and what was known by it: another server may take over that has less."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        self._heads.leave()

    async def _reconnect(self, node: int) -> bool:
        """Connect, and see to it that nothing of the lane is under way; tell whether it is fenced.

        Raises:
            StoreUnavailable: there is no way to the server.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + (PATIENCE_S if self._up else 0.0)
        while True:
            try:
                return await self._try_to_connect(node)
            except (StoreUnavailable, Unknown, Again) as error:
                if loop.time() > until:
                    self._up = False
                    raise StoreUnavailable(f"{error}; what was being written may be stored") from error
            await asyncio.sleep(_TRY_S)

    async def _try_to_connect(self, node: int) -> bool:
        name = application_name(node)
        connection = await self._connect(name)
        try:
            if self._pid:
                await self._ask(connection, _END, (self._pid, name))
            self._unreplicated = False
            connection.add_log_listener(self._heard)
            found = await self._ask(connection, _MINE, (node, self._number))
            if self._unreplicated:
                raise StoreUnavailable("PostgreSQL: no standby has it")
        except BaseException:
            connection.terminate()
            raise
        commits, is_fenced, pid = found[0] if found else (-1, True, 0)
        if commits < self._commits:
            self._heads.drop_behind()
        self._connection, self._pid, self._commits, self._up = connection, pid, commits, True
        if is_fenced:
            self._membership.lost(node)
        return bool(is_fenced)

    def _heard(self, _: object, message: asyncpg.PostgresLogMessage) -> None:
        if getattr(message, "sqlstate", None) == "01000":  # "canceling wait for synchronous replication"
            self._unreplicated = True
