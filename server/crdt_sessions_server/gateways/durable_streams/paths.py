"""Paths of streams: which of them are streams of their own, and what they are called outside."""

from __future__ import annotations

import re

from quart import request

from crdt_sessions.errors import AccessDenied, BadStreamRequest
from crdt_sessions.runtime.subscription_store import RESERVED
from crdt_sessions_server.auth import Principal

NAME = re.compile(r"[^\u0000-\u001F\u007F-\u009F\ud800-\udfff]{1,200}")
"""Names of subscriptions."""
VIEWS = ("sessions", "yjs")
"""First segments of paths that show sessions."""
_PATH = re.compile(r"[^\u0000-\u001F\u007F-\u009F\ud800-\udfff]{1,500}")
RESERVED_FIRST = (RESERVED, *VIEWS)
"""First segments that no stream of its own has."""


def check_own(path: str) -> None:
    """Return if a *path* can be that of a stream of its own.

    Raises:
        BadStreamRequest: it cannot.
    """
    segments = path.split("/")
    if _PATH.fullmatch(path) is None or not {"", ".", ".."}.isdisjoint(segments) or segments[0] in RESERVED_FIRST:
        raise BadStreamRequest(
            why=f"a stream's path has 1 to 500 characters, no control characters, none of the segments '', '.' and"
            f" '..', and does not begin with {' or '.join(RESERVED_FIRST)}"
        )


def entered(path: str, principal: Principal) -> str:
    """Return the tenant whose stream a *path* names for *principal*.

    Raises:
        BadStreamRequest: it cannot name one.
        AccessDenied: the token is not for it.
    """
    check_own(path)
    if not principal.may_enter(path):
        raise AccessDenied(what="this token is not for that stream")
    return principal.tenant


def here() -> str:
    """Return the URL that is asked for, as it was spelled, without its query."""
    raw = request.scope.get("raw_path")
    path = request.path if raw is None else raw.partition(b"?")[0].decode("latin-1")
    return f"{request.scheme}://{request.host}{path}"
