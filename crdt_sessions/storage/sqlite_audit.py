"""The audit log, as SQL. Rows are only ever added: triggers refuse everything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.storage.base import AuditEntry

_INSERT = "INSERT INTO audit (at, tenant, session, principal, action, detail) VALUES (?, ?, ?, ?, ?, ?)"


def put(connection: sqlite3.Connection, entries: Iterable[AuditEntry]) -> None:
    """Append *entries*, inside a transaction."""
    connection.executemany(
        _INSERT, [(each.at, each.tenant, each.session, each.principal, each.action, each.detail) for each in entries]
    )


def query(
    tenant: str, *, session: str | None, principal: str | None, action: str | None, after: int, limit: int
) -> tuple[str, Sequence[Any]]:
    """Return the statement that reads entries, and its parameters."""
    wanted = {"session": session, "principal": principal, "action": action}
    given = {column: value for column, value in wanted.items() if value is not None}
    conditions = "".join(f" AND {column} = ?" for column in given)
    statement = (
        "SELECT at, tenant, session, principal, action, detail, id FROM audit"
        f" WHERE tenant = ? AND id > ?{conditions} ORDER BY id LIMIT ?"
    )
    return statement, (tenant, after, *given.values(), limit)


def entries(rows: Iterable[Any]) -> list[AuditEntry]:
    """Return rows of :func:`query` as values."""
    return [AuditEntry(Millis(at), *rest) for at, *rest in rows]
