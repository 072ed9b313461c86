"""Serves the connections of a session's peers: reads their messages in order, and writes what they are owed.

Connections stay while the session sleeps: then there is no engine, only :class:`Asleep`, until it is woken up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from crdt_sessions.callbacks import EndOfTurn
from crdt_sessions.clock import Clock
from crdt_sessions.errors import CrdtSessionsError, TokenExpired, TooSlow
from crdt_sessions.ids import Millis, PeerId, SessionId
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.runtime.access import Access
from crdt_sessions.runtime.channel import Transport
from crdt_sessions.runtime.journal import Journal
from crdt_sessions.runtime.pace import Pace
from crdt_sessions.signals import Signal
from crdt_sessions.sync import (
    READ_ONLY,
    Asleep,
    ClosePeer,
    Event,
    PeerJoined,
    PeerLeft,
    Ready,
    RightsChanged,
    SessionEngine,
    Tick,
    received,
)
from crdt_sessions.wire import Codec, YWebSocket
from crdt_sessions.wire.closing import INTERNAL_ERROR, NORMAL, Closing, closing_for

_log = logging.getLogger("crdt_sessions.session")
_peer_ids = itertools.count(1)
_FAREWELL_S = 1.0
_AT_A_TIME = 1024
"""Messages of one peer that are counted together: a peer that sends too fast waits after each such portion."""
_AT_ONCE = 64
"""Messages of one peer that are handled before other peers have their turn."""


@dataclass(slots=True, eq=False)
class _Connection:
    peer: PeerId
    transport: Transport
    codec: Codec
    pace: Pace
    counted: int = 0
    """Messages that the pace has already counted and that have not been read yet."""
    closing: Closing | None = None
    """How it must be closed, if it must."""
    reader: asyncio.Task[Any] | None = None
    """The task that reads it, until that ends or is cancelled by :meth:`close`."""

    def close(self, closing: Closing) -> None:
        if self.closing is None:
            self.closing = closing
            reader = self.reader
            if reader is not None and reader is not asyncio.current_task():  # it looks by itself before it waits
                self.reader = None
                reader.cancel()


class Awake(NamedTuple):
    """What serves the connections of a session in memory."""

    engine: SessionEngine
    """Says what peers are owed, and which peers' messages must wait."""
    journal: Journal
    """Says whether the disk lags; then nothing more is read."""
    handle: Callable[[Event, Millis], None]
    """Called with each event of a peer."""


