"""Finds out what a path holds."""

from __future__ import annotations

from pathlib import Path

from crdt_sessions.errors import StorageError
from crdt_sessions_server.migration.plain import PlainFiles
from crdt_sessions_server.migration.source import Source, unreadable
from crdt_sessions_server.migration.sqlite_files import sqlite_source
from crdt_sessions_server.migration.y_leveldb import YLevelDb
from crdt_sessions_server.migration.y_sweet import FILE, YSweetFiles

_SQLITE = b"SQLite format 3\x00"


def source_at(path: Path) -> Source | None:
    """Return what holds the documents at *path*; None if that is a database of ours.

    Raises:
        StorageError: it cannot be read, or is nothing that is known.
    """
    try:
        if path.is_dir():
            if (path / "CURRENT").is_file():
                return YLevelDb(path)
            return YSweetFiles(path) if next(path.rglob(FILE), None) else PlainFiles(path)
        with path.open("rb") as file:
            start = file.read(len(_SQLITE))
    except FileNotFoundError:
        raise StorageError(f"there is no file {path}, and no folder") from None
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error
    return sqlite_source(path) if start == _SQLITE else PlainFiles(path)
