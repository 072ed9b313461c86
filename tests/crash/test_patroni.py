"""Nodes on a PostgreSQL that Patroni looks after (docs/how-to/patroni.md): its primary is killed, cut off, or changed."""

import asyncio
from contextlib import suppress
from itertools import pairwise

import asyncpg
import pytest

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.postgres.servers import Servers
from tests.crash.nodes import World
from tests.crash.patroni import MISSING, Patroni
from tests.postgres import VERSIONS
from tests.processes import attempts
from tests.profiles import sample

pytestmark = [
    pytest.mark.crash,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.nightly,  # three servers, and minutes until they notice
    pytest.mark.skipif(bool(MISSING), reason=f"no {' and '.join(MISSING)}: apt-get install patroni etcd-server"),
    pytest.mark.skipif(15 not in VERSIONS, reason="no PostgreSQL 15"),
]
_PACE_S = 0.03
_BEHIND_S = 5.0
"""How much later nodes may write again. It is to be one second, and was 1.4 at the most on a busy machine."""
_ANSWER_S = 2.0
"""What is not answered by then is asked anew: a server that is cut off says nothing."""


class Plain:
    """A client of the database alone, which goes on as soon as there is a primary: what nodes are measured by."""

    def __init__(self, url):
        self._servers = Servers(url, "public")
        self.times = []
        self.port = 0
        """Of the server that it wrote to last."""

    async def write(self):
        connection, loop = None, asyncio.get_running_loop()
        insert = "INSERT INTO plain VALUES (now()) RETURNING inet_server_port()"
        try:
            while True:
                try:
                    if connection is None:
                        connection = await self._servers.connect("plain")
                        await connection.execute("CREATE TABLE IF NOT EXISTS plain (at timestamptz)")
                    hung = loop.call_later(_ANSWER_S, connection.terminate)
                    self.port = await connection.fetchval(insert)
                    hung.cancel()
                    self.times.append(loop.time())
                except (
                    OSError,
                    StorageError,
                    asyncpg.PostgresError,
                    asyncpg.InterfaceError,
                    asyncpg.InternalClientError,
                ):
                    if connection is not None:
                        connection.terminate()
                    connection = None
                await asyncio.sleep(_PACE_S)
        finally:
            if connection is not None:
                connection.terminate()


def longest(times, since):
    """Return how long the longest pause was that ended after a time."""
    return max(after - max(before, since) for before, after in pairwise(times) if after > since)


async def test_nothing_is_lost_and_writing_goes_on_after_patroni_has_a_primary(tmp_path, capsys):
    figures = []
    async with Patroni() as cluster, World(cluster, "postgres", tmp_path, 7, "--durability", "quorum") as world:
        await world.clients.progress()
        plain = Plain(cluster.url())
        writing = asyncio.create_task(plain.write())
        for how in ("switch_over", "kill", "cut_off") * sample("handings_over"):
            primary = await cluster.whole()
            world.history.faults.append(f"{how} {primary}")
            begun = asyncio.get_running_loop().time()
            mend = await getattr(cluster, how)(primary)
            for _ in attempts():
                if plain.port not in (0, cluster.ports[primary]):
                    break
                await asyncio.sleep(0.1)
            assert not writing.done(), writing
            assert plain.port != cluster.ports[primary], cluster.logs()
            await world.clients.progress()
            theirs = longest(plain.times, begun)
            ours = max(longest(times, begun) for times in world.clients.times.values())
            figures.append((how, round(theirs, 2), round(ours, 2)))
            mend()
        await cluster.whole()
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        assert await world.check() > 0
        assert not [line for line in world.logged() if "acknowledged" in line], world.history
    with capsys.disabled():
        print(f"\n{world.history.summary}; seconds without writes, of the database and of nodes: {figures}")
    assert all(ours <= theirs + _BEHIND_S for _, theirs, ours in figures), figures
