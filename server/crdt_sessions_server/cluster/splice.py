"""WebSockets of sessions of other nodes, on sockets of our own: bytes are copied both ways, and no frame is read.

So masks, close codes and frames of our protocol pass as they are, and whoever does not read slows down the other
end: while one side's buffer is full, nothing is read from the other.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Sequence
from typing import cast

from crdt_sessions.errors import NodeUnreachable
from crdt_sessions.runtime import Take
from crdt_sessions.storage.peers import Peer
from crdt_sessions_server.asgi import Scope
from crdt_sessions_server.cluster.addresses import Address
from crdt_sessions_server.cluster.forward import OF_CONNECTION
from crdt_sessions_server.cluster.hop import HEADER, Hop, Request
from crdt_sessions_server.cluster.peers import Peers
from crdt_sessions_server.serving.asgi_channel import HANG_UP_S
from crdt_sessions_server.serving.websocket import SocketConnection

_END = b"\r\n\r\n"
_ANSWER_S = 5.0
_MAX_HEAD = 16 * 1024
OF_HANDSHAKE = {
    *OF_CONNECTION, b"x-forwarded-for", b"x-forwarded-proto", HEADER.encode(), b"content-length",
    b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions",
}  # fmt: skip
"""Headers that a node does not pass on of a request for a WebSocket, or makes anew."""


class UndecidedConnection(SocketConnection):
    """A connection of which is not known yet which node serves it: what comes is kept as it comes.

    It is served here as soon as somebody opens or closes it.

    Args:
        transport: see :class:`SocketConnection`.
        max_message_bytes: likewise.
        text: likewise.
        may_tell: whether this node may tell clients what it has. If not, the connection is dropped instead.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        max_message_bytes: int,
        *,
        text: bool = False,
        may_tell: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(transport, max_message_bytes, text=text)
        self._undecided: list[bytes] | None = []
        self._may_tell = may_tell

    def write(self, messages: Sequence[bytes]) -> None:
        """See :meth:`SocketConnection.write`."""
        if self._may_tell():
            super().write(messages)
        else:
            self.abort()

    def begin(self, response: bytes) -> None:
        """See :meth:`SocketConnection.begin`."""
        super().begin(response)
        self._transport.pause_reading()

    def open(self, on_writable: Callable[[], None], take: Take, patience_s: float) -> None:
        """See :meth:`SocketConnection.open`."""
        super().open(on_writable, take, patience_s)
        self._serve_here()

    async def close(self, code: int, reason: str, hang_up_s: float) -> None:
        """See :meth:`SocketConnection.close`."""
        self._serve_here()
        await super().close(code, reason, hang_up_s)

    def data_received(self, data: bytes) -> None:
        """See :meth:`SocketConnection.data_received`."""
        if self._undecided is None:
            super().data_received(data)
        else:
            self._undecided.append(data)  # the transport is paused, so it is little

    def _serve_here(self) -> None:
        kept, self._undecided = self._undecided, None
        if kept is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            for data in kept:
                super().data_received(data)

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """Return the socket's transport, and what has come on it; both are the caller's from now on."""
        assert self._undecided is not None
        kept, self._undecided = b"".join(self._undecided), []
        return self._transport, kept


class Splice:
    """A client's connection and one to the node that serves it, as one.

    Args:
        client: the client's connection.
        node: the one to the node, as :func:`dial` returns it, and what has come on it.
    """

    def __init__(self, client: UndecidedConnection, node: tuple[asyncio.Transport, bytes]) -> None:
        self._client = client
        outer, to_node = client.hand_over()
        inner, to_client = node
        self._ends = _End(outer), _End(inner)
        self._ends[0].other, self._ends[1].other = inner, outer
        for end in self._ends:
            end.begin()
        self._ends[0].send(to_client)
        self._ends[1].send(to_node)

    async def ended(self) -> None:
        """Return when both connections have ended."""
        await asyncio.wait({end.lost for end in self._ends})
        self._client.connection_lost(None)

    def break_off(self) -> None:
        """Drop both connections: the node is gone, maybe in the middle of a frame."""
        for end in self._ends:
            end.transport.abort()


class _End(asyncio.Protocol):
    """What comes on one connection is written to the other."""

    other: asyncio.Transport

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.lost = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Read what comes, from now on."""
        self.transport.set_protocol(self)
        if self.transport.is_closing():
            self.connection_lost(None)
        else:
            self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Send what came on the other connection."""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if not self.other.is_closing():
            self.other.write(data)

    def pause_writing(self) -> None:
        if not self.other.is_closing():
            self.other.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.is_closing():
            self.other.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.lost.done():
            return
        self.lost.set_result(None)
        if not self.other.is_closing():
            self.other.close()  # behind what is still to be sent
            asyncio.get_running_loop().call_later(HANG_UP_S, self.other.abort)


async def dial(peers: Peers, peer: Peer, hop: Hop, scope: Scope) -> tuple[asyncio.Transport, bytes]:
    """Return a connection to a node on which it has accepted the WebSocket that *scope* asks for.

    Nothing is read from it until somebody resumes that; the bytes are what has come behind the answer.

    Raises:
        NodeUnreachable: it does not answer, or refuses.
    """
    asked, dialled = Request.of(scope), _Handshake()
    try:
        async with asyncio.timeout(_ANSWER_S):
            await Address.parse(peer.address).connect(dialled)
            dialled.ask(_head(asked, scope, peers.signed(hop, asked)))
            head, _, rest = (await dialled.answered).partition(_END)
    except asyncio.CancelledError:
        dialled.abort()
        raise
    except (OSError, TimeoutError) as error:
        dialled.abort()
        refused = isinstance(error, ConnectionRefusedError | FileNotFoundError)
        raise NodeUnreachable(node=peer.node, why=str(error) or "no answer", refused=refused) from error
    status = head.split(b" ", 2)[1:2]
    if status != [b"101"]:  # what the client sends must not be read as a request there
        dialled.abort()
        why = f"it answers {b' '.join(status).decode('latin-1') or 'nothing'}"
        raise NodeUnreachable(node=peer.node, why=why, refused=status == [b"421"])
    assert dialled.transport is not None
    return dialled.transport, rest + dialled.behind()


class _Handshake(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._data = b""
        self._taken = 0
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.answered.done() and (_END in self._data or len(self._data) > _MAX_HEAD):
            if self.transport is not None:
                self.transport.pause_reading()
            self._taken = len(self._data)
            self.answered.set_result(self._data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or ConnectionResetError("it hangs up"))

    def ask(self, head: bytes) -> None:
        assert self.transport is not None
        self.transport.write(head)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        self.answered.cancel()

    def behind(self) -> bytes:
        """Return what has come since the answer was taken."""
        return self._data[self._taken :]


def _head(asked: Request, scope: Scope, signed: tuple[bytes, bytes]) -> bytes:
    headers = [
        *((name, value) for name, value in scope["headers"] if name.lower() not in OF_HANDSHAKE),
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", base64.b64encode(os.urandom(16))),
        signed,
    ]
    lines = [b"GET " + asked.target + b" HTTP/1.1", *(name + b": " + value for name, value in headers), b"", b""]
    return b"\r\n".join(lines)
