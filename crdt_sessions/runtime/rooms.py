"""Sessions in the shape of pycrdt-websocket's rooms, for applications that are written for these, as Jupyter's are.

A :class:`WebsocketServer` serves what clients connect with, and a :class:`YRoom` has a document that the application
reads and writes. What is different: documents are kept by the registry's store, and by no ``ystore``; a client is
read no further than it may be; and what one client does ends nobody else's connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from inspect import isawaitable
from types import TracebackType
from typing import Any, Protocol

from pycrdt import Awareness, Doc, Subscription, TransactionEvent

from crdt_sessions.ids import SessionId, session_id
from crdt_sessions.model.library import apply_guarded
from crdt_sessions.runtime.access import Access
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.wire import (
    Ack,
    AwarenessFrame,
    Closing,
    PermissionDenied,
    SyncStep1,
    SyncStep2,
    Update,
    decode_whole,
    encode,
)
from crdt_sessions.wire.varint import Reader, varuint

_log = logging.getLogger("crdt_sessions.rooms")
_AGAIN_S = 0.5
"""How long after a connection that may come back ended it does."""
_OURS = "session"
"""The origin of what comes from the session, in the room's awareness."""


class Websocket(Protocol):
    """What pycrdt-websocket calls a channel. Its iteration may end, or raise, when the client is gone."""

    @property
    def path(self) -> str:
        """The name of the room, maybe behind a slash."""
        ...

    async def send(self, message: bytes) -> None:
        """Send one message."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the messages received."""
        ...


OnMessage = Callable[[bytes], Awaitable[bool] | bool]


