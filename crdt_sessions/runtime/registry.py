"""The registry of live sessions: the front door of the library for those who serve sessions.

What it is made of has modules of its own: which sessions are in memory (``slots``), how they come into being
(``loading``), begin to live (``starting``) and end for good (``deletion``), how peers come in (``joining``), what
there is room for (``capacity``), which sessions are left alone (``quarantine``), and which are loaded because
something is due in them (``wakeups``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any

from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.errors import CrdtSessionsError, ShuttingDown, StorageError
from crdt_sessions.ids import SessionId, tenant_of
from crdt_sessions.limits import Compaction, Limits, Retention, RunRules, Timing, UsageLimits
from crdt_sessions.model.layout import checked_agent
from crdt_sessions.runtime.access import ANONYMOUS, Access
from crdt_sessions.runtime.allowances import Allowances
from crdt_sessions.runtime.attendance import Attendance
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.runtime.capacity import Capacity
from crdt_sessions.runtime.channel import Channel, Transport, transport_over
from crdt_sessions.runtime.claimants import Claimants
from crdt_sessions.runtime.deletion import Deletion
from crdt_sessions.runtime.documents import Documents
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.runtime.identifiers import Identifiers
from crdt_sessions.runtime.joining import enter
from crdt_sessions.runtime.load import Load
from crdt_sessions.runtime.loading import Loading
from crdt_sessions.runtime.lookout import Lookout
from crdt_sessions.runtime.loops import keep_going, outlived
from crdt_sessions.runtime.pushes import Pushes
from crdt_sessions.runtime.quarantine import Quarantine
from crdt_sessions.runtime.sandbox import Sandbox
from crdt_sessions.runtime.session import Session
from crdt_sessions.runtime.slots import Slots
from crdt_sessions.runtime.starting import Starter
from crdt_sessions.runtime.streams import Streams
from crdt_sessions.runtime.wakeups import Wakeups
from crdt_sessions.runtime.webhooks import Outbox, Send, Webhook
from crdt_sessions.storage import SessionRecord, UpdateStore
from crdt_sessions.wire import Closing, Codec, closing_for

_log = logging.getLogger("crdt_sessions.registry")
_PAGE = 500


class SessionRegistry:
    """All live sessions of a process. Use it as a context manager; leaving it stops every session.

    Args:
        store: opened by the caller, and closed by the caller after the registry.
        clock: the only source of time.
        limits: sizes.
        timing: periods.
        compaction: when rows are folded.
        rules: how runs are admitted and when agents are given up.
        usage_limits: how much runs may use in a day before no more begin.
        webhooks: receivers of events of runs.
        send: how to post to webhooks, for tests.
        retention: which versions of a session are kept.
        sandbox: where foreign updates are tried first; without it they meet the CRDT library in this process, and
            one made to hurt can end it. Entered and left by the caller.
        load: what tells when it is too much; entered by this.
        enforce_authorship: whether new structs of another principal's Yjs client are refused, or only counted.
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
        usage_limits: UsageLimits | None = None,
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
        self.rules = rules or RunRules()
        checked_agent(self.rules.default_agent)  # else every session would find out by itself
        self.auto_create = auto_create
        self._timing = timing or Timing()
        self.sandbox = sandbox
        rng = rng or random.SystemRandom()
        identifiers = Identifiers(rng)
        self.health = StoreHealth(store, self.clock, rng)
        self.audit = AuditLog(store, self.clock)
        attendance = Attendance(self.clock)
        self.pushes = Pushes(attendance, self._timing)
        """Whom to wake up."""
        self.outbox = Outbox(
            store,
            webhooks,
            clock=self.clock,
            rng=rng,
            send=send,
            pushes=self.pushes,
        )
        self.allowances = Allowances(store, usage_limits or UsageLimits(), self.clock)
        """How much runs may still use."""
        self.claimants = Claimants()
        """Those who wait for runs."""
        self.lookout = Lookout(store, self.claimants, lambda: self.live, rng)
        """What there is for those who wait here in other processes that share the store."""
        self.capacity = Capacity(self.limits, load, attendance)
        """What there is room for."""
        self.documents = Documents(sandbox, identifiers)
        """Work on documents, away from the event loop."""
        self.streams = Streams(store, self.clock, self.limits, shared=store.shared)
        """Durable streams that are no session's."""
        self._quarantine = Quarantine(self.clock)
        compaction, retention = compaction or Compaction(), retention or Retention()
        starter = Starter(
            store=store,
            clock=self.clock,
            limits=self.limits,
            timing=self._timing,
            rules=self.rules,
            compaction=compaction,
            retention=retention,
            enforce=enforce_authorship,
            capacity=self.capacity,
            documents=self.documents,
            sandbox=sandbox,
            outbox=self.outbox,
            claimants=self.claimants,
            allowances=self.allowances,
            health=self.health,
            audit=self.audit,
            sleeping=lambda session_id: self._slots.sleeping(session_id),
            wake=lambda session_id: self._slots.wake(session_id),
        )
        self.loading = Loading(
            store,
            clock=self.clock,
            most_sessions=self.limits.max_sessions_per_tenant,
            quarantine=self._quarantine,
            documents=self.documents,
            identifiers=identifiers,
            audit=self.audit,
            compaction=compaction,
            retention=retention,
            start=starter.start,
        )
        """How sessions come into being."""
        self._slots = Slots(
            self.loading.load,
            clock=self.clock,
            capacity=self.capacity,
            quarantine=self._quarantine,
            most=self.limits.max_sessions,
            idle_unload_s=self._timing.idle_unload_s,
            release=store.release,
        )
        self._deletion = Deletion(store, self._slots, self._quarantine, self.clock)
        self._wakeups = Wakeups(store, self._slots, self.open, self.clock, self._quarantine)
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> SessionRegistry:
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "session ticker": self._tick,
            "store health": partial(self.health.watch, self._slots.look_after_all),
            "outbox": self._outbox_while_there_are_webhooks,
            "audit log": self.audit.run,
        }
        if self.store.shared:
            loops |= {"lookout": self.lookout.run, "streams of others": self.streams.follow}
        if self.capacity.load is not None:
            loops["load meter"] = self.capacity.load.run
        self._tasks = [
            asyncio.create_task(keep_going(name, run, self.clock), name=name) for name, run in loops.items()
        ]
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
    def long_poll_s(self) -> float:
        """How long a reader of a durable stream waits for something at the most."""
        return self._timing.long_poll_s

    @property
    def live(self) -> list[Session]:
        """The sessions in memory. Those that sleep, of which only the connections are, are not among them."""
        return self._slots.sessions

    @property
    def connected(self) -> list[Session]:
        """The sessions that somebody is connected to; some sleep."""
        return [session for session in self._slots.connected if session.peers]

    @property
    def leaving(self) -> bool:
        """Whether other processes are being given the sessions."""
        return self._slots.leaving

    def holds(self, session_id: SessionId) -> bool:
        """Tell whether a session is in memory, or about to be."""
        return session_id in self._slots

    @property
    def quarantined(self) -> dict[SessionId, CrdtSessionsError]:
        """The sessions that could not be loaded lately because something of them is damaged, and why."""
        return self._quarantine.held

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
        return await self.loading.create(
            session_id, title=title, metadata=metadata, agent=agent, content=content, by=by
        )

    async def records(self, tenant: str | None = None) -> AsyncIterator[SessionRecord]:
        """Yield what the store knows of every session, in order of id; of one *tenant*, or of all if None."""
        after: SessionId | None = None
        while page := await self.store.sessions(after=after, limit=_PAGE, tenant=tenant):
            for record in page:
                yield record
            after = page[-1].id

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
        slot = await self._slots.enter(session_id, create=create, by=by)
        try:
            yield await slot.loaded()
        finally:
            self._slots.leave(slot)

    async def serve(
        self,
        session_id: SessionId,
        channel: Channel | Transport,
        *,
        access: Access | None = None,
        generation: int | None = None,
        lineage: str | None = None,
        lease: str | None = None,
        codec: Codec | None = None,
    ) -> Closing:
        """Serve one peer until it leaves; return how its connection is to be closed, also if it was refused.

        A refusal, such as :class:`TooMany`, is returned and not raised. A store that is away is waited for.

        Args:
            session_id: the session; created if it never existed and the registry creates on join.
            channel: the connection. A ``pycrdt.Channel`` will do; a :class:`Transport` is faster.
            access: whose connection it is and what it may do; anybody's, and everything, if None.
            generation: the generation the peer's history belongs to, if it says so.
            lineage: the lineage it belongs to, if it says so: then no session is created for it.
            lease: the token of a run's holder, if this is its connection.
            codec: the connection's own, of the dialect that it speaks; y-websocket's if None.
        """
        access = access or Access()
        tenant, by, create = tenant_of(session_id), access.principal, access.creates and self.auto_create
        entering = partial(
            enter, self._slots, session_id, create=create, by=by, generation=generation, lineage=lineage
        )
        try:
            self.capacity.admit(tenant, by)
            try:
                slot = await self.health.outlast(entering)
                try:
                    session = await slot.loaded()
                    self.capacity.check_session(session.peers)
                    return await session.serve(transport_over(channel), access, lease=lease, codec=codec)
                finally:
                    self._slots.leave(slot)
            finally:
                self.capacity.leave(tenant, by)
        except CrdtSessionsError as error:
            return closing_for(error)

    @asynccontextmanager
    async def join(
        self,
        session_id: SessionId,
        *,
        create: bool,
        by: str,
        generation: int | None = None,
        lineage: str | None = None,
    ) -> AsyncIterator[Session]:
        """Use a session as a peer does that may have a copy of it.

        Args:
            session_id: its name.
            create: whether it may be created, if it never existed and the registry creates on join.
            by: the principal who would, for the audit log.
            generation: the generation the copy belongs to, if the peer says so.
            lineage: the lineage it belongs to, if it says so: then no session is created for it.

        Raises:
            WrongLineage, WrongGeneration: the copy is of another session of that name.
            CrdtSessionsError: as :meth:`open` does.
        """
        create = create and self.auto_create
        slot = await enter(self._slots, session_id, create=create, by=by, generation=generation, lineage=lineage)
        try:
            yield await slot.loaded()
        finally:
            self._slots.leave(slot)

    async def delete(self, session_id: SessionId) -> None:
        """Delete a session for good: close its peers with 4404, drop it from memory and from the store.

        Raises:
            SessionNotFound: there is none.
            StorageError: it could not be deleted.
        """
        await self._deletion.delete(session_id)

    async def expire(self, session_id: SessionId, before: float) -> bool:
        """Delete a session for good, unless somebody uses it, or has changed it since *before*; tell whether it was.

        Raises:
            SessionNotFound: there is none.
            StorageError: it could not be deleted.
        """
        return await self._deletion.expire(session_id, before)

    def forget_waiting(self, tenant: str | None, principal: str | None) -> None:
        """Forget what people who are gone have left waiting in sessions, since they may not be allowed to write it.

        Args:
            tenant: whose sessions; None for all.
            principal: who; None for everybody.
        """
        for session in self.live:
            if tenant in (None, tenant_of(session.id)):
                session.forget_waiting(principal)

    def abandon(self, error: CrdtSessionsError) -> None:
        """Drop every session in memory, or on its way there: its store says by *error* that others may write it."""
        self._slots.abandon(error)

    # -- the end -------------------------------------------------------------------------------------------------

    async def hand_over(self, per_s: float) -> None:
        """Let other processes have all sessions, one after the other, and load none any more.

        Args:
            per_s: so many a second.
        """
        await self._slots.hand_over(per_s)

    async def shutdown(self) -> None:
        """Stop: admit nobody, store everything, close every connection with 1012, drop every session."""
        self._stopping = True
        self._slots.stop_entering()
        self.health.stop()
        self.claimants.look_again()
        self.streams.stop()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._wakeups.stop(), return_exceptions=True)
        await self._slots.stop()
        try:
            await self.audit.flush()
        except StorageError as error:
            _log.error("entries of the audit log are lost: %s", error)

    # -- inside --------------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            with outlived("the look for runs that are due"):  # leases and deadlines in memory do not depend on it
                await self._wakeups.look()
            await self.clock.sleep(self._timing.tick_s)
            self._slots.look_after_all()  # a call, so that the sleeping loop keeps no session alive in a local
            await self._slots.relieve()

    async def _outbox_while_there_are_webhooks(self) -> None:
        if self.outbox:
            await self.outbox.run()
