"""A database belongs to one process, by whatever name it is opened, and only as long as that name is its own."""

import asyncio
import os
import shutil
import subprocess
import sys

import pytest

from crdt_sessions.errors import DatabaseGone, DatabaseHasOtherNames, DatabaseInUse, StorageError
from crdt_sessions.storage import SqliteStore
from crdt_sessions.testing.store_contract import NOW, A, rows


async def test_a_second_process_is_kept_out(tmp_path):
    async with SqliteStore(tmp_path / "s.db"):
        with pytest.raises(DatabaseInUse, match="in use by another process"):
            await SqliteStore(tmp_path / "s.db").__aenter__()
    async with SqliteStore(tmp_path / "s.db"):
        pass


async def test_a_symbolic_link_is_the_file_it_leads_to(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = elsewhere / "link.db"
    link.symlink_to(tmp_path / "s.db")
    async with SqliteStore(tmp_path / "s.db") as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        with pytest.raises(DatabaseInUse):
            await SqliteStore(link).__aenter__()
    async with SqliteStore(link) as store:
        assert (await store.load(A)).last_seq == 1
        with pytest.raises(DatabaseInUse):
            await SqliteStore(tmp_path / "s.db").__aenter__()


async def test_a_file_with_several_hard_links_is_refused_whoever_has_it_open(tmp_path):
    path, link = tmp_path / "s.db", tmp_path / "link.db"
    async with SqliteStore(path) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        os.link(path, link)
        with pytest.raises(DatabaseHasOtherNames, match="2 names"):
            await SqliteStore(link).__aenter__()
        await store.append(A, rows(2, b"goes on"), now=NOW)
    with pytest.raises(DatabaseHasOtherNames, match="remove the others"):
        await SqliteStore(path).__aenter__()
    link.unlink()
    async with SqliteStore(path) as store:
        assert (await store.load(A)).last_seq == 2


@pytest.fixture
def bound(tmp_path):
    """The same file by another name, with other files beside it."""
    path, other = tmp_path / "s.db", tmp_path / "mounted" / "other.db"
    other.parent.mkdir()
    for file in (path, other):
        file.touch()
    if sys.platform != "linux" or os.geteuid() or shutil.which("mount") is None:
        pytest.skip("no right to mount")
    if subprocess.run(["mount", "--bind", path, other], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    yield path, other
    subprocess.run(["umount", "-l", other], check=True)


async def test_a_bind_mount_is_the_same_file(bound):
    path, other = bound
    async with SqliteStore(path) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        with pytest.raises(DatabaseInUse):
            await SqliteStore(other).__aenter__()
        await store.append(A, rows(2, b"goes on"), now=NOW)
        refused = "import asyncio, sys; from crdt_sessions.storage import SqliteStore\n"
        refused += "asyncio.run(SqliteStore(sys.argv[1]).__aenter__())"
        process = subprocess.run([sys.executable, "-c", refused, other], capture_output=True, text=True, check=False)
        assert "in use by another process" in process.stderr


async def test_the_lock_does_not_take_sqlites_own_locks_away(tmp_path):
    path = tmp_path / "s.db"
    async with SqliteStore(path):
        with pytest.raises(DatabaseInUse):
            await SqliteStore(path).__aenter__()
        held = subprocess.run([sys.executable, "-c", _EXCLUSIVE, path], capture_output=True, text=True, check=False)
        assert "locked" in held.stderr


_EXCLUSIVE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
connection.execute("PRAGMA journal_mode = DELETE")
"""
"""What SQLite lets nobody do while another process has the file open."""


async def test_what_cannot_be_opened_says_why(tmp_path):
    for path, why in ((tmp_path, "is a folder"), (tmp_path / "missing" / "s.db", "there is no folder")):
        with pytest.raises(StorageError, match=why):
            await SqliteStore(path).__aenter__()


@pytest.mark.skipif(sys.platform == "win32", reason="there an open file keeps its name")
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_acknowledged_while_a_file_of_the_database_is_gone(tmp_path, monkeypatch, suffix, replaced):
    monkeypatch.setattr("crdt_sessions.storage.sqlite.writer._LOOK_S", 0)
    file, away = tmp_path / f"s.db{suffix}", tmp_path / "away"
    async with SqliteStore(tmp_path / "s.db") as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        file.rename(away)
        if replaced:
            shutil.copy(away, file)
        with pytest.raises(DatabaseGone, match="put that file back") as caught:
            await store.append(A, rows(2, b"two"), now=NOW)
        assert caught.value.path == str(file)
        with pytest.raises(DatabaseGone):
            await store.check()
        assert (await store.load(A)).last_seq == 1
        away.rename(file)
        await store.check()
        await store.append(A, rows(2, b"two"), now=NOW)
    async with SqliteStore(tmp_path / "s.db") as store:
        assert (await store.load(A)).last_seq == 2


async def test_what_is_written_together_fails_together_when_the_file_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("crdt_sessions.storage.sqlite.writer._LOOK_S", 0)
    async with SqliteStore(tmp_path / "s.db") as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        (tmp_path / "s.db").rename(tmp_path / "away")
        outcomes = await asyncio.gather(
            *(store.append(A, rows(seq, b"x"), now=NOW) for seq in (2, 3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [DatabaseGone, DatabaseGone]
        (tmp_path / "away").rename(tmp_path / "s.db")
        await store.append(A, rows(2, b"x"), now=NOW)
