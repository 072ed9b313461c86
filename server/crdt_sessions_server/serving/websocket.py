"""A WebSocket on a socket of our own: a transport without Hypercorn in between.

Through Hypercorn a message costs several tasks, queues and parsers each way, which is most of the work of a service
that forwards tokens. The listener therefore answers plain HTTP/1.1 requests for a session's WebSocket itself, and
gives the socket's transport this protocol; everything else (HTTP/2, other servers) goes through ASGI
(``docs/decisions/0039-a-listener-of-our-own.md``).

What stands in its frames is the business of :mod:`crdt_sessions_server.serving.framing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from crdt_sessions.errors import TooMany, TooSlow
from crdt_sessions.ids import Millis
from crdt_sessions.runtime import Take
from crdt_sessions.runtime.pace import Pace
from crdt_sessions_server.asgi import ORDERLY
from crdt_sessions_server.serving.framing import Deframer, framed, framed_text

_HIGH_WATER = 256 * 1024
"""Bytes that may wait for a peer's socket before nothing more is written."""
_MESSAGE_BYTES = 50
"""What a message costs beside its bytes."""
_OTHERS_PER_S, _OTHERS_AT_ONCE = 2_000, 20_000
"""Frames that are no whole messages (pings, pongs, fragments), which the pace of messages does not see: so many a
second are read for long, and so many at once."""


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
        self._others: Pace | None = None  # most connections never need it
        self._resting: asyncio.TimerHandle | None = None  # while too many of them came
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
            self._transport.write(framed(messages) if not self._text else framed_text(messages))

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
                self._read_on()
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
        if self._frames.others:
            self._heard_others()
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

    def _heard_others(self) -> None:
        """Answer a ping, and read no more for a while if there were too many frames that are no messages."""
        loop = asyncio.get_running_loop()
        now, count, self._frames.others = Millis(int(loop.time() * 1000)), self._frames.others, 0
        self._answer_ping()
        pace = self._others = self._others or Pace(_OTHERS_PER_S, _OTHERS_AT_ONCE, now)
        if not pace.charge(now, count) and self._resting is None:
            self._resting = loop.call_later(pace.wait_s, self._rested)
            if not self._transport.is_closing():
                self._transport.pause_reading()

    def _rested(self) -> None:
        self._resting = None
        self._heard_others()  # more may have come meanwhile
        self._read_on()

    def _read_on(self) -> None:
        if not self._waiting and self._resting is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _answer_ping(self) -> None:
        if self.writable and not self._transport.is_closing() and (pong := self._frames.pong()):
            self._transport.write(pong)

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
        self._answer_ping()
        self._tell(self._drained)
        self._on_writable()

    def connection_lost(self, error: Exception | None) -> None:
        """See :meth:`asyncio.BaseProtocol.connection_lost`."""
        self._be_patient()
        if self._resting is not None:
            self._resting.cancel()
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