class YRoom:
    """A session, as the application inside sees it. Made by :meth:`WebsocketServer.get_room`.

    Args:
        registry: the sessions.
        session: which one.
        access: as whom the application reads and writes.
    """

    def __init__(self, registry: SessionRegistry, session: SessionId, access: Access) -> None:
        self.ydoc: Doc[Any] = Doc()
        """The session's document. What the application changes in it is stored and sent to everybody."""
        self.awareness = Awareness(self.ydoc)
        """Who is here. The application itself is not, unless it sets a local state."""
        self.awareness.set_local_state(None)
        self.clients: set[Websocket] = set()
        """The clients that are served."""
        self.on_message: OnMessage | None = None
        """Is given each message of a client; one for which it returns True is skipped."""
        self.ready_event = asyncio.Event()
        """Set when the document has what is stored."""
        self.started = asyncio.Event()
        self.session = session
        self._registry = registry
        self._access = access
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._asked = 0
        self._marks: dict[int, asyncio.Future[None]] = {}
        self._taking = False
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriptions: tuple[Subscription, str] | None = None

    @property
    def ready(self) -> bool:
        """Whether the document has what is stored."""
        return self.ready_event.is_set()

    @property
    def joined(self) -> bool:
        """Whether it is in its session, or comes back to it."""
        return bool(self._tasks) and not self._tasks[0].done()

    async def start(self) -> None:
        """Join the session; return when the document has what is stored.

        Raises:
            RuntimeError: it cannot be joined; the message says why.
        """
        if self.joined:
            return
        await self.stop()
        self.ready_event.clear()
        self._subscriptions = (self.ydoc.observe(self._changed), self.awareness.observe(self._present))
        joined = asyncio.create_task(self._stay())
        self._tasks = [joined, asyncio.create_task(self.awareness.start())]
        self.started.set()
        ready = asyncio.create_task(self.ready_event.wait())
        await asyncio.wait({ready, joined}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if joined.done():
            await self.stop()
            joined.result()

    async def stop(self) -> None:
        """Leave the session. What the application has written before is handed over."""
        if self._subscriptions is not None:
            documents, presence = self._subscriptions
            self.ydoc.unobserve(documents)
            self.awareness.unobserve(presence)
            self._subscriptions = None
        if self.joined:
            with suppress(RuntimeError):
                await self.durable()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._give_up()

    async def durable(self) -> None:
        """Return once all that the application has written is on disk.

        Raises:
            RuntimeError: the room has ended, or ends before.
        """
        if not self.joined:
            raise RuntimeError("the room has ended")
        self._asked += 1
        mark = self._marks[self._asked] = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait(encode(Ack(varuint(self._asked))))
        await mark

    # -- the application's end of a connection to the session --------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """Take a message of the session's (as its ``Channel``)."""
        for frame in decode_whole(message):
            match frame:
                case SyncStep1(state_vector):
                    self._inbox.put_nowait(encode(SyncStep2(self.ydoc.get_update(state_vector))))
                    for number in self._marks:  # those under way were lost with the connection before
                        self._inbox.put_nowait(encode(Ack(varuint(number))))
                case SyncStep2(update) | Update(update):
                    self._take(update)
                    if isinstance(frame, SyncStep2):
                        self.ready_event.set()
                case AwarenessFrame(payload):
                    self.awareness.apply_awareness_update(payload, _OURS)
                case Ack(payload):
                    self._stored(Reader(payload).varuint())
                case PermissionDenied(reason):
                    _log.warning("the application may not write that: %s", reason, extra={"session": self.session})
                case _:
                    pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield messages for the session (as its ``Channel``)."""
        yield encode(SyncStep1(self.ydoc.get_state()))
        while True:
            yield await self._inbox.get()

    async def _stay(self) -> None:
        try:
            while True:
                self._inbox = asyncio.Queue()
                closing = await self._registry.serve(self.session, self, access=self._access)
                if closing.permanent or self._registry.stopping:
                    _log.info("a room ends", extra={"session": self.session, "close_code": closing.code})
                    raise RuntimeError(f"the room ends: {closing.code} {closing.reason}")
                await self._registry.clock.sleep(_AGAIN_S)
        finally:
            self._give_up()

    def _take(self, update: bytes) -> None:
        self._taking = True
        try:
            apply_guarded(self.ydoc, update)
        finally:
            self._taking = False

    def _changed(self, event: TransactionEvent) -> None:
        if not self._taking:
            self._inbox.put_nowait(encode(Update(event.update)))

    def _present(self, kind: str, change: tuple[dict[str, Any], Any]) -> None:
        changed, origin = change
        if kind == "update" and origin == "local":
            clients = [client for each in changed.values() for client in each]
            self._inbox.put_nowait(encode(AwarenessFrame(self.awareness.encode_awareness_update(clients))))

    def _stored(self, number: int) -> None:
        for each in [each for each in self._marks if each <= number]:
            mark = self._marks.pop(each)
            if not mark.done():
                mark.set_result(None)

    def _give_up(self) -> None:
        for mark in self._marks.values():
            if not mark.done():
                mark.set_exception(RuntimeError("the room has ended"))
        self._marks.clear()


class WebsocketServer:
    """Rooms by their names. Use it as a context manager, within that of the registry.

    Args:
        registry: the sessions.
        auto_clean_rooms: whether a room is left when its last client goes.
        access: as whom a client is served, which is asked for each; with all rights if None. The application asks
            before who may come in at all.
        tenant: the sessions' tenant.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        *,
        auto_clean_rooms: bool = True,
        access: Callable[[Websocket], Access] | None = None,
        tenant: str = "",
    ) -> None:
        self.rooms: dict[str, YRoom] = {}
        self.auto_clean_rooms = auto_clean_rooms
        self._registry = registry
        self._access = access or (lambda websocket: Access())
        self._tenant = tenant

    async def __aenter__(self) -> WebsocketServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Leave all rooms."""
        for name in list(self.rooms):
            await self.delete_room(name=name)

    async def get_room(self, name: str) -> YRoom:
        """Return the room of that name, which has what is stored. A slash in front of the name is left out.

        Raises:
            BadSessionId: it cannot be called that.
            RuntimeError: its session cannot be joined.
        """
        name = name.removeprefix("/")
        room = self.rooms.get(name)
        if room is None:
            room = self.rooms[name] = YRoom(self._registry, session_id(name, self._tenant), Access())
        try:
            await room.start()
        except RuntimeError:
            self.rooms.pop(name, None)
            raise
        await room.ready_event.wait()
        return room

    def get_room_name(self, room: YRoom) -> str:
        """Return the name of a room."""
        return next(name for name, each in self.rooms.items() if each is room)

    async def delete_room(self, *, name: str | None = None, room: YRoom | None = None) -> None:
        """Leave a room. Its session stays, and so do its clients."""
        if name is None:
            assert room is not None
            name = self.get_room_name(room)
        await self.rooms.pop(name.removeprefix("/")).stop()

    async def serve(self, websocket: Websocket) -> Closing:
        """Serve a client until it goes; return how its connection is to be closed, also if it was refused.

        pycrdt-websocket returns nothing: an application that closes with the code tells clients whether to come back.
        """
        room = await self.get_room(websocket.path)
        room.clients.add(websocket)
        try:
            return await self._registry.serve(room.session, _Client(websocket, room), access=self._access(websocket))
        finally:
            room.clients.discard(websocket)
            if self.auto_clean_rooms and not room.clients and room in self.rooms.values():
                await self.delete_room(room=room)


class _Client:
    """A client's connection, as the registry wants it."""

    def __init__(self, websocket: Websocket, room: YRoom) -> None:
        self._websocket = websocket
        self._room = room

    async def send(self, message: bytes) -> None:
        try:
            await self._websocket.send(message)
        except Exception as error:  # the libraries of WebSockets have one of their own each
            raise ConnectionResetError("the client is gone") from error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        messages = aiter(self._websocket)
        while True:
            try:
                message = await anext(messages)
            except StopAsyncIteration:
                return
            except Exception as error:
                raise ConnectionResetError("the connection broke") from error
            if not await self._skipped(message):
                yield message

    async def _skipped(self, message: bytes) -> bool:
        if self._room.on_message is None:
            return False
        skipped = self._room.on_message(message)
        return await skipped if isawaitable(skipped) else skipped
