"""The contract of a store: the past of sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crdt_sessions.errors import NotFound, SessionExists, SessionNotFound
from crdt_sessions.ids import Millis, Seq
from crdt_sessions.limits import NO_PAST
from crdt_sessions.storage import Entries, Row, SessionRecord, UpdateStore, Version, WriterEntry
from crdt_sessions.testing.store_contract.suite import KEEP, NOW, A, StoreSuite, rows, run


class VersionContract(StoreSuite):
    """What a store promises of the past."""

    async def _grown(self, store: UpdateStore, count: int = 6) -> None:
        await self.create(store)
        for seq in range(2, count + 1):
            await store.append(A, rows(seq, b"%d" % seq), now=Millis(NOW + seq))

    async def _fold(self, store: UpdateStore, seq: int, name: str | None = None) -> None:
        snapshot = Row(Seq(seq), b"folded %d" % seq)
        await store.replace_with_snapshot(A, snapshot, retention=KEEP, name=name, now=NOW)

    async def test_a_snapshot_becomes_a_version_and_later_ones_push_it_out(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._grown(store)
            for seq in (2, 4, 6):
                await self._fold(store, seq)
            history = await store.history(A)
            assert [(each.seq, each.at, each.size, each.name) for each in history.versions] == [
                (4, NOW + 4, 8, None),
                (6, NOW + 6, 8, None),
            ]
            assert (history.first, history.last, list(history.times)) == (6, 6, [NOW + 6])

    async def test_a_version_with_a_name_stays_until_the_name_goes(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._grown(store)
            await self._fold(store, 2, "first")
            for seq in (3, 4, 5):
                await self._fold(store, seq)
            assert [each.seq for each in (await store.history(A)).versions] == [2, 4, 5]
            await store.rename_version(A, Seq(2), None)
            await self._fold(store, 6)
            assert [each.seq for each in (await store.history(A)).versions] == [5, 6]
            with pytest.raises(NotFound):
                await store.rename_version(A, Seq(2), "again")

    async def test_a_past_that_is_erased_has_no_versions_not_even_with_a_name(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._grown(store)
            await self._fold(store, 2, "first")
            await self._fold(store, 4)
            await store.replace_with_snapshot(A, Row(Seq(6), b"folded 6"), retention=NO_PAST, now=NOW)
            assert [each.seq for each in (await store.history(A)).versions] == [6]
            assert list(await store.load_version(A, Seq(6))) == rows(6, b"folded 6")
            with pytest.raises(NotFound):
                await store.load_version(A, Seq(2))

    async def test_a_version_is_read_as_it_was(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._grown(store)
            await self._fold(store, 2)
            await self._fold(store, 4)
            assert list(await store.load_version(A, Seq(2))) == rows(2, b"folded 2")
            assert list(await store.load_version(A, Seq(5))) == rows(4, b"folded 4", b"5")
            for seq in (1, 3, 7):
                with pytest.raises(NotFound):
                    await store.load_version(A, Seq(seq))

    async def test_folding_twice_at_the_same_place_only_gives_it_the_name(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._grown(store)
            await self._fold(store, 4)
            await self._fold(store, 4, "named")
            await self._fold(store, 4)
            (version,) = (await store.history(A)).versions
            assert (version.seq, version.name) == (4, "named")
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(4, b"folded 4", b"5", b"6")

    async def test_a_snapshot_beside_its_rows_leaves_every_state_readable(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._grown(store)
            await self._fold(store, 2)
            for seq in (4, 5, 6):
                snapshot = Row(Seq(seq), b"beside %d" % seq)
                await store.replace_with_snapshot(A, snapshot, retention=KEEP, keep_rows=True, now=NOW)
            history = await store.history(A)
            assert (history.first, history.last) == (2, 6)
            read = [await store.load_version(A, Seq(seq)) for seq in range(2, 7)]
            assert [rows[-1].seq for rows in read] == [2, 3, 4, 5, 6]
            assert list(read[1]) == rows(2, b"folded 2", b"3")
            stored = await store.load(A)
            assert stored is not None
            assert stored.last_seq == 6
            await store.append(A, rows(7, b"7"), now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert stored.rows[-1] == Row(Seq(7), b"7")
            await self._fold(store, 7)
            history = await store.history(A)
            assert (history.first, [version.seq for version in history.versions]) == (7, [6, 7])

    async def test_there_is_no_past_of_what_does_not_exist(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for call in (store.history(A), store.load_version(A, Seq(1)), store.rename_version(A, Seq(1), "x")):
                with pytest.raises(SessionNotFound):
                    await call

    async def test_a_session_with_its_past_is_taken_over(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            record = SessionRecord(A, 1, NOW, Millis(NOW + 9), "closed", "T", "taken-over")
            snapshots = [
                (Version(Seq(4), Millis(NOW + 4), 3, "named"), Row(Seq(4), b"old")),
                (Version(Seq(9), Millis(NOW + 9), 3, None), Row(Seq(9), b"new")),
            ]
            entries = Entries(runs=[run("r")], writers=[WriterEntry(5, "ann", "r", 1, 7)])
            await store.adopt(record, snapshots, entries=entries)
            stored = await store.load(A)
            assert stored is not None
            assert (stored.record, list(stored.rows), stored.last_seq) == (record, rows(9, b"new"), 9)
            assert (list(stored.runs), list(stored.writers)) == (list(entries.runs), list(entries.writers))
            history = await store.history(A)
            assert [*history.versions] == [version for version, _ in snapshots]
            assert list(await store.load_version(A, Seq(4))) == rows(4, b"old")
            await store.append(A, rows(10, b"on"), now=NOW)
            for generation in (1, 2):
                with pytest.raises(SessionExists):
                    await store.adopt(replace(record, generation=generation), snapshots)

    async def test_times_that_go_back_change_no_order(self, tmp_path: Path) -> None:
        """The machine's clock is set back by a day between two updates: numbers decide, never times."""
        async with self.open(tmp_path) as store:
            await self.create(store)
            await store.append(A, rows(2, b"later"), now=Millis(NOW + 5000))
            await store.append(A, rows(3, b"then"), now=Millis(NOW - 86_400_000))
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(1, b"seed", b"later", b"then")
            assert list((await store.history(A)).times) == [NOW, NOW + 5000, NOW - 86_400_000]
