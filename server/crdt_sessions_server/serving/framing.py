"""WebSocket frames: a client's, taken apart, and a server's. Source: RFC 6455, section 5.

Whole, unfragmented messages, which is what sync clients send, are taken apart here; all else is left to the
``websockets`` library. Sockets and the loop are not known here, so that it may be compiled
(``docs/decisions/0074-a-compiled-leaf.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from websockets import utils
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

try:
    from websockets.speedups import apply_mask
except ImportError:
    apply_mask = utils.apply_mask

_TEXT, _BINARY, _MASKED = 0x81, 0x82, 0x80
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
        self._kind = Opcode.TEXT if text else Opcode.BINARY
        self._first = _TEXT if text else _BINARY
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 2
        self._library: Protocol | None = None
        self._fragmented = False
        self._pieces: list[bytes] | None = None  # of a message in several frames; None if it is of the other kind
        self.answers = b""
        """Bytes to be sent: pongs, and the answer to a close."""
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
            elif not self._leave_to_library(data[at:stop], messages):
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

    def _too_big(self) -> None:
        protocol = self._protocol()
        protocol.fail(1009, f"more than {self._max} bytes")
        self.answers += b"".join(protocol.data_to_send())
        self.closed = 1009

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

    def _leave_to_library(self, frame: bytes, messages: list[bytes]) -> bool:
        """Have the library take a frame; return whether others may follow it."""
        protocol = self._protocol()
        protocol.receive_data(frame)
        for event in protocol.events_received():
            self._heard(event, messages)
        self.answers += b"".join(protocol.data_to_send())
        if protocol.close_rcvd is not None:
            self.closed, self.over = protocol.close_rcvd.code, True
        elif protocol.parser_exc is not None:
            self.closed = 1002
        return self.closed is None

    def _heard(self, event: Any, messages: list[bytes]) -> None:
        if event.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):
            if event.opcode is not Opcode.CONT:
                self._pieces = [] if event.opcode is self._kind else None
            if self._pieces is not None:
                self._pieces.append(bytes(event.data))
            self._fragmented = not event.fin
            if event.fin:
                messages.append(b"".join(self._pieces or ()))


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
