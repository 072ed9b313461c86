"""WebSockets of sessions that another node serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import Channel, Transport
from crdt_sessions.wire import Closing
from crdt_sessions_server.asgi import Scope


class Relay(Protocol):
    """A socket to the node that serves a session."""

    async def send(self, message: bytes | str) -> None:
        """Send a message; wait while the node does not read. To one that has gone nothing is sent."""
        ...

    def messages(self) -> AsyncIterator[bytes | str]:
        """Yield what comes until the node hangs up."""
        ...

    @property
    def closing(self) -> Closing:
        """How the node closed it."""
        ...


class SocketForwarder(Protocol):
    """Has WebSockets served by other nodes."""

    async def serve(self, session: SessionId, scope: Scope, channel: Channel | Transport) -> Closing | None:
        """Have a WebSocket served by the node that has a session; return how it ended, None if that is this one."""
        ...

    async def follow(
        self, session: SessionId, scope: Scope, carry: Callable[[Relay], Awaitable[Closing]]
    ) -> Closing | None:
        """Have *carry* use a socket to the node that has a session; return what it does, None if that is this one."""
        ...
