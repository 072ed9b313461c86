"""What several concerns say in SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from crdt_sessions.errors import SessionNotFound
from crdt_sessions.ids import SessionId


def changed(connection: sqlite3.Connection, statement: str, values: Sequence[Any]) -> int:
    """Execute a statement and return how many rows it changed."""
    return connection.execute(statement, values).rowcount


def require_session(connection: sqlite3.Connection, session: SessionId) -> None:
    """Return if there is such a session.

    Raises:
        SessionNotFound: there is none, or it was deleted.
    """
    found = connection.execute("SELECT 1 FROM sessions WHERE id = ? AND deleted_at IS NULL", (session,))
    if found.fetchone() is None:
        raise SessionNotFound(session=session)


def of_tenant(tenant: str | None, column: str = "tenant") -> tuple[str, tuple[str, ...]]:
    """Return the condition for sessions of a tenant, to stand after others, and its parameters."""
    return ("", ()) if tenant is None else (f" AND {column} = ?", (tenant,))


def marks(values: Sequence[Any]) -> str:
    """Return a place for each of *values*."""
    return ", ".join("?" * len(values))
