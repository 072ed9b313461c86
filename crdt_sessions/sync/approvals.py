"""What becomes of what people say about a tool call: it counts, it is late, or they have no say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.model import Approval, Decision, LateDecision, RefusedDecision, may_decide, why_no_answer
from crdt_sessions.sync.records import ApprovalRecord

_MAX_REFUSED = 20
"""Of how many people it is said that they have no say: where nobody is known, anybody may make up any number."""


def heard_of(known: ApprovalRecord, decisions: dict[str, Decision], now: Millis) -> ApprovalRecord:
    """Return *known* with the decision that counts, if there is one by now, and with those that do not."""
    counting: list[tuple[str, Decision]] = []
    for who, said in sorted(decisions.items(), key=lambda item: (item[1].at, item[0])):
        if not may_decide(known.request, who):
            known = refusing(known, refusal(said, by=who, why="not-an-approver"))
        elif (why := why_no_answer(known.request, said)) is not None:
            known = refusing(known, refusal(said, by=who, why="not-an-answer", detail=why))
        else:
            counting.append((who, said))
    approval = known.approval or _decided(known, counting, now)
    if approval is None:
        return known
    return known.replace(approval=approval, late=(*known.late, *_late(known, approval, counting)))


def refusal(decision: Decision, *, by: str, why: str, detail: str | None = None) -> RefusedDecision:
    """Return a decision as one that does not count. Its value is left out: nothing follows from it."""
    return RefusedDecision(by=by, why=why, detail=detail, **_said(decision) | {"value": None})


def refusing(known: ApprovalRecord, refused: RefusedDecision) -> ApprovalRecord:
    """Return *known* with a decision of somebody who has no say; of each only the last one is kept."""
    others = tuple(each for each in known.refused if each.by != refused.by)
    if refused in known.refused or len(others) >= _MAX_REFUSED:
        return known
    return known.replace(refused=(*others, refused))


def _decided(record: ApprovalRecord, said: Sequence[tuple[str, Decision]], now: Millis) -> Approval | None:
    """Return the decision that counts of those that can, in their order, if there is one by now."""
    request = record.request
    denials = [(who, decision) for who, decision in said if not decision.approved]
    if request.needs == "all" and not denials:
        missing = set(request.approvers or ()) - {who for who, _ in said}
        counting = said[-1:] if said and not missing else []
    else:
        counting = denials[:1] if request.needs == "all" else said[:1]
    for who, decision in counting:
        value = decision.value if decision.approved else None
        return Approval(approved=decision.approved, value=value, by=who, reason=decision.reason, at=now)
    if request.deadline is not None and now >= request.deadline:
        answered, default = request.default is not None, request.default
        return Approval(approved=answered, value=default, by="deadline", reason="nobody decided in time", at=now)
    return None


def _late(
    record: ApprovalRecord, approval: Approval, decisions: Sequence[tuple[str, Decision]]
) -> list[LateDecision]:
    """Return what was said after, or against, the decision that counts, and is not recorded as late yet."""
    found = []
    for who, said in decisions:
        same = said.approved == approval.approved and (not said.approved or said.value == approval.value)
        counted = same and (who == approval.by or record.request.needs == "all")
        late = LateDecision(by=who, **_said(said))
        if not counted and late not in record.late:
            found.append(late)
    return found


def _said(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in ("approved", "value", "reason", "at")}
