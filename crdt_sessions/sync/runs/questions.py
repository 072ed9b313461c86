"""Questions of runs to people: what was asked, and what became of it."""

from __future__ import annotations

from crdt_sessions.ids import Millis
from crdt_sessions.model import Approval, RefusedDecision, RunError, SessionView
from crdt_sessions.sync.approvals import heard_of, refusing
from crdt_sessions.sync.records import ApprovalRecord, Deed, RunRecord
from crdt_sessions.sync.runs.mirror import settle_tool
from crdt_sessions.sync.runs.table import RunTable


class Questions:
    """The questions of one session's runs.

    Args:
        view: the session's document.
        table: the runs.
    """

    def __init__(self, view: SessionView, table: RunTable) -> None:
        self._view = view
        self._table = table

    def asked(self, record: RunRecord) -> dict[str, ApprovalRecord] | RunError:
        """Return what a run asks people in its message, or why that cannot be read.

        Nobody could answer what cannot be read, and the agent would ask again and again.
        """
        message = self._view.messages.find(record.output)
        approvals = dict(record.approvals)
        for tool in message.tools() if message is not None else []:
            request = tool.approval_request
            if request is None and tool.waits:
                why = f"what the tool call {tool.call_id!r} asks people cannot be read"
                return RunError(code="bad-question", message=why)
            if request is not None and tool.call_id not in approvals:
                approvals[tool.call_id] = ApprovalRecord(request=request, tool_name=tool.name)
        return approvals

    def due(self, record: RunRecord, now: Millis) -> bool:
        """Whether a deadline of a question has passed."""
        return any(now >= (each.request.deadline or now + 1) for each in record.undecided)

    def hear(self, record: RunRecord, now: Millis) -> RunRecord:
        """Let the first decision by an approver count; mark the others as late or not allowed."""
        decided = self._table.decided
        message = self._view.messages.find(record.output)
        for call_id, known in record.approvals.items():
            tool = message.tool(call_id) if message is not None else None
            heard = heard_of(known, tool.decisions() if tool is not None else {}, now)
            if heard != known:
                record = self.settle(record, call_id, heard)
            elif tool is not None and not tool.shows(known.refused):
                decided.writes.append(settle_tool(record, call_id, known))
            elif tool is not None and known.approval is not None and (tool.approval != known.approval or tool.waits):
                if tool.approval is not None and tool.approval != known.approval:
                    decided.restored.append("approval")
                decided.writes.append(settle_tool(record, call_id, known))
        return record

    def refuse(self, run_id: str, call_id: str, refused: RefusedDecision) -> None:
        """Note that somebody decided about a question who has no say, and have it said where the question stands."""
        record = self._table[run_id]
        known = record.approvals.get(call_id)
        if known is not None and (settled := refusing(known, refused)) != known:
            # The run is as it was: what else somebody wrote there is still noticed.
            self.settle(record, call_id, settled, shows=False)

    def settle(self, record: RunRecord, call_id: str, settled: ApprovalRecord, *, shows: bool = True) -> RunRecord:
        """Put on record what became of a question."""
        decided = self._table.decided
        decided.writes.append(settle_tool(record, call_id, settled))
        approval, before = settled.approval, record.approvals[call_id].approval
        if approval is not None and before is None and approval.by:
            detail = {"run": record.id, "call": call_id, "approved": approval.approved}
            decided.deeds.append(Deed("run.decide", approval.by, detail))
        return self._table.put(record.replace(approvals={**record.approvals, call_id: settled}), shows=shows)

    def close(self, record: RunRecord, reason: str, now: Millis) -> RunRecord:
        """Deny what nobody has answered of a run that is over."""
        for call_id, each in record.approvals.items():
            if each.approval is None:
                approval = Approval(approved=False, by="", reason=reason, at=now)
                record = self.settle(record, call_id, each.replace(approval=approval))
        return record
