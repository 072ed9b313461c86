"""Tool calls that a client executes: what stands in the document about them.

An agent asks for one (``clientCall``), devices offer to do it (``offers``), the server gives it to one of them, which
the run's ``calls`` say, that one brings a result (``results``), and the server settles what came of it (``outcome``).
A device is known by a name of its own: peers with a document use their Yjs client id, in decimal digits, so that
their presence is a sign of life; others make a name up.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from crdt_sessions.model.base import Value
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.strings import ErrorText, PrincipalId, Time, ToolCallId, ToolName, Who

ResultStatusOfCall = Literal["done", "failed", "refused"]
OutcomeCode = Literal["done", "failed", "refused", "deadline", "gone", "ended"]
MAX_ATTEMPTS = 10
"""How often a call may be given to a device, whatever its agent asks for."""
Attempt = Annotated[int, Field(ge=0, le=MAX_INTEGER)]

WHY = {
    "refused": "the device refused to call the tool",
    "deadline": "no device had a result of the tool in time",
    "gone": "each device that took the call went away without a result",
    "ended": "the run ended before a device had a result",
}
"""What is said of calls without a result, unless the device said something itself."""


class ClientCall(Value):
    """``parts[i].clientCall``: an agent wants a device of a client to call the tool. Written once, by the agent."""

    takers: list[str] | None = None
    """The principals whose devices may take it; everybody's if absent."""
    deadline: Time | None = None
    """When it counts as failed if there is no result."""
    attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] = 3
    """How many devices may be given it, one after the other, if they go away without a result."""
    requested_at: Time


class Offer(Value):
    """``parts[i].offers[<device>]``: a device would call the tool. A proposal; a later time makes it a new one."""

    by: Who = ""
    """The principal whose device it is."""
    at: Time
    ttl: Annotated[int, Field(ge=0, le=MAX_INTEGER)] | None = None
    """Milliseconds without a sign of life after which the device loses the call; the server bounds it."""


class CallResult(Value):
    """``parts[i].results[<device>]``: what a device says came of it. Counts if the call is, or was last, its own."""

    by: Who = ""
    status: ResultStatusOfCall = "done"
    output: Any = None
    error_text: ErrorText | None = None
    at: Time


class Taken(Value):
    """A call was given to a device. Settled by the server."""

    device: PrincipalId
    by: Who = ""
    attempt: Attempt
    at: Time
    ttl: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    """Milliseconds without a sign of life after which the device loses it."""
    offered_at: Time
    """The time of the offer that was accepted."""


class CallOutcome(Value):
    """``parts[i].outcome``: what came of the call. Settled once, by the server, with the call's output or error."""

    code: OutcomeCode
    device: PrincipalId | None = None
    """The device whose word it is, if it is one's."""
    by: Who | None = None
    attempt: Attempt = 0
    """How many times the call was given to a device."""
    at: Time


class LateResult(Value):
    """An entry of ``parts[i].lateResults``: a device brought a result that does not count. Recorded by the server."""

    device: PrincipalId
    by: Who = ""
    why: Literal["late", "not-the-taker"]
    """``late``: another outcome was settled before. ``not-the-taker``: the call was never given to it."""
    at: Time


class OpenCall(Value):
    """An entry of ``runs[id].calls``: a call that waits for a device, and who has it. Settled by the server."""

    tool_call_id: ToolCallId
    tool_name: ToolName = ""
    takers: list[str] | None = None
    deadline: Time | None = None
    taken: Taken | None = None
    """Absent while nobody has it."""

    def may_take(self, principal: str) -> bool:
        """Whether a device of *principal* may have it."""
        return self.takers is None or principal in self.takers


RESULT_STATUSES: tuple[ResultStatusOfCall, ...] = get_args(ResultStatusOfCall)


def why_no_result(outcome: CallOutcome, said: CallResult | None) -> str:
    """Return the error of a call that has no output."""
    if said is not None and said.error_text:
        return said.error_text
    return WHY.get(outcome.code, "the tool failed")
