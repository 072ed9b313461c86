"""What happens to each request before its route: checks, and forwarding to the node that has the session."""

from __future__ import annotations

from quart import Quart, Response, g, request, websocket

from crdt_sessions.ids import session_id
from crdt_sessions_server.http.request_checks import RequestChecks
from crdt_sessions_server.http.request_forwarding import answer_elsewhere


def install(app: Quart, checks: RequestChecks) -> None:
    """Have *app* let in only requests that pass *checks*."""

    @app.before_websocket
    async def check_origin() -> None:
        checks.check_origin(dict(websocket.scope))

    @app.before_request
    async def authorize() -> Response | None:
        endpoint, name = request.endpoint, (request.view_args or {}).get("name")
        admitted = await checks.admit(dict(request.scope), endpoint, name)
        request.max_content_length = checks.longest_body(endpoint)
        if endpoint is None or admitted is None:
            return None
        g.admitted = admitted
        if name is not None:
            answer = await answer_elsewhere(session_id(name, admitted.principal.tenant))
            if answer is not None:
                return answer  # that node counts it, too
        checks.count(admitted, endpoint)
        return None
