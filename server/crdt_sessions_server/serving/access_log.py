"""One line for each request, if somebody asked for it. Queries and headers are left out: tokens stand in them."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from hypercorn.logging import Logger

from crdt_sessions_server.asgi import Scope

LOGGER = "crdt_sessions.requests"
_log = logging.getLogger(LOGGER)
_PLAIN = "/:@!$&'()*+,;=~"
_SWITCHED = 101


class AccessLogger(Logger):
    """What Hypercorn tells of requests that it has answered, in our words."""

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        """See :meth:`hypercorn.logging.Logger.access`. Without a *response* the client left before it came."""
        if self.access_logger is not None:
            _tell(request, response["status"] if response is not None else None, request_time)


def tell_websocket(scope: Scope) -> None:
    """Log a WebSocket whose handshake was answered without Hypercorn."""
    _tell(scope, _SWITCHED, None)


def _tell(scope: Scope, status: int | None, seconds: float | None) -> None:
    method = scope.get("method", "WEBSOCKET")
    path = quote(scope["path"], safe=_PLAIN)  # as it came: decoded, it may hold line breaks
    facts: dict[str, Any] = {"address": (scope.get("client") or ("",))[0], "method": method, "path": path}
    if seconds is not None:
        facts["took_ms"] = round(1000 * seconds)
    _log.info("%s %s %s", method, path, status or "cut off", extra={**facts, "status": status})
