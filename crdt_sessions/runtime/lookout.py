"""Agents and runs in several processes of one store: who waits here hears of runs that became ready elsewhere.

What is in the store is the truth: each process asks it once a second whether there is a run for anybody who waits
there. That would do. Beside it, a process in which a run becomes ready and nobody waits for it tells one other at
which somebody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable
from typing import Protocol

from crdt_sessions.errors import NodeRefused, NodeUnreachable, StorageError
from crdt_sessions.ids import SessionId, tenant_of
from crdt_sessions.model import ANY_AGENT
from crdt_sessions.runtime.claimants import Assignment, Claimant, Claimants
from crdt_sessions.runtime.session import Session
from crdt_sessions.storage.attendance import Agent, AttendanceRecords

_log = logging.getLogger("crdt_sessions.dispatch")
_LOOK_S = 1.0
_GATHER_S = 0.02
_STAYS_S = 3.0
"""For how long somebody still counts as waiting: agents ask again when a long poll has ended."""
_TELL_S = 10.0


class OtherProcesses(Protocol):
    """The other processes that serve sessions of the same store."""

    async def claim(self, node: int, session: SessionId, run: str, claimant: Claimant) -> Assignment:
        """Have the owner of a session assign a run to a claimant here; return it once it is durable.

        Raises:
            RunNotClaimable: it is not to be had.
            NodeUnreachable, NodeRefused: it cannot be assigned.
        """
        ...

    async def tell_ready(self, node: int, tenant: str, agent: str) -> None:
        """Tell another process that a run is ready for an agent.

        Raises:
            NodeUnreachable, NodeRefused: it does not listen.
        """
        ...


class Lookout:
    """Looks out for runs in other processes, and for who waits there.

    Args:
        store: says where who waits.
        claimants: who waits here.
        live: returns the sessions in memory here.
        rng: source of jitter.
    """

    def __init__(
        self,
        store: AttendanceRecords,
        claimants: Claimants,
        live: Callable[[], Iterable[Session]],
        rng: random.Random,
    ) -> None:
        self._store = store
        self._claimants = claimants
        self._live = live
        self._rng = rng
        self._stays: dict[Agent, float] = {}
        self._told: tuple[set[Agent], set[Agent]] | None = None
        self._told_at = 0.0
        self._telling: set[asyncio.Task[None]] = set()
        self.elsewhere: OtherProcesses | None = None
        """How other processes are reached; None if they are not."""
        claimants.on_unclaimed = self._unclaimed

    async def run(self) -> None:
        """Look out until cancelled."""
        while True:
            seen = self._claimants.waiting.count
            try:
                await self.look()
            except StorageError as error:
                self._told = None
                _log.error("cannot look for runs elsewhere: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S * self._rng.uniform(0.8, 1.2)):
                    await self._claimants.somebody_came(seen)
                    await asyncio.sleep(_GATHER_S)  # others may come with them

    async def look(self) -> None:
        """Tell who waits here, hear who waits elsewhere, and wake one for whom there is a run.

        Raises:
            StorageError: the store cannot be used.
        """
        now = asyncio.get_running_loop().time()
        self._stays = {agent: until for agent, until in self._stays.items() if until > now}
        self._stays |= dict.fromkeys(self._claimants.agents_waiting(), now + _STAYS_S)
        here = (set(self._stays), set(self._working()))
        if here != self._told or now - self._told_at > _TELL_S:
            await self._store.attend(*here)
            self._told, self._told_at = here, now
        self._claimants.elsewhere = await self._store.attendance()
        if self._stays:
            for tenant, agent in await self._store.wanted():
                self._claimants.wake(tenant, agent)

    def _working(self) -> Iterable[Agent]:
        """Return the agents that have leases of runs here, by tenant; each is some agent, too."""
        for session in self._live():
            if session.failed is None:
                for record in session.engine.runs.table.at_work():
                    if record.lease is not None:
                        yield from ((tenant_of(session.id), name) for name in (record.lease.agent, ANY_AGENT))

    def _unclaimed(self, session: SessionId, agent: str) -> None:
        """Have one other process hear of a run for which nobody waits here."""
        if self.elsewhere is not None:
            task = asyncio.create_task(self._tell(self.elsewhere, tenant_of(session), agent))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, elsewhere: OtherProcesses, tenant: str, agent: str) -> None:
        try:
            node = await self._store.where_waits(tenant, agent)
            if node is not None:
                await elsewhere.tell_ready(node, tenant, agent)
        except (StorageError, NodeRefused, NodeUnreachable) as error:  # they find it in the store
            _log.info("nobody was told of a run: %s", error)
