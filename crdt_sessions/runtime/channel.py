"""What the runtime needs of a connection.

A :class:`Transport` is what a session speaks on: it is written to without waiting, and read in batches, so that what
piled up is one piece of work. Whoever has a ``pycrdt.Channel`` need not care: :class:`ChannelTransport` makes one
of it.
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
            take: may be called with messages as they come, while nobody is at work on earlier ones; it returns
                those that it could not take at once, which are then to be found in the batches.
            patience_s: a peer that reads nothing for so long ends the batches with :class:`TooSlow`.
        """
        ...

    @property
    def writable(self) -> bool:
        """Whether the peer has read enough."""
        ...

    def write(self, messages: Sequence[bytes]) -> None:
        """Send messages. Whoever writes to a transport that is not writable fills memory."""
        ...

    async def drained(self) -> None:
        """Return once it is writable, or gone."""
        ...

    def batches(self) -> AsyncIterator[Sequence[bytes]]:
        """Yield the messages that have come, several at once if they came so; end when the peer closed.

        Raises:
            ConnectionError: the connection broke.
            TooSlow: the peer does not read.
        """
        ...

    async def release(self) -> None:
        """Stop; nothing is written or read any more."""
        ...


def transport_over(channel: Channel | Transport) -> Transport:
    """Return *channel* if it is a transport, else one over it.

    A method tells: to ask whether something is a protocol takes 75 µs, which is felt by those who join.
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
            self._writer = None  # how it ended holds this

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
