"""Errors as HTTP: one table, and RFC 9457 problem documents."""

from __future__ import annotations

import logging
from typing import Any

from pydantic import ValidationError
from quart import Quart, Response, json
from quart_schema import RequestSchemaValidationError
from werkzeug.exceptions import HTTPException

from crdt_sessions import errors

STATUS: dict[type[errors.CrdtSessionsError], int] = {
    errors.WireError: 400,
    errors.UpdateError: 400,
    errors.EarlyUpdate: 409,
    errors.BadDocument: 422,
    errors.BadValue: 422,
    errors.BadSessionId: 422,
    errors.BadTenant: 422,
    errors.BadParameter: 422,
    errors.NotAuthenticated: 401,
    errors.AccessDenied: 403,
    errors.SessionNotFound: 404,
    errors.NotFound: 404,
    errors.SessionDeleted: 410,
    errors.SessionExists: 409,
    errors.SessionClosed: 409,
    errors.WrongGeneration: 409,
    errors.RunNotClaimable: 409,
    errors.RunsActive: 409,
    errors.LeaseLost: 409,
    errors.WrongOffset: 409,
    errors.TooLarge: 413,
    errors.TooSlow: 503,
    errors.TooMany: 429,
    errors.Overloaded: 503,
    errors.StorageError: 503,
    errors.ShuttingDown: 503,
}
"""Error to HTTP status; a subclass without an entry of its own takes its parent's."""

_log = logging.getLogger("crdt_sessions.http")


def problem(status: int, title: str, detail: str | None = None, **more: Any) -> Response:
    """Return a problem document.

    Args:
        status: the HTTP status.
        title: the same for all occurrences of the problem.
        detail: what happened this time.
        more: further members.
    """
    slug = "".join(f"-{char.lower()}" if char.isupper() else char for char in title).strip("-").replace(" ", "-")
    body = {"type": f"urn:crdt-sessions:problem:{slug}", "title": title, "status": status, "detail": detail, **more}
    response = Response(
        json.dumps({key: value for key, value in body.items() if value is not None}),
        status,
        content_type="application/problem+json",
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        response.headers["Retry-After"] = "2"
    return response


def problem_for(error: errors.CrdtSessionsError) -> Response:
    """Return the problem document for *error*: its class is the type, its attributes are members."""
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    facts = {key: value for key, value in vars(error).items() if isinstance(value, str | int)}
    if "status" in facts:
        facts["state"] = facts.pop("status")  # the member of that name is the HTTP status
    return problem(status, type(error).__name__, str(error), **facts)


def invalid(error: ValidationError | TypeError | None) -> Response:
    """Return the problem document for input that does not fit its schema, naming the fields."""
    fields = []
    if isinstance(error, ValidationError):
        fields = [
            {"field": ".".join(map(str, item["loc"])), "message": item["msg"]}
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in fields) or str(error or "not valid JSON")
    return problem(422, "InvalidInput", detail, errors=fields)


def install(app: Quart) -> None:
    """Make *app* answer every error with a problem document."""

    @app.errorhandler(errors.CrdtSessionsError)
    async def _ours(error: errors.CrdtSessionsError) -> Response:
        response = problem_for(error)
        if response.status_code >= 500:
            _log.error("request failed: %s", error)
        return response

    @app.errorhandler(RequestSchemaValidationError)
    async def _schema(error: RequestSchemaValidationError) -> Response:
        found = error.validation_error
        return invalid(found if isinstance(found, ValidationError | TypeError) else None)

    @app.errorhandler(HTTPException)
    async def _http(error: HTTPException) -> Response:
        return problem(error.code or 500, error.name, error.description)

    @app.errorhandler(UnicodeDecodeError)
    async def _not_text(error: UnicodeDecodeError) -> Response:
        return problem(400, "InvalidInput", "the body is not UTF-8")

    @app.errorhandler(RecursionError)
    async def _nested(error: RecursionError) -> Response:
        detail = "a value is nested too deeply for JSON; the format yjs has no such bound"
        return problem(422, "BadDocument", detail)

    @app.errorhandler(Exception)
    async def _unexpected(error: Exception) -> Response:
        _log.error("unexpected error", exc_info=error)
        return problem(500, "InternalError", "the log of the service says more")
