"""The registry of live sessions: loads on demand, once for all who wait, and unloads what nobody uses.

A session is absent, loading, active or draining. A join during a drain waits for its end and loads again;
a load that fails is forgotten, so the next join tries anew.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from crdt_sessions import failpoints
from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.errors import (
    CrdtSessionsError,
    DamagedDatabase,
    DamagedLog,
    EarlyUpdate,
    SessionDeleted,
    SessionExists,
    SessionFailed,
    SessionNotFound,
    ShuttingDown,
    StorageError,
    TooMany,
    UpdateError,
    WrongGeneration,
    WrongLineage,
)
from crdt_sessions.ids import Millis, Seq, SessionId, check_session_id, reference, tenant_of
from crdt_sessions.limits import Compaction, Limits, Retention, RunRules, Timing
from crdt_sessions.model import Folded, Later, SessionDoc, fold, seed, settled_meta, split, way_back
from crdt_sessions.model.layout import checked_agent
from crdt_sessions.runtime.access import ANONYMOUS, Access
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.runtime.backlog import Backlog
from crdt_sessions.runtime.channel import Channel, Line, line_of
from crdt_sessions.runtime.claimants import Claimants
from crdt_sessions.runtime.entries import runs_of, writers_of
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.runtime.load import Load, give_back_memory
from crdt_sessions.runtime.sandbox import Sandbox
from crdt_sessions.runtime.session import Session
from crdt_sessions.runtime.webhooks import Outbox, Send, Webhook
from crdt_sessions.storage import Row, SessionRecord, StoredSession, UpdateStore
from crdt_sessions.sync import Aside, EngineFailed, LogMemory, Panics, SessionEngine
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.closing import Closing, closing_for
from crdt_sessions.wire.varint import decode_state_vector

_log = logging.getLogger("crdt_sessions.registry")
_SESSIONS_KNOWN = 1000
"""Of how many sessions it is remembered what does harm in them."""
_PAGE = 500
_ROWS_AT_ONCE = 32
"""Rows that are read into a document before it is others' turn."""
_QUARANTINE_MS = 30_000
"""How long a session that cannot be loaded is left alone, though its runs are due or somebody wants to join it."""
_DEFECTS = 4
"""A session that defects of ours ended so often within that time is left alone, too."""
_ATTEMPTS = 16
"""How often a session is loaded in a row, each time without what was to blame for the last failure."""


@dataclass(slots=True, eq=False)
class _Slot:
    creates: bool
    loading: asyncio.Task[Session] = field(init=False)
    session: Session | None = None
    """The loaded session, once it is."""
    users: int = 0
    idle_since: Millis | None = None
    draining: asyncio.Task[None] | None = None


