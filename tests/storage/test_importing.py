"""A SQLite database becomes one in PostgreSQL: all of it, once, however often the copying dies."""

import asyncio
import contextlib
import io
import itertools
import os
import shutil
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from crdt_sessions.errors import DatabaseInUse, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.limits import Retention
from crdt_sessions.model import seed
from crdt_sessions.storage import AuditEntry, Producer, Row, SqliteStore, Stream, StreamChange
from crdt_sessions.storage.access import Revocation
from crdt_sessions.storage.deliveries import Delivery
from crdt_sessions.storage.runs import RunEntry
from crdt_sessions.storage.sqlite.lock import DatabaseLock
from crdt_sessions.storage.stored import Entries, WriterEntry
from crdt_sessions.storage.usage import Amounts, UsageKey
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions_server import cli
from tests.postgres import VERSIONS, needs_postgres, shared_server
from tests.processes import command

pytestmark = needs_postgres

NOW = Millis(1_000_000)
A, B, GONE = SessionId("a"), SessionId("t%2F1/b"), SessionId("gone")
ODD = "\x00 \x1a Zürich 😀"
TABLES = {
    "sessions": "id, generation, created_at, updated_at, status, title, lineage, last_seq, tenant, deleted_at",
    "updates": "(SELECT id FROM sessions WHERE sessions.sid = updates.sid), seq, at, checksum, waits, data",
    "snapshots": "(SELECT id FROM sessions WHERE sessions.sid = snapshots.sid), seq, at, checksum, size, name, data",
    "streams": "tenant, path, tail, closed, gone, (SELECT path FROM streams AS s WHERE s.id = streams.source)",
    "stream_entries": "(SELECT path FROM streams WHERE id = stream), end_at, data",
    "stream_producers": "(SELECT path FROM streams WHERE id = stream), producer, epoch, seq",
    "audit": "at, tenant, session, principal, action, detail",
    **dict.fromkeys(("runs", "writers", "steps", "deliveries", "members", "usage", "revocations", "agents"), "*"),
}
_numbers = itertools.count()


async def fill(path):
    async with SqliteStore(path) as store:
        for id, last in ((A, 12), (B, 3), (GONE, 1)):
            begin = seed(id, generation=1, created_at=NOW, client_id=9, title=ODD)
            await store.create(id, begin, generation=1, title=ODD, now=NOW)
            run = RunEntry("r1", "writer", True, NOW, Millis(NOW + 5), ODD, "queued", "writer")
            entries = Entries(
                (run, replace(run, id="r2", ready=False)),
                (WriterEntry(7, "ann", "r1", 1, None),),
                (Delivery(f"d-{id}", "hook", id, "run.queued", ODD, NOW, error="e", dead=id == A),),
                {UsageKey("ann", 3, ODD, "EUR"): Amounts(1, 2, 3, 4, 5, 6)},
            )
            for seq in range(2, last + 1):
                rows = [Row(Seq(seq), EMPTY_UPDATE, seq == last)]
                await store.append(id, rows, entries=entries if seq == 2 else Entries(), now=Millis(NOW + seq))
            await store.record_step(id, "r1", ODD, "{}")
            await store.set_member(id, "bob", "editor")
        for seq, name in ((4, ODD), (8, None)):
            row = Row(Seq(seq), EMPTY_UPDATE + bytes(0))
            await store.replace_with_snapshot(A, row, retention=Retention(), name=name, now=NOW)
        await store.delete(GONE, now=NOW)
        await store.revoke(Revocation("", "principal", "eve", NOW))
        await store.note_agents("", ["writer"], NOW)
        await store.record([AuditEntry(NOW, "", "a", "ann", f"did-{n}", f'"{ODD}"') for n in range(7)])
        source = Stream("", "source", "text/plain", "ann", NOW, NOW, tail=3, state='{"kept": true}')
        await store.alter_stream("", "source", lambda _: StreamChange(source, b"abc"), now=NOW)
        await store.alter_stream(
            "", "source", lambda facts: StreamChange(facts.stream, producer=Producer(1, 2)), now=NOW, producer=ODD
        )
        stored = await store.stream("", "source", now=NOW)
        fork = Stream("", "fork" + ODD, "text/plain", "bob", NOW, NOW, tail=5, source=stored.id, forked_at=2)
        await store.alter_stream("", fork.path, lambda _: StreamChange(fork, b"xyz"), now=NOW)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    path = tmp_path_factory.mktemp("importing") / "sessions.db"
    asyncio.run(fill(path))
    return path


@pytest.fixture
def file(filled, tmp_path):
    return Path(shutil.copy(filled, tmp_path / "sessions.db"))


class Target:
    def __init__(self):
        self.server, self.name = shared_server(VERSIONS[-1]), f"import{next(_numbers)}_{os.getpid()}"
        self.server.sql(f"CREATE DATABASE {self.name}")
        self.url = self.server.url(self.name)

    def content(self):
        """Everything, but for the numbers that the database gives."""

        async def read():
            connection = await asyncpg.connect(self.url, server_settings={"search_path": "crdt_sessions"})
            try:
                return {
                    table: sorted(
                        repr(tuple(row)) for row in await connection.fetch(f"SELECT {columns} FROM {table}")
                    )
                    for table, columns in TABLES.items()
                }
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, read()).result()

    def run(self, file, *flags, **env):
        arguments = ["import", str(file), "--database", self.url, *flags]
        if env:
            done = command(*arguments, **env)
            return done.returncode, done.stdout + done.stderr
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), ThreadPoolExecutor(1) as thread:
            return thread.submit(cli.main, arguments).result(), said.getvalue()


