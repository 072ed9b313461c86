"""A Python peer: ``async with connect(url, session) as session``.

The peer holds a replica. Reading never waits; writing never waits for the network unless it says so
(``post``, ``durable``). The connection is kept up in the background for as long as the context lasts.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from crdt_sessions.client.connection import Connection
from crdt_sessions.client.local import LocalCopy
from crdt_sessions.client.messages import FollowedMessages
from crdt_sessions.client.stream import MessageStream
from crdt_sessions.clock import Clock, SystemClock
from crdt_sessions.ids import ClientId, Seq, session_id
from crdt_sessions.limits import Limits
from crdt_sessions.model import (
    Author,
    Message,
    MessageHead,
    Presence,
    PresenceUser,
    RunRequest,
    SessionView,
    TextPart,
    order,
)
from crdt_sessions.model.values import Activity, Kind, Role, Value
from crdt_sessions.pulse import Pulse
from crdt_sessions.sync import Replica

Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.client")
_HAND_OVER_S = 5.0


def connect(
    url: str,
    session: str,
    *,
    token: str | None = None,
    name: str = "",
    id: str | None = None,
    kind: Kind = "human",
    device: str | None = None,
    offline: Path | str | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    rng: random.Random | None = None,
) -> SessionPeer:
    """Join a session as a peer. Use the result as a context manager.

    Args:
        url: the service, such as ``http://127.0.0.1:8000``.
        session: the session's name; by default it is created if it never existed.
        token: if the service asks for one.
        name: how others see this peer.
        id: who this peer is; made up if absent. Messages are signed with it.
        kind: human, agent, service or device.
        device: which device, for people with several.
        offline: a local SQLite file. With it the peer starts without a connection, keeps what it writes
            through a crash of its own, and merges when it is back. Without it entering waits for the server.
        clock: for tests.
        limits: sizes; must not exceed the server's.
        rng: source of the Yjs client id and of jitter, for tests.

    Raises:
        BadSessionId: *session* is not a session id.
        ConnectionClosed: (on entering, and from any waiting call) the server refused this peer for good.
        StorageError: (on entering) the local file cannot be used.
    """
    return SessionPeer(
        url,
        session,
        token=token,
        author=Author(id=id or f"{kind}-{uuid.uuid4().hex[:8]}", name=name, kind=kind),
        device=device,
        offline=Path(offline) if offline is not None else None,
        clock=clock or SystemClock(),
        limits=limits or Limits(),
        rng=rng or random.SystemRandom(),
    )


class SessionPeer(AbstractAsyncContextManager["SessionPeer"]):
    """A peer of one session. Made by :func:`connect`."""

    def __init__(
        self,
        url: str,
        session: str,
        *,
        token: str | None,
        author: Author,
        device: str | None,
        offline: Path | None,
        clock: Clock,
        limits: Limits,
        rng: random.Random,
    ) -> None:
        self.session_id = session_id(session)
        self.author = author
        self._clock = clock
        self._replica = Replica(rng.randrange(1, 2**32), limits=limits)
        self._local = LocalCopy(offline, self.session_id, clock) if offline is not None else None
        self._stack = AsyncExitStack()
        self._changed = Pulse()
        self._connection = Connection(
            url, self.session_id, token, self._replica, clock=clock, changed=self._changed, rng=rng
        )
        self._failure: Exception | None = None
        self._closing = False
        self._saved = 0
        self._keeping: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._presence = Presence(user=PresenceUser(id=author.id, name=author.name), kind=author.kind, device=device)
        self.messages = FollowedMessages(self)

    async def __aenter__(self) -> SessionPeer:
        try:
            if self._local is not None:
                await self._stack.enter_async_context(self._local)
                await self._restore(self._local)
            self._replica.set_presence(self._presence.json_value())
            self._tasks = [asyncio.create_task(self._connection.keep_up(), name=f"connection to {self.session_id}")]
            if self._local is not None:
                self._keeping = asyncio.create_task(self._keep_local(self._local), name="local copy")
                self._tasks.append(self._keeping)
            for task in self._tasks:
                task.add_done_callback(self._task_ended)
            if self._local is None:
                await self.synced()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and self.connected and self._failure is None:
                await self._hand_over()
        finally:
            await self._close()

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
        """Return once *condition* holds; it is looked at after every change of document, presence or connection.

        Raises:
            ConnectionClosed: the server refused this peer for good.
            StorageError: the local file failed.
        """

        def reached() -> bool:
            if self._failure is not None:
                raise self._failure
            return condition()

        await self._changed.until(reached)

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
        if self._local is None:
            raise ValueError("this peer has no local file; give connect() offline=...")
        version = self._replica.version
        await self.until(lambda: self._saved >= version)

    async def changes(self) -> AsyncIterator[None]:
        """Yield now, and then after every change of document, presence or connection. Raises as :meth:`until`."""
        while True:
            beat = self._changed.count
            yield
            await self.until(lambda beat=beat: self._changed.count > beat)  # type: ignore[misc]

    async def changed_messages(self) -> AsyncIterator[list[Message]]:
        """Yield the messages that changed, or whose runs did, since the last time; at first all of them.

        In the session's order; none if only presence or the connection changed. Each costs what changed, not
        what the session holds. Raises as :meth:`until`.
        """
        revision = Seq(-1)
        async for _ in self.changes():
            subjects = self._replica.changes.since(revision)
            revision = self._replica.revision
            ids = {id for kind, id in subjects if kind == "message"}
            runs = (self.view.runs.value(id) for kind, id in subjects if kind == "run")
            ids |= {run.output for run in runs if run is not None and run.output is not None}
            messages = [message for id in ids if (message := self.view.messages.value(id)) is not None]
            yield sorted(messages, key=order)

    # -- writing -----------------------------------------------------------------------------------------------

    def edit(self, change: Callable[[SessionView], Result]) -> Result:
        """Change the document in one transaction, now; it travels when it can. Await :meth:`durable` to be sure."""
        result = self._replica.edit(change)
        self._wake()
        return result

    async def post(
        self,
        text: str,
        *,
        id: str | None = None,
        role: Role = "user",
        parent: str | None = None,
        reply_to: str | None = None,
        parts: list[Value] | None = None,
        wait: bool = True,
    ) -> Message:
        """Post a message; return it once it is durable.

        Args:
            text: becomes a text part; leave it empty to give *parts* alone.
            id: an idempotency key: posting an id twice is posting it once.
            role: whose voice.
            parent: the message it continues from, where a conversation branches.
            reply_to: the message it answers.
            parts: further parts.
            wait: False returns at once, also offline.

        Raises:
            ConnectionClosed: the server refused this peer for good.
        """
        head = MessageHead(
            id=id or uuid.uuid4().hex,
            role=role,
            author=self.author,
            parent=parent,
            reply_to=reply_to,
            created_at=self._clock.now(),
        )
        content: list[Value] = [TextPart(type="text", text=text)] if text else []
        self.edit(lambda view: view.messages.add(head, content + (parts or [])))
        if wait:
            await self.durable()
        message = self.view.messages.value(head.id)
        assert message is not None
        return message

    def set_presence(self, activity: Activity | None = None, *, modality: str | None = None, **more: Any) -> None:
        """Say what this peer does; further keys, such as ``cursor``, are sent as they are."""
        update = {"activity": activity, "modality": modality, **more}
        self._presence = self._presence.model_copy(update={k: v for k, v in update.items() if v is not None})
        self._replica.set_presence(self._presence.json_value())
        self._wake()

    @asynccontextmanager
    async def stream(
        self,
        *,
        reply_to: str | None = None,
        run_id: str | None = None,
        agent: str = "*",
        resume: bool = True,
    ) -> AsyncIterator[MessageStream]:
        """Write a message as it comes into being, as one run.

        Leaving the context ends the run: completed, or failed if an exception leaves it. Others see the
        tokens at once; they are sent in batches of a few tens of milliseconds.

        Args:
            reply_to: the message that asks for it.
            run_id: an idempotency key. A run that was begun under it and not ended, by this process or one
                that died, is continued: same message, same text, see :attr:`MessageStream.resumed`.
            agent: the name the run is recorded under.
            resume: False closes what a former writer left open and starts a new part.
        """
        run_id = run_id or (f"run-{reply_to}" if reply_to else f"run-{uuid.uuid4().hex}")
        request = RunRequest(message_id=reply_to or run_id, agent=agent, created_at=self._clock.now())
        stream = MessageStream(self, run_id, request, reply_to=reply_to, resume=resume)
        self.set_presence("streaming", runId=run_id)
        try:
            async with stream:
                yield stream
        finally:
            self.set_presence("idle", runId="")

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
        self._changed.beat()

    async def _restore(self, local: LocalCopy) -> None:
        updates = await local.load()
        for update in updates:
            self._replica.restore(update)
        if updates:
            self._replica.restored_unacknowledged()

    async def _keep_local(self, local: LocalCopy) -> None:
        """Write everything that changes the replica to the local file, in order; the rest of it on closing."""
        while not (self._closing and not self._replica.has_incoming):
            await self._changed.until(lambda: self._replica.has_incoming or self._closing)
            version, updates = self._replica.version, self._replica.take_incoming()
            if updates:
                await local.keep(updates)
            self._saved = version
            self._changed.beat()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self._changed.beat()

    async def _hand_over(self) -> None:
        """Before leaving in good order, let the server have what it has not acknowledged."""
        try:
            async with asyncio.timeout(_HAND_OVER_S):
                await self.durable()
        except TimeoutError:
            _log.warning(
                "left with %s changes not acknowledged", self.unacknowledged, extra={"session": self.session_id}
            )

    async def _close(self) -> None:
        self._closing = True
        self._changed.beat()
        for task in self._tasks:
            if task is not self._keeping:  # never in the middle of a write
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        self._replica.close()
