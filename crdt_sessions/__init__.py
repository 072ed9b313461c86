"""Durable sessions: one shared Yjs document, presence and a lifecycle.

Three doors: an agent or any other Python peer (:func:`connect`, :class:`Agent`), an embedding application
(:class:`SessionRegistry`), and the service (``crdt-sessions serve``, in ``crdt_sessions_server``).
"""

from crdt_sessions.client import Agent, AgentRun, KeptVersion, MessageStream, Past, SessionPeer, connect
from crdt_sessions.errors import CrdtSessionsError, RunCancelled, RunSuspended
from crdt_sessions.limits import Compaction, Limits, Retention, RunRules, Timing
from crdt_sessions.runtime import Sandbox, Session, SessionRegistry, Versions, Webhook
from crdt_sessions.storage import MemoryStore, SqliteStore, UpdateStore

__all__ = [
    "Agent",
    "AgentRun",
    "Compaction",
    "CrdtSessionsError",
    "KeptVersion",
    "Limits",
    "MemoryStore",
    "MessageStream",
    "Past",
    "Retention",
    "RunCancelled",
    "RunRules",
    "RunSuspended",
    "Sandbox",
    "Session",
    "SessionPeer",
    "SessionRegistry",
    "SqliteStore",
    "Timing",
    "UpdateStore",
    "Versions",
    "Webhook",
    "connect",
]
