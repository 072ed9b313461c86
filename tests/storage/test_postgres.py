"""PostgreSQL meets the contract of stores, in every version there is; its own promises beside it."""

import hashlib
from contextlib import asynccontextmanager

import asyncpg
import pytest

from crdt_sessions.ids import Seq, SessionId
from crdt_sessions.limits import NO_PAST, Retention
from crdt_sessions.storage import Row, Stream, StreamChange
from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.testing.store_contract import DurableStoreContract
from crdt_sessions.testing.store_contract.suite import NOW
from tests.postgres import every_version, everything, shared_server

pytestmark = pytest.mark.processes


@every_version
class TestPostgresStore(DurableStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, version):
        self.version, self.url = version, shared_server(version).url()

    def schema(self, path):
        return "t" + hashlib.sha1(str(path).encode()).hexdigest()[:20]

    @asynccontextmanager
    async def open(self, path):
        async with PostgresStore(self.url, schema=self.schema(path)) as store:
            yield store

    async def test_nothing_of_what_was_folded_away_or_deleted_is_in_any_row(self, tmp_path):
        a, b, folded, deleted = SessionId("a"), SessionId("b"), b"to be folded away " * 400, b"to be deleted " * 400
        async with self.open(tmp_path / "s.db") as store:
            for session, secret in {a: folded, b: deleted}.items():
                await store.create(session, b"seed", generation=1, title="a secret title", now=NOW)
                await store.append(session, [Row(Seq(2), secret)], now=NOW)
                snapshot = Row(Seq(2), secret)
                await store.replace_with_snapshot(session, snapshot, retention=Retention(), name="kept", now=NOW)
            await store.append(a, [Row(Seq(3), b"more")], now=NOW)
            there = everything(shared_server(self.version).sql, self.schema(tmp_path / "s.db"))
            assert (folded in there, deleted in there) == (True, True)
            await store.replace_with_snapshot(a, Row(Seq(3), b"the present"), retention=NO_PAST, now=NOW)
            await store.delete(b, now=NOW)
            left = everything(shared_server(self.version).sql, self.schema(tmp_path / "s.db"))
        assert b"the present" in left
        assert not any(secret in left for secret in (b"to be folded away", b"to be deleted"))

    async def test_a_piece_of_a_long_stream_is_read_without_the_rest(self, tmp_path, monkeypatch):
        fetched, fetch = [], asyncpg.Connection.fetch

        async def counting(connection, statement, *values, **named):
            rows = await fetch(connection, statement, *values, **named)
            fetched.extend(rows if "FROM stream_entries" in statement else ())
            return rows

        async with self.open(tmp_path / "s.db") as store:
            for tail in range(10, 510, 10):
                there = await store.stream("", "long", now=NOW)
                stream = Stream("", "long", "text/plain", "ann", NOW, NOW, tail=tail, id=there.id if there else 0)
                await store.alter_stream("", "long", lambda _, to=stream: StreamChange(to, b"0123456789"), now=NOW)
            found = await store.stream("", "long", now=NOW)
            monkeypatch.setattr(asyncpg.Connection, "fetch", counting)
            assert [entry.start for entry in await store.stream_entries(found, 100, most=30)] == [100, 110, 120]
            assert [entry.start for entry in await store.stream_entries(found, 105, most=3)] == [100]
            assert len(fetched) == 4
