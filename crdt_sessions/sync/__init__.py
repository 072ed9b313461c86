"""The engine and the steward: events in, effects out; and the replica at the other end. Pure."""

from crdt_sessions.sync.actor import ALL, READ_ONLY, Actor, Rights
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.engine import EditFailed, EngineFailed, SessionEngine, TakenInPart
from crdt_sessions.sync.events import (
    ClosePeer,
    Committed,
    Describe,
    Effect,
    Event,
    FrameReceived,
    FrameRefused,
    PeerJoined,
    PeerLeft,
    Persist,
    PrincipalChanged,
    Ready,
    Reload,
    RightsChanged,
    Tasted,
    Tick,
    Tried,
    Try,
    Violation,
    received,
)
from crdt_sessions.sync.log import LogMemory
from crdt_sessions.sync.panics import Panics
from crdt_sessions.sync.plain import joined
from crdt_sessions.sync.records import Deed, Notice, Records, RunRecord, Unreadable, Writer, lease_digest
from crdt_sessions.sync.replica import Replica
from crdt_sessions.sync.runs import RunSteward
from crdt_sessions.sync.steward import Steward
from crdt_sessions.sync.waiting import WaitingUpdates
from crdt_sessions.sync.writers import MAX_AUTHORS

__all__ = [
    "ALL",
    "MAX_AUTHORS",
    "READ_ONLY",
    "Actor",
    "Aside",
    "ClosePeer",
    "Committed",
    "Deed",
    "Describe",
    "EditFailed",
    "Effect",
    "EngineFailed",
    "Event",
    "FrameReceived",
    "FrameRefused",
    "LogMemory",
    "Notice",
    "Panics",
    "PeerJoined",
    "PeerLeft",
    "Persist",
    "PrincipalChanged",
    "Ready",
    "Records",
    "Reload",
    "Replica",
    "Rights",
    "RightsChanged",
    "RunRecord",
    "RunSteward",
    "SessionEngine",
    "Steward",
    "TakenInPart",
    "Tasted",
    "Tick",
    "Tried",
    "Try",
    "Unreadable",
    "Violation",
    "WaitingUpdates",
    "Writer",
    "joined",
    "lease_digest",
    "received",
]
