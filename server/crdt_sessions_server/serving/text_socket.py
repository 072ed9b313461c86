"""WebSockets whose messages are text, whoever serves them: what came and was not read yet has a bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from crdt_sessions_server.asgi import Receive, Send
from crdt_sessions_server.serving.asgi_channel import HANG_UP_S, Departures
from crdt_sessions_server.serving.websocket import SocketConnection


class TextSocket(Protocol):
    """A WebSocket that was accepted."""

    async def send(self, text: str) -> None:
        """Send a message; wait while the client does not read. To one that has gone nothing is sent."""
        ...

    def messages(self) -> AsyncGenerator[str | bytes, None]:
        """Yield what comes, one by one, until the client has gone. While nobody asks, nothing more is read.

        Raises:
            TooSlow: the client does not read.
        """
        ...

    async def close(self, code: int, reason: str) -> None:
        """Say that the connection ends, and why; return when it has."""
        ...


class OwnTextSocket:
    """On a socket of our own.

    Args:
        connection: of which the messages are text.
        patience_s: a client that reads nothing for so long ends the messages.
    """

    def __init__(self, connection: SocketConnection, patience_s: float) -> None:
        self._connection = connection
        self._sending = asyncio.Lock()
        connection.open(_nothing, _later, patience_s)

    async def send(self, text: str) -> None:
        """See :meth:`TextSocket.send`."""
        async with self._sending:
            await self._connection.drained()
            self._connection.write([text.encode()])

    async def messages(self) -> AsyncGenerator[str | bytes, None]:
        """See :meth:`TextSocket.messages`."""
        try:
            async for batch in self._connection.batches():
                for message in batch:
                    yield message
        except ConnectionError:
            return

    async def close(self, code: int, reason: str) -> None:
        """See :meth:`TextSocket.close`."""
        await self._connection.release()
        await self._connection.close(code, reason, HANG_UP_S)


def _nothing() -> None:
    pass


def _later(messages: Sequence[bytes]) -> Sequence[bytes]:
    return messages


class AsgiTextSocket:
    """Through an ASGI server, which holds few messages while nobody asks for them.

    Args:
        receive: of ASGI.
        send: of ASGI.
        departures: see clients off.
    """

    def __init__(self, receive: Receive, send: Send, departures: Departures) -> None:
        self._receive = receive
        self._send = send
        self._departures = departures
        self._ended = False

    async def send(self, text: str) -> None:
        """See :meth:`TextSocket.send`."""
        if not self._ended:
            await self._send({"type": "websocket.send", "text": text})

    async def messages(self) -> AsyncGenerator[str | bytes, None]:
        """See :meth:`TextSocket.messages`."""
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self._ended = True
                return
            yield event.get("text") or event.get("bytes") or ""

    async def close(self, code: int, reason: str) -> None:
        """See :meth:`TextSocket.close`."""
        if not self._ended:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
            await self._departures.see_off(self._receive)
