"""What SQLite's errors mean for us. Source: sqlite.org/rescode.html."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType

from crdt_sessions.errors import DamagedDatabase, StorageError, StoreUnavailable
from crdt_sessions.storage.defects import defect

_UNAVAILABLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
}
"""SQLite's answers that may be others in a moment."""


class translated:
    """Turns SQLite's errors into ours, and those of values that it cannot hold: half a character, a huge number.

    Args:
        path: of the file, if whoever reads the message does not know it.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error | UnicodeError | OverflowError):
            raise _error_for(error, self._path) from error


def _error_for(error: Exception, path: Path | None = None) -> StorageError:
    """Return what an error of SQLite's means for us. Source: sqlite.org/rescode.html."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest says more, of the same kind
    sentence = f"{path}: SQLite: {error}" if path is not None else f"SQLite: {error}"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedDatabase(f"{sentence}; look at it with: crdt-sessions doctor {path or 'FILE'}")
    if code in _UNAVAILABLE:
        return StoreUnavailable(sentence)
    return defect(error, sentence)  # its text has SQL in it; those above are fixed sentences
