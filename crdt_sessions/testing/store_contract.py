"""The contract every :class:`UpdateStore` must meet, as a test class to inherit from.

::

    class TestMyStore(DurableStoreContract):
        @asynccontextmanager
        async def open(self, path):
            async with MyStore(path / "x") as store:
                yield store

Needs pytest with anyio's plugin in ``auto`` mode, or any other runner of coroutine tests.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crdt_sessions.errors import NotFound, SessionExists, SessionNotFound, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId, session_id
from crdt_sessions.limits import Retention
from crdt_sessions.storage import (
    AuditEntry,
    Delivery,
    Entries,
    Revocation,
    Row,
    RunEntry,
    SessionRecord,
    UpdateStore,
    Version,
    WriterEntry,
)

A, B = SessionId("a"), SessionId("b")
NOW = Millis(1_700_000_000_000)
KEEP = Retention(last=2, dailies=0)


def rows(first: int, *updates: bytes) -> list[Row]:
    """Return rows numbered from *first*."""
    return [Row(Seq(first + index), update) for index, update in enumerate(updates)]


def run(
    id: str,
    *,
    agent: str = "writer",
    ready: bool = False,
    queued_at: int = 3,
    due_at: int | None = None,
    data: str = "{}",
    status: str = "queued",
    answerer: str = "writer",
) -> RunEntry:
    """Return a run as the store knows it."""
    due = None if due_at is None else Millis(due_at)
    return RunEntry(id, agent, ready, Millis(queued_at), due, data, status, answerer)


def _delivery_of(session: SessionId) -> Delivery:
    return Delivery(f"msg-{session}", "hook", session, "run.queued", "{}", NOW)


def delivery(id: str, *, at: int) -> Delivery:
    """Return a message to an endpoint, due at *at*."""
    return Delivery(id, "endpoint", A, "run.completed", "{}", Millis(at), next_at=Millis(at))


class StoreContract:
    """What a store promises."""

    def open(self, path: Path) -> AbstractAsyncContextManager[UpdateStore]:
        """Open the store in the folder *path*; opening the same folder again finds the same sessions."""
        raise NotImplementedError

    async def _create(self, store: UpdateStore, session: SessionId = A) -> None:
        await store.create(session, b"seed", generation=1, title="T", now=NOW)

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
            await self._create(store)
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
            await self._create(store)
            await self._create(store, B)
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
            await self._create(store)
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
            await asyncio.gather(*(self._create(store, name) for name in names))

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
            await self._create(store)
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
            await self._create(store)
            failed = store.append(A, [Row(Seq(2), b"x"), Row(Seq(4), b"y")], now=NOW)
            after = store.append(A, rows(5, b"z"), now=NOW)
            results = await asyncio.gather(failed, after, return_exceptions=True)
            assert [type(result) for result in results] == [StorageError, StorageError]
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(1, b"seed")

    async def test_a_snapshot_replaces_the_rows_before_it(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._create(store)
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

    async def test_sessions_are_listed_by_page(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for name in ("b", "a", "c"):
                await self._create(store, SessionId(name))
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
            assert seen == names[::-1]
            found = await store.recent_sessions("", member=member, limit=9)
            assert {record.id for record in found} == set(names)

    async def test_runs_are_found_across_sessions(self, tmp_path: Path) -> None:
        ours = session_id("a", "acme")
        async with self.open(tmp_path) as store:
            for session in (A, B, ours):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
            for session, name, status, answerer, queued_at in (
                (A, "r1", "running", "writer", 1),
                (B, "r2", "completed", "writer", 2),
                (A, "r3", "queued", "critic", 3),
                (B, "r4", "running", "critic", 4),
                (ours, "r5", "running", "writer", 5),
            ):
                entry = run(name, queued_at=queued_at, status=status, answerer=answerer)
                seq = len((await store.load(session)).rows) + 1  # type: ignore[union-attr]
                await store.append(session, rows(seq, b"x"), entries=Entries(runs=[entry]), now=NOW)

            async def found(tenant: str = "", **which: Any) -> list[str]:
                return [each.run.id for each in await store.runs(tenant, **{"limit": 9, **which})]

            assert await found() == ["r4", "r3", "r2", "r1"]
            assert await found(statuses=["running"]) == ["r4", "r1"]
            assert await found(statuses=["running", "queued"]) == ["r4", "r3", "r1"]
            assert await found(answerer="writer") == ["r2", "r1"]
            assert await found(answerer="critic", statuses=["running"]) == ["r4"]
            assert await found("acme") == ["r5"]
            first, second = await store.runs("", limit=2)
            assert (first.session, first.asked_at, first.run.status) == (B, 4, "running")
            assert await found(before=(second.asked_at, second.session, second.run.id), limit=1) == ["r2"]
            again = run("r1", queued_at=99, status="queued", answerer="writer")
            seq = len((await store.load(A)).rows) + 1  # type: ignore[union-attr]
            await store.append(A, rows(seq, b"x"), entries=Entries(runs=[again]), now=NOW)
            assert await found() == ["r4", "r3", "r2", "r1"], "one that is queued again keeps its place"
            assert await found(statuses=["queued"]) == ["r3", "r1"]
            await store.delete(A, now=NOW)
            assert await found() == ["r4", "r2"]

    async def test_agents_are_remembered(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            assert await store.agents("") == {}
            await store.note_agents("", ["writer", "critic"], Millis(1))
            await store.note_agents("", ["writer"], Millis(5))
            await store.note_agents("acme", ["writer"], Millis(3))
            assert await store.agents("") == {"critic": 1, "writer": 5}
            assert await store.agents("acme") == {"writer": 3}
            await store.note_agents("acme", [f"agent-{number:04}" for number in range(1000)], Millis(9))
            agents = await store.agents("acme")
            assert (len(agents), "writer" in agents) == (1000, False), "of too many, those seen last"

    async def test_a_record_can_be_described(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._create(store)
            await store.describe(A, title="New", now=NOW)
            await store.describe(A, status="closed", now=Millis(NOW + 1))
            record = await store.get(A)
            assert record is not None
            assert (record.title, record.status, record.updated_at) == ("New", "closed", NOW + 1)

    async def test_what_is_deleted_stays_deleted_until_the_next_generation(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._create(store)
            await store.append(A, rows(2, b"x"), now=NOW)
            await store.delete(A, now=NOW)
            assert (await store.get(A), await store.load(A), await store.last_generation(A)) == (None, None, 1)
            assert await store.sessions(after=None, limit=10) == []
            with pytest.raises(SessionExists):
                await self._create(store)
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
            await self._create(store)
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

    async def test_ready_runs_are_found_oldest_first(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for session in (A, B):
                await self._create(store, session)
            runs = [run("late", queued_at=9, ready=True), run("early", queued_at=1, ready=True), run("waits")]
            await store.append(A, rows(2, b"x"), entries=Entries(runs=runs), now=NOW)
            other = [run("any", agent="*", queued_at=5, ready=True), run("theirs", agent="critic", ready=True)]
            await store.append(B, rows(2, b"x"), entries=Entries(runs=other), now=NOW)
            found = await store.ready_runs(["writer", "*"], limit=9)
            assert list(found) == [(A, "early"), (B, "any"), (A, "late")]
            assert list(await store.ready_runs(["writer"], limit=1)) == [(A, "early")]
            await store.describe(A, status="closed", now=NOW)
            assert list(await store.ready_runs(["writer", "*"], limit=9)) == [(B, "any")]

    async def test_due_sessions_are_found(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for session in (A, B):
                await self._create(store, session)
            await store.append(A, rows(2, b"x"), entries=Entries(runs=[run("r", due_at=5), run("s")]), now=NOW)
            await store.append(B, rows(2, b"x"), entries=Entries(runs=[run("r", due_at=9)]), now=NOW)
            assert list(await store.due_sessions(Millis(4))) == []
            assert list(await store.due_sessions(Millis(5))) == [A]
            assert sorted(await store.due_sessions(Millis(9))) == [A, B]

    async def test_a_step_is_recorded_once(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._create(store)
            assert await store.step(A, "r", "pay") is None
            racing = await asyncio.gather(*(store.record_step(A, "r", "pay", f"{n}") for n in range(5)))
            assert len(set(racing)) == 1
            assert await store.step(A, "r", "pay") == racing[0]
            assert await store.record_step(A, "s", "pay", "other run") == "other run"
            with pytest.raises(SessionNotFound):
                await store.record_step(B, "r", "pay", "x")

    async def test_a_delivery_waits_is_postponed_dies_and_is_tried_again(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._create(store)
            letters = [delivery("a", at=1), delivery("b", at=2)]
            await store.append(A, rows(2, b"x"), entries=Entries(deliveries=letters), now=NOW)
            assert list(await store.deliveries(due=Millis(1), limit=9)) == letters[:1]
            assert list(await store.deliveries(due=None, limit=9)) == letters
            assert await store.postpone("a", attempts=1, next_at=Millis(7), error="no", dead=False)
            assert [each.id for each in await store.deliveries(due=Millis(6), limit=9)] == ["b"]
            assert await store.postpone("a", attempts=2, next_at=Millis(7), error="still no", dead=True)
            (dead,) = await store.deliveries(due=None, dead=True, limit=9)
            assert (dead.id, dead.attempts, dead.error, dead.dead) == ("a", 2, "still no", True)
            assert [each.id for each in await store.deliveries(due=Millis(99), limit=9)] == ["b"]
            await store.delivered("b")
            assert list(await store.deliveries(due=None, limit=9)) == []
            assert await store.postpone("a", attempts=0, next_at=Millis(8), error=None, dead=False)
            assert [each.id for each in await store.deliveries(due=Millis(8), limit=9)] == ["a"]
            assert not await store.postpone("gone", attempts=0, next_at=NOW, error=None, dead=False)
            await store.delete(A, now=NOW)
            assert list(await store.deliveries(due=None, limit=9)) == []

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

    async def test_a_store_that_works_says_so(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await store.check()


class VersionContract(StoreContract):
    """What a store promises of the past."""

    async def _grown(self, store: UpdateStore, count: int = 6) -> None:
        await self._create(store)
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

    async def test_what_waits_is_marked(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._create(store)
            await store.append(A, [Row(Seq(2), b"later", waits=True), Row(Seq(3), b"x")], now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert [row.waits for row in stored.rows] == [False, True, False]
            snapshot = Row(Seq(3), b"folded", waits=True)
            await store.replace_with_snapshot(A, snapshot, retention=KEEP, now=NOW)
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == [snapshot]

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
            await self._create(store)
            await store.append(A, rows(2, b"later"), now=Millis(NOW + 5000))
            await store.append(A, rows(3, b"then"), now=Millis(NOW - 86_400_000))
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(1, b"seed", b"later", b"then")
            assert list((await store.history(A)).times) == [NOW, NOW + 5000, NOW - 86_400_000]

    async def test_tenants_have_sessions_runs_and_deliveries_of_their_own(self, tmp_path: Path) -> None:
        ours, theirs = SessionId("acme/a"), SessionId("umbrella/a")
        async with self.open(tmp_path) as store:
            for session in (A, ours, theirs):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
                entries = Entries(runs=[run("r", ready=True)], deliveries=[_delivery_of(session)])
                await store.append(session, rows(2, b"x"), entries=entries, now=NOW)
            for tenant, session in (("", A), ("acme", ours), ("umbrella", theirs)):
                assert [each.id for each in await store.sessions(after=None, limit=9, tenant=tenant)] == [session]
                assert await store.ready_runs(["writer"], limit=9, tenant=tenant) == [(session, "r")]
                found = await store.deliveries(due=None, limit=9, tenant=tenant)
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

    async def test_members_are_those_of_a_session_and_go_with_it(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            with pytest.raises(SessionNotFound):
                await store.set_member(A, "ann", "owner")
            for session in (A, B):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
            await store.set_member(A, "ann", "viewer")
            await store.set_member(A, "ann", "owner")
            await store.set_member(A, "bob", "viewer")
            await store.set_member(A, "bob", None)
            assert await store.members(A) == {"ann": "owner"}
            assert await store.members(B) == {}
            await store.delete(A, now=NOW)
            assert await store.members(A) == {}

    async def test_revocations_are_kept_and_a_later_one_counts(self, tmp_path: Path) -> None:
        first = Revocation("", "token", "t", NOW)
        later = Revocation("acme", "principal", "ann", Millis(NOW + 5))
        async with self.open(tmp_path) as store:
            await store.revoke(first)
            await store.revoke(replace(later, at=NOW))
            await store.revoke(later)
            assert sorted(await store.revocations(), key=lambda each: each.tenant) == [first, later]

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
            found = await store.audit("", limit=9)
            assert [(each.session, each.principal) for each in found] == [("a", "ann"), ("b", "ann"), ("a", "bob")]
            assert [each.id for each in found] == sorted({each.id for each in found})
            assert replace(found[0], id=0) == entries[0]
            assert await store.audit("", session="a", limit=9) == [found[0], found[2]]
            assert await store.audit("", principal="ann", action="session.delete", limit=9) == [found[1]]
            assert await store.audit("", after=found[0].id, limit=1) == [found[1]]
            assert len(await store.audit("acme", limit=9)) == 1

    async def test_a_store_that_can_write_says_so(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await store.check()
            await store.check()


class DurableStoreContract(VersionContract):
    """What a store that outlives its process promises beside."""

    async def test_everything_survives_a_restart(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self._create(store)
            await store.append(A, rows(2, b"x", b"y"), now=NOW)
            await store.replace_with_snapshot(A, Row(Seq(2), b"folded"), retention=KEEP, now=NOW)
            await self._create(store, B)
            await store.delete(B, now=NOW)
        async with self.open(tmp_path) as store:
            stored = await store.load(A)
            assert stored is not None
            assert list(stored.rows) == rows(2, b"folded", b"y")
            assert (await store.get(B), await store.last_generation(B)) == (None, 1)
