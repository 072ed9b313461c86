"""Which sessions are in memory: loaded on demand, once for all who wait, and unloaded when nobody uses them.

A session is absent, loading, active, asleep or draining. A join during a drain waits for its end and loads again;
a load that fails is forgotten, so the next join tries anew. One that is used by nobody but its connections, which do
nothing, sleeps: it is loaded anew for whoever uses it, and for anything that its connections bring.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from crdt_sessions.clock import Clock
from crdt_sessions.errors import CrdtSessionsError, SessionNotFound, ShuttingDown, TooMany
from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.runtime.access import ANONYMOUS
from crdt_sessions.runtime.capacity import Capacity
from crdt_sessions.runtime.quarantine import Quarantine
from crdt_sessions.runtime.session import Session
from crdt_sessions.runtime.slot import LOOK_AT_ONCE, Slot
from crdt_sessions.runtime.unloading import Unloading
from crdt_sessions.wire.closing import Closing

_log = logging.getLogger("crdt_sessions.registry")


class Load(Protocol):
    """Loads a session, or creates it."""

    async def __call__(self, session_id: SessionId, *, create: bool, by: str) -> Session:
        """Return the session, gone on from what is stored of it."""
        ...


class Slots:
    """The sessions in memory.

    Args:
        load: loads a session.
        clock: the only source of time.
        capacity: whether there is room for one more.
        quarantine: which ones are left alone.
        most: how many there may be.
        idle_unload_s: how long one that nobody uses stays.
        release: lets another process have a session that is not in memory any more.
    """

    def __init__(
        self,
        load: Load,
        *,
        clock: Clock,
        capacity: Capacity,
        quarantine: Quarantine,
        most: int,
        idle_unload_s: float,
        release: Callable[[SessionId], Awaitable[None]],
    ) -> None:
        self._load = load
        self._clock = clock
        self._capacity = capacity
        self._quarantine = quarantine
        self._most = most
        self._idle_ms = idle_unload_s * 1000
        self._slots: dict[SessionId, Slot] = {}
        self._unloading = Unloading(self._slots, clock, release)
        self._stopping = False
        self.leaving = False
        """Whether other processes are being given the sessions."""

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._slots

    @property
    def sessions(self) -> list[Session]:
        """The sessions that are loaded."""
        return [session for session in self.connected if not session.asleep]

    @property
    def connected(self) -> list[Session]:
        """The sessions that are loaded or asleep."""
        return [session for slot in self._slots.values() if (session := slot.session) is not None]

    def sleeping(self, session_id: SessionId) -> Session | None:
        """Return a session that is asleep; None if it is not."""
        slot = self._slots.get(session_id)
        session = slot.session if slot is not None else None
        return session if session is not None and session.asleep and session.failed is None else None

    def wake(self, session_id: SessionId) -> None:
        """Begin to load a session that is asleep, unless somebody did or it ends.

        While other processes are being given the sessions, it is this one's until its turn.
        """
        slot = self._slots.get(session_id)
        if slot is None or slot.draining is not None or self._stopping:
            return
        if not slot.busy and self.sleeping(session_id) is not None:
            slot.loading = asyncio.create_task(self._wake(slot), name=f"wake up {session_id}")
            slot.loading.add_done_callback(_noted)

    async def _wake(self, slot: Slot) -> Session:
        assert slot.session is not None
        try:
            session = await self._load(slot.session_id, create=False, by=ANONYMOUS)
            if session is not slot.session:  # that one was abandoned meanwhile
                session.abandon(slot.session.failed or ShuttingDown())
                await session.close()
        except CrdtSessionsError as error:
            slot.session.abandon(error)
            raise
        finally:
            slot.loading = None
            slot.rests_until = LOOK_AT_ONCE  # a look meanwhile saw one that is asleep
            self._forget_if_unusable(slot)
        return slot.session

    def abandon(self, error: CrdtSessionsError) -> None:
        """Drop every session in memory, or on its way there, because of *error*: others may have written it."""
        for slot in list(self._slots.values()):
            if slot.busy:
                slot.lost = error
            if slot.session is not None:
                slot.session.abandon(error)

    # -- using a session -----------------------------------------------------------------------------------------

    async def enter(self, session_id: SessionId, *, create: bool = False, by: str = ANONYMOUS) -> Slot:
        """Return the slot of a loaded session, with one user more, who leaves it by :meth:`leave` or :meth:`end`.

        Arguments and errors as :meth:`SessionRegistry.open`.
        """
        while True:
            if self._stopping:
                raise ShuttingDown
            slot = self._slots.get(session_id)
            if slot is None:
                self._quarantine.check(session_id)
                if await self._make_room():
                    continue  # it took a moment, in which somebody else may have begun to load it
                slot = self._slots[session_id] = Slot(session_id, create)
                slot.loading = asyncio.create_task(self._fill(slot, by=by))
                slot.loading.add_done_callback(_noted)
            if slot.draining is not None:
                await asyncio.wait({slot.draining})
                continue
            slot.users += 1
            self.wake(session_id)
            try:
                session = await slot.loaded()
            except SessionNotFound:
                self.leave(slot)
                if create and not slot.creates:  # we waited for somebody who would not create it
                    continue
                raise
            except BaseException:
                self.leave(slot)
                raise
            if session.failed is None and slot.draining is None:
                return slot
            self.leave(slot)

    async def _fill(self, slot: Slot, *, by: str) -> Session:
        try:
            slot.session = await self._load(slot.session_id, create=slot.creates, by=by)
        except BaseException:
            # at once: the error is for those who wait, of whom there may be none, and nobody else
            self._unloading.forget(slot)
            raise
        finally:
            slot.loading = None
        if slot.lost is not None:
            slot.session.abandon(slot.lost)
        return slot.session

    def leave(self, slot: Slot) -> None:
        """Use a session no more."""
        slot.users -= 1
        slot.rests_until = LOOK_AT_ONCE
        slot.idle_since = self._clock.now()
        self._forget_if_unusable(slot)

    async def end(self, slot: Slot, closing: Closing, finish: Callable[[], Awaitable[None]]) -> None:
        """Use a session no more, and drop it: close its peers, store what there is, then *finish*.

        Raises what *finish* raises, and :class:`StorageError` if what there is could not be stored.
        """
        slot.users -= 1
        await self._unloading.end(slot, closing, finish)

    # -- making room ---------------------------------------------------------------------------------------------

    async def _make_room(self) -> bool:
        """See to it that one more session may be loaded; tell whether that took a moment.

        Raises:
            TooMany: all sessions in memory are in use.
            Overloaded: there is no memory for another one.
            ShuttingDown: other processes are being given the sessions.
        """
        if self.leaving:
            raise ShuttingDown
        if len(self._slots) >= self._most:
            idle = [slot for slot in self._slots.values() if self._may_go(slot)]
            if not idle:
                raise TooMany(what="sessions at a time", limit=self._most)
            await asyncio.wait({self._unloading.unload(min(idle, key=lambda slot: slot.idle_since or 0))})
            return True
        self._capacity.check_memory()
        return False

    async def relieve(self) -> None:
        """Drop every session that nobody uses, if memory is short."""
        if not self._capacity.crowded:
            return
        going = [self._unloading.unload(slot) for slot in list(self._slots.values()) if self._may_go(slot)]
        if going:
            _log.warning("memory is short: %s idle sessions are dropped", len(going))
            await asyncio.wait(going)
        self._capacity.give_back_memory(garbage=self._unloading.dropped)
        self._unloading.dropped = False

    def _may_go(self, slot: Slot, *, pressed: bool = True) -> bool:
        """Whether nobody uses a session, and nothing is about to happen in it.

        What somebody has left there that waits holds it for a while, unless others need the room (*pressed*).
        """
        if slot.users or slot.idle_since is None or slot.draining is not None or slot.session is None:
            return False
        soon = Millis(self._clock.now() + int(self._idle_ms))
        session = slot.session
        if session.asleep:
            return not slot.busy
        return not session.due_before(soon) and (
            pressed or not (len(session.engine.waiting) or len(session.engine.guests))
        )

    # -- looking after them --------------------------------------------------------------------------------------

    def look_after_all(self) -> None:
        """Have every session look at the clock; unload those that nobody has used for a while."""
        now = self._clock.now()
        for slot in list(self._slots.values()):
            if now < slot.rests_until:  # as most do, and there may be thousands
                continue
            session = slot.session
            if session is None or slot.draining is not None:
                continue
            if not (slot.users and session.at_rest(now)):
                self._look_after(slot, session, now)
            if session.asleep:
                slot.rests_until = session.connections.rests_until if slot.users else LOOK_AT_ONCE
            elif slot.users == session.peers > 0:
                session.sleep_if_quiet(now, self._idle_ms)

    def _look_after(self, slot: Slot, session: Session, now: Millis) -> None:
        session.tick(now)
        self._forget_if_unusable(slot)
        idle_before = now - self._idle_ms
        if slot.idle_since is not None and slot.idle_since <= idle_before and self._may_go(slot, pressed=False):
            self._unloading.unload(slot)

    def _forget_if_unusable(self, slot: Slot) -> None:
        """Make room for a new load if its session failed."""
        if self._slots.get(slot.session_id) is not slot or slot.busy or slot.draining is not None:
            return
        session = slot.session
        if session is not None and session.failed is not None:
            self._quarantine.note_end(slot.session_id, session.failed)
            self._unloading.drop(slot)

    # -- the end -------------------------------------------------------------------------------------------------

    def stop_entering(self) -> None:
        """Let nobody in any more."""
        self._stopping = True

    async def hand_over(self, per_s: float) -> None:
        """Load nothing any more, and let other processes have one session after the other: its peers are told 1012.

        Args:
            per_s: so many a second, since all of their clients come back at once.
        """
        self.leaving = True
        await self._unloading.hand_over(per_s)

    async def stop(self) -> None:
        """Store everything, close every connection with 1012, drop every session."""
        await self._unloading.stop()


def _noted(task: asyncio.Task[Session]) -> None:
    """Look at how a load ended: those who waited for it, if any, were told."""
    if not task.cancelled():
        task.exception()
