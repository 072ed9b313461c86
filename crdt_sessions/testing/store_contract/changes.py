"""The contract of a store: what has changed since."""

from __future__ import annotations

from pathlib import Path

from crdt_sessions.ids import Millis, SessionId, name_of
from crdt_sessions.storage import UpdateStore
from crdt_sessions.testing.store_contract.suite import NOW, A, StoreSuite, rows


async def all_changes(
    store: UpdateStore, since: str | None, *, tenant: str = "", member: str | None = None, limit: int = 9
) -> tuple[list[str], str]:
    """Return the names of what has changed since, page by page, those of deleted ones with a stroke, and the mark."""
    names: list[str] = []
    while True:
        page = await store.changed_sessions(tenant, since=since, member=member, limit=limit)
        assert len(page.sessions) <= limit
        names += [("-" if each.deleted else "") + name_of(each.record.id) for each in page.sessions]
        since = page.mark
        if not page.more:
            return names, since


class ChangesContract(StoreSuite):
    """What a store promises of what has changed since."""

    async def test_each_kind_of_change_is_told_once_after_the_mark(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for name in "abc":
                await self.create(store, SessionId(name))
            names, mark = await all_changes(store, None)
            assert names == ["a", "b", "c"]
            assert (await all_changes(store, mark))[0] == []
            await store.append(A, rows(2, b"x"), now=NOW)
            await store.describe(SessionId("c"), title="new", now=NOW)
            names, mark = await all_changes(store, mark)
            assert names == ["a", "c"]
            await store.append(A, rows(3, b"x"), now=NOW)
            await store.append(A, rows(4, b"x"), now=NOW)
            await store.set_member(SessionId("b"), "ann", "viewer")
            names, mark = await all_changes(store, mark)
            assert sorted(names) == ["a", "b"]
            await store.delete(A, now=NOW)
            (gone,) = (await store.changed_sessions("", since=mark, limit=9)).sessions
            assert (gone.deleted, gone.record.id, gone.record.generation) == (True, A, 1)
            await store.create(A, b"seed", generation=2, title=None, now=NOW)
            (again,) = (await store.changed_sessions("", since=mark, limit=9)).sessions
            assert (again.deleted, again.record.generation) == (False, 2)

    async def test_those_that_are_deleted_are_told_only_to_who_was_there_before(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            _, mark = await all_changes(store, None)
            await store.delete(A, now=NOW)
            assert (await all_changes(store, mark))[0] == ["-a"]
            assert (await all_changes(store, None))[0] == []

    async def test_pages_are_read_while_sessions_change(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            names = [f"s{at}" for at in range(7)]
            for name in names:
                await self.create(store, SessionId(name))
            seen, since, more, appended = [], None, True, 0
            while more:
                page = await store.changed_sessions("", since=since, limit=2)
                seen += [each.record.id for each in page.sessions]
                since, more = page.mark, page.more
                if appended < 3:
                    appended += 1
                    await store.append(SessionId("s0"), rows(1 + appended, b"x"), now=Millis(NOW + appended))
            assert set(seen) == set(names)
            assert seen[-1] == "s0"
            assert (await all_changes(store, since))[0] in ([], ["s0"])

    async def test_tenants_and_members_see_their_own_changes(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            for name in ("acme/a", "acme/b", "umbrella/a", "c"):
                await self.create(store, SessionId(name))
            await store.set_member(SessionId("acme/b"), "ann", "owner")
            assert (await all_changes(store, None, tenant="acme"))[0] == ["a", "b"]
            names, mark = await all_changes(store, None, tenant="acme", member="ann", limit=1)
            assert names == ["b"]
            await store.append(SessionId("umbrella/a"), rows(2, b"x"), now=NOW)
            await store.append(SessionId("acme/a"), rows(2, b"x"), now=NOW)
            assert (await all_changes(store, mark, tenant="acme", member="ann"))[0] == []
            await store.set_member(SessionId("acme/a"), "ann", "viewer")  # what happened before it counts as new
            assert (await all_changes(store, mark, tenant="acme", member="ann"))[0] == ["a"]

    async def test_a_mark_that_the_store_cannot_have_given_begins_anew(self, tmp_path: Path) -> None:
        async with self.open(tmp_path) as store:
            await self.create(store)
            _, mark = await all_changes(store, None)
            name, *numbers = mark.split(".")
            ahead = ".".join([name, *["999999999999"] * len(numbers)])
            for other in ("", "x", "other." + ".".join(numbers), name, f"{mark}.1", ahead, f"{name}.-1", f"{name}.²"):
                page = await store.changed_sessions("", since=other, limit=9)
                assert (page.reset, [each.record.id for each in page.sessions]) == (True, [A]), other
                assert not (await store.changed_sessions("", since=page.mark, limit=9)).reset
