"""What is not ours is left as it is, and a store that cannot be opened leaves nothing behind that runs."""

import os
import sqlite3
import threading
from contextlib import closing

import pytest

from crdt_sessions.errors import ForeignDatabase, NewerSchema, StorageError, StoreUnavailable
from crdt_sessions.storage import SqliteStore
from crdt_sessions.storage.sqlite.backup import back_up
from crdt_sessions.storage.sqlite.inspection import Inspection
from crdt_sessions.storage.sqlite.migrations import STEPS
from crdt_sessions.testing.store_contract import NOW, A
from tests.processes import PATIENCE


def _sql(path, *statements):
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def _text(path):
    path.write_text("hello, I am not a database\n" * 50)


def _garbled(path):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4080)


def _shop(path):
    _sql(path, *(f"CREATE TABLE {name} (id)" for name in ("customers", "goods", "orders", "sessions")))


def _shop_that_counts_versions(path):
    _sql(path, "CREATE TABLE orders (id)", "PRAGMA user_version = 3")


def _sessions_of_somebody_else(path):
    _sql(path, "CREATE TABLE sessions (id, user)", "CREATE TABLE updates (id)", f"PRAGMA user_version = {len(STEPS)}")


def _no_tables_but_a_version(path):
    _sql(path, "PRAGMA user_version = 99")


FOREIGN = [
    (_text, "no SQLite database"),
    (_garbled, "no SQLite database"),
    (_shop, "with the tables customers, goods, orders, …"),
    (_shop_that_counts_versions, "with the tables orders"),
    (_sessions_of_somebody_else, "with the tables sessions, updates"),
    (_no_tables_but_a_version, "with no tables"),
]


def _left_over(before):
    """Return the threads begun since *before* that do not end by themselves."""
    begun = [thread for thread in threading.enumerate() if thread not in before]
    for thread in begun:
        thread.join(PATIENCE)
    return [thread for thread in begun if thread.is_alive()]


@pytest.mark.parametrize(("make", "why"), FOREIGN)
async def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path, make, why):
    path = tmp_path / "theirs.db"
    make(path)
    before, threads = path.read_bytes(), threading.enumerate()
    with pytest.raises(ForeignDatabase, match=why) as caught:
        await SqliteStore(path).__aenter__()
    assert caught.value.path == str(path)
    with pytest.raises(ForeignDatabase, match=why), Inspection(path):
        pass
    with pytest.raises(ForeignDatabase, match=why):
        back_up(path, tmp_path / "copy.db")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["theirs.db"], "nothing is made beside it"
    assert not _left_over(threads)


async def test_an_empty_file_and_an_empty_database_become_ours(tmp_path):
    (tmp_path / "empty").touch()
    _sql(tmp_path / "emptied", "CREATE TABLE gone (id)", "DROP TABLE gone")
    for name in ("empty", "emptied"):
        async with SqliteStore(tmp_path / name) as store:
            await store.create(A, b"seed", generation=1, title=None, now=NOW)
        with Inspection(tmp_path / name) as found:
            assert [session.record.id for session in found.sessions()] == [A]


@pytest.mark.slow
async def test_ours_is_known_at_every_schema(tmp_path):
    """Also the first one, which had the fewest tables."""
    for version in range(1, len(STEPS) + 1):
        path = tmp_path / f"{version}.db"
        for _, statements in STEPS[:version]:
            with closing(sqlite3.connect(path)) as connection:
                connection.executescript(statements)
        _sql(path, f"PRAGMA user_version = {version}")
        with Inspection(path) as found:
            assert found.version == version
        async with SqliteStore(path):
            pass
    _sql(path, f"PRAGMA user_version = {len(STEPS) + 1}")
    with pytest.raises(NewerSchema, match="upgrade"):
        await SqliteStore(path).__aenter__()


async def test_a_store_that_cannot_be_opened_leaves_no_thread_that_would_hold_the_process(tmp_path, monkeypatch):
    async def full(connection, path):
        raise sqlite3.OperationalError("database or disk is full")

    held = sqlite3.connect(tmp_path / "held.db", isolation_level=None)
    held.execute("CREATE TABLE theirs (id)")
    held.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("crdt_sessions.storage.sqlite.foreign._BUSY_S", 0.0)
    threads = threading.enumerate()
    with closing(held), pytest.raises(StoreUnavailable, match="locked"):
        await SqliteStore(tmp_path / "held.db").__aenter__()
    for database in (tmp_path, tmp_path / "no" / "s.db", tmp_path / ("n" * 300), tmp_path / "nu\0l"):
        with pytest.raises(StorageError):
            await SqliteStore(database).__aenter__()
    monkeypatch.setattr("crdt_sessions.storage.sqlite.database.migrate", full)
    with pytest.raises(StorageError):
        await SqliteStore(tmp_path / "s.db").__aenter__()
    monkeypatch.undo()
    monkeypatch.setattr("crdt_sessions.storage.sqlite.connection.PAGE_BYTES", "'")
    with pytest.raises(StorageError):
        await SqliteStore(tmp_path / "t.db").__aenter__()
    assert not _left_over(threads)


async def test_what_is_wrong_with_the_file_is_said_with_its_name(tmp_path):
    path = tmp_path / "s.db"
    async with SqliteStore(path):
        pass
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(StorageError, match=rf"{path}: SQLite: .* with: crdt-sessions doctor {path}"):
        await SqliteStore(path).__aenter__()


async def test_a_copy_into_a_folder_that_is_not_there_is_refused(tmp_path):
    async with SqliteStore(tmp_path / "s.db"):
        pass
    with pytest.raises(StorageError, match="there is no folder"):
        back_up(tmp_path / "s.db", tmp_path / "no" / "copy.db")


@pytest.mark.parametrize("what", ["s.db", "s.db.lock"])
async def test_a_file_that_may_not_be_written_is_named(tmp_path, monkeypatch, what):
    def denied(file, flags, *mode):
        if str(file).endswith(what):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, flags, *mode)

    opened = os.open
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(StorageError, match=f"{what} cannot be opened to be written: Permission denied"):
        await SqliteStore(tmp_path / "s.db").__aenter__()
