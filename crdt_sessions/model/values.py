"""The JSON values of a session document, and the JSON form of the document itself.

Keys are camelCase: JavaScript reads them as much as Python does. Times are integer milliseconds since the
Unix epoch. What strings may be stands in :mod:`crdt_sessions.model.strings`. Unknown keys are kept, so that a newer
peer's additions survive an older one.
``schemas/v1/`` holds these models as JSON Schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from crdt_sessions.errors import BadValue, TooLarge
from crdt_sessions.limits import RunPolicyName
from crdt_sessions.model.asks import check_form, why_unfit
from crdt_sessions.model.base import Value as Value
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.children import ChildKey, Orphans, checked_task
from crdt_sessions.model.client_calls import CallOutcome, ClientCall, LateResult, OpenCall
from crdt_sessions.model.inputs import RunInput
from crdt_sessions.model.schedules import Schedule
from crdt_sessions.model.strings import (
    AgentName,
    ArtifactId,
    ErrorText,
    MessageId,
    Name,
    PrincipalId,
    Reason,
    RunId,
    Time,
    Title,
    ToolCallId,
    ToolName,
    Who,
    Word,
)
from crdt_sessions.model.usage import Usage, UsageReport

Kind = Literal["human", "agent", "service", "device"]
Role = Literal["user", "assistant", "system", "tool"]
SessionStatus = Literal["active", "closed", "archived"]
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
RunStatus = Literal["queued", "running", "suspended", "completed", "failed", "cancelled", "interrupted"]
ResultStatus = Literal["completed", "failed", "cancelled", "suspended", "handoff", "released"]
RunPolicy = RunPolicyName
Trigger = Literal["submit", "regenerate", "continue"]
AskKind = Literal["approve", "choose", "form", "edit"]
Activity = Literal["idle", "typing", "thinking", "speaking", "streaming"]

TERMINAL_STATUSES: frozenset[RunStatus] = frozenset({"completed", "failed", "cancelled", "interrupted"})

ANY_AGENT = "*"
"""Whom a request is for if any agent may answer it."""

SETTLED_KEYS = ("status", "agent", "epoch", "lease", "output", "due", "pending", "calls", "outcome", "usage")
"""What only the server writes of a run."""

Integer = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
"""An integer that JavaScript can hold."""


class Author(Value):
    """Who wrote something."""

    id: PrincipalId
    name: Name = ""
    kind: Kind = "human"


class Meta(Value):
    """``meta``: what the session is. All but title and metadata is written by the server."""

    layout: Integer
    session_id: str
    generation: Integer
    lineage: str | None = None
    """Names this creation of the session; see docs/protocol.md. Absent in documents of earlier releases."""
    created_at: Time
    status: SessionStatus = "active"
    title: str | None = None
    metadata: dict[str, Any] | None = None
    agent: AgentName | Literal[""] | None = None
    """Who answers a user's message that asks nobody in particular; empty for nobody."""
    run_policy: RunPolicy | None = None
    """What becomes of a request while another run is active."""


class MessageHead(Value):
    """``messages[id].head``: written once, by the creator of the message."""

    id: MessageId
    role: Role
    author: Author
    parent: MessageId | None = None
    created_at: Time
    modality: Word | None = None
    reply_to: MessageId | None = None
    steers: RunId | None = None
    """The run that this message is meant to steer while it is active."""
    metadata: Any = None
    """What the application keeps with it, such as ``metadata`` of the AI SDK's messages."""
    replaces: MessageId | None = None
    """The message that this is another version of: the two are alternatives, not one after the other."""
    imported: bool | None = None
    """True if it came with a history that somebody brought: nobody is asked to answer it, and whose words it says
    they are nobody has seen."""
    precedes: MessageId | None = None
    """The message that this one, of a history that was brought later, stands in front of."""

    def to_json(self) -> dict[str, Any]:
        """Return the value for readers; ``parent`` is always there."""
        return {"parent": None} | super().to_json()


