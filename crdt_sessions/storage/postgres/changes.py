"""What has changed since, as SQL. A session knows the transaction that changed it last (``schema.py``).

Transactions end in another order than they begin in, so the newest number that is seen is no place to go on from: an
older one may still be under way. A reader goes through everything behind its mark, and begins the next time with the
oldest transaction that was under way when it began. So what is committed while others are may be told twice, and
nothing is left out. No writer waits for another one.

A failover may lose the last transactions, and their numbers are given anew. So a mark says, with the name of the
database, of which of its histories it is (PostgreSQL's timeline); one of another history begins with the first.

A mark has three numbers: where the next time begins, 0 if that is not known yet; and the last that was told of, which
is a transaction and a session.
"""

from __future__ import annotations

from crdt_sessions.storage.changes import ChangedSession, Changes, SessionChanges, mark_of, numbers_in
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.rows import COLUMNS, record_of

_NOW = (
    "SELECT name || '-' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),"
    " pg_snapshot_xmin(pg_current_snapshot())::text::bigint,"
    " pg_snapshot_xmax(pg_current_snapshot())::text::bigint FROM database"
)
_CHANGED = (
    f"SELECT {COLUMNS}, deleted_at IS NOT NULL, change, sid FROM sessions"
    " WHERE tenant = $1 AND (change, sid) > ($2::bigint, $3::bigint) AND (deleted_at IS NULL OR $4)"
    " AND (deleted_at IS NOT NULL OR $5::text IS NULL OR id IN (SELECT session FROM members WHERE principal = $5))"
    " ORDER BY change, sid LIMIT $6"
)


class PostgresChanges(OfDatabase, SessionChanges):
    """The :class:`SessionChanges` in a database."""

    async def changed_sessions(
        self, tenant: str, *, since: str | None, member: str | None = None, limit: int
    ) -> Changes:
        await self._database.caught_up()

        async def read(connection: Connection) -> Changes:
            return await _changes(connection, tenant, since=since, member=member, limit=limit)

        return await self._database.view(read)


async def _changes(
    connection: Connection, tenant: str, *, since: str | None, member: str | None, limit: int
) -> Changes:
    ((name, oldest, next_one),) = await connection.fetch(_NOW)
    numbers = numbers_in(since, name, 3)
    known = numbers is not None and max(numbers[:2]) <= next_one
    begin, change, sid = numbers if numbers is not None and known else (0, 0, 0)
    begin = begin or oldest
    found = await connection.fetch(_CHANGED, tenant, change, sid, known, member, limit + 1)
    more = len(found) > limit
    sessions = [ChangedSession(record_of(row), row[-3]) for row in found[:limit]]
    mark = (begin, *tuple(found[limit - 1])[-2:]) if more else (0, begin, 0)
    return Changes(sessions, mark_of(name, *mark), more, since is not None and not known)
