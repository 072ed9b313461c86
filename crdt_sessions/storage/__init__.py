"""The store seam and its implementations: opaque bytes and ids."""

from crdt_sessions.storage.base import (
    Delivery,
    Entries,
    Row,
    RunEntry,
    SessionRecord,
    StoredSession,
    UpdateStore,
    WriterEntry,
)
from crdt_sessions.storage.memory import MemoryStore
from crdt_sessions.storage.sqlite import SqliteStore

__all__ = [
    "Delivery",
    "Entries",
    "MemoryStore",
    "Row",
    "RunEntry",
    "SessionRecord",
    "SqliteStore",
    "StoredSession",
    "UpdateStore",
    "WriterEntry",
]
