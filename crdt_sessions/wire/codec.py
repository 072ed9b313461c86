"""A dialect: what turns the messages of one connection into frames, and frames into messages.

The engine takes and returns frames, and knows none of this. A connection has one codec for as long as it lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt_sessions.errors import TooLarge
from crdt_sessions.wire.frames import (
    AN_UPDATE,
    Ack,
    AwarenessFrame,
    Frame,
    PermissionDenied,
    SyncStep1,
    Update,
    decode_whole,
    encode,
    sole_update,
)
from crdt_sessions.wire.insertions import Insertions
from crdt_sessions.wire.varint import MAX_CLIENTS, ONE_BYTE, check_clients


@dataclass(slots=True, eq=False)
class Shared:
    """A frame that many connections are sent: it is written once."""

    frame: Update | AwarenessFrame
    written: bytes | None = None
    """As :class:`YWebSocket` writes it, once it has."""
    addressed: tuple[bytes, bytes] | None = None
    """An address, and the frame behind it, as :class:`~crdt_sessions.wire.hocuspocus.Hocuspocus` wrote it last."""


class Codec(Protocol):
    """One dialect."""

    def read(self, message: bytes) -> list[Frame]:
        """Return the frames in a message: all of them, or none.

        Raises:
            WireError: it is not a sequence of whole frames.
            TooLarge: it exceeds the limit, or its state vectors that of their entries.
        """
        ...

    def joined(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        """Return messages that say the same, but what one client inserted in a row is one insertion.

        A stream of tokens that has piled up is then taken, stored and sent on as if it had been written at once.

        Args:
            messages: messages of one peer, in their order.
        """
        ...

    def write(self, frames: Sequence[Frame | Shared]) -> list[bytes]:
        """Return the messages that carry *frames*, in their order."""
        ...


def in_rows(messages: Sequence[bytes]) -> list[bytes | Insertions]:
    """Return *messages*, in their order, but what was inserted in a row as one."""
    pieces: list[bytes | Insertions] = []
    at = 0
    while at < len(messages):
        update = sole_update(message := messages[at])
        row = Insertions.begin(update) if update is not None else None
        pieces.append(row or message)
        at = row.take(messages, at + 1) if row is not None else at + 1
    return pieces


class YWebSocket:
    """The dialect of y-websocket: a message is one frame, or several behind one another.

    Args:
        max_bytes: the limit of a message.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._refused = False
        """Whether something was refused: an Ack says that all before it is durable, so there is none any more."""

    def read(self, message: bytes) -> list[Frame]:
        """See :meth:`Codec.read`."""
        if len(message) > self._max_bytes:
            raise TooLarge(what="a frame", size=len(message), limit=self._max_bytes)
        size = len(message) - 3
        if 0 <= size < ONE_BYTE and message[2] == size and message.startswith(AN_UPDATE):  # as nearly all are
            return [Update(message[3:])]
        frames = decode_whole(message)
        if len(message) > MAX_CLIENTS:  # each takes two bytes
            check_clients(*[frame.state_vector for frame in frames if isinstance(frame, SyncStep1)])
        return frames

    def joined(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        """See :meth:`Codec.joined`."""
        return [piece if isinstance(piece, bytes) else encode(Update(piece.update())) for piece in in_rows(messages)]

    def write(self, frames: Sequence[Frame | Shared]) -> list[bytes]:
        """See :meth:`Codec.write`."""
        messages: list[bytes] = []
        for frame in frames:  # each token comes by here for each viewer
            if type(frame) is not Shared:
                self._refused = self._refused or isinstance(frame, PermissionDenied)
                if not (self._refused and isinstance(frame, Ack)):
                    messages.append(encode(frame))  # type: ignore[arg-type]
                continue
            if frame.written is None:
                frame.written = encode(frame.frame)
            messages.append(frame.written)
        return messages
