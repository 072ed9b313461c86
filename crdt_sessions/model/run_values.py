"""A run, as JSON values: what is asked, what its agent says of it, and what the server settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from crdt_sessions.errors import BadValue, TooLarge
from crdt_sessions.limits import RunPolicyName
from crdt_sessions.model.base import Integer, Value
from crdt_sessions.model.children import ChildKey, Orphans, checked_task
from crdt_sessions.model.client_calls import OpenCall
from crdt_sessions.model.decisions import PendingCall
from crdt_sessions.model.inputs import RunInput
from crdt_sessions.model.schedules import Schedule
from crdt_sessions.model.strings import AgentName, ErrorText, MessageId, Reason, RunId, Time, Who, Word
from crdt_sessions.model.usage import Usage, UsageReport

RunStatus = Literal["queued", "running", "suspended", "completed", "failed", "cancelled", "interrupted"]
ResultStatus = Literal["completed", "failed", "cancelled", "suspended", "handoff", "released"]
RunPolicy = RunPolicyName
Trigger = Literal["submit", "regenerate", "continue"]

TERMINAL_STATUSES: frozenset[RunStatus] = frozenset({"completed", "failed", "cancelled", "interrupted"})

ANY_AGENT = "*"
"""Whom a request is for if any agent may answer it."""

SETTLED_KEYS = ("status", "agent", "epoch", "lease", "output", "due", "pending", "calls", "outcome", "usage")
"""What only the server writes of a run."""


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
