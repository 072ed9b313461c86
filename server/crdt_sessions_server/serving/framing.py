"""WebSocket frames: a client's, taken apart, and a server's. Source: RFC 6455, section 5.

What clients may send often is taken apart here; how a connection closes, and what RFC 6455 forbids, is left to the
``websockets`` library. Sockets and the loop are not known here, so that it may be compiled
(``docs/decisions/0074-a-compiled-leaf.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from websockets import utils
from websockets.protocol import Protocol, Side, State

try:
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = utils.apply_mask

_CONTINUED, _TEXT, _BINARY, _PING, _PONG = 0x00, 0x81, 0x82, 0x89, 0x8A
_LAST, _MASKED = 0x80, 0x80
"""Bits of the first and the second byte: it is the last frame of its message; its payload is masked."""
_SHORT = 126
"""Payloads of fewer bytes have their size in one."""


class Deframer:
    """Takes a client's WebSocket frames apart. Source: RFC 6455, section 5.

    Args:
        max_message_bytes: larger messages are refused with 1009.
        text: whether messages are text. One of the other kind is no message of the protocol's, and becomes empty.
    """

    def __init__(self, max_message_bytes: int, *, text: bool = False) -> None:
        self._max = max_message_bytes
        self._first = _TEXT if text else _BINARY
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 2
        self._library: Protocol | None = None
        self._fragmented = False
        self._pieces: bytearray | None = None  # of a message in several frames; None if it is of the other kind
        self._ping = b""
        self.others = 0
        """Number of frames so far that were no whole messages. Whoever bounds their pace may set it back."""
        self.answers = b""
        """Bytes to be sent: what closes the connection."""
        self.closed: int | None = None
        """The code the client closed with; 1005 if it gave none."""
        self.over = False
        """Whether both sides have said that the connection ends."""

    def limit(self, max_message_bytes: int) -> None:
        """Refuse larger messages from now on."""
        self._max = max_message_bytes
        if self._library is not None:
            self._library.max_message_size = max_message_bytes

    def take(self, data: bytes) -> list[bytes]:
        """Take bytes; return the messages that are whole."""
        messages: list[bytes] = []
        if self.closed is not None:
            return messages
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return messages
            data = b"".join(self._parts)
            self._parts = []
        at, end = self._take_short(data, messages), len(data)
        while True:
            head, size = _extent(data, at)
            if size > self._max:
                self._too_big()
                break
            stop = at + head + size
            if stop > end:
                self._keep(data[at:], head + size)
                break
            if data[at] == self._first and data[at + 1] & _MASKED and not self._fragmented:
                messages.append(apply_mask(data[at + head : stop], data[at + head - 4 : at + head]))
            else:
                self.others += 1
                if not self._take_other(data[at:stop], head, messages):
                    break
            at = self._take_short(data, messages, stop)
        return messages

    def _take_short(self, data: bytes, messages: list[bytes], at: int = 0) -> int:
        """Take whole messages in short frames, as nearly all are, from *at* on; return where others begin."""
        if self._fragmented or self._max < _SHORT:
            return at
        first, last = self._first, len(data) - 6
        while at <= last and data[at] == first and _MASKED <= (size := data[at + 1]) < _MASKED + _SHORT:
            text = at + 6
            stop = text + size - _MASKED
            if stop > last + 6:
                break
            messages.append(apply_mask(data[text:stop], data[at + 2 : text]))
            at = stop
        return at

    def _keep(self, rest: bytes, need: int) -> None:
        """Remember the beginning of a frame of which at least *need* bytes are needed."""
        self._parts = [rest] if rest else []
        self._have, self._need = len(rest), need

    def _too_big(self) -> bool:
        return self._fail(1009, f"more than {self._max} bytes")

    def _fail(self, code: int, reason: str) -> bool:
        """Close the connection; no frame may follow."""
        protocol = self._protocol()
        protocol.fail(code, reason)
        self.answers += b"".join(protocol.data_to_send())
        self.closed = code
        return False

    def close(self, code: int, reason: str) -> bytes:
        """Return the bytes that say that the connection ends."""
        protocol = self._protocol()
        if protocol.state is not State.OPEN:
            return b""
        protocol.send_close(code, reason)
        return b"".join(protocol.data_to_send())

    def _protocol(self) -> Protocol:
        if self._library is None:  # most connections never need it
            self._library = Protocol(Side.SERVER, state=State.OPEN, max_size=self._max)
        return self._library

    def _take_other(self, frame: bytes, head: int, messages: list[bytes]) -> bool:
        """Take a frame that is no whole message; return whether others may follow it."""
        first, kind = frame[0], frame[0] & ~_LAST
        if frame[1] & _MASKED:
            if kind == _CONTINUED and self._fragmented:
                return self._take_piece(frame, head, messages)
            if kind in (_TEXT & ~_LAST, _BINARY & ~_LAST):
                if self._fragmented:
                    return self._fail(1002, "expected a continuation frame")
                self._pieces = bytearray() if kind == self._first & ~_LAST else None
                return self._take_piece(frame, head, messages)
            if first in (_PING, _PONG) and len(frame) - head < _SHORT:
                self._ping = frame if first == _PING else self._ping
                return True
        return self._leave_to_library(frame)

    def _take_piece(self, frame: bytes, head: int, messages: list[bytes]) -> bool:
        if self._pieces is not None:
            if len(self._pieces) + len(frame) - head > self._max:
                return self._too_big()
            self._pieces += apply_mask(frame[head:], frame[head - 4 : head])
        self._fragmented = not frame[0] & _LAST
        if not self._fragmented:
            messages.append(bytes(self._pieces or b""))
            self._pieces = None
        return True

    def _leave_to_library(self, frame: bytes) -> bool:
        """Have the library take a frame, which closes or is none; return whether others may follow it."""
        protocol = self._protocol()
        protocol.receive_data(frame)
        self.answers += b"".join(protocol.data_to_send())
        if protocol.close_rcvd is not None:
            self.closed, self.over = protocol.close_rcvd.code, True
        elif protocol.parser_exc is not None:
            self.closed = 1002
        return self.closed is None

    def pong(self) -> bytes:
        """Return the answer to the last ping that has none, if any; those before it need none (section 5.5.3)."""
        ping, self._ping = self._ping, b""
        return header(ping[6:], _PONG) + apply_mask(ping[6:], ping[2:6]) if ping else b""


def _extent(data: bytes, at: int) -> tuple[int, int]:
    """Return the sizes of a frame's header and payload; of the header alone, as far as that can be told."""
    if len(data) < at + 2:
        return 2, 0
    size, head = data[at + 1] & 0x7F, 2
    if size >= 126:
        wide = 2 if size == 126 else 8
        head += wide
        size = int.from_bytes(data[at + 2 : at + head], "big") if len(data) >= at + head else 0
    return head + (4 if data[at + 1] & _MASKED else 0), size


def framed(messages: Sequence[bytes]) -> bytes:
    """Return *messages* as frames. Many peers are sent the same one after the other, so the last one is kept."""
    if len(messages) > 1:
        return b"".join([part for each in messages for part in (header(each), each)])
    (message,) = messages
    if len(message) > _SHARED:
        return header(message) + message
    if message is not _last[0]:
        _last[:] = (message, header(message) + message)
    return cast(bytes, _last[1])


def framed_text(messages: Sequence[bytes]) -> bytes:
    """Return *messages* as frames of text."""
    return b"".join([part for each in messages for part in (header(each, _TEXT), each)])


_SHARED = 64 * 1024
_last: list[Any] = [None, b""]  # a message, and its frame


def header(message: bytes, first: int = _BINARY) -> bytes:
    """Return the header of a server's frame with *message* in it; its *first* byte says of which kind it is."""
    size = len(message)
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")
