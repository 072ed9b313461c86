"""Requests for sessions that another node serves."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Protocol, cast

from quart import Quart, Response, current_app, request

from crdt_sessions.ids import SessionId
from crdt_sessions_server.asgi import Scope

_KEY = "request_forwarder"


class RequestForwarder(Protocol):
    """Has requests answered by other nodes."""

    async def answer(self, session: SessionId, scope: Scope, body: AsyncIterable[bytes] | None) -> Response | None:
        """Return the answer of the node that serves a session; None if that is this one."""
        ...


class Answered(Exception):
    """Another node has answered the request.

    Args:
        response: its answer.
    """

    def __init__(self, response: Response) -> None:
        super().__init__("another node has answered")
        self.response = response


def install(app: Quart, elsewhere: RequestForwarder | None) -> None:
    """Have *elsewhere* answer for sessions of other nodes, if there is any."""
    app.extensions[_KEY] = elsewhere

    @app.errorhandler(Answered)
    async def _answered(answered: Answered) -> Response:
        return answered.response


async def answer_elsewhere(session: SessionId) -> Response | None:
    """Return the answer to the current request by the node that serves a session; None if that is this one.

    The body is passed on as it comes, or whole, if it was read.

    Raises:
        NodeUnreachable, HeldElsewhere: that node cannot answer at the moment.
    """
    elsewhere = cast("RequestForwarder | None", current_app.extensions[_KEY])
    if elsewhere is None:
        return None
    return await elsewhere.answer(session, dict(request.scope), _body())


def _body() -> AsyncIterable[bytes] | None:
    length = request.content_length
    return None if length == 0 or (length is None and request.method in ("GET", "HEAD")) else request.body
