"""Sessions in PostgreSQL: a fence that every write locks, group commit in lanes, and one writer for each session.

``store`` is the whole; ``log``, ``lists``, ``runs``, ``deliveries``, ``access``, ``usage`` and ``audit`` are its
methods by concern. ``database`` holds the connections, ``lane`` commits, ``nodes`` says who lives and fences who does
not.

Needs the extra ``crdt-sessions[postgres]``.
"""

from crdt_sessions.storage.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
