"""Rows and the records beside them as SQL: one statement for those of many sessions."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from crdt_sessions.ids import Millis, SessionId, tenant_of
from crdt_sessions.storage.integrity import checksum
from crdt_sessions.storage.postgres.statements import fenced
from crdt_sessions.storage.postgres.text import kept, read
from crdt_sessions.storage.runs import RunEntry
from crdt_sessions.storage.stored import NO_ENTRIES, Entries, Row, WriterEntry
from crdt_sessions.storage.usage import Amounts, UsageKey

TABLES = ("runs", "writers", "steps", "deliveries", "members")
"""What belongs to a session and goes with it."""
RUN_COLUMNS = "id, agent, ready, queued_at, due_at, data, status, answerer"
RUNS = f"SELECT session, {RUN_COLUMNS} FROM runs WHERE session = ANY($1::text[]) ORDER BY queued_at, id"
WRITERS = (
    "SELECT session, client, principal, run, epoch, fenced_at FROM writers WHERE session = ANY($1::text[])"
    " ORDER BY client"
)

AMOUNTS = ", ".join(Amounts._fields)
ADDED = ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in Amounts._fields)
USAGE_COLUMNS = f"tenant, principal, day, session, model, currency, {AMOUNTS}"
USAGE_KEY = "tenant, principal, day, session, model, currency"


@dataclass(slots=True)
class Append:
    """Rows for one session. Those of many sessions are one statement."""

    session: SessionId
    rows: Sequence[Row]
    entries: Entries
    now: Millis


class _Table(NamedTuple):
    """How many rows are inserted at once, each column as an array."""

    columns: str
    types: Sequence[str]
    conflict: str = ""


_TABLES = {
    "updates": _Table("sid, seq, at, checksum, waits, data", ("bigint",) * 4 + ("boolean", "bytea")),
    "runs": _Table(
        "session, id, tenant, agent, ready, queued_at, due_at, data, status, answerer, asked_at",
        ("text",) * 4 + ("boolean", "bigint", "bigint", "text", "text", "text", "bigint"),
        "ON CONFLICT (session, id) DO UPDATE SET agent = excluded.agent, ready = excluded.ready,"
        " queued_at = excluded.queued_at, due_at = excluded.due_at, data = excluded.data,"
        " status = excluded.status, answerer = excluded.answerer",
    ),
    "writers": _Table(
        "session, client, principal, run, epoch, fenced_at",
        ("text", "bigint", "text", "text", "bigint", "bigint"),
        "ON CONFLICT (session, client) DO UPDATE SET principal = excluded.principal, run = excluded.run,"
        " epoch = excluded.epoch, fenced_at = excluded.fenced_at",
    ),
    "deliveries": _Table(
        "id, endpoint, session, kind, body, created_at, attempts, next_at, error, dead",
        ("text",) * 5 + ("bigint",) * 3 + ("text", "boolean"),
        "ON CONFLICT DO NOTHING",
    ),
    "usage": _Table(
        USAGE_COLUMNS,
        ("text", "text", "bigint", "text", "text", "text") + ("bigint",) * len(Amounts._fields),
        f"ON CONFLICT ({USAGE_KEY}) DO UPDATE SET {ADDED}",
    ),
}


def parts_of(
    rows: Mapping[str, Sequence[Sequence[Any]]], *, first: int = 4
) -> tuple[dict[str, str], list[list[Any]]]:
    """Return what inserts *rows* by table, as parts of a statement, and its parameters from the number *first* on."""
    there = {table: found for table, found in rows.items() if found}
    values = [list(column) for found in there.values() for column in zip(*found, strict=True)]
    return _parts(tuple(there), first), values


@functools.cache
def _parts(tables: tuple[str, ...], first: int) -> dict[str, str]:
    parts = {}
    for table in tables:
        columns, types, conflict = _TABLES[table]
        arrays = ", ".join(f"${first + at}::{kind}[]" for at, kind in enumerate(types))
        parts[f"put_{table}"] = f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays}) {conflict}"
        first += len(types)
    return parts


def statement_for(appends: Sequence[tuple[int, Append]]) -> tuple[str, list[Any]]:
    """Return the statement that appends rows with their entries, and its parameters.

    Args:
        appends: with the ``sid`` of each session.
    """
    rows = [
        (sid, row.seq, each.now, checksum(each.session, row), row.waits, row.update)
        for sid, each in appends
        for row in each.rows
    ]
    entries = [(each.session, each.entries) for _, each in appends if each.entries is not NO_ENTRIES]
    parts, values = parts_of({"updates": rows, **(entry_rows(entries) if entries else {})})
    return fenced(**parts), values


def entry_rows(entries: Sequence[tuple[SessionId, Entries]]) -> dict[str, Sequence[Sequence[Any]]]:
    """Return the rows of *entries* by table. No statement may touch a row twice, so the last one of each counts."""
    runs: dict[tuple[str, str], tuple[Any, ...]] = {}
    writers: dict[tuple[str, int], tuple[Any, ...]] = {}
    deliveries: list[tuple[Any, ...]] = []
    usage: dict[tuple[Any, ...], Amounts] = {}
    for session, each in entries:
        tenant = tenant_of(session)
        for run in each.runs:
            key = (session, run.id)
            asked_at = runs[key][-1] if key in runs else run.queued_at
            runs[key] = (*key, tenant, run.agent, run.ready, run.queued_at, run.due_at, kept(run.data), run.status,
                         run.answerer, asked_at)  # fmt: skip
        for writer in each.writers:
            writers[session, writer.client] = (
                session, writer.client, writer.principal, writer.run, writer.epoch, writer.fenced_at,
            )  # fmt: skip
        deliveries += [
            (one.id, one.endpoint, session, one.kind, kept(one.body), one.created_at, one.attempts, one.next_at,
             kept(one.error), one.dead)
            for one in each.deliveries
        ]  # fmt: skip
        for which, amounts in each.usage.items():
            place = (tenant, *_usage_place(session, which))
            usage[place] = usage.get(place, Amounts()).plus(amounts)
    return {
        "runs": list(runs.values()),
        "writers": list(writers.values()),
        "deliveries": deliveries,
        "usage": [(*place, *amounts) for place, amounts in usage.items()],
    }


def _usage_place(session: SessionId, key: UsageKey) -> tuple[Any, ...]:
    return key.principal, key.day, session, kept(key.model), kept(key.currency)


def run_entries(rows: Iterable[Any]) -> tuple[RunEntry, ...]:
    """Return rows of :data:`RUN_COLUMNS` as values."""
    return tuple(
        RunEntry(id, agent, ready, Millis(queued_at), due_at, read(data), status, answerer)
        for id, agent, ready, queued_at, due_at, data, status, answerer in rows
    )


def writer_entries(rows: Iterable[Any]) -> tuple[WriterEntry, ...]:
    """Return the rows of :data:`WRITERS` as values."""
    return tuple(WriterEntry(*row) for row in rows)
