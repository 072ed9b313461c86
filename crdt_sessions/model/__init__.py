"""What is in a session document: layout 1 as typed views over pycrdt, pydantic for the JSON values. No I/O."""

from crdt_sessions.model.document import SessionDoc, Touched, contains, fold, merge
from crdt_sessions.model.layout import LAYOUT, seed, settled_meta
from crdt_sessions.model.messages import Messages, MessageView, order
from crdt_sessions.model.session import Artifacts, Runs, SessionView
from crdt_sessions.model.streams import SEGMENT_BYTES, PartStream, ToolStream
from crdt_sessions.model.transcript import markdown
from crdt_sessions.model.values import (
    SCHEMAS,
    TERMINAL_STATUSES,
    Artifact,
    ArtifactHead,
    Author,
    Message,
    MessageHead,
    Meta,
    Presence,
    PresenceUser,
    Run,
    RunError,
    RunOutcome,
    RunRequest,
    RunResult,
    SessionExport,
    TextPart,
    ToolPart,
    ValuePart,
)

__all__ = [
    "LAYOUT",
    "SCHEMAS",
    "SEGMENT_BYTES",
    "TERMINAL_STATUSES",
    "Artifact",
    "ArtifactHead",
    "Artifacts",
    "Author",
    "Message",
    "MessageHead",
    "MessageView",
    "Messages",
    "Meta",
    "PartStream",
    "Presence",
    "PresenceUser",
    "Run",
    "RunError",
    "RunOutcome",
    "RunRequest",
    "RunResult",
    "Runs",
    "SessionDoc",
    "SessionExport",
    "SessionView",
    "TextPart",
    "ToolPart",
    "ToolStream",
    "Touched",
    "ValuePart",
    "contains",
    "fold",
    "markdown",
    "merge",
    "order",
    "seed",
    "settled_meta",
]
