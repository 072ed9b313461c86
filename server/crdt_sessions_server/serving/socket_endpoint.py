"""An endpoint for binary WebSockets as raw ASGI, in front of Quart, and on sockets of our own.

Quart would queue inbound frames without bound and cost a third of the throughput
(``docs/decisions/0003-raw-asgi-sync-endpoint.md``). A refusal comes after the accept, as a close code: a 401
before it reaches browsers as 1006, and they retry for ever.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import Any

from crdt_sessions.runtime import Channel, Transport
from crdt_sessions.wire import Closing
from crdt_sessions_server.asgi import App, Receive, Scope, Send, websocket_token
from crdt_sessions_server.serving.asgi_channel import HANG_UP_S, AsgiChannel, Departures
from crdt_sessions_server.serving.listener import Endpoint
from crdt_sessions_server.serving.websocket import SocketConnection


class SocketEndpoint(ABC):
    """An endpoint around another ASGI application.

    Args:
        app: everything else.
        prefix: what the paths that it serves begin with.
    """

    def __init__(self, app: App, prefix: str) -> None:
        self._app = app
        self._prefix = prefix
        self._serving: set[asyncio.Task[None]] = set()
        self._departures = Departures()

    @abstractmethod
    async def converse(self, scope: Scope, token: str | None, channel: Channel | Transport) -> Closing:
        """Serve a connection until it ends, or is refused; return how to close it."""

    def farewell(self, closing: Closing) -> Sequence[bytes]:
        """Return messages to send before the connection is closed."""
        return ()

    def accepts(self, scope: Scope) -> bool:
        """Whether a request for a path with this prefix is for this endpoint."""
        return True

    @property
    def endpoint(self) -> Endpoint:
        """For listeners, which answer requests themselves."""
        return Endpoint(self._prefix, self.greet, self.accepts)

    def greet(self, scope: Scope, token: str | None, line: SocketConnection) -> None:
        """Serve a WebSocket whose request was answered already; return at once."""
        self._start(self._serve_line(scope, token, line))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        mine = scope["type"] == "websocket" and scope["path"].startswith(self._prefix) and self.accepts(scope)
        if not mine:
            await self._app(scope, receive, send)
            return
        connect = await receive()
        if connect["type"] != "websocket.connect":
            return
        token, subprotocol = websocket_token(scope)
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        await self._start(self._serve_asgi(scope, token, receive, send))

    async def closed(self) -> None:
        """Return once every connection has been told that it is closed."""
        while self._serving:
            await asyncio.wait(set(self._serving))

    def _start(self, serving: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(serving)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def _serve_line(self, scope: Scope, token: str | None, line: SocketConnection) -> None:
        try:
            conversing = self.converse(scope, token, line)
            del scope  # all that the request said would stay for as long as the connection, and is a kilobyte or more
            closing = await conversing
            if farewell := self.farewell(closing):
                line.write(farewell)
            await line.close(closing.code, closing.reason, HANG_UP_S)
        finally:
            line.abort()  # nobody else would

    async def _serve_asgi(self, scope: Scope, token: str | None, receive: Receive, send: Send) -> None:
        channel = AsgiChannel(scope["path"], receive, send)
        closing = await self.converse(scope, token, channel)
        if channel.ended:
            return
        for message in self.farewell(closing):
            await channel.send(message)
        await send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})
        await self._departures.see_off(receive)
