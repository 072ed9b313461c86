"""Small pieces of ASGI: types, headers, and how a request says who it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SYNC_PREFIX = "/v1/sync/"
"""Paths of sessions' WebSockets begin so."""
Y_SWEET_PREFIX = "/v1/y-sweet/ws/"
"""Paths of the WebSockets of y-sweet's clients begin so."""
ORDERLY = {1000, 1001, 1005}
"""Codes of a WebSocket that its owner closed; with any other one it broke."""
_BEARER_SUBPROTOCOL = "bearer."


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header's value, or None."""
    for key, value in scope["headers"]:
        if key.lower() == name:
            return str(value.decode("latin-1"))
    return None


def query(scope: Scope) -> dict[str, str]:
    """Return the query parameters, the last value of each."""
    return {key: values[-1] for key, values in parse_qs(scope["query_string"].decode("latin-1")).items()}


def http_token(scope: Scope) -> str | None:
    """Return the token of a request: from the Authorization header, or the query parameter ``token``."""
    authorization = header(scope, b"authorization") or ""
    if authorization.lower().startswith("bearer "):
        return authorization[7:].strip()
    return query(scope).get("token") or None


def websocket_token(scope: Scope) -> tuple[str | None, str | None]:
    """Return the token of a WebSocket request and the subprotocol to accept.

    The token stands where :func:`http_token` finds it, or in an offered subprotocol ``bearer.<token>``.
    Browsers fail a connection that offered subprotocols and got none back.
    """
    offered: list[str] = scope.get("subprotocols", [])
    accepted = next((name for name in offered if not name.startswith(_BEARER_SUBPROTOCOL)), None)
    if accepted is None and offered:
        accepted = offered[0]
    token = http_token(scope)
    if token is not None:
        return token, accepted
    for name in offered:
        if name.startswith(_BEARER_SUBPROTOCOL):
            return name.removeprefix(_BEARER_SUBPROTOCOL), accepted
    return None, accepted