@pytest.fixture
def target():
    return Target()


async def test_everything_is_there_afterwards_and_the_file_is_as_it_was(file, target, tmp_path):
    from crdt_sessions.storage.postgres import PostgresStore

    before = file.read_bytes()
    status, said = target.run(file)
    assert (status, "read back and compared" in said) == (0, True), said
    for line in ("2 sessions", "2 streams", "7 audit"):
        assert f"  {line}\n" in said
    assert file.read_bytes() == before
    copy = tmp_path / "copy.db"
    copy.write_bytes(before)
    async with SqliteStore(copy) as old, PostgresStore(target.url) as new:
        for id in (A, B):
            assert await new.load(id) == await old.load(id)
            assert await new.history(id) == await old.history(id)
            assert await new.members(id) == await old.members(id)
            assert await new.step(id, "r1", ODD) == "{}"
        assert await new.load_version(A, Seq(4)) == await old.load_version(A, Seq(4))
        assert await new.last_generation(GONE) == 1
        assert await new.get(GONE) is None
        for method in (lambda s: s.revocations(), lambda s: s.agents(""), lambda s: s.usage("")):
            assert await method(new) == await method(old)
        for dead in (True, False):
            wanted = await old.deliveries(dead=dead, limit=9)
            assert len(wanted) == 1
            assert await new.deliveries(dead=dead, limit=9) == wanted
        assert await new.audit("", limit=9) == await old.audit("", limit=9)
        for path in ("source", "fork" + ODD):
            stream = await new.stream("", path, now=NOW)
            assert replace(stream, id=0, source=None) == replace(
                await old.stream("", path, now=NOW), id=0, source=None
            )
            data = [entry.data for entry in await new.stream_entries(stream, 0, most=99)]
            assert data == ([b"abc"] if path == "source" else [b"ab", b"xyz"])
        await new.append(A, [Row(Seq(13), EMPTY_UPDATE)], now=NOW)  # it goes on there


def test_one_that_dies_at_each_step_is_gone_on_with_and_copies_nothing_twice(file, target):
    deaths = 0
    while True:
        status, said = target.run(file, CRDT_SESSIONS_FAILPOINTS="import:2")
        if status == 0:
            break
        assert status == -signal.SIGKILL, said
        deaths += 1
        assert deaths < 20
    assert deaths >= 4, "two sessions, usage, two streams, the audit log"
    at_once = Target()
    assert at_once.run(file)[0] == 0
    assert target.content() == at_once.content()
    status, said = target.run(file)
    assert (status, "3 sessions had been copied before" in said) == (0, True), said
    assert target.content() == at_once.content()


def test_a_dry_run_says_how_much_there_is_and_stores_nothing(file, target):
    status, said = target.run(file, "--dry-run")
    assert (status, "  12 updates" not in said, "  2 sessions\n" in said, "nothing was" in said) == (0,) + (True,) * 3
    assert target.server.sql("SELECT 1 FROM pg_namespace WHERE nspname = 'crdt_sessions'", database=target.name) == []


async def test_what_is_in_the_way_is_named_and_nothing_is_copied(file, target, tmp_path):
    other = tmp_path / "other.db"
    async with SqliteStore(other) as store:
        for id in (SessionId("c"), A):
            await store.create(id, EMPTY_UPDATE, generation=1, title=None, now=Millis(NOW + 1))
    assert target.run(other)[0] == 0
    before = target.content()
    status, said = target.run(file)
    assert (status, "other sessions of the same names: a:" in said) == (2, True), said
    assert target.content() == before


async def test_a_file_that_was_written_to_after_it_was_moved_is_refused(file, target):
    assert target.run(file)[0] == 0
    async with SqliteStore(file) as store:
        await store.append(B, [Row(Seq(4), EMPTY_UPDATE)], now=NOW)
    before = target.content()
    status, said = target.run(file)
    assert (status, "was written to since" in said) == (2, True), said
    assert target.content() == before


def test_a_file_in_use_a_damaged_one_and_one_of_an_older_release_are_refused(file, target):
    lock = DatabaseLock(file)
    lock.acquire()
    status, said = target.run(file)
    lock.release()
    assert (status, "in use by another process" in said) == (2, True), said
    connection = sqlite3.connect(file)
    connection.execute("UPDATE updates SET data = x'01' WHERE session = 'a' AND seq = 10")
    connection.commit()
    status, said = target.run(file)
    assert (status, "--salvage" in said, "row 10" in said) == (2, True, True), said
    connection.execute("PRAGMA user_version = 3")
    connection.commit()
    connection.close()
    status, said = target.run(file)
    assert (status, "older release" in said) == (2, True), said
    status, said = target.run(file.with_name("none.db"))
    assert (status, "there is no file" in said) == (2, True), said
    assert target.server.sql("SELECT 1 FROM pg_namespace WHERE nspname = 'crdt_sessions'", database=target.name) == []


async def test_what_is_read_back_otherwise_is_not_stored(file, target, monkeypatch):
    """A store that lies, such as one behind something that rewrites text, is found out."""
    from crdt_sessions.storage.postgres import copying
    from crdt_sessions.storage.postgres.importing import Import

    as_it_is = copying.Table._as_here
    monkeypatch.setattr(copying.Table, "_as_here", staticmethod(lambda row, flags, texts: as_it_is(row, flags, [])))
    with Import(file, target.url) as moving, pytest.raises(StorageError):
        await moving.run()
    with pytest.raises(DatabaseInUse), Import(file, target.url), Import(file, target.url):
        pass
