"""Tool calls that nobody will answer: a run's end ends its calls.

Front ends and model libraries refuse a conversation with a call that has no result once somebody has spoken after it.
The steward ends the calls in the document; conversations are told like that also where a document is older.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from crdt_sessions.model.decisions import Approval
from crdt_sessions.model.parts import ToolPart, ToolState
from crdt_sessions.model.run_values import Run, RunStatus
from crdt_sessions.model.values import Message

_WHY = {
    "cancelled": "the run was stopped before this call had a result",
    "failed": "the run failed before this call had a result",
    "interrupted": "the agent was lost before this call had a result",
}
UNANSWERED = "the conversation went on before this call had a result"
_ENDED = ("output-available", "output-error", "output-denied")


def why_ended(status: RunStatus) -> str:
    """Return the error of a call whose run has ended with *status*."""
    return _WHY.get(status, "the run ended before this call had a result")


def ending(state: ToolState | None, approval: Approval | None, status: RunStatus) -> ToolState | None:
    """Return the state in which a call ends with its run; None if it stays as it is.

    It stays if it has ended, and if the run is completed and nobody was asked about it: it may be a tool that the
    client executes, and the answer goes on with what that returns.

    Args:
        state: how far the call is.
        approval: what people have decided about it.
        status: how the run has ended.
    """
    if state in _ENDED or (state == "input-available" and status == "completed"):
        return None
    return "output-denied" if approval is not None and not approval.approved else "output-error"


def ended_call(part: ToolPart, run: Run | None, *, followed: bool = False) -> ToolPart:
    """Return a call as ended as it is.

    Args:
        part: the call.
        run: the one that wrote its message last, if there is one.
        followed: whether somebody has said something after it, so that a client's tool is not waited for any more.
    """
    if part.state in _ENDED or (run is not None and not run.over):
        return part
    status = run.status if run is not None and run.status is not None else "completed"
    state = ending(part.state, part.approval, status)
    if state == "output-error":
        return part.replace(state=state, error_text=part.error_text or why_ended(status))
    if state is not None:
        return part.replace(state=state)
    return part.replace(state="output-error", error_text=UNANSWERED) if followed else part


def with_ended_calls(messages: Sequence[Message], runs: Iterable[Run]) -> list[Message]:
    """Return *messages*, one after the other, with their calls as ended as they are."""
    known = {run.id: run for run in runs}
    asked = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)

    def told(at: int, message: Message) -> Message:
        if not any(isinstance(part, ToolPart) and part.state not in _ENDED for part in message.parts):
            return message
        run, followed = known.get(message.run_id or ""), at < asked
        parts = [
            ended_call(part, run, followed=followed) if isinstance(part, ToolPart) else part for part in message.parts
        ]
        return message.replace(parts=parts)

    return [told(at, message) for at, message in enumerate(messages)]
