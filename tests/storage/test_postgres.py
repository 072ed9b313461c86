"""PostgreSQL meets the contract of stores, in every version there is; its own promises beside it."""

import hashlib
from contextlib import asynccontextmanager

import asyncpg
import pytest

from crdt_sessions.storage import Stream, StreamChange
from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.testing.store_contract import DurableStoreContract
from crdt_sessions.testing.store_contract.suite import NOW
from tests.postgres import every_version, shared_server

pytestmark = pytest.mark.processes


@every_version
class TestPostgresStore(DurableStoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, version):
        self.url = shared_server(version).url()

    @asynccontextmanager
    async def open(self, path):
        schema = "t" + hashlib.sha1(str(path).encode()).hexdigest()[:20]
        async with PostgresStore(self.url, schema=schema) as store:
            yield store

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
