"""The contract of a store: lists of sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crdt_sessions.errors import TooMany
from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.testing.store_contract.suite import NOW, A, B, StoreSuite, rows


class IndexContract(StoreSuite):
    """What a store promises of lists of sessions."""

    async def test_sessions_are_listed_by_page(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for name in ("b", "a", "c"):
                await self.create(store, SessionId(name))
            assert [record.id for record in await store.sessions(after=None, limit=2)] == ["a", "b"]
            assert [record.id for record in await store.sessions(after=B, limit=2)] == ["c"]

    async def test_sessions_are_found_by_status_and_by_who_is_a_member(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for at, name in enumerate("bac"):
                await store.create(SessionId(name), b"seed", generation=1, title=None, now=Millis(NOW + at))
            await store.describe(A, status="closed", now=Millis(NOW + 9))
            for name in "ab":
                await store.set_member(SessionId(name), "ann", "viewer")

            async def listed(**which: Any) -> list[list[str]]:
                await self.settle(store)
                by_id = await store.sessions(after=None, limit=9, tenant="", **which)
                recent = await store.recent_sessions("", limit=9, **which)
                return [[record.id for record in found] for found in (by_id, recent)]

            assert await listed() == [["a", "b", "c"], ["a", "c", "b"]]
            assert await listed(statuses=["active"]) == [["b", "c"], ["c", "b"]]
            assert await listed(statuses=["closed", "archived"]) == [["a"], ["a"]]
            assert await listed(member="ann") == [["a", "b"], ["a", "b"]]
            assert await listed(member="ann", statuses=["active"]) == [["b"], ["b"]]
            assert await listed(member="eve") == [[], []]
            assert await store.recent_sessions("acme", limit=9) == []
            await store.delete(A, now=NOW)
            assert await listed(member="ann") == [["b"], ["b"]]

    @pytest.mark.parametrize("member", [None, "ann"])
    async def test_recent_sessions_are_read_page_by_page_while_some_change(
        self, tmp_path: Path, member: str | None
    ) -> None:
        async with self.open(tmp_path) as store:
            names = [SessionId(f"s{at}") for at in range(9)]
            for at, name in enumerate(names):  # three at a time changed in the same millisecond
                await store.create(name, b"seed", generation=1, title=None, now=Millis(NOW + at // 3))
                await store.set_member(name, "ann", "owner")
            seen: list[SessionId] = []
            before: tuple[Millis, SessionId] | None = None
            while page := await store.recent_sessions("", member=member, before=before, limit=2):
                seen += [record.id for record in page]
                before = (page[-1].updated_at, page[-1].id)
                await store.append(page[0].id, rows(2, b"x"), now=Millis(NOW + 100))
                await self.settle(store)
            assert seen == names[::-1]
            found = await store.recent_sessions("", member=member, limit=9)
            assert {record.id for record in found} == set(names)

    async def test_a_tenant_may_have_so_many_sessions(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:

            async def create(name: str) -> None:
                await store.create(SessionId(name), b"seed", generation=1, title=None, now=NOW, most=1)

            await create("acme/a")
            with pytest.raises(TooMany):
                await create("acme/b")
            await create("umbrella/b")
            await store.delete(SessionId("acme/a"), now=NOW)
            await create("acme/b")
            assert await store.count("acme") == 1
