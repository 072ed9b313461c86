"""Records beside the document: runs, and the owners of Yjs clients. Plain values.

The document mirrors these for everybody to see; the record is what counts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from crdt_sessions.ids import ClientId, Millis
from crdt_sessions.model import (
    ANY_AGENT,
    TERMINAL_STATUSES,
    Approval,
    ApprovalRequest,
    CallOutcome,
    ClientCall,
    LateDecision,
    LateResult,
    MessageHead,
    OpenCall,
    PendingCall,
    RefusedDecision,
    Run,
    RunCancel,
    RunLease,
    RunOutcome,
    RunRequest,
    Spent,
    Taken,
    Usage,
)
from crdt_sessions.model.base import Value
from crdt_sessions.model.run_values import RunPolicy, RunStatus


class ApprovalRecord(BaseModel):
    """One question to people, and what became of it."""

    model_config = ConfigDict(frozen=True)

    request: ApprovalRequest
    tool_name: str = ""
    approval: Approval | None = None
    late: tuple[LateDecision, ...] = ()
    refused: tuple[RefusedDecision, ...] = ()
    """Decisions of those who have no say, the last one of each."""

    def replace(self, **changes: Any) -> ApprovalRecord:
        """Return this record with *changes*."""
        return self.model_copy(update=changes)


class CallRecord(BaseModel):
    """One call that a client executes: who has it, who had it, and what came of it."""

    model_config = ConfigDict(frozen=True)

    call: ClientCall
    tool_name: str = ""
    taken: Taken | None = None
    former: tuple[Taken, ...] = ()
    """Devices that had it and lost it, in their order."""
    outcome: CallOutcome | None = None
    late: tuple[LateResult, ...] = ()
    tell_at: int | None = None
    """When those who are absent are told that no device has it; None while one has, and once they were told."""

    def replace(self, **changes: Any) -> CallRecord:
        """Return this record with *changes*."""
        return self.model_copy(update=changes)


def lease_digest(token: str) -> str:
    """Return the digest that is kept of a lease's token: enough to recognise it, not to make it up."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class RunRecord(BaseModel):
    """A run, as the steward knows it. Never changed; a new state is a new record."""

    model_config = ConfigDict(frozen=True)

    id: str
    order: int
    """Place in the session's order of runs."""
    request: RunRequest | None
    agent: str
    policy: RunPolicy
    status: RunStatus
    output: str
    queued_at: int
    ready: bool = False
    """Queued, and nothing stands before it: it may be claimed."""
    epoch: int = 0
    """Of the last lease; each claim adds one."""
    attempt: int = 0
    """Leases lost since it was asked for, continued or handed over, and the present one."""
    lease: RunLease | None = None
    secret: str | None = None
    """Digest of the lease's token."""
    worker: str | None = None
    """The process that has the lease, if it said so."""
    left_by: str | None = None
    """The process that had it last, and went silent or gave it back."""
    left_at: int | None = None
    answered_by: str | None = None
    """The agent that worked on it last."""
    waits_until: int | None = None
    """When it begins; only while it waits for that."""
    cancel: RunCancel | None = None
    cancel_deadline: int | None = None
    approvals: dict[str, ApprovalRecord] = Field(default_factory=dict)
    calls: dict[str, CallRecord] = Field(default_factory=dict)
    """The calls that clients execute, or did."""
    outcome: RunOutcome | None = None
    spent: Spent | None = None
    """What the attempts that have ended have cost, as far as it was reported."""
    reported: Spent | None = None
    """The same of the present one."""
    children_spent: Spent | None = None
    """What its children, and theirs, have cost so far."""
    first_token_ms: int | None = None
    """From the claim of the attempt that wrote first until its first words were here."""
    duration_ms: int = 0
    """How long the attempts that have ended have had it."""

    @property
    def usage(self) -> Usage | None:
        """What all attempts have cost; None until something was reported."""
        known, children = self.own, self.children_spent
        if known is None:
            return Usage(children=children) if children is not None else None
        measured = Usage(first_token_ms=self.first_token_ms, duration_ms=self.duration_ms or None, children=children)
        return measured.replace(**known.figures)

    @property
    def own(self) -> Spent | None:
        """What was reported of it, without its children."""
        return self.spent.plus(self.reported) if self.spent is not None else self.reported

    @property
    def parent(self) -> str | None:
        """The run that it is a child of."""
        return self.request.parent if self.request is not None else None

    @property
    def answerer(self) -> str:
        """Whom it is for, or who took it if that may be anybody."""
        return self.answered_by or ANY_AGENT if self.agent == ANY_AGENT else self.agent

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL_STATUSES

    @property
    def undecided(self) -> list[ApprovalRecord]:
        """The questions nobody has answered yet."""
        return [each for each in self.approvals.values() if each.approval is None]

    @property
    def open_calls(self) -> dict[str, CallRecord]:
        """The calls that wait for a device, or for the result of one."""
        return {call_id: each for call_id, each in self.calls.items() if each.outcome is None}

    @property
    def waits(self) -> bool:
        """Whether somebody has yet to answer, or to bring a result, before it can go on."""
        return bool(self.undecided or self.open_calls)

    @property
    def pending(self) -> list[PendingCall] | None:
        """The calls that wait for people; None if the run does not."""
        if self.status != "suspended":
            return None
        return [
            PendingCall(
                tool_call_id=call_id,
                tool_name=each.tool_name,
                kind=each.request.kind,
                message=each.request.message,
                approvers=each.request.approvers,
                needs=each.request.needs,
                deadline=each.request.deadline,
            )
            for call_id, each in self.approvals.items()
            if each.approval is None
        ]

    @property
    def told_calls(self) -> list[OpenCall] | None:
        """The calls that wait for devices, as the document is to show them; None if there are none."""
        return [
            OpenCall(
                tool_call_id=call_id,
                tool_name=each.tool_name,
                takers=each.call.takers,
                deadline=each.call.deadline,
                taken=each.taken,
            )
            for call_id, each in self.open_calls.items()
        ] or None

    @property
    def due_at(self) -> Millis | None:
        """When somebody must look at it next, even if nothing happens; None if it can wait."""
        if self.over:
            return None
        deadline = self.request.deadline if self.request is not None else None
        dates = [
            self.cancel_deadline,
            self.waits_until,
            deadline,
            *(each.request.deadline for each in self.undecided),
            *(each.call.deadline for each in self.open_calls.values()),
            *(each.taken.at + each.taken.ttl for each in self.open_calls.values() if each.taken is not None),
            *(each.tell_at for each in self.open_calls.values()),
        ]
        if self.lease is not None:
            dates.append(self.lease.claimed_at + self.lease.ttl)
        known = [date for date in dates if date is not None]
        return Millis(min(known)) if known else None

    @property
    def run(self) -> Run:
        """The run as the document is to show it."""
        return Run(
            id=self.id,
            request=self.request,
            cancel=self.cancel,
            status=self.status,
            agent=self.agent,
            epoch=self.epoch,
            lease=self.lease,
            output=self.output,
            due=self.waits_until,
            pending=self.pending,
            calls=self.told_calls,
            outcome=self.outcome,
            usage=self.usage,
        )

    def replace(self, **changes: Any) -> RunRecord:
        """Return this record with *changes*."""
        return self.model_copy(update=changes)


