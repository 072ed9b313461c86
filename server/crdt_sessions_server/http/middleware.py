"""What happens to each request before and after its route: origins, permissions, and headers of the answer."""

from __future__ import annotations

from quart import Quart, Response, g, request, websocket

from crdt_sessions.errors import AccessDenied
from crdt_sessions.ids import session_id
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.asgi import http_token
from crdt_sessions_server.auth import Admission
from crdt_sessions_server.auth.permissions import NAMED_IN_BODY, PUBLIC, ROUTES
from crdt_sessions_server.http.origins import Origins
from crdt_sessions_server.http.request_forwarding import answer_elsewhere

HARDENING = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Headers of every answer that says nothing else."""


def install(app: Quart, registry: SessionRegistry, admission: Admission, origins: Origins, *, tls: bool) -> None:
    """Have *app* authorize every request, and tell browsers what they may not do with its answers.

    Args:
        app: the application.
        registry: the sessions; while it lags, requests are refused.
        admission: admits principals.
        origins: which web pages may use the service.
        tls: whether the service is reached over TLS only.
    """

    @app.before_websocket
    async def check_origin() -> None:
        origins.check(dict(websocket.scope))

    @app.before_request
    async def authorize() -> Response | None:
        origins.check(dict(request.scope))
        return await _authorize(registry, admission)

    @app.after_request
    async def harden(response: Response) -> Response:
        for name, value in HARDENING.items():
            response.headers.setdefault(name, value)
        if tls:
            response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response


async def _authorize(registry: SessionRegistry, admission: Admission) -> Response | None:
    """Let the request in, or refuse it; return its answer if another node has the session, which counts it, too."""
    endpoint = request.endpoint
    if request.method == "OPTIONS" or endpoint is None or endpoint in PUBLIC:
        return None  # a browser sends no token with its preflight, and a route that does not exist needs none
    registry.capacity.check_lag()
    if endpoint not in ROUTES:
        raise AccessDenied(what="nobody may: the table of permissions does not know this route")
    if endpoint in NAMED_IN_BODY:
        return None  # the route looks at the body first
    scope, needs = dict(request.scope), ROUTES[endpoint]
    name = (request.view_args or {}).get("name")
    g.admitted = await admission.admit(scope, http_token(scope), name, needs)
    principal = g.admitted.principal
    if name is not None and (answer := await answer_elsewhere(session_id(name, principal.tenant))) is not None:
        return answer
    admission.count_request(principal, needs)
    return None
