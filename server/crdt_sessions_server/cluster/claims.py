"""Runs for agents that wait at another node than the one that has the session."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from crdt_sessions.errors import HeldElsewhere, NodeRefused, RunNotClaimable
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import Assignment, Claimant, Dispatcher, SessionRegistry
from crdt_sessions.storage import SessionRecord
from crdt_sessions.sync import RunRecord
from crdt_sessions_server.cluster.inner_door import InnerDoor
from crdt_sessions_server.cluster.peers import Peers

_CLAIM, _READY = "claim", "ready"
_ASSIGN_S = 15.0
"""How long an owner may take to load a session and to store a claim."""


class ClaimsElsewhere:
    """Asks other nodes for runs, tells them of runs, and answers both.

    Args:
        registry: the sessions here.
        peers: the other nodes.
        door: where they ask this one.
    """

    def __init__(self, registry: SessionRegistry, peers: Peers, door: InnerDoor) -> None:
        self._registry = registry
        self._peers = peers
        self._dispatcher = Dispatcher(registry)
        registry.lookout.elsewhere = self
        door.answer(_CLAIM, self._claimed)
        door.answer(_READY, self._told)

    async def claim(self, node: int, session: SessionId, run: str, claimant: Claimant) -> Assignment:
        """Have another node assign a run; see :class:`crdt_sessions.runtime.lookout.OtherProcesses`."""
        peer = self._peers.find(node)
        if peer is None:
            raise HeldElsewhere(session=session, node=node)
        asked = {
            "session": session,
            "run": run,
            "agents": claimant.agents,
            "owner": claimant.owner,
            "ttl_s": claimant.ttl_s,
            "worker": claimant.worker,
            "asked_at": claimant.asked_at,
            "children": claimant.children,
        }
        try:
            said = await self._peers.call(peer, _CLAIM, asked, patience_s=_ASSIGN_S)
        except NodeRefused as error:
            if error.error == RunNotClaimable.__name__:
                raise RunNotClaimable(run=run, status=error.detail) from error
            raise
        record = SessionRecord(**said["session"])
        return Assignment(record, RunRecord.model_validate(said["run"]), said["token"])

    async def tell_ready(self, node: int, tenant: str, agent: str) -> None:
        """Tell another node that a run is ready; see :class:`crdt_sessions.runtime.lookout.OtherProcesses`."""
        if (peer := self._peers.find(node)) is not None:
            await self._peers.call(peer, _READY, {"tenant": tenant, "agent": agent})

    async def _claimed(self, asked: dict[str, Any]) -> dict[str, Any]:
        session, run = SessionId(asked.pop("session")), asked.pop("run")
        claimant = Claimant(**{**asked, "agents": tuple(asked["agents"])})
        found = await self._dispatcher.assign_here(session, run, claimant)
        return {
            "session": asdict(found.session),
            "run": found.run.model_dump(mode="json", exclude_none=True),
            "token": found.token,
        }

    async def _told(self, asked: dict[str, Any]) -> None:
        self._registry.claimants.wake(asked["tenant"], asked["agent"])