@dataclass(frozen=True, slots=True)
class Writer:
    """Whose a Yjs client is. If it wrote for a run, its writes count while the lease lasts."""

    client: ClientId
    principal: str
    run: str = ""
    epoch: int = 0
    fenced_at: int | None = None
    """Clock from which on its structs are refused; None while it may write."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that people who are absent should hear of."""

    kind: str
    """Such as ``run.completed``."""
    data: dict[str, Any]
    at: Millis


@dataclass(frozen=True, slots=True)
class Posted:
    """Somebody said something."""

    message: str
    author: str
    at: Millis


@dataclass(frozen=True, slots=True)
class Deed:
    """Somebody did something that may be looked up later: an effect, for the audit log."""

    action: str
    """Such as ``run.cancel``."""
    principal: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something was written where layout 1 wants something else: nothing follows from it, so say it."""

    where: str
    """Such as ``messages`` or ``meta.agent``."""
    id: str
    """Of the entry, shortened."""
    why: str


@dataclass(frozen=True, slots=True)
class Spending:
    """A run has used more than was on record, or less if it had been reported too high."""

    principal: str
    """For whom it works; empty where nobody is known."""
    at: Millis
    before: Spent | None
    """What its present attempt had reported until now."""
    after: Spent


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a schedule asks: a message that is to be written, and to have its place."""

    head: MessageHead
    parts: list[Value]
    by: str | None
    """The principal whose question it is, where that is known."""


@dataclass(slots=True)
class Records:
    """What changed on record, to be stored together with the updates that mirror it."""

    runs: dict[str, RunRecord] = field(default_factory=dict)
    writers: dict[ClientId, Writer] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    posted: list[Posted] = field(default_factory=list)
    spendings: list[Spending] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs or self.writers or self.notices or self.posted)
