"""Connections that read, each used by one at a time and made when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from crdt_sessions.errors import StoreUnavailable
from crdt_sessions.storage.postgres.connection import Connection, close
from crdt_sessions.storage.postgres.errors import Again, Unknown, translated

Result = TypeVar("Result")

_HUNG_S = 20.0


class Readers:
    """A few connections that read.

    Args:
        connect: makes one.
        count: how many there are at most.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], count: int) -> None:
        self._connect = connect
        self._count = count
        self._made: set[Connection] = set()
        self._free: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
        for _ in range(count):
            self._free.put_nowait(None)

    async def close(self) -> None:
        """Close all, once nobody reads any more."""
        for _ in range(self._count):
            await close(await self._free.get())

    def leave(self) -> None:
        """End all connections: the server that they lead to says nothing. Who reads does so on another one."""
        for connection in self._made:
            connection.terminate()
        self._made.clear()

    async def select(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Return the rows that a statement finds."""
        return await self._read(lambda connection: connection.fetch(statement, *values))

    async def view(self, read: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Read everything as it is at one moment."""

        async def at_one_moment(connection: Connection) -> Result:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await read(connection)

        return await self._read(at_one_moment)

    async def _read(self, read: Callable[[Connection], Awaitable[Result]]) -> Result:
        try:
            return await self._try(read)
        except (Unknown, Again):  # the connection was lost while nobody used it, perhaps
            try:
                return await self._try(read)
            except (Unknown, Again) as error:
                raise StoreUnavailable(str(error)) from error

    async def _try(self, read: Callable[[Connection], Awaitable[Result]]) -> Result:
        connection = await self._free.get()
        try:
            if connection is None or connection.is_closed():
                connection = await self._connect()
                self._made = {each for each in self._made if not each.is_closed()} | {connection}
            hung = asyncio.get_running_loop().call_later(_HUNG_S, connection.terminate)
            try:
                with translated(writing=True):
                    return await read(connection)
            finally:
                hung.cancel()
        finally:
            self._free.put_nowait(connection)
