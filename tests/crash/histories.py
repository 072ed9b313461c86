"""What must hold of a history: tokens that clients wrote, and what of them is there in the end.

A client writes one token after the other. It *invokes* a write, and notes *ok* once that is acknowledged; one that was
invoked and never acknowledged may be there or not.
"""

from dataclasses import dataclass, field

from crdt_sessions.model import TERMINAL_STATUSES


@dataclass
class History:
    """What clients have seen."""

    seed: int
    invoked: list[str] = field(default_factory=list)
    ok: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def summary(self):
        """How much was tried."""
        return f"{len(self.faults)} faults, {len(self.ok)} of {len(self.invoked)} acknowledged"

    def __str__(self):
        return f"seed {self.seed}, {self.summary}, faults: {self.faults}"


def writer_of(token):
    """Return who wrote a token, and the how-manieth of theirs it is."""
    writer, number = token.rsplit("-", 1)
    return writer, int(number)


def check_tokens(history, present):
    """Nothing acknowledged is lost, nothing is there twice or from nowhere, and each writer's order is kept.

    Args:
        history: what clients have seen.
        present: the tokens that are there in the end, in their order.
    """
    lost = set(history.ok) - set(present)
    assert not lost, f"lost {sorted(lost)}; {history}"
    twice = {token for token in present if present.count(token) > 1} if len(set(present)) != len(present) else set()
    assert not twice, f"there twice: {sorted(twice)}; {history}"
    strange = set(present) - set(history.invoked)
    assert not strange, f"written by nobody: {sorted(strange)}; {history}"
    last = {}
    for token in present:
        writer, number = writer_of(token)
        assert number > last.get(writer, -1), f"{token} stands behind {writer}-{last[writer]}; {history}"
        last[writer] = number


def check_commits(commits, fences, history):
    """No session's log forks, has gaps, or has a row that a node wrote after it was fenced.

    Args:
        commits: (place in the order of the database, session, number of the row, node).
        fences: by node, its place in that order.
        history: for messages.
    """
    ends = {}
    for place, session, seq, node in sorted(commits):
        assert seq == ends.get(session, seq - 1) + 1, f"row {seq} of {session} follows {ends[session]}; {history}"
        ends[session] = seq
        assert place < fences.get(node, place + 1), f"node {node} wrote row {seq} after it was fenced; {history}"


def check_owners(commits, history):
    """One owner at a time: a node that another one wrote after never writes in that session again.

    Where nodes neither hand over nor free a session of which they go on to live, as in this harness.
    """
    before = {}
    for _, session, seq, node in sorted(commits):
        nodes = before.setdefault(session, [])
        if not nodes or nodes[-1] != node:
            assert node not in nodes, f"node {node} wrote row {seq} of {session} after another one; {history}"
            nodes.append(node)


def check_runs(runs, history):
    """A run's epoch only grows, and how it ended stays.

    Args:
        runs: (place in the order of the database, session, run, epoch, status).
        history: for messages.
    """
    last = {}
    for _, session, run, epoch, status in sorted(runs):
        before, was = last.get((session, run), (0, ""))
        assert epoch >= before, f"{run} went back to epoch {epoch}; {history}"
        assert was not in TERMINAL_STATUSES or status == was, f"{run} was {was}, and then {status}; {history}"
        last[session, run] = epoch, status
