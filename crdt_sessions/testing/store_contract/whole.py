"""The contract of a store: everything."""

from __future__ import annotations

from pathlib import Path

from crdt_sessions.ids import SessionId
from crdt_sessions.storage import Entries
from crdt_sessions.testing.store_contract.access import AccessContract
from crdt_sessions.testing.store_contract.audit import AuditContract
from crdt_sessions.testing.store_contract.changes import ChangesContract
from crdt_sessions.testing.store_contract.deliveries import DeliveryContract
from crdt_sessions.testing.store_contract.index import IndexContract
from crdt_sessions.testing.store_contract.log import LogContract
from crdt_sessions.testing.store_contract.runs import RunContract
from crdt_sessions.testing.store_contract.streams import StreamContract
from crdt_sessions.testing.store_contract.suite import NOW, A, delivery_of, rows, run
from crdt_sessions.testing.store_contract.usage import UsageContract
from crdt_sessions.testing.store_contract.versions import VersionContract


class StoreContract(
    LogContract,
    VersionContract,
    IndexContract,
    ChangesContract,
    RunContract,
    DeliveryContract,
    AccessContract,
    UsageContract,
    AuditContract,
    StreamContract,
):
    """What a whole store promises."""

    async def test_tenants_have_sessions_runs_and_deliveries_of_their_own(self, tmp_path: Path) -> None:
        ours, theirs = SessionId("acme/a"), SessionId("umbrella/a")
        async with self.open(tmp_path) as store:
            for session in (A, ours, theirs):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
                entries = Entries(runs=[run("r", ready=True)], deliveries=[delivery_of(session)])
                await store.append(session, rows(2, b"x"), entries=entries, now=NOW)
            for tenant, session in (("", A), ("acme", ours), ("umbrella", theirs)):
                assert [each.id for each in await store.sessions(after=None, limit=9, tenant=tenant)] == [session]
                assert await store.ready_runs(["writer"], limit=9, tenant=tenant) == [(session, "r")]
                found = await store.deliveries(limit=9, tenant=tenant)
                assert [each.session for each in found] == [session]
                assert await store.count(tenant) == 1
            assert len(await store.sessions(after=None, limit=9)) == 3
            assert len(await store.ready_runs(["writer"], limit=9)) == 3
            later = {"attempts": 1, "next_at": NOW, "error": None, "dead": True}
            assert not await store.postpone("msg-acme/a", **later, tenant="umbrella")  # type: ignore[arg-type]
            assert await store.postpone("msg-acme/a", **later, tenant="acme")  # type: ignore[arg-type]
            await store.delete(ours, now=NOW)
            assert await store.count("acme") == 0
            assert await store.sessions(after=None, limit=9, tenant="acme") == []

    async def test_a_store_that_works_says_so(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await store.check()

    async def test_a_store_that_can_write_says_so(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await store.check()
            await store.check()
