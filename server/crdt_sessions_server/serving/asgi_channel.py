"""WebSockets that come through an ASGI server, and how they are seen off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from crdt_sessions_server.asgi import ORDERLY, Receive, Send

HANG_UP_S = 1.0
"""How long a client that was told of the end has to hang up."""


class AsgiChannel:
    """An accepted ASGI WebSocket in ``pycrdt.Channel``'s shape."""

    def __init__(self, path: str, receive: Receive, send: Send) -> None:
        self.path = path
        self.ended = False
        """Whether the client has gone."""
        self._receive = receive
        self._send = send

    async def send(self, message: bytes) -> None:
        """Send one binary message; wait while the client does not read."""
        await self._send({"type": "websocket.send", "bytes": message})

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield binary messages.

        A text message is no protocol message and becomes an empty one, which the codec refuses.

        Raises:
            ConnectionError: the connection broke.
        """
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self.ended = True
                if event.get("code", 1005) not in ORDERLY:
                    raise ConnectionResetError(f"closed with {event.get('code')}")
                return
            yield event.get("bytes") or b""


class Departures:
    """Sees clients off that were told that their connection ends."""

    def __init__(self) -> None:
        self._draining: set[asyncio.Task[None]] = set()

    async def see_off(self, receive: Receive) -> None:
        """Read, and drop, what still comes, until the client has hung up or has had its time for that.

        The server may be holding messages for us (Hypercorn keeps ten). Were they left there, it could not even
        say that the connection is over, and would keep the socket for ever; so they are read until it has.
        """
        reading = asyncio.create_task(_drain(receive))
        self._draining.add(reading)
        reading.add_done_callback(self._draining.discard)
        await asyncio.wait({reading}, timeout=HANG_UP_S)


async def _drain(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
