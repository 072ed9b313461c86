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

from crdt_sessions.client.foreign import end_all
from crdt_sessions.errors import NoToken, RequestRefused
from crdt_sessions.signals import is_cancelled

Token = str | Callable[[], str | Awaitable[str]]
"""A token; or a function that returns one, or a coroutine of one. It is called for every connection and request.

A coroutine that has not returned in 30 s has failed: it is cancelled, and the function is called again with the next
attempt. A function that is none must not block.
"""

_PATIENCE_S = 30.0


async def current_token(token: Token | None, *, patience_s: float | None = None) -> str | None:
    """Return the token to present now.

    Args:
        token: as the application gave it.
        patience_s: how long a coroutine may take, if not as long as :data:`Token` says.

    Raises:
        NoToken: the application's function failed, or has not returned in time.
    """
    if token is None or isinstance(token, str):
        return token
    try:
        found = token()
        return await _fetched(found, patience_s or _PATIENCE_S) if inspect.isawaitable(found) else found
    except NoToken:
        raise
    except (Exception, asyncio.CancelledError) as error:
        if is_cancelled():
            raise
        raise NoToken(error=error) from error


async def _fetched(work: Awaitable[str], patience_s: float) -> str:
    fetching = asyncio.ensure_future(work)
    try:
        await asyncio.wait({fetching}, timeout=patience_s)
        if not fetching.done():
            raise NoToken(error=TimeoutError(), waited_s=patience_s)
        return fetching.result()
    finally:
        await end_all([fetching], "the function for tokens")


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
        NoToken: the application's function failed, or has not returned in time.
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
