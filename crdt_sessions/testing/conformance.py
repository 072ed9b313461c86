"""Checks whether a server syncs as y-websocket's clients, and the golden vectors, expect it to.

``crdt-sessions conformance --url ws://host/path`` runs it against any server of that dialect, ours or another's. Each
check has a document of its own, which is left there. What a client of another language must read and write stands in
the vectors themselves: ``schemas/vectors/README.md``; :mod:`crdt_sessions.testing.client_conformance` checks clients.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pycrdt import Doc, Map, Text
from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed, WebSocketException

from crdt_sessions.errors import WireError
from crdt_sessions.wire import (
    EMPTY_UPDATE,
    Ack,
    AwarenessEntry,
    AwarenessFrame,
    Frame,
    SyncStep1,
    SyncStep2,
    Update,
    decode_awareness,
    decode_whole,
    encode,
    encode_awareness,
)
from crdt_sessions.wire.varint import decode_state_vector

_VECTORS = (Path(__file__).parent / "vectors", Path(__file__).parents[2] / "schemas/vectors")
"""Where they are in a package, and in a checkout."""
_NOTHING = b"\x00"
Kind = TypeVar("Kind", bound=Frame)


class Unmet(Exception):
    """Something was not as it must be."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one check."""

    name: str
    why: str = ""
    """Why it is not met; empty if it is."""
    optional: bool = False
    """Whether it may be left out."""

    @property
    def met(self) -> bool:
        """Whether it is met."""
        return not self.why


def vectors(name: str) -> list[dict[str, Any]]:
    """Return the golden vectors of a file, such as ``documents``.

    Raises:
        FileNotFoundError: there are none of that name.
    """
    for folder in _VECTORS:
        if (file := folder / f"{name}.json").exists():
            found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["vectors"]
            return found
    raise FileNotFoundError(f"{name}.json")


def check_document(update: bytes, expected: dict[str, Any]) -> None:
    """Return if a document reads as a vector says.

    Args:
        update: all of the document, as an update.
        expected: ``draft``, ``state`` and ``clocks`` of a vector. Other clients may have written beside them.

    Raises:
        Unmet: it does not; the message says what differs.
    """
    doc: Doc[Any] = Doc()
    doc.apply_update(update)
    clocks = decode_state_vector(doc.get_state())
    found = {
        "draft": str(doc.get("draft", type=Text)),
        "state": doc.get("state", type=Map).to_py(),
        "clocks": [[client, clocks.get(client, 0)] for client, _ in expected["clocks"]],
    }
    for what, is_there in found.items():
        if is_there != expected[what]:
            raise Unmet(f"{what} is {is_there!r} and must be {expected[what]!r}")


async def check_server(
    url: str, token: str | None = None, *, patience_s: float = 10.0
) -> AsyncGenerator[Checked, None]:
    """Check a server; yield what came of each check, when it is known.

    Args:
        url: what clients of y-websocket are given: the document's name is put behind it.
        token: sent as the query parameter ``token``.
        patience_s: how long an answer may take.
    """
    server = _Server(url.rstrip("/"), f"?token={token}" if token else "", patience_s)
    yield await checked("opens with SyncStep1, and answers every SyncStep1", server.opens)
    yield await checked("sends a change to the others, and says who is here", server.relays)
    yield await checked("goes on for the others when one sends what is no message", server.survives)
    for each in vectors("documents"):
        yield await checked(f"document: {each['name']}", partial(server.keeps, each))
    yield await checked("acknowledges what was sent before (type 102)", server.acknowledges, optional=True)


async def checked(name: str, check: Callable[[], Awaitable[None]], *, optional: bool = False) -> Checked:
    """Return what comes of a *check*, which raises if it is not met."""
    try:
        await check()
    except Unmet as error:
        return Checked(name, str(error), optional)
    except TimeoutError:
        return Checked(name, "an answer did not come in time", optional)
    except (WireError, ConnectionClosed, WebSocketException, OSError) as error:
        return Checked(name, f"{type(error).__name__}: {error}", optional)
    return Checked(name, "", optional)


