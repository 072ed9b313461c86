"""What an agent asks people."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from crdt_sessions.client.session import SessionPeer
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.client.tool_calls import ToolCall
from crdt_sessions.errors import BadValue, RunSuspended
from crdt_sessions.model import Approval, ApprovalRequest
from crdt_sessions.model.checks import why_not


class Questions:
    """The questions of a run to people.

    Args:
        session: the session.
        out: the answer in which they stand.
    """

    def __init__(self, session: SessionPeer, out: MessageStream) -> None:
        self._session = session
        self._out = out

    def decided(
        self, call: ToolCall, asked: dict[str, Any], approvers: list[str] | None, needs: str, deadline_s: float | None
    ) -> Approval:
        """Return what people decided about a call; ask them, and leave the run to wait, if they have not yet.

        Args:
            call: what it is about.
            asked: what of the request says what is asked.
            approvers: the principals who may decide; everybody if None.
            needs: ``any`` or ``all``.
            deadline_s: seconds after which it counts as decided.

        Raises:
            RunSuspended: nobody has decided yet.
            BadValue: that cannot be asked.
        """
        if (approval := call.approval) is not None:
            return approval
        now = self._session.now()
        said = {
            "approvers": approvers,
            "needs": needs,
            "deadline": None if deadline_s is None else now + int(deadline_s * 1000),
            "requestedAt": now,
        }
        try:
            request = ApprovalRequest.model_validate(asked | said)
        except ValidationError as error:
            raise BadValue(where="the question", why="; ".join(why_not(error))) from None
        call.ask(request)
        self._out.end("suspended", "approval requested")
        raise RunSuspended(run=self._out.run_id, why="people must decide")
