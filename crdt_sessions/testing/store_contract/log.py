"""The contract of a store: rows and records of sessions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from crdt_sessions.errors import SessionExists, SessionNotFound, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage import Entries, Row, WriterEntry
from crdt_sessions.testing.store_contract.suite import KEEP, NOW, A, B, StoreSuite, rows, run


class LogContract(StoreSuite):
    """What a store promises of the rows and the record of a session."""

    async def test_a_new_session_holds_its_seed(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            record = await store.create(A, b"seed", generation=1, title="T", now=NOW)
            assert record == await store.get(A)
            stored = await store.load(A)
            assert stored is not None
            assert (list(stored.rows), stored.record, stored.last_seq) == (rows(1, b"seed"), record, 1)

    async def test_what_does_not_exist_is_none(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            assert (await store.get(A), await store.load(A), await store.last_generation(A)) == (None, None, 0)
            assert await store.sessions(after=None, limit=10) == []

    async def test_creating_twice_is_refused_and_changes_nothing(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            for generation in (1, 2):
                with pytest.raises(SessionExists):
                    await store.create(A, b"other", generation=generation, title=None, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(1, b"seed")

    async def test_of_racing_creators_one_wins(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            results = await asyncio.gather(
                *(store.create(A, b"%d" % n, generation=1, title=None, now=NOW) for n in range(5)),
                return_exceptions=True,
            )
            assert sum(isinstance(result, SessionExists) for result in results) == 4

    async def test_rows_come_back_in_order(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            await self.create(store, B)
            await store.append(A, rows(2, b"two", b"three"), now=Millis(NOW + 5))
            await store.append(A, rows(4, b"", bytes(range(256))), now=Millis(NOW + 6))
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(1, b"seed", b"two", b"three", b"", bytes(range(256)))
            assert stored.record.updated_at == NOW + 6
            other = await store.load(B)
            assert other is not None
            assert list(other.rows) == rows(1, b"seed")

    @pytest.mark.parametrize("first", [1, 3])
    async def test_rows_must_follow_the_last_one(self, tmp_path: Path, first: int) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            with pytest.raises(StorageError):
                await store.append(A, rows(first, b"x"), now=NOW)
            with pytest.raises(StorageError):
                await store.append(A, [Row(Seq(2), b"x"), Row(Seq(4), b"y")], now=NOW)
            await store.append(A, rows(2, b"x"), now=NOW)
            for wrong in (first + 1, 2):  # nor once it is in the middle of being written to
                with pytest.raises(StorageError):
                    await store.append(A, rows(wrong, b"x"), now=NOW)
            await store.append(A, rows(3, b"x"), now=NOW)

    async def test_many_writers_at_once_lose_nothing(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            names = [SessionId(f"s{n}") for n in range(20)]
            await asyncio.gather(*(self.create(store, name) for name in names))

            async def write(name: SessionId) -> None:
                for seq in range(2, 12):
                    await store.append(name, rows(seq, b"%d" % seq), now=NOW)

            await asyncio.gather(*map(write, names))
            for name in names:
                stored = await store.load(name)
                assert stored is not None
                assert [row.update for row in stored.rows[1:]] == [b"%d" % seq for seq in range(2, 12)]

    async def test_one_writers_error_does_not_touch_the_others(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            results = await asyncio.gather(
                store.append(A, rows(2, b"good"), now=NOW),
                store.append(B, rows(2, b"no such session"), now=NOW),
                store.append(A, rows(3, b"good too"), now=NOW),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [type(None), SessionNotFound, type(None)]
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(1, b"seed", b"good", b"good too")

    async def test_nothing_is_stored_behind_an_append_that_failed(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            failed = store.append(A, [Row(Seq(2), b"x"), Row(Seq(4), b"y")], now=NOW)
            after = store.append(A, rows(5, b"z"), now=NOW)
            results = await asyncio.gather(failed, after, return_exceptions=True)
            assert [type(result) for result in results] == [StorageError, StorageError]
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(1, b"seed")

    async def test_a_snapshot_replaces_the_rows_before_it(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            await store.append(A, rows(2, b"x", b"y", b"z"), now=NOW)
            await store.replace_with_snapshot(A, Row(Seq(3), b"folded"), retention=KEEP, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(3, b"folded", b"z")
            await store.append(A, rows(5, b"w"), now=NOW)
            await store.replace_with_snapshot(A, Row(Seq(5), b"again"), retention=KEEP, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(5, b"again")
            await store.append(A, rows(6, b"v"), now=NOW)

    async def test_a_record_can_be_described(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            await store.describe(A, title="New", now=NOW)
            await store.describe(A, status="closed", now=Millis(NOW + 1))
            record = await store.get(A)
            assert record is not None
            assert (record.title, record.status, record.updated_at) == ("New", "closed", NOW + 1)

    async def test_what_is_deleted_stays_deleted_until_the_next_generation(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            await store.append(A, rows(2, b"x"), now=NOW)
            await store.delete(A, now=NOW)
            assert (await store.get(A), await store.load(A), await store.last_generation(A)) == (None, None, 1)
            assert await store.sessions(after=None, limit=10) == []
            with pytest.raises(SessionExists):
                await self.create(store)
            record = await store.create(A, b"fresh", generation=2, title=None, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert (record.generation, list(stored.rows)) == (2, rows(1, b"fresh"))

    async def test_each_creation_keeps_its_lineage(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for generation, lineage in ((1, "one"), (2, "two"), (3, None)):
                record = await store.create(A, b"seed", generation=generation, title=None, now=NOW, lineage=lineage)
                assert record.lineage == (lineage or f"3-{NOW}")
                stored = await store.load(A)
                assert stored is not None
                assert (await store.get(A), stored.record, [*await store.sessions(after=None, limit=1)]) == (
                    record,
                    record,
                    [record],
                )
                await store.delete(A, now=NOW)

    async def test_records_are_stored_with_rows_or_not_at_all(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            first = Entries(runs=[run("r", ready=True)], writers=[WriterEntry(2**40, "p", "r", 1, None)])
            await store.append(A, rows(2, b"x"), entries=first, now=NOW)
            with pytest.raises(StorageError):
                await store.append(A, rows(2, b"x"), entries=Entries(runs=[run("s")]), now=NOW)
            again = Entries(runs=[run("r", data="2")], writers=[WriterEntry(2**40, "p", "r", 1, 7)])
            await store.append(A, rows(3, b"y"), entries=again, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.runs) == [run("r", data="2")]
            assert list(stored.writers) == [WriterEntry(2**40, "p", "r", 1, 7)]
            await store.delete(A, now=NOW)
            await store.create(A, b"seed", generation=2, title=None, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert (list(stored.runs), list(stored.writers)) == ([], [])

    async def test_writes_to_an_unknown_session_are_refused(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for write in (
                store.append(A, rows(1, b"x"), now=NOW),
                store.replace_with_snapshot(A, Row(Seq(1), b"x"), retention=KEEP, now=NOW),
                store.describe(A, title="x", now=NOW),
                store.delete(A, now=NOW),
            ):
                with pytest.raises(SessionNotFound):
                    await write

    async def test_what_waits_is_marked(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            await store.append(A, [Row(Seq(2), b"later", waits=True), Row(Seq(3), b"x")], now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert [row.waits for row in stored.rows] == [False, True, False]
            snapshot = Row(Seq(3), b"folded", waits=True)
            await store.replace_with_snapshot(A, snapshot, retention=KEEP, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == [snapshot]
