"""What the runtime needs from a connection.

A session speaks on a :class:`Transport`: writes do not wait, and reads come in batches, so that messages that piled
up are handled together. Callers may also pass a ``pycrdt.Channel``: :class:`ChannelTransport` wraps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, cast

from crdt_sessions.errors import TooSlow


class Channel(Protocol):
    """Ordered bytes to and from one peer. A ``pycrdt.Channel`` is one.

    Iteration ends when the peer closed the connection, and raises :class:`ConnectionError` when it broke.
    ``send`` waits while the peer does not read, and raises :class:`ConnectionError` once it is gone.
    """

    async def send(self, message: bytes) -> None:
        """Send one WebSocket message."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the messages received."""
        ...


Take = Callable[[Sequence[bytes]], Sequence[bytes]]


class Transport(Protocol):
    """A connection that is written to without waiting and read in batches."""

    def open(self, on_writable: Callable[[], None], take: Take, patience_s: float) -> None:
        """Begin.

        Args:
            on_writable: called whenever the transport becomes writable again.
            take: may be called with messages as they arrive, unless earlier ones are still being handled. It returns
                those that it could not take at once; the transport must then yield these in the batches.
            patience_s: if the peer reads nothing for so long, the batches end with :class:`TooSlow`.
        """
        ...

    @property
    def writable(self) -> bool:
        """Whether the peer has read enough."""
        ...

    def write(self, messages: Sequence[bytes]) -> None:
        """Send messages. Messages written while it is not writable pile up in memory."""
        ...

    async def drained(self) -> None:
        """Return once it is writable, or has ended."""
        ...

    def batches(self) -> AsyncIterator[Sequence[bytes]]:
        """Yield the messages received, those that arrived together as one batch; end when the peer closed.

        Raises:
            ConnectionError: the connection broke.
            TooSlow: the peer does not read.
        """
        ...

    async def release(self) -> None:
        """Stop reading and writing."""
        ...


def transport_over(channel: Channel | Transport) -> Transport:
    """Return *channel* if it is a transport, else one over it.

    It looks for a method: an ``isinstance`` check of a protocol takes 75 µs, which slows down each join.
    """
    return cast(Transport, channel) if hasattr(channel, "batches") else ChannelTransport(channel)


class ChannelTransport:
    """A transport over a channel: a task sends what is written, and while it does, the transport is not writable."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._unsent: list[bytes] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer: asyncio.Task[None] | None = None

    def open(self, on_writable: Callable[[], None], take: Take, patience_s: float) -> None:
        """See :meth:`Transport.open`."""
        self._writer = asyncio.create_task(self._send(on_writable, patience_s))

    @property
    def writable(self) -> bool:
        """See :attr:`Transport.writable`."""
        return self._idle.is_set()

    def write(self, messages: Sequence[bytes]) -> None:
        """See :meth:`Transport.write`."""
        self._unsent += messages
        self._idle.clear()
        self._wake.set()

    async def drained(self) -> None:
        """See :meth:`Transport.drained`."""
        assert self._writer is not None
        idle = asyncio.create_task(self._idle.wait())
        await asyncio.wait({idle, self._writer}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()

    async def batches(self) -> AsyncIterator[Sequence[bytes]]:
        """See :meth:`Transport.batches`."""
        assert self._writer is not None
        messages = aiter(self._channel)
        reading: asyncio.Task[bytes | None] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(_next(messages))
                await asyncio.wait({reading, self._writer}, return_when=asyncio.FIRST_COMPLETED)
                if self._writer.done():
                    self._writer.result()
                message = await reading
                if message is None:
                    return
                yield [message]
        finally:
            if reading is not None:
                reading.cancel()

    async def release(self) -> None:
        """See :meth:`Transport.release`."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
            self._writer = None  # its exception refers to this object: a cycle

    async def _send(self, on_writable: Callable[[], None], patience_s: float) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            messages, self._unsent = self._unsent, []
            for message in messages:
                try:
                    async with asyncio.timeout(patience_s):
                        await self._channel.send(message)
                except TimeoutError as error:
                    raise TooSlow(what=f"the peer did not read for {patience_s:g} s") from error
            if not self._unsent:
                self._idle.set()
                on_writable()


async def _next(messages: AsyncIterator[bytes]) -> bytes | None:
    return await anext(messages, None)
