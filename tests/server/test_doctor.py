"""``crdt-sessions doctor`` on databases that are whole, in use, and damaged in every way we know."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from crdt_sessions import Past, connect
from crdt_sessions.errors import StorageError
from crdt_sessions.storage.sqlite.backup import back_up
from crdt_sessions.storage.sqlite.migrations import STEPS
from crdt_sessions_server.ops.doctor import examine
from tests.processes import PATIENCE, Server, command

NOBODY = 65534
FLAGS = ("--default-agent", "")


def doctor(*arguments):
    done = command("doctor", *arguments)
    return done.returncode, done.stdout + done.stderr


async def fill(path):
    """Two sessions, each with a snapshot, rows behind it and a queued run, and a deleted one."""
    server = Server(path, *FLAGS, "--snapshot-rows", "10", "--idle-unload-s", "0.1")
    try:
        for room in ("a", "b"):
            async with connect(server.url, room, name=room) as peer:
                for number in range(12):
                    await peer.post(f"{room}{number}", id=f"m{number}")
        with server.http() as http:
            http.post("/v1/sessions", json={"id": "gone"})
            http.delete("/v1/sessions/gone")
            for stream in ("s/whole", "s/broken"):
                http.put(f"/v1/streams/{stream}", headers={"Content-Type": "text/plain"}, content="one ")
                batch = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
                http.post(f"/v1/streams/{stream}", headers={"Content-Type": "text/plain", **batch}, content="two ")
                end = http.post(f"/v1/streams/{stream}", headers={"Content-Type": "text/plain"}, content="three")
                fork = {"Stream-Forked-From": f"/v1/streams/{stream}", "Stream-Closed": "true"}
                fork |= {"Stream-Fork-Offset": end.headers["Stream-Next-Offset"]} if stream == "s/broken" else {}
                http.put(f"/v1/streams/{stream}/fork", headers={"Content-Type": "text/plain", **fork})
    finally:
        server.terminate()
    server = Server(path, *FLAGS)
    try:
        for room in ("a", "b"):
            async with connect(server.url, room, name=room) as peer:
                await peer.post("?", id="q", agent="writer")
                await peer.post("!", id="last")
    finally:
        server.terminate()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("doctor") / "s.db"
    asyncio.run(fill(path))
    return path


@pytest.fixture
def path(filled, tmp_path):
    """A database of its own, to be damaged."""
    return shutil.copy(filled, tmp_path / "s.db")


def tamper(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        assert connection.execute(statement).rowcount > 0, statement
    connection.commit()
    connection.close()


async def texts(path, room):
    server = Server(path, *FLAGS)
    try:
        async with connect(server.url, room) as peer:
            return {message.text for message in peer.messages.all()}, [run.status for run in peer.view.runs.all()]
    finally:
        server.close()


def test_a_whole_database_is_well_also_while_it_is_in_use(path):
    before = path.read_bytes()
    status, said = doctor(path)
    assert (status, path.read_bytes()) == (0, before), said
    for line in (f"schema version {len(STEPS)}", "  a: ", ", 1 runs", "  gone: deleted, generation 1", "all is well"):
        assert line in said
    server = Server(path, *FLAGS)
    try:
        assert doctor(path)[0] == 0
    finally:
        server.close()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE updates SET data = x'0102' WHERE session = 'a' AND seq = (SELECT max(seq) FROM updates WHERE session = 'a')",
         "does not match its checksum"),
        ("DELETE FROM updates WHERE session = 'a' AND seq = (SELECT max(seq) FROM updates WHERE session = 'a')",
         "is missing"),
    ],
)  # fmt: skip
@pytest.mark.sampled(2)
async def test_a_damaged_row_costs_its_session_that_row_and_the_others_nothing(path, tmp_path, statement, said):
    saved = tmp_path / "saved.db"
    tamper(path, statement)
    status, report = doctor(path)
    assert (status, said in report, "--salvage" in report) == (1, True, True), report
    status, report = doctor(path, "--salvage", saved)
    assert (status, "saved without" in report) == (0, True), report
    assert doctor(saved)[0] == 0
    whole = {*(f"b{number}" for number in range(12)), "?", "!"}
    assert await texts(saved, "b") == (whole, ["queued"])
    rest, _ = await texts(saved, "a")
    assert {f"a{number}" for number in range(12)} | {"?"} <= rest, "all but the end is there"
    connection = sqlite3.connect(saved)
    assert connection.execute("SELECT generation FROM sessions WHERE id = 'gone'").fetchone() == (1,)
    connection.close()


def test_damaged_streams_are_named_and_what_can_be_read_of_them_is_saved(path, tmp_path):
    saved = tmp_path / "saved.db"
    assert "stream s/whole: 3 entries, 13 bytes" in doctor(path)[1]
    of_broken = "(SELECT id FROM streams WHERE path = 's/broken')"
    tamper(
        path, f"UPDATE stream_entries SET data = x'00' WHERE end_at = (SELECT max(end_at) FROM stream_entries"
        f" WHERE stream = {of_broken}) AND stream = {of_broken}",
    )  # fmt: skip
    status, report = doctor(path)
    assert (status, "it can be read up to byte 8 of 13" in report) == (1, True), report
    status, report = doctor(path, "--salvage", saved)
    assert (status, "not saved: what it is a fork of is damaged before that place" in report) == (0, True), report
    assert doctor(saved)[0] == 0
    server = Server(saved, *FLAGS)
    try:
        with server.http() as http:
            texts = {
                name: http.get(f"/v1/streams/s/{name}") for name in ("whole", "whole/fork", "broken", "broken/fork")
            }
            assert [answer.text for answer in texts.values()][:3] == ["one two three", "one two three", "one two "]
            assert texts["whole/fork"].headers["Stream-Closed"] == "true"
            assert texts["broken/fork"].status_code == 404
            batch = {"Content-Type": "text/plain", "Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
            assert http.post("/v1/streams/s/whole", headers=batch, content="two ").status_code == 204, "it is known"
            assert http.get("/v1/streams/s/whole").text == "one two three"
    finally:
        server.close()


async def test_a_session_without_any_rows_left_is_reported_and_the_others_are_saved(path, tmp_path):
    saved = tmp_path / "saved.db"
    tamper(path, *(f"UPDATE {table} SET checksum = 0 WHERE session = 'a'" for table in ("updates", "snapshots")))
    status, report = doctor(path, "--salvage", saved)
    assert (status, "nothing of it could be saved" in report) == (0, True)
    assert len((await texts(saved, "b"))[0]) == 14


def test_a_damaged_page_is_found(path):
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    for page in range(2 * size, len(data), size):  # the schema on the first page stays readable
        data[page : page + 64] = b"\xff" * 64
    path.write_bytes(data)
    status, report = doctor(path)
    assert status in (1, 2)
    assert "damaged" in report or "cannot be read" in report


def test_a_file_that_is_no_database_is_reported(tmp_path):
    (tmp_path / "text").write_text("hello, I am not a database" * 50)
    (tmp_path / "empty").touch()
    for name, said in (
        ("none", "there is no file"),
        ("text", "it is no SQLite database"),
        ("empty", "not a database of sessions"),
    ):
        status, report = doctor(tmp_path / name)
        assert (status, said in report) == (2, True), report


@contextmanager
def read_only(folder):
    """Let this process read a folder and not write to it, whoever runs it."""
    folder.chmod(0o555)
    user = os.geteuid()
    os.seteuid(user or NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_to_is_named_and_what_to_do(path):
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.chmod(shutil.copy(path, folder / "s.db"), 0o644)
        copy = folder.parent / f"{folder.name}.copy"
        with read_only(folder):
            for look in (lambda: examine(folder / "s.db", print), lambda: back_up(folder / "s.db", copy)):
                with pytest.raises(
                    StorageError, match=f"the folder {folder} cannot be written to.*to another folder"
                ):
                    look()
        (folder / "s.db").chmod(0)
        with read_only(folder), pytest.raises(StorageError, match="may not be read by this user"):
            examine(folder / "s.db", print)


def test_nothing_is_overwritten(path):
    status, report = doctor(path, "--salvage", path)
    assert (status, "exists; choose another name" in report) == (2, True)


def test_a_newer_database_is_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    status, report = doctor(path)
    assert (status, "upgrade" in report) == (2, True)


async def test_salvaging_keeps_the_versions_that_are_whole(tmp_path):
    path, saved = tmp_path / "s.db", tmp_path / "new.db"
    server = Server(path, "--default-agent", "")
    try:
        async with connect(server.url, "a") as peer, Past(server.url, "a") as past:
            for number in range(3):
                await peer.post(f"{number}", id=f"m{number}")
                await past.keep(f"v{number}")
            await peer.post("last", id="m3")
    finally:
        server.terminate()
    tamper(path, "UPDATE snapshots SET checksum = checksum + 1 WHERE name = 'v1'")
    status, said = doctor(path, "--salvage", saved)
    assert status == 0, said
    server = Server(saved, "--default-agent", "")
    try:
        async with connect(server.url, "a") as peer, Past(server.url, "a") as past:
            assert set(peer.view.messages.ids()) == {"m0", "m1", "m2", "m3"}
            versions = await past.versions()
            assert [version.name for version in versions] == ["v0", "v2", None]
            assert [message.id for message in (await past.read(versions[0].seq)).messages] == ["m0"]
            await peer.post("goes on")
    finally:
        server.close()


async def test_a_terminal_that_shows_ascii_only_is_told_all_the_same(tmp_path):
    """In the C locale without UTF-8, or in a pipe of some CI: what it cannot show is spelled."""
    path = tmp_path / "größe.db"
    server = Server(path, *FLAGS)
    async with connect(server.url, "Zürich", name="Ann") as peer:
        await peer.post("?", id="q")
    server.terminate()
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    copy = tmp_path / "größere.db"
    for arguments in (
        ("doctor", path),
        ("backup", path, copy),
        ("doctor", path, "--salvage", tmp_path / "größte.db"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "crdt_sessions_server", *map(str, arguments)],
            capture_output=True, timeout=PATIENCE, check=False, env=env,
        )  # fmt: skip
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode()
        assert b"gr\\" in done.stdout
    assert copy.exists()
    assert "Zürich" in doctor(copy)[1]