class Connections:
    """The connections of one session, whether it is in memory or sleeps.

    Args:
        session: the session's id.
        clock: the only source of time.
        limits: sizes.
        timing: periods.
        wake_up: called if something came for which the session is needed. It is to call :meth:`serve_by` soon.
        turn: when peers are written to; what sessions share costs the loop less.
    """

    def __init__(
        self,
        session: SessionId,
        *,
        clock: Clock,
        limits: Limits,
        timing: Timing,
        wake_up: Callable[[], None],
        turn: EndOfTurn,
    ) -> None:
        self.signal = Signal()
        """Notified whenever something may have changed that somebody waits for."""
        self._session = session
        self._clock = clock
        self._limits = limits
        self._timing = timing
        self._wake_up = wake_up
        self._turn = turn
        self._awake: Awake | None = None
        self._asleep: Asleep | None = None
        self._rests_until = Millis(0)
        self._came: list[Event] = []  # meanwhile, for the next engine
        self._open: dict[PeerId, _Connection] = {}
        self._to_pump: set[PeerId | None] = set()
        self._abandoned = False

    def __len__(self) -> int:
        return len(self._open)

    # -- who serves them -----------------------------------------------------------------------------------------

    @property
    def asleep(self) -> Asleep | None:
        """What is left of the session, if it sleeps."""
        return self._asleep

    @property
    def writable(self) -> bool:
        """Whether all peers read what they are sent."""
        return all(connection.transport.writable for connection in self._open.values())

    def serve_by(self, awake: Awake) -> None:
        """Be served by an engine from now on. Call :meth:`go_on` once it was started."""
        self._awake, self._asleep = awake, None

    def go_on(self) -> None:
        """Take what came while the session slept."""
        came, self._came = self._came, []
        for event in came:
            self._tell(event)
        self.signal.notify_all()

    def fall_asleep(self, asleep: Asleep) -> None:
        """Have no engine from now on."""
        self._awake, self._asleep, self._rests_until = None, asleep, Millis(0)

    @property
    def rests_until(self) -> Millis:
        """Until when :meth:`tick` has nothing to do, unless somebody comes or goes."""
        return self._rests_until

    def rests(self, now: Millis) -> bool:
        """Whether :meth:`tick` has nothing to do at *now*."""
        return now < self._rests_until

    def tick(self, now: Millis) -> None:
        """Do what is due at *now*, if the session sleeps."""
        if self._asleep is not None and not self.rests(now):
            self._tell(Tick(), now)
            self._rests_until = self._asleep.rests_until(now)

    def _tell(self, event: Event, now: Millis | None = None) -> None:
        """Pass an event to the engine; if there is none and it is needed, soon."""
        now = now or self._clock.now()
        if self._awake is not None:
            self._awake.handle(event, now)
        elif self._asleep is not None:
            effects = self._asleep.handle(event, now) if not self._came else None  # in order
            if effects is None:
                self._came.append(event)
                self._wake_up()
                return
            for effect in effects:
                if isinstance(effect, Ready):
                    self.ready(effect.peer)
                elif isinstance(effect, ClosePeer):
                    self.refuse(effect.peer, effect.error)

    async def serve(
        self, transport: Transport, access: Access, *, lease: str | None = None, codec: Codec | None = None
    ) -> Closing:
        """Speak with a peer on *transport* until it ends; return how to close it.

        *access* says who connects and what they may do. *lease* is the token of a lease, if its holder connects.
        *codec* is the connection's own, of the dialect that it speaks; y-websocket's if None.
        """
        limits, now = self._limits, self._clock.now()
        pace = Pace(limits.messages_per_s, limits.message_burst, now)
        codec = codec or YWebSocket(limits.max_frame_bytes)
        connection = _Connection(PeerId(next(_peer_ids)), transport, codec, pace)
        self._open[connection.peer] = connection
        abrupt = False
        try:
            self._tell(PeerJoined(connection.peer, access.principal, access.rights, lease), now)
            access.watch(
                lambda rights: self._tell(RightsChanged(connection.peer, rights)),
                lambda error: self._access_ended(connection.peer, error),
            )
            closing = await self._converse(connection)
            abrupt = closing is None
            return closing or NORMAL
        finally:
            del self._open[connection.peer]
            self._tell(PeerLeft(connection.peer, abrupt))
            self._rests_until = Millis(0)

    def refuse(self, peer: PeerId, error: CrdtSessionsError) -> None:
        """Close a connection because of *error*."""
        connection = self._open.get(peer)
        if connection is not None:
            closing = closing_for(error)
            _log.warning("peer refused: %s", error, extra={**self._about(connection), "close_code": closing.code})
            connection.close(closing)

    def close(self, closing: Closing) -> None:
        """Close every connection as *closing* says."""
        for connection in self._open.values():
            connection.close(closing)

    def abandon(self, closing: Closing) -> None:
        """Close every connection and stop using the engine: its document must not be touched any more."""
        self._abandoned = True
        self.close(closing)

    def release(self) -> None:
        """Tell nobody of anything any more."""
        self._awake = self._asleep = None

    def _access_ended(self, peer: PeerId, error: CrdtSessionsError) -> None:
        if not isinstance(error, TokenExpired):  # what it wrote before it expired is its own
            self._tell(RightsChanged(peer, READ_ONLY))
        self.refuse(peer, error)

    async def _converse(self, connection: _Connection) -> Closing | None:
        """Read until the connection ends or must be closed, while :meth:`_pump` writes; return None if it broke."""
        transport = connection.transport
        transport.open(
            lambda: self._pump(connection, self._clock.now()),
            partial(self._take_at_once, connection),  # no lambda: each token comes this way
            self._timing.send_timeout_s,
        )
        self.ready(connection.peer)
        try:
            ended = await self._read_until_closed(connection)
            if connection.closing is None:
                return ended
            if not connection.closing.permanent:  # it will come back: first send what it is owed
                await self._see_off(connection)
            return connection.closing
        finally:
            await transport.release()

    async def _see_off(self, connection: _Connection) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await connection.transport.drained()
                self._pump(connection, self._clock.now())
                await connection.transport.drained()

    # -- reading -------------------------------------------------------------------------------------------------

    async def _read_until_closed(self, connection: _Connection) -> Closing | None:
        """Read until the connection ends or must be closed; return how to close it if it ended, None if it broke."""
        task = asyncio.current_task()
        assert task is not None
        cancelled, connection.reader = task.cancelling(), task
        try:
            await self._read(connection)
        except asyncio.CancelledError:  # by close(), as asyncio.timeout() does it
            if connection.reader is not None or task.uncancel() > cancelled:
                raise  # somebody else wants the task to end
        except TooSlow as error:
            return closing_for(error)
        except OSError:  # ConnectionError is one
            return None
        except CrdtSessionsError:
            raise
        except Exception:  # noqa: BLE001 - a defect; only this peer is closed
            _log.exception("a peer cannot be served", extra=self._about(connection))
            return INTERNAL_ERROR
        finally:
            connection.reader = None
        return NORMAL

    def _take_at_once(self, connection: _Connection, batch: Sequence[bytes]) -> Sequence[bytes]:
        """Handle messages at once until one must wait; return those that are left."""
        if connection.closing is not None:
            return ()
        awake = self._awake
        if awake is None:
            if self._came or self._asleep is None:
                return batch
        elif connection.peer in awake.engine.admission.held or awake.journal.behind:
            return batch
        now = self._clock.now()
        if len(batch) > _AT_A_TIME or not connection.pace.take(now, len(batch)):
            return batch
        messages = batch if len(batch) == 1 else connection.codec.joined(batch)
        for at, data in enumerate(messages):
            if at == _AT_ONCE or not self._take(connection, data, now):
                connection.counted += len(messages) - at
                return messages[at:]
        return ()

    async def _read(self, connection: _Connection) -> None:
        if connection.closing is not None:  # it was refused when it came
            return
        try:
            async for batch in connection.transport.batches():
                for begin in range(0, len(batch), _AT_A_TIME):
                    if connection.closing is not None:
                        return
                    portion = batch[begin : begin + _AT_A_TIME]
                    await self._paced(connection, len(portion))
                    joined = portion if len(portion) == 1 else connection.codec.joined(portion)
                    await self._take_all(connection, joined)
                if self._behind():  # read no more until the disk caught up
                    await self.signal.wait_for(lambda: self._abandoned or not self._behind())
                if connection.closing is not None:
                    return
        except OSError:
            await self._let_go(connection)
            raise
        await self._let_go(connection)  # the last messages are handled before the peer leaves

    async def _take_all(self, connection: _Connection, messages: Sequence[bytes]) -> None:
        for at, data in enumerate(messages, start=1):
            await self._let_go(connection)
            while not (self._take(connection, data, self._clock.now()) or self._abandoned):
                await self._let_go(connection)
            if at % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _paced(self, connection: _Connection, count: int) -> None:
        """Wait until *count* more messages are allowed; nothing is read from the connection meanwhile."""
        known = min(connection.counted, count)
        connection.counted -= known
        while not connection.pace.take(self._clock.now(), count - known):
            await self._clock.sleep(connection.pace.wait_s)

    def _take(self, connection: _Connection, data: bytes, now: Millis) -> bool:
        """Handle a message unless an earlier one still waits; tell whether it was handled."""
        awake = self._awake
        if awake is None:
            if self._came:
                return False
            self._tell(received(connection.peer, data, connection.codec), now)
        elif connection.peer in awake.engine.admission.held:
            return False
        else:
            awake.handle(received(connection.peer, data, connection.codec), now)
        return True

    async def _let_go(self, connection: _Connection) -> None:
        """Wait until no earlier message of the connection waits."""
        await self.signal.wait_for(lambda: self._abandoned or not self._waits(connection.peer))

    def _waits(self, peer: PeerId) -> bool:
        return bool(self._came) if self._awake is None else peer in self._awake.engine.admission.held

    def _behind(self) -> bool:
        return self._awake is not None and self._awake.journal.behind

    # -- writing -------------------------------------------------------------------------------------------------

    def ready(self, peer: PeerId | None) -> None:
        """Write to a peer, or to all if None, once at the end of this turn of the loop."""
        if not self._to_pump:
            self._turn.call(self._pump_all)
        self._to_pump.add(peer)

    def _pump_all(self) -> None:
        peers, self._to_pump = self._to_pump, set()
        now = self._clock.now()
        for peer in list(self._open) if None in peers else peers:
            assert peer is not None
            if (connection := self._open.get(peer)) is not None:
                self._pump(connection, now)

    def _pump(self, connection: _Connection, now: Millis) -> None:
        # Once a session is closed there are no connections, so its document is not touched here.
        by = self._awake.engine if self._awake is not None else self._asleep
        if by is not None and not self._abandoned and connection.peer in self._open and connection.transport.writable:
            try:
                frames = by.take(connection.peer, now)
                if frames and (messages := connection.codec.write(frames)):  # a dialect may have no word for them
                    connection.transport.write(messages)
            except Exception:  # noqa: BLE001 - a defect; only this peer's state changed, so only this peer is closed
                _log.exception("a peer cannot be written to", extra=self._about(connection))
                connection.close(INTERNAL_ERROR)

    def _about(self, connection: _Connection) -> dict[str, object]:
        return {"session": self._session, "peer": connection.peer}
