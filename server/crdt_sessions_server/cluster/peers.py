"""Requests from this node to others."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any

import httpx

from crdt_sessions.clock import Clock
from crdt_sessions.errors import NodeRefused, NodeUnreachable
from crdt_sessions.storage.peers import Peer
from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.cluster.hop import HEADER, Hop, Request
from crdt_sessions_server.cluster.inner_door import CALLS, MISDIRECTED, OWNER

_CONNECT_S = 2.0
_NO_POOL = httpx.Limits(max_connections=None, max_keepalive_connections=0)


class Peers:
    """The other nodes, as this one asks them.

    Args:
        living: returns those that live.
        secret: that the nodes share.
        clock: the only source of time.
    """

    def __init__(self, living: Callable[[], Sequence[Peer]], secret: bytes, clock: Clock) -> None:
        self._living = living
        self._secret = secret
        self._clock = clock
        self._transports: dict[
            str, httpx.AsyncHTTPTransport
        ] = {}  # one for each socket in the file system, and TCP's

    @property
    def living(self) -> list[Peer]:
        """The other nodes that can be asked."""
        return [peer for peer in self._living() if peer.address]

    def find(self, node: int) -> Peer | None:
        """Return another node that can be asked; None if it cannot, or is none."""
        return next((peer for peer in self.living if peer.node == node), None)

    async def call(self, peer: Peer, what: str, asked: Any = None, *, patience_s: float = 5.0) -> Any:
        """Ask another node; return its answer. Both are JSON.

        Args:
            peer: which.
            what: the name under which that one's :meth:`InnerDoor.answer` has it.
            asked: what it is told.
            patience_s: how long its answer may take.

        Raises:
            NodeUnreachable: it does not answer.
            NodeRefused: it answers with an error.
        """
        body = json.dumps(asked).encode()
        headers = [(b"host", b"node"), (b"content-length", str(len(body)).encode())]
        response = await self.send(
            peer, Hop(peer.node), Request("POST", CALLS + what), headers, _once(body), patience_s=patience_s
        )
        try:
            said = json.loads(await response.aread())
        except (httpx.TransportError, ValueError) as error:
            raise NodeUnreachable(node=peer.node, why=str(error) or type(error).__name__) from error
        finally:
            await response.aclose()
        if response.status_code != 200:
            raise NodeRefused(node=peer.node, error=str(said.get("error")), detail=str(said.get("detail")))
        return said

    async def send(
        self,
        peer: Peer,
        hop: Hop,
        request: Request,
        headers: Sequence[tuple[bytes, bytes]],
        body: AsyncIterable[bytes] | None,
        *,
        patience_s: float | None = None,
    ) -> httpx.Response:
        """Pass a request on; return the response, of which the body is still to come, and which must be closed.

        Args:
            peer: to which node.
            hop: who asks.
            request: what.
            headers: of the request, without those of one connection.
            body: None if there is none.
            patience_s: how long the other node may be silent; for ever, if None.

        Raises:
            NodeUnreachable: the other node does not answer, or says that it is another one.
        """
        address = Address.parse(peer.address)
        outgoing = httpx.Request(
            request.method,
            "http://node/" if address.path else f"http://{address}/",
            headers=[*headers, (b"connection", b"close"), self.signed(hop, request)],
            content=body,
            extensions={
                "target": request.target,
                "timeout": {"connect": _CONNECT_S, "read": patience_s, "write": patience_s, "pool": None},
            },
        )
        try:
            response = await self._transport(address.path).handle_async_request(outgoing)
        except httpx.TransportError as error:
            refused = isinstance(error, httpx.ConnectError)
            raise NodeUnreachable(node=peer.node, why=str(error) or type(error).__name__, refused=refused) from error
        if response.status_code == MISDIRECTED and OWNER not in response.headers:
            await response.aclose()
            raise NodeUnreachable(node=peer.node, why="another process listens there", refused=True)
        response.request = outgoing
        return response

    def signed(self, hop: Hop, request: Request) -> tuple[bytes, bytes]:
        """Return the header that has another node believe a request."""
        return HEADER.encode(), hop.sign(self._secret, request, self._clock.now()).encode()

    async def close(self) -> None:
        """Ask nobody any more."""
        transports, self._transports = self._transports, {}
        for each in transports.values():
            await each.aclose()

    def _transport(self, path: str) -> httpx.AsyncHTTPTransport:
        """Return what connects anew each time: a connection that is kept may be one to a node that died."""
        if path not in self._transports:
            self._transports[path] = httpx.AsyncHTTPTransport(uds=path or None, trust_env=False, limits=_NO_POOL)
        return self._transports[path]


async def _once(body: bytes) -> Any:
    yield body
