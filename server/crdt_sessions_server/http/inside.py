"""Requests to the service that never leave the process."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from crdt_sessions_server.asgi import App, Scope


class Inside(httpx.AsyncBaseTransport):
    """Carries the requests of httpx to an ASGI application, and its answers back, whole.

    Args:
        app: answers.
        address: where requests seem to come from.
    """

    def __init__(self, app: App, address: str) -> None:
        self._app = app
        self._address = address

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See :class:`httpx.AsyncBaseTransport`."""
        body = await request.aread()
        raw_path, _, query = request.url.raw_path.partition(b"?")
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": request.method,
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": (self._address, 0),
            "server": (request.url.host, request.url.port),
            "extensions": {},
        }
        exchange = _Exchange(body)
        answering = asyncio.ensure_future(self._app(scope, exchange.receive, exchange.send))
        try:
            await asyncio.shield(answering)
        except asyncio.CancelledError:
            exchange.gone.set()  # the application ends what it has begun, as it does when a client hangs up
            await answering
            raise
        return httpx.Response(exchange.status, headers=exchange.headers, content=b"".join(exchange.pieces))


class _Exchange:
    """A request that is there whole, and an answer that is collected."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.gone = asyncio.Event()
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.status, self.headers = event["status"], list(event.get("headers", ()))
        elif event["type"] == "http.response.body":
            self.pieces.append(event.get("body", b""))
