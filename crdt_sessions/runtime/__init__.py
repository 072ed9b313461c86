"""The asyncio shell: performs the engine's effects. The registry of live sessions is its front door."""

from crdt_sessions.runtime.channel import Channel
from crdt_sessions.runtime.feed import FeedEvent, follow, present
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.runtime.session import Session

__all__ = ["Channel", "FeedEvent", "Session", "SessionRegistry", "follow", "present"]
