"""Sessions in one SQLite file: WAL, one writer, group commit.

``store`` is the whole; ``log``, ``lists``, ``runs``, ``deliveries``, ``access``, ``usage`` and ``audit`` are its
methods by concern. ``database`` opens the file, ``writer`` commits, ``heads`` and ``rows`` are what most
commits consist of.
"""

from crdt_sessions.storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
