"""Lists across sessions, as SQL: each has an index that gives it in order, so that a page costs what is on it.

Of several statuses each is read in order by itself, as far as a page goes; then they are merged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage import sqlite_entries
from crdt_sessions.storage.base import MOST_AGENTS, FoundRun

SESSION_STATUSES = ("active", "closed", "archived")
RUN_STATUSES = ("queued", "running", "suspended", "completed", "failed", "cancelled", "interrupted")

Query = tuple[str, list[Any]]


def of_status(statuses: Sequence[str] | None) -> Query:
    """Return the condition for sessions of these statuses, to stand behind others, and its parameters."""
    return ("", []) if statuses is None else (f" AND status IN ({_marks(statuses)})", list(statuses))


def of_member(member: str | None) -> Query:
    """Return the condition for sessions in which somebody has a role, to stand behind others, and its parameters."""
    if member is None:
        return "", []
    return " AND id IN (SELECT session FROM members WHERE principal = ?)", [member]


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
        of_one, which = of_status(statuses)
        behind, place = (" AND (updated_at, id) < (?, ?)", list(before)) if before is not None else ("", [])
        statement = (
            f"SELECT {columns} FROM sessions WHERE deleted_at IS NULL AND +tenant = ?{of_one}"
            f" AND id IN (SELECT session FROM members WHERE principal = ?){behind}"
            " ORDER BY updated_at DESC, id DESC LIMIT ?"
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
    entries = sqlite_entries.runs(row[2:] for row in rows)
    return [FoundRun(SessionId(row[0]), Millis(row[1]), entry) for row, entry in zip(rows, entries, strict=True)]


def note_agents(connection: sqlite3.Connection, tenant: str, names: Sequence[str], now: Millis) -> None:
    """Remember agents, inside a transaction; of too many those that were seen longest ago are forgotten."""
    connection.executemany("INSERT OR REPLACE INTO agents VALUES (?, ?, ?)", [(tenant, name, now) for name in names])
    connection.execute(
        "DELETE FROM agents WHERE tenant = ?1 AND name NOT IN"
        " (SELECT name FROM agents WHERE tenant = ?1 ORDER BY seen_at DESC, name LIMIT ?2)",
        (tenant, MOST_AGENTS),
    )


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
    behind = f" AND ({', '.join(order)}) < ({_marks(order)})" if before is not None else ""
    newest_first = ", ".join(f"{column} DESC" for column in order)
    one = (
        f"SELECT * FROM (SELECT {columns} FROM {table} WHERE {condition} AND status = ?{behind}"
        f" ORDER BY {newest_first} LIMIT ?)"
    )
    statement = " UNION ALL ".join([one] * len(statuses)) + f" ORDER BY {newest_first} LIMIT ?"
    values = [value for status in statuses for value in (*which, status, *(before or ()), limit)]
    return statement, [*values, limit]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
