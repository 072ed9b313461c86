"""The nodes of a database, for people who look after them."""

from __future__ import annotations

from dataclasses import dataclass

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.addresses import shown
from crdt_sessions.storage.postgres.connection import close
from crdt_sessions.storage.postgres.errors import translated
from crdt_sessions.storage.postgres.servers import Servers
from crdt_sessions.storage.postgres.store import SCHEMA

_SILENT_S = 3.0
_NAME = "crdt-sessions nodes"
_THERE = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('beats') AND attname = 'passed_on')"
_LIST = (
    "SELECT node, name, address, version, gone, draining, extract(epoch FROM now() - beats.at)::float AS silent_s,"
    " extract(epoch FROM now() - started)::float AS up_s, live, connections, passed_on,"
    " (SELECT count(*) FROM sessions WHERE owner = node AND deleted_at IS NULL) AS sessions"
    " FROM nodes JOIN beats USING (node) WHERE $1 OR NOT gone ORDER BY gone, name, started"
)


@dataclass(frozen=True, slots=True)
class ListedNode:
    """A node, as the database knows it."""

    node: int
    name: str
    """Of its machine."""
    address: str
    """Where it listens for the others; empty if it does not."""
    version: str
    state: str
    """``up``, ``draining``, ``silent`` if it missed a few beats, or ``gone``."""
    sessions: int
    """Those that it owns."""
    live: int
    """Those in its memory."""
    connections: int
    passed_on: int
    """Sockets of clients that it passes on to other nodes."""
    silent_s: float
    """Seconds since its last beat."""
    up_s: float
    """Seconds since it joined."""


async def nodes_of(url: str, *, gone: bool = False, schema: str = SCHEMA) -> list[ListedNode]:
    """Return the nodes of a database.

    Args:
        url: its address.
        gone: whether those are meant, too, that are gone, of the last days.
        schema: the PostgreSQL schema of the tables.

    Raises:
        StorageError: it cannot be read, or no service has been there yet.
    """
    connection = await Servers(url, schema).connect(_NAME)
    try:
        with translated():
            if not await connection.fetchval(_THERE):
                raise StorageError(
                    f"no service of this release has used {shown(url)} yet: crdt-sessions serve makes it"
                )
            found = await connection.fetch(_LIST, gone)
    finally:
        await close(connection)
    return [
        ListedNode(
            row["node"], row["name"], row["address"], row["version"], _state(*row[4:7]),
            row["sessions"], row["live"], row["connections"], row["passed_on"], row["silent_s"], row["up_s"],
        )
        for row in found
    ]  # fmt: skip


def _state(gone: bool, draining: bool, silent_s: float) -> str:
    if gone:
        return "gone"
    if draining:
        return "draining"
    return "silent" if silent_s > _SILENT_S else "up"
