"""The end of a node in the database: its connections end, it commits nothing any more, and its sessions are free."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.errors import translated

_log = logging.getLogger("crdt_sessions.storage")

_PRESENT = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'crdt-sessions/' || $1::bigint)"
_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name = 'crdt-sessions/' || $1::bigint AND pid <> pg_backend_pid()"
)
_TELL = (
    "UPDATE sessions SET last_seq = head.seq, updated_at = head.at FROM (SELECT untold.sid, newest.seq, newest.at"
    " FROM sessions AS untold CROSS JOIN LATERAL (SELECT seq, at FROM updates WHERE updates.sid = untold.sid"
    " ORDER BY seq DESC LIMIT 1) AS newest WHERE untold.owner = $1 AND untold.deleted_at IS NULL"
    " AND newest.seq > untold.last_seq) AS head WHERE sessions.sid = head.sid"
)
"""A node leaves what it committed in its last second to be told of; who asks what changed since must hear of it."""

_LOOKS_S = (0, 0.01, 0.02, 0.04, 0.08, *[0.1] * 4)
"""After which pauses the server is asked whether the connections of a node have ended that died."""


async def is_disconnected(connection: Connection, node: int) -> bool:
    """Tell whether a node has no connection to the server; if it has one, wait a moment for its end.

    Raises:
        StorageError: the server cannot be asked.
    """
    for pause_s in _LOOKS_S:
        await asyncio.sleep(pause_s)
        with translated():
            if not await connection.fetchval(_PRESENT, node):
                return True
    return False


async def fence(connection: Connection, node: int) -> None:
    """Return once a node commits nothing any more: what it had under way is stored by then, or never.

    Raises:
        StorageError: it is not fenced.
    """
    with translated():
        try:
            await connection.execute(_END, node)  # a transaction left open would hold a lane
        except asyncpg.InsufficientPrivilegeError as error:
            _log.warning("connections of node %d cannot be ended: %s", node, error)
        async with connection.transaction():
            await connection.execute("SELECT FROM lanes WHERE node = $1 ORDER BY lane FOR NO KEY UPDATE", node)
            await connection.execute("UPDATE lanes SET fenced = true WHERE node = $1", node)
            await connection.execute(_TELL, node)
            await connection.execute("UPDATE nodes SET gone = true WHERE node = $1", node)
