"""What the runtime needs of a connection: ``pycrdt.Channel``'s shape."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


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
