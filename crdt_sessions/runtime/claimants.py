"""Workers that wait for runs. A ready run is assigned to the longest-waiting one in the same commit that stores it.

Nobody hears of the run or of the assignment before that commit. Workers find all other runs in the store: those that
became ready while no worker waited, and those whose worker went away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from crdt_sessions.errors import RunNotClaimable
from crdt_sessions.ids import Millis, SessionId, tenant_of
from crdt_sessions.model import ANY_AGENT
from crdt_sessions.signals import Signal
from crdt_sessions.storage import SessionRecord
from crdt_sessions.storage.attendance import ALL_TENANTS, Agent
from crdt_sessions.sync import RunRecord, RunSteward, lease_digest

_MOST_SEEN = 4096
"""Number of agents' names that are remembered."""

LONGEST_LEASE_S = 86_400.0
"""A longer silence nobody asks for, in seconds; the rules' own bound (``longest_lease_s``) holds as well."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A worker that asks for runs; for the fields see :meth:`Dispatcher.claim`."""

    agents: tuple[str, ...]
    owner: str
    ttl_s: float | None
    worker: str | None
    asked_at: Millis | None
    tenant: str | None = None
    wants: Callable[[SessionId], bool] = lambda _: True
    children: bool = True

    def asks_for(self, tenant: str, agent: str) -> bool:
        """Tell whether this claimant works as *agent* for a tenant."""
        return agent in self.agents and (self.tenant is None or tenant in (self.tenant, ALL_TENANTS))

    def may_take(self, session: SessionId) -> bool:
        """Tell whether this claimant may take runs of a session."""
        return self.tenant in (None, tenant_of(session)) and self.wants(session)

    def claim(self, runs: RunSteward, run_id: str, token: str, now: Millis) -> RunRecord:
        """Have the steward assign a run to this claimant; *token* will prove the lease.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or not for this claimant.
        """
        return runs.claim(
            run_id,
            agents=[agent for agent in self.agents if agent != ANY_AGENT],
            owner=self.owner,
            digest=lease_digest(token),
            ttl_ms=None if self.ttl_s is None else _milliseconds(self.ttl_s),
            worker=self.worker,
            asked_at=self.asked_at,
            children=self.children,
            now=now,
        )


