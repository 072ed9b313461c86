"""What has changed since, as SQL: triggers number the changes of a tenant (``migrations.py``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage.changes import ChangedSession, Changes, SessionChanges, mark_of, numbers_in
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.heads import WRITTEN, advance
from crdt_sessions.storage.sqlite.rows import COLUMNS
from crdt_sessions.storage.stored import SessionRecord

_PAGE = 5000
_UNTOLD = (
    f"SELECT id, {WRITTEN}, last_seq,"
    " coalesce((SELECT at FROM updates WHERE session = id ORDER BY seq DESC LIMIT 1),"
    " (SELECT at FROM snapshots WHERE session = id ORDER BY seq DESC LIMIT 1))"
    " FROM sessions WHERE id > ? AND deleted_at IS NULL ORDER BY id LIMIT ?"
)
_MEMBER = " AND (deleted_at IS NOT NULL OR id IN (SELECT session FROM members WHERE principal = ?))"


class SqliteChanges(OfDatabase, SessionChanges):
    """The :class:`SessionChanges` in a database."""

    _told = False

    async def changed_sessions(
        self, tenant: str, *, since: str | None, member: str | None = None, limit: int
    ) -> Changes:
        await self._tell_of_what_died()
        await self._database.caught_up()
        return await self._database.view(
            lambda connection: _changes(connection, tenant, since=since, member=member, limit=limit)
        )

    async def _tell_of_what_died(self) -> None:
        """Have ``sessions`` say where all logs end, once in the life of a process.

        A process that dies leaves what was committed in its last second to be told of. A service that nobody asks for
        changes never looks for it.
        """
        if self._told:
            return
        after: str | None = ""
        while after is not None:
            page = await self._database.select(_UNTOLD, (after, _PAGE))
            untold = [(SessionId(id), None, last, Millis(at)) for id, last, last_seq, at in page if last > last_seq]
            if untold:
                await self._database.submit(_teller(untold))
            after = page[-1][0] if len(page) == _PAGE else None
        self._told = True


def _teller(heads: Sequence[tuple[SessionId, None, int, Millis]]) -> Any:
    def job(connection: sqlite3.Connection) -> None:
        advance(connection, heads)

    return job


def _changes(
    connection: sqlite3.Connection, tenant: str, *, since: str | None, member: str | None, limit: int
) -> Changes:
    ((name,),) = connection.execute("SELECT name FROM database").fetchall()
    newest = connection.execute("SELECT max(change) FROM sessions WHERE tenant = ?", (tenant,)).fetchone()[0] or 0
    numbers = numbers_in(since, name, 1)
    known = numbers is not None and numbers[0] <= newest
    after = numbers[0] if numbers is not None and known else 0
    conditions, values = ("", []) if known else (" AND deleted_at IS NULL", [])
    if member is not None:
        conditions, values = conditions + _MEMBER, [member]
    rows = connection.execute(
        f"SELECT {COLUMNS}, deleted_at IS NOT NULL, change FROM sessions WHERE tenant = ? AND change > ?{conditions}"
        " ORDER BY change LIMIT ?",
        (tenant, after, *values, limit + 1),
    ).fetchall()
    more = len(rows) > limit
    found = [ChangedSession(SessionRecord(*facts), bool(deleted)) for *facts, deleted, _ in rows[:limit]]
    mark = rows[limit - 1][-1] if more else newest
    return Changes(found, mark_of(name, mark), more, since is not None and not known)
