"""Appends to durable streams, in front of the framework.

Whoever appends token by token sends hundreds of small requests a second, and for each the framework takes longer than
all that the service does for it (docs/decisions/0070-appends-in-front-of-the-framework.md). So an ordinary append is
answered here. What is not ordinary, such as a body that is compressed or comes in pieces, goes on to its route, which
calls the same :func:`append`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.streams import Append, Appended
from crdt_sessions_server.asgi import App, Receive, Scope, Send
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.gateways.durable_streams.headers import (
    CROSS_ORIGIN,
    Header,
    asked_batch,
    asked_seq,
    of_producer,
    of_stream,
    refusal,
    says_closed,
)
from crdt_sessions_server.gateways.durable_streams.paths import RESERVED_FIRST, entered
from crdt_sessions_server.http.request_checks import RequestChecks

ENDPOINT = "durable-streams.append_stream"
_PATH = re.compile(r"/v1/streams?/([A-Za-z0-9_~.-]+(?:/[A-Za-z0-9_~.-]+)*)")
"""Paths that need no decoding."""
_CROSS_ORIGIN = (CROSS_ORIGIN[0].lower().encode(), CROSS_ORIGIN[1].encode())
_NOT_ORDINARY = ("content-encoding", "transfer-encoding", "expect")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a writer is answered: an empty body, and this."""

    status: int
    headers: dict[str, str]


async def append(registry: SessionRegistry, principal: Principal, path: str, header: Header, body: bytes) -> Answer:
    """Append to a stream, or close it, or both, as the headers of a request say; what is answered is on disk.

    Raises:
        StreamError, TooLarge: it cannot be.
        AccessDenied: the token is not for that stream.
    """
    tenant = entered(path, principal)
    wanted = Append(body, header("Content-Type"), says_closed(header), asked_seq(header), asked_batch(header))

    async def close() -> Appended:
        closed = await registry.streams.append(tenant, path, wanted)
        if not closed.repeated:
            registry.audit.note("stream.close", principal.id, tenant=tenant, path=path)
        return closed

    done = await (to_the_end(close()) if wanted.close else registry.streams.append(tenant, path, wanted))
    new_batch = wanted.batch is not None and body and not done.repeated
    return Answer(200 if new_batch else 204, {**of_stream(done.stream), **of_producer(done.producer)})


class Appends:
    """Answers ordinary appends; everything else is answered by another ASGI application.

    Args:
        app: what answers everything else.
        registry: the sessions, and the streams beside them.
        checks: those that requests pass on their way to a route, too.
        max_body_bytes: larger bodies are not ordinary.
    """

    def __init__(self, app: App, registry: SessionRegistry, checks: RequestChecks, max_body_bytes: int) -> None:
        self._app = app
        self._registry = registry
        self._checks = checks
        self._most = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        path = _plain_path(scope)
        if path is None:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > self._most or any(name in headers for name in _NOT_ORDINARY):
            await self._app(scope, receive, send)
            return
        whole, came = await _at_once(receive, int(length))
        if whole is None:  # it is slow or large, or the client has left
            await self._app(scope, _again(came, receive), send)
            return
        body = b""
        try:
            principal = await self._admitted(scope)
            answer = await append(self._registry, principal, path, lambda name: headers.get(name.lower()), whole)
        except CrdtSessionsError as error:
            response = refusal(error)
            response.headers.remove("Content-Length")
            answer, body = (
                Answer(response.status_code, dict(response.headers)),
                await response.get_data(as_text=False),
            )
        told = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        if answer.status != HTTPStatus.NO_CONTENT:
            told.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": [*told, _CROSS_ORIGIN]})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _admitted(self, scope: Scope) -> Principal:
        admitted = await self._checks.admit(scope, ENDPOINT)
        assert admitted is not None, "this route is not public"
        self._checks.count(admitted, ENDPOINT)
        return admitted.principal


def _plain_path(scope: Scope) -> str | None:
    """Return the path of the stream that a request appends to, if it can be told at first sight."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    found = _PATH.fullmatch(scope["path"])
    path = found[1] if found is not None and scope.get("raw_path", b"").isascii() else None
    if path is None or b"%" in scope.get("raw_path", b"") or path.split("/")[0] in RESERVED_FIRST:
        return None
    return path


async def _at_once(receive: Receive, length: int) -> tuple[bytes | None, list[dict[str, Any]]]:
    """Return a body of *length* bytes if it came in one piece, and the messages that were received for it."""
    came = [await receive()]
    body: bytes = came[0].get("body", b"")
    if came[0].get("more_body", False) and len(body) == length:
        came.append(await receive())  # it says that this was all
    pieces = [message.get("body", b"") for message in came if message["type"] == "http.request"]
    whole = len(pieces) == len(came) and len(b"".join(pieces)) == length and not came[-1].get("more_body", False)
    return body if whole else None, came


def _again(came: list[dict[str, Any]], receive: Receive) -> Receive:
    """Return what receives these messages before all others."""
    left = iter(came)

    async def next_one() -> dict[str, Any]:
        message = next(left, None)
        return await receive() if message is None else message

    return next_one
