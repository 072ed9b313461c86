"""Clients that come back whenever they are sent away, and cost next to nothing: ``python -m tests.bench.returning``.

A client of the library takes 2.6 ms of a processor to come back, so three hundred of them in one process wait for each
other, and not for the service. These know as much of WebSockets and of the protocol as they need: they open, ask for
what they do not have, and are back with the answer. As ours do, they wait for 20 to 200 ms before they come back.

It prints a line when all are there. Another one, at a line of input, says how long each was away from then on until
all had been away and were back.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

_WAITS_S = (0.02, 0.2)
_AGAIN_S = 0.1
_REQUEST = (
    "GET /v1/sync/room-{} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_ASK, _ANSWER = b"\x00\x00\x01\x00", b"\x00\x01"
_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


class Client:
    """One client, over all of its connections."""

    def __init__(self, number: int, port: int, rng: random.Random) -> None:
        self.number, self._port, self._rng = number, port, rng
        self.gone: float | None = None
        self.away: list[float] = []
        self.there = asyncio.Event()

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
                return
            except OSError:
                await asyncio.sleep(_AGAIN_S)

    def came(self) -> None:
        self.there.set()
        if self.gone is not None:
            self.away.append(time.perf_counter() - self.gone)
            self.gone = None

    def went(self) -> None:
        if self.there.is_set() and self.gone is None:
            self.gone = time.perf_counter()

    def left(self) -> None:
        self.went()
        pause_s = self._rng.uniform(*_WAITS_S)
        asyncio.get_running_loop().call_later(pause_s, lambda: asyncio.ensure_future(self.connect()))


class _Connection(asyncio.Protocol):
    def __init__(self, client: Client) -> None:
        self._client = client
        self._data = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(_REQUEST.format(self._client.number).encode())

    def connection_lost(self, error: Exception | None) -> None:
        self._client.left()

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._open:
            if b"\r\n\r\n" not in self._data:
                return
            self._data = self._data.partition(b"\r\n\r\n")[2]
            self._open = True
            self._send(_BINARY, _ASK)
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        size, head = (self._data[1] if len(self._data) > 1 else 0), 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(self._data[2:head], "big")
        if len(self._data) < head + size:
            return None
        kind, body = self._data[0] & 15, self._data[head : head + size]
        self._data = self._data[head + size :]
        return kind, body

    def _take(self, kind: int, body: bytes) -> None:
        if kind == _BINARY and body.startswith(_ANSWER):
            self._client.came()
        elif kind == _PING:
            self._send(_PONG, body)
        elif kind == _CLOSE:
            self._client.went()
            self._send(_CLOSE, body[:2])
            self._transport.close()

    def _send(self, kind: int, body: bytes) -> None:
        self._transport.write(bytes([0x80 | kind, 0x80 | len(body)]) + b"\0\0\0\0" + body)


async def main(port: int, count: int) -> None:
    """Connect to a session each, wait for a line of input, and say how long all were away."""
    clients = [Client(number, port, random.Random(number)) for number in range(count)]
    for client in clients:
        await client.connect()
        await client.there.wait()
    print("there", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    while not all(client.away and client.gone is None for client in clients):
        await asyncio.sleep(0.02)
    print(json.dumps([sum(client.away) for client in clients]), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
