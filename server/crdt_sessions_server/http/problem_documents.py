"""Answers every error with a problem document (RFC 9457), of the types that ``problems`` lists."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from pydantic import ValidationError
from quart import Quart, Response, has_request_context, request, websocket
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing.exceptions import WebsocketMismatch

from crdt_sessions import errors
from crdt_sessions.defects import log_defect
from crdt_sessions_server.asgi import SYNC_PREFIX
from crdt_sessions_server.http.complaints import complaints
from crdt_sessions_server.http.problems import (
    INTERNAL_ERROR,
    INVALID_INPUT,
    MALFORMED_JSON,
    MEDIA_TYPE,
    METHOD_NOT_ALLOWED,
    NO_SUCH_ROUTE,
    OF_ERRORS,
    OF_STATUS,
    UPGRADE_REQUIRED,
    ProblemType,
    type_of,
)
from crdt_sessions_server.http.validation import Misfit

_log = logging.getLogger("crdt_sessions.http")


class Refusal(HTTPException):
    """Ends a request with a problem that is no error of the library's.

    Args:
        kind: its type.
        detail: what happened, as the beginning of a sentence without its stop.
        more: further members.
    """

    def __init__(self, kind: ProblemType, detail: str, /, **more: Any) -> None:
        super().__init__(detail)
        self.code = kind.status
        self.kind, self.detail, self.more = kind, detail, more


def problem(kind: ProblemType, detail: str, /, **more: Any) -> Response:
    """Return a problem document.

    Args:
        kind: its type.
        detail: what happened this time, as the beginning of a sentence without its stop; what to do is added.
        more: further members.
    """
    body = {
        "type": kind.urn,
        "title": kind.title,
        "status": kind.status,
        "detail": f"{detail.rstrip('.')}. {kind.remedy}",
        **more,
    }
    response = Response(
        json.dumps({key: value for key, value in body.items() if value is not None}, sort_keys=True),
        kind.status,
        content_type=MEDIA_TYPE,
    )
    if kind.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if kind.status in (429, 503):
        response.headers["Retry-After"] = str(more.get("retry_after_s", 2))
    return response


def problem_for(error: errors.CrdtSessionsError, /, **more: Any) -> Response:
    """Return the problem document for *error*: its class gives the type, its attributes are members."""
    facts = {key: value for key, value in vars(error).items() if isinstance(value, str | int | float | list)}
    if "status" in facts:
        facts["state"] = facts.pop("status")  # the member of that name is the HTTP status
    return problem(type_of(error), str(error), **facts, **more)


def refusal_for(error: errors.CrdtSessionsError) -> Response:
    """Return the answer to a request that ended with *error*; what is not the client's fault is logged."""
    response = problem_for(error)
    if response.status_code >= 500:
        ordinary = isinstance(error, errors.ShuttingDown)  # who asks again is served by the next process
        _log.log(logging.DEBUG if ordinary else logging.ERROR, "request failed: %s", error)
    return response


def told(error: errors.CrdtSessionsError) -> dict[str, str]:
    """Return *error* as an event of a stream that has begun: the members that are words."""
    kind = type_of(error)
    return {"type": kind.urn, "title": kind.title, "detail": f"{str(error).rstrip('.')}. {kind.remedy}"}


def invalid(error: Exception | None, value: Any, whole: str = "the body") -> Response:
    """Return the problem document for input that does not fit its schema, naming the fields.

    Args:
        error: why it does not.
        value: what came in.
        whole: what it is called as a whole.
    """
    fields = []
    if isinstance(error, ValidationError):
        fields = [{"field": field, "message": message} for field, message in complaints(error, value)]
    detail = "; ".join(f"{each['field'] or whole} {each['message']}" for each in fields)
    return problem(INVALID_INPUT, detail or f"{whole} should be a JSON object", errors=fields)


def install(app: Quart) -> None:
    """Make *app* answer every error with a problem document."""

    @app.errorhandler(errors.CrdtSessionsError)
    async def _ours(error: errors.CrdtSessionsError) -> Response:
        return refusal_for(error)

    @app.errorhandler(Misfit)
    async def _misfit(error: Misfit) -> Response:
        return invalid(error.error, error.value, error.whole)

    @app.errorhandler(HTTPException)
    async def _http(error: HTTPException) -> Response:
        response = _refused(error)
        for name, value in error.get_headers():
            if name.lower() not in ("content-type", "content-length"):
                response.headers[name] = value
        return response

    _install_unexpected(app)


def _install_unexpected(app: Quart) -> None:
    @app.errorhandler(UnicodeDecodeError)
    async def _not_text(error: UnicodeDecodeError) -> Response:
        return problem(MALFORMED_JSON, f"the body is not UTF-8: see its byte {error.start}")

    @app.errorhandler(UnicodeEncodeError)
    async def _half_a_pair(error: UnicodeEncodeError) -> Response:
        return problem(INVALID_INPUT, "a text holds half a surrogate pair, which no UTF-8 can spell")

    @app.errorhandler(RecursionError)
    async def _nested(error: RecursionError) -> Response:
        return problem(type_of(errors.BadValue), "a value is nested too deeply for JSON; the format yjs has no bound")

    @app.errorhandler(Exception)
    async def _unexpected(error: Exception) -> Response:
        found = log_defect(_log, "unexpected error", error)
        return problem(INTERNAL_ERROR, f"the request failed (reference {found})", reference=found)


def _refused(error: HTTPException) -> Response:
    """Return the problem document for what the framework, or we in its manner, refused."""
    if isinstance(error, Refusal):
        return problem(error.kind, error.detail, **error.more)
    seen = request if has_request_context() else websocket
    asked = f"{seen.method} {seen.path}"
    if isinstance(error, WebsocketMismatch) or seen.path.startswith(SYNC_PREFIX):
        return problem(UPGRADE_REQUIRED, f"{seen.path} is a WebSocket")
    if isinstance(error, MethodNotAllowed):
        allowed = sorted(error.valid_methods or ())
        return problem(METHOD_NOT_ALLOWED, f"there is no {asked}, but {', '.join(allowed)}", allowed=allowed)
    kind = OF_STATUS.get(error.code or 500)
    if kind is NO_SUCH_ROUTE:
        return problem(kind, f"there is no {asked}")
    if kind is OF_ERRORS[errors.TooLarge]:
        limit = request.max_content_length
        return problem(kind, f"the body exceeds the limit of {limit} bytes", what="body", limit=limit)
    if kind is not None:
        return problem(kind, f"{asked} was refused")
    status = HTTPStatus(error.code or 500)
    other = ProblemType(status.phrase.lower().replace(" ", "-"), status, status.phrase, f"{status.description}.")
    return problem(other, f"{asked} was refused")
