"""What every answer tells browsers that they may not do with it."""

from __future__ import annotations

from typing import Any

from crdt_sessions_server.asgi import App, Receive, Scope, Send

HARDENING = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every answer that says nothing else."""


class Hardened:
    """Another ASGI application, with these headers in its answers, unless an answer says otherwise.

    Args:
        app: what answers.
        tls: whether the service is reached over TLS only.
    """

    def __init__(self, app: App, *, tls: bool) -> None:
        self._app = app
        told = HARDENING | ({"Strict-Transport-Security": "max-age=31536000"} if tls else {})
        self._headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_part(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                told = list(event.get("headers", ()))
                said = {name.lower() for name, _ in told}
                event = {**event, "headers": told + [each for each in self._headers if each[0] not in said]}
            await send(event)

        await self._app(scope, receive, send_part)
