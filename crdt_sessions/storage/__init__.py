"""The store seam and its implementations: opaque bytes and ids."""

from crdt_sessions.storage.base import (
    NO_ENTRIES,
    AuditEntry,
    Delivery,
    Entries,
    FoundRun,
    History,
    Revocation,
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
    "NO_ENTRIES",
    "AuditEntry",
    "Delivery",
    "Entries",
    "FoundRun",
    "History",
    "MemoryStore",
    "Revocation",
    "Row",
    "RunEntry",
    "SessionRecord",
    "SqliteStore",
    "StoredSession",
    "UpdateStore",
    "Version",
    "WriterEntry",
]
