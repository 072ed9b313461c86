"""Subscriptions to streams: workers are woken, take turns, and miss nothing, whoever is killed meanwhile."""

import asyncio
import json
import os
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdt_sessions import errors
from crdt_sessions.ids import Millis
from crdt_sessions.limits import Limits
from crdt_sessions.runtime import Reply, Streams, Subscriptions
from crdt_sessions.storage import MemoryStore, SqliteStore
from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.streams import Append, Creation, spelled
from crdt_sessions.streams import subscriptions as rules
from crdt_sessions.streams.patterns import matches
from crdt_sessions.streams.subscriptions import End, Subscription, Wanted, Worker
from crdt_sessions.testing import FakeClock
from crdt_sessions_server.gateways.durable_streams.webhook_urls import check_webhook
from tests.postgres import every_version, shared_server
from tests.processes import PATIENCE
from tests.profiles import sample

JSON = "application/json"


@pytest.mark.parametrize(
    ("pattern", "path", "means"),
    [
        ("a/*", "a/b", True), ("a/*", "a", False), ("a/*", "a/b/c", False), ("a/**", "a", True), ("a/**", "a/b/c", True),
        ("**", "x", True), ("**/z", "z", True), ("**/z", "a/b/z", True), ("**/z", "a/zz", False),
        ("a/**/c/*", "a/b/c/c/d", True), ("a/**/c/*", "a/c", False), ("a", "a", True), ("a*", "ab", False),
    ],
)  # fmt: skip
def test_a_pattern_means_paths(pattern, path, means):
    assert matches(pattern, path) is means


# -- rules -----------------------------------------------------------------------------------------------------------

LEASE = 1000
WANTED = Wanted("pull-wake", "a/*", ("x",), wake_stream="a/wake", lease_ms=LEASE)
PATHS = ("a/1", "a/2", "x", "b")
actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(PATHS)),
        st.tuples(st.just("append"), st.sampled_from(PATHS)),
        st.tuples(st.just("replace"), st.sampled_from(PATHS)),
        st.tuples(st.just("claim"), st.sampled_from(["w1", "w2"])),
        st.tuples(st.just("ack"), st.sampled_from(["w1", "w2"]), st.booleans()),
        st.tuples(st.just("release"), st.sampled_from(["w1", "w2"])),
        st.tuples(st.just("wait"), st.integers(1, 2 * LEASE)),
    ),
    max_size=40,
)


class Workers:
    """What workers know, and a subscription of which every change is stored and read back."""

    def __init__(self):
        self.found = rules.followed(Subscription("s", WANTED, "secret", "http://x", Millis(0)), WANTED.streams, {})
        self.ends, self.now, self.ids, self.wakes = {}, 0, 0, 0
        self.turns = {}  # worker to what it was given
        self.worked = {}  # (path, stream) to where somebody's ack was taken

    def do(self, change):
        after = change()
        self.found = rules.read_back(rules.spelled_out(after))
        assert self.found == after

    def step(self):
        self.wakes += 1
        self.do(lambda: rules.stepped(self.found, self.ends, Millis(self.now), f"w{self.wakes}"))

    def append(self, path):
        self.ids += path not in self.ends
        stream, tail = self.ends.get(path, End(self.ids, 0))
        self.ends[path] = End(stream, tail + 1)

    def replace(self, path):
        self.ids += 1
        self.ends[path] = End(self.ids, 1)

    def claim(self, worker):
        self.do(lambda: rules.claimed(self.found, worker, Millis(self.now)))
        self.turns[worker] = Worker("pull-wake", self.found.token(), self.found.wake, self.found.generation)

    def ack(self, worker, done):
        rules.check_worker(self.found, self.turns[worker])
        acks = [(path, spelled(self.ends[path].tail)) for path in self.found.pending(self.ends)]
        self.do(lambda: rules.acked(self.found, acks, self.ends, Millis(self.now), done=done))

    def release(self, worker):
        rules.check_worker(self.found, self.turns[worker])
        self.do(lambda: rules.released(self.found))

    def wait(self, milliseconds):
        self.now += milliseconds


