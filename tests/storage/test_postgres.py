"""PostgreSQL meets the contract of stores, in every version there is; its own promises beside it."""

import hashlib
from contextlib import asynccontextmanager

import pytest

from crdt_sessions.storage.postgres import PostgresStore
from crdt_sessions.testing.store_contract import DurableStoreContract
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
