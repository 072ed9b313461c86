"""The listener for other nodes: lets in requests that a node has signed, and has the service answer them."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from crdt_sessions.clock import Clock
from crdt_sessions.errors import AccessDenied, CrdtSessionsError, TooLarge
from crdt_sessions_server.asgi import App, Receive, Scope, Send
from crdt_sessions_server.cluster import hop
from crdt_sessions_server.cluster.hop import WrongNode
from crdt_sessions_server.serving.listener import Endpoint

_log = logging.getLogger("crdt_sessions.cluster")
CALLS = "/cluster/"
"""Paths of what nodes ask each other begin so."""
MISDIRECTED = 421
OWNER = "x-crdt-sessions-owner"
"""With :data:`MISDIRECTED`: the node to which the session belongs that was asked for."""
REFUSED = 409
_DENIED = 403
_MAX_BODY_BYTES = 1024 * 1024

Answer = Callable[[Any], Awaitable[Any]]
"""Takes what another node asks, as JSON, and returns what it is told, as JSON."""


class InnerDoor:
    """The service as other nodes see it, as an ASGI application.

    Args:
        app: the service.
        secret: that the nodes share.
        me: returns this node's id.
        clock: the only source of time.
    """

    def __init__(self, app: App, secret: bytes, me: Callable[[], int], clock: Clock) -> None:
        self._app = app
        self._secret = secret
        self._me = me
        self._clock = clock
        self._answers: dict[str, Answer] = {}

    def answer(self, what: str, answer: Answer) -> None:
        """Have calls of *what* answered by *answer*. A :class:`CrdtSessionsError` of its is told to who asks."""
        self._answers[CALLS + what] = answer

    def endpoints(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """Return *endpoints* as they are for other nodes."""
        return [each._replace(accepts=self._accepting(each)) for each in endpoints]

    def _accepting(self, endpoint: Endpoint) -> Callable[[Scope], bool]:
        def accepts(scope: Scope) -> bool:
            try:
                self._admit(scope)
            except (AccessDenied, WrongNode):
                return False  # it comes to :meth:`__call__`, which says why
            return endpoint.accepts(scope)

        return accepts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        try:
            self._admit(scope)
        except (AccessDenied, WrongNode) as error:
            _log.warning("a request to the listener for nodes is refused: %s", error, extra={"path": scope["path"]})
            status = MISDIRECTED if isinstance(error, WrongNode) else _DENIED
            await respond(scope, send, status, {"error": type(error).__name__, "detail": str(error)})
            return
        if scope["path"].startswith(CALLS):
            await self._called(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        hop.admit(scope, self._secret, me=self._me(), now=self._clock.now())

    async def _called(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answers.get(scope["path"])
        if answer is None or scope["type"] != "http":
            await respond(scope, send, 404, {"error": "NotFound", "detail": "no such call: is that node older?"})
            return
        try:
            asked = json.loads(await _body(receive))
            said = await answer(asked)
        except CrdtSessionsError as error:
            await respond(scope, send, REFUSED, {"error": type(error).__name__, "detail": str(error)})
            return
        await respond(scope, send, 200, said)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise ConnectionResetError("the other node has gone")
        body += bytes(event.get("body", b""))
        if len(body) > _MAX_BODY_BYTES:
            raise TooLarge(what="what a node asks", size=len(body), limit=_MAX_BODY_BYTES)
        if not event.get("more_body", False):
            return body


async def respond(
    scope: Scope, send: Send, status: int, said: Any, headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Answer a request, or the one for a WebSocket, with JSON."""
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    body = json.dumps(said).encode()
    await send(
        {
            "type": f"{kind}.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                *headers,
            ],
        }
    )
    await send({"type": f"{kind}.body", "body": body})


async def _live(receive: Receive, send: Send) -> None:
    """Answer the server's questions about start and end: the service lives on the other listener."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
