"""Requests for sessions that another node serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, cast

from quart import Quart, Response, current_app, request

from crdt_sessions.ids import SessionId
from crdt_sessions_server.asgi import Scope

_KEY = "request_forwarder"


@dataclass(slots=True)
class Traffic:
    """What a node has passed on to others, by kind, and what went wrong, by reason."""

    passed: Counter[str] = field(default_factory=Counter)
    """``socket`` (spliced), ``relay`` (message by message), ``request`` and ``errand``."""
    failed: Counter[str] = field(default_factory=Counter)
    """``moved``: it was another's by then; ``gone``: nobody was there; ``silent``: no answer; ``given-up``."""
    open: int = 0
    """Sockets that are passed on at the moment."""

    @contextmanager
    def socket(self, kind: str) -> Iterator[None]:
        """Return a context in which a socket is passed on."""
        self.passed[kind] += 1
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class RequestForwarder(Protocol):
    """Has requests answered by other nodes."""

    traffic: Traffic
    """What was passed on to them."""

    async def answer(self, session: SessionId, scope: Scope, body: AsyncIterable[bytes] | None) -> Response | None:
        """Return the answer of the node that serves a session; None if that is this one."""
        ...

    async def serving(self, session: SessionId, scope: Scope) -> int | None:
        """Return the node that is to be asked for a session; None if this one serves it, or is to be asked last."""
        ...

    @property
    def me(self) -> int:
        """This node."""
        ...

    async def answer_at(self, node: int, scope: Scope, body: AsyncIterable[bytes] | None) -> Response | None:
        """Return the answer of a node; None if that is this one, or there is none of that name any more."""
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


def current_forwarder() -> RequestForwarder | None:
    """Return the other nodes; None if there are none."""
    return cast("RequestForwarder | None", current_app.extensions[_KEY])


async def answer_elsewhere(session: SessionId) -> Response | None:
    """Return the answer to the current request by the node that serves a session; None if that is this one.

    The body is passed on as it comes, or whole, if it was read.

    Raises:
        NodeUnreachable, HeldElsewhere: that node cannot answer at the moment.
    """
    elsewhere = current_forwarder()
    if elsewhere is None:
        return None
    return await elsewhere.answer(session, dict(request.scope), _body())


async def answer_at(node: int) -> Response | None:
    """Return the answer to the current request by a node; None if that is this one, or it is not there any more.

    Raises:
        NodeUnreachable: it cannot answer at the moment.
    """
    elsewhere = current_forwarder()
    return None if elsewhere is None else await elsewhere.answer_at(node, dict(request.scope), _body())


def _body() -> AsyncIterable[bytes] | None:
    length = request.content_length
    return None if length == 0 or (length is None and request.method in ("GET", "HEAD")) else request.body
