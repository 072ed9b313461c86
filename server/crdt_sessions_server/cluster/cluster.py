"""This node and the others, as the service uses them: wiring only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from crdt_sessions.clock import Clock
from crdt_sessions.storage.peers import Peer
from crdt_sessions_server.asgi import App
from crdt_sessions_server.cluster.inner_door import InnerDoor
from crdt_sessions_server.cluster.peers import Peers


class Nodes(Protocol):
    """Which nodes live: the store knows."""

    me: int

    @property
    def others(self) -> Sequence[Peer]:
        """The other nodes that live, as far as this one has seen."""
        ...


class Cluster:
    """This node and the others.

    Args:
        app: the service.
        nodes: which there are.
        secret: that they share.
        clock: the only source of time.
    """

    def __init__(self, app: App, nodes: Nodes, secret: bytes, clock: Clock) -> None:
        self.peers = Peers(lambda: nodes.others, secret, clock)
        """The other nodes, to be asked."""
        self.door = InnerDoor(app, secret, lambda: nodes.me, clock)
        """Where the others ask this one."""

    async def close(self) -> None:
        """Ask nobody any more."""
        await self.peers.close()
