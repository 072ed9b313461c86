"""The contract of a store: what runs have used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crdt_sessions.ids import SessionId, session_id
from crdt_sessions.storage import Amounts, Entries, UpdateStore, UsageKey
from crdt_sessions.testing.store_contract.suite import NOW, A, B, StoreSuite, rows


class UsageContract(StoreSuite):
    """What a store promises of usage."""

    async def test_what_was_used_is_added_up(self, tmp_path: Path) -> None:
        ours = session_id("a", "acme")
        async with self.open(tmp_path) as store:
            for session in (A, B, ours):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
            first, second = UsageKey("ann", 5, "m", "USD"), UsageKey("ann", 7, "m", "USD")
            await self._use(store, A, 2, {first: Amounts(10, 4, 2, 1, 1, 700)})
            await self._use(store, A, 3, {first: Amounts(5, 0, 1, 0, 1, -200), second: Amounts(calls=1)})
            await self._use(store, B, 2, {UsageKey("bob", 6, "", ""): Amounts(input_tokens=100)})
            await self._use(store, ours, 2, {first: Amounts(calls=9)})

            async def used(tenant: str = "", **which: Any) -> dict[tuple[str, str], Amounts]:
                await self.settle(store)
                return dict(await store.usage(tenant, **which))

            dollars, none = ("m", "USD"), ("", "")
            assert await used() == {dollars: Amounts(15, 4, 3, 1, 3, 500), none: Amounts(100)}
            assert await used("acme") == {dollars: Amounts(calls=9)}
            assert await used(session=A) == {dollars: Amounts(15, 4, 3, 1, 3, 500)}
            assert await used(principal="bob") == {none: Amounts(100)}
            assert await used(principal="ann", since=6) == {dollars: Amounts(calls=1)}
            assert await used(since=6, until=6) == {none: Amounts(100)}
            assert await used(session=B, principal="ann") == {}
            assert await used("nobody") == {}

    async def test_what_was_used_stays_used_when_the_session_goes(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for session in (A, B):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
                await self._use(store, session, 2, {UsageKey("ann", 5, "m", ""): Amounts(input_tokens=10)})
            for session in (A, B):
                await store.delete(session, now=NOW)
            await self.settle(store)
            assert await store.usage("", session=A) == {}
            assert await store.usage("", principal="ann", since=5) == {("m", ""): Amounts(input_tokens=20)}

    async def test_what_was_used_can_be_made_nobodys(self, tmp_path: Path) -> None:
        ours = session_id("a", "acme")
        async with self.open(tmp_path) as store:
            for session in (A, B, ours):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
            both = {UsageKey("ann", 5, "m", ""): Amounts(10, cost=2), UsageKey("", 5, "m", ""): Amounts(1)}
            await self._use(store, A, 2, both)
            await self._use(store, B, 2, {UsageKey("ann", 6, "m", ""): Amounts(5)})
            await self._use(store, ours, 2, {UsageKey("ann", 5, "m", ""): Amounts(7)})
            await self.settle(store)
            for _ in range(2):
                await store.disown_usage("", "ann")
            await self.settle(store)
            assert await store.usage("", principal="ann") == {}
            assert await store.usage("") == {("m", ""): Amounts(16, cost=2)}
            assert await store.usage("", session=A) == {("m", ""): Amounts(11, cost=2)}
            assert await store.usage("acme", principal="ann") == {("m", ""): Amounts(7)}

    async def _use(self, store: UpdateStore, session: SessionId, seq: int, usage: dict[UsageKey, Amounts]) -> None:
        await store.append(session, rows(seq, b"x"), entries=Entries(usage=usage), now=NOW)
