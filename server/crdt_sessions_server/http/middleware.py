"""What happens to each request before its route: origins and permissions."""

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


def install(app: Quart, registry: SessionRegistry, admission: Admission, origins: Origins) -> None:
    """Have *app* authorize every request.

    Args:
        app: the application.
        registry: the sessions; while it lags, requests are refused.
        admission: admits principals.
        origins: which web pages may use the service.
    """

    @app.before_websocket
    async def check_origin() -> None:
        origins.check(dict(websocket.scope))

    @app.before_request
    async def authorize() -> Response | None:
        origins.check(dict(request.scope))
        return await _authorize(registry, admission)


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
