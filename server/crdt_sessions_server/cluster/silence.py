"""A node of which nobody has heard for too long tells nobody anything: others may have gone on without it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from crdt_sessions_server.asgi import App, Receive, Scope, Send

_log = logging.getLogger("crdt_sessions.cluster")
_TOLD_ALWAYS = {"/healthz", "/readyz"}
_UNAVAILABLE = 503


class Silence:
    """Another ASGI application, which says nothing while it may not.

    Args:
        app: the application.
        may_tell: whether this node may tell clients what it has.
    """

    def __init__(self, app: App, may_tell: Callable[[], bool]) -> None:
        self._app = app
        self._may_tell = may_tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan" or scope["path"] in _TOLD_ALWAYS:
            await self._app(scope, receive, send)
            return
        refused = False

        async def tell(event: dict[str, Any]) -> None:
            nonlocal refused
            if refused:
                return
            if self._may_tell() or event["type"] == "websocket.close":
                await send(event)
            elif event["type"] == "http.response.start":
                refused = True
                headers = [(b"retry-after", b"1"), (b"content-length", b"0")]
                await send({**event, "status": _UNAVAILABLE, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                raise ConnectionResetError("others may have gone on without this node")

        try:
            await self._app(scope, receive, tell)
        except ConnectionResetError as error:  # the server hangs up when this returns before the answer's end
            _log.warning("an answer is broken off: %s", error, extra={"path": scope["path"]})
