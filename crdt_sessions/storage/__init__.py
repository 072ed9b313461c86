"""The store seam and its implementations: opaque bytes and ids."""

from crdt_sessions.storage.base import Row, SessionRecord, StoredSession, UpdateStore
from crdt_sessions.storage.memory import MemoryStore
from crdt_sessions.storage.sqlite import SqliteStore

__all__ = ["MemoryStore", "Row", "SessionRecord", "SqliteStore", "StoredSession", "UpdateStore"]
