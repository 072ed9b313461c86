"""The part of a tool call: its streamed input, what people and devices say about it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pycrdt import Array, Map, Text
from pydantic import ValidationError

from crdt_sessions.errors import BadId
from crdt_sessions.model.base import Value
from crdt_sessions.model.calls import ending, why_ended
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.client_calls import (
    CallOutcome,
    CallResult,
    ClientCall,
    LateResult,
    Offer,
    why_no_result,
)
from crdt_sessions.model.decisions import Approval, ApprovalRequest, Decision, LateDecision, RefusedDecision
from crdt_sessions.model.drafts import fill_in, filled_in, new_draft
from crdt_sessions.model.parts import ToolState
from crdt_sessions.model.run_values import RunStatus
from crdt_sessions.model.spelling import json_object, spelled
from crdt_sessions.model.strings import CALL_CHARACTERS, checked_id, is_call, is_id

_V = TypeVar("_V", bound=Value)

_TOOL_STATES: tuple[ToolState, ...] = get_args(ToolState)


@dataclass(frozen=True, slots=True)
class Question:
    """What others than its agent may say about a tool call, and what they are asked: JSON as in the document."""

    request: Any = None
    decisions: dict[str, Any] = field(default_factory=dict)
    approval: Any = None
    client_call: Any = None
    offers: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)


class ToolStream:
    """A ``tool`` part: its streamed input, what people decide about it, its output.

    Call every method that writes inside a transaction of the document.
    """

    def __init__(self, part: Map[Any]) -> None:
        self._part = part
        self._input: Text = part["inputText"]

    @classmethod
    def of(cls, part: Any) -> ToolStream | None:
        """Return *part* as a tool call, or None if it is not one."""
        is_tool = isinstance(part, Map) and part.get("type") == "tool" and isinstance(part.get("inputText"), Text)
        return cls(part) if is_tool and is_call(part.get("toolCallId")) else None

    @classmethod
    def open(cls, parts: Array[Any], tool_call_id: str, tool_name: str) -> ToolStream:
        """Append a tool part; its input is streamed next.

        Raises:
            BadId: *tool_call_id* is too long for one.
        """
        if not is_call(tool_call_id):
            raise BadId(what="tool call id", text=tool_call_id, limit=CALL_CHARACTERS)
        part = {"type": "tool", "toolCallId": tool_call_id, "toolName": tool_name}
        parts.append(Map({**part, "inputText": Text(""), "state": "input-streaming"}))
        return cls(parts[len(parts) - 1])

    @property
    def call_id(self) -> str:
        """The call's id."""
        return str(self._part["toolCallId"])

    @property
    def name(self) -> str:
        """The tool's name."""
        name = self._part.get("toolName")
        return name if isinstance(name, str) else ""

    @property
    def state(self) -> ToolState | None:
        """How far the call is."""
        state = self._part.get("state")
        return next((known for known in _TOOL_STATES if known == state), None)

    @property
    def input(self) -> Any:
        """The input, once it is complete; None if it has none."""
        return spelled(self._part.get("input"))

    @property
    def waits(self) -> bool:
        """Whether people have not decided about the call yet."""
        return self.state == "approval-requested"

    def append(self, text: str) -> None:
        """Append to the input as the model writes it."""
        if text:
            self._input += text

    def close(self, input: Any = None, *, error: str | None = None) -> None:
        """Mark the input as complete.

        Args:
            input: the parsed input, if it could be parsed.
            error: why it could not; the part then ends in ``output-error``.

        Raises:
            BadValue: *input* is not JSON that every peer can hold.
        """
        if input is not None:
            self._part["input"] = check_json(input, "input")
        if error is not None:
            self._part["errorText"] = error
        self._part["state"] = "input-available" if error is None else "output-error"

    def output(self, value: Any) -> None:
        """Record what the tool returned.

        Raises:
            BadValue: *value* is not JSON that every peer can hold.
        """
        self._part["output"] = check_json(value, "output")
        self._part["state"] = "output-available"

    def fail(self, error: str) -> None:
        """Record that the tool failed."""
        self._part["errorText"] = error
        self._part["state"] = "output-error"

    def deny(self) -> None:
        """Record that the tool was not called because people were against it."""
        self._part["state"] = "output-denied"

    def end(self, status: RunStatus) -> None:
        """End the call with its run, which has ended with *status*, if it has no result. For the steward only."""
        state = ending(self.state, self.approval, status)
        if state is None:
            return
        if state == "output-error":
            self._part["errorText"] = why_ended(status)
        self._part["state"] = state

    # -- approval ----------------------------------------------------------------------------------------------

    @property
    def approval_request(self) -> ApprovalRequest | None:
        """What people are asked, if they are."""
        return _value(ApprovalRequest, self._part.get("approvalRequest"))

    @property
    def approval(self) -> Approval | None:
        """The decision that counts, once there is one."""
        return _value(Approval, self._part.get("approval"))

    def ask(self, request: ApprovalRequest) -> None:
        """Ask people to decide about the call; asking again changes nothing."""
        if self.approval_request is None:
            fields = request.form.get("properties") if request.form is not None else None
            if isinstance(fields, dict) and request.order is None:
                request = request.replace(order=list(fields))
            self._part["approvalRequest"] = request.json_value()
            self._part["decisions"] = Map({})
            if request.form is not None or request.kind == "edit":
                self._part["draft"] = new_draft(request, self.input)
            self._part["state"] = "approval-requested"

    def decide(self, principal: str, decision: Decision) -> None:
        """Write what *principal* says.

        Raises:
            BadId: *principal* cannot be one.
        """
        checked_id(principal, "principal")
        decisions = self._part.get("decisions")
        if not isinstance(decisions, Map):
            self._part["decisions"] = Map({})
            decisions = self._part["decisions"]
        decisions[principal] = decision.json_value()

    def draft(self) -> dict[str, Any]:
        """Return the answer as far as somebody has filled it in, by field."""
        return filled_in(self._part.get("draft"))

    def fill_in(self, fields: Mapping[str, Any]) -> None:
        """Fill in fields of the draft, or empty those that are None. Nothing happens where nobody is asked.

        Raises:
            BadValue: one of them is not JSON that every peer can hold.
        """
        fill_in(self._part.get("draft"), fields)

    def decisions(self) -> dict[str, Decision]:
        """Return the decisions, by principal; values that are no decision are left out."""
        return self._proposals("decisions", Decision)

    def _entries(self, key: str) -> dict[str, Any]:
        entries = self._part.get(key)
        return spelled(entries) if isinstance(entries, Map) else {}

    def asked(self) -> Question:
        """Return the question, what people have said to it and what counts, as they stand there."""
        return Question(
            spelled(self._part.get("approvalRequest")),
            self._entries("decisions"),
            spelled(self._part.get("approval")),
            spelled(self._part.get("clientCall")),
            self._entries("offers"),
            self._entries("results"),
        )

    def put_back(self, question: Question) -> None:
        """Have exactly *question* stand there. For the server only."""
        for key, value in (
            ("approvalRequest", question.request),
            ("approval", question.approval),
            ("clientCall", question.client_call),
        ):
            if value is None:
                self._part.pop(key, None)
            elif spelled(self._part.get(key)) != value:
                self._part[key] = value
        for key, entries in (
            ("decisions", question.decisions),
            ("offers", question.offers),
            ("results", question.results),
        ):
            if self._entries(key) != entries:
                self._part[key] = Map(entries)
        if question.approval is None and question.request is not None and self.state == "approval-responded":
            self._part["state"] = "approval-requested"

    def settle(
        self, approval: Approval | None, late: Sequence[LateDecision], refused: Sequence[RefusedDecision] = ()
    ) -> None:
        """Write the decision that counts, if there is one yet, and those that do not. For the steward only."""
        if approval is not None and self.approval != approval:
            self._part["approval"] = approval.json_value()
        for key, decisions in (("late", late), ("refused", refused)):
            listed = [each.json_value() for each in decisions]
            if listed and self._part.get(key) != listed:
                self._part[key] = listed
        if approval is not None and self.waits:
            self._part["state"] = "approval-responded"

    # -- calls that a client executes --------------------------------------------------------------------------

    @property
    def client_call(self) -> ClientCall | None:
        """What devices are asked to do, if the tool runs on one of a client's."""
        return _value(ClientCall, self._part.get("clientCall"))

    @property
    def outcome(self) -> CallOutcome | None:
        """What came of that, once it is settled."""
        return _value(CallOutcome, self._part.get("outcome"))

    @property
    def output_value(self) -> Any:
        """What the tool returned; None if it has not, or returned nothing."""
        return spelled(self._part.get("output"))

    @property
    def error_text(self) -> str | None:
        """Why the tool failed, if it did."""
        error = self._part.get("errorText")
        return error if isinstance(error, str) else None

    def call_in_client(self, call: ClientCall) -> None:
        """Ask devices of clients to call the tool; asking again changes nothing."""
        if self.client_call is None:
            self._part["offers"] = Map({})  # made once, by the agent, as a draft is
            self._part["results"] = Map({})
            self._part["clientCall"] = call.json_value()

    def offers(self) -> dict[str, Offer]:
        """Return who would do it, by device; what is no offer is left out."""
        return self._proposals("offers", Offer)

    def results(self) -> dict[str, CallResult]:
        """Return what devices say came of it; what is no result is left out."""
        return self._proposals("results", CallResult)

    def _proposals(self, key: str, kind: type[_V]) -> dict[str, _V]:
        entries = self._part.get(key)
        items = entries.items() if isinstance(entries, Map) else ()
        return {who: found for who, said in items if is_id(who) and (found := _value(kind, said)) is not None}

    def propose(self, device: str, proposal: Offer | CallResult) -> None:
        """Write what a device offers, or what it says came of the call. Nothing happens where no device is asked.

        Raises:
            BadId: *device* cannot be a name.
            BadValue: the output is not JSON that every peer can hold.
        """
        checked_id(device, "device")
        entries = self._part.get("offers" if isinstance(proposal, Offer) else "results")
        if isinstance(entries, Map):
            entries[device] = proposal.json_value()

    def withdraw(self, device: str) -> None:
        """Take back what a device offered: it is not there any more."""
        entries = self._part.get("offers")
        if isinstance(entries, Map):
            entries.pop(device, None)

    def settle_client_call(
        self,
        outcome: CallOutcome | None,
        late: Sequence[LateResult],
        *,
        said: CallResult | None = None,
        again: bool = False,
    ) -> None:
        """Write what came of the call, if that is known, and what does not count. For the steward only.

        Args:
            outcome: what came of it.
            late: what does not count.
            said: what the device brought that counts.
            again: whether it was written before, with output or error, and somebody wrote over it.
        """
        listed = [each.json_value() for each in late]
        if listed and self._part.get("lateResults") != listed:
            self._part["lateResults"] = listed
        if outcome is None or self.outcome == outcome:
            return
        self._part["outcome"] = outcome.json_value()
        results = self._part.get("results")
        if outcome.device is not None and isinstance(results, Map):
            results.pop(outcome.device, None)  # it stands there as the call's output from now on
        if again:
            return
        if outcome.code == "done":
            self.output(said.output if said is not None else None)
        else:
            self.fail(why_no_result(outcome, said))

    def shows_outcome(self, outcome: CallOutcome | None, late: Sequence[LateResult]) -> bool:
        """Whether exactly that stands there."""
        told = self._part.get("lateResults") or []
        return self.outcome == outcome and told == [each.json_value() for each in late]

    def shows(self, refused: Sequence[RefusedDecision]) -> bool:
        """Whether these stand there as the decisions that cannot count; where there are none, anything may."""
        return not refused or self._part.get("refused") == [each.json_value() for each in refused]


def _value(kind: type[_V], value: Any) -> _V | None:
    try:
        return kind.model_validate(json_object(value))
    except ValidationError:
        return None
