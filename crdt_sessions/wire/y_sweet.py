"""The dialect of y-sweet's clients: that of y-websocket, in which every change is asked about at once.

A client counts its changes, and sends the count (type 102) behind each, and whenever nothing came for two seconds.
What comes back is what it shows as saved, for good: it never takes a count back, also not where a connection began
anew. And it hangs up where a count comes back no more. So this dialect

* returns no count before the client has answered the server's SyncStep1: only that answer brings what was written
  offline, and the count comes first;
* returns, once something was refused, the count before that: it says nothing new, but that the server is there.

Source: ``@y-sweet/client`` 0.9.1; ``docs/protocol.md`` is the normative text.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sessions.wire.codec import Shared, YWebSocket
from crdt_sessions.wire.frames import Ack, Frame, SyncStep2, encode


class YSweet(YWebSocket):
    """The codec of one connection.

    Args:
        max_bytes: the limit of a message.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._answered = False
        """Whether the client has brought what the server lacked."""
        self._early: Ack | None = None
        """The last count that came before that."""
        self._told: Ack | None = None
        """The last count that was returned."""

    def read(self, message: bytes) -> list[Frame]:
        """See :meth:`Codec.read`."""
        frames = super().read(message)
        return frames if self._answered else self._in_order(frames)

    def write(self, frames: Sequence[Frame | Shared]) -> list[bytes]:
        """See :meth:`Codec.write`."""
        messages = super().write(frames)
        counts = [frame for frame in frames if isinstance(frame, Ack)]
        if counts and not self._refused:
            self._told = counts[-1]
        elif counts and self._told is not None:
            messages.append(encode(self._told))
        return messages

    def _in_order(self, frames: Sequence[Frame]) -> list[Frame]:
        ordered: list[Frame] = []
        for frame in frames:
            if isinstance(frame, Ack) and not self._answered:
                self._early = frame
                continue
            ordered.append(frame)
            if isinstance(frame, SyncStep2) and not self._answered:
                self._answered = True
                if self._early is not None:
                    ordered.append(self._early)
        return ordered
