"""What is in a session document: layout 1 as typed views over pycrdt, pydantic for the JSON values. No I/O."""

from crdt_sessions.model.approvals import check_decision, find_call, may_decide
from crdt_sessions.model.artifacts import Artifacts
from crdt_sessions.model.asks import check_form, wants_value, why_no_answer, why_unfit
from crdt_sessions.model.authorship import authors, sole_author, writes_as
from crdt_sessions.model.calls import ended_call, with_ended_calls
from crdt_sessions.model.causality import Later, Split, split
from crdt_sessions.model.children import CHILD_LIMITS, Orphans, checked_task, child_of, may_be_child
from crdt_sessions.model.client_calls import (
    CallOutcome,
    CallResult,
    ClientCall,
    LateResult,
    Offer,
    OpenCall,
    Taken,
)
from crdt_sessions.model.decisions import (
    Approval,
    ApprovalRequest,
    Decision,
    LateDecision,
    PendingCall,
    RefusedDecision,
)
from crdt_sessions.model.deferred import DocumentFailed
from crdt_sessions.model.difference import by_id, difference, export_of, revert_update
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.extent import Extent, decode_extent, extent_of
from crdt_sessions.model.folding import Folded, encode_verified, fold
from crdt_sessions.model.inputs import ContextItem, RunInput, ToolSpec
from crdt_sessions.model.layout import LAYOUT, ROOT_NAMES, seed, settled_meta
from crdt_sessions.model.library import merge
from crdt_sessions.model.lineage import lineage_in
from crdt_sessions.model.message_view import MessageView
from crdt_sessions.model.messages import Messages, order
from crdt_sessions.model.neighbours import may_be_beside_text
from crdt_sessions.model.pairs import Mended, Pairs, places_in
from crdt_sessions.model.parts import TextPart, ToolPart, ValuePart, say_nothing
from crdt_sessions.model.positions import RelativePosition
from crdt_sessions.model.projection import (
    MessageBegan,
    MessageCursor,
    MessageEvent,
    MessagePlaced,
    MessageRemoved,
    MessageReplaced,
    PartBegan,
    PartChanged,
    TextAdded,
)
from crdt_sessions.model.run_values import (
    ANY_AGENT,
    SETTLED_KEYS,
    TERMINAL_STATUSES,
    Run,
    RunCancel,
    RunError,
    RunLease,
    RunOutcome,
    RunRequest,
    RunResult,
)
from crdt_sessions.model.runs import Runs, answer_to, child_order, child_request, output_of, same_request
from crdt_sessions.model.schedules import Schedule
from crdt_sessions.model.schemas import SCHEMAS
from crdt_sessions.model.session import SessionView
from crdt_sessions.model.shapes import Shape, alone, json_text, shaped, system_text, ui_part, ui_tool_input
from crdt_sessions.model.streams import SEGMENT_BYTES, PartStream
from crdt_sessions.model.text_places import check_change, check_whole
from crdt_sessions.model.thread import Threads, arranged, conversation
from crdt_sessions.model.tool_stream import Question, ToolStream
from crdt_sessions.model.touched import Touched
from crdt_sessions.model.transcript import markdown
from crdt_sessions.model.usage import Spent, Usage, UsageReport
from crdt_sessions.model.values import (
    Artifact,
    ArtifactHead,
    Author,
    Message,
    MessageHead,
    Meta,
    Presence,
    PresenceUser,
    SessionExport,
)

__all__ = [
    "ANY_AGENT",
    "CHILD_LIMITS",
    "LAYOUT",
    "ROOT_NAMES",
    "SCHEMAS",
    "SEGMENT_BYTES",
    "SETTLED_KEYS",
    "TERMINAL_STATUSES",
    "Approval",
    "ApprovalRequest",
    "Artifact",
    "ArtifactHead",
    "Artifacts",
    "Author",
    "CallOutcome",
    "CallResult",
    "ClientCall",
    "ContextItem",
    "Decision",
    "DocumentFailed",
    "Extent",
    "Folded",
    "LateDecision",
    "LateResult",
    "Later",
    "Mended",
    "Message",
    "MessageBegan",
    "MessageCursor",
    "MessageEvent",
    "MessageHead",
    "MessagePlaced",
    "MessageRemoved",
    "MessageReplaced",
    "MessageView",
    "Messages",
    "Meta",
    "Offer",
    "OpenCall",
    "Orphans",
    "Pairs",
    "PartBegan",
    "PartChanged",
    "PartStream",
    "PendingCall",
    "Presence",
    "PresenceUser",
    "Question",
    "RefusedDecision",
    "RelativePosition",
    "Run",
    "RunCancel",
    "RunError",
    "RunInput",
    "RunLease",
    "RunOutcome",
    "RunRequest",
    "RunResult",
    "Runs",
    "Schedule",
    "SessionDoc",
    "SessionExport",
    "SessionView",
    "Shape",
    "Spent",
    "Split",
    "Taken",
    "TextAdded",
    "TextPart",
    "Threads",
    "ToolPart",
    "ToolSpec",
    "ToolStream",
    "Touched",
    "Usage",
    "UsageReport",
    "ValuePart",
    "alone",
    "answer_to",
    "arranged",
    "authors",
    "by_id",
    "check_change",
    "check_decision",
    "check_form",
    "check_whole",
    "checked_task",
    "child_of",
    "child_order",
    "child_request",
    "conversation",
    "decode_extent",
    "difference",
    "encode_verified",
    "ended_call",
    "export_of",
    "extent_of",
    "find_call",
    "fold",
    "json_text",
    "lineage_in",
    "markdown",
    "may_be_beside_text",
    "may_be_child",
    "may_decide",
    "merge",
    "order",
    "output_of",
    "places_in",
    "revert_update",
    "same_request",
    "say_nothing",
    "seed",
    "settled_meta",
    "shaped",
    "sole_author",
    "split",
    "system_text",
    "ui_part",
    "ui_tool_input",
    "wants_value",
    "why_no_answer",
    "why_unfit",
    "with_ended_calls",
    "writes_as",
]
