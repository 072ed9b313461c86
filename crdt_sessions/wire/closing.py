"""WebSocket close codes: number, meaning, whether the client should come back.

y-websocket 3.1 and later never come back after 4400-4499 and retry after everything else, so a transient
condition never uses that range. ``docs/protocol.md`` lists the codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from crdt_sessions import errors

MAX_REASON_BYTES = 123
"""RFC 6455, section 5.5: a control frame holds 125 bytes, two of them the code."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a connection ends."""

    code: int
    reason: str

    @property
    def permanent(self) -> bool:
        """Whether the client must not come back by itself."""
        return is_permanent(self.code)


CLOSE_CODES: dict[type[errors.CrdtSessionsError], int] = {
    errors.WireError: 4400,
    errors.UpdateError: 4400,
    errors.BadSessionId: 4400,
    errors.BadId: 4400,
    errors.BadTenant: 4400,
    errors.BadParameter: 4400,
    errors.NotAuthenticated: 4401,
    errors.TokenExpired: 4501,
    errors.AccessDenied: 4403,
    errors.LeaseLost: 4403,
    errors.SessionClosed: 4403,
    errors.SessionNotFound: 4404,
    errors.WrongGeneration: 4409,
    errors.WrongLineage: 4409,
    errors.TooLarge: 4413,
    errors.ShuttingDown: 1012,
    errors.TooSlow: 1013,
    errors.TooMany: 1013,
    errors.Overloaded: 1013,
    errors.StorageError: 4503,
    errors.SessionFailed: 1011,
    errors.Fenced: 1012,
    errors.HeldElsewhere: 1012,  # clients come back at once, and to all that a socket carries
    errors.NodeUnreachable: 1012,
}
"""Error to close code; a subclass without an entry of its own takes its parent's."""

INTERNAL_ERROR = Closing(1011, "internal error")
NORMAL = Closing(1000, "")


def is_permanent(code: int) -> bool:
    """Whether y-websocket >= 3.1, and so every client of ours, stops after *code*."""
    return 4400 <= code <= 4499


def closing_for(error: errors.CrdtSessionsError) -> Closing:
    """Return how *error* ends a connection; 1011 for an error that says nothing to peers."""
    for kind in type(error).__mro__:
        if kind in CLOSE_CODES:
            return Closing(CLOSE_CODES[kind], _shorten(str(error)))
    return INTERNAL_ERROR


def _shorten(reason: str) -> str:
    return reason.encode("utf-8")[:MAX_REASON_BYTES].decode("utf-8", errors="ignore")
