"""The loop around the engine of one session: passes events in, and performs the effects that come out.

Calls of the engine do not nest: an effect that leads to another call (a run that is ready, a trial without a sandbox)
is performed after all others of its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, assert_never

from crdt_sessions.clock import Clock
from crdt_sessions.defects import log_defect
from crdt_sessions.errors import CrdtSessionsError, SessionFailed, ShuttingDown, StorageError
from crdt_sessions.ids import Millis, tenant_of
from crdt_sessions.limits import Compaction, Retention
from crdt_sessions.model import Folded
from crdt_sessions.runtime.allowances import Allowances
from crdt_sessions.runtime.assigning import Assigning
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.runtime.backlog import Backlog
from crdt_sessions.runtime.claimants import Claimants
from crdt_sessions.runtime.compactor import Compactor
from crdt_sessions.runtime.connections import Awake, Connections
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.runtime.journal import Journal, Write
from crdt_sessions.runtime.notices import Notices
from crdt_sessions.runtime.quiet import Quiet
from crdt_sessions.runtime.said import Said
from crdt_sessions.runtime.sandbox import Sandbox
from crdt_sessions.runtime.shadow import ShadowDocument
from crdt_sessions.runtime.trials import Trials
from crdt_sessions.runtime.webhooks import Outbox
from crdt_sessions.storage import SessionRecord, UpdateStore
from crdt_sessions.sync import (
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
    Persist,
    Ready,
    Reload,
    Resume,
    RunReady,
    SessionEngine,
    StoreChanged,
    Tick,
    Tried,
    Try,
    Unreadable,
    UpdateBrought,
    Violation,
)
from crdt_sessions.wire.closing import Closing, closing_for

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.session")
_call_ids = itertools.count(1)
_Simple = ClosePeer | Resume | Answered | Describe | Violation | Deed | Unreadable | Reload
"""Effects that lead to no other call of the engine, beside those of each token."""


class EffectLoop:
    """Drives the engine of one session, and abandons the session when something goes wrong.

    Args:
        record: the session's entry in the store.
        engine: started by :meth:`start`.
        store: takes the rows.
        connections: the session's, which stay while it sleeps.
        clock: the only source of time.
        compaction: when rows are folded.
        rows: number of rows that the store holds for the session.
        size: the bytes in them.
        outbox: takes notices for people who are absent.
        claimants: the workers to whom ready runs are offered.
        allowances: how much its runs may still use.
        health: whether the store takes writes.
        fold: makes one update of many, verified, away from the event loop.
        retention: which versions are kept.
        audit: records who did what.
        sandbox: tries foreign updates first; if None, they are applied without a trial.
        tidying: a lock that is held while rows are folded as routine; sessions that share one take turns.
        backlog: counts the bytes that wait for the disk, here and in other sessions.
    """

    def __init__(
        self,
        record: SessionRecord,
        engine: SessionEngine,
        store: UpdateStore,
        connections: Connections,
        *,
        clock: Clock,
        compaction: Compaction,
        rows: int,
        size: int,
        outbox: Outbox,
        claimants: Claimants,
        allowances: Allowances,
        health: StoreHealth,
        fold: Callable[[list[bytes]], Awaitable[Folded]],
        retention: Retention,
        audit: AuditLog,
        sandbox: Sandbox | None = None,
        tidying: asyncio.Lock | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self.record = record
        self.engine = engine
        self.clock = clock
        self.connections = connections
        self.signal = connections.signal
        """Notified whenever something that a caller may wait for has changed."""
        self.failed: CrdtSessionsError | None = None
        """Why the session cannot be used any more, if so."""
        self._health = health
        self.allowances = allowances
        """How much its runs may still use."""
        self.assigning = Assigning(record, engine, clock, claimants, allowances, health)
        """How its runs get to workers."""
        self.said = Said(engine)
        """Who has said what in it."""
        self._notices = Notices(record.id, engine, self.said, outbox, claimants)
        self._audit = audit
        self._outage: StorageError | None = None  # as the engine knows it
        self._calls: dict[CallId, asyncio.Future[Answered]] = {}
        self._rests_until = Millis(0)
        self._quiet = Quiet(engine.log.head, clock.now(), size)
        self.journal = Journal(
            record.id,
            store,
            clock=clock,
            health=health,
            backlog=backlog or Backlog(engine.limits.total_uncommitted_bytes),
            limits=engine.limits,
            deliveries=self._notices.deliveries,
            stored=self._committed,
            failed=self._not_stored,
        )
        self.compactor = Compactor(
            record.id,
            store,
            clock=clock,
            fold=fold,
            compaction=compaction,
            retention=retention,
            rows=rows,
            turn=tidying or asyncio.Lock(),
        )
        self._shadow = ShadowDocument(record.id, engine.document.encode, record.lineage)
        self._trials: Trials | None = None
        if sandbox is not None:
            self._trials = Trials(sandbox, self._shadow, tell=self.handle, broke=self._broke)

    def start(self) -> None:
        """Let the engine settle what the loaded document left open."""
        if self._trials is not None:
            self._trials.prepare()
        self.connections.serve_by(Awake(self.engine, self.journal, self.handle))
        self._perform(self.engine.start(self.clock.now()))
        self.connections.go_on()

    # -- driving -------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: Millis | None = None) -> None:
        """Pass *event* to the engine and perform the effects. A session that failed ignores it."""
        if self.failed is not None:
            return  # the document must not be touched any more
        now = now or self.clock.now()
        try:
            if self._health.error is not self._outage:
                self._outage = self._health.error
                self.wake()
                self._perform(self.engine.handle(StoreChanged(self._outage), now))
            self._perform(self.engine.handle(event, now))
        except Exception as error:  # noqa: BLE001 - see guard
            self._broke(error)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Let refusals pass, which change nothing; any other error is a defect and ends the session.

        After a defect, memory may be ahead of the disk. So it is dropped, and the session is loaded anew.

        Raises:
            SessionFailed: there was a defect.
        """
        try:
            yield
        except (CrdtSessionsError, EditFailed):
            raise
        except Exception as error:
            raise self._broke(error) from error

    def settled(self) -> SessionEngine:
        """Return the engine, for somebody who reads its document: that has taken what was deferred.

        Raises:
            SessionFailed: it does not.
        """
        if self.failed is None and self.engine.document.behind:
            with self.guard():
                self.engine.settle()
        return self.engine

    def _broke(self, error: BaseException) -> SessionFailed:
        found = log_defect(_log, "a defect ended the session", error, session=self.record.id)
        failed = SessionFailed(reference=found)
        self._fail(failed, closing_for(failed))
        return failed

    def change(self, how: Callable[[], tuple[Result, list[Effect]]]) -> Result:
        """Call the engine by *how*, perform the effects, and return the result.

        Raises:
            SessionFailed: a defect ended the session.
            CrdtSessionsError: *how* was refused; nothing was changed.
            Exception: an edit raised it; the edit's changes up to then are kept.
        """
        try:
            with self.guard():
                result, effects = how()
                self._perform(effects)
                return result
        except EditFailed as failure:
            with self.guard():
                self._perform(failure.effects)
            raise failure.__cause__ or failure from None

    async def bring(
        self, update: bytes, actor: Actor | None = None, *, foreign: bool = False, compare: bool = False
    ) -> Answered:
        """Have the engine apply or compare an update; return its answer, which may have to wait for earlier updates.

        Raises:
            CrdtSessionsError: the session failed.
        """
        call = CallId(next(_call_ids))
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._calls[call] = answer
        try:
            self.handle(UpdateBrought(call, update, actor, foreign, compare))
            return await answer
        finally:
            del self._calls[call]

    # -- time ----------------------------------------------------------------------------------------------------

    def at_rest(self, now: Millis) -> bool:
        """Whether :meth:`tick` has nothing to do at *now*: most sessions rest most of the time."""
        told = self._health.error is self._outage
        return told and now < self._rests_until and not self.journal.waits and self.failed is None

    def wake(self) -> None:
        """Make the next :meth:`tick` check what is due."""
        self._rests_until = Millis(0)

    def tick(self, now: Millis) -> None:
        """Let the engine know that it is *now*, if something may be due."""
        if now >= self._rests_until or self._health.error is not self._outage:
            self.handle(Tick(), now)
            with contextlib.suppress(SessionFailed), self.guard():
                self._rests_until = self.engine.rests_until(now)
        if self.journal.waits:  # what the steward decided while the store took no writes
            self.journal.flush_soon()

    def may_sleep(self, now: Millis, quiet_ms: float) -> bool:
        """Whether nothing was written for so long, nothing is under way, and nothing will be due as soon."""
        if not self._quiet.lasts(self.engine.log.head, now, quiet_ms) or not self._idle():
            return False
        if self.compactor.due_on_unload:
            self.compactor.fold()
            return False
        with contextlib.suppress(SessionFailed), self.guard():
            return self.engine.may_sleep(Millis(now + int(quiet_ms)))
        return False

    def _idle(self) -> bool:
        """Whether all parts have done what they were asked for."""
        storing = self.journal.waits or self.journal.flushing or self.compactor.folding or self._outage is not None
        trying = self._trials is not None and self._trials.under_way
        return not (storing or trying or self._calls or self.failed) and self.connections.writable

    def sleep(self) -> None:
        """Leave the connections to what is left of the engine, and let go of all else, if it :meth:`may_sleep`."""
        self.connections.fall_asleep(self.engine.sleep())
        self.journal.release()
        self._let_go()

    # -- waiting -------------------------------------------------------------------------------------------------

    async def durable(self) -> None:
        """Return once everything applied so far is on disk.

        Raises:
            StorageError: it will not be.
        """
        head = self.engine.log.head

        def reached() -> bool:
            self.raise_if_failed()
            stored = self._stored(head)
            if not stored:
                self.raise_unless_storing()
            return stored

        await self.signal.wait_for(reached)

    async def readable(self) -> None:
        """Return once a crash would take nothing back that the document shows; see :meth:`Session.readable`."""
        head = self.engine.log.head

        def reached() -> bool:
            if self._stored(head):
                return True  # whatever has become of the session since
            self.raise_if_failed()
            return self._health.error is not None and not self.journal.flushing

        await self.signal.wait_for(reached)

    async def tried(self) -> None:
        """Return once no trial is under way."""
        if self._trials is not None:
            await self._trials.ended()

    async def close(self) -> None:
        """Store what there is, release the document, and let go of all parts. Whoever uses it afterwards is told.

        Nobody would note what is changed from then on, so it must not be taken. The parts and the loop refer to each
        other. That circle is broken here: the collector is told not to look at what has lived long, so it would never
        be freed.
        """
        await self.tried()
        await self.journal.close()
        self._end(ShuttingDown())  # nobody is told of commits any more
        await self.compactor.idle()
        self.connections.release()
        self._let_go()

    def _let_go(self) -> None:
        self.engine.log.close()
        self.engine.document.close()
        if self._trials is not None:
            self._trials.release()

    def _stored(self, head: int) -> bool:
        """Tell whether everything up to *head*, and the title, is stored."""
        return self.engine.log.tail >= head and not self.journal.titling

    def raise_if_failed(self) -> None:
        """Raise the error that ended the session, if there is one."""
        if self.failed is not None:
            raise self.failed

    def raise_unless_storing(self) -> None:
        """Raise the error that ended the session, or the reason why the store takes no writes, if there is one."""
        self.raise_if_failed()
        if self._health.error is not None:
            raise self._health.error

    # -- effects -------------------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        """Perform effects in their order, then the effects that follow from them."""
        while effects:
            last: list[RunReady | Try] = []
            for effect in effects:
                match effect:
                    case Persist():  # first, since every token leads here
                        self._write_down(effect)
                    case Ready(peer):
                        self.connections.ready(peer)
                        if peer is None:
                            self.signal.notify_all()
                    case RunReady() | Try():
                        last.append(effect)
                    case _:
                        self._perform_one(effect)
            effects = []
            for called in last:
                effects += self._follow(called)

    def _perform_one(self, effect: _Simple) -> None:
        match effect:
            case ClosePeer(peer, error):
                self.connections.refuse(peer, error)
            case Resume():
                self.signal.notify_all()
            case Answered(call):
                if (answer := self._calls.get(call)) is not None and not answer.done():
                    answer.set_result(effect)
            case Describe(title):
                self.journal.describe(title or "")
            case Violation() | Deed() | Unreadable():
                self._audit.heard(self.record.id, effect)
            case Reload():
                self._load_anew()
            case _:
                assert_never(effect)

    def _follow(self, effect: RunReady | Try) -> list[Effect]:
        """Perform an effect that may call the engine again; return the effects of that call."""
        if self.failed is not None:
            return []
        if isinstance(effect, RunReady):
            return self.assigning.offer(effect.run)
        if self._trials is not None:
            self._trials.begin(effect)
            return []
        return self.engine.handle(Tried(effect.trial, TRUSTED), self.clock.now())

    def _write_down(self, effect: Persist) -> None:
        self._shadow.took(effect.update)
        self.journal.append(effect)
        if effect.records:
            self.wake()  # there may be a new lease, or a question with a deadline

    def _committed(self, write: Write) -> None:
        self.compactor.stored(len(write.rows))
        if write.records:
            self.assigning.stored(write.records)  # before others hear: a worker has more to do than they
        if write.rows:
            self.handle(Committed(write.rows[-1].seq))
        if write.titled:
            self.signal.notify_all()
        if write.records:
            for each in write.records:
                self.allowances.note(tenant_of(self.record.id), each.spendings)
            with contextlib.suppress(SessionFailed), self.guard():
                self._notices.announce(write.records)
        if self.failed is None:
            self.compactor.fold_if_due()

    def _not_stored(self, error: BaseException) -> None:
        if not isinstance(error, CrdtSessionsError):  # a store broke its contract
            self._broke(error)
            return
        if isinstance(error, StorageError):
            self._health.failed(error)
        self._fail(error, closing_for(error))

    def abandon(self, error: CrdtSessionsError) -> None:
        """Drop the document in memory because of *error*: what is stored may be something else by now."""
        self._fail(error, closing_for(error))

    def _load_anew(self) -> None:
        """Drop the document in memory; callers that waited for it may try again at once."""
        why = "the session is loaded anew; try again"
        self._fail(StorageError(why), Closing(1012, why))

    def _fail(self, error: CrdtSessionsError, closing: Closing) -> None:
        """Abandon the session: memory may be ahead of the disk, and nothing beyond the disk was acknowledged."""
        if self.failed is None:
            _log.error("session failed: %s", error, extra={"session": self.record.id})
            self._end(error)
            self.journal.stop()
            self.connections.abandon(closing)

    def _end(self, error: CrdtSessionsError) -> None:
        """Take nothing more because of *error*, unless it has ended; tell whoever waits."""
        if self.failed is None:
            self.failed = error
            for answer in self._calls.values():
                if not answer.done():
                    answer.set_exception(error)
            self.assigning.end()
            self.signal.notify_all()
