"""Throws mutated messages at sessions of a registry, in a process of its own, and prints what became of it.

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

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.model import extent_of
from crdt_sessions.runtime import Access, Sandbox, SessionRegistry
from crdt_sessions.runtime.load import resident_bytes
from crdt_sessions.storage import MemoryStore
from crdt_sessions.sync import Replica
from crdt_sessions.testing import MemoryChannel
from crdt_sessions.wire import SyncStep1, encode
from crdt_sessions.wire.y_sweet import YSweet
from tests.hostile.corpus import frames, hostile, updates
from tests.processes import PATIENCE

ATTACKERS, A_SESSION = 6, 3000


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


async def attack(registry: SessionRegistry, rng: random.Random, frames_each: int, seen: Counter[str]) -> None:
    made = updates(rng)
    valid = frames(rng, made)
    sent = 0
    while sent < frames_each:
        channel, far = MemoryChannel.pair(capacity=1)
        session = SessionId(f"attacked-{sent // A_SESSION}-{rng.randrange(2)}")
        access, codec = Access(f"mallory-{rng.randrange(9)}"), rng.choice([None, YSweet(2**20)])
        serving = asyncio.create_task(registry.serve(session, far, access=access, codec=codec))
        drain = asyncio.create_task(_drain(channel))
        await channel.send(encode(SyncStep1(b"\x00")))  # it has nothing yet: what it writes is taken
        # A connection ends with the first message that is refused; harmless ones go before, so that there is something.
        while not serving.done() and sent < frames_each:
            message = hostile(rng, valid) if rng.random() < 0.8 else rng.choice(valid)
            sending = asyncio.create_task(channel.send(message))  # waits for ever once nobody reads
            await asyncio.wait({sending, serving}, return_when=asyncio.FIRST_COMPLETED)
            sent += sending.done()
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
    async with Sandbox() as sandbox, SessionRegistry(MemoryStore(), sandbox=sandbox) as registry:
        one, other = Peer(registry, 1), Peer(registry, 2)
        done = asyncio.Event()
        quiet = asyncio.create_task(live_on(one, other, done))
        rngs = [random.Random(seed * 100 + number) for number in range(ATTACKERS)]
        await asyncio.gather(*(attack(registry, rng, count // ATTACKERS, seen) for rng in rngs))
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
