"""Peers for Python: ``connect()``, and ``Agent`` on top of it."""

from crdt_sessions.client.agent import Agent
from crdt_sessions.client.artifact_editor import ArtifactEditor
from crdt_sessions.client.background import BackgroundSync, LocalCopy, Synced
from crdt_sessions.client.child import ChildRun
from crdt_sessions.client.history import KeptVersion, Past
from crdt_sessions.client.insertion import Insertion
from crdt_sessions.client.run import AgentRun
from crdt_sessions.client.session import SessionPeer, connect
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.client.tool_calls import ToolCall, ToolOutcome
from crdt_sessions.client.toolbox import RunTools, ToolSource

__all__ = [
    "Agent",
    "AgentRun",
    "ArtifactEditor",
    "BackgroundSync",
    "ChildRun",
    "Insertion",
    "KeptVersion",
    "LocalCopy",
    "MessageStream",
    "Past",
    "RunTools",
    "SessionPeer",
    "Synced",
    "ToolCall",
    "ToolOutcome",
    "ToolSource",
    "connect",
]
