"""The contract of a store: what outlives the process."""

from __future__ import annotations

from pathlib import Path

from crdt_sessions.ids import Seq
from crdt_sessions.storage import Row
from crdt_sessions.testing.store_contract.changes import all_changes
from crdt_sessions.testing.store_contract.suite import KEEP, NOW, A, B, rows
from crdt_sessions.testing.store_contract.whole import StoreContract


class DurableStoreContract(StoreContract):
    """What a store that outlives its process promises beside."""

    async def test_everything_survives_a_restart(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            await store.append(A, rows(2, b"x", b"y"), now=NOW)
            await store.replace_with_snapshot(A, Row(Seq(2), b"folded"), retention=KEEP, now=NOW)
            await self.create(store, B)
            await store.delete(B, now=NOW)
        async with self.open(tmp_path) as store:
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(2, b"folded", b"y")
            assert (await store.get(B), await store.last_generation(B)) == (None, 1)

    async def test_a_mark_outlives_the_process(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            await self.create(store, B)
            _, mark = await all_changes(store, None)
            await store.append(A, rows(2, b"x"), now=NOW)
        async with self.open(tmp_path) as store:
            names, mark = await all_changes(store, mark)
            assert names == ["a"]
            assert (await all_changes(store, mark))[0] == []
