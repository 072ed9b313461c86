"""Durable sessions: one shared Yjs document, presence and a lifecycle.

Three doors: an agent or any other Python peer (:func:`connect`, :class:`Agent`), an embedding application
(:class:`SessionRegistry`), and the service (``crdt-sessions serve``, in ``crdt_sessions_server``).
"""

import importlib
from typing import TYPE_CHECKING

from crdt_sessions.errors import CrdtSessionsError, RunCancelled, RunFailed, RunSuspended
from crdt_sessions.limits import (
    ChildLimits,
    Compaction,
    InputLimits,
    Limits,
    Retention,
    RunRules,
    ScheduleLimits,
    Timing,
)

if TYPE_CHECKING:
    from crdt_sessions.client import Agent, AgentRun, KeptVersion, MessageStream, Past, SessionPeer, connect
    from crdt_sessions.runtime import Sandbox, Session, SessionRegistry, Versions, Webhook
    from crdt_sessions.storage import MemoryStore, SqliteStore, UpdateStore

__all__ = [
    "Agent",
    "AgentRun",
    "ChildLimits",
    "Compaction",
    "CrdtSessionsError",
    "InputLimits",
    "KeptVersion",
    "Limits",
    "MemoryStore",
    "MessageStream",
    "Past",
    "Retention",
    "RunCancelled",
    "RunFailed",
    "RunRules",
    "RunSuspended",
    "Sandbox",
    "ScheduleLimits",
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

if not TYPE_CHECKING:
    _DOORS = ("client", "runtime", "storage")

    def __getattr__(name: str) -> object:
        """Open a door when somebody comes to it: the sandbox, which each service starts, needs none of them."""
        if name in _DOORS:
            return importlib.import_module(f"{__name__}.{name}")
        if name in __all__:
            for door in _DOORS:
                module = importlib.import_module(f"{__name__}.{door}")
                if name in module.__all__:
                    return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
