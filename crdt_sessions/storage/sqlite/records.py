"""The records beside the log, as SQL: runs, writers, steps, deliveries, members."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from crdt_sessions.ids import Millis, SessionId, tenant_of
from crdt_sessions.storage.runs import RunEntry
from crdt_sessions.storage.stored import Entries, WriterEntry
from crdt_sessions.storage.usage import Amounts, UsageKey

TABLES = ("runs", "writers", "steps", "deliveries", "members")

QUERIES = (
    "SELECT id, agent, ready, queued_at, due_at, data, status, answerer FROM runs WHERE session = ?"
    " ORDER BY queued_at, id",
    "SELECT client, principal, run, epoch, fenced_at FROM writers WHERE session = ? ORDER BY client",
)
"""What :func:`runs` and :func:`writers` read."""


_AMOUNTS = ", ".join(Amounts._fields)
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in Amounts._fields)
_INTO = f"INSERT INTO usage (tenant, principal, day, session, model, currency, {_AMOUNTS})"


def put(connection: sqlite3.Connection, session: SessionId, entries: Entries) -> None:
    """Put *entries* on record, inside a transaction."""
    for statement, rows in (
        (
            "INSERT INTO runs"
            " (session, id, agent, ready, queued_at, due_at, data, tenant, status, answerer, asked_at)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?5)"
            " ON CONFLICT DO UPDATE SET agent = excluded.agent,"
            " ready = excluded.ready, queued_at = excluded.queued_at, due_at = excluded.due_at, data = excluded.data,"
            " status = excluded.status, answerer = excluded.answerer",
            [
                (
                    session, run.id, run.agent, run.ready, run.queued_at, run.due_at, run.data, tenant_of(session),
                    run.status, run.answerer,
                )
                for run in entries.runs
            ],
        ),
        (
            "INSERT OR REPLACE INTO writers VALUES (?, ?, ?, ?, ?, ?)",
            [(session, each.client, each.principal, each.run, each.epoch, each.fenced_at)
             for each in entries.writers],
        ),
        (
            "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (
                    each.id, each.endpoint, session, each.kind, each.body, each.created_at, each.attempts,
                    each.next_at, each.error, int(each.dead),
                )
                for each in entries.deliveries
            ],
        ),
    ):  # fmt: skip
        if rows:
            connection.executemany(statement, rows)
    if entries.usage:
        _add_usage(connection, session, entries.usage)


def runs(rows: Iterable[Any]) -> tuple[RunEntry, ...]:
    """Return the rows of the first query as values."""
    return tuple(
        RunEntry(id, agent, bool(ready), Millis(queued_at), due_at, data, status, answerer)
        for id, agent, ready, queued_at, due_at, data, status, answerer in rows
    )


def writers(rows: Iterable[Any]) -> tuple[WriterEntry, ...]:
    """Return the rows of the second query as values."""
    return tuple(WriterEntry(*row) for row in rows)


def _add_usage(connection: sqlite3.Connection, session: SessionId, usage: Mapping[UsageKey, Amounts]) -> None:
    """Add to what a session has used, inside a transaction."""
    connection.executemany(
        f"{_INTO} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET {_ADDED}",
        [
            (tenant_of(session), key.principal, key.day, session, key.model, key.currency, *amounts)
            for key, amounts in usage.items()
        ],
    )


def forget_usage(connection: sqlite3.Connection, session: SessionId) -> None:
    """Have what a session has used count for its tenant and its principals alone, inside a transaction."""
    connection.execute(
        f"{_INTO} SELECT tenant, principal, day, '', model, currency, {_AMOUNTS} FROM usage WHERE session = ?"
        f" ON CONFLICT DO UPDATE SET {_ADDED}",
        (session,),
    )
    connection.execute("DELETE FROM usage WHERE session = ?", (session,))


def disown_usage(connection: sqlite3.Connection, tenant: str, principal: str) -> None:
    """Have what the runs of a principal have used count for nobody, inside a transaction."""
    who = (tenant, principal)
    connection.execute(
        f"{_INTO} SELECT tenant, '', day, session, model, currency, {_AMOUNTS} FROM usage"
        f" WHERE tenant = ? AND principal = ? ON CONFLICT DO UPDATE SET {_ADDED}",
        who,
    )
    connection.execute("DELETE FROM usage WHERE tenant = ? AND principal = ?", who)
