"""One live session: performs the engine's effects and connects peers to it. The asyncio shell."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, assert_never

from crdt_sessions.clock import Clock
from crdt_sessions.errors import (
    CrdtSessionsError,
    EarlyUpdate,
    LeaseLost,
    Overloaded,
    SessionFailed,
    SessionNotFound,
    ShuttingDown,
    StorageError,
    TokenExpired,
    TooSlow,
    UpdateError,
    WrongLineage,
)
from crdt_sessions.ids import Millis, PeerId, Seq, SessionId, reference
from crdt_sessions.limits import Compaction, Retention
from crdt_sessions.model import TERMINAL_STATUSES, Folded, SessionView
from crdt_sessions.pulse import Pulse
from crdt_sessions.runtime.access import Access
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.runtime.backlog import Backlog
from crdt_sessions.runtime.channel import Line
from crdt_sessions.runtime.claimants import Claimants
from crdt_sessions.runtime.entries import entries_of
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.runtime.pace import Pace
from crdt_sessions.runtime.sandbox import Mirrored, Sandbox
from crdt_sessions.runtime.webhooks import Outbox
from crdt_sessions.storage import NO_ENTRIES, Delivery, Row, SessionRecord, UpdateStore
from crdt_sessions.sync import (
    READ_ONLY,
    TRUSTED,
    Actor,
    Answered,
    CallId,
    ClosePeer,
    Committed,
    Deed,
    Describe,
    EditFailed,
    Effect,
    Event,
    PeerJoined,
    PeerLeft,
    Persist,
    PrincipalChanged,
    Ready,
    Records,
    Refused,
    Reload,
    Resume,
    RightsChanged,
    RunRecord,
    RunSteward,
    SessionEngine,
    StoreChanged,
    Tick,
    TrialId,
    Tried,
    Try,
    Unreadable,
    UpdateBrought,
    Verdict,
    Violation,
    joined,
    received,
)
from crdt_sessions.wire import Codec, YWebSocket
from crdt_sessions.wire.closing import INTERNAL_ERROR, NORMAL, Closing, closing_for

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.session")
_peer_ids = itertools.count(1)
_call_ids = itertools.count(1)
_SeldomEffect = ClosePeer | Try | Resume | Answered | Describe | Violation | Deed | Unreadable | Reload
_FAREWELL_S = 1.0
_AT_A_TIME = 1024
"""Messages of one peer that are counted as one: a peer that sends too fast waits after each of these."""
_AT_ONCE = 64
"""Messages of one peer that are handled before it is the others' turn."""
_ALWAYS_BYTES = 16 * 1024
"""What a session may have waiting for the disk though all sessions together have too much."""
_ROW_BYTES = 300
"""What a row costs beside its update: the entry of the log, its number, and the delta's header."""


@dataclass(slots=True, eq=False)
class _Connection:
    peer: PeerId
    line: Line
    codec: Codec
    pace: Pace
    counted: int = 0
    """Messages that the pace has counted already, and that wait to be read."""
    closing: asyncio.Future[Closing] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def close(self, closing: Closing) -> None:
        if not self.closing.done():
            self.closing.set_result(closing)


@dataclass(slots=True, eq=False)
class _Write:
    """What was handed over to the store."""

    done: asyncio.Future[None]
    rows: list[Row] = field(default_factory=list)
    records: list[Records] = field(default_factory=list)
    titled: bool = False
    """Whether it is the title."""


