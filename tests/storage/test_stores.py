"""Every store meets the contract; SQLite's own promises beside it."""

import asyncio
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest

from crdt_sessions.errors import DamagedLog, NewerSchema, SessionNotFound, StorageError
from crdt_sessions.ids import Millis, Seq
from crdt_sessions.limits import NO_PAST, Retention
from crdt_sessions.storage import AuditEntry, Entries, MemoryStore, Row, SessionRecord, SqliteStore
from crdt_sessions.storage.integrity import checksum
from crdt_sessions.storage.sqlite import lists
from crdt_sessions.storage.sqlite.inspection import Inspection
from crdt_sessions.storage.sqlite.migrations import STEPS
from crdt_sessions.testing.store_contract import NOW, A, DurableStoreContract, StoreContract, rows, run


class TestMemoryStore(StoreContract):
    @asynccontextmanager
    async def open(self, path):
        yield MemoryStore()


class TestSqliteStore(DurableStoreContract):
    @asynccontextmanager
    async def open(self, path):
        async with SqliteStore(path / "sessions.db") as store:
            yield store


async def _filled(path):
    async with SqliteStore(path) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await store.append(A, rows(2, b"two", b"three"), now=NOW)


def _tamper(path, statement):
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE updates SET data = x'00' WHERE seq = 2", 2),
        ("UPDATE updates SET seq = 9 WHERE seq = 3", 9),
        ("DELETE FROM updates WHERE seq = 2", 2),
        ("DELETE FROM updates WHERE seq = 3", 3),
        ("DELETE FROM updates", 3),
    ],
)
async def test_a_damaged_log_is_refused_not_served(tmp_path, statement, seq):
    path = tmp_path / "s.db"
    await _filled(path)
    _tamper(path, statement)
    async with SqliteStore(path) as store:
        with pytest.raises(DamagedLog) as caught:
            await store.load(A)
        assert caught.value.seq == seq


SPOKEN = b"an answer of many words, many of them said before; " * 400


async def test_snapshots_are_stored_compressed_and_read_as_they_were(tmp_path):
    path = tmp_path / "s.db"
    await _filled(path)
    async with SqliteStore(path) as store:
        await store.replace_with_snapshot(A, Row(Seq(3), SPOKEN), retention=Retention(), now=NOW)
        (row,) = (await store.load(A)).rows
        assert row.update == SPOKEN
        (version,) = (await store.history(A)).versions
        assert version.size == len(SPOKEN)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT length(data) FROM snapshots").fetchone()[0] < len(SPOKEN) / 10
    with Inspection(path) as inspection:
        (found,) = inspection.sessions()
        assert [row.update for _, row in found.versions] == [SPOKEN]


async def test_snapshots_from_before_they_were_compressed_are_read(tmp_path):
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("".join(statements for _, statements in STEPS[:3]) + "PRAGMA user_version = 3;")
        connection.execute("INSERT INTO sessions VALUES (?, 1, 5, 5, 'active', NULL, 1, NULL)", (A,))
        connection.execute(
            "INSERT INTO snapshots (session, seq, data, checksum, at) VALUES (?, 1, ?, ?, 5)",
            (A, SPOKEN, checksum(A, Row(Seq(1), SPOKEN))),
        )
        connection.commit()
    with Inspection(path) as inspection:
        (found,) = inspection.sessions()
        assert ([row.update for row in found.rows], found.problems) == ([SPOKEN], ())
    async with SqliteStore(path) as store:
        (row,) = (await store.load(A)).rows
        assert row.update == SPOKEN
        (version,) = (await store.history(A)).versions
        assert version.size == len(SPOKEN)


async def test_sessions_from_before_lineages_are_named_by_their_number_and_time(tmp_path):
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("".join(statements for _, statements in STEPS[:5]) + "PRAGMA user_version = 5;")
        connection.execute("INSERT INTO sessions VALUES (?, 3, 1700, 1800, 'active', NULL, 1, NULL, '')", (A,))
        connection.execute(
            "INSERT INTO updates (session, seq, data, checksum) VALUES (?, 1, x'0000', ?)",
            (A, checksum(A, Row(Seq(1), b"\x00\x00"))),
        )
        connection.commit()
    with Inspection(path) as inspection:
        (found,) = inspection.sessions()
        assert found.record.lineage == "3-1700"
    async with SqliteStore(path) as store:
        record = await store.get(A)
        assert record.lineage == "3-1700"
        assert record == found.record


