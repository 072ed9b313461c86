"""Dispatch: agents ask for work across all sessions, and each queued run is assigned to one of them.

A claimant that waits gets a run as soon as it is ready; otherwise claimants find runs in the store. The session's
steward decides, and the decision is durable before the claimant hears of it. A claimant that is gone by then loses
the lease like any other silent holder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from crdt_sessions.errors import (
    AllowanceSpent,
    CrdtSessionsError,
    HeldElsewhere,
    RunNotClaimable,
    ShuttingDown,
    StorageError,
)
from crdt_sessions.ids import SessionId
from crdt_sessions.model import ANY_AGENT, RunError
from crdt_sessions.runtime.claimants import Assignment, Claimant
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.runtime.session import Session
from crdt_sessions.sync.runs import begins_anew

_log = logging.getLogger("crdt_sessions.dispatch")
_CANDIDATES = 32
_MOST_UNUSABLE = 1000
"""Number of unusable runs that are remembered, so that each is logged only once."""


class Dispatcher:
    """Hands out queued runs.

    Args:
        registry: the sessions.
    """

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._turn = asyncio.Lock()  # one claimant asks the store at a time, so that two do not try the same runs
        self._unusable: Recent[tuple[SessionId, str], None] = Recent(_MOST_UNUSABLE)

    async def claim(
        self,
        agents: Sequence[str],
        *,
        owner: str,
        wait_s: float = 0.0,
        ttl_s: float | None = None,
        worker: str | None = None,
        tenant: str | None = None,
        wants: Callable[[SessionId], bool] = lambda _: True,
        children: bool = True,
    ) -> Assignment | None:
        """Take the oldest run that is ready for one of *agents*, waiting up to *wait_s* seconds for one.

        Args:
            agents: the names that the claimant works under; runs for any agent go to every claimant.
            owner: the claimant's principal.
            wait_s: how long to wait.
            ttl_s: how long the claimant may be silent before it loses the lease; None for the default.
            worker: the process that asks. If it loses a run by silence, or gives it back, an earlier request of the
                same process does not get that run again.
            tenant: the tenant whose sessions are searched; all tenants if None.
            wants: tells whether the claimant takes runs of a session.
            children: whether it takes child runs, too.

        Returns:
            the run with its lease, or None if no run was ready in time.

        Raises:
            StorageError: the store cannot be read, and could not be in *wait_s* seconds.
            ShuttingDown: the process is about to stop.
        """
        claimants, loop = self._registry.claimants, asyncio.get_running_loop()
        until = loop.time() + wait_s
        now = self._registry.clock.now()
        claimant = Claimant((*agents, ANY_AGENT), owner, ttl_s, worker, now, tenant, wants, children)
        if new := claimants.note(claimant):
            await self._remember(new, claimant)

        async def take() -> Assignment | None:
            async with self._turn:
                return await self._take(claimant)

        while True:
            if self._registry.stopping:
                raise ShuttingDown
            seen = claimants.readied
            claim = await self._registry.health.outlast(take, until - loop.time())
            if claim is not None or loop.time() >= until:
                return claim
            given = await claimants.wait(claimant, seen=seen, until=until)
            if given is not None:
                _begins(given)
                return given
            if loop.time() >= until:
                return None

    async def _remember(self, agents: Sequence[str], claimant: Claimant) -> None:
        """Store the names of new agents, so that they are known while they are away."""
        try:
            await self._registry.store.note_agents(claimant.tenant or "", agents, self._registry.clock.now())
        except StorageError as error:  # they get their runs anyway
            _log.warning("names of agents could not be stored: %s", error)

    async def claim_one(
        self,
        session_id: SessionId,
        run_id: str,
        *,
        agents: Sequence[str],
        owner: str,
        ttl_s: float | None = None,
        children: bool = True,
    ) -> Assignment:
        """Take the run with this id. Arguments as of :meth:`claim`.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or for another agent.
            SessionNotFound, SessionClosed, StorageError: the session cannot be used.
        """
        return await self._assign(
            session_id, run_id, Claimant(tuple(agents), owner, ttl_s, None, None, children=children)
        )

    async def assign_here(self, session_id: SessionId, run_id: str, claimant: Claimant) -> Assignment:
        """Assign a run of a session of this node to a claimant; return once that is durable.

        Raises as :meth:`claim_one`.
        """
        async with self._registry.open(session_id) as session:
            await self._check_allowance(session, run_id)
            return await self._stored(session.assign(run_id, claimant))

    async def _assign(self, session_id: SessionId, run_id: str, claimant: Claimant) -> Assignment:
        try:
            return await self.assign_here(session_id, run_id, claimant)
        except HeldElsewhere as error:
            elsewhere = self._registry.lookout.elsewhere
            if elsewhere is None:
                raise
            return await elsewhere.claim(error.node, session_id, run_id, claimant)

    async def _check_allowance(self, session: Session, run_id: str) -> None:
        """Return if a run may begin, or goes on; else it is settled as failed.

        Raises:
            RunNotClaimable: it may not.
        """
        run = session.engine.runs.table.record(run_id)
        if not self._registry.allowances.limited or run is None or not begins_anew(run):
            return
        try:
            await session.check_allowance(run.request.by if run.request is not None else None)
        except AllowanceSpent as error:
            refusal = RunError(code="allowance-spent", message=str(error))
            session.decide(lambda runs, now: runs.refuse(run_id, refusal, now))
            await session.durable()
            raise RunNotClaimable(run=run_id, status="the day's allowance is used") from error

    async def _stored(self, assignment: Assignment) -> Assignment:
        """Return the assignment once it is durable."""
        async with self._registry.open(assignment.session.id) as session:
            await session.durable()
            _begins(assignment)
            return assignment

    async def _candidates(self, claimant: Claimant) -> list[tuple[SessionId, str]]:
        """Return the oldest runs that a claimant wants; read further if runs that it does not want come first."""
        limit = _CANDIDATES
        while True:
            ready = await self._registry.store.ready_runs(claimant.agents, limit=limit, tenant=claimant.tenant)
            wanted = [each for each in ready if claimant.wants(each[0])]
            if wanted or len(ready) < limit:
                return wanted[:_CANDIDATES]
            limit *= 8

    async def _take(self, claimant: Claimant) -> Assignment | None:
        for session_id, run_id in await self._candidates(claimant):
            try:
                return await self._assign(session_id, run_id, claimant)
            except RunNotClaimable:
                continue  # it was claimed, or ended, since it was read
            except ShuttingDown:
                raise
            except CrdtSessionsError as error:  # its session cannot be used now; others go on
                if (session_id, run_id) not in self._unusable:
                    self._unusable.remember((session_id, run_id), None)
                    _log.error("the run cannot be claimed: %s", error, extra={"session": session_id, "run": run_id})
        return None


def _begins(assignment: Assignment) -> None:
    run = assignment.run
    facts = {"session": assignment.session.id, "run": run.id, "agent": run.agent, "attempt": run.attempt}
    facts["principal"] = run.lease.owner if run.lease is not None else ""
    _log.info("run begins" if run.epoch == 1 else "run goes on", extra=facts)