class TextPart(Value):
    """Text, or what the model thought on the way to it."""

    type: Literal["text", "reasoning"]
    text: str
    state: StreamState = "done"
    continues: bool | None = None
    """True if this part goes on where the one before it stopped: buffers are split at about 16 KiB."""
    choice: Integer | None = None
    """Which alternative this belongs to, where a model wrote several side by side; absent for the first."""


def _checked_form(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        return check_form(schema)
    except BadValue as error:
        raise ValueError(f"{error.where}: {error.why}") from None


class ApprovalRequest(Value):
    """``parts[i].approvalRequest``: what the agent asks people. Written once, by the agent."""

    kind: AskKind | None = None
    """``approve``, also if it is absent: yes or no. ``choose``, ``form``: a value. ``edit``: whether the tool is to
    be called, perhaps with other input."""
    message: ErrorText | None = None
    """What is asked, for people; the call and its input speak for themselves if it is absent."""
    form: Annotated[dict[str, Any], AfterValidator(_checked_form)] | None = Field(None, alias="schema")
    """JSON Schema of the answer; see :mod:`crdt_sessions.model.asks` for its keywords."""
    order: list[str] | None = None
    """The form's fields in the order in which they are shown: objects in a document have none."""
    default: Any = None
    """The answer that counts if nobody gives one in time."""

    approvers: list[str] | None = None
    """The principals who may decide; everybody if absent."""
    needs: Literal["any", "all"] = "any"
    """Whether one of the approvers is enough or all of them must agree."""
    deadline: Time | None = None
    """When *default* counts if nobody has decided, and without one, when it counts as denied."""
    requested_at: Time

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind in ("choose", "form") and self.form is None:
            raise ValueError(f"to {self.kind} needs a schema")
        if self.kind in (None, "approve") and self.form is not None:
            raise ValueError("a schema is for what people choose, fill in or edit")
        if self.default is not None:
            if self.kind in (None, "approve"):
                raise ValueError("a default is for what people choose, fill in or edit")
            if (why := why_unfit(self.default, self.form)) is not None:
                raise ValueError(f"the default does not fit: {why}")
        return self


class Decision(Value):
    """``parts[i].decisions[<principal>]``: what somebody says about it. A proposal, like all that people write."""

    approved: bool
    value: Any = None
    """The answer, where more than yes or no is asked; for ``edit`` the input that the tool is to be called with."""
    reason: Reason | None = None
    at: Time


class Approval(Value):
    """``parts[i].approval``: the decision that counts. Settled once, by the server."""

    approved: bool
    """Whether it was answered, and not declined."""
    value: Any = None
    by: Who
    """The principal that decided; ``deadline`` if nobody decided in time."""
    reason: Reason | None = None
    at: Time


class LateDecision(Decision):
    """An entry of ``parts[i].late``: somebody decided after it was settled. Recorded by the server."""

    by: Who


class RefusedDecision(Decision):
    """An entry of ``parts[i].refused``: somebody decided who has no say. The last of each; recorded by the server."""

    by: Who
    """The principal of the connection it came from, or the name it was given where principals are not known."""
    why: Word
    """``not-an-approver``: others are asked. ``role``: who it is may not decide. ``not-yours``: it stood under
    somebody else's name. ``not-an-answer``: it does not fit what is asked; *detail* says why."""
    detail: Reason | None = None


class PendingCall(Value):
    """An entry of ``runs[id].pending``: a tool call that waits for people, and who they are."""

    tool_call_id: ToolCallId
    tool_name: ToolName = ""
    kind: AskKind | None = None
    message: ErrorText | None = None
    approvers: list[str] | None = None
    """The principals who may decide; everybody if absent."""
    needs: Literal["any", "all"] = "any"
    deadline: Time | None = None


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


class Message(MessageHead):
    """A message in JSON form: head, order, run and parts in one object."""

    seq: Integer | None = None
    by: str | None = None
    """The principal who wrote it: what the server knew, not what ``author`` says. Absent where it knew nobody."""
    run_id: str | None = None
    parts: list[Part] = Field(default_factory=list)

    @property
    def text(self) -> str:
        """The text parts of the first choice, joined."""
        return self.text_of(0)

    def text_of(self, choice: int, type: Literal["text", "reasoning"] = "text") -> str:
        """Return the parts of *type* of one choice, joined."""
        parts = (part for part in self.parts if isinstance(part, TextPart) and part.type == type)
        return "".join(part.text for part in parts if (part.choice or 0) == choice)

    @property
    def empty(self) -> bool:
        """Whether it says nothing, so that there is nothing to answer."""
        return say_nothing(self.parts)

    @property
    def done(self) -> bool:
        """Whether no part is being written right now. A run may still add parts; see :attr:`Run.over`."""
        return not any(part.state in ("streaming", "input-streaming") for part in self.parts)


class RunRequest(Value):
    """``runs[id].request``: somebody asks an agent to answer."""

    message_id: MessageId
    """The message to answer; for the trigger ``continue``, the answer to continue."""
    agent: AgentName = ANY_AGENT
    trigger: Trigger = "submit"
    policy: RunPolicy | None = None
    """What becomes of it while another run is active; the session's policy if absent."""
    by: Who | None = None
    """The principal who asks; settled by the server where it knows principals."""
    created_at: Time
    not_before: Time | None = None
    """When it is to begin at the earliest. Until then it holds nobody up, and its policy plays no role."""
    deadline: Time | None = None
    """When it ends as failed if it is not done by then."""
    schedule: Schedule | None = None
    """When it is asked again and again: the run itself begins never, and asks for others."""
    scheduled_by: RunId | None = None
    """The run with the schedule that asks."""
    input: RunInput | None = None
    """What the agent is to work with besides the conversation. Where a request repeats another one and has none, the
    server takes that of the run it repeats."""
    parent: RunId | None = None
    """The run whose agent asks, as only that may: this is its child, and ``message_id`` is what the parent writes."""
    key: ChildKey | None = None
    """Names a child among those of its parent."""
    task: Any = None
    """What a child is to do: text, or JSON."""
    orphans: Orphans | None = None
    """What becomes of a child that is not done when its parent has ended: ``end`` if absent."""

    _flaws: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def flaws(self) -> dict[str, str]:
        """Why what a document has as ``input``, ``schedule`` or ``task`` is none, and was left out."""
        return self._flaws

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Leave out what cannot be taken, and keep in mind why: else nobody would be told of the request."""
        if not isinstance(value, dict):
            return read(value)
        flaws: dict[str, str] = {}
        for key, judged in _JUDGED.items():
            if value.get(key) is not None:
                try:
                    value = {**value, key: judged(value[key])}
                except (BadValue, TooLarge) as error:
                    flaws[key] = str(error)
                    value = {**value, key: None}
        request = read(value)
        request._flaws = flaws
        return request


_JUDGED: dict[str, Callable[[Any], Any]] = {"input": RunInput.of, "schedule": Schedule.of, "task": checked_task}


class RunError(Value):
    """What went wrong, for programs and for people."""

    code: Word
    message: ErrorText = ""


class RunCancel(Value):
    """``runs[id].cancel``: somebody pressed stop, perhaps before the run began, perhaps offline."""

    by: Who = ""
    reason: Reason | None = None
    at: Time


class RunResult(Value):
    """``runs[id].result``: what the holder of the lease says of its run. The server settles the status from it."""

    status: ResultStatus
    epoch: Integer
    """The epoch of the lease it holds; a result of another epoch counts for nothing."""
    reason: Reason | None = None
    error: RunError | None = None
    agent: AgentName | None = None
    """For ``handoff``: the agent that takes over."""
    at: Time


class RunOutcome(Value):
    """``runs[id].outcome``: how the run ended. Written once, by the server."""

    reason: Reason
    error: RunError | None = None
    superseded_by: RunId | None = None
    """The run that somebody asked for instead of deciding what this one waited for."""
    ended_at: Time


class RunLease(Value):
    """``runs[id].lease``: who works on the run. Written by the server when it is claimed, removed when it is lost."""

    owner: str
    """The principal that claimed it."""
    agent: str
    epoch: Integer
    attempt: Integer
    claimed_at: Time
    ttl: Integer
    """Milliseconds without a sign of life after which the lease is lost."""


class Run(Value):
    """A run in JSON form."""

    id: str
    request: RunRequest | None = None
    cancel: RunCancel | None = None
    result: RunResult | None = None
    reported: UsageReport | None = None
    """What the holder of the lease says that its attempt has cost so far."""
    status: RunStatus | None = None
    agent: AgentName | None = None
    """The agent the run is for: the one the request named, or the one it was handed to."""
    epoch: Integer | None = None
    lease: RunLease | None = None
    outcome: RunOutcome | None = None
    usage: Usage | None = None
    """What all attempts have cost."""
    output: MessageId | None = None
    due: Time | None = None
    """When it begins; only while it waits for that."""
    pending: list[PendingCall] | None = None
    """The tool calls that wait for people; only while the run is suspended."""
    calls: list[OpenCall] | None = None
    """The tool calls that wait for a device of a client, and who has them."""
    steers: dict[str, Any] = Field(default_factory=dict)
    """Steering message to whether the agent has taken it up."""

    @property
    def input(self) -> RunInput:
        """What the agent is to work with besides the conversation; an empty one if the request has none."""
        found = self.request.input if self.request is not None else None
        return found if found is not None else RunInput()

    @property
    def parent(self) -> str | None:
        """The run that this one is a child of."""
        return self.request.parent if self.request is not None else None

    @property
    def settled(self) -> dict[str, Any]:
        """Return the fields of a run that only the server writes, as in the document; None for absent ones."""
        value = self.model_dump(by_alias=True, exclude_none=True, include=set(SETTLED_KEYS))
        return {key: value.get(key) for key in SETTLED_KEYS}

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.status in TERMINAL_STATUSES

    @property
    def ending(self) -> bool:
        """Whether the run has ended, or its agent says so and the server is about to settle it."""
        return self.over or (self.result is not None and self.result.status in TERMINAL_STATUSES)


class ArtifactHead(Value):
    """``artifacts[id].head``: written once, by the creator of the artifact."""

    id: ArtifactId
    title: Title = ""
    media_type: Word = "text/plain"
    author: Author | None = None
    created_at: Time


class Artifact(ArtifactHead):
    """An artifact in JSON form. Rich content (an XML fragment) is given as XML."""

    content: str = ""


class PresenceUser(Value):
    """The person or program behind a presence."""

    id: str | None = None
    name: str = ""
    color: str | None = None


class Presence(Value):
    """An awareness state: who is here and what they do. Never stored, never in the document."""

    user: PresenceUser = PresenceUser()
    kind: Kind = "human"
    device: str | None = None
    activity: Activity = "idle"
    modality: str | None = None
    run_id: str | None = None
    cursor: Any = None
    """Where in a document they are; its form is the application's."""


class SessionExport(Value):
    """A whole session in JSON form."""

    meta: Meta
    messages: list[Message] = Field(default_factory=list)
    runs: list[Run] = Field(default_factory=list)
    state: dict[str, Any] = Field(default_factory=dict)
    artifacts: list[Artifact] = Field(default_factory=list)
    receipts: dict[str, Integer] = Field(default_factory=dict)
    delegated: list[Message] = Field(default_factory=list)
    """What child runs have written, oldest first."""


SCHEMAS: dict[str, type[Value]] = {
    "author": Author,
    "meta": Meta,
    "message-head": MessageHead,
    "message": Message,
    "run": Run,
    "artifact": Artifact,
    "presence": Presence,
    "session": SessionExport,
}
"""File name in ``schemas/v1/`` to model."""
