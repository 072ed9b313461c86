"""The queue of the audit log is bounded, whatever the disk does."""

import asyncio

from crdt_sessions.errors import StorageError
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.storage import MemoryStore
from crdt_sessions.testing import settle


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


async def test_who_hangs_up_while_entries_are_stored_takes_none_of_them_along(clock):
    """Entries of everybody are stored together, in the name of whoever waits for their own."""
    moves, fails = asyncio.Event(), [StorageError("disk full")]

    class Slow(MemoryStore):
        async def record(self, entries):
            await moves.wait()
            if fails:
                raise fails.pop()
            await super().record(entries)

    store = Slow()
    audit = AuditLog(store, clock)
    for deed in ("first", "second"):
        audit.note(deed, "bob")
        recording = asyncio.create_task(audit.record(f"ann's {deed}", "ann"))
        await asyncio.sleep(0)
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)
    moves.set()
    await settle()
    await audit.flush()
    kept = {entry.action async for entry in audit.entries("")}
    assert kept == {"first", "ann's first", "second", "ann's second"}
