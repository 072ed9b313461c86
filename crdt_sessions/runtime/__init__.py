"""The asyncio shell: performs the engine's effects. The registry of live sessions is its front door."""

from crdt_sessions.runtime.access import ANONYMOUS, Access
from crdt_sessions.runtime.agents import AgentWatch, is_there, known_agents, runs_at_work, until_taken
from crdt_sessions.runtime.archive import archive, take_over
from crdt_sessions.runtime.channel import Channel, Take, Transport
from crdt_sessions.runtime.claimants import Assignment, Claimant
from crdt_sessions.runtime.dispatch import Dispatcher
from crdt_sessions.runtime.feed import EVENT_KINDS, FeedEvent, follow, page, whole
from crdt_sessions.runtime.leased_run import LeasedRun, leased
from crdt_sessions.runtime.load import Load
from crdt_sessions.runtime.loops import keep_going
from crdt_sessions.runtime.presence import SessionPresence
from crdt_sessions.runtime.projector import (
    MetaChanged,
    Position,
    PresenceChanged,
    Projector,
    RunChanged,
    SessionEvent,
    StateChanged,
    Subject,
    present,
)
from crdt_sessions.runtime.pushes import Pushes
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.runtime.sandbox import Sandbox
from crdt_sessions.runtime.session import Session
from crdt_sessions.runtime.streams import Streams
from crdt_sessions.runtime.subscriptions import Subscriptions
from crdt_sessions.runtime.versions import Versions
from crdt_sessions.runtime.webhooks import (
    Reply,
    Webhook,
    exchange,
    exchange_outside,
    has_host,
    is_public,
    post,
    post_outside,
)

__all__ = [
    "ANONYMOUS",
    "EVENT_KINDS",
    "Access",
    "AgentWatch",
    "Assignment",
    "Channel",
    "Claimant",
    "Dispatcher",
    "FeedEvent",
    "LeasedRun",
    "Load",
    "MetaChanged",
    "Position",
    "PresenceChanged",
    "Projector",
    "Pushes",
    "Reply",
    "RunChanged",
    "Sandbox",
    "Session",
    "SessionEvent",
    "SessionPresence",
    "SessionRegistry",
    "StateChanged",
    "Streams",
    "Subject",
    "Subscriptions",
    "Take",
    "Transport",
    "Versions",
    "Webhook",
    "archive",
    "exchange",
    "exchange_outside",
    "follow",
    "has_host",
    "is_public",
    "is_there",
    "keep_going",
    "known_agents",
    "leased",
    "page",
    "post",
    "post_outside",
    "present",
    "runs_at_work",
    "take_over",
    "until_taken",
    "whole",
]
