"""A dialect: what turns the messages of one connection into frames, and frames into messages.

The engine takes and returns frames, and knows none of this. A connection has one codec for as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt_sessions.errors import TooLarge
from crdt_sessions.wire.frames import AN_UPDATE, AwarenessFrame, Frame, Update, decode_whole, encode
from crdt_sessions.wire.varint import ONE_BYTE


@dataclass(slots=True, eq=False)
class Shared:
    """A frame that many connections are sent: it is written once."""

    frame: Update | AwarenessFrame
    written: bytes | None = None
    """As :class:`YWebSocket` writes it, once it has."""


class Codec(Protocol):
    """One dialect."""

    def read(self, message: bytes) -> list[Frame]:
        """Return the frames in a message: all of them, or none.

        Raises:
            WireError: it is not a sequence of whole frames.
            TooLarge: it exceeds the limit.
        """
        ...

    def write(self, frames: Sequence[Frame | Shared]) -> list[bytes]:
        """Return the messages that carry *frames*, in their order."""
        ...


class YWebSocket:
    """The dialect of y-websocket: a message is one frame, or several behind one another.

    Args:
        max_bytes: the limit of a message.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def read(self, message: bytes) -> list[Frame]:
        """See :meth:`Codec.read`."""
        if len(message) > self._max_bytes:
            raise TooLarge(what="a frame", size=len(message), limit=self._max_bytes)
        size = len(message) - 3
        if 0 <= size < ONE_BYTE and message[2] == size and message.startswith(AN_UPDATE):  # as nearly all are
            return [Update(message[3:])]
        return decode_whole(message)

    def write(self, frames: Sequence[Frame | Shared]) -> list[bytes]:
        """See :meth:`Codec.write`."""
        messages: list[bytes] = []
        for frame in frames:  # each token comes by here for each viewer
            if type(frame) is not Shared:
                messages.append(encode(frame))  # type: ignore[arg-type]
                continue
            if frame.written is None:
                frame.written = encode(frame.frame)
            messages.append(frame.written)
        return messages
