"""Whether the files that SQLite has open still have their names.

A database that is removed or replaced under the service goes on working for it, and everything it writes is gone
with its last descriptor.
"""

from __future__ import annotations

import os
from pathlib import Path

from crdt_sessions.errors import DatabaseGone

_SUFFIXES = ("", "-wal", "-shm")


class Identity:
    """The database and the two files of its write-ahead log, as they were when SQLite had opened them.

    Args:
        path: the database, open in WAL mode.
    """

    def __init__(self, path: Path) -> None:
        file = path.resolve()
        self._expected = {name: _identity(name) for name in [f"{file}{suffix}" for suffix in _SUFFIXES]}

    def check(self) -> None:
        """Return if each name still leads to the same file.

        Raises:
            DatabaseGone: one does not.
        """
        for name, expected in self._expected.items():
            if _identity(name) != expected:
                raise DatabaseGone(path=name)


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino
