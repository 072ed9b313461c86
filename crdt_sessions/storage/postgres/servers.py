"""The servers that a URL names, of which one takes writes.

asyncpg asks them one after the other, and stays with one that says nothing until the caller has lost patience: behind
a server that is cut off no other one would ever be asked. So the next one is asked soon after, beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from urllib.parse import urlsplit, urlunsplit

from crdt_sessions.storage.postgres.connection import Connection, connect
from crdt_sessions.storage.postgres.errors import translated

CONNECT_S = 5.0
"""For how long all servers together may let somebody wait who connects."""
_HEAD_START_S = 0.25
"""How long a server may think before the next one is asked, too."""


class Servers:
    """Connects to the one of several servers that will do; the one that did last is asked first.

    Args:
        url: of the database, with one host or several.
        schema: the PostgreSQL schema of the tables.
    """

    def __init__(self, url: str, schema: str) -> None:
        self._urls = each_alone(url)
        self._schema = schema

    async def connect(self, name: str) -> Connection:
        """Return a connection of a name.

        Raises:
            StoreUnavailable: there is no way to any server now.
            StorageError: one refuses.
        """

        async def attempt(url: str) -> Connection:
            connection = await connect(url, schema=self._schema, name=name)
            self._urls.sort(key=lambda each: each != url)
            return connection

        with translated():
            async with asyncio.timeout(CONNECT_S):
                return await _first([partial(attempt, url) for url in self._urls])


def each_alone(url: str) -> list[str]:
    """Return the URLs of a database's servers, one by one."""
    try:
        parts = urlsplit(url)
    except ValueError:  # the driver says so, without a password in its words
        return [url]
    before, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [url]
    return [urlunsplit(parts._replace(netloc=f"{before}{at}{host}")) for host in hosts.split(",")]


async def _first(attempts: Sequence[Callable[[], Awaitable[Connection]]]) -> Connection:
    """Return what the first attempt that goes well returns; each begins when those before it fail, or take long.

    Raises:
        Exception: what the last attempt that failed raises, if all do.
    """
    to_come = list(attempts)
    going: set[asyncio.Task[Connection]] = set()
    ended: set[asyncio.Task[Connection]] = set()
    try:
        while True:
            if to_come:
                going.add(asyncio.ensure_future(to_come.pop(0)()))
            ended, going = await asyncio.wait(
                going, timeout=_HEAD_START_S if to_come else None, return_when=asyncio.FIRST_COMPLETED
            )
            good = [task for task in ended if task.exception() is None]
            if good:
                ended.discard(good[0])
                return good[0].result()
            if not going and not to_come:
                return ended.pop().result()
    finally:
        for task in going:
            task.cancel()
        for task in {*ended, *(await asyncio.wait(going))[0]} if going else ended:
            if not task.cancelled() and task.exception() is None:  # it was too late
                task.result().terminate()
