"""One document of a socket, as the transport of a session's connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.runtime import Access, Take, Transport
from crdt_sessions.sync import Rights
from crdt_sessions.wire import hocuspocus
from crdt_sessions.wire.hocuspocus import Said
from crdt_sessions.wire.varint import string

_MESSAGE_BYTES = 50
"""What a message costs beside its bytes."""


class Backlog:
    """What has come on a socket and is not handled yet, of all its documents together.

    Args:
        limit: so many bytes of it are enough.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes = 0
        self._less = asyncio.Event()

    def add(self, size: int) -> None:
        """Note that something came, or, if *size* is negative, that it was handled."""
        self._bytes += size
        if size < 0:
            self._less.set()

    @property
    def full(self) -> bool:
        """Whether there is no room for more."""
        return self._bytes > self.limit

    async def room(self) -> None:
        """Return once there is room for more."""
        while self.full:
            self._less.clear()
            await self._less.wait()


class DocumentLine:
    """What belongs to one address of a socket. A session speaks on it as on any transport.

    What comes before the session does waits here, such as what a provider sends behind its token at once.

    Args:
        address: with which every message begins.
        socket: the connection, which other documents use, too.
        backlog: counts what waits.
    """

    def __init__(self, address: str, socket: Transport, backlog: Backlog) -> None:
        self.address = address
        self.head = string(address)
        """The address as most clients write it in front of their messages."""
        self.version: str | None = None
        """The provider's, if it says it: those before 4.0 do not."""
        self.attached = False
        """Whether a session speaks on it, or has."""
        self.over = False
        """Whether the client has left, or was told to: nothing is written to it any more."""
        self.access: Access | None = None
        """The client's, once it was let in."""
        self.expires_at: Millis | None = None
        """When the client's token ends."""
        self.renewed = asyncio.Event()
        self.session: SessionId | None = None
        self.unheard: list[str] = []
        """Texts for the application that came before the client was let in."""
        self.pass_on: Callable[[Said], Awaitable[None]] | None = None
        """Takes what the client says besides the document, where another node serves it."""
        self.on_admitted: Callable[[], None] = _nothing
        self._socket = socket
        self._backlog = backlog
        self._waiting: list[bytes] = []
        self._cost = 0
        self._idle = False
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self._on_writable: Callable[[], None] = _nothing
        self._take: Take = _untaken

    # -- the socket's side -----------------------------------------------------------------------------------------

    def put(self, messages: Sequence[bytes]) -> None:
        """Take messages of the client that came together, without their address."""
        if self.over:
            return
        if self._idle and not self._waiting:
            messages = self._take(messages)
        if messages:
            self._waiting += messages
            self._count(sum(map(len, messages)) + _MESSAGE_BYTES * len(messages))
            self._arrived.set()

    def writable_again(self) -> None:
        """Note that the socket takes more."""
        self._on_writable()

    def end(self, error: Exception | None = None) -> None:
        """Note that the client has left, in order or because of *error*. What has come is still handled, in order."""
        self.over = True
        self._error = error
        self._arrived.set()

    def forget(self) -> None:
        """Drop what nobody will handle, and whoever holds this."""
        self._waiting = []
        self._count(-self._cost)
        self.on_admitted = _nothing
        self.pass_on = None
        if self.access is not None:
            self.access.on_rights = None
            self.access = None  # it holds the connection, which holds this

    def put_text(self, payload: str) -> None:
        """Keep a text for the application until the client is let in."""
        self.unheard.append(payload)
        self._count(len(payload) + _MESSAGE_BYTES)

    def admit(self, session: SessionId, access: Access, expires_at: Millis | None) -> None:
        """Note who the client is, and what its document is called here."""
        self.session, self.access, self.expires_at = session, access, expires_at
        access.on_rights = self._tell_rights
        self.on_admitted()

    def _tell_rights(self, rights: Rights) -> None:
        if self.attached:
            self.write([hocuspocus.authenticated(self.address, writes=rights.write)])

    def _count(self, size: int) -> None:
        self._cost += size
        self._backlog.add(size)

    # -- the session's side ----------------------------------------------------------------------------------------

    def open(self, on_writable: Callable[[], None], take: Take, patience_s: float) -> None:
        """See :meth:`Transport.open`. Now the client is let in, and hears so."""
        self._on_writable, self._take, self.attached = on_writable, take, True
        if self.access is not None:
            self._tell_rights(self.access.rights)

    @property
    def writable(self) -> bool:
        """See :attr:`Transport.writable`."""
        return self._socket.writable

    def write(self, messages: Sequence[bytes]) -> None:
        """See :meth:`Transport.write`."""
        if not self.over:
            self._socket.write(messages)

    async def drained(self) -> None:
        """See :meth:`Transport.drained`."""
        await self._socket.drained()

    async def batches(self) -> AsyncIterator[Sequence[bytes]]:
        """See :meth:`Transport.batches`."""
        while True:
            if self._waiting:
                batch, self._waiting = self._waiting, []
                cost = self._cost
                yield batch
                self._count(-min(cost, self._cost))
            elif self.over:
                if self._error is not None:
                    raise self._error
                return
            else:
                self._idle = True
                self._arrived.clear()
                await self._arrived.wait()
                self._idle = False

    async def release(self) -> None:
        """See :meth:`Transport.release`."""
        self._on_writable, self._take, self._idle = _nothing, _untaken, False


def _nothing() -> None:
    pass


def _untaken(messages: Sequence[bytes]) -> Sequence[bytes]:
    return messages
