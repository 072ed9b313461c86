"""One live session, as the service and its gateways use it."""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from crdt_sessions.errors import CrdtSessionsError, EarlyUpdate, LeaseLost, SessionFailed, ShuttingDown
from crdt_sessions.ids import Millis, Seq, SessionId, tenant_of
from crdt_sessions.model import SessionDoc, SessionView
from crdt_sessions.runtime.access import Access
from crdt_sessions.runtime.channel import Transport
from crdt_sessions.runtime.claimants import Assignment, Claimant
from crdt_sessions.runtime.connections import Connections
from crdt_sessions.runtime.effects import EffectLoop
from crdt_sessions.runtime.presence import SessionPresence
from crdt_sessions.runtime.said import Said
from crdt_sessions.storage import UpdateStore
from crdt_sessions.sync import Actor, Asker, EngineFailed, PrincipalChanged, RunRecord, RunSteward, SessionEngine
from crdt_sessions.wire import Closing, Codec, closing_for

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.session")


class Session:
    """A session in memory. Made by :class:`SessionRegistry`, which also decides when it is unloaded.

    While its clients do nothing it sleeps: there is no document, and nothing but :attr:`connections` may be used.
    Whoever gets it from the registry gets it awake, and it stays so for as long as that one uses it.

    Args:
        connections: its connections.
        store: holds its rows.
    """

    def __init__(self, connections: Connections, store: UpdateStore) -> None:
        self.connections = connections
        """The connections, which stay while it sleeps."""
        self.life = ""
        """An id that is new each time the session is loaded into memory."""
        self.told_state = False
        """Whether any reader of events was told of a state in this life, so that one that came back may have it."""
        self._store = store
        self._awake: EffectLoop | None = None
        self._ended: CrdtSessionsError | None = None
        self._began = Seq(0)
        self._stopping = False

    def start(self, loop: EffectLoop) -> None:
        """Be driven by *loop*, whose engine settles what the loaded document left open.

        Raises:
            EngineFailed: a defect prevents that. A session that slept sleeps on.
        """
        self.record = loop.record
        self.id: SessionId = loop.record.id
        asleep = self.connections.asleep
        try:
            loop.start()
        except EngineFailed:
            if asleep is not None:  # it is tried again
                self.connections.fall_asleep(asleep)
            raise
        self.life = secrets.token_hex(4)
        self._began = loop.engine.log.head
        self._awake = loop

    @property
    def asleep(self) -> bool:
        """Whether there is no document."""
        return self._awake is None

    @property
    def _loop(self) -> EffectLoop:
        assert self._awake is not None, "whoever uses a session has it awake"
        return self._awake

    # -- reading -------------------------------------------------------------------------------------------------

    @property
    def failed(self) -> CrdtSessionsError | None:
        """Why this session can no longer be used, or None. It must then be loaded anew."""
        return self._ended if self._awake is None else self._awake.failed

    @property
    def view(self) -> SessionView:
        """The document, to read. Writes go through :meth:`edit`.

        Raises:
            SessionFailed: the document lacks what it was known to take. The session is loaded anew.
        """
        return self._loop.settled().view

    @property
    def document(self) -> SessionDoc:
        """The document as Yjs has it, to read. Raises as :attr:`view`."""
        return self._loop.settled().document

    @property
    def engine(self) -> SessionEngine:
        """The engine, to read all but its document: see :attr:`view` and :attr:`document`."""
        return self._loop.engine

    @property
    def said(self) -> Said:
        """Who has said what. Raises as :attr:`view`."""
        self._loop.settled()
        return self._loop.said

    @property
    def presence(self) -> SessionPresence:
        """Who is present without a connection of the service's own."""
        return SessionPresence(self._loop, self.life)

    @property
    def peers(self) -> int:
        """Number of connections."""
        return len(self.connections)

    def remembers(self, lineage: str, life: str, seq: int) -> bool:
        """Tell whether a reader that was told everything up to log entry *seq* can go on from there.

        It cannot if that was another session of this name (*lineage*), or if the service has been restored from a
        backup since, because then numbers are given out a second time. An entry of another *life* in memory counts
        only if this one was loaded with it. A restored backup that has since got as far again goes unnoticed.
        """
        if lineage != self.record.lineage:
            return False
        return seq <= (self.engine.log.head if life == self.life else self._began)

    @property
    def folding(self) -> bool:
        """Whether its rows are being folded into a snapshot."""
        return self._loop.compactor.folding

    async def edit(
        self,
        change: Callable[[SessionView], Result],
        *,
        by: str | None = None,
        decides: bool = True,
        lease: tuple[str, int] | None = None,
        administrative: bool = False,
    ) -> Result:
        """Change the document; return the change's result once it is durable.

        *by* is the principal who adds the messages, if known. If it may answer the questions of agents (*decides*),
        a message that asks for a run instead settles an open question. *lease* names the run and the epoch of the
        holder who asks for child runs.

        Raises:
            SessionClosed: the session takes no more writes (unless *administrative*).
            StorageError: the change could not be stored; the session will be loaded anew without it.
            Exception: *change* raised it. Its changes up to then are kept: a CRDT cannot roll back.
        """
        self._loop.raise_unless_storing()
        asker = Asker(by, decides, lease)
        result = self._loop.change(
            lambda: self.engine.edit(change, self._loop.clock.now(), by=asker, administrative=administrative)
        )
        await self.durable()
        return result

    async def check_allowance(self, principal: str | None) -> None:
        """Return if one more run may begin for *principal*. Asking does not check this; beginning does.

        Raises:
            AllowanceSpent: what may be used in a day is used.
            StorageError: the store cannot be read.
        """
        await self._loop.allowances.check(tenant_of(self.id), principal)

    def check_room(self, size: int) -> None:
        """Check that the document may grow by *size* bytes. :meth:`edit` does not check this.

        Raises:
            TooLarge: it would exceed its limit.
        """
        self.engine.check_room(size)

    async def apply(self, update: bytes, actor: Actor | None = None, *, foreign: bool = False) -> None:
        """Merge a foreign update, on behalf of *actor* if one is given; return once it is durable.

        With *foreign* the update may come from another session.

        Raises:
            SessionClosed, TooLarge, UpdateError, ForeignWriter, WrongLineage, StorageError: it was not stored.
            EarlyUpdate: a part of it needs changes that have not arrived, and was not stored; the rest was.
        """
        self._loop.raise_unless_storing()
        answer = await self._loop.bring(update, actor, foreign=foreign)
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
        self._loop.raise_if_failed()
        answer = await self._loop.bring(update, compare=True)
        self._loop.raise_if_failed()
        if answer.error is not None:
            raise answer.error
        return answer.held

    def decide(self, decision: Callable[[RunSteward, Millis], Result]) -> Result:
        """Let *decision*, such as a claim, change the steward's runs; return its result.

        The decision counts once it is :meth:`durable`.

        Raises:
            SessionClosed: the session takes no more writes.
            StorageError: it could not be stored.
            RunNotClaimable: or another error that *decision* raises; then nothing was decided.
        """
        self._loop.raise_unless_storing()
        now = self._loop.clock.now()
        return self._loop.change(lambda: self.engine.decide(lambda runs: decision(runs, now)))

    def assign(self, run_id: str, claimant: Claimant) -> Assignment:
        """Assign a run to a claimant; return it with its lease. The assignment counts once it is :meth:`durable`.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or not for this claimant.
            SessionClosed, StorageError: the session takes no decisions.
        """
        self._loop.raise_unless_storing()
        return self._loop.change(lambda: self._loop.assigning.assign(run_id, claimant))

    def held(self, run_id: str, token: str) -> RunRecord:
        """Return the run if *token* proves its lease. The call counts as a sign of life of the holder.

        Raises:
            LeaseLost: the lease has ended.
            StorageError: the session failed.
        """
        self._loop.raise_if_failed()
        with self._loop.guard():
            record = self.engine.runs.table.holder(token)
            if record is None or record.id != run_id:
                raise LeaseLost(run=run_id)
            self.engine.runs.leases.renew(record.id, record.epoch, self._loop.clock.now())
        return record

    def due_before(self, time: Millis) -> bool:
        """Whether the session needs ticks: there is a lease, or a deadline before *time*."""
        if self._awake is None:
            return False
        with contextlib.suppress(SessionFailed), self._loop.guard():
            return self.failed is None and self.engine.runs.table.due_before(time)
        return False

    async def set_status(self, status: str) -> None:
        """Open or close the session for writes, as *status* says; return once it is durable."""
        self._loop.raise_unless_storing()
        await self._store.describe(self.id, status=status, now=self._loop.clock.now())
        self._loop.change(lambda: (None, self.engine.set_status(status)))
        await self.durable()
        _log.info(
            "session ends" if status != "active" else "session goes on", extra={"session": self.id, "status": status}
        )

    async def durable(self) -> None:
        """Return once everything applied so far is on disk.

        Raises:
            StorageError: it will not be.
        """
        await self._loop.durable()

    async def readable(self) -> None:
        """Return once a crash would take nothing back that the document shows.

        One exception: while the store takes no writes, decisions of the server itself are shown before they are
        stored.

        Raises:
            StorageError: the session failed and is loaded anew.
        """
        await self._loop.readable()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Return a context in which the document is read: it ends once :meth:`readable` holds for what was read.

        Raises:
            StorageError: the session failed and is loaded anew.
        """
        yield
        await self.readable()

    async def changed(self, seq: Seq, presence: int) -> None:
        """Return once an entry after *seq* is committed, or the roster has a version after *presence*.

        Raises:
            ShuttingDown: the session is about to be closed.
            StorageError: the session failed.
        """

        def reached() -> bool:
            self.check_served()
            return self.engine.log.tail > seq or self.engine.roster.version > presence

        await self._loop.signal.wait_for(reached)

    def check_served(self) -> None:
        """Check that a reader may go on reading the document.

        Raises:
            ShuttingDown: the session is about to be closed.
            StorageError: the session failed.
        """
        self._loop.raise_if_failed()
        if self._stopping:
            raise ShuttingDown

    async def export(self) -> bytes:
        """Return everything stored of the session as one Yjs update, pending updates included."""
        await self.durable()
        return await self._loop.compactor.export()

    async def snapshot(self, name: str | None = None, *, keep_rows: bool = False) -> Seq:
        """Fold everything stored into a snapshot that becomes a version, with an optional *name*; return its number.

        With *keep_rows* the rows are kept, too, so that the states between versions can still be read.

        Raises:
            StorageError: it could not be stored.
        """
        await self._all_stored()
        return await self._loop.compactor.snapshot(name, keep_rows=keep_rows)

    async def forget_past(self) -> None:
        """Fold everything stored, and forget all versions, also those with a name: what was deleted is gone for good.

        Raises:
            StorageError: it could not be stored.
        """
        await self._all_stored()
        await self._loop.compactor.forget_past()

    async def _all_stored(self) -> None:
        """Return once everything is stored and nothing is being folded: now it may be."""
        await self.durable()
        await self._loop.compactor.idle()
        self._loop.raise_unless_storing()

    # -- peers ---------------------------------------------------------------------------------------------------

    async def serve(
        self, transport: Transport, access: Access, *, lease: str | None = None, codec: Codec | None = None
    ) -> Closing:
        """Speak with a peer on *transport* until it ends; return how to close it.

        *access* says who connects and what they may do. *lease* is the token of a lease, if its holder connects.
        *codec* is the connection's own, of the dialect that it speaks; y-websocket's if None.
        """
        self.check_served()
        self._loop.wake()
        try:
            return await self.connections.serve(transport, access, lease=lease, codec=codec)
        finally:
            if self._awake is not None:
                self._awake.wake()  # the roster now waits for the peer to come back
            self.connections.signal.notify_all()

    def close_peers(self, closing: Closing) -> None:
        """Close every connection as *closing* says."""
        self.connections.close(closing)

    def abandon(self, error: CrdtSessionsError) -> None:
        """Use the session no more because of *error*; it is loaded anew for whoever comes."""
        if self._awake is not None:
            self._awake.abandon(error)
        elif self._ended is None:
            self._ended = error
            self.connections.abandon(closing_for(error))
            self.connections.signal.notify_all()

    def forget_waiting(self, principal: str | None) -> None:
        """Forget pending updates that a principal, or anybody if None, left: their right to write may have ended."""
        if self._awake is not None:  # nothing waits in one that sleeps
            self._awake.handle(PrincipalChanged(principal))

    # -- the life of a session -----------------------------------------------------------------------------------

    def at_rest(self, now: Millis) -> bool:
        """Whether :meth:`tick` has nothing to do at *now*, as is so for most sessions most of the time."""
        if self._awake is None:
            return self.connections.rests(now) and self._ended is None
        return self._awake.at_rest(now)

    def tick(self, now: Millis) -> None:
        """Tell the engine that it is *now*, if something may be due."""
        if self._awake is not None:
            self._awake.tick(now)
        else:
            self.connections.tick(now)

    def sleep_if_quiet(self, now: Millis, quiet_ms: float) -> None:
        """Leave memory but for what its connections need.

        Args:
            now: the present instant.
            quiet_ms: it stays if something was written in so many milliseconds, or if something is due soon.
        """
        if self._awake is not None and self._awake.may_sleep(now, quiet_ms):
            self._awake.sleep()
            self._awake = None
            _log.debug("asleep", extra={"session": self.id})

    async def stop(self, error: CrdtSessionsError) -> None:
        """Admit nobody, store everything, close every connection because of *error*; return when all have ended.

        Raises:
            StorageError: changes that were not acknowledged could not be stored.
        """
        self._stopping = True
        try:
            if self._awake is not None:
                await self.durable()
        finally:
            self.close_peers(closing_for(error))
            self.connections.signal.notify_all()
        await self.connections.signal.wait_for(lambda: not self.connections)

    async def drain(self, *, fold: bool = True) -> None:
        """Store everything, and fold the rows if there are many. Call it when nobody uses the session.

        Args:
            fold: False where somebody waits for it.

        Raises:
            StorageError: changes that were not acknowledged could not be stored.
        """
        self._stopping = True
        if self._awake is None:
            return
        await self._loop.tried()
        await self.durable()
        if fold and self._loop.compactor.due_on_unload:
            await self.snapshot()
        else:
            await self._loop.compactor.idle()

    async def close(self) -> None:
        """Release the document and all callers that still wait. Nothing may use the session afterwards."""
        self._stopping = True
        self.connections.signal.notify_all()
        if self._awake is not None:
            await self._awake.close()
        else:
            self.connections.release()
