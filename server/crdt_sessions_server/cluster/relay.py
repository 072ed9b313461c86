"""WebSockets of sessions of other nodes where a connection cannot be spliced: passed on message by message.

That is so where Hypercorn has the client's socket (HTTP/2), and where one socket carries what belongs to many
sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from crdt_sessions.errors import NodeUnreachable
from crdt_sessions.runtime import Channel
from crdt_sessions.storage.peers import Peer
from crdt_sessions.wire import Closing
from crdt_sessions.wire.closing import NORMAL
from crdt_sessions_server.asgi import Scope, header
from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.cluster.hop import Hop, Request
from crdt_sessions_server.cluster.peers import Peers
from crdt_sessions_server.cluster.splice import OF_HANDSHAKE

_ANSWER_S = 5.0
_BROKEN = 1006
_NO_CODE = 1005
_MADE_ANEW = {b"host", b"sec-websocket-protocol"}
GONE = Closing(1012, "the node that served this has gone; come back")


class Relay:
    """A WebSocket to the node that serves a session.

    Args:
        socket: is open.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def send(self, message: bytes | str) -> None:
        """Send a message; wait while the node does not read. To one that has gone nothing is sent."""
        with suppress(ConnectionClosed):
            await self._socket.send(message)

    async def messages(self) -> AsyncIterator[bytes | str]:
        """Yield what comes until the node hangs up."""
        with suppress(ConnectionClosed):
            async for message in self._socket:
                yield message

    @property
    def closing(self) -> Closing:
        """How the node closed it."""
        code = self._socket.close_code
        if code is None or code == _BROKEN:
            return GONE
        return NORMAL if code == _NO_CODE else Closing(code, self._socket.close_reason or "")

    def break_off(self) -> None:
        """Drop it: the node is gone."""
        self._socket.transport.abort()


@asynccontextmanager
async def relayed(peers: Peers, peer: Peer, hop: Hop, scope: Scope) -> AsyncIterator[Relay]:
    """Open a WebSocket to a node as the client did that *scope* describes.

    Raises:
        NodeUnreachable: it does not answer, or refuses.
    """
    asked, address = Request.of(scope), Address.parse(peer.address)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in (
            *(each for each in scope["headers"] if each[0].lower() not in OF_HANDSHAKE | _MADE_ANEW),
            peers.signed(hop, asked),
        )
    ]
    uri = f"ws://{header(scope, b'host') or 'node'}{asked.target.decode('latin-1')}"
    options: dict[str, Any] = {
        "additional_headers": headers,
        "subprotocols": [Subprotocol(each) for each in scope.get("subprotocols", ())] or None,
        "compression": None,
        "max_size": None,
        "ping_interval": None,
        "user_agent_header": None,
        "open_timeout": _ANSWER_S,
    }
    try:
        if address.path:
            socket = await unix_connect(address.path, uri, **options)
        else:
            socket = await connect(uri, host=address.host, port=address.port, proxy=None, **options)
    except (OSError, TimeoutError, WebSocketException) as error:
        refused = isinstance(error, ConnectionRefusedError | FileNotFoundError)
        raise NodeUnreachable(node=peer.node, why=str(error) or "no answer", refused=refused) from error
    try:
        yield Relay(socket)
    finally:
        await socket.close()


async def pump(channel: Channel, relay: Relay) -> Closing:
    """Pass on what comes on either side until one ends; return how the client's is to be closed."""

    async def to_node() -> None:
        with suppress(ConnectionError):
            async for message in channel:
                await relay.send(message)

    async def to_client() -> None:
        async for message in relay.messages():
            await channel.send(message if isinstance(message, bytes) else message.encode())

    tasks = [asyncio.create_task(to_node()), asyncio.create_task(to_client())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return NORMAL if tasks[0].done() else relay.closing
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
