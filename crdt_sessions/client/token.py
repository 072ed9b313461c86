"""Tokens as an application has them: a text, or something that gets a fresh one whenever a connection begins."""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import httpx

from crdt_sessions.errors import NoToken, RequestRefused
from crdt_sessions.signals import is_cancelled

Token = str | Callable[[], str | Awaitable[str]]
"""A token; or a function that returns one, or a coroutine of one. It is called for every connection and request."""


async def current_token(token: Token | None) -> str | None:
    """Return the token to present now.

    Raises:
        NoToken: the application's function failed.
    """
    if token is None or isinstance(token, str):
        return token
    try:
        found = token()
        return await found if inspect.isawaitable(found) else found
    except (Exception, asyncio.CancelledError) as error:
        if is_cancelled():
            raise
        raise NoToken(error=error) from error


def subject(token: str | None) -> str | None:
    """Return whom a JSON Web Token says it stands for, unverified; None if it says nothing."""
    try:
        payload = (token or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return None
    found: Any = claims.get("sub") if isinstance(claims, dict) else None
    return found if isinstance(found, str) else None


class Bearer(httpx.Auth):
    """Presents a token with every request; one that was refused, not again.

    Raises:
        NoToken: the application's function failed.
        RequestRefused: it has nothing but the token that was refused.
    """

    def __init__(self, token: Token) -> None:
        self._token = token
        self._refused: str | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See :class:`httpx.Auth`."""
        token = await current_token(self._token)
        if token is not None and token == self._refused:
            raise RequestRefused(status=401, problem={"detail": "there is no fresh token yet"})
        request.headers["Authorization"] = f"Bearer {token}"
        answer = yield request
        self._refused = token if answer.status_code == 401 else None
