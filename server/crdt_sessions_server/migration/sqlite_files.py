"""Documents in SQLite: those of pycrdt-store's ``SQLiteYStore``, and of Hocuspocus' extension for SQLite.

Sources: ``pycrdt/store/sqlite.py`` 0.1 (``yupdates``, later with ``ycheckpoints``); ``@hocuspocus/extension-sqlite``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from crdt_sessions.storage.sqlite.foreign import refuse_foreign
from crdt_sessions_server.migration.source import Source, unreadable


class SqliteFile:
    """A database of one of the kinds in :data:`KINDS`.

    Args:
        path: the file. It is opened for reading only.
        kind: what it is, for people.
        names: selects the names of documents.
        updates: select the updates of one, oldest first.
    """

    def __init__(self, path: Path, kind: str, names: str, updates: Sequence[str]) -> None:
        self.kind = kind
        self._path = path
        self._names = names
        self._updates = updates
        self._connection = _opened(path)

    def names(self) -> Sequence[str]:
        """See :meth:`Source.names`."""
        return [str(row[0]) for row in self._all(self._names)]

    def updates(self, name: str) -> list[bytes]:
        """See :meth:`Source.updates`."""
        found = [row[0] for select in self._updates for row in self._all(select, name)]
        if not all(isinstance(update, bytes) for update in found):
            raise unreadable(self._path, f"an update of {name!r} is no blob")
        return found

    def close(self) -> None:
        """See :meth:`Source.close`."""
        self._connection.close()

    def _all(self, select: str, *parameters: str) -> list[Any]:
        try:
            with closing(self._connection.execute(select, parameters)) as cursor:
                return cursor.fetchall()
        except sqlite3.Error as error:
            raise unreadable(self._path, str(error)) from error


def _ystore(path: Path, tables: set[str]) -> Source:
    checkpoints = "ycheckpoints" in tables
    names = "SELECT path FROM yupdates" + (" UNION SELECT path FROM ycheckpoints" if checkpoints else "")
    updates = ["SELECT yupdate FROM yupdates WHERE path = ? ORDER BY timestamp, rowid"]
    if checkpoints:
        updates.insert(0, "SELECT checkpoint FROM ycheckpoints WHERE path = ?")
    return SqliteFile(
        path, "pycrdt-store's SQLiteYStore", f"SELECT DISTINCT path FROM ({names}) ORDER BY path", updates
    )


def _hocuspocus(path: Path, tables: set[str]) -> Source:
    select = "SELECT name FROM documents ORDER BY name"
    return SqliteFile(path, "Hocuspocus' SQLite", select, ["SELECT data FROM documents WHERE name = ?"])


KINDS: dict[str, Callable[[Path, set[str]], Source]] = {"yupdates": _ystore, "documents": _hocuspocus}
"""Name of a table to what a database that has it is."""


def sqlite_source(path: Path) -> Source | None:
    """Return what a database holds; None if it is one of ours.

    Raises:
        StorageError: it is no database, or one of something else.
    """
    with closing(_opened(path)) as connection:
        try:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        except sqlite3.Error as error:
            raise unreadable(path, str(error)) from error
    if not {"sessions", "updates"} <= tables:
        for table, kind in KINDS.items():
            if table in tables:
                return kind(path, tables)
    refuse_foreign(path)
    return None


def _opened(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise unreadable(path, str(error)) from error
