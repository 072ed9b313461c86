"""HTTP requests for sessions of other nodes: passed on as they come, and the answers as they come."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable
from typing import TypeVar

import httpx
from quart import Response

from crdt_sessions.errors import NodeUnreachable
from crdt_sessions.ids import SessionId
from crdt_sessions.storage.peers import Peer
from crdt_sessions_server.asgi import Scope
from crdt_sessions_server.cluster.hop import HEADER, Hop, Request
from crdt_sessions_server.cluster.inner_door import MISDIRECTED
from crdt_sessions_server.cluster.peers import Peers
from crdt_sessions_server.cluster.router import Moved, Router

_KEPT_BYTES = 64 * 1024
"""So much of a body is kept, to be sent again to whom the session has moved."""
OF_CONNECTION = {
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect",
}  # fmt: skip
"""Headers of one connection (RFC 9110, section 7.6.1), which are not passed on."""
_OF_CLIENT = {b"x-forwarded-for", b"x-forwarded-proto", HEADER.encode()}
"""What they say stands in the hop."""
_OF_PAGES = b"access-control-"
_ADDED = {(b"vary", b"Origin")}
_OF_SERVER = {b"date", b"server"}
"""Headers that the node adds to which the client came."""
Result = TypeVar("Result")


class Forwarder:
    """Passes requests on.

    Args:
        router: knows where to.
        peers: carry them.
        passed: counts them.
    """

    def __init__(self, router: Router, peers: Peers, passed: Counter[str]) -> None:
        self._passed = passed
        self._router = router
        self._peers = peers

    async def forward(
        self, session: SessionId, scope: Scope, client: str, scheme: str, body: AsyncIterable[bytes] | None
    ) -> Response | None:
        """Return the answer of the node that has a session; None if that is this one.

        Args:
            session: which.
            scope: the request.
            client: the address of who made it.
            scheme: by which they know the service.
            body: of the request; None if it has none.

        Raises:
            NodeUnreachable, HeldElsewhere, StorageError: see :meth:`Router.at_owner`.
        """
        kept = Kept(body) if body is not None else None

        async def send(peer: Peer) -> Response:
            return await self.send(peer, scope, client, scheme, kept)

        answer = await self._router.at_owner(session, send, fresh=False)
        if answer is None and kept is not None and kept.begun:  # there is nothing left to be read here
            raise NodeUnreachable(node=0, why="the session moved while it was asked")
        return answer

    async def send(self, peer: Peer, scope: Scope, client: str, scheme: str, body: Kept | None) -> Response:
        """Return the answer of a node.

        Args:
            peer: which.
            scope: the request.
            client: the address of who made it.
            scheme: by which they know the service.
            body: of the request; None if it has none.

        Raises:
            NodeUnreachable: it does not answer.
            Moved: it does not serve this, and can be asked for nothing more.
        """
        headers = [
            (name, value) for name, value in scope["headers"] if name.lower() not in OF_CONNECTION | _OF_CLIENT
        ]
        if body is not None and not any(name.lower() == b"content-length" for name, _ in headers):
            headers.append((b"transfer-encoding", b"chunked"))
        exchange = _Exchange(self._router, peer)
        pieces = body.pieces() if body is not None else None
        sending = self._peers.send(peer, Hop(peer.node, client, scheme), Request.of(scope), headers, pieces)
        response = await exchange.unless_gone(sending)
        self._passed["request"] += 1
        if response.status_code == MISDIRECTED:
            await response.aclose()
            if body is None or body.whole:
                raise Moved
            raise NodeUnreachable(node=peer.node, why="the session moved while it was asked")
        return _answer(response, exchange)


class Kept:
    """A body of which the beginning can be read again."""

    def __init__(self, source: AsyncIterable[bytes]) -> None:
        self._source = source
        self._kept: list[bytes] = []
        self._size = 0

    @property
    def begun(self) -> bool:
        """Whether something was read."""
        return self._size > 0

    @property
    def whole(self) -> bool:
        """Whether all that was read is kept."""
        return self._size <= _KEPT_BYTES

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the whole body; what was read before, too."""
        for piece in list(self._kept):
            yield piece
        async for piece in self._source:
            self._size += len(piece)
            if self.whole:
                self._kept.append(piece)
            yield piece


class _Exchange:
    """A request that a node is asked, which ends if it is gone."""

    def __init__(self, router: Router, peer: Peer) -> None:
        self._router = router
        self._peer = peer

    async def unless_gone(self, waiting: Awaitable[Result]) -> Result:
        """Return what *waiting* brings.

        Raises:
            NodeUnreachable: the node is counted as gone meanwhile.
        """
        task = asyncio.ensure_future(waiting)
        gone = asyncio.Event()
        leaving = asyncio.ensure_future(gone.wait())
        try:
            with self._router.tied(self._peer, gone.set):
                await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise NodeUnreachable(node=self._peer.node, why="it is gone", refused=True)
        finally:
            leaving.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _answer(response: httpx.Response, exchange: _Exchange) -> Response:
    answer = Response(_body(response, exchange), status=response.status_code)
    answer.headers.clear()
    for name, value in response.headers.raw:
        if not _is_added_here(name.lower(), value):
            answer.headers.add(name.decode("latin-1"), value.decode("latin-1"))
    answer.timeout = None
    return answer


def _is_added_here(name: bytes, value: bytes) -> bool:
    """Tell whether this node adds a header itself, or it is of a connection."""
    return name in OF_CONNECTION | _OF_SERVER or name.startswith(_OF_PAGES) or (name, value) in _ADDED


async def _body(response: httpx.Response, exchange: _Exchange) -> AsyncGenerator[bytes, None]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        pieces = aiter(response.stream)
        while True:
            try:
                piece = await exchange.unless_gone(anext(pieces))
            except StopAsyncIteration:
                return
            yield piece
    except (httpx.TransportError, NodeUnreachable) as error:
        raise ConnectionResetError(f"the node that answers has gone: {error}") from error
    finally:
        await response.aclose()
