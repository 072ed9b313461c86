"""Phones that are online for seconds at random, for thirty days: all have all in the end, and what it cost is counted."""

import heapq
import json
from random import Random

import httpx
from pycrdt import Text

from crdt_sessions.client import BackgroundSync
from crdt_sessions.errors import ServiceUnreachable
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock
from crdt_sessions.testing.clock import settle
from crdt_sessions_server.http.inside import Inside
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings
from tests.profiles import sample

DAYS, PER_DAY, HELD = 30, 1, 5
DAY_S = 86_400


class Calendar(FakeClock):
    """A clock that skips the hours in which nothing happens: who sleeps wakes once, however often it would have."""

    async def until(self, time):
        self._now = max(self._now, time)
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._now]
        self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._now]
        heapq.heapify(self._sleepers)
        for _, _, future in due:
            if not future.done():
                future.set_result(None)
        await settle()


class BadNet(httpx.AsyncBaseTransport):
    """Carries what a phone sends to whatever service there is, and counts it; some requests, or answers, are lost."""

    def __init__(self, world):
        self.world = world

    async def handle_async_request(self, request):
        world = self.world
        world.requests += 1
        world.up += len(await request.aread())
        lost = world.random.random()
        if lost < 0.1:
            raise httpx.ConnectError("a tunnel")
        answer = await world.inside.handle_async_request(request)
        if lost < 0.25 and world.losing:
            raise httpx.ReadError("the app was ended before the answer came")
        world.down += int(answer.headers["content-length"])
        return answer


class World:
    """A service, and phones that hold some of its sessions each."""

    def __init__(self, phones, seed):
        self.random = Random(seed)
        self.clock, self.store = Calendar(), MemoryStore()
        self.requests = self.up = self.down = self.lost = self.edits = 0
        self.losing = True
        names = [f"room-{number}" for number in range(max(HELD, phones // 3))]
        self.phones, self.written = [], {}
        for number in range(phones):
            phone = BackgroundSync("http://localhost", device=f"phone-{number}", transport=BadNet(self))
            for name in self.random.sample(names, HELD):
                phone.hold(name, (1 << 53) - 1 - number)  # such as JavaScript cannot add to
            self.phones.append(phone)

    async def start(self):
        settings = Settings(sandbox=False, idle_unload_s=3600, connect_burst=10**9, max_lag_s=3600)
        self.service = Service(settings, store=self.store, clock=self.clock)
        await self.service.__aenter__()
        self.inside = Inside(self.service.app, "127.0.0.1")

    async def stop(self):
        await self.service.__aexit__(None, None, None)

    def write(self, number, phone):
        """Change one session that a phone holds; remember what must never be lost."""
        copy = self.random.choice(list(phone.copies.values()))
        key = f"{number}-{self.edits}"
        self.edits += 1

        def change(view):
            view.document.roots.state[key] = 1.0
            text = view.document.doc.get("notes", type=Text)
            text.insert(self.random.choice([0, len(text)]), self.random.choice(["so ", "😀", "æøå "]))

        copy.edit(change)
        self.written.setdefault(copy.name, set()).add(key)

    async def online(self, phone):
        try:
            await phone.once(max_bytes=100_000)
        except ServiceUnreachable:
            self.lost += 1

    async def month(self):
        begin, moments = self.clock.now(), []
        for number in range(len(self.phones)):
            moments += [
                (begin + int(self.random.uniform(0, DAYS * DAY_S * 1000)), number) for _ in range(DAYS * PER_DAY)
            ]
        moments.sort()
        for at, (time, number) in enumerate(moments):
            await self.clock.until(time)
            if at in (len(moments) // 3, 2 * len(moments) // 3):
                await self.stop()
                await self.start()
            for _ in range(self.random.randint(0, 3)):
                self.write(number, self.phones[number])
            await self.online(self.phones[number])

    async def settle(self):
        self.losing = False
        for _ in range(2):
            for phone in self.phones:
                lost = self.lost - 1
                while lost != self.lost:
                    lost = self.lost
                    await self.online(phone)


async def test_phones_that_are_online_for_seconds_lose_nothing_in_thirty_days(record_property):
    world = World(sample("phones"), seed=1)
    await world.start()
    await world.month()
    await world.settle()
    await world.stop()
    assert world.edits > DAYS * len(world.phones)
    documents = {}
    for phone in world.phones:
        for name, copy in phone.copies.items():
            assert not copy.dirty
            assert copy.problem is None
            shown = (copy.view.state_value(), str(copy.document.doc.get("notes", type=Text)))
            assert documents.setdefault(name, shown) == shown, name
    assert {name: set(state) for name, (state, _) in documents.items() if state} == world.written
    figures = {
        "phones": len(world.phones), "requests": world.requests, "lost": world.lost, "edits": world.edits,
        "bytes up": world.up, "bytes down": world.down,
        "bytes per request": (world.up + world.down) // world.requests,
    }  # fmt: skip
    record_property("figures", json.dumps(figures))
    print(figures)
    assert (world.up + world.down) / world.requests < 20_000
