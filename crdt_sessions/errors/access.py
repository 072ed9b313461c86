"""Errors of who may do what."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError


class NotAuthenticated(CrdtSessionsError):
    """No token, or one that nobody knows."""

    def __init__(self, *, why: str = "a valid token is required") -> None:
        super().__init__(why)
        self.why = why


class TokenExpired(NotAuthenticated):
    """The token was good when the connection began; the client may come back with a fresh one."""

    def __init__(self) -> None:
        super().__init__(why="the token has expired; come back with a fresh one")


class AccessDenied(CrdtSessionsError):
    """The principal may not do this."""

    def __init__(self, *, what: str) -> None:
        super().__init__(f"not allowed: {what}")
        self.what = what


class ForeignWriter(AccessDenied):
    """An update holds something new by a Yjs client that belongs to another principal."""

    def __init__(self, *, client: int) -> None:
        super().__init__(what=f"the Yjs client {client} belongs to somebody else; begin with a new document")
        self.client = client
