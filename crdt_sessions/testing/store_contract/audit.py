"""The contract of a store: the audit log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crdt_sessions.storage import AuditEntry
from crdt_sessions.testing.store_contract.suite import NOW, StoreSuite


class AuditContract(StoreSuite):
    """What a store promises of the audit log."""

    async def test_the_audit_log_is_read_by_what_it_tells_of(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            entries = [
                AuditEntry(NOW, tenant, session, principal, action, '{"n": 1}')
                for tenant, session, principal, action in (
                    ("", "a", "ann", "session.join"),
                    ("acme", "a", "eve", "session.join"),
                    ("", "b", "ann", "session.delete"),
                    ("", "a", "bob", "session.join"),
                )
            ]
            await store.record(entries[:3])
            await store.record(entries[3:])
            await self.settle(store)
            found = await store.audit("", limit=9)
            assert [(each.session, each.principal) for each in found] == [("a", "ann"), ("b", "ann"), ("a", "bob")]
            assert [each.id for each in found] == sorted({each.id for each in found})
            assert replace(found[0], id=0) == entries[0]
            assert await store.audit("", session="a", limit=9) == [found[0], found[2]]
            assert await store.audit("", principal="ann", action="session.delete", limit=9) == [found[1]]
            assert await store.audit("", after=found[0].id, limit=1) == [found[1]]
            assert len(await store.audit("acme", limit=9)) == 1
