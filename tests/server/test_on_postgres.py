"""The service on PostgreSQL, as processes: what was acknowledged survives them, and a zombie stores nothing."""

import asyncio
import itertools
import os
import signal
import time

import httpx
import pytest

from crdt_sessions import connect
from crdt_sessions_server import cli
from crdt_sessions_server.arguments import parse
from crdt_sessions_server.settings import Settings
from tests.postgres import every_version, shared_server
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


@pytest.mark.parametrize("command", ["doctor", "backup"])
def test_what_is_for_files_says_what_to_do_on_a_server(command, capsys):
    with pytest.raises(SystemExit):
        parse([command, "postgresql://app:secret@db/sessions", *(["copy"] if command == "backup" else [])])
    said = capsys.readouterr().err
    assert "is for SQLite files" in said
    assert "secret" not in said


def test_the_database_is_a_file_or_a_url():
    assert Settings(database="postgresql://db/s").database == "postgresql://db/s"
    assert str(Settings(database="sessions.db").database) == "sessions.db"
    with pytest.raises(ValueError, match="standby"):
        Settings(durability="quorum").check()


def test_a_server_that_is_not_there_is_named_without_its_password(capsys):
    assert cli.main(["serve", "--port", "0", "--database", "postgresql://app:secret@127.0.0.1:1/s"]) == 2
    said = capsys.readouterr()
    assert "secret" not in said.err + said.out
    assert "PostgreSQL" in said.err
