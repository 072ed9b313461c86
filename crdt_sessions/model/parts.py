"""What a message consists of, as JSON values: text, calls of tools, and the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from crdt_sessions.model.base import Integer, Value
from crdt_sessions.model.client_calls import CallOutcome, ClientCall, LateResult
from crdt_sessions.model.decisions import Approval, ApprovalRequest, LateDecision, RefusedDecision
from crdt_sessions.model.strings import ToolCallId, ToolName

StreamState = Literal["streaming", "done", "interrupted"]
ToolState = Literal[
    "input-streaming",
    "input-available",
    "approval-requested",
    "approval-responded",
    "output-available",
    "output-error",
    "output-denied",
]


class TextPart(Value):
    """Text, or what the model thought on the way to it."""

    type: Literal["text", "reasoning"]
    text: str
    state: StreamState = "done"
    continues: bool | None = None
    """True if this part goes on where the one before it stopped: buffers are split at about 16 KiB."""
    choice: Integer | None = None
    """Which alternative this belongs to, where a model wrote several side by side; absent for the first."""


class ToolPart(Value):
    """A call of a tool: its streamed input, what people decided about it, then its output."""

    type: Literal["tool"]
    tool_call_id: ToolCallId
    tool_name: ToolName
    input_text: str = ""
    input: Any = None
    state: ToolState = "input-available"
    approval_request: ApprovalRequest | None = None
    draft: dict[str, Any] | None = None
    """The answer as far as somebody has filled it in; shared by all devices, and no answer yet."""
    decisions: dict[str, Any] | None = None
    approval: Approval | None = None
    late: list[LateDecision] | None = None
    refused: list[RefusedDecision] | None = None
    client_call: ClientCall | None = None
    """What devices are asked to do, if the tool runs in a client; see :mod:`crdt_sessions.model.client_calls`."""
    offers: dict[str, Any] | None = None
    results: dict[str, Any] | None = None
    outcome: CallOutcome | None = None
    late_results: list[LateResult] | None = None
    output: Any = None
    error_text: str | None = None


class ValuePart(Value):
    """A file, a source, application data, audio or what somebody said meanwhile: one JSON value."""

    type: Literal["file", "source", "data", "audio", "steering"]
    value: Any = None
    """For ``steering``, ``messageId`` and ``parts`` of the message that the agent took up here."""
    transcript: str | None = None
    state: StreamState | None = None
    """For audio, while its transcript is streamed."""


Part = Annotated[TextPart | ToolPart | ValuePart, Field(discriminator="type")]


def being_written(part: Part) -> bool:
    """Whether somebody writes this part right now."""
    return part.state in ("streaming", "input-streaming")


def say_nothing(parts: Iterable[Value]) -> bool:
    """Whether nobody could answer what these parts say: there are none, or nothing is in them but white space."""
    return all(map(_says_nothing, parts))


def _says_nothing(part: Value) -> bool:
    if isinstance(part, TextPart):
        return not part.text.strip(_WHITE)
    return isinstance(part, ValuePart) and part.value is None and not (part.transcript or "").strip(_WHITE)


_WHITE = "".join(
    map(
        chr,
        (
            *range(0x21),
            0x85,
            0xA0,
            0x1680,
            *range(0x2000, 0x2010),
            0x2028,
            0x2029,
            0x202F,
            0x205F,
            0x2060,
            0x3000,
            0xFEFF,
        ),
    )
)
"""White space, control characters, and what has no width."""
