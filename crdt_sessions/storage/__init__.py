"""The store seam, cut by concern, and its implementations: opaque bytes and ids."""

from crdt_sessions.storage.base import (
    AccessRecords,
    AuditRecords,
    Deliveries,
    RunIndex,
    SessionIndex,
    SessionLog,
    UpdateStore,
    UsageRecords,
)
from crdt_sessions.storage.memory import MemoryStore
from crdt_sessions.storage.sqlite import SqliteStore
from crdt_sessions.storage.stored import (
    NO_ENTRIES,
    Amounts,
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
    UsageKey,
    Version,
    WriterEntry,
)

__all__ = [
    "NO_ENTRIES",
    "AccessRecords",
    "Amounts",
    "AuditEntry",
    "AuditRecords",
    "Deliveries",
    "Delivery",
    "Entries",
    "FoundRun",
    "History",
    "MemoryStore",
    "Revocation",
    "Row",
    "RunEntry",
    "RunIndex",
    "SessionIndex",
    "SessionLog",
    "SessionRecord",
    "SqliteStore",
    "StoredSession",
    "UpdateStore",
    "UsageKey",
    "UsageRecords",
    "Version",
    "WriterEntry",
]
