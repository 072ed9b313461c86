"""Lists across sessions, as SQL: each has an index that gives it in order, so that a page costs what is on it.

Of several statuses each is read in order by itself, as far as a page goes; then they are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage.lists import SessionIndex
from crdt_sessions.storage.runs import FoundRun
from crdt_sessions.storage.sqlite import records
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.rows import COLUMNS, RECORD
from crdt_sessions.storage.sqlite.statements import marks, of_tenant
from crdt_sessions.storage.statuses import RUN_STATUSES, SESSION_STATUSES
from crdt_sessions.storage.stored import SessionRecord

_WHERE_MEMBER = "id IN (SELECT session FROM members WHERE principal = ?)"

Query = tuple[str, list[Any]]


class SqliteSessionIndex(OfDatabase, SessionIndex):
    """A :class:`SessionIndex` in a database."""

    async def sessions(
        self,
        *,
        after: SessionId | None,
        limit: int,
        tenant: str | None = None,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
    ) -> Sequence[SessionRecord]:
        await self._database.caught_up()
        of_one, which = of_tenant(tenant)
        of_status, ones = _of_status(statuses)
        of_member, whose = _of_member(member)
        found = await self._database.select(
            f"{RECORD} WHERE deleted_at IS NULL AND id > ?{of_one}{of_status}{of_member} ORDER BY id LIMIT ?",
            (after or "", *which, *ones, *whose, limit),
        )
        return [SessionRecord(*row) for row in found]

    async def recent_sessions(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
        before: tuple[Millis, SessionId] | None = None,
        limit: int,
    ) -> Sequence[SessionRecord]:
        await self._database.caught_up()
        query = recent_sessions(COLUMNS, tenant, statuses=statuses, member=member, before=before, limit=limit)
        return [SessionRecord(*row) for row in await self._database.select(*query)]

    async def count(self, tenant: str) -> int:
        statement = "SELECT count(*) FROM sessions WHERE deleted_at IS NULL AND tenant = ?"
        return int((await self._database.select(statement, (tenant,)))[0][0])


def recent_sessions(
    columns: str,
    tenant: str,
    *,
    statuses: Sequence[str] | None,
    member: str | None,
    before: tuple[Millis, SessionId] | None,
    limit: int,
) -> Query:
    """Return the query for *columns* of a tenant's sessions, and its parameters; the last to change comes first."""
    if member is not None:  # what somebody is a member of is found by that, and sorted
        of_one, which = _of_status(statuses)
        earlier, place = (" AND (updated_at, id) < (?, ?)", list(before)) if before is not None else ("", [])
        statement = (
            f"SELECT {columns} FROM sessions WHERE deleted_at IS NULL AND +tenant = ?{of_one}"
            f" AND {_WHERE_MEMBER}{earlier} ORDER BY updated_at DESC, id DESC LIMIT ?"
        )
        return statement, [tenant, *which, member, *place, limit]
    return _merged(
        columns, "sessions", "deleted_at IS NULL AND tenant = ?", [tenant],
        statuses or SESSION_STATUSES, ("updated_at", "id"), before, limit,
    )  # fmt: skip


def runs(
    tenant: str,
    *,
    statuses: Sequence[str] | None,
    answerer: str | None,
    before: tuple[Millis, SessionId, str] | None,
    limit: int,
) -> Query:
    """Return the query for a tenant's runs, and its parameters; the last that was asked for comes first."""
    one_agent, which = ("", []) if answerer is None else (" AND answerer = ?", [answerer])
    return _merged(
        "session, asked_at, id, agent, ready, queued_at, due_at, data, status, answerer", "runs",
        f"tenant = ?{one_agent}", [tenant, *which],
        statuses or RUN_STATUSES, ("asked_at", "session", "id"), before, limit,
    )  # fmt: skip


def found_runs(rows: Sequence[Any]) -> list[FoundRun]:
    """Return what the query :func:`runs` gave, as values."""
    entries = records.runs(row[2:] for row in rows)
    return [FoundRun(SessionId(row[0]), Millis(row[1]), entry) for row, entry in zip(rows, entries, strict=True)]


def _of_status(statuses: Sequence[str] | None) -> Query:
    """Return the condition for sessions of these statuses, to stand after others, and its parameters."""
    return ("", []) if statuses is None else (f" AND status IN ({marks(statuses)})", list(statuses))


def _of_member(member: str | None) -> Query:
    """Return the condition for sessions in which somebody has a role, to stand after others, and its parameters."""
    if member is None:
        return "", []
    return f" AND {_WHERE_MEMBER}", [member]


def _merged(
    columns: str,
    table: str,
    condition: str,
    which: list[Any],
    statuses: Sequence[str],
    order: Sequence[str],
    before: Sequence[Any] | None,
    limit: int,
) -> Query:
    earlier = f" AND ({', '.join(order)}) < ({marks(order)})" if before is not None else ""
    newest_first = ", ".join(f"{column} DESC" for column in order)
    one = (
        f"SELECT * FROM (SELECT {columns} FROM {table} WHERE {condition} AND status = ?{earlier}"
        f" ORDER BY {newest_first} LIMIT ?)"
    )
    statement = " UNION ALL ".join([one] * len(statuses)) + f" ORDER BY {newest_first} LIMIT ?"
    values = [value for status in statuses for value in (*which, status, *(before or ()), limit)]
    return statement, [*values, limit]
