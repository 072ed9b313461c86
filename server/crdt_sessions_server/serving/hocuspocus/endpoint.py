"""The route of Hocuspocus providers: who may come in, to which document, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable

from crdt_sessions.errors import CrdtSessionsError, ShuttingDown
from crdt_sessions.ids import Millis, SessionId, session_id
from crdt_sessions.limits import Timing
from crdt_sessions.runtime import Channel, SessionRegistry, Transport
from crdt_sessions.runtime.channel import transport_over
from crdt_sessions.wire import Closing, closing_for
from crdt_sessions.wire.hocuspocus import Hocuspocus, Said, Stateless, Token, document_of, pack, token_wanted
from crdt_sessions_server.asgi import App, Scope
from crdt_sessions_server.auth import Admission, Admitted, Permission
from crdt_sessions_server.http.origins import Origins
from crdt_sessions_server.serving.hocuspocus.document import DocumentLine
from crdt_sessions_server.serving.hocuspocus.multiplexer import Multiplexer
from crdt_sessions_server.serving.hocuspocus.passing_on import carry
from crdt_sessions_server.serving.hocuspocus.stateless import StatelessMessages
from crdt_sessions_server.serving.socket_endpoint import SocketEndpoint
from crdt_sessions_server.serving.socket_forwarding import Relay, SocketForwarder
from crdt_sessions_server.serving.websocket import SocketConnection

_log = logging.getLogger("crdt_sessions.hocuspocus")
PATH = "/v1/hocuspocus"
_IN_TIME_S = 30.0
"""How long before its token ends a client is asked for another one. Of a brief one, half of what is left."""


class HocuspocusEndpoint(SocketEndpoint):
    """The endpoint around another ASGI application.

    Args:
        app: everything else.
        registry: the sessions.
        admission: who may come in.
        origins: which pages may.
        timing: periods.
        elsewhere: the other nodes, if there are any.
    """

    def __init__(
        self,
        app: App,
        registry: SessionRegistry,
        admission: Admission,
        origins: Origins,
        timing: Timing,
        elsewhere: SocketForwarder | None = None,
    ) -> None:
        super().__init__(app, PATH)
        self.elsewhere = elsewhere
        """The other nodes, if there are any."""
        self._registry = registry
        self._admission = admission
        self._origins = origins
        self._timing = timing
        self._open: set[Multiplexer] = set()
        self.stateless = StatelessMessages()
        """For the application: what clients say that is not in the document."""

    def accepts(self, scope: Scope) -> bool:
        """See :meth:`SocketEndpoint.accepts`."""
        return bool(scope["path"].rstrip("/") == PATH)

    async def converse(self, scope: Scope, token: str | None, channel: Channel | Transport) -> Closing:
        """See :meth:`SocketEndpoint.converse`."""
        try:
            self._origins.check(scope)
        except CrdtSessionsError as error:
            return closing_for(error)
        limits = self._registry.limits
        if isinstance(channel, SocketConnection):
            channel.limit(limits.max_unauthenticated_bytes)
        host = _Host(self, self._registry, self._admission, scope, token, channel)
        clock = self._registry.clock
        multiplexer = Multiplexer(transport_over(channel), host, limits=limits, timing=self._timing, clock=clock)
        self._open.add(multiplexer)
        try:
            return await multiplexer.serve()
        finally:
            self._open.discard(multiplexer)

    async def stop(self) -> None:
        """Close every connection with 1012; return when all have been told."""
        for multiplexer in list(self._open):
            multiplexer.end(closing_for(ShuttingDown()))
        await self.closed()


class _Host:
    """Lets the client of one socket in to documents."""

    def __init__(
        self,
        endpoint: HocuspocusEndpoint,
        registry: SessionRegistry,
        admission: Admission,
        scope: Scope,
        token: str | None,
        channel: Channel | Transport,
    ) -> None:
        self._stateless = endpoint.stateless
        self._elsewhere = endpoint.elsewhere
        self._registry = registry
        self._admission = admission
        self._scope = scope
        self._token = token
        self._channel = channel

    def trust(self) -> None:
        """See :meth:`Host.trust`."""
        if isinstance(self._channel, SocketConnection):
            self._channel.limit(2 * self._registry.limits.max_frame_bytes)

    async def attend(self, line: DocumentLine, token: str | None) -> Closing:
        """See :meth:`Host.attend`."""
        name = document_of(line.address)
        session_id(name)  # else there is nothing to be admitted to
        admitted = await self._admission.admit(self._scope, token or self._token, name, Permission.READ)
        principal = admitted.principal
        self._admission.count_connect(self._scope, principal)
        session = session_id(name, principal.tenant)
        elsewhere = self._elsewhere
        if elsewhere is not None:

            def pass_on(relay: Relay) -> Awaitable[Closing]:
                return self._pass_on(line, token, admitted, session, relay)

            closing = await self._registry.health.outlast(lambda: elsewhere.follow(session, self._scope, pass_on))
            if closing is not None:
                return closing
        if not principal.anonymous:
            self._registry.audit.note("session.join", principal.id, session, role=principal.role)
        codec = Hocuspocus(self._registry.limits.max_frame_bytes, line.address)
        with self._admission.live.watching(admitted) as access, self._stateless.reaching(session, line):
            line.admit(session, access, principal.expires_at)
            asking = asyncio.create_task(self._ask_in_time(line))
            try:
                return await self._registry.serve(session, line, access=access, codec=codec)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    async def _pass_on(
        self, line: DocumentLine, token: str | None, admitted: Admitted, session: SessionId, relay: Relay
    ) -> Closing:
        """Have another node serve a document, on a socket of its own."""

        async def pass_on(said: Said) -> None:
            await relay.send(pack(line.address, said))

        with (
            self._registry.capacity.admitted(admitted.principal.tenant, admitted.principal.id),
            self._admission.live.watching(admitted) as access,
        ):
            if token is not None:
                await pass_on(Token(token, line.version))
            line.pass_on = pass_on
            line.admit(session, access, admitted.principal.expires_at)
            return await carry(line, relay)

    async def renew(self, line: DocumentLine, token: str) -> None:
        """See :meth:`Host.renew`. A bad one ends the access; an issuer that does not answer changes nothing."""
        assert line.access is not None
        if line.pass_on is not None:
            await line.pass_on(Token(token, line.version))
        try:
            name = document_of(line.address)
            admitted = await self._admission.admit(self._scope, token or self._token, name, Permission.READ)
            self._admission.live.renew(line.access, admitted)
        except CrdtSessionsError as error:
            if closing_for(error).permanent:
                line.access.end(error)
            else:
                _log.warning("a token cannot be renewed: %s", error)
        else:
            line.expires_at = admitted.principal.expires_at
            line.renewed.set()

    async def hear(self, line: DocumentLine, payload: str) -> None:
        """See :meth:`Host.hear`."""
        if line.pass_on is not None:
            await line.pass_on(Stateless(payload))
        else:
            await self._stateless.hear(line, payload)

    async def _ask_in_time(self, line: DocumentLine) -> None:
        """Ask for another token before the one that counts ends, once for each."""
        asked: Millis | None = None
        while line.expires_at is not None:
            if line.expires_at != asked:
                left = (line.expires_at - self._registry.clock.now()) / 1000
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, left - min(_IN_TIME_S, left / 2))):
                        await line.renewed.wait()
                if not line.renewed.is_set():
                    asked = line.expires_at
                    line.write([token_wanted(line.address)])
            await line.renewed.wait()
            line.renewed.clear()
