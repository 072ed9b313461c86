"""A database of several servers, of which one may say nothing: the next one is asked, and what hangs is left."""

import asyncio
import contextlib
import itertools

import pytest

from crdt_sessions.errors import HeldElsewhere, StorageError, StoreUnavailable
from crdt_sessions.storage.postgres import PostgresStore, fencing, lane_connection, readers, servers
from crdt_sessions.storage.postgres.connection import close
from crdt_sessions.storage.postgres.nodes import Lease
from crdt_sessions.storage.postgres.servers import Servers, each_alone
from crdt_sessions.testing.store_contract import NOW, A, rows
from tests.postgres import VERSIONS, needs_postgres, shared_server
from tests.processes import PATIENCE, free_port
from tests.proxy import Proxy

pytestmark = [pytest.mark.processes, needs_postgres]

QUIET = Lease(beat_s=3600)
"""Nobody is found out by itself."""
_numbers = itertools.count()


@pytest.fixture
def server():
    return shared_server(VERSIONS[-1])


@pytest.fixture
def schema():
    return f"servers{next(_numbers)}"


@contextlib.asynccontextmanager
async def mute():
    """A server that takes connections and says nothing; yield its port, and the connections."""
    came = []

    async def hear(reader, writer):
        came.append(reader)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1], came


def url(*ports):
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"


@pytest.mark.parametrize(
    ("database", "each"),
    [
        ("postgresql://u:p@a:1,b:2/db?x=y", ["postgresql://u:p@a:1/db?x=y", "postgresql://u:p@b:2/db?x=y"]),
        ("postgresql://[::1]:1,b/db", ["postgresql://[::1]:1/db", "postgresql://b/db"]),
        ("postgresql:///db?host=/run/a,/run/b", ["postgresql:///db?host=/run/a,/run/b"]),
        ("postgresql://u@a/db", ["postgresql://u@a/db"]),
        ("postgresql://[a/db", ["postgresql://[a/db"]),
    ],
)
def test_a_url_of_several_servers_is_one_for_each(database, each):
    assert each_alone(database) == each


async def test_behind_a_server_that_says_nothing_the_next_one_is_asked_and_first_from_then_on(server):
    async with mute() as (port, came):
        several = Servers(url(port, server.port), "public")
        for _ in range(2):
            connection = await several.connect("test")
            assert await connection.fetchval("SELECT current_setting('port')") == str(server.port)
            await close(connection)
        assert len(came) == 1, "it was asked again"
        await asyncio.wait_for(came[0].read(), PATIENCE)  # it is not left connected


async def test_one_that_refuses_is_no_reason_to_wait(server, monkeypatch):
    monkeypatch.setattr(servers, "_HEAD_START_S", 3600)
    await close(await Servers(url(free_port(), server.port), "public").connect("test"))


async def test_there_is_an_end_to_waiting(monkeypatch):
    monkeypatch.setattr(servers, "CONNECT_S", 0.2)
    async with mute() as (port, _):
        for ports in ((port,), (port, free_port()), (free_port(), free_port())):
            with pytest.raises(StoreUnavailable):
                await Servers(url(*ports), "public").connect("test")


async def test_one_that_comes_too_late_is_not_kept(monkeypatch):
    """Both connect in the same instant: one is the caller's, the other one ends."""
    made, go = [], asyncio.Event()

    class Connection:
        ended = False

        def terminate(self):
            self.ended = True

    async def connect(url, **_):
        await go.wait()
        made.append(Connection())
        return made[-1]

    monkeypatch.setattr(servers, "connect", connect)
    monkeypatch.setattr(servers, "_HEAD_START_S", 0)
    asking = asyncio.create_task(Servers(url(1, 2), "public").connect("test"))
    for _ in range(20):
        await asyncio.sleep(0)
    go.set()
    kept = await asking
    assert [each.ended for each in made if each is not kept] == [True] * (len(made) - 1)
    assert not kept.ended