@pytest.mark.parametrize(
    "damage", ["data = x'789c00'", "data = substr(data, 1, length(data) - 9)", "size = size - 1", "size = 0"]
)
async def test_a_compressed_snapshot_that_was_changed_is_refused(tmp_path, damage):
    path = tmp_path / "s.db"
    await _filled(path)
    async with SqliteStore(path) as store:
        await store.replace_with_snapshot(A, Row(Seq(3), SPOKEN), retention=Retention(), now=NOW)
    _tamper(path, f"UPDATE snapshots SET {damage}")
    async with SqliteStore(path) as store:
        with pytest.raises(DamagedLog):
            await store.load(A)
    with Inspection(path) as inspection:
        (found,) = inspection.sessions()
        assert found.problems[0] == "row 3 of snapshots does not match its checksum"


async def test_a_newer_schema_is_left_alone(tmp_path):
    path = tmp_path / "s.db"
    await _filled(path)
    _tamper(path, f"PRAGMA user_version = {len(STEPS) + 1}")
    before = path.read_bytes()
    with pytest.raises(NewerSchema, match="upgrade"):
        await SqliteStore(path).__aenter__()
    assert path.read_bytes() == before


async def test_a_failed_migration_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "crdt_sessions.storage.sqlite.migrations.STEPS", (*STEPS, ("broken", "CREATE TABLE x (y);\nNONSENSE;\n"))
    )
    path = tmp_path / "s.db"
    with pytest.raises(StorageError):
        await SqliteStore(path).__aenter__()
    monkeypatch.undo()
    async with SqliteStore(path) as store:  # the good step stands, the broken one left no trace
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
    with sqlite3.connect(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert connection.execute("PRAGMA user_version").fetchone() == (len(STEPS),)
    connection.close()
    assert "x" not in tables
    assert "sessions" in tables


async def test_a_locked_database_is_an_error_and_recovers_without_restart(tmp_path, monkeypatch):
    monkeypatch.setattr("crdt_sessions.storage.sqlite.connection._BUSY_MS", 20)
    path = tmp_path / "s.db"
    await _filled(path)
    async with SqliteStore(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked"):
            await store.append(A, rows(4, b"four"), now=NOW)
        with pytest.raises(StorageError):
            await store.check()
        other.execute("ROLLBACK")
        other.close()
        await store.check()
        await store.append(A, rows(4, b"four"), now=NOW)
        stored = await store.load(A)
    assert [row.update for row in stored.rows] == [b"seed", b"two", b"three", b"four"]


async def test_waiting_writes_share_a_transaction(tmp_path):

    path = tmp_path / "s.db"
    await _filled(path)
    async with SqliteStore(path) as store:
        begun = []
        await store._database._write.set_trace_callback(
            lambda sql: begun.append(sql) if sql.startswith("BEGIN") else None
        )
        await asyncio.gather(*(store.append(A, [Row(Seq(seq), b"x")], now=NOW) for seq in range(4, 104)))
    assert len(begun) <= 3


async def test_the_journal_is_wal_and_commits_reach_the_disk(tmp_path):
    async with SqliteStore(tmp_path / "s.db") as store:
        async with store._database._write.execute("PRAGMA journal_mode") as cursor:
            assert await cursor.fetchone() == ("wal",)
        async with store._database._write.execute("PRAGMA synchronous") as cursor:
            assert await cursor.fetchone() == (2,)


async def test_a_closed_store_says_so(tmp_path):
    store = SqliteStore(tmp_path / "s.db")
    await store.__aenter__()
    await store.close()
    with pytest.raises(StorageError, match="closed"):
        await store.create(A, b"", generation=1, title=None, now=NOW)


async def test_a_path_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(StorageError):
        await SqliteStore(tmp_path / "missing" / "s.db").__aenter__()


async def test_a_defect_in_a_job_fails_that_job_and_the_writer_goes_on(tmp_path, monkeypatch):
    async with SqliteStore(tmp_path / "s.db") as store:

        def bug(connection):
            connection.execute("DELETE FROM probe")
            raise RuntimeError("not SQLite's")

        failed, beside = await asyncio.gather(
            store._database.submit(bug),
            store.create(A, b"seed", generation=1, title=None, now=NOW),
            return_exceptions=True,
        )
        assert type(failed) is StorageError
        assert isinstance(beside, SessionRecord)
        with monkeypatch.context() as broken:
            broken.setattr(store._database._checkpoints, "look", None)
            await store.append(A, rows(2, b"two"), now=NOW)
            await store.append(A, rows(3, b"three"), now=NOW)
        await store.check()
        assert [row.update for row in (await store.load(A)).rows] == [b"seed", b"two", b"three"]


async def test_nobody_waits_for_a_writer_that_failed(tmp_path):
    class Panic(BaseException):
        """As some libraries raise it."""

    async with SqliteStore(tmp_path / "s.db") as store:

        def bug(connection):
            raise Panic

        results = await asyncio.gather(
            store._database.submit(bug),
            store.create(A, b"", generation=1, title=None, now=NOW),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [StorageError, StorageError]
        with pytest.raises(StorageError, match="closed"):
            await store.check()


@pytest.mark.parametrize("bad", [run("r", data="half \ud83d"), run("r", queued_at=2**70)], ids=["text", "number"])
async def test_a_value_that_sqlite_cannot_hold_fails_alone(tmp_path, bad):
    async with SqliteStore(tmp_path / "s.db") as store:
        for session in ("a", "b"):
            await store.create(session, b"seed", generation=1, title=None, now=NOW)
        refused, beside = await asyncio.gather(
            store.append("a", rows(2, b"with it"), entries=Entries(runs=[bad]), now=NOW),
            store.append("b", rows(2, b"beside it"), now=NOW),
            return_exceptions=True,
        )
        assert isinstance(refused, StorageError)
        assert beside is None
        await store.append("a", rows(2, b"afterwards"), entries=Entries(runs=[run("r")]), now=NOW)
        assert [row.update for row in (await store.load("a")).rows] == [b"seed", b"afterwards"]


async def test_a_full_disk_is_an_error_and_space_that_returns_is_used(tmp_path):
    async with SqliteStore(tmp_path / "s.db") as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        async with store._database._write.execute("PRAGMA page_count") as cursor:
            (pages,) = await cursor.fetchone()
        await store._database._write.execute(f"PRAGMA max_page_count = {pages + 4}")
        seq = 2
        with pytest.raises(StorageError, match="full"):
            for seq in range(2, 50):
                await store.append(A, rows(seq, b"x" * 2000), now=NOW)
        stored = await store.load(A)
        assert stored.last_seq == seq - 1  # all or nothing
        await store._database._write.execute("PRAGMA max_page_count = 100000")
        await store.append(A, rows(seq, b"x" * 2000), now=NOW)
        assert (await store.load(A)).last_seq == seq


async def _lagging(path):
    """Return what a crash leaves behind where ``sessions`` did not say yet where a log ends."""
    async with SqliteStore(path) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        for seq in (2, 3, 4):
            await store.append(A, rows(seq, b"%d" % seq), now=Millis(NOW + seq))
        copy = path.with_name("crashed.db")
        for ending in ("", "-wal"):
            shutil.copy(f"{path}{ending}", f"{copy}{ending}")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT last_seq FROM sessions").fetchone() == (2,), "the case is what it says"
    return copy


async def test_rows_that_sessions_did_not_know_of_survive_and_go_on(tmp_path):
    copy = await _lagging(tmp_path / "s.db")
    with Inspection(copy) as inspection:
        (found,) = inspection.sessions()
        assert (len(found.rows), found.problems) == (4, ())
    async with SqliteStore(copy) as store:
        assert (await store.load(A)).last_seq == 4
        with pytest.raises(StorageError, match="do not follow"):
            await store.append(A, rows(3, b"again"), now=NOW)
        await store.append(A, rows(5, b"5"), entries=Entries(runs=[run("r")]), now=NOW)
        await store.append(A, rows(6, b"6"), now=Millis(NOW + 9))
        stored = await store.load(A)
        assert (stored.last_seq, stored.record.updated_at) == (6, NOW + 9)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT last_seq FROM sessions").fetchone() == (6,)


async def test_sessions_says_where_logs_end_without_being_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("crdt_sessions.storage.sqlite.writer._CATCH_UP_S", 0.01)
    async with SqliteStore(tmp_path / "s.db") as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        for seq in (2, 3):
            await store.append(A, rows(seq, b"x"), now=NOW)
        async with asyncio.timeout(10):
            while await store._database.select("SELECT last_seq FROM sessions", ()) != [(3,)]:
                await asyncio.sleep(0)


async def test_nothing_is_appended_to_a_session_that_is_deleted_in_the_same_commit(tmp_path):
    async with SqliteStore(tmp_path / "s.db") as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await store.append(A, rows(2, b"x"), now=NOW)
        await asyncio.gather(store.append(A, rows(3, b"x"), now=NOW), store.delete(A, now=NOW))
        with pytest.raises(SessionNotFound):
            await store.append(A, rows(4, b"x"), now=NOW)
        assert await store._database.select("SELECT count(*) FROM updates", ()) == [(0,)]


async def test_a_store_that_takes_no_writes_is_read_all_the_same(tmp_path):
    async with SqliteStore(tmp_path / "s.db") as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        for seq in (2, 3):
            await store.append(A, rows(seq, b"x"), now=NOW)
        await store._database._write.execute("PRAGMA query_only = ON")
        with pytest.raises(StorageError):
            await store.append(A, rows(4, b"x"), now=NOW)
        assert (await store.load(A)).last_seq == 3
        assert (await store.get(A)).id == A


async def test_nobody_changes_the_audit_log_not_even_with_sql(tmp_path):
    path = tmp_path / "s.db"
    async with SqliteStore(path) as store:
        await store.record([AuditEntry(NOW, "", "a", "ann", "session.delete")])
    with sqlite3.connect(path) as connection:
        for statement in ("UPDATE audit SET principal = 'eve'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                connection.execute(statement)
    connection.close()


async def test_nothing_of_a_deleted_session_is_left_in_the_file(tmp_path):
    path, secret = tmp_path / "s.db", b"what nobody is to find again" * 40
    async with SqliteStore(path) as store:
        await store.create(A, b"seed", generation=1, title="a secret title", now=NOW)
        await store.append(A, [Row(Seq(2), secret)], now=NOW)
        await store.delete(A, now=NOW)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert b"what nobody is to find" not in path.read_bytes()


async def test_nothing_of_what_was_folded_away_is_left_in_the_file(tmp_path):
    path, secret = tmp_path / "s.db", b"what nobody is to find again" * 400
    async with SqliteStore(path) as store:
        await store.create(A, b"seed", generation=1, title="", now=NOW)
        await store.append(A, [Row(Seq(2), secret)], now=NOW)
        await store.replace_with_snapshot(A, Row(Seq(2), SPOKEN), retention=Retention(), name="kept", now=NOW)
        await store.append(A, [Row(Seq(3), b"more")], now=NOW)
        await store.replace_with_snapshot(A, Row(Seq(3), b"folded"), retention=NO_PAST, now=NOW)
        assert [each.seq for each in (await store.history(A)).versions] == [3]
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert b"what nobody is to find" not in path.read_bytes()


async def test_what_older_releases_stored_is_found_by_status_and_agent(tmp_path):
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        for _, statements in STEPS[:6]:
            connection.executescript(statements)
        connection.execute("PRAGMA user_version = 6")
        connection.execute("INSERT INTO sessions VALUES ('acme/a', 1, 1, 1, 'active', NULL, 1, NULL, 'acme', 'x')")
        for id, data in (
            ("r1", '{"status": "running", "lease": {"agent": "writer"}}'),
            ("r2", '{"status": "completed"}'),
            ("r3", "what cannot be read"),
        ):
            connection.execute("INSERT INTO runs VALUES ('acme/a', ?, '*', 0, 5, NULL, ?)", (id, data))
        connection.commit()
    async with SqliteStore(path) as store:
        found = await store.runs("acme", limit=9)
        assert [(each.run.id, each.run.status, each.run.answerer, each.asked_at) for each in found] == [
            ("r2", "completed", "*", 5), ("r1", "running", "writer", 5),
        ]  # fmt: skip
        assert [each.id for each in await store.recent_sessions("acme", limit=9)] == ["acme/a"]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("statuses", [None, ["active"], ["active", "closed"]])
def test_lists_are_read_in_the_order_of_an_index(tmp_path, statuses, before):
    """A page costs what is on it: nothing is scanned, and only what is merged from several statuses is sorted."""
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        for _, statements in STEPS:
            connection.executescript(statements)

        def plan(query):
            return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query[0]}", query[1])]

        recent = plan(
            lists.recent_sessions(
                "id, updated_at", "", statuses=statuses, member=None, before=(NOW, A) if before else None, limit=9
            )
        )
        runs = [
            plan(lists.runs("", statuses=statuses, answerer=agent, before=(NOW, A, "r") if before else None, limit=9))
            for agent in (None, "writer")
        ]
        of_one = plan(lists.recent_sessions("id", "", statuses=statuses, member="ann", before=None, limit=9))
    for steps, index in ((recent, "sessions_by_change"), (runs[0], "runs_by_status"), (runs[1], "runs_by_answerer")):
        searched = [step for step in steps if step.startswith(("SEARCH", "SCAN")) and "subquery" not in step.lower()]
        assert all(index in step and step.startswith("SEARCH") for step in searched), steps
        assert len(searched) == len(statuses or (lists.RUN_STATUSES if "runs" in index else [1, 2, 3]))
    assert any("members_by_principal" in step for step in of_one)
    assert not any(step.startswith("SCAN sessions") for step in of_one)
