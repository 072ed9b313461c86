"""The time as the database has it. All nodes go by it: the clocks of their machines may differ by hours."""

from __future__ import annotations

from crdt_sessions.clock import steady_ns
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.errors import translated

_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_NS = 1000


class ServerTime:
    """The database's clock, as it was last looked at, and what has passed since by one that nobody sets."""

    def __init__(self) -> None:
        self._ahead = 0

    def now_ns(self) -> int:
        """Return nanoseconds since the Unix epoch, once it has been looked at."""
        return steady_ns() + self._ahead

    async def look(self, connection: Connection) -> None:
        """Ask the server what time it is. The answer is as old as half of the time that it took.

        Raises:
            StorageError: it does not answer.
        """
        asked = steady_ns()
        with translated():
            found = await connection.fetchval(_NOW)
        self._ahead = found * _NS - (asked + steady_ns()) // 2
