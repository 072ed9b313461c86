"""A client of /v1/hocuspocus that says what it is told to, byte by byte."""

import asyncio
import contextlib

import websockets

from crdt_sessions.wire import Frame, SyncStep1, SyncStep2, Update, decode, encode
from crdt_sessions.wire.varint import Reader, string
from tests.processes import PATIENCE

DENIED, AUTHENTICATED, WANTED = "denied", "authenticated", "token wanted"


class Hocuspocus:
    """One socket."""

    def __init__(self, socket):
        self.socket = socket

    async def send(self, address, body):
        await self.socket.send(string(address) + body)

    async def begin(self, address, token="", *, version="4.8.0", clocks=b"\x00"):
        """Say what a provider says first."""
        said = b"\x02\x00" + string(token) + (string(version) if version else b"")
        await self.send(address, said)
        await self.say(address, SyncStep1(clocks))

    async def say(self, address, frame: Frame):
        await self.send(address, encode(frame))

    async def write(self, address, update: bytes):
        await self.say(address, Update(update))

    async def hear(self):
        """Return the next message: address, kind, and what it says."""
        return parsed(await asyncio.wait_for(self.socket.recv(), PATIENCE))

    async def until(self, address, kind):
        """Return what the next message of that kind says, for that address."""
        async with asyncio.timeout(PATIENCE):
            while True:
                where, what, value = await self.hear()
                if (where, what) == (address, kind):
                    return value

    async def synced(self, address, token="", **options):
        """Begin, and answer what is asked; return the document's content once all is acknowledged."""
        await self.begin(address, token, **options)
        content = None
        while True:
            where, kind, value = await self.hear()
            if where != address:
                continue
            if kind == "SyncStep1":
                await self.say(address, SyncStep2(b"\x00\x00"))
            elif kind == "SyncStep2":
                content = value
            elif kind == DENIED:
                raise PermissionError(value)
            elif kind == "status":
                assert value == 1
                assert content is not None
                return content

    async def closed(self):
        """Wait for the end; return its code and reason."""
        with contextlib.suppress(websockets.ConnectionClosed):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await self.socket.recv()
        return self.socket.close_code, self.socket.close_reason


def parsed(message):
    if len(message) == 1:
        return None, "heartbeat", message[0]
    reader = Reader(message)
    address = reader.string()
    body = message[len(message) - reader.remaining :]
    kind = reader.varuint()
    if kind == 2:
        what = reader.varuint()
        return address, (WANTED, DENIED, AUTHENTICATED)[what], reader.string() if what else None
    if kind in (5, 7):
        return address, {5: "stateless", 7: "close"}[kind], reader.string()
    if kind == 8:
        return address, "status", reader.varuint()
    (frame,) = decode(body)
    (value,) = [getattr(frame, name) for name in ("update", "state_vector", "payload") if hasattr(frame, name)]
    return address, type(frame).__name__, value


@contextlib.asynccontextmanager
async def hocuspocus(url, **options):
    """A socket to the service at *url*."""
    async with websockets.connect(url.replace("http", "ws", 1) + "/v1/hocuspocus", **options) as socket:
        yield Hocuspocus(socket)
