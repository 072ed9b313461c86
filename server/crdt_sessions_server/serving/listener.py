"""The WebSocket handshake of the sync endpoint, without Hypercorn in between.

For a connection that is taken over right afterwards, the way of its request through Hypercorn (several tasks, h11,
wsproto, an ASGI application) was a third of the time it takes to join a session
(``docs/decisions/0013-taking-over-the-socket.md``). A request that is the first on its connection, comes in one piece
and is one that the ``websockets`` library accepts is answered here. All others are Hypercorn's, as ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import unquote

from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.events import RawData
from hypercorn.utils import parse_socket_addr
from websockets.http11 import Request
from websockets.server import ServerProtocol

from crdt_sessions_server.asgi import Scope, websocket_token
from crdt_sessions_server.serving.websocket import DirectLine, take_socket

_PATIENCE_S = 1.0
"""How long a connection may be silent before Hypercorn, which has timeouts of its own, waits for it."""
_END = b"\r\n\r\n"
_SILENT = logging.Logger("handshake", logging.CRITICAL)  # the library logs requests, and tokens are in them

Greet = Callable[[Scope, str | None, DirectLine], None]
"""Called with a request, the token in it, and the connection on which it was answered."""


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
    if not (
        data.isascii() and data.startswith(b"GET " + prefix.encode()) and data.find(_END) == len(data) - len(_END)
    ):
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


@contextmanager
def greeting(prefix: str, max_message_bytes: int, greet: Greet) -> Iterator[None]:
    """Meanwhile, have connections of this process looked at here before Hypercorn sees them.

    Hypercorn offers no hook for it; a test sees to it that this still works.

    Args:
        prefix: of the paths that are answered here.
        max_message_bytes: larger messages are refused.
        greet: takes the connections.
    """

    class Greeter(TCPServer):
        _first = b""

        async def run(self) -> None:
            answered = await self._answered()
            if answered is None:
                await super().run()
                return
            line = take_socket(self, max_message_bytes)
            line.answer(answered.response)
            greet(answered.scope, answered.token, line)

        async def _answered(self) -> Answered | None:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    self._first = await self.reader.read(MAX_RECV)
                socket = self.writer.get_extra_info("socket")
                return answer(self._first, prefix, parse_socket_addr(socket.family, socket.getpeername()))
            except (OSError, TimeoutError):
                return None  # Hypercorn finds out by itself
            except asyncio.CancelledError:
                self.writer.close()
                raise

        async def _read_data(self) -> None:
            if self._first:
                if self.reader._buffer:  # type: ignore[attr-defined]
                    # A body that came meanwhile. One that is refused unread makes Hypercorn hang up.
                    self._first += await self.reader.read(MAX_RECV)
                await self.protocol.handle(RawData(self._first))
            await super()._read_data()

    run.TCPServer = Greeter  # type: ignore[attr-defined]
    try:
        yield
    finally:
        run.TCPServer = TCPServer  # type: ignore[attr-defined]
