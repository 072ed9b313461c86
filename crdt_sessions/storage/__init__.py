"""The store seam, cut by concern, and its implementations: opaque bytes and ids."""

from crdt_sessions.storage.access import AccessChanges, AccessRecords, Revocation
from crdt_sessions.storage.audit import AuditEntry, AuditRecords
from crdt_sessions.storage.base import UpdateStore
from crdt_sessions.storage.changes import ChangedSession, Changes, SessionChanges
from crdt_sessions.storage.deliveries import Deliveries, Delivery
from crdt_sessions.storage.lists import SessionIndex
from crdt_sessions.storage.log import SessionLog
from crdt_sessions.storage.memory import MemoryStore
from crdt_sessions.storage.runs import FoundRun, RunEntry, RunIndex
from crdt_sessions.storage.sqlite import SqliteStore
from crdt_sessions.storage.stored import (
    NO_ENTRIES,
    Entries,
    History,
    Row,
    SessionRecord,
    StoredSession,
    Version,
    WriterEntry,
)
from crdt_sessions.storage.streams import (
    Batch,
    Decide,
    Producer,
    Stream,
    StreamChange,
    StreamEnd,
    StreamEntry,
    StreamFacts,
    StreamStore,
)
from crdt_sessions.storage.usage import Amounts, UsageKey, UsageRecords

__all__ = [
    "NO_ENTRIES",
    "AccessChanges",
    "AccessRecords",
    "Amounts",
    "AuditEntry",
    "AuditRecords",
    "Batch",
    "ChangedSession",
    "Changes",
    "Decide",
    "Deliveries",
    "Delivery",
    "Entries",
    "FoundRun",
    "History",
    "MemoryStore",
    "Producer",
    "Revocation",
    "Row",
    "RunEntry",
    "RunIndex",
    "SessionChanges",
    "SessionIndex",
    "SessionLog",
    "SessionRecord",
    "SqliteStore",
    "StoredSession",
    "Stream",
    "StreamChange",
    "StreamEnd",
    "StreamEntry",
    "StreamFacts",
    "StreamStore",
    "UpdateStore",
    "UsageKey",
    "UsageRecords",
    "Version",
    "WriterEntry",
]
