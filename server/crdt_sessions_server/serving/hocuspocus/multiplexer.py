"""One socket of a provider: takes its messages apart by address, and lets each document be served by its session.

A document is *pending* until its session speaks on it, and gone once it was refused or left; then its address may be
used again, with another token. What comes for an address that is neither is dropped: providers go on writing for a
while, and bring it again when they come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from crdt_sessions.clock import Clock
from crdt_sessions.errors import CrdtSessionsError, TooLarge, TooMany
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.runtime import Transport
from crdt_sessions.runtime.pace import Pace
from crdt_sessions.wire import Closing, closing_for, hocuspocus
from crdt_sessions.wire.closing import INTERNAL_ERROR, NORMAL
from crdt_sessions.wire.hocuspocus import PING, PONG, Content, Leave, Said, Stateless, Token
from crdt_sessions.wire.varint import string
from crdt_sessions_server.serving.hocuspocus.document import Backlog, DocumentLine

_log = logging.getLogger("crdt_sessions.hocuspocus")
_TRY_LATER = closing_for(TooMany(what="", limit=0)).code
_UNUSED = Closing(4408, "no document was authenticated in time")
_UNUSED_S = 60.0
"""How long a socket that had a document may be without one."""


class Host(Protocol):
    """Lets clients in to documents."""

    async def attend(self, line: DocumentLine, token: str | None) -> Closing:
        """Serve a document until its client leaves; return how it ended.

        Raises:
            CrdtSessionsError: the client is not let in.
        """

    async def renew(self, line: DocumentLine, token: str) -> None:
        """Take another token of a client that is served."""

    async def hear(self, line: DocumentLine, payload: str) -> None:
        """Take a text for the application."""

    def trust(self) -> None:
        """Note that the client was let in to something."""


class Multiplexer:
    """Serves one socket.

    Args:
        socket: the connection.
        host: serves its documents.
        limits: sizes.
        timing: periods.
        clock: the only source of time.
    """

    def __init__(self, socket: Transport, host: Host, *, limits: Limits, timing: Timing, clock: Clock) -> None:
        self._socket = socket
        self._host = host
        self._limits = limits
        self._timing = timing
        self._clock = clock
        self._pace = Pace(limits.messages_per_s, limits.message_burst, clock.now())
        self._backlog = Backlog(limits.max_unauthenticated_bytes)
        self._trusted = False
        self._lines: dict[bytes, DocumentLine] = {}
        self._counted = 0  # messages that the pace has counted and that are not handled yet
        self._tokens: dict[str, None] = {}  # the addresses for which tokens came, the last ones
        self._attending: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._ending: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()

    async def serve(self) -> Closing:
        """Serve the socket until it ends; return how it is to be closed."""
        self._socket.open(self._writable_again, self._take_at_once, self._timing.send_timeout_s)
        reading = asyncio.create_task(self._read())
        watching = asyncio.create_task(self._watch())
        outcome: BaseException | None = None
        try:
            either: set[asyncio.Future[Any]] = {reading, self._ending}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            reading.cancel()
            (outcome, _) = await asyncio.gather(reading, watching, return_exceptions=True)
            await self._end_all(outcome)
            await self._socket.release()
        if self._ending.done():
            return self._ending.result()
        if isinstance(outcome, CrdtSessionsError):
            _log.warning("a socket is refused: %s", outcome)
            return closing_for(outcome)
        if isinstance(outcome, Exception) and not isinstance(outcome, OSError):
            _log.error("a socket cannot be served", exc_info=outcome)
            return INTERNAL_ERROR
        return NORMAL

    async def _end_all(self, outcome: BaseException | None) -> None:
        """End all documents. Unless the client closed the socket in order, they are told that it broke."""
        error = outcome if isinstance(outcome, CrdtSessionsError | OSError) else None
        if self._ending.done() or isinstance(outcome, asyncio.CancelledError):
            error = ConnectionResetError("the socket is closed")
        for line in self._lines.values():
            line.end(error)
        if self._attending:
            await asyncio.wait(self._attending)

    def end(self, closing: Closing) -> None:
        """End the socket like that, and all documents on it, which come back."""
        if not self._ending.done():
            self._ending.set_result(closing)

    def _writable_again(self) -> None:
        for line in list(self._lines.values()):
            line.writable_again()

    async def _watch(self) -> None:
        """End a socket that nobody was let in on for too long."""
        patience = self._timing.authentication_s
        while True:
            try:
                async with asyncio.timeout(patience):
                    await self._admitted(some=True)
            except TimeoutError:
                self.end(_UNUSED)
                return
            patience = _UNUSED_S
            await self._admitted(some=False)

    async def _admitted(self, *, some: bool) -> None:
        """Return once the client was let in to some document, or is in none."""
        while any(line.access is not None for line in self._lines.values()) is not some:
            self._changed.clear()
            await self._changed.wait()

    # -- what the client says --------------------------------------------------------------------------------------

    def _take_at_once(self, batch: Sequence[bytes]) -> Sequence[bytes]:
        """Hand out messages as they arrive until one must wait; return those that are left."""
        if not (self._trusted and self._pace.take(self._clock.now(), len(batch))):
            return batch
        at = self._hand_out(batch, 0)
        self._counted += len(batch) - at
        return batch[at:]

    async def _read(self) -> None:
        async for batch in self._socket.batches():
            known = min(self._counted, len(batch))
            self._counted -= known
            while not self._pace.take(self._clock.now(), len(batch) - known):
                await self._clock.sleep(self._pace.wait_s)
            at = 0
            while (at := self._hand_out(batch, at)) < len(batch):
                await self._backlog.room()
                await self._take(batch[at])
                at += 1

    def _hand_out(self, batch: Sequence[bytes], at: int) -> int:
        """Give documents what is said about them, from message *at* on; return the place of the first that is left.

        That is one which says something else, is for a document that is not served, or has no room.
        """
        while self._trusted and at < len(batch) and not self._backlog.full:
            line = self._lines.get(hocuspocus.head_of(batch[at]))
            bodies: list[bytes] = []
            while line is not None and at < len(batch):  # what came together is taken together
                if (body := hocuspocus.content_behind(line.head, batch[at])) is None:
                    break
                bodies.append(body)
                at += 1
            if line is None or not bodies:
                break
            line.put(bodies)
        return at

    async def _take(self, message: bytes) -> None:
        if not self._trusted and len(message) > self._limits.max_unauthenticated_bytes:
            raise TooLarge(what="a message", size=len(message), limit=self._limits.max_unauthenticated_bytes)
        if message == PING:
            self._socket.write([PONG])
        elif message != PONG:
            address, said = hocuspocus.unpack(message)
            line = self._lines.get(string(address))
            if line is None:
                self._take_first(address, said)
            else:
                await self._take_next(line, said)

    def _take_first(self, address: str, said: Said) -> None:
        match said:
            case Token(token, version):
                self._note_token(address)
                self._begin(address, token, version)
            case Content(body) if hocuspocus.is_beginning(body) and address not in self._tokens:
                # A provider of 2.x that has no token sends none.
                self._begin(address, None, None)
                if (line := self._lines.get(string(address))) is not None:
                    line.put([body])
            case _:
                _log.debug("nobody is there for a message", extra={"address": address})

    def _note_token(self, address: str) -> None:
        """Note that a client sends tokens for a document: what it sends behind one that is refused begins nothing."""
        self._tokens.pop(address, None)
        self._tokens[address] = None
        if len(self._tokens) > self._limits.max_documents_per_socket:
            del self._tokens[next(iter(self._tokens))]

    async def _take_next(self, line: DocumentLine, said: Said) -> None:
        match said:
            case Content(body):
                line.put([body])
            case Token(token):
                if line.access is not None:
                    await self._host.renew(line, token)
            case Stateless(payload):
                if line.access is not None and not line.unheard:
                    await self._host.hear(line, payload)
                else:
                    line.put_text(payload)
            case Leave():  # no answer: it could reach a successor of the same address
                del self._lines[line.head]
                line.end()

    # -- documents -------------------------------------------------------------------------------------------------

    def _begin(self, address: str, token: str | None, version: str | None) -> None:
        if len(self._attending) >= self._limits.max_documents_per_socket:
            error = TooMany(what="documents of one socket", limit=self._limits.max_documents_per_socket)
            self._deny(address, closing_for(error))
            return
        line = DocumentLine(address, self._socket, self._backlog)
        line.version = version
        line.on_admitted = lambda: self._let_in(line)
        self._lines[line.head] = line
        self._start(self._attend(line, token))

    def _start(self, attending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(attending)
        self._attending.add(task)
        task.add_done_callback(self._attended)

    def _let_in(self, line: DocumentLine) -> None:
        self._trusted, self._backlog.limit = True, self._limits.max_frame_bytes
        self._host.trust()
        self._changed.set()
        if line.unheard:
            self._start(self._hear_all(line))

    async def _hear_all(self, line: DocumentLine) -> None:
        while line.unheard and not line.over:
            await self._host.hear(line, line.unheard[0])
            del line.unheard[0]

    def _attended(self, task: asyncio.Task[None]) -> None:
        self._attending.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a document cannot be served", exc_info=error)
            self.end(INTERNAL_ERROR)

    async def _attend(self, line: DocumentLine, token: str | None) -> None:
        try:
            closing = await self._host.attend(line, token)
        except CrdtSessionsError as error:
            closing = closing_for(error)
            _log.info("refused: %s", error, extra={"address": line.address, "close_code": closing.code})
            for_all = not closing.permanent
        else:
            for_all = not (closing.permanent or (closing.code == _TRY_LATER and not line.attached))
        finally:
            line.forget()
        left, line.over = line.over, True
        if self._lines.get(line.head) is line:
            del self._lines[line.head]
        if left:
            return
        if for_all:
            self.end(closing)
            return
        self._deny(line.address, closing)
        if line.attached and line.version is not None:
            self._socket.write([hocuspocus.closed(line.address, closing.reason)])

    def _deny(self, address: str, closing: Closing) -> None:
        """Say that a client is not served in one document. The others of its socket go on."""
        self._socket.write([hocuspocus.denied(address, f"{closing.code} {closing.reason}")])
