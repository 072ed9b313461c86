"""What storage can do to a service: full, failing, locked, read-only, damaged, torn, too new, in use twice.

In an outage: nothing is acknowledged that is not kept, sessions can be read, `/readyz` and closed peers say why, and
when it is over everything goes on without a restart. Damage in one session does not touch the others.
docs/reliability.md has the table.
"""

import asyncio
import os
import random
import resource
import sqlite3
import subprocess
import sys
from contextlib import suppress

import httpx
import pytest
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed

from crdt_sessions import connect
from crdt_sessions.storage.sqlite.migrations import STEPS
from crdt_sessions.wire import Update, encode
from tests.processes import PATIENCE, PROBLEM, Server, attempts, command
from tests.runtime.test_sandbox import writing

pytestmark = [pytest.mark.crash, pytest.mark.slow]

FLAGS = ("--default-agent", "", "--storage-patience-s", "0.3", "--idle-unload-s", "0.2")


def can_mount():
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    return subprocess.run(["mount", "--version"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path):
    """A file system of six megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder]
    if not can_mount() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class Outage:
    """A server whose storage fails and recovers, with a peer that writes all the time."""

    def __init__(self, server):
        self.server = server

    async def run(self, begin, end):
        async with connect(self.server.url, "room", name="Ann") as ann:
            await ann.post("before", id="before")
            begin()
            posting = asyncio.create_task(ann.post("x" * 300_000, id="during"))
            detail = await self._until(503)
            assert detail["since"]
            assert not posting.done(), "acknowledged, and not kept"
            await self._is_read_only()
            assert not posting.done(), "acknowledged, and not kept"
            end()
            await self._until(200)
            await asyncio.wait_for(posting, PATIENCE)
            await ann.post("after", id="after")
        self.server.kill()
        again = self.server.again()
        try:
            async with connect(again.url, "room") as fresh:
                assert set(fresh.view.messages.ids()) == {"before", "during", "after"}
        finally:
            again.close()

    async def _is_read_only(self):
        async with httpx.AsyncClient(base_url=self.server.url, trust_env=False, timeout=PATIENCE) as http:
            for _ in range(50):  # a session that failed is loaded anew first
                page = await http.get("/v1/sessions/room/messages")
                if page.status_code == 200:
                    break
                await asyncio.sleep(0.1)
            assert [message["id"] for message in page.json()["messages"]] == ["before"]
            refused = await http.post("/v1/sessions/room/messages", json={"text": "no"})
            assert refused.status_code == 503, refused.text
            assert refused.headers["Retry-After"]
        async with websocket(f"{self.server.ws}/room", proxy=None) as stock:
            greeting = await stock.recv()
            assert greeting[:2] == b"\x00\x00"
            await stock.send(b"\x00\x00\x01\x00")
            answer = await stock.recv()
            assert answer[:2] == b"\x00\x01", "the session can be read"
            await stock.send(encode(Update(writing("no"))))
            with pytest.raises(ConnectionClosed):
                while True:
                    await asyncio.wait_for(stock.recv(), PATIENCE)
            assert stock.close_code == 4503
            assert stock.close_reason

    async def _until(self, status):
        async with httpx.AsyncClient(base_url=self.server.url, trust_env=False, timeout=PATIENCE) as http:
            for _ in attempts():
                answer = await http.get("/readyz")
                if answer.status_code == status:
                    return answer.json()
                await asyncio.sleep(0.1)
        raise AssertionError(f"/readyz never said {status}: {answer.text}")


async def test_a_full_disk(disk):
    server = Server(disk / "s.db", *FLAGS)
    filler = disk / "filler"

    def fill():
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)

    try:
        await Outage(server).run(fill, filler.unlink)
    finally:
        server.close()


async def test_a_disk_that_fails(tmp_path):
    """Every write to a file fails with an I/O error: the kernel refuses it, SQLite's own code meets it."""
    server = Server(tmp_path / "s.db", *FLAGS)
    _, hard = resource.prlimit(server.child.pid, resource.RLIMIT_FSIZE)

    def limit(size):
        resource.prlimit(server.child.pid, resource.RLIMIT_FSIZE, (size, hard))

    try:
        await Outage(server).run(lambda: limit(1), lambda: limit(hard))
    finally:
        server.close()


async def test_a_lock_that_somebody_else_holds(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    intruder = sqlite3.connect(server.database, isolation_level=None)
    try:
        await Outage(server).run(lambda: intruder.execute("BEGIN IMMEDIATE"), lambda: intruder.execute("ROLLBACK"))
    finally:
        intruder.close()
        server.close()


async def test_a_database_file_that_is_removed(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    away = tmp_path / "away.db"
    try:
        await Outage(server).run(lambda: server.database.rename(away), lambda: away.rename(server.database))
    finally:
        server.close()


async def test_a_database_at_its_limit_takes_writes_again_when_something_is_deleted(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS, "--max-database-bytes", str(2 * 1024 * 1024))
    try:
        with server.http() as http:
            for number in range(100):
                answer = http.post(f"/v1/sessions/ballast-{number}/messages", json={"text": "x" * 60_000})
                if answer.status_code == 503:
                    assert "full" in answer.json()["detail"]
                    await asyncio.sleep(1.1)  # it is tried once a second
                    if http.get("/readyz").status_code == 503:
                        break
        async with connect(server.url, "room", name="Ann") as ann:
            posting = asyncio.create_task(ann.post("x" * 50_000))
            with server.http() as http:
                assert http.get("/readyz").status_code == 503
                assert http.delete("/v1/sessions/ballast-0").status_code in (204, 503)
                for _ in attempts():
                    if http.get("/readyz").status_code == 200:
                        break
                    http.delete("/v1/sessions/ballast-1")
                    await asyncio.sleep(0.1)
            await asyncio.wait_for(posting, PATIENCE)
    finally:
        server.close()


def refused(database):
    """The service does not start; return what it says."""
    with pytest.raises(AssertionError) as failed:
        Server(database, *FLAGS)
    return str(failed.value)


async def test_a_read_only_file_system_is_said_at_the_start(disk):
    server = Server(disk / "s.db", *FLAGS)
    server.terminate()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    said = refused(server.database)
    assert "Read-only file system" in said
    assert "Traceback" not in said


async def test_a_database_of_a_newer_release_is_left_as_it_is(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    server.terminate()
    with sqlite3.connect(server.database) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    before = server.database.read_bytes()
    said = refused(server.database)
    assert "upgrade crdt-sessions" in said
    assert "Traceback" not in said
    assert server.database.read_bytes() == before


@pytest.mark.nightly
async def test_a_second_service_on_the_same_database_is_refused(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    try:
        said = refused(server.database)
        assert "in use by another process" in said
        async with connect(server.url, "room") as peer:
            await peer.post("the first one does not care")
    finally:
        server.close()


# -- damage -------------------------------------------------------------------------------------------------------


async def filled(database):
    """Two sessions with a few large messages each, whose rows lie on pages of their own."""
    server = Server(database, *FLAGS)
    try:
        for room in ("bad", "good"):
            async with connect(server.url, room) as peer:
                for number in range(20):
                    await peer.post(f"{number} " + room * 300, id=f"m{number}")
    finally:
        server.terminate()
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return server


def readable(database, room):
    connection = sqlite3.connect(database)
    try:
        found = connection.execute("SELECT data FROM updates WHERE session = ? ORDER BY seq", (room,)).fetchall()
        return b"".join(data for (data,) in found)
    except sqlite3.DatabaseError:
        return None
    finally:
        connection.close()


def damage_a_page(database):
    """Overwrite a page so that SQLite finds the rows of one session damaged, and those of the other whole."""
    whole, good = database.read_bytes(), readable(database, "good")
    size = int.from_bytes(whole[16:18], "big")
    for page in range(2, len(whole) // size):
        spoiled = bytearray(whole)
        spoiled[page * size : page * size + 64] = b"\xff" * 64
        database.write_bytes(spoiled)
        if readable(database, "bad") is None and readable(database, "good") == good:
            connection = sqlite3.connect(database)
            try:
                if connection.execute("SELECT count(*) FROM sessions").fetchone() == (2,):
                    return
            except sqlite3.DatabaseError:
                pass
            finally:
                connection.close()
    raise AssertionError("no page holds only rows of one session")


def damage_a_row(database):
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE updates SET data = zeroblob(9) WHERE session = 'bad' AND seq = 4")
    connection.close()


@pytest.mark.parametrize("damage", [damage_a_page, damage_a_row])
@pytest.mark.sampled(2)
async def test_a_damaged_session_is_in_quarantine_and_the_others_are_not(tmp_path, damage):
    server = await filled(tmp_path / "s.db")
    damage(server.database)
    server = server.again()
    try:
        with server.http() as http:
            refused = http.get("/v1/sessions/bad/messages")
            assert refused.status_code == 503
            assert refused.json()["type"] in (PROBLEM + "damaged-log", PROBLEM + "damaged-database")
            assert http.get("/readyz").json() | {"connections": 0} == {
                "status": "ready", "liveSessions": 0, "connections": 0, "quarantinedSessions": 1,
            }  # fmt: skip
        async with websocket(f"{server.ws}/bad", proxy=None) as stock:
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(stock.recv(), PATIENCE)
            assert stock.close_code == 4503
        async with connect(server.url, "good") as peer:
            assert len(peer.messages.all()) == 20
            await peer.post("goes on")
        with server.http() as http:
            if damage is damage_a_row:  # what cannot be read can still be deleted
                assert http.delete("/v1/sessions/bad").status_code == 204
                assert http.get("/readyz").json()["quarantinedSessions"] == 0
    finally:
        server.close()
    done = command("doctor", server.database)
    assert done.returncode == (0 if damage is damage_a_row else 1), done.stdout


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.sampled(6)
async def test_a_torn_write_ahead_log_loses_what_its_peers_bring_back(tmp_path, seed):
    """A disk that lied about its flushes: the end of the log is cut off, or garbage.

    What is whole of it is there, the file is sound, and peers that were acknowledged have everything and bring it.
    """
    rng = random.Random(seed)
    server = Server(tmp_path / "s.db", *FLAGS)
    try:
        async with connect(server.url, "room") as peer:
            for number in range(30):
                await peer.post(str(number), id=f"m{number}")
            await asyncio.to_thread(server.kill)
            await peer.until(lambda: not peer.connected)
            log = server.database.with_name("s.db-wal")
            data = log.read_bytes()
            at = rng.randrange(len(data) // 2, len(data))
            log.write_bytes(data[:at] + (rng.randbytes(len(data) - at) if seed % 2 else b""))
            server = server.again()
            with sqlite3.connect(server.database) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.close()
            await asyncio.wait_for(peer.synced(), PATIENCE)
            await asyncio.wait_for(peer.durable(), PATIENCE)
            async with connect(server.url, "room") as fresh:
                assert set(fresh.view.messages.ids()) == {f"m{number}" for number in range(30)}
    finally:
        server.close()
