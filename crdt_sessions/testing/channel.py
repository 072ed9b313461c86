"""Two connected channels in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator


class MemoryChannel:
    """One end of a connection in memory, in ``pycrdt.Channel``'s shape. Made in pairs by :meth:`pair`.

    Args:
        path: the channel's name.
        capacity: messages that may be under way; a sender waits while there are more. 0 is no limit.
    """

    def __init__(self, path: str = "memory", capacity: int = 0) -> None:
        self._path = path
        self._inbox: asyncio.Queue[bytes | ConnectionError | None] = asyncio.Queue(capacity)
        self._other = self
        self._open = True

    @classmethod
    def pair(cls, path: str = "memory", capacity: int = 0) -> tuple[MemoryChannel, MemoryChannel]:
        """Return the two ends of a connection."""
        one, other = cls(path, capacity), cls(path, capacity)
        one._other, other._other = other, one
        return one, other

    @property
    def path(self) -> str:
        """The channel's name."""
        return self._path

    async def send(self, message: bytes) -> None:
        """Send one message.

        Raises:
            ConnectionError: the connection is gone.
        """
        if not self._open:
            raise ConnectionResetError
        await self._other._inbox.put(message)

    async def recv(self) -> bytes:
        """Return the next message.

        Raises:
            ConnectionError: the connection is gone.
        """
        message = await self._inbox.get()
        if message is None:
            raise ConnectionResetError
        if isinstance(message, ConnectionError):
            raise message
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield messages until the other end is closed; raise if it broke."""
        while (message := await self._inbox.get()) is not None:
            if isinstance(message, ConnectionError):
                raise message
            yield message

    def close(self) -> None:
        """Close both ends in good order."""
        self._end(None)

    def reset(self) -> None:
        """Break both ends."""
        self._end(ConnectionResetError())

    def _end(self, ending: ConnectionError | None) -> None:
        for end in (self, self._other):
            end._open = False
            end._inbox._maxsize = 0  # type: ignore[attr-defined]  # the end must always fit
            end._inbox.put_nowait(ending)