class SessionRegistry:
    """All live sessions of a process. Use it as a context manager; leaving it stops every session.

    Args:
        store: opened by the caller, and closed by the caller after the registry.
        clock: the only source of time.
        limits: sizes.
        timing: periods.
        compaction: when rows are folded.
        rules: how runs are admitted and when agents are given up.
        webhooks: whom to tell what happened to runs.
        send: how to post to webhooks, for tests.
        retention: which versions of a session are kept.
        sandbox: where foreign updates are tried first; without it they meet the CRDT library in this process, and
            one made to hurt can end it. Entered and left by the caller.
        load: what tells when it is too much; entered by this.
        enforce_authorship: whether what is new by somebody else's Yjs client is refused, or only counted.
        auto_create: whether joining a session that never existed creates it, as y-websocket clients expect.
        rng: source of Yjs client ids, which must be fresh for every load, and of lineages.

    Raises:
        BadId: *rules* name an agent that cannot be called that.
    """

    def __init__(
        self,
        store: UpdateStore,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        timing: Timing | None = None,
        compaction: Compaction | None = None,
        rules: RunRules | None = None,
        webhooks: Iterable[Webhook] = (),
        send: Send | None = None,
        retention: Retention | None = None,
        sandbox: Sandbox | None = None,
        load: Load | None = None,
        enforce_authorship: bool = True,
        auto_create: bool = True,
        rng: random.Random | None = None,
    ) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.compaction = compaction or Compaction()
        self.rules = rules or RunRules()
        checked_agent(self.rules.default_agent)  # else every session would find out by itself
        self.retention = retention or Retention()
        self.sandbox = sandbox
        self.health = StoreHealth(store, self.clock)
        self.auto_create = auto_create
        self.claimants = Claimants()
        """Those who wait for runs."""
        self._rng = rng or random.SystemRandom()
        self.outbox = Outbox(store, webhooks, clock=self.clock, rng=self._rng, send=send)
        self._slots: dict[SessionId, _Slot] = {}
        self._dropped = False  # whether there may be garbage worth a full collection
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._waking: set[asyncio.Task[None]] = set()
        self._panics: dict[SessionId, Panics] = {}
        self._aside: dict[SessionId, Aside] = {}
        self._defects: dict[SessionId, list[Millis]] = {}
        self._load_meter = load
        self._enforce = enforce_authorship
        self.connections = 0
        """Connections right now."""
        self.by_tenant: Counter[str] = Counter()
        """Connections of each tenant right now."""
        self._by_principal: Counter[tuple[str, str]] = Counter()
        self.audit = AuditLog(store, self.clock)
        self._tidying = asyncio.Lock()
        self._backlog = Backlog(self.limits.total_uncommitted_bytes)
        self._log_memory = LogMemory(self.limits.total_log_bytes)
        self._counted: dict[str, int] = {}
        self._unwell: dict[SessionId, Millis] = {}
        self._quarantine: dict[SessionId, tuple[Millis, CrdtSessionsError]] = {}

    async def __aenter__(self) -> SessionRegistry:
        self._tasks = [
            asyncio.create_task(self._tick(), name="session ticker"),
            asyncio.create_task(self._outbox_while_there_are_webhooks(), name="outbox"),
            asyncio.create_task(self.audit.run(), name="audit log"),
        ]
        if self._load_meter is not None:
            self._tasks.append(asyncio.create_task(self._load_meter.run(), name="load meter"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    @property
    def stopping(self) -> bool:
        """Whether the process is about to stop."""
        return self._stopping

    @property
    def live(self) -> list[Session]:
        """The sessions in memory."""
        return [session for slot in self._slots.values() if (session := slot.session) is not None]

    @property
    def quarantined(self) -> dict[SessionId, CrdtSessionsError]:
        """The sessions that could not be loaded lately because something of them is damaged, and why."""
        return {session_id: error for session_id, (_, error) in self._quarantine.items()}

    # -- sessions ------------------------------------------------------------------------------------------------

    async def create(
        self,
        session_id: SessionId,
        *,
        title: str | None = None,
        metadata: dict[str, Any] | None = None,
        agent: str | None = None,
        content: bytes | None = None,
        by: str = ANONYMOUS,
    ) -> SessionRecord:
        """Create a session; return its record once it is durable.

        Args:
            session_id: its name. One that was deleted becomes a new generation.
            title: shown in lists.
            metadata: the application's own.
            agent: who answers a user's message that asks nobody in particular; the rules' default if None.
            content: a Yjs update to begin with.
            by: the principal who does, for the audit log.

        Raises:
            SessionExists: there is one of that name.
            UpdateError: *content* cannot be decoded.
            StorageError: it could not be stored.
        """
        if self._stopping:
            raise ShuttingDown
        await self.reserve(session_id)
        generation = await self.store.last_generation(session_id) + 1
        created = await self._create(
            session_id, generation=generation, title=title, metadata=metadata, agent=agent, content=content, by=by
        )
        return created.record

    async def _create(
        self,
        session_id: SessionId,
        *,
        generation: int,
        title: str | None = None,
        metadata: dict[str, Any] | None = None,
        agent: str | None = None,
        content: bytes | None = None,
        by: str,
    ) -> StoredSession:
        """Create a session that was counted; return what is stored of it. Arguments and errors as :meth:`create`."""
        now = self.clock.now()
        lineage = self.lineage()
        begin = seed(
            session_id,
            generation=generation,
            lineage=lineage,
            created_at=now,
            client_id=self.client_id(),
            title=title,
            metadata=metadata,
            agent=agent,
        )
        if content is not None:
            begin, waiting = await self.vouch([begin, content])
            if waiting != EMPTY_UPDATE:
                raise EarlyUpdate(size=len(waiting))
        record = await self.store.create(
            session_id, begin, generation=generation, title=title, now=now, lineage=lineage
        )
        self.audit.note("session.create", by, session_id)
        _log.info("session begins", extra={"session": session_id, "principal": by})
        return StoredSession(record, [Row(Seq(1), begin)])

    async def records(self, tenant: str | None = None) -> AsyncIterator[SessionRecord]:
        """Yield what the store knows of every session, in order of id; of one *tenant*, or of all if None."""
        after: SessionId | None = None
        while page := await self.store.sessions(after=after, limit=_PAGE, tenant=tenant):
            for record in page:
                yield record
            after = page[-1].id

    async def check_absent(self, session_id: SessionId) -> None:
        """Return if there is no session of that name.

        Raises:
            SessionExists: there is one.
        """
        if await self.store.get(session_id) is not None:
            raise SessionExists(session=session_id)

    async def reserve(self, session_id: SessionId) -> None:
        """Return if a session of that name may be created, which is about to happen: it counts from now on.

        Raises:
            SessionExists: there is one.
            TooMany: its tenant has as many as it may have.
            BadSessionId: it is a name, and not what ``session_id`` makes of it.
        """
        await self.check_absent(session_id)
        await self._count(session_id)

    async def _count(self, session_id: SessionId) -> None:
        """Count a session that is about to be created. Raises as :meth:`reserve`."""
        check_session_id(session_id)
        tenant, limit = tenant_of(session_id), self.limits.max_sessions_per_tenant
        if tenant not in self._counted:
            self._counted[tenant] = await self.store.count(tenant)
        if self._counted[tenant] >= limit:
            raise TooMany(what="sessions of a tenant", limit=limit)
        self._counted[tenant] += 1  # in advance; those that come to nothing are counted until the next deletion

    @asynccontextmanager
    async def open(
        self, session_id: SessionId, *, create: bool = False, by: str = ANONYMOUS
    ) -> AsyncIterator[Session]:
        """Use a session: it is in memory for as long as the context lasts.

        Args:
            session_id: its name.
            create: whether to create it if it never existed.
            by: the principal who would, for the audit log.

        Raises:
            SessionNotFound: there is none, or it was deleted.
            StorageError: it cannot be loaded, or its log is damaged.
            ShuttingDown: the process is about to stop.
        """
        slot = await self._enter(session_id, create=create, by=by)
        try:
            yield await asyncio.shield(slot.loading)
        finally:
            self._leave(session_id, slot)

    async def serve(
        self,
        session_id: SessionId,
        channel: Channel | Line,
        *,
        access: Access | None = None,
        generation: int | None = None,
        lineage: str | None = None,
        lease: str | None = None,
    ) -> Closing:
        """Serve one peer until it leaves; return how its connection is to be closed, also if it was refused.

        A refusal, such as :class:`TooMany`, is returned and not raised.

        Args:
            session_id: the session; created if it never existed and the registry creates on join.
            channel: the connection. A ``pycrdt.Channel`` will do; a line is faster.
            access: whose connection it is and what it may do; anybody's, and everything, if None.
            generation: the generation the peer's history belongs to, if it says so.
            lineage: the lineage it belongs to, if it says so: then no session is created for it.
            lease: the token of a run's holder, if this is its connection.
        """
        access = access or Access()
        try:
            with self.admitted(tenant_of(session_id), access.principal):
                create = self.auto_create and access.creates and lineage is None
                async with self.open(session_id, create=create, by=access.principal) as session:
                    _check_history(session.record, generation, lineage)
                    if session.peers >= self.limits.max_connections_per_session:
                        limit = self.limits.max_connections_per_session
                        raise TooMany(what="connections to one session", limit=limit)
                    return await session.serve(line_of(channel), access, lease=lease)
        except SessionNotFound as error:
            if lineage is not None and not isinstance(error, SessionDeleted):
                return closing_for(WrongLineage(session=session_id, theirs=lineage, ours=""))
            return closing_for(error)
        except CrdtSessionsError as error:
            return closing_for(error)

    @property
    def load_meter(self) -> Load | None:
        """What measures the load of the process, if something does."""
        return self._load_meter

    def check_lag(self) -> None:
        """Return if there is time for somebody new.

        Raises:
            Overloaded: the event loop lags.
        """
        if self._load_meter is not None:
            self._load_meter.check_lag()

    @contextmanager
    def admitted(self, tenant: str, principal: str) -> Iterator[None]:
        """Return a context that counts a connection or stream of a *tenant* and *principal*.

        Raises as :meth:`check_room`.
        """
        self.check_room(tenant, principal)
        who = (tenant, principal)
        self.connections += 1
        self.by_tenant[tenant] += 1
        self._by_principal[who] += 1
        try:
            yield
        finally:
            self.connections -= 1
            self.by_tenant[tenant] -= 1
            self._by_principal[who] -= 1
            if not self._by_principal[who]:
                del self._by_principal[who]

    def check_room(self, tenant: str, principal: str) -> None:
        """Return if there is room for one more connection, or stream, of a *tenant* and *principal*.

        Raises:
            TooMany, Overloaded: there is not.
        """
        self.check_lag()
        if self.connections >= self.limits.max_connections:
            raise TooMany(what="connections", limit=self.limits.max_connections)
        if self.by_tenant[tenant] >= self.limits.max_connections_per_tenant:
            raise TooMany(what="connections of a tenant", limit=self.limits.max_connections_per_tenant)
        known = principal != ANONYMOUS
        if known and self._by_principal[tenant, principal] >= self.limits.max_connections_per_principal:
            limit = self.limits.max_connections_per_principal
            raise TooMany(what=f"connections of {principal}", limit=limit)

    async def delete(self, session_id: SessionId) -> None:
        """Delete a session for good: close its peers with 4404, drop it from memory and from the store.

        Raises:
            SessionNotFound: there is none.
            StorageError: it could not be deleted.
        """
        self._counted.pop(tenant_of(session_id), None)
        try:
            slot = await self._enter(session_id)
        except (DamagedLog, DamagedDatabase):  # what cannot be read can still be deleted
            await self._delete_stored(session_id)
            self._quarantine.pop(session_id, None)
            return
        slot.users -= 1
        error = SessionDeleted(session=session_id)

        async def end() -> None:
            session = await slot.loading
            session.close_peers(closing_for(error))
            try:
                await session.drain()
                await self._delete_stored(session_id)
            finally:
                await self._drop(session_id, slot)

        slot.draining = asyncio.create_task(end(), name=f"delete {session_id}")
        await asyncio.shield(slot.draining)

    async def _delete_stored(self, session_id: SessionId) -> None:
        await self.store.delete(session_id, now=self.clock.now())
        _log.info("session ends", extra={"session": session_id, "status": "deleted"})

    def forget_waiting(self, tenant: str | None, principal: str | None) -> None:
        """Forget what people who are gone have left waiting in sessions, since they may not be allowed to write it.

        Args:
            tenant: whose sessions; None for all.
            principal: who; None for everybody.
        """
        for session in self.live:
            if tenant in (None, tenant_of(session.id)):
                session.forget_waiting(principal)

    # -- the end -------------------------------------------------------------------------------------------------

    async def shutdown(self) -> None:
        """Stop: admit nobody, store everything, close every connection with 1012, drop every session."""
        self._stopping = True
        self.claimants.ready.beat()
        tasks, self._tasks = [*self._tasks, *self._waking], []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        slots = dict(self._slots)
        await asyncio.gather(*(self._stop(session_id, slot) for session_id, slot in slots.items()))
        try:
            await self.audit.flush()
        except StorageError as error:
            _log.error("entries of the audit log are lost: %s", error)

    async def _stop(self, session_id: SessionId, slot: _Slot) -> None:
        if slot.draining is not None:
            await asyncio.gather(slot.draining, return_exceptions=True)
            return
        await asyncio.gather(slot.loading, return_exceptions=True)
        if (session := slot.session) is None:
            return
        try:
            await session.stop(ShuttingDown())
            failpoints.reach("shutdown")
            await session.drain()
        except CrdtSessionsError as error:
            _log.error("lost what was not acknowledged: %s", error, extra={"session": session_id})
        await self._drop(session_id, slot)

    # -- inside --------------------------------------------------------------------------------------------------

    async def _enter(self, session_id: SessionId, *, create: bool = False, by: str = ANONYMOUS) -> _Slot:
        """Return the slot of a loaded session, with one user more."""
        while True:
            if self._stopping:
                raise ShuttingDown
            slot = self._slots.get(session_id)
            if slot is None:
                self._raise_if_quarantined(session_id)
                if await self._make_room():
                    continue  # it took a moment, in which somebody else may have begun to load it
                slot = self._slots[session_id] = _Slot(create)
                slot.loading = asyncio.create_task(self._load(session_id, slot, by=by))
            if slot.draining is not None:
                await asyncio.wait({slot.draining})
                continue
            slot.users += 1
            try:
                session = await asyncio.shield(slot.loading)
            except SessionNotFound:
                self._leave(session_id, slot)
                if create and not slot.creates:  # we waited for somebody who would not create it
                    continue
                raise
            except BaseException:
                self._leave(session_id, slot)
                raise
            if session.failed is None and slot.draining is None:
                return slot
            self._leave(session_id, slot)

    def _leave(self, session_id: SessionId, slot: _Slot) -> None:
        slot.users -= 1
        slot.idle_since = self.clock.now()
        self._forget_if_unusable(session_id, slot)

    def _forget_if_unusable(self, session_id: SessionId, slot: _Slot) -> None:
        """Make room for a new load if this one failed, or its session did."""
        if self._slots.get(session_id) is not slot or not slot.loading.done():
            return
        session = slot.session
        if session is None:
            del self._slots[session_id]
        elif session.failed is not None and slot.draining is None:
            damaged = isinstance(session.failed, DamagedLog | DamagedDatabase)
            if damaged or self._fails_often(session_id, session.failed):
                self._put_in_quarantine(session_id, session.failed)
            slot.draining = asyncio.create_task(self._drop(session_id, slot))

    def _fails_often(self, session_id: SessionId, error: CrdtSessionsError) -> bool:
        """Note that a defect ended a session; tell whether it happens again and again, whatever is left alone."""
        if not isinstance(error, SessionFailed):
            return False
        now = self.clock.now()
        recent = [at for at in self._defects.pop(session_id, ()) if at > now - _QUARANTINE_MS]
        if len(recent) + 1 < _DEFECTS:
            _keep(self._defects, session_id, [*recent, now])
            return False
        return True

    def _raise_if_quarantined(self, session_id: SessionId) -> None:
        until, error = self._quarantine.get(session_id, (Millis(0), None))
        if error is not None and until > self.clock.now():
            raise error

    def _put_in_quarantine(self, session_id: SessionId, error: CrdtSessionsError) -> None:
        _log.error("in quarantine: %s", error, extra={"session": session_id})
        self._quarantine[session_id] = (Millis(self.clock.now() + _QUARANTINE_MS), error)

    async def _make_room(self) -> bool:
        """See to it that one more session may be loaded; tell whether that took a moment.

        Raises:
            TooMany: all sessions in memory are in use.
            Overloaded: there is no memory for another one.
        """
        if len(self._slots) >= self.limits.max_sessions:
            idle = [item for item in self._slots.items() if self._may_go(item[1])]
            if not idle:
                raise TooMany(what="sessions at a time", limit=self.limits.max_sessions)
            await asyncio.wait({self._begin_unload(*min(idle, key=lambda item: item[1].idle_since or 0))})
            return True
        if self._load_meter is not None:
            self._load_meter.check_memory()
        return False

    def _may_go(self, slot: _Slot, *, pressed: bool = True) -> bool:
        """Whether nobody uses a session, and nothing is about to happen in it.

        What somebody has left there that waits holds it for a while, unless others need the room (*pressed*).
        """
        if slot.users or slot.idle_since is None or slot.draining is not None or slot.session is None:
            return False
        soon = Millis(self.clock.now() + int(self.timing.idle_unload_s * 1000))
        session = slot.session
        return not session.due_before(soon) and (pressed or not len(session.engine.waiting))

    def _begin_unload(self, session_id: SessionId, slot: _Slot) -> asyncio.Task[None]:
        slot.draining = asyncio.create_task(self._unload(session_id, slot), name=f"unload {session_id}")
        return slot.draining

    async def _relieve(self) -> None:
        """Drop every session that nobody uses, if memory is short."""
        if self._load_meter is None or not self._load_meter.crowded:
            return
        going = [self._begin_unload(*item) for item in list(self._slots.items()) if self._may_go(item[1])]
        if going:
            _log.warning("memory is short: %s idle sessions are dropped", len(going))
            await asyncio.wait(going)
        if self._dropped:
            self._dropped = False
            gc.unfreeze()  # some applications freeze what lives long
            gc.collect()
        give_back_memory()

    async def _load(self, session_id: SessionId, slot: _Slot, *, by: str) -> Session:
        try:
            stored = await self.store.load(session_id) or await self._found(session_id, create=slot.creates, by=by)
            slot.session = await self._revive_with_patience(stored)
        except (DamagedLog, DamagedDatabase) as error:
            self._put_in_quarantine(session_id, error)
            raise
        except CrdtSessionsError:
            raise
        except Exception as error:
            failed = SessionFailed(reference=reference())
            about = {"session": session_id, "reference": failed.reference}
            _log.error("a defect prevents that it is loaded", exc_info=error, extra=about)
            self._put_in_quarantine(session_id, failed)
            raise failed from error
        self._quarantine.pop(session_id, None)
        _log.debug("loaded", extra={"session": session_id, "rows": len(stored.rows)})
        return slot.session

    async def _found(self, session_id: SessionId, *, create: bool, by: str) -> StoredSession:
        """Return what is stored of a session that is made because somebody joins it, and has never been before."""
        if await self.store.last_generation(session_id):
            raise SessionDeleted(session=session_id)
        if not create:
            raise SessionNotFound(session=session_id)
        await self._count(session_id)
        try:
            return await self._create(session_id, generation=1, by=by)
        except SessionExists:  # somebody else was quicker
            stored = await self.store.load(session_id)
            if stored is None:
                raise SessionNotFound(session=session_id) from None
            return stored

    async def _revive_with_patience(self, stored: StoredSession) -> Session:
        """Load a session; if a defect of ours prevents it, without what it is to blame for.

        Raises:
            DamagedLog: a row cannot be applied.
            EngineFailed: nothing is known to be to blame, or too much.
        """
        aside, unexplained, attempts = self._aside_of(stored.record.id), 0, 0
        while True:
            attempts, blamed = attempts + 1, aside.count
            try:
                return self._revive(stored, *await self._read(stored))
            except EngineFailed as error:
                about = {"session": stored.record.id, "left_alone": aside.all_left()}
                _log.error("a defect prevents that it is loaded", exc_info=error, extra=about)
                unexplained += aside.count == blamed
                if unexplained > 1 or attempts == _ATTEMPTS:
                    raise
            await asyncio.sleep(0)  # others' sessions go on

    async def _read(self, stored: StoredSession) -> tuple[SessionDoc, list[Later]]:
        """Return the document, and what of its rows waits.

        Others' sessions go on between its rows, of which there may be thousands.
        """
        document = SessionDoc(self.client_id())
        waiting: list[Later] = []
        try:
            for at, row in enumerate(stored.rows, start=1):
                try:
                    if row.waits:  # stored so by an earlier release; no document takes it before it was tried
                        taken, _, later = split(row.update, decode_state_vector(document.state_vector()))
                        document.apply(taken)
                        waiting += [later] if later is not None else []
                    else:
                        document.apply(row.update)
                except UpdateError as error:
                    raise DamagedLog(session=stored.record.id, seq=row.seq, why=str(error)) from error
                if at % _ROWS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except BaseException:
            document.close()
            raise
        return document, waiting

    def _revive(self, stored: StoredSession, document: SessionDoc, waiting: list[Later]) -> Session:
        record = stored.record
        engine = SessionEngine(
            record.id,
            document,
            after=stored.last_seq,
            settled_meta=settled_meta(record.id, record.generation, record.created_at, record.status, record.lineage),
            runs=runs_of(stored),
            writers=writers_of(stored),
            limits=self.limits,
            timing=self.timing,
            rules=self.rules,
            panics=self._panics_of(record.id),
            aside=self._aside_of(record.id),
            enforce=self._enforce,
            log_memory=self._log_memory,
        )
        for later in waiting:
            engine.waits_on_record(later)
        session = Session(
            record,
            engine,
            self.store,
            clock=self.clock,
            compaction=self.compaction,
            rows=len(stored.rows),
            outbox=self.outbox,
            claimants=self.claimants,
            health=self.health,
            fold=self.fold,
            retention=self.retention,
            sandbox=self.sandbox,
            audit=self.audit,
            tidying=self._tidying,
            backlog=self._backlog,
        )
        try:
            session.start()
        except EngineFailed:
            document.close()
            raise
        return session

    async def _drop(self, session_id: SessionId, slot: _Slot) -> None:
        if (session := slot.session) is not None:
            await session.close()
        if self._slots.get(session_id) is slot:
            del self._slots[session_id]
        self._dropped = True

    async def _tick(self) -> None:
        while True:
            await self._wake_due()
            await self.clock.sleep(self.timing.tick_s)
            await self.health.look()
            self._look_after_all()  # a call, so that the sleeping loop keeps no session alive in a local
            await self._relieve()

    async def _wake_due(self) -> None:
        """Load the sessions in which a lease may have run out, or a question has expired, while nobody was there."""
        try:
            due = await self.store.due_sessions(self.clock.now())
        except StorageError as error:
            _log.error("cannot look for runs that are due: %s", error)
            return
        for session_id in due:
            if session_id not in self._slots and self._unwell.get(session_id, 0) <= self.clock.now():
                task = asyncio.create_task(self._wake(session_id), name=f"wake {session_id}")
                self._waking.add(task)
                task.add_done_callback(self._waking.discard)

    async def _wake(self, session_id: SessionId) -> None:
        try:
            async with self.open(session_id):
                _log.debug("woken", extra={"session": session_id})
            self._unwell.pop(session_id, None)
        except CrdtSessionsError as error:
            self._unwell[session_id] = Millis(self.clock.now() + _QUARANTINE_MS)
            _log.error("cannot look after its runs: %s", error, extra={"session": session_id})

    async def _outbox_while_there_are_webhooks(self) -> None:
        if self.outbox:
            await self.outbox.run()

    def _look_after_all(self) -> None:
        now = self.clock.now()
        for session_id, slot in list(self._slots.items()):
            session = slot.session
            if session is not None and slot.draining is None and not (slot.users and session.at_rest(now)):
                self._look_after(session_id, slot, session, now)

    def _look_after(self, session_id: SessionId, slot: _Slot, session: Session, now: Millis) -> None:
        session.tick(now)
        self._forget_if_unusable(session_id, slot)
        idle_before = now - self.timing.idle_unload_s * 1000
        if slot.idle_since is not None and slot.idle_since <= idle_before and self._may_go(slot, pressed=False):
            self._begin_unload(session_id, slot)

    async def _unload(self, session_id: SessionId, slot: _Slot) -> None:
        session = await slot.loading
        try:
            await session.drain()
            failpoints.reach("unload")
            _log.debug("unloaded", extra={"session": session_id})
        except CrdtSessionsError as error:
            _log.error("lost what was not acknowledged: %s", error, extra={"session": session_id})
        finally:
            await self._drop(session_id, slot)

    async def fold(self, updates: list[bytes]) -> Folded:
        """Return the smallest update that holds everything in *updates*, verified; made away from the event loop.

        Raises:
            UpdateError, StorageError: that cannot be done.
        """
        if self.sandbox is not None:
            return await self.sandbox.fold(updates)
        return await asyncio.to_thread(fold, updates)

    async def vouch(self, updates: list[bytes]) -> tuple[bytes, bytes]:
        """Return what foreign updates make of an empty document, and what of them waits for something missing.

        Raises:
            UpdateError: they cannot be applied, or do harm; or something waits, and there is a sandbox.
        """
        if self.sandbox is not None:
            whole, waiting = await self.sandbox.vouch(updates)
            if waiting != EMPTY_UPDATE:
                raise EarlyUpdate(size=len(waiting))
            return whole, waiting
        document = SessionDoc(self.client_id())
        try:
            for update in updates:
                document.apply(update)
            return document.encode(), document.waiting
        finally:
            document.close()

    async def way_back(self, document: bytes, earlier: bytes) -> bytes:
        """Return the update that makes *document* look as it did *earlier*; made away from the event loop.

        Raises:
            UpdateError, StorageError: that cannot be done.
        """
        if self.sandbox is not None:
            return await self.sandbox.way_back(document, earlier, self.client_id())
        return await asyncio.to_thread(way_back, document, earlier, self.client_id())

    def _panics_of(self, session_id: SessionId) -> Panics:
        """Return what is known of updates that made the library panic in a session."""
        return _keep(self._panics, session_id, self._panics.pop(session_id, Panics()))

    def _aside_of(self, session_id: SessionId) -> Aside:
        """Return what is known of what cannot be decided about in a session."""
        return _keep(self._aside, session_id, self._aside.pop(session_id, Aside()))

    def lineage(self) -> str:
        """Return a name for a session that is about to be created, which no other one has."""
        return f"{self._rng.getrandbits(64):016x}"

    def client_id(self) -> int:
        """Return a fresh Yjs client id."""
        return self._rng.randrange(1, 2**32)


def _check_history(record: SessionRecord, generation: int | None, lineage: str | None) -> None:
    """Return if a peer's history, of which it says that much, belongs to this session."""
    if lineage is not None and lineage != record.lineage:
        raise WrongLineage(session=record.id, theirs=lineage, ours=record.lineage)
    if generation is not None and generation != record.generation:
        raise WrongGeneration(session=record.id, theirs=generation, ours=record.generation)


Known = TypeVar("Known")


def _keep(known: dict[SessionId, Known], session_id: SessionId, value: Known) -> Known:
    """Remember *value*, of few sessions, the latest; return it."""
    known[session_id] = value
    if len(known) > _SESSIONS_KNOWN:
        del known[next(iter(known))]
    return value
