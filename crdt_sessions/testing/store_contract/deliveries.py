"""The contract of a store: the outbox."""

from __future__ import annotations

from pathlib import Path

from crdt_sessions.ids import Millis
from crdt_sessions.storage import Entries
from crdt_sessions.testing.store_contract.suite import NOW, A, StoreSuite, delivery, rows


class DeliveryContract(StoreSuite):
    """What a store promises of the outbox."""

    async def test_a_delivery_waits_is_postponed_dies_and_is_tried_again(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            letters = [delivery("a", at=1), delivery("b", at=2)]
            await store.append(A, rows(2, b"x"), entries=Entries(deliveries=letters), now=NOW)
            assert list(await store.take_deliveries(Millis(1), limit=9, lease_ms=0)) == letters[:1]
            assert list(await store.deliveries(limit=9)) == letters
            assert await store.postpone("a", attempts=1, next_at=Millis(7), error="no", dead=False)
            assert [each.id for each in await store.take_deliveries(Millis(6), limit=9, lease_ms=0)] == ["b"]
            assert await store.postpone("a", attempts=2, next_at=Millis(7), error="still no", dead=True)
            (dead,) = await store.deliveries(dead=True, limit=9)
            assert (dead.id, dead.attempts, dead.error, dead.dead) == ("a", 2, "still no", True)
            assert [each.id for each in await store.take_deliveries(Millis(99), limit=9, lease_ms=0)] == ["b"]
            await store.delivered("b")
            assert list(await store.deliveries(limit=9)) == []
            assert await store.postpone("a", attempts=0, next_at=Millis(8), error=None, dead=False)
            assert [each.id for each in await store.take_deliveries(Millis(8), limit=9, lease_ms=0)] == ["a"]
            assert not await store.postpone("gone", attempts=0, next_at=NOW, error=None, dead=False)
            await store.delete(A, now=NOW)
            assert list(await store.deliveries(limit=9)) == []

    async def test_what_is_for_an_endpoint_that_is_busy_is_left_where_it_is(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            letters = [delivery(f"{endpoint}{n}", endpoint, at=n) for n in range(3) for endpoint in ("dead", "good")]
            await store.append(A, rows(2, b"x"), entries=Entries(deliveries=letters), now=NOW)
            taken = await store.take_deliveries(Millis(9), limit=2, lease_ms=60_000, without=["dead", "unknown"])
            assert [each.id for each in taken] == ["good0", "good1"]
            assert not await store.take_deliveries(Millis(9), limit=9, lease_ms=0, without=["good", "dead"])
            taken = await store.take_deliveries(Millis(9), limit=9, lease_ms=60_000, without=["good"])
            assert [each.id for each in taken] == ["dead0", "dead1", "dead2"]