@given(actions)
@settings(deadline=None, max_examples=sample("examples") * 2)
def test_there_is_one_turn_at_a_time_and_nothing_is_left_lying(script):
    workers = Workers()
    for name, *arguments in [("append", "x"), *script]:
        before, told = workers.found, False
        try:
            getattr(workers, name)(*arguments)
        except (errors.SubscriptionError, KeyError):
            assert workers.found == before, "who is refused changes nothing"
            told = True
        for path, link in before.links.items():
            after = workers.found.links[path]
            assert after.acked >= link.acked or after.stream != link.stream
        if told and name in ("ack", "release") and arguments[0] in workers.turns:
            assert workers.turns[arguments[0]].wake != before.wake, "only an earlier worker is fenced"
        workers.step()
        found = workers.found
        assert found.generation >= before.generation
        assert found.wake in (None, before.wake) or found.pending(workers.ends), "nobody is woken for nothing"
        assert found.pending(workers.ends) == [] or found.wake is not None, "what is new wakes somebody"
        assert found.holder is None or found.lease_until is not None, "no turn lasts for ever"
        assert found.links.keys() <= {"a/1", "a/2", "x"}
        there = [(link, workers.ends[path]) for path, link in found.links.items() if path in workers.ends]
        assert all(link.stream == end.stream and link.acked <= end.tail for link, end in there), (
            "made anew is another"
        )


def test_a_token_is_good_for_one_subscription_and_one_generation():
    found = replace(Subscription("s", WANTED, "secret", "u", Millis(0)), generation=3, wake="w")
    good = Worker("pull-wake", found.token(), "w", 3)
    rules.check_worker(found, good)
    other = replace(found, secret="another")
    for bad in ("", "3", "3.", "x.y", "3." + "0" * 64, found.token()[:-1], "é.1", "9" * 40 + ".1", other.token()):
        with pytest.raises(errors.BadWakeToken):
            rules.check_worker(found, good._replace(token=bad))
    for late in (good._replace(wake="v"), good._replace(generation=2)):
        with pytest.raises(errors.WakeFenced):
            rules.check_worker(found, late)
    with pytest.raises(errors.BadStreamRequest):
        rules.check_worker(found, good._replace(type="webhook"))


# -- with a store ----------------------------------------------------------------------------------------------------


