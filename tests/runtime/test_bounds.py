"""What is remembered of sessions and runs that are not in memory has a bound, and what is forgotten is tried again."""

import asyncio

import pytest

from crdt_sessions.errors import SessionFailed, StorageError
from crdt_sessions.ids import session_id
from crdt_sessions.limits import Limits
from crdt_sessions.runtime import Dispatcher, Load, SessionRegistry
from crdt_sessions.runtime.quarantine import Quarantine
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock, MemoryChannel, settle

MISSING = [session_id(f"missing-{number}") for number in range(5)]


def test_the_oldest_of_too_many_is_forgotten():
    recent = Recent(2)
    for key in "abc":
        assert recent.remember(key, key.upper()) == key.upper()
    assert dict(recent) == {"b": "B", "c": "C"}
    recent.remember("b", "again")
    recent.remember("d", "D")
    assert dict(recent) == {"b": "again", "d": "D"}, "what is remembered anew is the newest"


async def test_runs_that_cannot_be_claimed_are_remembered_up_to_a_bound(registry, store, monkeypatch, caplog):
    async def ready_runs(agents, *, limit, tenant=None):
        return [(session, "run") for session in MISSING]

    monkeypatch.setattr("crdt_sessions.runtime.dispatch._MOST_UNUSABLE", 3)
    monkeypatch.setattr(store, "ready_runs", ready_runs)
    dispatcher = Dispatcher(registry)
    assert await dispatcher.claim(["writer"], owner="w") is None
    assert [session for session, _ in dispatcher._unusable] == MISSING[2:]
    assert caplog.text.count("cannot be claimed") == 5
    monkeypatch.setattr("tests.runtime.test_bounds.MISSING", MISSING[3:])
    assert await dispatcher.claim(["writer"], owner="w") is None
    assert caplog.text.count("cannot be claimed") == 5, "what is remembered is not logged again"


async def test_due_sessions_that_cannot_be_loaded_are_remembered_up_to_a_bound(monkeypatch):
    tried = []

    class Store(MemoryStore):
        async def take_due(self, now, *, limit):
            return MISSING

        async def load(self, session):
            tried.append(session)
            raise StorageError("it cannot be read")

    monkeypatch.setattr("crdt_sessions.runtime.quarantine.MOST_UNWELL", 3)
    clock = FakeClock()
    async with SessionRegistry(Store(), clock=clock) as registry:
        await settle()
        assert sorted(tried) == MISSING
        assert len(registry._quarantine._unwell) == 3
        for _ in range(4):
            remembered, before = list(registry._quarantine._unwell), len(tried)
            await clock.advance(0.5)
            assert not set(tried[before:]) & set(remembered), "those that are remembered are left alone"
        tried.clear()
        await clock.advance(31)
        assert set(tried) == set(MISSING), "for a while"


async def test_who_gives_sessions_away_takes_none_that_are_due():
    asked = []

    class Store(MemoryStore):
        async def take_due(self, now, *, limit):
            asked.append(now)
            return []

    clock = FakeClock()
    async with SessionRegistry(Store(), clock=clock) as registry:
        await settle()
        await clock.advance(2)
        assert asked
        await registry.hand_over(300)
        asked.clear()
        await clock.advance(31)
        assert not asked, "what is taken would be lost to the others"


async def test_sessions_are_given_away_at_their_pace_though_a_busy_loop_sleeps_for_too_long():
    class Late(FakeClock):
        async def sleep(self, seconds):
            await super().sleep(seconds + 0.2 * (0 < seconds <= 0.1))

    clock = Late()
    async with SessionRegistry(MemoryStore(), clock=clock) as registry:
        for number in range(30):
            await registry.create(session_id(f"s{number}"))
            async with registry.open(session_id(f"s{number}")):
                pass
        giving = asyncio.create_task(registry.hand_over(10))
        await clock.advance(2.5)
        assert registry.live, "all at once"
        await clock.advance(1)
        assert not registry.live
        await giving


async def test_whoever_is_sent_away_finds_the_session_free_however_long_the_row_is():
    """Nobody waits for the pace of the others: only between being told and the commit that frees the session."""
    told, away = {}, {}

    class Store(MemoryStore):
        async def release(self, session):
            away[session] = clock.now() - told[session]

    async def peer(name):
        assert (await registry.serve(name, MemoryChannel.pair()[0])).code == 1012
        told[name] = clock.now()

    clock = FakeClock()
    async with SessionRegistry(Store(), clock=clock) as registry:
        names = [session_id(f"s{number}") for number in range(100)]
        async with asyncio.TaskGroup() as serving:
            for name in names:
                await registry.create(name)
                serving.create_task(peer(name))
            await settle(50)
            giving = asyncio.create_task(registry.hand_over(100))
            for _ in range(120):
                await clock.advance(0.01)
        await giving
    assert set(away) == set(names)
    assert max(told.values()) - min(told.values()) >= 900, "one after the other"
    assert max(away.values()) <= 20


@pytest.mark.parametrize("remember", ["hold", "note_end"])
def test_what_is_known_of_sessions_that_failed_has_a_bound(monkeypatch, remember):
    monkeypatch.setattr("crdt_sessions.runtime.quarantine.MOST_KNOWN", 3)
    quarantine = Quarantine(FakeClock())
    for session in MISSING:
        getattr(quarantine, remember)(session, SessionFailed(reference="r"))
    assert len(quarantine._held if remember == "hold" else quarantine._defects) == 3
    quarantine.check(MISSING[0])
    if remember == "hold":
        with pytest.raises(SessionFailed):
            quarantine.check(MISSING[-1])


def test_whoever_has_a_policy_for_the_collector_frees_what_is_garbage():
    freed = []
    load = Load(Limits(), memory=lambda: 0, free_garbage=lambda: freed.append(True))
    load.give_back_memory(garbage=False)
    assert freed == []
    load.give_back_memory(garbage=True)
    assert freed == [True]
