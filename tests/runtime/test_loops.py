"""What lasts as long as the process outlives a defect: it is logged, and the loop begins anew."""

import asyncio

import pytest

from crdt_sessions.limits import Limits
from crdt_sessions.runtime import SessionRegistry, Subscriptions
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.runtime.health import StoreHealth
from crdt_sessions.runtime.load import Load
from crdt_sessions.runtime.lookout import Lookout
from crdt_sessions.runtime.slots import Slots
from crdt_sessions.runtime.streams import Streams
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import FakeClock
from crdt_sessions_server import service as service_module
from crdt_sessions_server.auth import LiveAccess
from crdt_sessions_server.service import Service
from crdt_sessions_server.settings import Settings

from .conftest import until


class Frail:
    """A loop that a defect ends when it has only begun, but not the second time."""

    def __init__(self, monkeypatch):
        self._monkeypatch, self.begun = monkeypatch, {}

    def make(self, owner, name):
        key = f"{owner.__name__}.{name}"
        self.begun[key] = 0

        async def frail(*_):
            self.begun[key] += 1
            if self.begun[key] == 1:
                raise UnicodeError("a defect")
            await asyncio.Event().wait()

        self._monkeypatch.setattr(owner, name, frail)


class Shared(MemoryStore):
    shared = True


@pytest.fixture
def frail(monkeypatch):
    return Frail(monkeypatch)


async def test_each_loop_of_a_registry_goes_on_after_a_defect_and_the_log_tells(frail, caplog):
    loops = (
        (SessionRegistry, "_tick"), (SessionRegistry, "_outbox_while_there_are_webhooks"), (StoreHealth, "watch"),
        (AuditLog, "run"), (Lookout, "run"), (Streams, "follow"), (Load, "run"),
    )  # fmt: skip
    for each in loops:
        frail.make(*each)
    clock = FakeClock()
    async with SessionRegistry(Shared(), clock=clock, load=Load(Limits())):
        await clock.advance(0.5)
        assert set(frail.begun.values()) == {1}
        await clock.advance(1)
        assert frail.begun == dict.fromkeys(frail.begun, 2)
    told = [line for line in caplog.records if line.name == "crdt_sessions.defects"]
    assert len(told) == len(loops)
    assert all(line.exc_info and line.reference for line in told)


async def test_each_loop_of_a_service_goes_on_after_a_defect(frail):
    loops = ((LiveAccess, "run"), (service_module, "expire"), (service_module, "sweep"), (Subscriptions, "run"))
    for each in loops:
        frail.make(*each)
    service = Service(Settings(), store=MemoryStore())
    clock = service.registry.clock = FakeClock()
    async with service:
        await clock.advance(1)
        assert frail.begun == dict.fromkeys(frail.begun, 2)


async def test_sessions_are_looked_after_though_it_cannot_be_looked_for_runs_that_are_due(store, clock, monkeypatch):
    looks = []

    async def defective(*_, **__):
        raise UnicodeError("a defect")

    monkeypatch.setattr(store, "take_due", defective)
    monkeypatch.setattr(Slots, "look_after_all", lambda self: looks.append(1))
    async with SessionRegistry(store, clock=clock):
        await clock.advance(5)
    assert len(looks) >= 5


async def test_a_defect_costs_the_audit_log_no_entry(clock, caplog):
    class Defective(MemoryStore):
        async def record(self, entries):
            if not caplog.records:
                raise UnicodeError("a defect")
            await super().record(entries)

    async with SessionRegistry(Defective(), clock=clock) as registry:
        registry.audit.note("deed", "ann")
        await until(lambda: caplog.records)
        await clock.advance(1)
        assert [entry.action async for entry in registry.audit.entries("")] == ["deed"]
