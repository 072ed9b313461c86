"""The queue of the audit log is bounded, whatever the disk does."""

import asyncio

from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.storage import MemoryStore


async def test_what_waits_for_a_disk_that_stands_still_is_bounded(clock, monkeypatch, caplog):
    monkeypatch.setattr("crdt_sessions.runtime.audit._MAX_WAITING", 10)
    moves = asyncio.Event()

    class Still(MemoryStore):
        async def record(self, entries):
            await moves.wait()
            await super().record(entries)

    store = Still()
    audit = AuditLog(store, clock)
    audit.note("first", "ann")
    storing = asyncio.create_task(audit.flush())
    await asyncio.sleep(0)
    for number in range(30):
        audit.note(f"deed {number}", "ann")
        assert len(audit._waiting) <= 10
    assert "entries of the audit log are lost" in caplog.text
    moves.set()
    await storing
    await audit.flush()
    kept = [entry.action async for entry in audit.entries("")]
    assert kept == ["first", *(f"deed {number}" for number in range(20, 30))]
