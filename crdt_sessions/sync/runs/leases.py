"""Leases: who works on a run, whether it is still alive, and what its end leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from crdt_sessions.errors import RunNotClaimable
from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import ANY_AGENT, RunLease
from crdt_sessions.model.parts import StreamState
from crdt_sessions.sync.records import RunRecord
from crdt_sessions.sync.runs.mirror import close_parts
from crdt_sessions.sync.runs.table import RunTable
from crdt_sessions.sync.runs.usage import added_up

_ASLEEP_MS = 2000
"""A pause between two looks at the clock that is longer than this was the server's, not the agents'."""


@dataclass(slots=True)
class _Life:
    """Signs of life of the holder of a lease; not on record, since a restart of ours is not its fault."""

    heard: Millis
    connections: int = 0
    gone: Millis | None = None
    """Since when it has no connection any more."""
    spoke: Millis | None = None
    """When its first words were here."""
    seen: bool = False
    """Whether anything was ever heard of it after the claim."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants a run."""

    agents: list[str]
    """The names that the claimant works under."""
    owner: str
    """Its principal."""
    digest: str
    """Of the token that proves the lease."""
    ttl_ms: int | None = None
    """How long it may be silent; the rules' if None."""
    worker: str | None = None
    """The process that asks, if it says so."""
    asked_at: Millis | None = None
    """Since when it waits for a run; now if None."""
    children: bool = True
    """Whether it knows of child runs, which have a task in place of a question."""


class Leases:
    """The leases of the runs of one session.

    Args:
        table: the runs.
        rules: when agents are given up.
    """

    def __init__(self, table: RunTable, rules: RunRules) -> None:
        self._table = table
        self._rules = rules
        self._lives: dict[str, _Life] = {}
        self._looked: Millis | None = None

    def start(self, now: Millis) -> None:
        """Give the leases of a loaded session their full time again, since the silence was ours."""
        for record in self._table.at_work():
            self._lives[record.id] = _Life(now)

    # -- beginning -----------------------------------------------------------------------------------------------

    def check(self, run_id: str, claim: Claim, now: Millis) -> RunRecord:
        """Return a run that a claimant may have.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or for another agent.
        """
        record = self._table.record(run_id)
        if record is None or record.status != "queued" or not record.ready:
            raise RunNotClaimable(run=run_id, status=record.status if record is not None else "unknown")
        if record.agent != ANY_AGENT and record.agent not in claim.agents:
            raise RunNotClaimable(run=run_id, status=f"for the agent {record.agent}")
        if record.parent is not None and not claim.children:
            raise RunNotClaimable(run=run_id, status="a child run, and the claimant does not say that it takes these")
        left_it = claim.worker is not None and claim.worker == record.left_by
        if left_it and (claim.asked_at or now) <= (record.left_at or 0):
            # It asked before it went silent or gave the run back, and may not be there to hear the answer.
            raise RunNotClaimable(run=run_id, status="left by this worker, which has not asked since")
        return record

    def lend(self, record: RunRecord, claim: Claim, now: Millis) -> RunRecord:
        """Give a run to a claimant."""
        longest, usual = int(self._rules.longest_lease_s * 1000), int(self._rules.lease_s * 1000)
        lease = RunLease(
            owner=claim.owner,
            agent=claim.agents[0] if record.agent == ANY_AGENT else record.agent,
            epoch=record.epoch + 1,
            attempt=record.attempt + 1,
            claimed_at=now,
            ttl=min(claim.ttl_ms or usual, longest),
        )
        self._lives[record.id] = _Life(now)
        return self._table.put(
            record.replace(
                status="running",
                ready=False,
                lease=lease,
                secret=claim.digest,
                worker=claim.worker,
                answered_by=lease.agent,
                epoch=lease.epoch,
                attempt=lease.attempt,
            )
        )

    # -- signs of life -----------------------------------------------------------------------------------------------

    def renew(self, run_id: str, epoch: int, now: Millis) -> None:
        """Note a sign of life of a lease's holder."""
        if (life := self._lives.get(run_id)) is not None and self._table[run_id].epoch == epoch:
            life.heard, life.seen = now, True

    def attached(self, run_id: str, now: Millis) -> None:
        """Note that the holder has a connection."""
        if (life := self._lives.get(run_id)) is not None:
            life.connections += 1
            life.heard, life.gone, life.seen = now, None, True

    def detached(self, run_id: str, epoch: int, now: Millis) -> None:
        """Note that a connection of the holder has ended."""
        life = self._lives.get(run_id)
        if life is not None and self._table[run_id].epoch == epoch:
            life.connections -= 1
            if life.connections == 0:
                life.gone = now

    def silent(self, run_id: str) -> bool:
        """Whether somebody has a lease of a run and has not written a word yet."""
        return (life := self._lives.get(run_id)) is not None and life.spoke is None

    def note_words(self, run_id: str, now: Millis) -> None:
        """Note that the first words of a holder are here."""
        self._lives[run_id].spoke = now

    def spoke(self, run_id: str) -> Millis | None:
        """Return when the first words of the present holder were here."""
        return life.spoke if (life := self._lives.get(run_id)) is not None else None

    def seen(self, run_id: str) -> bool:
        """Whether anything was heard of the present holder after its claim."""
        return self._lives[run_id].seen

    def look(self, now: Millis) -> int:
        """Look at the clock; return how long we slept, in milliseconds: signs of life still wait to be read then."""
        pause = now - self._looked if self._looked is not None else 0
        self._looked = now
        if pause <= _ASLEEP_MS:
            return 0
        for life in self._lives.values():
            life.heard = min(now, Millis(life.heard + pause))
            life.gone = None if life.gone is None else min(now, Millis(life.gone + pause))
        return pause

    def lost(self, record: RunRecord, now: Millis) -> bool:
        """Whether the holder of a run has been silent, or gone, for too long."""
        if record.lease is None:
            return False
        life = self._lives[record.id]
        ends = life.heard + record.lease.ttl
        if life.gone is not None:
            ends = min(ends, life.gone + int(self._rules.gone_grace_s * 1000))
        return now >= ends

    # -- ending --------------------------------------------------------------------------------------------------

    def evict(self, record: RunRecord) -> None:
        """Have the connections of the holder closed, if there is one."""
        if record.lease is not None:
            self._table.decided.evicted.add((record.id, record.epoch))

    def release(self, record: RunRecord, parts: StreamState, now: Millis) -> RunRecord:
        """End the lease, if there is one, and close what its holder left open. It is not put on record yet."""
        if record.lease is None:
            return record
        record = added_up(record, self.spoke(record.id), now)
        self._lives.pop(record.id, None)
        self._table.decided.released.add((record.id, record.epoch))
        self._table.decided.writes.append(close_parts(record.output, parts))
        return record.replace(lease=None, secret=None, worker=None)


def left(record: RunRecord, now: Millis) -> RunRecord:
    """Note which process did not end the run."""
    return record.replace(left_by=record.worker, left_at=now)
