"""Answers to requests whose bodies were not read to the end, such as refusals: they arrive.

An HTTP/1 server hangs up after such an answer. A client that is not told sends its next request, and loses it. And
a connection that is closed while bytes wait that nobody has read is reset: a client that still sends may lose the
answer with it, and knows only that the other side has closed. Source: RFC 9112, section 9.6.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from crdt_sessions_server.asgi import App, Receive, Scope, Send, header

LINGER_S = 30.0
"""How long the rest of a body is waited for that nobody reads. The answer is on its way before."""
_HTTP_1 = ("1.0", "1.1")


class UnreadBodies:
    """An application that reads, and drops, what its answers have left unread, and says that the connection ends.

    Args:
        app: what answers.
        linger_s: how long a client may take to stop, or to send the rest.
    """

    def __init__(self, app: App, linger_s: float = LINGER_S) -> None:
        self._app = app
        self._linger_s = linger_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["http_version"] not in _HTTP_1 or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        body = _Body(receive)
        end: dict[str, Any] | None = None

        async def send_part(event: dict[str, Any]) -> None:
            nonlocal end
            if event["type"] == "http.response.start" and not body.over:
                event = {**event, "headers": [*event.get("headers", ()), (b"connection", b"close")]}
            elif event["type"] == "http.response.body" and not event.get("more_body", False) and not body.over:
                end = {**event, "body": b""}  # the server hangs up when it gets this
                event = {**event, "more_body": True}
            await send(event)

        await self._app(scope, body.receive, send_part)
        if end is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(body.read(), self._linger_s)
            await send(end)


class _Body:
    """A body that comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.over = False
        """Whether nothing more of it comes."""

    async def receive(self) -> dict[str, Any]:
        event = await self._receive()
        self.over = self.over or not (event["type"] == "http.request" and event.get("more_body", False))
        return event

    async def read(self) -> None:
        """Read, and drop, what still comes."""
        while not self.over:
            await self.receive()


def _has_body(scope: Scope) -> bool:
    in_chunks = header(scope, b"transfer-encoding") is not None
    return in_chunks or (header(scope, b"content-length") or "0").strip("0") != ""
