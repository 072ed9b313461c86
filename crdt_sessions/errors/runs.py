"""Errors of runs and those who write their answers."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError


class RunNotClaimable(CrdtSessionsError):
    """The run is not queued, not next, or for another agent."""

    def __init__(self, *, run: str, status: str) -> None:
        super().__init__(f"run {run!r} cannot be claimed: {status}")
        self.run = run
        self.status = status


class AgentAway(CrdtSessionsError):
    """Nobody takes a run in time, since its agent is not there. What was asked waits for it.

    Args:
        agent: the agent it is for; ``*`` for any.
        run: what was asked.
        waited_s: for how long somebody was waited for.
        retry_after_s: when to look again.
    """

    def __init__(self, *, agent: str, run: str, waited_s: float, retry_after_s: int = 5) -> None:
        who = "no agent is there" if agent == "*" else f"the agent {agent!r} is not there"
        super().__init__(
            f"{who}, and none came within {waited_s:g} s; what was asked is kept, and answered when one comes:"
            " repeat the request then"
        )
        self.agent = agent
        self.run = run
        self.retry_after_s = retry_after_s


class LeaseLost(CrdtSessionsError):
    """The lease was lost or given back; what its holder writes is refused."""

    def __init__(self, *, run: str = "") -> None:
        super().__init__(f"the lease of run {run!r} has ended" if run else "no such lease")
        self.run = run


class WrongOffset(CrdtSessionsError):
    """The text is not to be appended where the buffer ends, and is not a repetition of what stands there."""

    def __init__(self, *, offset: int, length: int) -> None:
        super().__init__(f"offset {offset}, but the buffer has {length} characters; go on from there")
        self.offset = offset
        self.length = length
