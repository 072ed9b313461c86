"""What every connection begins with: its first request decides who serves it.

Each accepted socket has a :class:`Listener` until the head of its first request is there. A plain HTTP/1.1 request
for a WebSocket of an endpoint is answered here, and its socket gets a connection of ours; all other sockets are
handed to Hypercorn, which sees them from their first byte (``docs/decisions/0039-a-listener-of-our-own.md``). HTTP/2,
later requests on a connection, and requests that the ``websockets`` library would refuse are Hypercorn's, too.

A client has some seconds for its head. One that sends nothing, or a byte now and then, holds a socket no longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast
from urllib.parse import unquote

from hypercorn.utils import parse_socket_addr
from websockets.http11 import Request
from websockets.server import ServerProtocol

from crdt_sessions_server.asgi import Scope, websocket_token
from crdt_sessions_server.serving.websocket import SocketConnection

HEAD_PATIENCE_S = 5.0
"""How long a connection may take for the head of its first request; later ones have as long as it may rest."""
_MAX_HEAD = 16 * 1024
"""Bytes of a head that are waited for here; Hypercorn refuses larger ones."""
_END = b"\r\n\r\n"
_SILENT = logging.Logger("handshake", logging.CRITICAL)  # the library logs requests, and tokens are in them

Greet = Callable[[Scope, str | None, SocketConnection], None]
"""Called with a request, the token in it, and the connection on which it was answered; returns at once."""


class Connect(Protocol):
    """Makes the connection of a WebSocket that was accepted."""

    def __call__(self, transport: asyncio.Transport, max_message_bytes: int, *, text: bool) -> SocketConnection:
        """See :class:`SocketConnection`."""
        ...


class Endpoint(NamedTuple):
    """Paths whose WebSockets are served without Hypercorn."""

    prefix: str
    """What the paths begin with."""
    greet: Greet
    accepts: Callable[[Scope], bool] = lambda scope: True
    """Whether a request is answered here; Hypercorn answers the others."""
    text: bool = False
    """Whether messages are text."""


class Behind(Protocol):
    """The listeners' server: serves what they do not, and knows which of them still wait."""

    waiting: set[Listener]
    """Listeners whose first request is not there yet."""

    def serve(self, transport: asyncio.Transport, first: bytes) -> None:
        """Serve a connection of which *first* was read already; return at once."""


class Listener(asyncio.Protocol):
    """An accepted socket, until it is known who serves it.

    Args:
        server: serves all that is no WebSocket of an endpoint.
        endpoints: take these.
        max_message_bytes: larger messages on these are refused.
        connection: makes their connections.
        patience_s: for the head of the first request.
    """

    def __init__(
        self,
        server: Behind,
        endpoints: Sequence[Endpoint],
        max_message_bytes: int,
        connection: Connect = SocketConnection,
        patience_s: float = HEAD_PATIENCE_S,
    ) -> None:
        self._server = server
        self._endpoints = endpoints
        self._max_message_bytes = max_message_bytes
        self._connection = connection
        self._patience = patience_s
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._impatient: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_made`."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self._server.waiting.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._pass_on()
        else:
            self._impatient = asyncio.get_running_loop().call_later(self._patience, self.close)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the head; see to it that the connection is served, once they say by whom."""
        self._head += data
        head = self._head
        if head[:1].isupper() and _END not in head and len(head) <= _MAX_HEAD:
            return  # Hypercorn would wait for the rest for as long as a connection may rest
        endpoint = next((each for each in self._endpoints if head.startswith(_start(each.prefix))), None)
        if endpoint is None:
            self._pass_on()
        else:
            self._answer(endpoint)

    def eof_received(self) -> None:
        """See :meth:`asyncio.Protocol.eof_received`; whoever leaves before the head is there gets no answer."""

    def connection_lost(self, error: Exception | None) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_lost`."""
        self._leave()

    def close(self) -> None:
        """Close the connection: it is not known what its client wants, and it is too late to say so."""
        transport = self._leave()
        if transport is not None:
            transport.abort()

    def _answer(self, endpoint: Endpoint) -> None:
        assert self._transport is not None
        socket = self._transport.get_extra_info("socket")
        try:
            client = parse_socket_addr(socket.family, socket.getpeername())
        except OSError:
            self.close()  # it is gone
            return
        answered = answer(self._head, endpoint.prefix, client)
        if answered is None or not endpoint.accepts(answered.scope):
            self._pass_on()
            return
        transport = self._leave()
        if transport is not None:
            connection = self._connection(transport, self._max_message_bytes, text=endpoint.text)
            connection.begin(answered.response)
            endpoint.greet(answered.scope, answered.token, connection)

    def _pass_on(self) -> None:
        transport = self._leave()
        if transport is not None:
            self._server.serve(transport, self._head)

    def _leave(self) -> asyncio.Transport | None:
        """Return the transport, which is somebody else's from now on."""
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None
        self._server.waiting.discard(self)
        transport, self._transport = self._transport, None
        return transport


def _start(prefix: str) -> bytes:
    return b"GET " + prefix.encode()


class Answered(NamedTuple):
    """A request for a WebSocket that is accepted."""

    scope: Scope
    """As ASGI describes it, as far as the sync endpoint looks at it."""
    token: str | None
    response: bytes


def answer(data: bytes, prefix: str, client: tuple[str, int] | None) -> Answered | None:
    """Answer a request for a WebSocket; return None if it is no such request, or is to be looked at by Hypercorn.

    Source: RFC 6455, section 4.2; the ``websockets`` library is what reads and checks it.

    Args:
        data: all that has come on the connection.
        prefix: of the paths that are answered here.
        client: who has sent it.
    """
    if not (data.isascii() and data.startswith(_start(prefix)) and data.find(_END) == len(data) - len(_END)):
        return None
    protocol = ServerProtocol(logger=_SILENT)
    protocol.receive_data(data)
    request = next(iter(protocol.events_received()), None)
    if not isinstance(request, Request) or not _is_plain(request):
        return None
    response = protocol.accept(request)
    if response.status_code != 101:
        return None
    scope = _scope(request, client)
    token, subprotocol = websocket_token(scope)
    if subprotocol is not None:
        response.headers["Sec-WebSocket-Protocol"] = subprotocol
    return Answered(scope, token, response.serialize())


def _is_plain(request: Request) -> bool:
    """Tell whether it says to which host it goes, and nothing twice."""
    names = [name.lower() for name, _ in request.headers.raw_items()]
    return "host" in names and len(set(names)) == len(names)


def _scope(request: Request, client: tuple[str, int] | None) -> Scope:
    path, _, query = request.path.partition("?")
    headers = [(name.lower().encode(), value.encode()) for name, value in request.headers.raw_items()]
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    return {
        "type": "websocket",
        "path": unquote(path),
        "query_string": query.encode(),
        "headers": headers,
        "client": client,
        "subprotocols": [name.strip() for name in offered.split(",") if name.strip()],
    }
