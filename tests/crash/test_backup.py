"""A database is copied while it is written; the copy is whole, serves, and what it lacks comes back with its peers."""

import asyncio
import sqlite3

import pytest

from crdt_sessions import connect
from crdt_sessions.errors import StorageError
from crdt_sessions.storage.sqlite.backup import back_up
from crdt_sessions.testing import content
from tests.processes import PATIENCE, Server, command

pytestmark = [pytest.mark.crash]

FLAGS = ("--default-agent", "", "--snapshot-rows", "50")


def copied(*arguments):
    done = command("backup", *arguments)
    return done.returncode, done.stdout + done.stderr


async def test_a_copy_made_under_load_holds_all_that_was_acknowledged_before_it(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    acknowledged = []

    async def write(peer, name):
        for number in range(1_000_000):
            message = await peer.post(f"{name} {number} " + "x" * 500, id=f"{name}-{number}")
            acknowledged.append(message.id)

    try:
        async with connect(server.url, "room", name="a") as a, connect(server.url, "room", name="b") as b:
            writers = [asyncio.create_task(write(peer, name)) for peer, name in ((a, "a"), (b, "b"))]
            for number in range(3):
                await asyncio.sleep(0.4)
                before = set(acknowledged)
                copy = tmp_path / f"copy-{number}.db"
                status, said = await asyncio.to_thread(copied, server.database, copy)
                assert (status, "100 %" in said) == (0, True), said
                assert len(acknowledged) > len(before), "the service went on meanwhile"
                elsewhere = Server(copy, *FLAGS)
                try:
                    async with connect(elsewhere.url, "room") as fresh:
                        assert before <= set(fresh.view.messages.ids())
                finally:
                    elsewhere.close()
            for writer in writers:
                writer.cancel()
            await asyncio.gather(*writers, return_exceptions=True)
            await asyncio.gather(a.durable(), b.durable())
            server.kill()
            for peer in (a, b):
                await peer.until(lambda peer=peer: not peer.connected)
            server = Server(tmp_path / "copy-0.db", *FLAGS, port=server.port)  # restored from the oldest copy
            for peer in (a, b):
                await asyncio.wait_for(peer.post("back again"), PATIENCE)  # acknowledged behind what was brought
            async with connect(server.url, "room") as fresh:
                assert set(acknowledged) <= set(fresh.view.messages.ids()), "its peers bring back what the copy lacks"
                contents = [content(peer._replica.document) for peer in (a, b, fresh)]
                assert contents[0] == contents[1] == contents[2]
    finally:
        server.close()


async def test_a_copy_is_one_whole_file(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    try:
        async with connect(server.url, "room") as peer:
            await peer.post("here")
        back_up(server.database, tmp_path / "copy.db")
    finally:
        server.close()
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.db"]
    connection = sqlite3.connect(tmp_path / "copy.db")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
    connection.close()


def test_what_goes_wrong_is_said_and_leaves_nothing_behind(tmp_path):
    server = Server(tmp_path / "s.db", *FLAGS)
    server.close()
    for source, target, said in (
        (tmp_path / "none.db", tmp_path / "x.db", "there is no file"),
        (server.database, server.database, "exists; choose another name"),
        (server.database, tmp_path / "no-such-folder/x.db", "there is no folder"),
    ):
        status, report = copied(source, target)
        assert (status, said in report) == (2, True), report
    data = bytearray(server.database.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    data[size * 2 :] = b"\xff" * (len(data) - size * 2)
    (tmp_path / "bad.db").write_bytes(data)
    with pytest.raises(StorageError):
        back_up(tmp_path / "bad.db", tmp_path / "y.db")
    assert not list(tmp_path.glob("[xy].db*"))
