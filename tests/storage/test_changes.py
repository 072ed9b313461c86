"""What changed since is told of what died, of old databases, and of commits that end in another order than they begin."""

import shutil
import sqlite3
from contextlib import closing

import asyncpg
import pytest

from crdt_sessions.limits import NO_PAST
from crdt_sessions.storage import SqliteStore
from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.storage.postgres.nodes import Lease
from crdt_sessions.storage.sqlite import changes
from crdt_sessions.storage.sqlite.migrations import STEPS
from crdt_sessions.testing.store_contract import NOW, A, B, rows
from crdt_sessions.testing.store_contract.changes import all_changes
from tests.postgres import every_version, shared_server


async def died(tmp_path):
    """Write to a database and copy it as a crash leaves it; return its place, and a mark from before the last row."""
    (tmp_path / "left").mkdir()
    async with SqliteStore(tmp_path / "s.db") as store:
        for session in (A, B):
            await store.create(session, b"seed", generation=1, title=None, now=NOW)
        await store.append(B, rows(2, b"w"), now=NOW)
        _, mark = await all_changes(store, None)
        await store.append(B, rows(3, b"x"), now=NOW + 5)
        for file in tmp_path.glob("s.db*"):
            shutil.copy(file, tmp_path / "left" / file.name)
    return tmp_path / "left" / "s.db", mark


@pytest.mark.parametrize("asked", [False, True])
async def test_what_is_folded_before_its_end_was_told_goes_on(tmp_path, asked):
    """A process dies within a second of a commit; the next one folds the session before anybody writes."""
    path, mark = await died(tmp_path)
    async with SqliteStore(path) as store:
        assert (await store.load(B)).last_seq == 3
        await store.replace_with_snapshot(B, rows(3, b"folded")[0], retention=NO_PAST, now=NOW + 6)
    async with SqliteStore(path) as store:
        if asked:
            assert (await all_changes(store, mark))[0] == ["b"]
            assert (await store.get(B)).updated_at == NOW + 5
        await store.append(B, rows(4, b"y"), now=NOW + 7)
        assert (await store.load(B)).last_seq == 4


async def test_what_a_process_committed_just_before_it_died_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(changes, "_PAGE", 1)
    path, mark = await died(tmp_path)
    async with SqliteStore(path) as store:
        names, mark = await all_changes(store, mark)
        assert names == ["b"]
        assert (await store.get(B)).updated_at == NOW + 5
        assert (await all_changes(store, mark))[0] == []
        await store.append(B, rows(4, b"y"), now=NOW)


async def test_sessions_from_before_are_in_the_order_in_which_they_changed(tmp_path):
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        for _, statements in STEPS[:9]:
            connection.executescript(statements)
        for id, at, tenant in (("a", 7, ""), ("b", 5, ""), ("acme/c", 6, "acme"), ("d", 7, "")):
            connection.execute(
                "INSERT INTO sessions VALUES (?, 1, 5, ?, 'active', NULL, 1, NULL, ?, 'x')", (id, at, tenant)
            )
        connection.execute("PRAGMA user_version = 9")
        connection.commit()
    async with SqliteStore(path) as store:
        names, mark = await all_changes(store, None)
        assert names == ["b", "a", "d"]
        assert (await all_changes(store, None, tenant="acme"))[0] == ["c"]
        await store.describe(A, title="new", now=NOW)
        assert (await all_changes(store, mark))[0] == ["a"]


@pytest.mark.parametrize("statement", ["SELECT max(change) FROM sessions WHERE tenant = ''", None])
async def test_a_page_costs_what_is_on_it(tmp_path, statement):
    async with SqliteStore(tmp_path / "s.db") as store:
        await all_changes(store, None)
    told = []
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        connection.set_trace_callback(told.append)
        changes._changes(connection, "", since=None, member=None, limit=9)
        connection.set_trace_callback(None)
        for each in [statement] if statement else [each for each in told if "FROM sessions" in each]:
            (plan,) = connection.execute(f"EXPLAIN QUERY PLAN {each}").fetchall()
            assert "SEARCH" in plan[3], plan
            assert "sessions_in_order" in plan[3], plan


@pytest.mark.processes
@every_version
class TestPostgres:
    async def test_what_is_committed_late_is_not_left_out(self, version):
        server = shared_server(version)
        async with PostgresStore(server.url(), schema="changes_late") as store:
            for session in (A, B):
                await store.create(session, b"seed", generation=1, title=None, now=NOW)
            _, mark = await all_changes(store, None)
            other = await asyncpg.connect(server.url(), server_settings={"search_path": "changes_late"})
            under_way = other.transaction()
            await under_way.start()
            await other.execute("UPDATE sessions SET title = 'of another node' WHERE id = 'a'")
            await store.describe(B, title="later, and first to be seen", now=NOW)
            names, mark = await all_changes(store, mark)
            assert names == ["b"]
            await under_way.commit()
            await other.close()
            names, mark = await all_changes(store, mark)
            assert "a" in names
            assert (await all_changes(store, mark))[0] == []

    async def test_what_a_node_committed_just_before_it_was_gone_is_told(self, version):
        url, schema, quiet = shared_server(version).url(), "changes_gone", Lease(beat_s=3600)
        async with (
            PostgresStore(url, schema=schema, lease=quiet) as old,
            PostgresStore(url, schema=schema, lease=quiet) as new,
        ):
            await old.create(A, b"seed", generation=1, title=None, now=NOW)
            _, mark = await all_changes(new, None)
            await old.append(A, rows(2, b"x"), now=NOW + 5)
            for lane in old._database._lanes:
                lane._heads.drop_behind()  # it dies before it tells
            await new._database.nodes._fence(old._database.nodes.me)
            names, mark = await all_changes(new, mark)
            assert names == ["a"]
            assert (await new.get(A)).updated_at == NOW + 5
            assert (await all_changes(new, mark))[0] == []

    async def test_a_mark_from_before_a_failover_begins_with_the_first(self, version):
        """The new primary may give transactions that were lost, and that a mark has seen, to others."""
        async with PostgresStore(shared_server(version).url(), schema="changes_timeline") as store:
            await store.create(A, b"seed", generation=1, title=None, now=NOW)
            _, mark = await all_changes(store, None)
            before = mark.replace("-00000001.", "-00000002.")
            assert before != mark
            page = await store.changed_sessions("", since=before, limit=9)
            assert page.reset
            assert [each.record.id for each in page.sessions] == [A]
