"""This node and the others, as the service uses them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from quart import Response

from crdt_sessions import failpoints
from crdt_sessions.errors import HeldElsewhere, NodeRefused, NodeUnreachable
from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import Channel, SessionRegistry, Transport
from crdt_sessions.storage.peers import Peer
from crdt_sessions.wire import Closing
from crdt_sessions.wire.closing import NORMAL
from crdt_sessions_server.asgi import App, Scope
from crdt_sessions_server.auth import Admission
from crdt_sessions_server.cluster.forward import Forwarder, Kept
from crdt_sessions_server.cluster.hop import Hop, passed_on
from crdt_sessions_server.cluster.inner_door import MISDIRECTED, OWNER, InnerDoor
from crdt_sessions_server.cluster.peers import Peers
from crdt_sessions_server.cluster.relay import Relay, pump, relayed
from crdt_sessions_server.cluster.router import Moved, Router
from crdt_sessions_server.cluster.splice import Splice, UndecidedConnection, dial
from crdt_sessions_server.http.errands import Errands
from crdt_sessions_server.http.request_forwarding import Traffic
from crdt_sessions_server.serving.websocket import SocketConnection

if TYPE_CHECKING:
    from crdt_sessions.storage.postgres import PostgresStore

Result = TypeVar("Result")
_ERRAND = "errand"
_ERRAND_S = 30.0
"""How long an owner may take to load a session, and to do something with it."""
_ASKED_S = 1.0
"""How long another node may think about whether it reaches the database."""


class Cluster:
    """This node and the others.

    Args:
        app: the service.
        store: knows the nodes, and who owns sessions.
        registry: the sessions of this node.
        admission: knows from where requests come.
        secret: that the nodes share.
        handovers_per_s: so many sessions are handed over in a second when this node stops.
    """

    def __init__(
        self,
        app: App,
        store: PostgresStore,
        registry: SessionRegistry,
        admission: Admission,
        secret: bytes,
        handovers_per_s: float,
    ) -> None:
        self._nodes = nodes = store.nodes
        self._registry = registry
        self._handovers_per_s = handovers_per_s
        self._admission = admission
        self.traffic = Traffic()
        """What was passed on to the others."""
        self.peers = Peers(lambda: nodes.others, secret, registry.clock)
        """The other nodes, to be asked."""
        self.door = InnerDoor(app, secret, lambda: nodes.me, registry.clock)
        """Where the others ask this one."""
        self.router = Router(store, nodes.suspect, registry.holds, self._heirs, self.traffic.failed)
        """Knows which node has a session."""
        self._forwarder = Forwarder(self.router, self.peers, self.traffic.passed)
        nodes.on_look = self.router.seen
        nodes.is_cut_off = self._is_cut_off
        self.door.answer("database", self._reaches_database)

    def connection(self, transport: asyncio.Transport, max_message_bytes: int, *, text: bool) -> SocketConnection:
        """Return the connection of a client whose request was accepted."""
        return UndecidedConnection(transport, max_message_bytes, text=text, may_tell=self.may_tell)

    def may_tell(self) -> bool:
        """Tell whether this node may tell clients what it has: whether nobody can have counted it as gone."""
        return self._nodes.serves

    async def drain(self) -> None:
        """Hand all sessions over to other nodes, if there are any; then let clients of other nodes go.

        Raises:
            StorageError: the others cannot be told.
        """
        if not any(not peer.draining for peer in self.peers.living):
            return
        await self._nodes.drain()
        await self._registry.hand_over(self._handovers_per_s)
        await self.router.break_off_all(self._handovers_per_s)

    def _heirs(self) -> list[Peer]:
        return [peer for peer in self.peers.living if not peer.draining] if self._nodes.draining else []

    async def _reaches_database(self, _: object) -> bool:
        return self._nodes.reaches

    async def _is_cut_off(self) -> bool:
        """Tell whether another node reaches the database."""

        async def asked(peer: Peer) -> bool:
            try:
                return bool(await self.peers.call(peer, "database", patience_s=_ASKED_S))
            except (NodeUnreachable, NodeRefused):
                return False

        return any(await asyncio.gather(*map(asked, self.peers.living)))

    # -- errands ---------------------------------------------------------------------------------------------------

    async def carry(self, name: str, session: SessionId, asked: Any) -> dict[str, Any] | None:
        """See :meth:`crdt_sessions_server.http.errands.Messenger.carry`."""

        async def send(peer: Peer) -> dict[str, Any]:
            self.traffic.passed["errand"] += 1
            errand = {"name": name, "session": session, "asked": asked}
            try:
                return dict(await self.peers.call(peer, _ERRAND, errand, patience_s=_ERRAND_S))
            except NodeRefused as error:
                if error.error == HeldElsewhere.__name__:
                    raise Moved from error
                raise

        return await self.router.at_owner(session, send, fresh=False)

    def do_errands(self, errands: Errands) -> None:
        """Do what other nodes ask to be done with sessions of this one."""

        async def do(errand: dict[str, Any]) -> dict[str, Any]:
            return await errands.here(errand["name"], SessionId(errand["session"]), errand["asked"])

        self.door.answer(_ERRAND, do)

    async def close(self) -> None:
        """Ask nobody any more."""
        await self.peers.close()

    async def answer(self, session: SessionId, scope: Scope, body: AsyncIterable[bytes] | None) -> Response | None:
        """Return the answer of the node that serves a session; None if that is this one.

        A request that another node passed on goes no further: if it should, the answer is 421.

        Raises:
            NodeUnreachable, HeldElsewhere, StorageError: see :meth:`Router.at_owner`.
        """
        if not passed_on(scope):
            client, scheme = self._admission.address(scope), self._admission.scheme(scope)
            return await self._forwarder.forward(session, scope, client, scheme, body)
        owner = await self.router.owner(session)
        if owner is None:
            return None
        return Response("", status=MISDIRECTED, headers={OWNER: str(owner.node)})

    async def serving(self, session: SessionId, scope: Scope) -> int | None:
        """See :meth:`crdt_sessions_server.http.request_forwarding.RequestForwarder.serving`.

        Raises:
            StorageError: it cannot be looked up.
        """
        peer = None if passed_on(scope) else await self.router.owner(session, fresh=False)
        return None if peer is None else peer.node

    @property
    def me(self) -> int:
        """See :attr:`crdt_sessions_server.http.request_forwarding.RequestForwarder.me`."""
        return self._nodes.me

    async def answer_at(self, node: int, scope: Scope, body: AsyncIterable[bytes] | None) -> Response | None:
        """See :meth:`crdt_sessions_server.http.request_forwarding.RequestForwarder.answer_at`.

        Raises:
            NodeUnreachable: it does not answer.
        """
        peer = self.peers.find(node)
        if peer is None or passed_on(scope):
            return None
        client, scheme = self._admission.address(scope), self._admission.scheme(scope)
        return await self._forwarder.send(peer, scope, client, scheme, Kept(body) if body is not None else None)

    async def serve(self, session: SessionId, scope: Scope, channel: Channel | Transport) -> Closing | None:
        """Have a WebSocket served by the node that has the session; return how it ended, None if that is this one.

        Raises:
            NodeUnreachable, HeldElsewhere, StorageError: see :meth:`Router.at_owner`.
        """
        if passed_on(scope):
            return None

        async def carry(peer: Peer) -> Closing:
            if not isinstance(channel, UndecidedConnection):
                async with self.relay(peer, scope) as relay:
                    return await pump(channel, relay)  # type: ignore[arg-type]  # all others are of ASGI
            splice = Splice(channel, await dial(self.peers, peer, self._hop(peer, scope), scope))
            failpoints.reach("spliced")
            with self.router.tied(peer, splice.break_off), self.traffic.socket("socket"):
                await splice.ended()
            return NORMAL

        return await self.router.at_owner(session, carry)

    async def follow(
        self, session: SessionId, scope: Scope, carry: Callable[[Relay], Awaitable[Result]]
    ) -> Result | None:
        """Have *carry* use a WebSocket to the node that has a session, opened as the client did.

        Args:
            session: which.
            scope: how the client opened its own.
            carry: returns what this returns. If this node has the session, that is None.

        Raises:
            NodeUnreachable, HeldElsewhere, StorageError: see :meth:`Router.at_owner`.
        """
        if passed_on(scope):
            return None

        async def follow(peer: Peer) -> Result:
            async with self.relay(peer, scope) as relay:
                return await carry(relay)

        return await self.router.at_owner(session, follow)

    @asynccontextmanager
    async def relay(self, peer: Peer, scope: Scope) -> AsyncIterator[Relay]:
        """Open a WebSocket to a node, as the client did that *scope* describes.

        Raises:
            NodeUnreachable: it does not answer.
        """
        async with relayed(self.peers, peer, self._hop(peer, scope), scope) as relay:
            with self.router.tied(peer, relay.break_off), self.traffic.socket("relay"):
                yield relay

    def _hop(self, peer: Peer, scope: Scope) -> Hop:
        return Hop(peer.node, self._admission.address(scope))
