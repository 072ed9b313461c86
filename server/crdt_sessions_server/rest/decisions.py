"""What people decide about tool calls over HTTP: written down if it can count, and else refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping

from crdt_sessions.errors import AlreadyDecided, NotAnApprover
from crdt_sessions.model import Decision, Run, SessionView, check_decision
from crdt_sessions.runtime import Session
from crdt_sessions_server.auth import Principal


async def write_decisions(
    session: Session,
    run: Run | None,
    message_id: str,
    decisions: Mapping[str, Decision],
    principal: Principal,
    speaking_as: str | None = None,
) -> list[AlreadyDecided]:
    """Write down what somebody decides about tool calls of a message; return once it is durable, and settled.

    Args:
        session: the session.
        run: the one that writes the message; None if none does.
        message_id: the message.
        decisions: tool call to what they say.
        principal: who asks for it.
        speaking_as: the principal that decides, where the caller speaks for others.

    Returns:
        What became of those that came too late. Nothing is written of them; the others count all the same.

    Raises:
        AccessDenied: they may not speak for that one.
        NotAnApprover, NotAnAnswer, NotFound, NothingToDecide: one of the decisions cannot count; nothing was written.
    """
    who = principal.speaking_as(speaking_as)
    await session.readable()  # a decision that is told of must not be lost in a crash

    def change(view: SessionView) -> list[AlreadyDecided]:
        late: list[AlreadyDecided] = []
        found = []
        for call, decision in decisions.items():
            try:
                tool = check_decision(run, view.messages.find(message_id), call, who, decision)
            except AlreadyDecided as error:
                late.append(error)
            except NotAnApprover as error:
                raise _advised(error, principal, speaking_as) from None
            else:
                found.append((tool, decision))
        for tool, decision in found:
            if tool.approval is None:  # else it is a repetition
                tool.decide(who, decision)
        return late

    return await session.edit(change)


def _advised(error: NotAnApprover, principal: Principal, said: str | None) -> NotAnApprover:
    """Return *error*, with advice if the caller may speak for others and named nobody."""
    if said is not None or not principal.speaks_for_others:
        return error
    return NotAnApprover(
        call=error.call,
        principal=error.principal,
        approvers=error.approvers,
        advice='say who decides: POST …/runs/<run>/approvals/<toolCallId> takes it as "principal"',
    )
