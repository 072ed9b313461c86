"""Errors of what people are asked, and of tools that run at theirs."""

from __future__ import annotations

from crdt_sessions.errors.access import AccessDenied
from crdt_sessions.errors.base import CrdtSessionsError, listed


class NotAnApprover(AccessDenied):
    """The question about a tool call is for others.

    Args:
        call: the tool call.
        principal: who wanted to decide.
        approvers: the principals that may decide.
        advice: what to do about it, if there is something.
    """

    def __init__(self, *, call: str, principal: str, approvers: list[str], advice: str = "") -> None:
        asked, more = listed(approvers) or "nobody", f"; {advice}" if advice else ""
        super().__init__(
            what=f"{principal!r} does not decide about the tool call {call!r}; that is for {asked}{more}"
        )
        self.call = call
        self.principal = principal
        self.approvers = approvers


class NotAnAnswer(CrdtSessionsError):
    """What somebody says does not fit what is asked.

    Args:
        call: the tool call.
        why: what is wrong with it.
    """

    def __init__(self, *, call: str, why: str) -> None:
        super().__init__(f"that is no answer to what the tool call {call!r} asks: {why}")
        self.call = call
        self.why = why


class PieceSettled(CrdtSessionsError):
    """Somebody has decided otherwise about a piece of a suggestion before. Who comes later has no say.

    Args:
        suggestion: the suggestion.
        piece: which piece, from 0.
        accepted: what was settled.
        by: the principal that decided.
    """

    def __init__(self, *, suggestion: str, piece: int, accepted: bool, by: str) -> None:
        super().__init__(f"piece {piece} was {'accepted' if accepted else 'rejected'} by {by!r} already")
        self.suggestion = suggestion
        self.piece = piece
        self.accepted = accepted
        self.by = by


class AlreadyDecided(CrdtSessionsError):
    """What people were asked about a tool call is settled. Who comes later has no say.

    Args:
        call: the tool call.
        approved: what was settled.
        by: the principal that decided; ``deadline`` if nobody decided in time, empty if the question was closed.
        reason: why, if that is known.
    """

    def __init__(self, *, call: str, approved: bool, by: str, reason: str | None = None) -> None:
        if by == "deadline":
            settled = "counts as denied: nobody decided in time"
        elif by:
            settled = f"was {'approved' if approved else 'denied'} by {by!r} already"
        else:
            settled = f"is not asked about any more: {reason or 'the run has ended'}"
        super().__init__(f"the tool call {call!r} {settled}")
        self.call = call
        self.approved = approved
        self.by = by


class NothingToDecide(CrdtSessionsError):
    """Nobody is asked about a tool call, or its run has ended.

    Args:
        call: the tool call.
        why: what is the matter.
    """

    def __init__(self, *, call: str, why: str) -> None:
        super().__init__(f"there is nothing to decide about the tool call {call!r}: {why}")
        self.call = call


class CallNotGiven(CrdtSessionsError):
    """A device brings the result of a tool call that is not its own.

    Args:
        call: the tool call.
        device: the device.
        why: what is the matter.
    """

    def __init__(self, *, call: str, device: str, why: str) -> None:
        super().__init__(f"the result of the tool call {call!r} by the device {device!r} does not count: {why}")
        self.call = call
        self.device = device
