"""``/v1/sync/<session>``: the y-websocket protocol; ``/v1/y-sweet/ws/<session>``: the same, for y-sweet's clients."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from crdt_sessions.errors import AccessDenied, BadParameter, CrdtSessionsError
from crdt_sessions.ids import session_id
from crdt_sessions.runtime import Channel, SessionRegistry, Transport
from crdt_sessions.wire import Closing, Codec, PermissionDenied, closing_for, encode
from crdt_sessions.wire.y_sweet import YSweet
from crdt_sessions_server.asgi import SYNC_PREFIX, Y_SWEET_PREFIX, App, Scope, query
from crdt_sessions_server.auth import Admission, Admitted, Permission
from crdt_sessions_server.http.origins import Origins
from crdt_sessions_server.serving.socket_endpoint import SocketEndpoint
from crdt_sessions_server.serving.socket_forwarding import SocketForwarder

_log = logging.getLogger("crdt_sessions.sync_endpoint")
_DENIED = closing_for(AccessDenied(what="")).code


class SyncEndpoint(SocketEndpoint):
    """The sync endpoint around another ASGI application.

    Args:
        app: everything else.
        registry: the sessions.
        admission: who may come in.
        origins: which pages may.
        elsewhere: the other nodes, if there are any.
    """

    prefix = SYNC_PREFIX
    """What the paths that it serves begin with."""

    def __init__(
        self,
        app: App,
        registry: SessionRegistry,
        admission: Admission,
        origins: Origins,
        elsewhere: SocketForwarder | None = None,
    ) -> None:
        super().__init__(app, self.prefix)
        self._elsewhere = elsewhere
        self._registry = registry
        self._admission = admission
        self._origins = origins

    @property
    def max_message_bytes(self) -> int:
        """Larger messages are not read. It is twice our own limit, so that our close code reaches the peer."""
        return 2 * self._registry.limits.max_frame_bytes

    def farewell(self, closing: Closing) -> Sequence[bytes]:
        """See :meth:`SocketEndpoint.farewell`."""
        return [encode(PermissionDenied(closing.reason))] if closing.code == _DENIED else ()

    async def converse(self, scope: Scope, token: str | None, channel: Channel | Transport) -> Closing:
        """See :meth:`SocketEndpoint.converse`."""
        path = scope["path"]
        try:
            name = self._asked(scope)
            session_id(name)  # else there is nothing to be admitted to
            self._origins.check(scope)
            admitted = await self._admission.admit(scope, token, name, Permission.READ)
            self._admission.count_connect(scope, admitted.principal)
            serving = self._serve(scope, name, admitted, channel)
            del scope  # see SocketEndpoint
            return await serving
        except CrdtSessionsError as error:
            closing = closing_for(error)
            _log.info("connection refused: %s", error, extra={"path": path, "close_code": closing.code})
            return closing

    async def _serve(self, scope: Scope, name: str, admitted: Admitted, channel: Channel | Transport) -> Closing:
        principal, session = admitted.principal, session_id(name, admitted.principal.tenant)
        elsewhere = self._elsewhere
        if elsewhere is not None:
            with self._registry.capacity.admitted(principal.tenant, principal.id):
                closing = await self._registry.health.outlast(partial(elsewhere.serve, session, scope, channel))
            if closing is not None:
                return closing
        if not principal.anonymous:
            self._registry.audit.note("session.join", principal.id, session, role=principal.role)
        access = self._admission.live.watch(admitted)
        try:
            serving = self._registry.serve(
                session,
                channel,
                access=access,
                generation=_generation(scope),
                lineage=query(scope).get("lineage"),
                lease=query(scope).get("lease"),
                codec=self._codec(),
            )
            del scope  # see SocketEndpoint
            return await serving
        finally:
            self._admission.live.watch_no_more(access)

    def _asked(self, scope: Scope) -> str:
        """Return the name of the session."""
        return str(scope["path"].removeprefix(self._prefix))

    def _codec(self) -> Codec | None:
        """Return the codec of a connection; None for y-websocket's."""
        return None


class YSweetEndpoint(SyncEndpoint):
    """The endpoint of y-sweet's clients. The arguments are those of :class:`SyncEndpoint`."""

    prefix = Y_SWEET_PREFIX

    def _asked(self, scope: Scope) -> str:
        """A client puts its document behind the URL as it is; the URL that we gave it has the name encoded."""
        return query(scope).get("session") or super()._asked(scope)

    def _codec(self) -> Codec:
        return YSweet(self._registry.limits.max_frame_bytes)


def _generation(scope: Scope) -> int | None:
    text = query(scope).get("generation")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise BadParameter(name="generation", text=text)
    return int(text)