class Place:
    """A process that has subscriptions, and a receiver of webhooks."""

    def __init__(self, store, clock, *, shared=False):
        self.store, self.clock, self.shared = store, clock, shared
        self.received, self.answers = [], []

    @asynccontextmanager
    async def process(self):
        self.streams = Streams(self.store, self.clock, Limits())
        self.subscriptions = Subscriptions(self.streams, self.store, self.clock, self.deliver, shared=self.shared)
        task = asyncio.create_task(self.subscriptions.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def deliver(self, url, body):
        self.received.append(json.loads(body))
        answer = self.answers.pop(0) if self.answers else Reply(200, b"")
        if isinstance(answer, Exception):
            raise answer
        return await answer if asyncio.iscoroutine(answer) else answer

    async def append(self, path, body=b"1"):
        await self.streams.create(Creation("", path, content_type=JSON))
        await self.streams.append("", path, Append(body, JSON))

    async def read(self, path):
        stream = await self.streams.find("", path)
        return json.loads(b"[" + (await self.streams.read(stream, 0)).data[:-1] + b"]")

    async def until(self, condition):
        """Wait for the process's own work, which no clock has to move for."""
        for _ in range(10_000):
            if found := condition():
                return found
            await asyncio.sleep(0.001)
        raise AssertionError("never")

    def worker(self, wake):
        return Worker("webhook", wake["callback_token"].partition(".")[2], wake["wake_id"], wake["generation"])


@asynccontextmanager
async def placed(path):
    if path is None:
        yield Place(MemoryStore(), FakeClock())
        return
    async with SqliteStore(path / "s.db") as store:
        yield Place(store, FakeClock())


HOOK = Wanted("webhook", "a/*", webhook="https://hooks.example/", lease_ms=5000)


@pytest.fixture(params=["memory", "sqlite"])
def folder(request, tmp_path):
    return None if request.param == "memory" else tmp_path


async def test_a_webhook_tells_of_what_is_new_and_a_callback_ends_the_turn(folder):
    async with placed(folder) as place, place.process():
        await place.append("a/old")
        _, new = await place.subscriptions.put("", "s", HOOK, owner="ann", url="http://x/s")
        assert new
        await place.append("b/other")
        await place.append("a/new")
        await place.append("a/new")
        wake = await place.until(lambda: place.received and place.received[-1])
        old, fresh = sorted(wake["streams"], key=lambda each: each["path"], reverse=True)
        assert (old["path"], old["has_pending"]) == ("a/old", False), "from where it ended"
        assert (fresh["path"], fresh["has_pending"], fresh["link_type"]) == ("a/new", True, "glob")
        assert wake["callback_url"] == "http://x/s/callback"
        worker, acks = place.worker(wake), [("a/new", spelled(2))]
        assert await place.subscriptions.ack("", "s", worker, acks, done=True), "the second one came later"
        with pytest.raises(errors.WakeFenced):
            await place.subscriptions.ack("", "s", worker, acks, done=True)
        await place.until(lambda: len(place.received) == 2)
        again = place.worker(place.received[-1])
        assert again.generation == worker.generation + 1
        for bad in ("-1", "x", spelled(1), spelled(99)):
            with pytest.raises(errors.BadAck):
                await place.subscriptions.ack("", "s", again, [("a/new", bad)], done=False)
        assert not await place.subscriptions.ack("", "s", again, [("a/new", spelled(4))], done=True)
        assert await place.subscriptions.delete("", "s")
        with pytest.raises(errors.SubscriptionNotFound):
            await place.subscriptions.ack("", "s", again, [], done=True)


@pytest.mark.parametrize("host", ["hooks..example.com", f"{'a' * 64}.example.com", ""])
def test_a_webhook_to_a_host_that_nobody_can_look_up_is_refused(host):
    with pytest.raises(errors.WebhookRefused):
        check_webhook(f"https://{host}/x", private=True)
    check_webhook("https://hooks.example.com/x", private=False)


async def test_a_defect_and_an_answer_that_never_ends_are_failures_too(folder, monkeypatch):
    monkeypatch.setattr("crdt_sessions.runtime.subscriptions.ATTEMPT_S", 0.05)
    async with placed(folder) as place, place.process():
        place.answers = [UnicodeError("label too long"), asyncio.Event().wait()]
        await place.subscriptions.put("", "s", HOOK, owner="ann", url="u")
        await place.append("a/1")
        for attempt, seconds in ((1, 1.3), (2, 2.5)):
            while (await place.subscriptions.get("", "s")).attempts != attempt:
                await asyncio.sleep(0.001)
            assert len(place.received) == attempt
            await place.clock.advance(seconds)
        await place.until(lambda: len(place.received) == 3)


async def test_what_a_webhook_answers_counts_and_what_it_refuses_is_sent_again(folder):
    async with placed(folder) as place, place.process():
        place.answers = [Reply(500, b""), Reply(500, b""), Reply(200, b'{"done": true}')]
        await place.subscriptions.put("", "s", HOOK, owner="ann", url="u")
        await place.append("a/1")
        await place.until(lambda: len(place.received) == 1)

        async def failures():
            return (await place.subscriptions.get("", "s")).attempts

        for attempt, seconds in ((1, 1.3), (2, 2.5)):
            while await failures() != attempt:
                await asyncio.sleep(0.001)
            await place.clock.advance(seconds)
            await place.until(lambda n=attempt: len(place.received) == n + 1)
        while (await place.subscriptions.get("", "s")).wake is not None:
            await asyncio.sleep(0.001)
        assert len({wake["wake_id"] for wake in place.received}) == 1, "it is one wake"
        found = await place.subscriptions.get("", "s")
        assert (found.links["a/1"].acked, found.attempts) == (2, 0)


async def test_a_worker_that_says_nothing_loses_its_turn(folder):
    async with placed(folder) as place, place.process():
        await place.subscriptions.put("", "s", HOOK, owner="ann", url="u")
        await place.append("a/1")
        await place.until(lambda: len(place.received) == 1)
        await place.clock.advance(4)
        await place.subscriptions.ack("", "s", place.worker(place.received[0]), [], done=False)
        await place.clock.advance(4)
        assert len(place.received) == 1, "it went on"
        await place.clock.advance(2)
        await place.until(lambda: len(place.received) == 2)
        with pytest.raises(errors.WakeFenced):
            await place.subscriptions.ack("", "s", place.worker(place.received[0]), [], done=True)


PULL = Wanted("pull-wake", "a/*", wake_stream="a/wake", lease_ms=5000)


async def test_workers_claim_what_the_wake_stream_tells(folder):
    async with placed(folder) as place, place.process():
        await place.subscriptions.put("", "s", PULL, owner="ann", url="u")
        with pytest.raises(errors.NoPendingWork):
            await place.subscriptions.claim("", "s", "w1")
        await place.append("a/1")
        while (await place.subscriptions.get("", "s")).attempts != 1:
            await asyncio.sleep(0.001)  # there is no wake stream, which is tried again
        await place.streams.create(Creation("", "a/wake", content_type=JSON))
        await place.clock.advance(1.3)
        while not (lines := await place.read("a/wake")):
            await asyncio.sleep(0.001)
        assert [(line["subscription_id"], line["stream"], line["generation"]) for line in lines] == [("s", "a/1", 1)]
        found, told = await place.subscriptions.claim("", "s", "w1")
        with pytest.raises(errors.AlreadyClaimed) as refused:
            await place.subscriptions.claim("", "s", "w2")
        assert refused.value.current_holder == "w1"
        worker = Worker("pull-wake", found.token(), found.wake, found.generation)
        await place.subscriptions.release("", "s", worker)
        while len(lines := await place.read("a/wake")) < 2:
            await asyncio.sleep(0.001)
        assert lines[1]["generation"] == 2, "nothing was done, so somebody is woken again"
        assert told[0]["has_pending"]
        assert "a/wake" not in (await place.subscriptions.get("", "s")).links


async def test_whoever_comes_after_a_crash_goes_on(tmp_path):
    async with placed(tmp_path) as place:
        async with place.process():
            place.answers = [Reply(500, b"")]
            await place.subscriptions.put("", "s", HOOK, owner="ann", url="u")
            await place.append("a/1")
            while not (await place.subscriptions.get("", "s")).attempts:
                await asyncio.sleep(0.001)
        streams = Streams(place.store, place.clock, Limits())  # of a process that dies before it tells of it
        await streams.create(Creation("", "a/2", content_type=JSON, body=b"1"))
        async with place.process():
            await asyncio.sleep(0.05)
            assert len(place.received) == 1, "the time of the next attempt is known"
            await place.clock.advance(1.3)
            wake = await place.until(lambda: len(place.received) == 2 and place.received[1])
            assert wake["wake_id"] == place.received[0]["wake_id"]
            assert await place.subscriptions.ack("", "s", place.worker(wake), [("a/1", spelled(2))], done=True) or {
                each["path"] for each in wake["streams"]
            } >= {"a/2"}
            found = await place.subscriptions.get("", "s")
            assert found.links["a/2"].acked == 0


async def test_a_subscription_is_made_once(folder):
    async with placed(folder) as place, place.process():
        await place.append("x")
        wanted = replace(HOOK, streams=("x",))
        found, new = await place.subscriptions.put("", "s", wanted, owner="ann", url="u")
        assert await place.subscriptions.put("", "s", wanted, owner="bob", url="v") == (found, False)
        with pytest.raises(errors.SubscriptionExists):
            await place.subscriptions.put("", "s", HOOK, owner="ann", url="u")
        with pytest.raises(errors.SubscriptionNotFound):
            await place.subscriptions.get("other", "s")
        await place.subscriptions.follow("", "s", ["y", "a/1"])
        await place.append("a/1")
        for path in ("y", "a/1", "unknown"):
            await place.subscriptions.leave("", "s", path)
        links = (await place.subscriptions.get("", "s")).links
        assert {path: link.explicit for path, link in links.items()} == {"x": True, "a/1": False}
        with pytest.raises(errors.BadStreamRequest):
            await place.subscriptions.follow("", "s", [f"y/{n}" for n in range(1000)])
        assert not await place.subscriptions.delete("", "nobody")
        assert new


@pytest.mark.processes
@every_version
async def test_nodes_that_share_a_database_wake_a_worker_once(version, tmp_path):
    url, schema, clock = shared_server(version).url(), f"subs{os.getpid()}_{version}", FakeClock()
    async with PostgresStore(url, schema=schema) as one, PostgresStore(url, schema=schema) as two:
        nodes = [Place(store, clock, shared=True) for store in (one, two)]
        here, there = nodes
        async with here.process(), there.process():
            await here.subscriptions.put("", "s", replace(HOOK, lease_ms=600_000), owner="ann", url="u")
            await there.append("a/1")  # by a node that has not heard of the subscription

            async def received():
                while not (found := [wake for node in nodes for wake in node.received]):
                    await clock.advance(5)
                    await asyncio.sleep(0.02)
                return found

            (wake,) = await asyncio.wait_for(received(), PATIENCE)
            for _ in range(3):
                await clock.advance(1)
                await asyncio.sleep(0.02)
            assert len([*here.received, *there.received]) == 1
            for node in nodes:  # either of them may be the one that a worker reaches
                done = node is there
                acks = [("a/1", spelled(2))]
                assert not await node.subscriptions.ack("", "s", here.worker(wake), acks, done=done)
            with pytest.raises(errors.WakeFenced):
                await here.subscriptions.ack("", "s", here.worker(wake), [], done=True)
