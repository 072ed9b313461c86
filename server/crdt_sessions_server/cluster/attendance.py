"""People who are connected to another node than the one that would wake them up."""

from __future__ import annotations

import asyncio
from typing import Any

from crdt_sessions.errors import NodeRefused, NodeUnreachable
from crdt_sessions.ids import Millis
from crdt_sessions.runtime import Pushes
from crdt_sessions.storage.peers import Peer
from crdt_sessions_server.cluster.inner_door import InnerDoor
from crdt_sessions_server.cluster.peers import Peers

_THERE = "there"
_PATIENCE_S = 2.0
"""How long a push waits for another node to say whether somebody is there; then they are taken for away."""


class AttendanceElsewhere:
    """Asks other nodes who is there, and answers them.

    Args:
        pushes: whom to wake up here.
        peers: the other nodes.
        door: where they ask this one.
    """

    def __init__(self, pushes: Pushes, peers: Peers, door: InnerDoor) -> None:
        self._pushes = pushes
        self._peers = peers
        pushes.elsewhere = self
        door.answer(_THERE, self._asked)

    async def there_since(self, tenant: str, principal: str, since: Millis) -> bool:
        """See :class:`crdt_sessions.runtime.pushes.ThereElsewhere`."""
        asked = {"tenant": tenant, "principal": principal, "since": since}

        async def says(peer: Peer) -> bool:
            try:
                return bool(await self._peers.call(peer, _THERE, asked, patience_s=_PATIENCE_S))
            except (NodeUnreachable, NodeRefused):  # it is about to be gone, or of an older release
                return False

        return any(await asyncio.gather(*map(says, self._peers.living)))

    async def _asked(self, asked: dict[str, Any]) -> bool:
        return self._pushes.there_since(asked["tenant"], asked["principal"], Millis(asked["since"]))
