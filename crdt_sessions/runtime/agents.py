"""Which agents there are: those that wait for runs, those at work, and those that were here before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from crdt_sessions.errors import AgentAway
from crdt_sessions.ids import SessionId, tenant_of
from crdt_sessions.model import ANY_AGENT, Run
from crdt_sessions.runtime.projector import Projector
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.runtime.session import Session
from crdt_sessions.sync import RunRecord

_LOOK_EVERY_S = 1.0
"""Agents come and go without a change of the session."""


def runs_at_work(registry: SessionRegistry, tenant: str) -> list[tuple[SessionId, RunRecord]]:
    """Return the runs of a tenant that agents have leases of, oldest lease first."""
    found = [
        (session.id, record)
        for session in registry.live
        if session.failed is None and tenant_of(session.id) == tenant
        for record in session.engine.runs.table.at_work()
    ]
    return sorted(found, key=lambda item: item[1].lease.claimed_at if item[1].lease is not None else 0)


async def known_agents(registry: SessionRegistry, tenant: str) -> list[str]:
    """Return the names of the agents that a tenant's users may ask: the one that answers by default stands first.

    Raises:
        StorageError: the store cannot be read.
    """
    default = registry.rules.default_agent
    at_work = {record.lease.agent for _, record in runs_at_work(registry, tenant) if record.lease is not None}
    remembered = await registry.store.agents(tenant)
    names = sorted({*registry.claimants.agents(tenant), *at_work, *remembered} - {default})
    return [name for name in (default, *names) if name and name != ANY_AGENT]


def is_there(
    registry: SessionRegistry, tenant: str, agent: str, at_work: Iterable[tuple[SessionId, RunRecord]] | None = None
) -> bool:
    """Whether an agent waits for runs or works on one right now, in any process; any agent at all for ``*``.

    *at_work* is what :func:`runs_at_work` returns, for those who ask about many agents.
    """
    if registry.claimants.waits(tenant, agent) or registry.claimants.is_elsewhere(tenant, agent):
        return True
    at_work = runs_at_work(registry, tenant) if at_work is None else at_work
    leases = (record.lease for _, record in at_work)
    return any(agent in (ANY_AGENT, lease.agent) for lease in leases if lease is not None)


class AgentWatch:
    """Whether somebody is there to take a run that waits, as those who follow the run are told.

    An agent that asks for work now and then is not away in between, only after a while (``RunRules.agent_wait_s``).

    Args:
        registry: the sessions.
        session: the one that is followed.
    """

    def __init__(self, registry: SessionRegistry, session: Session) -> None:
        self._registry = registry
        self._session = session
        self._since: float | None = None
        self.away = False
        """Whether nobody has been there for a while."""

    async def wait(self, projector: Projector, run_id: str | None) -> bool:
        """Return once there may be something to tell of the session, or of :attr:`away`: whether that has changed.

        Args:
            projector: what is told of the session.
            run_id: the run that is followed, if there is one.

        Raises:
            ShuttingDown, StorageError: the session cannot be followed any more.
        """
        while True:
            waits = self._waiting(run_id)
            was, self.away = self.away, waits is not None and self._missed(waits)
            if was != self.away:
                return True
            if waits is None:
                await projector.wait()
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await projector.wait()
                    return False

    def _waiting(self, run_id: str | None) -> Run | None:
        """Return the run if it waits for an agent, and not for its time."""
        run = self._session.view.runs.value(run_id) if run_id is not None else None
        return run if run is not None and run.status in (None, "queued") and run.due is None else None

    def _missed(self, run: Run) -> bool:
        if is_there(self._registry, tenant_of(self._session.id), run.agent or ANY_AGENT):
            self._since = None
            return False
        now = asyncio.get_running_loop().time()
        self._since = now if self._since is None else self._since
        return now - self._since >= self._registry.rules.agent_wait_s


async def until_taken(registry: SessionRegistry, session: Session, run_id: str, *, or_busy: bool = False) -> None:
    """Return once somebody has taken a run; with *or_busy*, also if its agent is there and does something else.

    Raises:
        AgentAway: the agent was not there for as long as the rules say. The run stays queued.
        ShuttingDown, StorageError: the session cannot be followed any more.
    """
    tenant, wait_s = tenant_of(session.id), registry.rules.agent_wait_s
    projector, loop = (
        Projector(session, wants={("run", run_id)}.__contains__, first=[("run", run_id)], presence=False),
        asyncio.get_running_loop(),
    )
    away_since = loop.time()
    while (run := session.view.runs.find(run_id)).status in (None, "queued"):
        agent, now = run.agent or ANY_AGENT, loop.time()
        if is_there(registry, tenant, agent):
            if or_busy:
                return
            away_since = now
        elif now - away_since >= wait_s:
            raise AgentAway(agent=agent, run=run_id, waited_s=wait_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_LOOK_EVERY_S, away_since + wait_s - now)):
                await projector.wait()
        projector.take()
