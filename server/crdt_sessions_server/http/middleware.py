"""What happens to each request before and after its route: origins, permissions, and headers for browsers."""

from __future__ import annotations

from quart import Quart, Response, g, request, websocket

from crdt_sessions.errors import AccessDenied
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.asgi import http_token
from crdt_sessions_server.auth import Door
from crdt_sessions_server.auth.permissions import NAMED_IN_BODY, PUBLIC, ROUTES
from crdt_sessions_server.http.origins import Origins

HARDENING = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every answer that says nothing else."""


def install(app: Quart, registry: SessionRegistry, door: Door, origins: Origins, *, tls: bool) -> None:
    """Have *app* authorize every request, and tell browsers what they may not do with its answers.

    Args:
        app: the application.
        registry: the sessions; while it lags, requests are refused.
        door: admits principals.
        origins: which web pages may use the service.
        tls: whether the service is reached over TLS only.
    """

    @app.before_websocket
    async def check_origin() -> None:
        origins.check(dict(websocket.scope))

    @app.before_request
    async def authorize() -> None:
        origins.check(dict(request.scope))
        await _authorize(registry, door)

    @app.after_request
    async def harden(response: Response) -> Response:
        if request.http_version == "1.1" and request.content_length and not request.body._complete.is_set():
            # Hypercorn closes the connection after an answer that precedes the body; say so or a request is lost.
            response.headers["Connection"] = "close"
        for name, value in HARDENING.items():
            response.headers.setdefault(name, value)
        if tls:
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response


async def _authorize(registry: SessionRegistry, door: Door) -> None:
    endpoint = request.endpoint
    if request.method == "OPTIONS" or endpoint is None or endpoint in PUBLIC:
        return  # a browser sends no token with its preflight, and a route that does not exist needs none
    registry.capacity.check_lag()
    if endpoint not in ROUTES:
        raise AccessDenied(what="nobody may: the table of permissions does not know this route")
    if endpoint in NAMED_IN_BODY:
        return  # the route looks at the body first
    scope, needs = dict(request.scope), ROUTES[endpoint]
    g.visit = await door.admit(scope, http_token(scope), (request.view_args or {}).get("name"), needs)
    door.count_request(g.visit.principal, needs)