class Session:
    """A session in memory. Made by :class:`SessionRegistry`, which also decides when it goes.

    Args:
        record: what the store knows of it.
        engine: started by :meth:`start`.
        store: where rows go.
        clock: the only source of time.
        compaction: when rows are folded.
        rows: number of rows the store holds of it.
        outbox: where notices for people who are absent go.
        claimants: offered the runs that may be claimed.
        health: whether the store takes writes.
        fold: makes one update of many, verified, away from the event loop.
        retention: which versions are kept.
        sandbox: where foreign updates are tried first; None to take them as they come.
        audit: told who did what.
        tidying: held while rows are folded for the sake of order; sessions that share one take turns.
        backlog: what waits for the disk here and in other sessions.
    """

    def __init__(
        self,
        record: SessionRecord,
        engine: SessionEngine,
        store: UpdateStore,
        *,
        clock: Clock,
        compaction: Compaction,
        rows: int,
        outbox: Outbox,
        claimants: Claimants,
        health: StoreHealth,
        fold: Callable[[list[bytes]], Awaitable[Folded]],
        retention: Retention,
        audit: AuditLog,
        sandbox: Sandbox | None = None,
        tidying: asyncio.Lock | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self.id: SessionId = record.id
        self.record = record
        self.failed: CrdtSessionsError | None = None
        """Why this session cannot be used any more, if so; it is to be loaded anew."""
        self.life = secrets.token_hex(4)
        """Names this stay in memory."""
        self._began = engine.log.head
        self._engine = engine
        self._store = store
        self._clock = clock
        self._compaction = compaction
        self._rows = rows
        self._connections: dict[PeerId, _Connection] = {}
        self._outbox = outbox
        self._claimants = claimants
        self._unwritten: list[Row] = []
        self._unrecorded: list[Records] = []
        self._unwritten_bytes = 0
        self._freely = min(_ALWAYS_BYTES, engine.limits.max_uncommitted_bytes)
        self._to_offer: list[str] = []
        self._title: str | None = None
        """To be handed to the store; None if there is nothing new."""
        self._flush_due = False  # before the loop turns again
        self._writes: deque[_Write] = deque()
        self._compacter: asyncio.Task[Seq] | None = None
        self._health = health
        self._fold = fold
        self._retention = retention
        self._sandbox = sandbox
        self._tidying = tidying or asyncio.Lock()
        self._backlog = backlog or Backlog(engine.limits.total_uncommitted_bytes)
        self._audit = audit
        self._mirrored = Mirrored(record.id, engine.document.encode, record.lineage)
        self._trying: asyncio.Task[None] | None = None  # of an update, in the sandbox
        self._outage: StorageError | None = None  # as the engine knows it
        self._calls: dict[CallId, asyncio.Future[Answered]] = {}
        self._stopping = False
        self._rests_until = Millis(0)
        self._pulse = Pulse()
        self._to_pump: set[_Connection | None] = set()

    def start(self) -> None:
        """Let the engine settle what the loaded document left open."""
        self._perform(self._engine.start(self._clock.now()))

    # -- for everybody -------------------------------------------------------------------------------------------

    @property
    def view(self) -> SessionView:
        """The document, to read. Writes go through :meth:`edit`."""
        return self._engine.view

    @property
    def engine(self) -> SessionEngine:
        """The engine, to read."""
        return self._engine

    @property
    def peers(self) -> int:
        """Number of connections."""
        return len(self._connections)

    def remembers(self, lineage: str, life: str, seq: int) -> bool:
        """Tell whether what somebody was told up to log entry *seq* is a part of what there is now.

        It is not if that was another session of this name (*lineage*), or if the service went back to a backup since:
        then numbers are given a second time. An entry of another *life* in memory counts only if this one began
        behind it, and had it in its log; a backup that had got as far again is not told apart.
        """
        if lineage != self.record.lineage:
            return False
        return seq <= (self._engine.log.head if life == self.life else self._began)

    @property
    def folding(self) -> bool:
        """Whether its rows are being folded into a snapshot."""
        return self._compacter is not None

    async def edit(
        self,
        change: Callable[[SessionView], Result],
        *,
        by: str | None = None,
        decides: bool = True,
        administrative: bool = False,
    ) -> Result:
        """Change the document; return the change's result once it is durable.

        Messages that are added are *by* that principal, where it is known. If they may answer what agents ask people
        (*decides*), what they ask instead settles such a question.

        Raises:
            SessionClosed: the session takes no more writes (unless *administrative*).
            StorageError: the change could not be stored; the session will be loaded anew without it.
            Exception: whatever *change* raises. What it did before is kept: a CRDT cannot roll back.
        """
        self._raise_unless_storing()
        try:
            with self._guard():
                result, effects = self._engine.edit(
                    change, self._clock.now(), by=by, decides=decides, administrative=administrative
                )
                self._perform(effects)
        except EditFailed as failure:
            with self._guard():
                self._perform(failure.effects)
            raise failure.__cause__ or failure from None
        await self.durable()
        return result

    def check_room(self, size: int) -> None:
        """Return if the document may grow by *size* bytes. :meth:`edit` does not ask.

        Raises:
            TooLarge: it would exceed its limit.
        """
        self._engine.check_room(size)

    async def apply(self, update: bytes, actor: Actor | None = None, *, foreign: bool = False) -> None:
        """Merge a foreign update, for *actor* if it is somebody's; return once it is durable.

        With *foreign* it may be of another session.

        Raises:
            SessionClosed, TooLarge, UpdateError, ForeignWriter, WrongLineage, StorageError: it was not stored.
            EarlyUpdate: something of it needs what has not arrived, and was not stored; the rest is.
        """
        self._raise_unless_storing()
        answer = await self._call(UpdateBrought(CallId(next(_call_ids)), update, actor, foreign))
        if answer.error is not None and not isinstance(answer.error, EarlyUpdate):
            raise answer.error
        await self.durable()
        if answer.error is not None:
            raise answer.error

    async def contains(self, update: bytes) -> bool:
        """Tell whether the document holds all of a foreign update.

        Raises:
            UpdateError: it cannot be decoded.
            StorageError: the session failed.
        """
        self._raise_if_failed()
        answer = await self._call(UpdateBrought(CallId(next(_call_ids)), update, compare=True))
        self._raise_if_failed()
        if answer.error is not None:
            raise answer.error
        return answer.held

    async def _call(self, event: UpdateBrought) -> Answered:
        """Have the engine take *event*; return its answer, which may have to wait for others'.

        Raises:
            CrdtSessionsError: the session failed.
        """
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._calls[event.call] = answer
        try:
            self._handle(event)
            return await answer
        finally:
            del self._calls[event.call]

    def decide(self, decision: Callable[[RunSteward, Millis], Result]) -> Result:
        """Return what *decision* does to the steward's runs, such as a claim; it counts once it is :meth:`durable`.

        Raises:
            SessionClosed: the session takes no more writes.
            StorageError: it could not be stored.
            RunNotClaimable: and whatever else *decision* raises; nothing was decided then.
        """
        self._raise_unless_storing()
        now = self._clock.now()
        with self._guard():
            result, effects = self._engine.decide(lambda runs: decision(runs, now))
            self._perform(effects)
        return result

    def forget_presence(self, principal: str) -> int:
        """Remove the presence of a principal, until it announces one again; return of how many clients.

        Raises:
            StorageError: the session failed.
        """
        self._raise_if_failed()
        with self._guard():
            count, effects = self._engine.forget_presence(principal, self._clock.now())
            self._perform(effects)
        return count

    def held(self, run_id: str, token: str) -> RunRecord:
        """Return the run if *token* proves its lease, and take the question as a sign of life of the holder.

        Raises:
            LeaseLost: there is no such lease any more.
            StorageError: the session failed.
        """
        self._raise_if_failed()
        with self._guard():
            record = self._engine.runs.holder(token)
            if record is None or record.id != run_id:
                raise LeaseLost(run=run_id)
            self._engine.runs.renew(record.id, record.epoch, self._clock.now())
        return record

    def due_before(self, time: Millis) -> bool:
        """Whether somebody must go on looking at the clock: a lease runs, or a deadline comes before *time*."""
        with contextlib.suppress(SessionFailed), self._guard():
            return self.failed is None and self._engine.runs.due_before(time)
        return False

    async def set_status(self, status: str) -> None:
        """Open or close the session for writes, as *status* says; return once it is durable."""
        self._raise_unless_storing()
        await self._store.describe(self.id, status=status, now=self._clock.now())
        with self._guard():
            self._perform(self._engine.set_status(status))
        await self.durable()
        _log.info(
            "session ends" if status != "active" else "session goes on", extra={"session": self.id, "status": status}
        )

    async def durable(self) -> None:
        """Return once everything applied so far is on disk.

        Raises:
            StorageError: it will not be.
        """
        head = self._engine.log.head

        def reached() -> bool:
            self._raise_if_failed()
            stored = self._stored(head)
            if not stored:
                self._raise_unless_storing()
            return stored

        await self._pulse.until(reached)

    async def readable(self) -> None:
        """Return once the document shows nothing that a crash would take back, as far as that depends on the store.

        While the store takes no writes, what the server itself decided meanwhile is shown before it is stored.

        Raises:
            StorageError: the session failed and is loaded anew.
        """
        head = self._engine.log.head

        def reached() -> bool:
            self._raise_if_failed()
            return self._stored(head) or (self._health.error is not None and not self._flushing)

        await self._pulse.until(reached)

    async def changed(self, seq: Seq, presence: int) -> None:
        """Return once there is something committed after *seq*, or a presence after version *presence*.

        Raises:
            ShuttingDown: the session is about to be closed.
            StorageError: the session failed.
        """

        def reached() -> bool:
            self.check_served()
            return self._engine.log.tail > seq or self._engine.roster.version > presence

        await self._pulse.until(reached)

    def check_served(self) -> None:
        """Return if the document may be read on.

        Raises:
            ShuttingDown: the session is about to be closed.
            StorageError: the session failed.
        """
        self._raise_if_failed()
        if self._stopping:
            raise ShuttingDown

    async def export(self) -> bytes:
        """Return everything stored of the session as one Yjs update, updates that wait for others included."""
        await self.durable()
        stored = await self._store.load(self.id)
        return (await self._fold([row.update for row in stored.rows] if stored else [])).update

    # -- peers ---------------------------------------------------------------------------------------------------

    async def serve(self, line: Line, access: Access, *, lease: str | None = None) -> Closing:
        """Speak the y-websocket protocol on *line* until it ends; return how to close it.

        *access* is whose connection it is; *lease* the token of a run's holder, if this is its connection.
        """
        self._raise_if_failed()
        if self._stopping:
            raise ShuttingDown
        limits = self._engine.limits
        pace = Pace(limits.messages_per_s, limits.message_burst, self._clock.now())
        connection = _Connection(PeerId(next(_peer_ids)), line, YWebSocket(limits.max_frame_bytes), pace)
        self._connections[connection.peer] = connection
        self._rests_until = Millis(0)
        abrupt = False
        try:
            self._handle(PeerJoined(connection.peer, access.principal, access.rights, lease))
            access.watch(
                lambda rights: self._handle(RightsChanged(connection.peer, rights)),
                lambda error: self._access_ended(connection.peer, error),
            )
            closing = await self._converse(connection)
            abrupt = closing is None
            return closing or NORMAL
        finally:
            del self._connections[connection.peer]
            self._rests_until = Millis(0)  # it may come back in time, or not
            self._handle(PeerLeft(connection.peer, abrupt))
            self._pulse.beat()

    def _access_ended(self, peer: PeerId, error: CrdtSessionsError) -> None:
        if not isinstance(error, TokenExpired):  # what it wrote before it expired is its own
            self._handle(RightsChanged(peer, READ_ONLY))
        self._refuse(peer, error)

    def forget_waiting(self, principal: str | None) -> None:
        """Forget what a principal, or anybody if None, has left that waits: they may not be allowed to write it."""
        self._handle(PrincipalChanged(principal))

    async def _converse(self, connection: _Connection) -> Closing | None:
        """Read until it ends or is to be closed, while :meth:`_pump` writes; None if the connection broke."""
        line = connection.line
        timeout = self._engine.timing.send_timeout_s
        line.open(
            lambda: self._pump(connection, self._clock.now()),
            lambda batch: self._take_at_once(connection, batch),
            timeout,
        )
        self._pump_soon(connection)
        reader = asyncio.create_task(self._read(connection))
        try:
            watch: set[asyncio.Future[Any]] = {reader, connection.closing}
            await asyncio.wait(watch, return_when=asyncio.FIRST_COMPLETED)
            if connection.closing.done():
                reader.cancel()
                if not connection.closing.result().permanent:  # it will come back: let it have what it is owed
                    await self._see_off(connection)
                return connection.closing.result()
        finally:
            reader.cancel()
            (outcome,) = await asyncio.gather(reader, return_exceptions=True)
            await line.release()
        if isinstance(outcome, TooSlow):
            return closing_for(outcome)
        if isinstance(outcome, OSError):  # ConnectionError is one
            return None
        if isinstance(outcome, CrdtSessionsError):
            raise outcome
        if isinstance(outcome, Exception):
            _log.error("a peer cannot be served", exc_info=outcome, extra=self._about(connection))
            return INTERNAL_ERROR
        return NORMAL

    async def _see_off(self, connection: _Connection) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await connection.line.drained()
                self._pump(connection, self._clock.now())
                await connection.line.drained()

    def _take_at_once(self, connection: _Connection, batch: Sequence[bytes]) -> Sequence[bytes]:
        """Take messages as far as nothing stands in their way; return the others."""
        if connection.closing.done():
            return ()
        if connection.peer in self._engine.admission.held:
            return batch
        if self._unwritten_bytes > self._freely and self._behind:
            return batch
        now = self._clock.now()
        if len(batch) > _AT_A_TIME or not connection.pace.take(now, len(batch)):
            return batch
        messages = batch if len(batch) == 1 else joined(batch)
        for at, data in enumerate(messages):
            if at == _AT_ONCE or not self._take(connection, data, now):
                connection.counted += len(messages) - at
                return messages[at:]
        return ()

    async def _read(self, connection: _Connection) -> None:
        try:
            async for batch in connection.line.batches():
                for begin in range(0, len(batch), _AT_A_TIME):
                    portion = batch[begin : begin + _AT_A_TIME]
                    await self._paced(connection, len(portion))
                    await self._take_all(connection, portion if len(portion) == 1 else joined(portion))
                if self._behind:  # take nothing more in until it caught up
                    await self._pulse.until(lambda: not self._behind or self.failed is not None)
        except OSError:
            await self._let_go(connection)
            raise
        await self._let_go(connection)  # what came last is taken, too, before the peer has left

    async def _take_all(self, connection: _Connection, messages: Sequence[bytes]) -> None:
        for at, data in enumerate(messages, start=1):
            await self._let_go(connection)
            self._take(connection, data, self._clock.now())
            if at % _AT_ONCE == 0:
                await asyncio.sleep(0)

    @property
    def _behind(self) -> bool:
        """Whether the disk is behind with what came from here; who sends little goes on."""
        own = self._unwritten_bytes
        if own <= self._freely:
            return False
        return own > self._engine.limits.max_uncommitted_bytes or (own > _ALWAYS_BYTES and self._backlog.full)

    def _no_more_unwritten(self, size: int) -> None:
        self._unwritten_bytes -= size
        self._backlog.bytes -= size

    async def _paced(self, connection: _Connection, count: int) -> None:
        """Return once so many messages may pass; nothing more is read from the connection meanwhile."""
        known = min(connection.counted, count)
        connection.counted -= known
        while not connection.pace.take(self._clock.now(), count - known):
            await self._clock.sleep(connection.pace.wait_s)

    def _take(self, connection: _Connection, data: bytes, now: Millis) -> bool:
        """Take a message if none waits that came before it; tell whether it was taken."""
        if connection.peer in self._engine.admission.held:
            return False
        self._handle(received(connection.peer, data, connection.codec), now)
        return True

    async def _let_go(self, connection: _Connection) -> None:
        """Return once nothing of a connection waits any more."""
        await self._pulse.until(lambda: self.failed is not None or connection.peer not in self._engine.admission.held)

    async def _try(self, sandbox: Sandbox, trial: Try) -> None:
        """Have an update tried, and tell the engine what became of it."""
        try:
            verdict = await self._verdict(sandbox, trial)
        except Exception as error:  # noqa: BLE001 - see _guard
            self._trying = None
            self._broke(error)
            return
        self._trying = None
        self._handle(Tried(trial.trial, verdict))
        self._mirrored.settle()

    async def _verdict(self, sandbox: Sandbox, trial: Try) -> Verdict:
        try:
            return await sandbox.try_update(self._mirrored, trial.update, apply=trial.apply, foreign=trial.foreign)
        except (UpdateError, WrongLineage, StorageError, Overloaded) as error:
            return Refused(error)

    def _pump_soon(self, connection: _Connection | None) -> None:
        """Write to a peer, or to everybody, what they are owed: once in a turn of the loop, however much that is."""
        if not self._to_pump:
            asyncio.get_running_loop().call_soon(self._pump_all)
        self._to_pump.add(connection)

    def _pump_all(self) -> None:
        waiting, self._to_pump = self._to_pump, set()
        now = self._clock.now()
        for connection in list(self._connections.values()) if None in waiting else waiting:
            assert connection is not None
            self._pump(connection, now)

    def _pump(self, connection: _Connection, now: Millis) -> None:
        # A failed session's document may not be touched; a closed one's neither, but then nobody is connected.
        if self.failed is None and connection.peer in self._connections and connection.line.writable:
            try:
                frames = self._engine.take(connection.peer, now)
                if frames:
                    connection.line.write(connection.codec.write(frames))
            except Exception:  # noqa: BLE001 - a defect of ours; only what this peer has was moved, so only it goes
                _log.exception("a peer cannot be written to", extra=self._about(connection))
                connection.close(INTERNAL_ERROR)

    # -- the life of a session -----------------------------------------------------------------------------------

    def at_rest(self, now: Millis) -> bool:
        """Whether :meth:`tick` has nothing to do at *now*: most sessions rest most of the time."""
        told = self._health.error is self._outage
        return told and now < self._rests_until and not self._has_unwritten and self.failed is None

    def tick(self, now: Millis) -> None:
        """Let the engine know that it is *now*, if something may be due."""
        if now >= self._rests_until or self._health.error is not self._outage:
            self._handle(Tick(), now)
            with contextlib.suppress(SessionFailed), self._guard():
                self._rests_until = self._engine.rests_until(now)
        if self._has_unwritten:  # what the steward decided while the store took no writes
            self._flush_soon()

    def close_peers(self, closing: Closing) -> None:
        """Close every connection as *closing* says."""
        for connection in self._connections.values():
            connection.close(closing)

    async def stop(self, error: CrdtSessionsError) -> None:
        """Admit nobody, store what there is, close every connection because of *error*; return when all are gone.

        Raises:
            StorageError: something that was not acknowledged could not be stored.
        """
        self._stopping = True
        try:
            await self.durable()
        finally:
            self.close_peers(closing_for(error))
            self._pulse.beat()
        await self._pulse.until(lambda: not self._connections)

    async def drain(self) -> None:
        """Store what there is and fold the rows if there are many; to be called when nobody uses the session.

        Raises:
            StorageError: something that was not acknowledged could not be stored.
        """
        self._stopping = True
        await self._tested()
        await self.durable()
        if self._rows >= self._compaction.min_rows_on_unload:
            await self.snapshot()
        elif self._compacter is not None:
            await asyncio.wait({self._compacter})

    async def close(self) -> None:
        """Release the document, and whoever still waits for something. Nothing may use the session afterwards."""
        self._stopping = True
        self._pulse.beat()
        await self._tested()
        # Never cancelled: a write that is under way would end behind the back of whoever loads the session next.
        while self._flushing and self.failed is None:
            self._flush()
            await self._writes_ended()
        await self._writes_ended()
        if self._compacter is not None:
            await asyncio.wait({self._compacter})
        self._no_more_unwritten(self._unwritten_bytes)  # of a session that failed
        self._engine.log.close()
        self._engine.document.close()

    async def _writes_ended(self) -> None:
        if self._writes:
            await asyncio.wait({write.done for write in self._writes})

    async def _tested(self) -> None:
        """Return once no update is being tried any more."""
        while self._trying is not None:
            await asyncio.wait({self._trying})

    # -- effects -------------------------------------------------------------------------------------------------

    def _handle(self, event: Event, now: Millis | None = None) -> None:
        if self.failed is not None:
            return  # the document may not be touched any more
        now = now or self._clock.now()
        try:
            if self._health.error is not self._outage:
                self._outage = self._health.error
                self._rests_until = Millis(0)
                self._perform(self._engine.handle(StoreChanged(self._outage), now))
            self._perform(self._engine.handle(event, now))
        except Exception as error:  # noqa: BLE001 - see _guard
            self._broke(error)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Let refusals pass, which leave nothing behind; what else is raised is a defect and ends the session.

        Memory may be ahead of the disk then, so it is let go, and the session is loaded anew.

        Raises:
            SessionFailed: it was such a defect.
        """
        try:
            yield
        except (CrdtSessionsError, EditFailed):
            raise
        except Exception as error:
            raise self._broke(error) from error

    def _broke(self, error: BaseException) -> SessionFailed:
        failed = SessionFailed(reference=reference())
        _log.error(
            "a defect ended the session", exc_info=error, extra={"session": self.id, "reference": failed.reference}
        )
        self._fail(failed, closing_for(failed))
        return failed

    def _perform(self, effects: list[Effect]) -> None:
        while True:
            trusted: TrialId | None = None
            for effect in effects:
                match effect:
                    case Persist():
                        self._write_down(effect)
                    case Ready(peer):
                        self._is_ready(peer)
                    case Try() if self._sandbox is None:
                        trusted = effect.trial
                    case _:
                        self._perform_one(effect)
            if trusted is None or self.failed is not None:
                return
            effects = self._engine.handle(Tried(trusted, TRUSTED), self._clock.now())

    def _perform_one(self, effect: _SeldomEffect) -> None:
        match effect:
            case ClosePeer(peer, error):
                self._refuse(peer, error)
            case Try():
                self._try_soon(effect)
            case Resume():
                self._pulse.beat()
            case Answered(call):
                if (answer := self._calls.get(call)) is not None and not answer.done():
                    answer.set_result(effect)
            case Describe(title):
                self._title = title or ""
                self._flush_soon()
            case Violation() | Deed() | Unreadable():
                self._audit.heard(self.id, effect)
            case Reload():
                self._load_anew()
            case _:
                assert_never(effect)

    def _try_soon(self, trial: Try) -> None:
        assert self._sandbox is not None
        # A task of its own: whoever leaves in the middle must not leave the mirror ahead of the document.
        self._trying = asyncio.create_task(self._try(self._sandbox, trial), name=f"try {self.id}")

    def _is_ready(self, peer: PeerId | None) -> None:
        if peer is None:
            self._pump_soon(None)
            self._pulse.beat()
        elif peer in self._connections:
            self._pump_soon(self._connections[peer])

    def _write_down(self, effect: Persist) -> None:
        self._mirrored.took(effect.update)
        self._unwritten.append(Row(effect.seq, effect.update))
        self._unwritten_bytes += (cost := len(effect.update) + _ROW_BYTES)
        self._backlog.bytes += cost
        if effect.records:
            self._unrecorded.append(effect.records)
            self._to_offer += [run.id for run in effect.records.runs.values() if run.ready]
            self._rests_until = Millis(0)  # a lease may run, or a question have a deadline
        self._flush_soon()

    def _offer(self) -> None:
        """Have runs taken that have become ready, so that they and their leases are stored together."""
        ready, self._to_offer = self._to_offer, []
        for run_id in ready:
            try:
                self._claimants.offer(self, run_id)
            except CrdtSessionsError as error:  # it is found in the store, if it gets there
                _log.info("cannot be given yet: %s", error, extra={"session": self.id, "run": run_id})

    def _refuse(self, peer: PeerId, error: CrdtSessionsError) -> None:
        connection = self._connections.get(peer)
        if connection is not None:
            closing = closing_for(error)
            _log.warning("peer refused: %s", error, extra={**self._about(connection), "close_code": closing.code})
            connection.close(closing)

    @property
    def _has_unwritten(self) -> bool:
        """Whether there is something that was not handed to the store yet."""
        return bool(self._unwritten) or self._title is not None

    @property
    def _flushing(self) -> bool:
        """Whether something is being stored, or will be before the loop turns again."""
        return self._flush_due or bool(self._writes)

    def _stored(self, head: Seq) -> bool:
        """Tell whether everything up to *head* is stored, and the title."""
        titled = self._title is not None or any(write.titled for write in self._writes)
        return self._engine.log.tail >= head and not titled

    def _flush_soon(self) -> None:
        """Hand what there is to the store at the end of this turn of the loop."""
        if not self._flush_due and self.failed is None and self._health.error is None:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Hand over what there is, also while the store still writes: all that waits there will be one commit."""
        try:
            self._offer()
            self._flush_due = False
            if self.failed is None:
                self._hand_over()
        except Exception as error:  # noqa: BLE001 - see _guard
            self._broke(error)

    def _hand_over(self) -> None:
        if self._unwritten:
            rows, self._unwritten = self._unwritten, []
            records, self._unrecorded = self._unrecorded, []
            entries = entries_of(records, self._deliveries(records)) if records else NO_ENTRIES
            # Each token of a stream comes by here: if the store gives a future, there is no task.
            appended = self._store.append(self.id, rows, entries=entries, now=self._clock.now())
            self._await(_Write(asyncio.ensure_future(appended), rows, records))
        if self._title is not None:
            title, self._title = self._title, None
            described = self._store.describe(self.id, title=title, now=self._clock.now())
            self._await(_Write(asyncio.ensure_future(described), titled=True))

    def _await(self, write: _Write) -> None:
        self._writes.append(write)
        write.done.add_done_callback(self._written)

    def _written(self, _: asyncio.Future[None]) -> None:
        """Go on with what is stored, in the order in which it was handed over."""
        while self._writes and self._writes[0].done.done():
            write = self._writes.popleft()
            if write.done.cancelled():
                continue
            error = write.done.exception()
            if self.failed is not None:
                continue  # it failed with an earlier one: the store lets no gap arise
            if error is not None:
                self._not_stored(error)
            else:
                self._committed(write)

    def _committed(self, write: _Write) -> None:
        self._no_more_unwritten(sum(len(row.update) + _ROW_BYTES for row in write.rows))
        self._rows += len(write.rows)
        if write.rows:
            self._handle(Committed(write.rows[-1].seq))
        if write.titled:
            self._pulse.beat()
        if write.records:
            with contextlib.suppress(SessionFailed), self._guard():
                self._announce(write.records)
        self._compact_soon()

    def _not_stored(self, error: BaseException) -> None:
        if not isinstance(error, CrdtSessionsError):  # a store broke its contract
            self._broke(error)
            return
        if isinstance(error, StorageError):
            self._health.failed(error)
        self._fail(error, closing_for(error))

    def _deliveries(self, records: list[Records]) -> list[Delivery]:
        notices = [notice for each in records for notice in each.notices] if self._outbox else []
        if not notices:
            return []
        absent = self._absent()
        return [delivery for notice in notices for delivery in self._outbox.deliveries(self.id, notice, absent)]

    def _absent(self) -> list[str]:
        """Return the people who take part in the session and are not here."""
        known = {head.author.id for head in self.view.messages.heads() if head.author.kind == "human"} | set(
            self.view.receipts.keys()
        )
        return sorted(known - self._engine.roster.principals())

    def _announce(self, records: list[Records]) -> None:
        """Tell those who wait elsewhere, now that it is durable."""
        if any(self._engine.runs.is_ready(run_id) for each in records for run_id in each.runs):
            self._claimants.ready.beat()
        notices = [notice for each in records for notice in each.notices]
        for notice in notices:
            if notice.data["status"] in TERMINAL_STATUSES:
                facts = {name: notice.data[name] for name in ("run", "agent", "status", "reason")}
                _log.info("run ends", extra={"session": self.id, **facts})
        if notices:
            self._outbox.look()

    def _compact_soon(self) -> None:
        if self._rows > self._compaction.max_rows and self._compacter is None and self.failed is None:
            self._start_folding()

    async def _compact(self, name: str | None = None, *, keep_rows: bool = False) -> Seq:
        if keep_rows:  # somebody waits for a version
            return await self._make_snapshot(name, keep_rows=True)
        async with self._tidying:  # sessions that began together are due together, with all their rows in memory
            return await self._make_snapshot(name, keep_rows=False)

    async def _make_snapshot(self, name: str | None, *, keep_rows: bool) -> Seq:
        stored = await self._store.load(self.id)
        if stored is None:
            raise SessionNotFound(session=self.id)
        folded = await self._fold([row.update for row in stored.rows])
        snapshot = Row(stored.last_seq, folded.update, folded.waits)
        await self._store.replace_with_snapshot(
            self.id,
            snapshot,
            retention=self._retention,
            name=name,
            keep_rows=keep_rows,
            now=self._clock.now(),
        )
        if not keep_rows:
            self._rows -= len(stored.rows) - 1
        _log.info(
            "compacted",
            extra={"session": self.id, "rows": len(stored.rows), "snapshot_bytes": len(folded.update)},
        )
        return stored.last_seq

    async def snapshot(self, name: str | None = None, *, keep_rows: bool = False) -> Seq:
        """Fold everything stored into a snapshot that becomes a version, with a *name* or none; return its number.

        With *keep_rows* it stands beside the rows, and the states between can still be read.

        Raises:
            StorageError: it could not be stored.
        """
        await self.durable()
        while self._compacter is not None:
            await asyncio.wait({self._compacter})
        self._raise_unless_storing()
        return await asyncio.shield(self._start_folding(name, keep_rows=keep_rows))

    def _start_folding(self, name: str | None = None, *, keep_rows: bool = False) -> asyncio.Task[Seq]:
        self._compacter = asyncio.create_task(self._compact(name, keep_rows=keep_rows), name=f"fold {self.id}")
        self._compacter.add_done_callback(self._compacted)
        return self._compacter

    def _compacted(self, task: asyncio.Task[Any]) -> None:
        self._compacter = None
        if not task.cancelled() and (error := task.exception()) is not None:  # the rows stay as they are
            _log.error("folding failed: %s", error, extra={"session": self.id})

    def _load_anew(self) -> None:
        """Give the document in memory up; whoever waited for it may try again at once."""
        why = "the session is loaded anew; try again"
        self._fail(StorageError(why), Closing(1012, why))

    def _fail(self, error: CrdtSessionsError, closing: Closing) -> None:
        """Give the session up: memory may be ahead of the disk, and nothing in it was acknowledged."""
        if self.failed is None:
            self.failed = error
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(error)
            _log.error("session failed: %s", error, extra={"session": self.id})
            self.close_peers(closing)
            self._pulse.beat()

    def _raise_if_failed(self) -> None:
        if self.failed is not None:
            raise self.failed

    def _raise_unless_storing(self) -> None:
        self._raise_if_failed()
        if self._health.error is not None:
            raise self._health.error

    def _about(self, connection: _Connection) -> dict[str, object]:
        return {"session": self.id, "peer": connection.peer}
