"""The service on PostgreSQL, as processes: what was acknowledged survives them, and a zombie stores nothing."""

import asyncio
import contextlib
import io
import itertools
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from crdt_sessions import connect
from crdt_sessions.clock import SystemClock
from crdt_sessions_server import cli, service
from crdt_sessions_server.arguments import parse
from crdt_sessions_server.settings import Settings
from crdt_sessions_server.settings_check import check_settings
from tests.postgres import every_version, every_version_in_ci, shared_server
from tests.processes import PATIENCE, Server

pytestmark = pytest.mark.processes
FLAGS = ("--no-sandbox", "--default-agent", "")
_numbers = itertools.count()


@pytest.fixture
def database(version):
    """The URL of a database of its own; its password is not asked for, and must not be shown."""
    server, name = shared_server(version), f"service{next(_numbers)}_{os.getpid()}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name).replace("postgres@", "postgres:not-to-be-shown@")


async def texts(url, count):
    """Return the texts of the messages in the room, once there are so many."""
    async with connect(url, "room", name="reader") as reader:
        async with asyncio.timeout(PATIENCE):
            while len(found := [message.text for message in reader.messages.all()]) < count:
                await asyncio.sleep(0.01)
        return found


async def said(url, *words):
    async with connect(url, "room", name="writer") as writer:
        for word in words:
            await writer.post(word)


def ready(server):
    """Return once the service says that it can write."""
    until = time.monotonic() + PATIENCE
    while httpx.get(f"{server.url}/readyz").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.05)


@every_version
async def test_a_node_goes_by_the_databases_clock(database, monkeypatch):
    hour_ns = 3_600_000_000_000
    monkeypatch.setattr(service, "SystemClock", lambda: SystemClock(lambda: time.time_ns() + hour_ns))
    async with service.Service(Settings(database=database, sandbox=False)) as node:
        assert abs(node.registry.clock.now() - time.time_ns() // 1_000_000) < hour_ns // 2_000_000


@every_version_in_ci
async def test_what_was_acknowledged_survives_kills_and_another_node_takes_over(database, tmp_path):
    first = Server(database, *FLAGS)
    try:
        ready(first)
        await said(first.url, "one", "two")
        first.kill()
        second = Server(database, *FLAGS)  # it waits until the first one is gone for sure, then owns the session
        try:
            assert await texts(second.url, 2) == ["one", "two"]
            await said(second.url, "three")
            second.terminate()
            third = Server(database, *FLAGS)
            try:
                assert await texts(third.url, 3) == ["one", "two", "three"]
                for server in (first, second, third):
                    assert not [line for line in server.lines if "not-to-be-shown" in line]
            finally:
                third.close()
        finally:
            second.close()
    finally:
        first.close()


@every_version
async def test_a_node_that_slept_for_long_wakes_up_and_stores_nothing(database):
    zombie = Server(database, *FLAGS)
    try:
        ready(zombie)
        async with connect(zombie.url, "room", name="old") as old:
            await old.post("one")
            os.kill(zombie.child.pid, signal.SIGSTOP)
            other = Server(database, *FLAGS)
            try:
                assert await texts(other.url, 1) == ["one"]
                await said(other.url, "two")
                os.kill(zombie.child.pid, signal.SIGCONT)
                zombie.wait_for("counted as gone")
                assert await texts(other.url, 2) == ["one", "two"]
            finally:
                other.close()
    finally:
        os.kill(zombie.child.pid, signal.SIGCONT)
        zombie.close()


def run(*arguments):
    """Run the command line in this process."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), ThreadPoolExecutor(1) as thread:
        return thread.submit(cli.main, [str(each) for each in arguments]).result(), said.getvalue()


@every_version
async def test_doctor_looks_at_a_database_and_a_backup_of_it_serves(database, version, tmp_path, monkeypatch):
    service, sql = Server(database, *FLAGS), partial(shared_server(version).sql, database=database.rpartition("/")[2])
    try:
        await said(service.url, "one", "two")
        with service.http() as http:
            for path in ("whole", "broken"):
                http.put(f"/v1/streams/s/{path}", headers={"Content-Type": "text/plain"}, content="one ")
                http.post(f"/v1/streams/s/{path}", headers={"Content-Type": "text/plain"}, content="two")
                http.put(f"/v1/streams/s/{path}/fork", headers={"Stream-Forked-From": f"/v1/streams/s/{path}"})
        status, told = run("doctor", database)
        assert (status, "  room: " in told, "1 nodes are there" in told) == (0, True, True), told
        assert "stream s/broken: 2 entries, 7 bytes" in told, told
        assert "not-to-be-shown" not in told
        monkeypatch.setenv("PATH", "/nowhere")
        status, told = run("backup", database, tmp_path / "copy")
        assert (status, "pg_dump --format=custom" in told, "not-to-be-shown" in told) == (2, True, False), told
        monkeypatch.setenv("PATH", f"{shared_server(version).programs}{os.pathsep}/usr/bin:/bin")
        status, told = run("backup", database, tmp_path / "copy")
        assert (status, "whole copy" in told) == (0, True), told
        assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    finally:
        service.close()
    sql("UPDATE crdt_sessions.updates SET data = 'x' WHERE seq = (SELECT max(seq) FROM crdt_sessions.updates)")
    sql("UPDATE crdt_sessions.nodes SET gone = true")
    broken = "stream = (SELECT id FROM crdt_sessions.streams WHERE path = 's/broken')"
    sql(f"UPDATE crdt_sessions.stream_entries SET data = 'x' WHERE {broken} AND end_at = 7")
    status, told = run("doctor", database)
    assert "stream s/broken: 1 entries, 7 bytes\n    it can be read up to byte 4 of 7" in told, told
    assert told.count("can be read up to") == 1, told
    assert (status, "does not match its checksum" in told, "1 sessions belong to nodes" in told) == (1, True, True), (
        told
    )
    elsewhere = f"restored{next(_numbers)}_{os.getpid()}"
    sql(f"CREATE DATABASE {elsewhere}")
    url = shared_server(version).url(elsewhere)
    status, told = run("doctor", url)
    assert (status, "has no sessions" in told) == (2, True), told
    subprocess.run(
        [shared_server(version).programs / "pg_restore", f"--dbname={url}", "--no-owner", tmp_path / "copy"],
        check=True,
    )
    assert run("doctor", url)[0] == 0
    service = Server(url, *FLAGS)
    try:
        assert await texts(service.url, 2) == ["one", "two"]
    finally:
        service.close()


@pytest.mark.parametrize(
    "words", [("backup", "mysql://db/s", "copy"), ("import", "s.db", "--database", "mysql://db/s")]
)
def test_a_database_of_another_kind_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        parse(words)
    assert "postgresql://app@db/sessions" in capsys.readouterr().err


def test_the_database_is_a_file_or_a_url():
    assert Settings(database="postgresql://db/s").database == "postgresql://db/s"
    assert str(Settings(database="sessions.db").database) == "sessions.db"
    with pytest.raises(ValueError, match="standby"):
        check_settings(Settings(durability="quorum"))


def test_a_server_that_is_not_there_is_named_without_its_password(capsys):
    assert cli.main(["serve", "--port", "0", "--database", "postgresql://app:secret@127.0.0.1:1/s"]) == 2
    said = capsys.readouterr()
    assert "secret" not in said.err + said.out
    assert "PostgreSQL" in said.err
