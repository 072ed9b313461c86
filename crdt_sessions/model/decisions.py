"""What an agent asks people about a tool call, what they decide, and what counts of it, as JSON values.

:mod:`crdt_sessions.model.approvals` says who has a say.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from crdt_sessions.errors import BadValue
from crdt_sessions.model.asks import check_form, why_unfit
from crdt_sessions.model.base import Value
from crdt_sessions.model.strings import ErrorText, Reason, Time, ToolCallId, ToolName, Who, Word

AskKind = Literal["approve", "choose", "form", "edit"]


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
