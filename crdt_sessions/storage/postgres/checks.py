"""What a server must be like, looked at before anything is stored there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from crdt_sessions.errors import StorageError, StoreUnavailable
from crdt_sessions.storage.addresses import shown
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.errors import POOLED, translated

_OLDEST = 140000
_STANDBYS = "SELECT current_setting('synchronous_standby_names')"
_SERVER = "SELECT pg_backend_pid()"
_FACTS = (
    "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),"
    " current_setting('transaction_read_only')::bool, current_setting('fsync')::bool,"
    " current_setting('full_page_writes')::bool, current_setting('server_encoding'),"
    " current_setting('transaction_isolation'), current_setting('synchronous_commit')"
)


async def check_server(connection: Connection, *, url: str, quorum: bool) -> None:
    """Return if what the server acknowledges stays.

    Args:
        connection: to the server.
        url: for messages.
        quorum: whether it must be on another server, too.

    Raises:
        StorageError: it would not; the message says which setting it is.
    """
    with translated():
        (facts,) = await connection.fetch(_FACTS)
    version, standby, read_only, fsync, full_pages, encoding, isolation, commit = facts
    for wrong, why in (
        (version < _OLDEST, f"it is version {version // 10000}, and 14 is the oldest that will do"),
        (standby or read_only, "it takes no writes: name the primary, or add ?target_session_attrs=read-write"),
        (not fsync, "its setting fsync is off, so that a power cut loses what was acknowledged"),
        (not full_pages, "its setting full_page_writes is off, so that a power cut can damage it"),
        (encoding != "UTF8", f"the database's encoding is {encoding}: create one with ENCODING 'UTF8'"),
        (isolation != "read committed", f"transactions are {isolation} and must be read committed"),
        (commit == "off", "synchronous_commit is off and cannot be set, so that a crash loses what was acknowledged"),
    ):
        if wrong:
            raise StorageError(f"{shown(url)} cannot be used: {why}")
    if quorum:
        await check_quorum(connection.fetch)


async def check_quorum(select: Callable[[str], Awaitable[Any]]) -> None:
    """Return if commits wait for another server.

    Raises:
        StoreUnavailable: they do not.
    """
    ((names,),) = await select(_STANDBYS)
    if not names:
        raise StoreUnavailable(
            "PostgreSQL: with --durability quorum commits must wait for a standby, and synchronous_standby_names is"
            " empty: set it, such as 'ANY 1 (*)'"
        )


async def check_pooler(connection: Connection, another: Connection, *, url: str) -> None:
    """Return if a connection keeps its server for as long as it lasts, also behind a pooler.

    Raises:
        StorageError: a pooler hands servers to others between transactions: what is set on a connection is not
            there in the next one, and who ends a connection may end somebody else's.
    """
    with translated():
        mine = await connection.fetchval(_SERVER)
        async with another.transaction():
            others = await another.fetchval(_SERVER)
            again = await connection.fetchval(_SERVER)
    if mine in (others, None) or again != mine:
        raise StorageError(f"{shown(url)} cannot be used: {POOLED}")
