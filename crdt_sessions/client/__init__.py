"""Peers for Python: ``connect()``, and ``Agent`` on top of it."""

from crdt_sessions.client.agent import Agent, AgentRun
from crdt_sessions.client.session import SessionPeer, connect
from crdt_sessions.client.stream import MessageStream

__all__ = ["Agent", "AgentRun", "MessageStream", "SessionPeer", "connect"]
