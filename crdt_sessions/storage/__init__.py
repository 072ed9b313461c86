"""The store seam and its implementations: opaque bytes and ids."""

from crdt_sessions.storage.base import (
    Delivery,
    Entries,
    History,
    Row,
    RunEntry,
    SessionRecord,
    StoredSession,
    UpdateStore,
    Version,
    WriterEntry,
)
from crdt_sessions.storage.memory import MemoryStore
from crdt_sessions.storage.sqlite import SqliteStore

__all__ = [
    "Delivery",
    "Entries",
    "History",
    "MemoryStore",
    "Row",
    "RunEntry",
    "SessionRecord",
    "SqliteStore",
    "StoredSession",
    "UpdateStore",
    "Version",
    "WriterEntry",
]