class Peer:
    """One connection, to a server or from a client.

    Args:
        socket: the connection.
        patience_s: how long an answer may take.
    """

    def __init__(self, socket: Connection, patience_s: float) -> None:
        self._socket = socket
        self._patience_s = patience_s

    async def say(self, *frames: Frame) -> None:
        """Send frames, each as a message."""
        for frame in frames:
            await self._socket.send(encode(frame))

    async def say_bytes(self, message: bytes) -> None:
        """Send a message, whatever it says."""
        await self._socket.send(message)

    async def hear(self, kind: type[Kind], fits: Callable[[Kind], bool] = lambda frame: True) -> Kind:
        """Return the next frame of that kind that *fits*; a SyncStep1 on the way is answered with nothing."""
        async with asyncio.timeout(self._patience_s):
            while True:
                message = await self._socket.recv()
                for frame in decode_whole(message if isinstance(message, bytes) else b""):
                    if isinstance(frame, SyncStep1):
                        await self.say(SyncStep2(EMPTY_UPDATE))
                    if isinstance(frame, kind) and fits(frame):
                        return frame

    async def whole(self) -> bytes:
        """Return the document, as the other side has it once it has read what was sent."""
        await self.say(SyncStep1(_NOTHING))
        return (await self.hear(SyncStep2)).update


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    query: str
    patience_s: float

    @asynccontextmanager
    async def joined(self, name: str) -> AsyncIterator[Peer]:
        async with connect(f"{self.url}/{name}{self.query}", max_size=None, proxy=None) as socket:
            yield Peer(socket, self.patience_s)

    async def opens(self) -> None:
        async with self.joined(_fresh()) as peer:
            await peer.hear(SyncStep1)
            for _ in range(2):
                await peer.say(SyncStep1(_NOTHING))
                await peer.hear(SyncStep2)

    async def relays(self) -> None:
        name, change = _fresh(), bytes.fromhex(vectors("documents")[3]["updates"][0])
        async with self.joined(name) as one, self.joined(name) as other:
            for peer in (one, other):
                await peer.whole()
            await one.say(Update(change))
            update = (await other.hear(Update)).update
            if b"abcdefgh" not in update:
                raise Unmet("the others were sent another change")
            entry = AwarenessEntry(77, 1, '{"user":{"name":"conformance"}}')
            await one.say(AwarenessFrame(encode_awareness([entry])))
            await other.hear(AwarenessFrame, lambda frame: entry in decode_awareness(frame.payload))

    async def survives(self) -> None:
        name = _fresh()
        async with self.joined(name) as one:
            await one.whole()
            async with self.joined(name) as bad:
                await bad.say_bytes(b"\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
            await one.whole()

    async def keeps(self, vector: dict[str, Any]) -> None:
        name = _fresh()
        for step in (vector, vector.get("then")):
            if step is None:
                return
            async with self.joined(name) as writer:
                await writer.whole()
                await writer.say(*[Update(bytes.fromhex(update)) for update in step["updates"]])
                await writer.whole()  # they were read
            async with self.joined(name) as reader:
                check_document(await reader.whole(), step)

    async def acknowledges(self) -> None:
        async with self.joined(_fresh()) as peer:
            await peer.whole()
            for payload in (b"\x01", b"\x02"):
                await peer.say(Update(bytes.fromhex(vectors("documents")[3]["updates"][0])), Ack(payload))
                await peer.hear(Ack, lambda ack, payload=payload: ack.payload == payload)  # type: ignore[misc]


def _fresh() -> str:
    return f"conformance-{secrets.token_hex(6)}"


async def tell(checks: AsyncGenerator[Checked, None], say: Callable[[str], None]) -> bool:
    """Say what came of each check, when it is known; return whether all that is not optional is met."""
    conforms = True
    async with aclosing(checks):
        async for each in checks:
            word = "met" if each.met else "left out" if each.optional else "NOT MET"
            say(f"{word:8} {each.name}" + (f": {each.why}" if each.why else ""))
            conforms = conforms and (each.met or each.optional)
    return conforms
