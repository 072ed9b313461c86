"""Throws mutated messages at sessions, in a process of its own, and prints what became of it.

They come as clients of ``/v1/sync``, of ``/v1/y-sweet`` and of ``/v1/hocuspocus`` speak, to the same sessions.

Usage: fuzzing.py FRAMES SEED. One session is left alone: its two peers go on writing, and must not notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.model import extent_of
from crdt_sessions.runtime import Access, SessionRegistry
from crdt_sessions.runtime.load import resident_bytes
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import Replica
from crdt_sessions.testing import MemoryChannel
from crdt_sessions.wire import Closing, SyncStep1, encode
from crdt_sessions.wire.varint import string
from crdt_sessions.wire.y_sweet import YSweet
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.hostile.corpus import frames, hostile, mutate, of_providers, updates
from tests.processes import PATIENCE

ATTACKERS, A_SESSION = 6, 3000
SCOPE = {"type": "websocket", "path": "/v1/hocuspocus", "headers": [(b"host", b"localhost")], "query_string": b"",
         "client": ("127.0.0.1", 1)}  # fmt: skip
NEVER = 10**9


class Peer:
    """A peer of the session that is left alone."""

    def __init__(self, registry: SessionRegistry, client: int) -> None:
        self.replica = Replica(client)
        self.channel, far = MemoryChannel.pair()
        self.serving = asyncio.create_task(registry.serve(SessionId("quiet"), far))
        self.reading = asyncio.create_task(self._read())
        self.replica.open(self._now())

    async def pump(self) -> None:
        for frame in self.replica.take(self._now()):
            await self.channel.send(frame)

    async def _read(self) -> None:
        async for message in self.channel:
            self.replica.receive(message, self._now())
            await self.pump()

    def _now(self) -> Millis:
        return Millis(time.time_ns() // 1_000_000)


@dataclass(frozen=True)
class Way:
    """How an attacker speaks to a session."""

    name: str
    serve: Callable[[SessionId, MemoryChannel], Awaitable[Closing]]
    greeting: Callable[[SessionId], list[bytes]]
    message: Callable[[random.Random, SessionId, bool], bytes]


def ways(service: Service, rng: random.Random) -> list[Way]:
    """Return all of them."""
    valid = frames(rng, updates(rng))
    provided = [frame for frame in valid if frame] + of_providers()
    joining = encode(SyncStep1(b"\x00"))  # it has nothing yet: what it writes is taken

    def bare(rng: random.Random, _: SessionId, harmless: bool) -> bytes:
        return rng.choice(valid) if harmless else hostile(rng, valid)

    def addressed(rng: random.Random, session: SessionId, harmless: bool) -> bytes:
        if rng.random() < 0.02:  # a document that was denied is begun anew
            return rng.choice(greeting(session))
        body = rng.choice(provided) if harmless else hostile(rng, provided)
        whole = string(session) + body
        return whole if harmless or rng.random() < 0.9 else mutate(rng, whole, provided)

    def greeting(session: SessionId) -> list[bytes]:
        return [string(session) + said for said in (b"\x02\x00" + string("") + string("4.8.0"), joining)]

    def serve(codec: YSweet | None) -> Callable[[SessionId, MemoryChannel], Awaitable[Closing]]:
        def begin(session: SessionId, far: MemoryChannel) -> Awaitable[Closing]:
            access = Access(f"mallory-{rng.randrange(9)}")
            return service.registry.serve(session, far, access=access, codec=codec)

        return begin

    return [
        Way("sync", serve(None), lambda _: [joining], bare),
        Way("y-sweet", serve(YSweet(2**20)), lambda _: [joining], bare),
        Way("hocuspocus", lambda _, far: service.hocuspocus.converse(SCOPE, None, far), greeting, addressed),
    ]


async def attack(service: Service, rng: random.Random, frames_each: int, seen: Counter[str]) -> None:
    known = ways(service, rng)
    sent = 0
    while sent < frames_each:
        channel, far = MemoryChannel.pair(capacity=1)
        session = SessionId(f"attacked-{sent // A_SESSION}-{rng.randrange(2)}")
        way = rng.choice(known)
        serving = asyncio.ensure_future(way.serve(session, far))
        drain = asyncio.create_task(_drain(channel))
        for message in way.greeting(session):
            await channel.send(message)
        # A connection ends with the first message that is refused; harmless ones go before, so that there is something.
        while not serving.done() and sent < frames_each:
            message = way.message(rng, session, rng.random() >= 0.8)
            sending = asyncio.create_task(channel.send(message))  # waits for ever once nobody reads
            await asyncio.wait({sending, serving}, return_when=asyncio.FIRST_COMPLETED)
            sent += sending.done()
            seen[f"{way.name} frames"] += sending.done()
            sending.cancel()
        if not serving.done():
            channel.close()
        seen[str((await serving).code)] += 1
        channel.close()
        await drain
    seen["frames"] += sent


async def _drain(channel: MemoryChannel) -> None:
    async for _ in channel:
        pass


async def live_on(one: Peer, other: Peer, done: asyncio.Event) -> tuple[int, float]:
    """Write until *done*; return how much arrived, and the longest it took."""
    count, slowest = 0, 0.0
    while not done.is_set():
        count += 1
        one.replica.edit(lambda view, count=count: view.state.__setitem__("n", count))
        begun = time.monotonic()
        await one.pump()
        while other.replica.document.roots.state.get("n") != count:
            await asyncio.sleep(0.001)
            assert time.monotonic() - begun < PATIENCE, "the quiet session stands still"
        slowest = max(slowest, time.monotonic() - begun)
        await asyncio.sleep(0.02)
    return count, slowest


async def main(count: int, seed: int) -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (4 * 1024**3, 4 * 1024**3))
    seen: Counter[str] = Counter()
    settings = Settings(connects_per_s=NEVER, connect_burst=NEVER, messages_per_s=NEVER, message_burst=NEVER)
    async with Service(settings, store=MemoryStore()) as service:
        registry, sandbox = service.registry, service._sandbox
        one, other = Peer(registry, 1), Peer(registry, 2)
        done = asyncio.Event()
        quiet = asyncio.create_task(live_on(one, other, done))
        rngs = [random.Random(seed * 100 + number) for number in range(ATTACKERS)]
        await asyncio.gather(*(attack(service, rng, count // ATTACKERS, seen) for rng in rngs))
        done.set()
        arrived, slowest = await quiet
        assert extent_of(one.replica.document.doc) == extent_of(other.replica.document.doc)
        for peer in (one, other):
            assert not peer.serving.done(), "a peer of the quiet session was thrown out"
            peer.channel.close()
            await peer.serving
            await peer.reading
        outcome = {
            "closes": dict(sorted(seen.items())), "deaths": sandbox.deaths, "refused": sandbox.refused,
            "quiet": arrived, "slowest": round(slowest, 3), "rss": resident_bytes(),
            "failed": sum(session.failed is not None for session in registry.live),
        }  # fmt: skip
    print(json.dumps(outcome))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
