"""Connections, as all of them are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.addresses import shown
from crdt_sessions.storage.postgres.errors import translated

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # only its stubs are generic

_CACHED_STATEMENTS = 200
_SETTINGS = {
    "default_transaction_isolation": "read committed",  # a write looks at its lane's row again after a wait for it
    "synchronous_commit": "on",
    "statement_timeout": "0",  # a cancelled wait for a standby would look like a commit
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
    "client_min_messages": "warning",
}
"""What is set on every connection, whatever the server's own settings say."""


def application_name(node: int) -> str:
    """Return what a node's connections are called, so that others see them, and can end them."""
    return f"crdt-sessions/{node}"


async def connect(url: str, *, schema: str, name: str) -> Connection:
    """Return a connection to one server, which may take as long as the caller waits.

    Args:
        url: of the database.
        schema: the PostgreSQL schema of the tables.
        name: as :func:`application_name` makes it.

    Raises:
        StoreUnavailable: there is no way to the server now.
        StorageError: it refuses.
    """
    with translated():
        try:
            connection = await asyncpg.connect(
                url, server_settings={"application_name": name}, statement_cache_size=_CACHED_STATEMENTS
            )
        except ValueError:  # what it says may have a part of the password in it
            raise StorageError(f"{shown(url)} is not an address of PostgreSQL's") from None
        try:
            settings = {**_SETTINGS, "search_path": quoted(schema)}
            await connection.execute("; ".join(f"SET {key} = {_literal(settings[key])}" for key in settings))
        except BaseException:
            connection.terminate()
            raise
    return connection


def _literal(value: str) -> str:
    return value if value.startswith('"') else f"'{value}'"


async def close(connection: Connection | None) -> None:
    """Close a connection, which may be broken."""
    if connection is None or connection.is_closed():
        return
    try:
        async with asyncio.timeout(1.0):
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


Values = tuple[Any, ...]


def quoted(name: str) -> str:
    """Return a name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'
