"""Checks whether a client syncs as the golden vectors expect it to: a server that plays a part, one in each room.

The client is told an address and a room, as clients of y-websocket are, connects, and stays. It needs no code for the
checks: what it has understood is what it answers. ``crdt-sessions conformance --client COMMAND`` starts it for each
room; :class:`ClientChecks` is for those who start it in another way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from pycrdt import Doc
from websockets.asyncio.server import Server, ServerConnection, serve

from crdt_sessions.testing.conformance import Checked, Peer, Unmet, check_document, checked, vectors
from crdt_sessions.wire import (
    AwarenessEntry,
    AwarenessFrame,
    PermissionDenied,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    Update,
    decode_awareness,
    encode_awareness,
)

_NOTHING = b"\x00"
_UNKNOWN = b"\x63\x03abc"
"""A message of a type that there is not."""
_COME_BACK, _NO_ROOM = 1012, 4404


@dataclass(eq=False)
class Room:
    """One check."""

    name: str
    """What the client is to join."""
    what: str
    """What is checked."""
    play: Callable[[Peer], Awaitable[None]]
    """Speaks with the client; raises if it is not as it must be."""
    optional: bool = False
    visits_needed: int = 1
    """Connections after which there is an outcome; before, the client is sent away, to come back."""
    visits: int = 0
    outcome: asyncio.Future[Checked] = field(default_factory=asyncio.Future)


@dataclass(frozen=True)
class Started:
    """A client that was started for one check."""

    stop: Callable[[], Awaitable[None]]
    """Ends it."""
    ended: Callable[[], Awaitable[str]] | None = None
    """Waits until it has ended by itself, and says how; None if nobody can know."""


class ClientChecks:
    """A server with a room for each check. To be used as an asynchronous context manager.

    Args:
        host: where it listens.
        port: 0 for any that is free.
        patience_s: how long an answer may take.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, patience_s: float = 10.0) -> None:
        self._host, self._port, self._patience_s = host, port, patience_s
        self._server: Server | None = None
        self.rooms: list[Room] = []

    async def __aenter__(self) -> Self:
        self.rooms = _rooms()
        self._server = await serve(self._serve, self._host, self._port, max_size=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        """What the client is told; the room's name is put behind it, as clients of y-websocket do."""
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://{self._host}:{port}"

    async def outcome(self, room: Room, ended: Callable[[], Awaitable[str]] | None = None) -> Checked:
        """Return what came of a check, or that the client has not come in time, or has ended before it came.

        Args:
            room: the check.
            ended: waits until the client has ended by itself, and says how.
        """
        async with asyncio.TaskGroup() as group:
            giving_up = group.create_task(self._give_up(room, ended))
            found = await room.outcome
            giving_up.cancel()
        return found

    async def _give_up(self, room: Room, ended: Callable[[], Awaitable[str]] | None) -> None:
        """Give the check an outcome once it is certain that it will have no other."""
        how = "did not come"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self._patience_s):
                if ended is not None:
                    how = f"{await ended()} before it came"
                if ended is None or room.visits >= room.visits_needed:
                    await asyncio.wait([room.outcome])  # it may come, or its connection ends, which is one, too
        if not room.outcome.done():
            room.outcome.set_result(
                Checked(room.what, f"the client {how}" + (" back" if room.visits else ""), room.optional)
            )

    async def _serve(self, socket: ServerConnection) -> None:
        path = socket.request.path if socket.request is not None else ""
        name = unquote(path.partition("?")[0].strip("/"))
        room = next((each for each in self.rooms if each.name == name), None)
        if room is None:
            await socket.close(_NO_ROOM, "there is no such check")
            return
        room.visits += 1
        peer = Peer(socket, self._patience_s)
        if room.visits < room.visits_needed:
            await socket.close(_COME_BACK, "come back")
            return
        found = await checked(room.what, partial(room.play, peer), optional=room.optional)
        if not room.outcome.done():
            room.outcome.set_result(found)
        await socket.wait_closed()


async def check_client(
    start: Callable[[str, str], Awaitable[Started]], *, patience_s: float = 10.0
) -> AsyncGenerator[Checked, None]:
    """Check a client; yield what came of each check, when it is known.

    Args:
        start: starts a client, given the address and the room.
        patience_s: how long an answer may take.
    """
    async with ClientChecks(patience_s=patience_s) as checks:
        for room in checks.rooms:
            client = await start(checks.url, room.name)
            try:
                found = await checks.outcome(room, client.ended)
            finally:
                await client.stop()
            yield found


async def check_command(command: Sequence[str], *, patience_s: float = 10.0) -> AsyncGenerator[Checked, None]:
    """Check a client that is a program; yield what came of each check, when it is known.

    Args:
        command: starts it; the address and the room are put behind. It is ended when the check is over.
        patience_s: how long an answer may take.

    Raises:
        OSError: it cannot be started.
    """

    async def start(url: str, room: str) -> Started:
        process = await asyncio.create_subprocess_exec(*command, url, room)

        async def stop() -> None:
            if process.returncode is None:
                process.kill()
            await process.wait()

        async def ended() -> str:
            return f"ended with code {await process.wait()}"

        return Started(stop, ended)

    async with contextlib.aclosing(check_client(start, patience_s=patience_s)) as checks:
        async for each in checks:
            yield each


# -- what is checked -------------------------------------------------------------------------------------------------


def _rooms() -> list[Room]:
    return [
        Room("asks", "asks with a SyncStep1 when it has joined", _asks),
        *(
            Room(f"document-{number}", f"document: {vector['name']}", partial(_keeps, vector))
            for number, vector in enumerate(vectors("documents"))
        ),
        Room("difference", "answers a SyncStep1 with all that lacks", _answers),
        Room("unknown", "goes on after messages that it does not know, and after a denied permission", _goes_on),
        Room("back", "comes back after 1012, and asks again", _asks, visits_needed=2),
        Room("presence", "says who it is when it is asked", _says_who, optional=True),
    ]


async def _asks(peer: Peer) -> None:
    await peer.hear(SyncStep1)


async def _keeps(vector: dict[str, Any], peer: Peer) -> None:
    await peer.hear(SyncStep1)
    for step in (vector, vector.get("then")):
        if step is not None:
            await peer.say(*[Update(bytes.fromhex(update)) for update in step["updates"]])
            check_document(await peer.whole(), step)


async def _answers(peer: Peer) -> None:
    (vector,) = (each for each in vectors("documents") if each["name"] == "client ids of 53 bits")
    first, *_ = updates = [bytes.fromhex(update) for update in vector["updates"]]
    ours: Doc[Any] = Doc()
    ours.apply_update(first)
    await peer.hear(SyncStep1)
    await peer.say(*map(Update, updates), SyncStep1(ours.get_state()))
    ours.apply_update((await peer.hear(SyncStep2)).update)
    check_document(ours.get_update(), vector)


async def _goes_on(peer: Peer) -> None:
    await peer.hear(SyncStep1)
    await peer.say_bytes(_UNKNOWN)
    await peer.say(PermissionDenied("only to see what comes of it"))
    await peer.whole()


async def _says_who(peer: Peer) -> None:
    await peer.hear(SyncStep1)
    ours = AwarenessEntry(77, 1, '{"user":{"name":"conformance"}}')
    await peer.say(AwarenessFrame(encode_awareness([ours])), QueryAwareness())
    frame = await peer.hear(AwarenessFrame)
    if not decode_awareness(frame.payload):
        raise Unmet("it says nothing about anybody")
