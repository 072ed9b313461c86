"""``/v1/sync/<session>``: the y-websocket protocol as raw ASGI, in front of Quart.

Quart would queue inbound frames without bound and cost a third of the throughput
(``docs/decisions/0003-raw-asgi-sync-endpoint.md``). A refusal comes after the accept, as a close code: a 401
before it reaches browsers as 1006, and they retry for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from crdt_sessions.errors import AccessDenied, BadParameter, CrdtSessionsError
from crdt_sessions.ids import session_id
from crdt_sessions.runtime import Channel, SessionRegistry, Transport
from crdt_sessions.wire import Closing, PermissionDenied, closing_for, encode
from crdt_sessions_server.asgi import SYNC_PREFIX, App, Receive, Scope, Send, query, websocket_token
from crdt_sessions_server.auth import Admission, Admitted, Permission
from crdt_sessions_server.http.origins import Origins
from crdt_sessions_server.serving.asgi_channel import HANG_UP_S, AsgiChannel, Departures
from crdt_sessions_server.serving.listener import Endpoint
from crdt_sessions_server.serving.websocket import SocketConnection

_log = logging.getLogger("crdt_sessions.sync_endpoint")
_DENIED = closing_for(AccessDenied(what="")).code


class SyncEndpoint:
    """The sync endpoint around another ASGI application.

    Args:
        app: everything else.
        registry: the sessions.
        admission: who may come in.
        origins: which pages may.
    """

    def __init__(
        self,
        app: App,
        registry: SessionRegistry,
        admission: Admission,
        origins: Origins,
    ) -> None:
        self._app = app
        self._registry = registry
        self._admission = admission
        self._origins = origins
        self._serving: set[asyncio.Task[None]] = set()
        self._departures = Departures()

    def greet(self, scope: Scope, token: str | None, line: SocketConnection) -> None:
        """Serve a WebSocket whose request was answered already; return at once."""
        self._start(self._serve_line(scope, token, line))

    @property
    def endpoint(self) -> Endpoint:
        """For listeners, which answer requests themselves."""
        return Endpoint(SYNC_PREFIX, self.greet)

    @property
    def max_message_bytes(self) -> int:
        """Larger messages are not read. It is twice our own limit, so that our close code reaches the peer."""
        return 2 * self._registry.limits.max_frame_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "websocket" or not scope["path"].startswith(SYNC_PREFIX):
            await self._app(scope, receive, send)
            return
        connect = await receive()
        if connect["type"] != "websocket.connect":
            return
        token, subprotocol = websocket_token(scope)
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        await self._start(self._serve_asgi(scope, token, receive, send))

    def _start(self, serving: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(serving)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return task

    async def closed(self) -> None:
        """Return once every connection has been told that it is closed."""
        while self._serving:
            await asyncio.wait(set(self._serving))

    async def _serve_line(self, scope: Scope, token: str | None, line: SocketConnection) -> None:
        try:
            closing = await self._admit(scope, token, line)
            if closing.code == _DENIED:
                line.write([encode(PermissionDenied(closing.reason))])
            await line.close(closing.code, closing.reason, HANG_UP_S)
        finally:
            line.abort()  # nobody else would

    async def _serve_asgi(self, scope: Scope, token: str | None, receive: Receive, send: Send) -> None:
        channel = AsgiChannel(scope["path"], receive, send)
        closing = await self._admit(scope, token, channel)
        if channel.ended:
            return
        if closing.code == _DENIED:
            await channel.send(encode(PermissionDenied(closing.reason)))
        await send({"type": "websocket.close", "code": closing.code, "reason": closing.reason})
        await self._departures.see_off(receive)

    async def _admit(self, scope: Scope, token: str | None, channel: Channel | Transport) -> Closing:
        try:
            name = scope["path"].removeprefix(SYNC_PREFIX)
            session_id(name)  # else there is nothing to be admitted to
            self._origins.check(scope)
            admitted = await self._admission.admit(scope, token, name, Permission.READ)
            self._admission.count_connect(scope, admitted.principal)
            return await self._serve(scope, name, admitted, channel)
        except CrdtSessionsError as error:
            closing = closing_for(error)
            _log.info("connection refused: %s", error, extra={"path": scope["path"], "close_code": closing.code})
            return closing

    async def _serve(self, scope: Scope, name: str, admitted: Admitted, channel: Channel | Transport) -> Closing:
        principal, session = admitted.principal, session_id(name, admitted.principal.tenant)
        if not principal.anonymous:
            self._registry.audit.note("session.join", principal.id, session, role=principal.role)
        with self._admission.live.watching(admitted) as access:
            return await self._registry.serve(
                session,
                channel,
                access=access,
                generation=_generation(scope),
                lineage=query(scope).get("lineage"),
                lease=query(scope).get("lease"),
            )


def _generation(scope: Scope) -> int | None:
    text = query(scope).get("generation")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise BadParameter(name="generation", text=text)
    return int(text)
