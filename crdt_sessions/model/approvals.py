"""Whether somebody has a say about a tool call, as far as the document tells: for the service and for its peers."""

from __future__ import annotations

from crdt_sessions.errors import AlreadyDecided, NotAnAnswer, NotAnApprover, NotFound, NothingToDecide
from crdt_sessions.model.asks import why_no_answer
from crdt_sessions.model.decisions import Approval, ApprovalRequest, Decision
from crdt_sessions.model.message_view import MessageView
from crdt_sessions.model.run_values import Run
from crdt_sessions.model.tool_stream import ToolStream


def may_decide(request: ApprovalRequest, principal: str) -> bool:
    """Whether *principal* is among those who are asked."""
    return request.approvers is None or principal in request.approvers


def find_call(run: Run | None, message: MessageView | None, call_id: str) -> ToolStream:
    """Return a tool call of the message that a run writes.

    Raises:
        NotFound: the message has no such call; the error names those that wait.
    """
    tool = message.tool(call_id) if message is not None else None
    if tool is None:
        waiting = [each.tool_call_id for each in (run.pending if run is not None else None) or ()]
        raise NotFound(what="tool call that waits for approval", id=call_id, known=waiting)
    return tool


def check_decision(
    run: Run | None, message: MessageView | None, call_id: str, principal: str, decision: Decision
) -> ToolStream:
    """Return the tool call about which *principal* says something that can count, or has counted already.

    Args:
        run: the one that has called it, or goes on with what did; None if none does.
        message: what the run writes; None if it has not begun.
        call_id: the tool call.
        principal: who decides.
        decision: what they say.

    Raises:
        NotFound: the message has no such call.
        NothingToDecide: nobody is asked about it, or not any more.
        NotAnApprover: others are.
        NotAnAnswer: it does not fit what is asked.
        AlreadyDecided: it is settled, and not by this decision.
    """
    tool = find_call(run, message, call_id)
    request, approval = tool.approval_request, tool.approval
    if request is None:
        raise NothingToDecide(call=call_id, why="nobody is asked about it")
    if not may_decide(request, principal):
        raise NotAnApprover(call=call_id, principal=principal, approvers=request.approvers or [])
    if approval is not None:
        if not _counted(tool, request, approval, principal, decision):
            raise AlreadyDecided(call=call_id, approved=approval.approved, by=approval.by, reason=approval.reason)
    elif run is None or run.over:
        raise NothingToDecide(call=call_id, why="no run waits for it" if run is None else f"the run is {run.status}")
    elif (why := why_no_answer(request, decision)) is not None:
        raise NotAnAnswer(call=call_id, why=why)
    return tool


def _counted(
    tool: ToolStream, request: ApprovalRequest, approval: Approval, principal: str, decision: Decision
) -> bool:
    """Whether what *principal* says now is what they have said, and what counts: a request that is repeated."""
    if approval.approved != decision.approved or (decision.approved and approval.value != decision.value):
        return False
    said = tool.decisions().get(principal) if request.needs == "all" else None
    return approval.by == principal or (said is not None and said.approved == decision.approved)
