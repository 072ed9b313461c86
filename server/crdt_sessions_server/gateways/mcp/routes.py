"""``/mcp``, and where its clients get tokens.

Source: Model Context Protocol, revisions 2026-07-28 and 2025-11-25, "Transports" and "Authorization"; RFC 9728.
"""

from __future__ import annotations

from contextlib import aclosing

from quart import Blueprint, Response, current_app, jsonify, request

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.asgi import http_token
from crdt_sessions_server.auth import current_admission, current_admitted
from crdt_sessions_server.gateways.mcp import sessions
from crdt_sessions_server.gateways.mcp.host import Begun, Caller, Host
from crdt_sessions_server.http.describing import LINES, NOTHING, SSE, Function, answers, refuses, tag, takes
from crdt_sessions_server.http.problem_documents import Refusal
from crdt_sessions_server.http.problems import NO_SUCH_ROUTE, NOT_INSTALLED, UNSUPPORTED_MEDIA_TYPE
from crdt_sessions_server.http.request_forwarding import answer_at, current_forwarder
from crdt_sessions_server.http.schemas import JSON
from crdt_sessions_server.http.streaming import going_on

_PATH = "/mcp"
_METADATA = "/.well-known/oauth-protected-resource"
_MESSAGE = {"type": "object", "description": "A message of JSON-RPC 2.0."}


def _refused(function: Function) -> Function:
    """Tell of answers with which the library refuses."""
    for status, why in (
        (400, "It is no message, or not in order."),
        (406, "The answer may be of two kinds; `Accept` must name both."),
        (405, "There is no such method in that version of the protocol."),
    ):
        function = answers(status, {JSON: _MESSAGE}, why)(function)
    return refuses(NOT_INSTALLED)(function)


def blueprint(registry: SessionRegistry, *, host: Host, issuer: str | None) -> Blueprint:
    """Return the routes.

    Args:
        registry: the sessions.
        host: answers requests.
        issuer: who makes tokens; None if clients cannot be sent there.
    """
    mcp = Blueprint("mcp", __name__)

    @mcp.post(_PATH)
    @tag(["gateways"])
    @takes({JSON: _MESSAGE})
    @answers(200, {JSON: _MESSAGE, SSE: LINES}, "A result, or what comes before it and then that.")
    @answers(202, description="A notification, which has no answer.")
    @_refused
    async def send() -> Response:
        """Send a message of the Model Context Protocol.

        Errors of the protocol are answered in its own form.
        """
        return await _exchange(host)

    @mcp.get(_PATH)
    @tag(["gateways"])
    @answers(200, {SSE: LINES}, "What the server has to say, for sessions of the protocol until 2025-11-25.")
    @_refused
    async def listen() -> Response:
        """Hear what the server has to say in a session of the protocol, as it was until 2025-11-25."""
        return await _exchange(host)

    @mcp.delete(_PATH)
    @tag(["gateways"])
    @answers(200, NOTHING, "The session of the protocol is over.")
    @_refused
    async def leave() -> Response:
        """End a session of the protocol, as it was until 2025-11-25. Sessions of the service know nothing of that."""
        return await _exchange(host)

    @mcp.get(_METADATA)
    @mcp.get(_METADATA + _PATH, endpoint="metadata_of_path")
    @tag(["gateways"])
    @answers(200, {JSON: {"type": "object", "description": "Metadata of a protected resource (RFC 9728)."}})
    @refuses(NO_SUCH_ROUTE)
    async def metadata() -> Response:
        """Tell clients where to get tokens (RFC 9728): from the issuer that the service is told of.

        404 if it is told of none.
        """
        if issuer is None:
            raise Refusal(NO_SUCH_ROUTE, "no issuer of tokens is configured (jwt_issuer)")
        return jsonify(
            {
                "resource": f"{current_admission().origin(dict(request.scope))}{_PATH}",
                "authorization_servers": [issuer],
                "bearer_methods_supported": ["header"],
                "resource_name": "crdt-sessions",
            }
        )

    @mcp.after_app_request
    async def tell_where_tokens_are(response: Response) -> Response:
        if response.status_code == 401 and request.path == _PATH and issuer is not None:
            origin = current_admission().origin(dict(request.scope))
            response.headers["WWW-Authenticate"] = f'Bearer resource_metadata="{origin}{_METADATA}{_PATH}"'
        return response

    return mcp


async def _exchange(host: Host) -> Response:
    if not host.installed:
        raise Refusal(NOT_INSTALLED, "the Model Context Protocol takes: pip install 'crdt-sessions[mcp]'")
    if request.method == "POST" and request.mimetype != JSON:
        raise Refusal(
            UNSUPPORTED_MEDIA_TYPE, f"messages are {JSON}, not {request.mimetype or 'without a Content-Type'}"
        )
    node, scope = sessions.taken_apart(dict(request.scope))
    if node is not None and (answer := await answer_at(node)) is not None:
        return answer
    admission, admitted = current_admission(), current_admitted()
    caller = Caller(admitted.principal, http_token(scope), admission.address(scope))
    app = current_app.asgi_app
    begun = await host.answer(app, scope, await request.get_data(as_text=False), caller)  # type: ignore[arg-type]
    elsewhere = current_forwarder()
    told = begun.headers if elsewhere is None else sessions.named(begun.headers, elsewhere.me)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in told}
    kind = headers.pop("content-type", "")
    if kind.startswith(SSE):
        headers.pop("content-length", None)
        try:
            return going_on(begun.body(), headers=headers)
        except CrdtSessionsError:  # there are too many already
            begun.events.hang_up()
            raise
    return Response(await _whole(begun), begun.status, headers=headers, content_type=kind or None)


async def _whole(begun: Begun) -> bytes:
    async with aclosing(begun.body()) as body:
        return b"".join([piece async for piece in body])
