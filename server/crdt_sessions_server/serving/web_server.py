"""Hypercorn, connection by connection: our listeners hand sockets to it, and it serves HTTP on them.

Hypercorn's own ``serve`` accepts connections itself. This does what that does besides (lifespan, TLS with ALPN, a
stop in order), and leaves accepting to :class:`Listener`. What it takes of Hypercorn are four ordinary classes:
``Lifespan``, ``WorkerContext``, ``TCPServer`` and ``ASGIWrapper``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config

from crdt_sessions_server.serving.listener import Connect, Endpoint, Listener
from crdt_sessions_server.serving.websocket import SocketConnection

_BACKLOG = 1024
_UNIX = getattr(socket, "AF_UNIX", None)


class WebServer:
    """Serves an application on sockets that listen. Use it as a context manager; it ends when everybody has left.

    Args:
        app: the ASGI application.
        config: of Hypercorn; how long its connections have to end is in it, and whether there is TLS.
        sockets: listen already; they are closed at the end.
        endpoints: take WebSockets from their first byte; all others are Hypercorn's.
        max_message_bytes: larger messages on these are refused.
        connection: makes their connections.
    """

    def __init__(
        self,
        app: Any,
        config: Config,
        sockets: Sequence[socket.socket],
        *,
        endpoints: Sequence[Endpoint] = (),
        max_message_bytes: int = 0,
        connection: Connect = SocketConnection,
    ) -> None:
        self._app = ASGIWrapper(app)
        self._config = config
        self._sockets = sockets
        self._endpoints = endpoints
        self._max_message_bytes = max_message_bytes
        self._connection = connection
        self._context = WorkerContext(None)
        self._state: dict[str, Any] = {}
        self._servers: list[asyncio.Server] = []
        self._connections: dict[asyncio.Task[None], asyncio.Transport] = {}
        self._lifespan: Lifespan
        self._living: asyncio.Task[None]
        self.waiting: set[Listener] = set()
        """See :attr:`Behind.waiting`."""

    async def __aenter__(self) -> WebServer:
        loop = asyncio.get_running_loop()
        self._lifespan = Lifespan(self._app, self._config, loop, self._state)
        self._living = loop.create_task(self._lifespan.handle_lifespan())
        await self._lifespan.wait_for_startup()
        if self._living.done():
            self._living.result()
        tls = self._config.create_ssl_context()
        for each in self._sockets:
            create = loop.create_unix_server if each.family == _UNIX else loop.create_server
            listening = await create(
                self._listener,
                sock=each,
                ssl=tls,
                ssl_handshake_timeout=self._config.ssl_handshake_timeout if tls is not None else None,
                backlog=_BACKLOG,
            )
            self._servers.append(listening)
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in self._servers:
            server.close()
        for listener in list(self.waiting):
            listener.close()
        await self._context.terminated.set()  # connections that are idle end by that
        await self._connections_ended()
        for task in list(self._connections):
            task.cancel()
        await self._connections_ended()
        for transport in list(self._connections.values()):  # their clients do not read what is left for them
            transport.abort()
        await self._connections_ended()
        await self._lifespan.wait_for_shutdown()
        self._living.cancel()
        with suppress(asyncio.CancelledError):
            await self._living

    async def _connections_ended(self) -> None:
        """Return when all connections have ended, or their time is over."""
        if self._connections:
            await asyncio.wait(set(self._connections), timeout=self._config.graceful_timeout)

    def _listener(self) -> Listener:
        return Listener(self, self._endpoints, self._max_message_bytes, self._connection)

    def serve(self, transport: asyncio.Transport, first: bytes) -> None:
        """Let Hypercorn serve a connection of which *first* was read already; return at once."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if first:
            reader.feed_data(first)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        server = TCPServer(self._app, loop, self._config, self._context, self._state, reader, writer)
        task = loop.create_task(server.run())
        self._connections[task] = transport
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a connection ended with an error", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)
