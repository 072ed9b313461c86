"""Whether a file is a database of ours, is about to become one, or belongs to something else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from crdt_sessions.errors import ForeignDatabase, NewerSchema
from crdt_sessions.storage.sqlite.migrations import STEPS

_OURS = {"sessions": {"id", "generation", "last_seq"}, "updates": {"session", "seq", "data", "checksum"}}
"""Tables and columns that every schema of ours has had, the first one included."""
_SHOWN = 3
_BUSY_S = 2.0


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return which of our schemas a database has; 0 if there is nothing in it yet.

    Args:
        connection: to the database. Nothing is written.
        path: for messages.

    Raises:
        ForeignDatabase: it is no database, or one of something else.
        NewerSchema: a newer release wrote it.
        sqlite3.Error: it cannot be read.
    """
    try:
        version = int(_first(connection, "PRAGMA user_version")[0])
        tables = _first(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_NOTADB:
            raise
        raise ForeignDatabase(path=str(path), why="it is no SQLite database") from error
    if not tables and version == 0:
        return 0
    if version == 0 or not _has_our_tables(connection):
        more = ", …" if len(tables) > _SHOWN else ""
        found = f"the tables {', '.join(map(str, tables[:_SHOWN]))}{more}" if tables else "no tables"
        raise ForeignDatabase(path=str(path), why=f"it is a database of something else, with {found}")
    if version > len(STEPS):
        raise NewerSchema(path=str(path), found=version, known=len(STEPS))
    return version


def refuse_foreign(path: Path) -> None:
    """Return if a store may be made of the file, or go on in it, which is not changed; also if there is none yet.

    Raises:
        ForeignDatabase: it is no database, or one of something else.
        NewerSchema: a newer release wrote it.
        sqlite3.Error: it cannot be read.
    """
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
            schema_version(connection, path)
    except (OSError, ValueError):
        return  # it cannot be opened: who opens it to write is told why
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise


def _has_our_tables(connection: sqlite3.Connection) -> bool:
    return all(
        columns <= set(_first(connection, f"SELECT name FROM pragma_table_info('{table}')"))
        for table, columns in _OURS.items()
    )


def _first(connection: sqlite3.Connection, statement: str) -> list[Any]:
    """Return the first column of what a statement finds."""
    with closing(connection.execute(statement)) as cursor:
        return [row[0] for row in cursor]