@pytest.mark.parametrize("within", [False, True])
async def test_what_hangs_when_a_server_falls_silent_is_left_and_asked_elsewhere(server, schema, monkeypatch, within):
    """A beat finds it out for all, also one that had its first answer already."""
    monkeypatch.setattr(lane_connection, "ANSWER_S", 3600)
    monkeypatch.setattr(readers, "_HUNG_S", 3600)
    async with Proxy(server.port) as line:
        database = url(line.port, server.port)
        async with PostgresStore(database, schema=schema, lease=Lease(beat_s=0.05, silent_s=3.0)) as store:
            await store.create(A, b"seed", generation=1, title=None, now=NOW)
            await store.append(A, rows(2, b"two"), now=NOW)
            assert len((await store.load(A)).rows) == 2
            if within:
                cut, look = asyncio.Event(), store.nodes.time.look

                async def look_cut_off(connection):
                    line.cut()
                    cut.set()
                    await look(connection)

                monkeypatch.setattr(store.nodes.time, "look", look_cut_off)
                await cut.wait()
            else:
                line.cut()
            reading = asyncio.create_task(store.get(A))
            await asyncio.wait_for(store.append(A, rows(3, b"three"), now=NOW), PATIENCE)
            assert (await asyncio.wait_for(reading, PATIENCE)).id == A
            assert [row.update for row in (await store.load(A)).rows] == [b"seed", b"two", b"three"]


async def test_a_node_that_died_is_found_out_without_a_beat_a_lease_or_a_second_connection(
    server, schema, monkeypatch
):
    """By who is told that nobody is at its address, also before it was seen for the first time."""
    pauses, connects = [], []
    async with PostgresStore(server.url(), schema=schema, lease=QUIET) as new:
        old = PostgresStore(server.url(), schema=schema, lease=QUIET)
        await old.__aenter__()
        await old.create(A, b"seed", generation=1, title=None, now=NOW)
        node = old.nodes.me
        assert new.nodes.silent(node), "it was never seen"
        with pytest.raises(HeldElsewhere):
            await new.append(A, rows(2, b"two"), now=NOW)
        old.nodes._beating.cancel()
        database = old._database
        for each in [*(one._connection for one in database._lanes), old.nodes]:
            each._connection and each._connection.terminate()

        connect = new.nodes._connect

        def looks(planned=fencing._LOOKS_S):
            for pause in planned:
                pauses.append(pause)
                yield pause

        def counted(name):
            connects.append(name)
            return connect(name)

        with monkeypatch.context() as patched:
            patched.setattr(fencing, "_LOOKS_S", looks())
            patched.setattr(new.nodes, "_connect", counted)
            await new.nodes.suspect(node)
            await new.nodes.suspect(node)
        assert pauses[0] == 0
        assert sum(fencing._LOOKS_S) < 1
        assert len(connects) == 1
        await new.append(A, rows(2, b"two"), now=NOW)
        with contextlib.suppress(StorageError):
            await old.close()


@pytest.mark.parametrize("is_back", [True, False])
async def test_after_an_outage_a_node_is_not_cut_off_because_another_one_was_quicker(server, schema, is_back):
    lost = []
    lease = Lease(beat_s=3600, silent_s=3600)
    async with PostgresStore(server.url(), schema=schema, lease=lease, fenced=lambda: lost.append(1)) as store:
        store.nodes.is_cut_off = _others_reach_it
        await store.nodes.looked()
        store.nodes._beating.cancel()  # of which what follows is a part
        store.nodes._serves_until = 1.0  # long ago
        if not is_back:
            store.nodes._connection.terminate()
            store.nodes._connect = _cannot
        await store.nodes._doubt()
        assert (lost, store.nodes.serves) == (([], True) if is_back else ([1], False))
        store.nodes._connect = store._database._connect


async def _others_reach_it():
    return True


async def _cannot(name):
    raise StoreUnavailable("nobody is there")
