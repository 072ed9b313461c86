"""Which JSON values of a session document have a schema of their own in ``schemas/v1/``."""

from __future__ import annotations

from crdt_sessions.model.base import Value
from crdt_sessions.model.run_values import Run
from crdt_sessions.model.steps import Step, Undone
from crdt_sessions.model.suggestions import PieceDecision, Settled, Suggestion, SuggestionHead
from crdt_sessions.model.values import Artifact, Author, Message, MessageHead, Meta, Presence, SessionExport

SCHEMAS: dict[str, type[Value]] = {
    "author": Author,
    "meta": Meta,
    "message-head": MessageHead,
    "message": Message,
    "run": Run,
    "artifact": Artifact,
    "presence": Presence,
    "session": SessionExport,
    "step": Step,
    "undone": Undone,
    "suggestion-head": SuggestionHead,
    "piece-decision": PieceDecision,
    "piece-settled": Settled,
    "suggestion": Suggestion,
}
"""File name in ``schemas/v1/`` to model."""
