"""One peer of a session: its life, its replica and the connection that keeps the two in sync.

Reading never waits; writing never waits for the network unless it says so (``durable``). The connection is kept up
in the background for as long as the context lasts. What people and agents say in a session is in
:mod:`crdt_sessions.client.conversation`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from crdt_sessions.client.connection import Connection
from crdt_sessions.client.console import tell_on_stderr
from crdt_sessions.client.contact import Contact
from crdt_sessions.client.local import LocalFile
from crdt_sessions.client.service import ServiceClient
from crdt_sessions.client.token import Token, current_token, subject
from crdt_sessions.clock import Clock
from crdt_sessions.errors import NoService, NoToken, RequestRefused, ServiceUnreachable
from crdt_sessions.ids import ClientId, Millis, Seq, session_id
from crdt_sessions.limits import Limits
from crdt_sessions.model import Author, Message, Presence, PresenceUser, Run, SessionView, order
from crdt_sessions.model.values import Activity
from crdt_sessions.signals import Signal
from crdt_sessions.sync import Replica

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.client")
_HAND_OVER_S = 5.0
_WHO_S = 5.0
"""How long a peer that works offline waits for a token, to know who it is, before it begins without one."""


class Peer:
    """One peer of a session, which joins when it is entered: use it as a context manager."""

    def __init__(
        self,
        contact: Contact,
        session: str,
        *,
        token: Token | None,
        author: Author,
        is_known: bool,
        device: str | None,
        offline: Path | None,
        lease: str | None,
        renew_s: float | None,
        clock: Clock,
        limits: Limits,
        rng: random.Random,
        replica: Replica,
        quiet: bool,
    ) -> None:
        self.session_id = session_id(session)
        self._name = session
        self.author = author
        self._is_known = is_known
        self._contact = contact
        self._quiet = quiet
        self._token = token
        self._clock = clock
        self._replica = replica
        self._rng = rng
        replica.limits = limits
        replica.heartbeat_ms = _heartbeat(renew_s)
        self._local = LocalFile(offline, self.session_id, clock) if offline is not None else None
        self._stack = AsyncExitStack()
        self._changed = Signal()
        self._connection = Connection(
            contact,
            self.session_id,
            token,
            self._replica,
            clock=clock,
            changed=self._changed,
            rng=rng,
            lease=lease,
            heartbeat_s=renew_s,
            patient=offline is not None,
        )
        self._failure: Exception | None = None
        self._closing = False
        self._parked_at: int | None = None
        """The replica's version when it was parked."""
        self._good_bye: int | None = None
        """The replica's version when it last said good-bye."""
        self._keeping: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._presence = Presence(user=PresenceUser(), kind=author.kind, device=device)

    async def __aenter__(self) -> Self:
        if not self._quiet:
            tell_on_stderr()
        try:
            if self._local is not None:
                await self._stack.enter_async_context(self._local)
                await self._local.restore(self._replica)
            await self._introduce()
            self._tasks = [asyncio.create_task(self._connection.keep_up(), name=f"connection to {self.session_id}")]
            if self._local is not None:
                keeping = self._local.follow(self._replica, self._changed, lambda: self._closing)
                self._keeping = asyncio.create_task(keeping, name="local copy")
                self._tasks.append(self._keeping)
            for task in self._tasks:
                task.add_done_callback(self._task_ended)
            if self._local is None:
                await self.synced()
        except BaseException:
            await self._close()
            raise
        return self

    async def _introduce(self) -> None:
        """Find out who this peer is, and announce it."""
        if self._token is not None and not self._is_known:
            who = await self._subject(self._token)
            if self._local is None:  # otherwise there may be no connection for a long time
                with suppress(RequestRefused, NoService, ServiceUnreachable):  # the connection will say so
                    async with ServiceClient(self._contact.url, self._token) as service:
                        who = (await service.whoami()).principal
            self.author = self.author.replace(id=who or self.author.id)
        user = PresenceUser(id=self.author.id, name=self.author.name)
        self._presence = self._presence.replace(user=user)
        self._replica.set_presence(self._presence.json_value())

    async def _subject(self, token: Token) -> str | None:
        """Return whom the token says it stands for; None if there is none as long as this peer is offline."""
        try:
            return subject(await current_token(token, patience_s=None if self._local is None else _WHO_S))
        except NoToken:
            if self._local is None:
                raise
            return None  # the connection will say so, and try again

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.leave()
        else:
            await self._close()

    async def leave(self) -> None:
        """Leave in good order. Leaving the context does the same.

        Changes that the service has not acknowledged in a few seconds, or at all without a connection, are lost if
        there is no local copy; a warning says how many.
        """
        try:
            if self.connected and self._failure is None:
                await self._hand_over()
        finally:
            await self._close()
            self._tell_lost()

    async def park(self) -> bool:
        """Say good-bye but stay connected, unseen, as another Yjs client, until :meth:`resume`; tell whether so.

        Write nothing meanwhile. A peer does not stay if it keeps a local file, is not connected, or has changes that
        the service has not acknowledged.
        """
        if not self.connected or self._failure is not None or self._local is not None:
            return False
        await self._hand_over()
        if not self.connected or self.unacknowledged:
            return False
        self._replica = self._replica.successor(self._rng.randrange(1, 2**32))
        self._connection.go_on(self._replica)
        self._presence = Presence(user=self._presence.user, kind=self.author.kind, device=self._presence.device)
        self._parked_at = self._replica.version
        return True

    @property
    def parked(self) -> bool:
        """Whether it is parked, still connected, and has written nothing since."""
        return self.connected and self._failure is None and self._replica.version == self._parked_at

    def resume(self, lease: str, renew_s: float) -> None:
        """Go on, after :meth:`park`, as the holder of a *lease*. See :func:`connect` for *renew_s*."""
        self._parked_at = None
        self._replica.heartbeat_ms = _heartbeat(renew_s)
        self._replica.hold(lease)
        self._replica.set_presence(self._presence.json_value())
        self._connection.go_on(self._replica, lease=lease, heartbeat_s=renew_s)

    # -- state -------------------------------------------------------------------------------------------------

    @property
    def view(self) -> SessionView:
        """The document as layout 1 sees it. To read; write with :meth:`edit`."""
        return self._replica.view

    @property
    def client_id(self) -> ClientId:
        """This replica's Yjs client id."""
        return self._replica.client_id

    @property
    def connected(self) -> bool:
        """Whether there is a connection and both sides have what the other had."""
        return self._replica.synced

    @property
    def unacknowledged(self) -> int:
        """Number of local changes not known to be durable on the server."""
        return self._replica.version - self._replica.durable

    def encode(self) -> bytes:
        """Return the document as one Yjs update."""
        return self._replica.document.encode()

    def present(self) -> dict[ClientId, Presence]:
        """Return who else is here. States that are not layout 1's are left out."""
        found = {}
        for client, state in self._replica.presences().items():
            try:
                found[client] = Presence.model_validate(state)
            except ValueError:
                continue
        return found

    # -- waiting -----------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once *condition* holds; it is checked after every change of document, presence or connection.

        Raises:
            ConnectionClosed: the server refused this peer for good.
            StorageError: the local file failed.
        """

        def reached() -> bool:
            if self._failure is not None:
                raise self._failure
            return condition()

        await self._changed.wait_for(reached)

    async def synced(self) -> None:
        """Return once both sides have what the other had. Raises as :meth:`until`."""
        await self.until(lambda: self._replica.synced)

    async def durable(self) -> None:
        """Return once every change made here so far is on the server's disk. Raises as :meth:`until`."""
        version = self._replica.version
        await self.until(lambda: self._replica.durable >= version)

    async def saved(self) -> None:
        """Return once every change made here so far is in the local file.

        Raises:
            ValueError: there is no local file (``offline``).
            StorageError: it failed.
        """
        local = self._local
        if local is None:
            raise ValueError("this peer has no local file; give connect() offline=...")
        version = self._replica.version
        await self.until(lambda: local.saved >= version)

    async def changes(self) -> AsyncIterator[None]:
        """Yield now, and then after every change of document, presence or connection. Raises as :meth:`until`."""
        while True:
            beat = self._changed.count
            yield
            await self.until(lambda beat=beat: self._changed.count > beat)  # type: ignore[misc]

    async def changed_messages(self) -> AsyncIterator[list[Message]]:
        """Yield the messages that changed, or whose runs did, since the last time; at first all of them.

        What child runs write is not among them.

        In the session's order; none if only presence or the connection changed. Each costs what changed, not
        what the session holds. Raises as :meth:`until`.
        """
        async for subjects in self._changed_subjects():
            ids = {id for kind, id in subjects if kind == "message"}
            runs = (self.view.runs.value(id) for kind, id in subjects if kind == "run")
            ids |= {run.output for run in runs if run is not None and run.output is not None}
            known = self.view.messages
            values = (known.value(id) for id in ids if not known.is_beside(id))
            messages = [message for message in values if message is not None]
            yield sorted(messages, key=order)

    async def changed_runs(self) -> AsyncIterator[list[Run]]:
        """Yield the runs that changed since the last time, in no order; at first all of them.

        Costs and raises as :meth:`changed_messages`.
        """
        async for subjects in self._changed_subjects():
            runs = (self.view.runs.value(id) for kind, id in subjects if kind == "run")
            yield [run for run in runs if run is not None]

    async def _changed_subjects(self) -> AsyncIterator[Collection[tuple[str, str]]]:
        """Yield what changed since the last time, as pairs of its kind and its id; at first everything."""
        revision = Seq(-1)
        async for _ in self.changes():
            subjects = self._replica.changes.since(revision)
            revision = self._replica.revision
            yield subjects

    # -- writing -----------------------------------------------------------------------------------------------

    def edit(self, change: Callable[[SessionView], Result]) -> Result:
        """Change the document in one transaction, now; it travels when it can. Await :meth:`durable` to be sure.

        Return what *change* does, which gets the :class:`SessionView`.
        """
        result = self._replica.edit(change)
        self._wake()
        return result

    def set_presence(self, activity: Activity | None = None, *, modality: str | None = None, **more: Any) -> None:
        """Say what this peer does (*activity*, *modality*); *more*, such as ``cursor``, is sent as it is."""
        update = {"activity": activity, "modality": modality, **more}
        self._presence = self._presence.model_copy(update={k: v for k, v in update.items() if v is not None})
        self._replica.set_presence(self._presence.json_value())
        self._wake()

    # -- the network, by hand ------------------------------------------------------------------------------------

    def go_offline(self) -> None:
        """Drop the connection and stay away until :meth:`go_online`; one goes on working meanwhile."""
        self._connection.go_offline()

    def go_online(self) -> None:
        """Come back."""
        self._connection.go_online()

    # -- inside --------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Return the time, for timestamps in the document."""
        return self._clock.now()

    @property
    def clock(self) -> Clock:
        """The only source of time."""
        return self._clock

    def _wake(self) -> None:
        self._connection.wake()
        self._changed.notify_all()

    def _go_along(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Do *work* until this peer leaves; if it fails, so does the peer."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self._changed.notify_all()

    async def _hand_over(self) -> None:
        """Say good-bye, and wait until the server has acknowledged everything.

        Closing the socket is not enough: web servers report that like a broken one, and presence stays for a moment.
        Where there is no connection any more, and nothing else to hand over, nobody has to hear the good-bye.
        """
        replica, written = self._replica, self._replica.version
        replica.leave()
        self._good_bye = replica.version
        self._wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(_HAND_OVER_S):
                await self.until(
                    lambda: replica.durable > written or (not self.connected and replica.durable == written)
                )

    def _tell_lost(self) -> None:
        """Warn of changes that neither the service nor a local copy has, once this peer is closed."""
        lost = self.unacknowledged - (self._replica.version == self._good_bye)  # which nobody misses
        kept = self._keeping is not None and not self._keeping.cancelled() and self._keeping.exception() is None
        if lost > 0 and not kept:
            said = "a change" if lost == 1 else f"{lost} changes"
            about = {"session": self.session_id}
            _log.warning("left with %s that the service has not acknowledged", said, extra=about)

    async def _close(self) -> None:
        self._closing = True
        self._changed.notify_all()
        for task in self._tasks:
            if task is not self._keeping:  # never in the middle of a write
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        self._replica.close()


def _heartbeat(renew_s: float | None) -> Millis | None:
    return Millis(int(renew_s * 1000)) if renew_s is not None else None
