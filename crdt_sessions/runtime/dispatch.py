"""Dispatch: agents ask for work across all sessions, and each queued run is given to one of them.

Who waits is given a run as soon as it is ready; other runs are found in the store. The decision is the steward's, in
the session, and is durable before the claimant hears of it; a claimant that is gone by then loses the lease like any
other that is silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from crdt_sessions.errors import CrdtSessionsError, RunNotClaimable, ShuttingDown, StorageError
from crdt_sessions.ids import SessionId
from crdt_sessions.model import ANY_AGENT
from crdt_sessions.runtime.claimants import Assignment, Claimant
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.runtime.registry import SessionRegistry

_log = logging.getLogger("crdt_sessions.dispatch")
_CANDIDATES = 32
_MOST_UNUSABLE = 1000
"""Runs that could not be claimed of which is remembered that the log has them."""


class Dispatcher:
    """Hands out queued runs.

    Args:
        registry: the sessions.
    """

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._turn = asyncio.Lock()  # one claimant looks at a time: what one takes, the next need not look at
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
    ) -> Assignment | None:
        """Take the oldest run that is ready for one of *agents*, waiting up to *wait_s* seconds for one.

        Args:
            agents: the names the claimant works under; runs for any agent are given to everybody.
            owner: its principal.
            wait_s: how long to wait.
            ttl_s: how long it may be silent before the lease is lost; as the rules say if None.
            worker: the process that asks. A run that it lost by being silent, or gave back, is not given to it
                again in answer to what it asked before.
            tenant: whose sessions are looked at; everybody's if None.
            wants: whether runs of a session are for this claimant.

        Returns:
            the run with its lease, or None if nothing was ready in time.

        Raises:
            StorageError: the store cannot be read.
            ShuttingDown: the process is about to stop.
        """
        claimants, loop = self._registry.claimants, asyncio.get_running_loop()
        until = loop.time() + wait_s
        claimant = Claimant((*agents, ANY_AGENT), owner, ttl_s, worker, self._registry.clock.now(), tenant, wants)
        if new := claimants.note(claimant):
            await self._remember(new, claimant)
        while True:
            if self._registry.stopping:
                raise ShuttingDown
            seen = claimants.ready.count
            async with self._turn:
                claim = await self._take(claimant)
            if claim is not None or loop.time() >= until:
                return claim
            given = await claimants.wait(claimant, seen=seen, until=until)
            if given is not None:
                try:
                    return await self._stored(given)
                except ShuttingDown:
                    raise
                except CrdtSessionsError as error:  # its session failed; others go on
                    _log.error(
                        "not given after all: %s",
                        error,
                        extra={"session": given.session.id, "run": given.run.id},
                    )
            elif loop.time() >= until:
                return None

    async def _remember(self, agents: Sequence[str], claimant: Claimant) -> None:
        """Have agents that are new here remembered, so that it is known of them when they are away."""
        try:
            await self._registry.store.note_agents(claimant.tenant or "", agents, self._registry.clock.now())
        except StorageError as error:  # they get their runs all the same
            _log.warning("agents are not remembered: %s", error)

    async def claim_one(
        self, session_id: SessionId, run_id: str, *, agents: Sequence[str], owner: str, ttl_s: float | None = None
    ) -> Assignment:
        """Take a run that is known by name.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or for another agent.
            SessionNotFound, SessionClosed, StorageError: the session cannot be used.
        """
        return await self._assign(session_id, run_id, Claimant(tuple(agents), owner, ttl_s, None, None))

    async def _assign(self, session_id: SessionId, run_id: str, claimant: Claimant) -> Assignment:
        async with self._registry.open(session_id) as session:
            return await self._stored(session.assign(run_id, claimant))

    async def _stored(self, assignment: Assignment) -> Assignment:
        """Return it once it is durable."""
        session_id, run = assignment.session.id, assignment.run
        async with self._registry.open(session_id) as session:
            await session.durable()
            facts = {"session": session_id, "run": run.id, "agent": run.agent, "attempt": run.attempt}
            facts["principal"] = run.lease.owner if run.lease is not None else ""
            _log.info("run begins" if run.epoch == 1 else "run goes on", extra=facts)
            return assignment

    async def _candidates(self, claimant: Claimant) -> list[tuple[SessionId, str]]:
        """Return the oldest runs for a claimant; more are looked at if those of others stand before them."""
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
                continue  # decided since it was read
            except ShuttingDown:
                raise
            except CrdtSessionsError as error:  # its session cannot be used now; others go on
                if (session_id, run_id) not in self._unusable:
                    self._unusable.remember((session_id, run_id), None)
                    _log.error("cannot be claimed: %s", error, extra={"session": session_id, "run": run_id})
        return None