def _milliseconds(ttl_s: float) -> int:
    """Return how long a lease is to last; this runs in the engine, where an overflow would end the session."""
    return int(max(0.0, min(LONGEST_LEASE_S, ttl_s)) * 1000)  # in this order, what is no number is the longest


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run that was assigned to a claimant."""

    session: SessionRecord
    run: RunRecord
    token: str
    """Proves the lease: on the WebSocket and in every request about the run."""


@dataclass(slots=True, eq=False)
class _Waiting:
    claimant: Claimant
    given: asyncio.Future[Assignment | None]
    assigned: bool = False
    """Whether a run was assigned, of which it hears once that is stored."""

    @property
    def free(self) -> bool:
        return not (self.assigned or self.given.done())

    def look_again(self) -> None:
        if self.free:
            self.given.set_result(None)


class Offered:
    """A run that was assigned to one who waits."""

    def __init__(self, assignment: Assignment, waiting: _Waiting) -> None:
        self.assignment = assignment
        self._waiting = waiting

    def hand_over(self, *, stored: bool) -> None:
        """Give it to whoever waits, unless they are gone; if it will not be *stored*, have them look again."""
        if not self._waiting.given.done():
            self._waiting.given.set_result(self.assignment if stored else None)


class Claimants:
    """The workers that wait, in the order in which they came."""

    def __init__(self) -> None:
        self.readied = 0
        """How often those who wait were told to look into the store."""
        self.waiting = Signal()
        """Notified when somebody begins to wait."""
        self.elsewhere: Mapping[Agent, bool] = {}
        """Agents in other processes, and whether they wait there; as was heard last."""
        self.on_unclaimed: Callable[[SessionId, str], None] = lambda session, agent: None
        """Told of a run that is ready, of its session and agent, if nobody here waits for it."""
        self._waiting: dict[_Waiting, None] = {}
        self._seen: dict[tuple[str | None, str], None] = {}

    def note(self, claimant: Claimant) -> list[str]:
        """Remember the names under which a claimant asks for runs; return those that were not known."""
        new = [
            agent for agent in claimant.agents if agent != ANY_AGENT and (claimant.tenant, agent) not in self._seen
        ]
        for agent in claimant.agents:
            self._seen.pop((claimant.tenant, agent), None)
            self._seen[claimant.tenant, agent] = None
        while len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        return new

    def agents(self, tenant: str) -> list[str]:
        """Return the names of agents that have asked for a tenant's runs lately, since the process began."""
        return sorted(agent for asked, agent in self._seen if asked in (None, tenant) and agent != ANY_AGENT)

    def waits(self, tenant: str, agent: str) -> bool:
        """Whether a worker of *agent* waits here for a tenant's runs now; ``*`` asks for workers of any agent."""
        return any(each.claimant.asks_for(tenant, agent) for each in self._waiting if not each.assigned)

    def is_elsewhere(self, tenant: str, agent: str) -> bool:
        """Whether a worker of *agent* waits for a tenant's runs, or works on one, in another process."""
        return (tenant, agent) in self.elsewhere or (ALL_TENANTS, agent) in self.elsewhere

    def agents_waiting(self) -> set[Agent]:
        """Return the agents that wait here now, by tenant."""
        return {
            (ALL_TENANTS if each.claimant.tenant is None else each.claimant.tenant, agent)
            for each in self._waiting
            if not each.assigned
            for agent in each.claimant.agents
        }

    async def somebody_came(self, seen: int) -> None:
        """Return once somebody has begun to wait since the count of :attr:`waiting` was *seen*."""
        await self.waiting.wait_for(lambda: self.waiting.count > seen)

    def announce(self, session: SessionId, agents: Iterable[str]) -> None:
        """Tell of runs of a session that are ready, for *agents*, and were not assigned to anybody."""
        self.look_again()
        for agent in agents:
            if not self.waits(tenant_of(session), agent):
                self.on_unclaimed(session, agent)

    def look_again(self) -> None:
        """Have all who wait look into the store."""
        self.readied += 1
        for each in self._waiting:
            each.look_again()

    def wake(self, tenant: str, agent: str) -> None:
        """Have one who waits look into the store: there is a run for *agent*. It stands behind the others then.

        Args:
            tenant: whose run it is; :data:`ALL_TENANTS` for whosesoever.
            agent: whom it is for.
        """
        for each in self._waiting:
            if each.free and each.claimant.asks_for(tenant, agent):
                each.look_again()
                return

    async def wait(self, claimant: Claimant, *, seen: int, until: float) -> Assignment | None:
        """Return a run once it is stored that it is the claimant's; None if the time is over, or to look again.

        It may take longer than *until* if a run was assigned and is not stored yet.

        Args:
            claimant: who waits.
            seen: the count :attr:`readied` when the store was last asked.
            until: when to give up, in the event loop's time.
        """
        if self.readied != seen:
            return None
        loop = asyncio.get_running_loop()
        waiting = _Waiting(claimant, loop.create_future())
        self._waiting[waiting] = None
        self.waiting.notify_all()
        patience = loop.call_at(until, waiting.look_again)
        try:
            return await waiting.given
        finally:
            patience.cancel()
            del self._waiting[waiting]

    def offer(self, session: SessionId, assign: Callable[[Claimant], Assignment]) -> Offered | None:
        """Assign a run to the longest-waiting claimant that may take it; None if there is none.

        The caller must hand it over once it is known whether it is stored.

        Args:
            session: the run's session.
            assign: assigns the run to a claimant, or raises :class:`RunNotClaimable`.
        """
        for each in self._waiting:
            if each.free and each.claimant.may_take(session):
                try:
                    assignment = assign(each.claimant)
                except RunNotClaimable:
                    continue
                each.assigned = True
                return Offered(assignment, each)
        return None
