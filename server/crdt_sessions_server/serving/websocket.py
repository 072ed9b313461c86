"""A WebSocket on a socket of our own: a transport without Hypercorn in between.

Through Hypercorn a message costs several tasks, queues and parsers each way, which is most of the work of a service
that forwards tokens. The listener therefore answers plain HTTP/1.1 requests for a session's WebSocket itself, and
gives the socket's transport this protocol; everything else (HTTP/2, other servers) goes through ASGI
(``docs/decisions/0039-a-listener-of-our-own.md``).

Whole, unfragmented binary frames, which is what sync clients send, are taken apart here; all else in RFC 6455 is left
to the ``websockets`` library.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, cast

from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

from crdt_sessions.errors import TooMany, TooSlow
from crdt_sessions.runtime import Take
from crdt_sessions_server.asgi import ORDERLY

_HIGH_WATER = 256 * 1024
"""Bytes that may wait for a peer's socket before nothing more is written."""
_MESSAGE_BYTES = 50
"""What a message costs beside its bytes."""
_TEXT, _BINARY, _MASKED = 0x81, 0x82, 0x80


class SocketConnection(asyncio.Protocol):
    """The connection, as the session's transport. The listener makes it, once it has accepted the request.

    Args:
        transport: the socket's; it is ours from now on.
        max_message_bytes: larger messages close the connection with 1009; more than that of messages that came
            though nothing more was to be read closes it with 1013.
        text: whether its messages are text; binary otherwise.
    """

    def __init__(self, transport: asyncio.Transport, max_message_bytes: int, *, text: bool = False) -> None:
        self._transport = transport
        self._frames = Deframer(max_message_bytes, text=text)
        self._text = text
        self._waiting: list[Sequence[bytes]] = []
        self._piled = 0
        self._max_piled = max_message_bytes
        self._arrived: asyncio.Future[None] | None = None
        self._on_writable: Callable[[], None] = _nothing_to_write
        self._take: Take = _nothing_taken
        self._patience = 0.0
        self._impatient: asyncio.TimerHandle | None = None
        self._refused: TooSlow | TooMany | None = None
        self._drained: asyncio.Future[None] | None = None
        self._gone = asyncio.get_running_loop().create_future()
        self.writable = True
        """See :attr:`Transport.writable`."""

    def limit(self, max_message_bytes: int) -> None:
        """Take larger, or smaller, messages from now on; as many bytes of them may pile up."""
        self._frames.limit(max_message_bytes)
        self._max_piled = max_message_bytes

    def begin(self, response: bytes) -> None:
        """Take the socket, and send the answer to the request for a WebSocket; it comes before all messages."""
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._transport.set_protocol(self)
        self._transport.write(response)

    # -- the transport ---------------------------------------------------------------------------------------------

    def open(self, on_writable: Callable[[], None], take: Take, patience_s: float) -> None:
        """See :meth:`Transport.open`."""
        self._on_writable, self._take, self._patience = on_writable, take, patience_s

    def write(self, messages: Sequence[bytes]) -> None:
        """See :meth:`Transport.write`."""
        if not self._transport.is_closing():  # uvloop's raises, and whoever writes to many must go on
            self._transport.write(_framed(messages) if not self._text else _framed_text(messages))

    async def drained(self) -> None:
        """See :meth:`Transport.drained`."""
        while not (self.writable or self._gone.done()):
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    async def batches(self) -> AsyncIterator[Sequence[bytes]]:
        """See :meth:`Transport.batches`."""
        while True:
            if self._waiting:
                yield self._waiting.pop(0)
                if not self._waiting and not self._transport.is_closing():
                    self._transport.resume_reading()
            elif self._refused is not None:
                raise self._refused
            elif self._frames.closed is not None:
                if self._frames.closed not in ORDERLY:
                    raise ConnectionResetError(f"closed with {self._frames.closed}")
                return
            else:
                self._arrived = asyncio.get_running_loop().create_future()
                await self._arrived

    async def release(self) -> None:
        """See :meth:`Transport.release`."""
        self._on_writable, self._take = _nothing_to_write, _nothing_taken  # what they hold holds this

    async def close(self, code: int, reason: str, hang_up_s: float) -> None:
        """Say why the connection ends; return when it has, after *hang_up_s* or soon."""
        if not self._transport.is_closing():
            self._waiting.clear()
            self._transport.resume_reading()  # the answer stands behind what was never handled
            self._transport.write(self._frames.close(code, reason))
            if self._frames.over:
                self._transport.close()
            await asyncio.wait({self._gone}, timeout=hang_up_s)
            self._transport.abort()
        await asyncio.wait({self._gone})

    def abort(self) -> None:
        """Drop the connection, if it is there yet."""
        self._transport.abort()

    # -- the socket ------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes from the socket."""
        messages: Sequence[bytes] = self._frames.take(data)
        if self._frames.answers and not self._transport.is_closing():
            self._transport.write(self._frames.answers)
            self._frames.answers = b""
        if self._refused is not None:
            messages = ()  # whoever sent them has them
        if messages and (self._waiting or not self._at_rest or (messages := self._take(messages))):
            cost = sum(map(len, messages)) + _MESSAGE_BYTES * len(messages)
            self._piled = self._piled + cost if self._waiting else 0
            if self._piled > self._max_piled:  # the transport goes on reading, whatever it is told
                self._refused = TooMany(what="bytes of messages that wait to be read", limit=self._max_piled)
                self._waiting.clear()
                return
            self._waiting.append(messages)
            self._transport.pause_reading()  # until these are handled
            self._tell(self._arrived)
        if self._frames.closed is not None:
            self._tell(self._arrived)
            if self._frames.over:
                self._transport.close()  # both have said that it ends

    @property
    def _at_rest(self) -> bool:
        """Whether whoever reads the batches waits for more."""
        return self._arrived is not None and not self._arrived.done()

    def eof_received(self) -> None:
        """See :meth:`asyncio.Protocol.eof_received`."""

    def pause_writing(self) -> None:
        """See :meth:`asyncio.BaseProtocol.pause_writing`."""
        self.writable = False
        self._impatient = asyncio.get_running_loop().call_later(self._patience, self._lose_patience)

    def resume_writing(self) -> None:
        """See :meth:`asyncio.BaseProtocol.resume_writing`."""
        self.writable = True
        self._be_patient()
        self._tell(self._drained)
        self._on_writable()

    def connection_lost(self, error: Exception | None) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_lost`."""
        self._be_patient()
        if self._frames.closed is None:
            self._frames.closed = 1006
        self._tell(self._gone)
        self._tell(self._drained)
        self._tell(self._arrived)

    def _lose_patience(self) -> None:
        self._refused = TooSlow(what=f"the peer did not read for {self._patience:g} s")
        self._tell(self._arrived)

    def _be_patient(self) -> None:
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None

    def _tell(self, waiting: asyncio.Future[None] | None) -> None:
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def _nothing_to_write() -> None:
    pass


def _nothing_taken(messages: Sequence[bytes]) -> Sequence[bytes]:
    return messages


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
        at, end = 0, len(data)
        while self.closed is None:
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
                self._leave_to_library(data[at:stop], messages)
            at = stop
        return messages

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

    def _leave_to_library(self, frame: bytes, messages: list[bytes]) -> None:
        protocol = self._protocol()
        protocol.receive_data(frame)
        for event in protocol.events_received():
            self._heard(event, messages)
        self.answers += b"".join(protocol.data_to_send())
        if protocol.close_rcvd is not None:
            self.closed, self.over = protocol.close_rcvd.code, True
        elif protocol.parser_exc is not None:
            self.closed = 1002

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


def _framed(messages: Sequence[bytes]) -> bytes:
    """Return *messages* as frames. Many peers are sent the same one after the other, so the last one is kept."""
    if len(messages) > 1:
        return b"".join([part for each in messages for part in (header(each), each)])
    (message,) = messages
    if len(message) > _SHARED:
        return header(message) + message
    if message is not _last[0]:
        _last[:] = (message, header(message) + message)
    return cast(bytes, _last[1])


def _framed_text(messages: Sequence[bytes]) -> bytes:
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
