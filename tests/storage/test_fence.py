"""A session has one writer, and an answer that was lost is looked up: against real servers, whose connections are cut."""

import asyncio
import contextlib
import itertools
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import asyncpg
import pytest

from crdt_sessions.errors import (
    DamagedLog,
    Fenced,
    ForeignDatabase,
    HeldElsewhere,
    NewerSchema,
    Regressed,
    StorageError,
    StoreUnavailable,
)
from crdt_sessions.ids import Seq, session_id
from crdt_sessions.storage import Entries, Row
from crdt_sessions.storage.addresses import shown
from crdt_sessions.storage.postgres import PostgresStore, fencing, heads, lane, lane_connection, nodes
from crdt_sessions.storage.postgres import rows as stored_rows
from crdt_sessions.storage.postgres.errors import Again
from crdt_sessions.storage.postgres.loads import Loads
from crdt_sessions.storage.postgres.nodes import Lease
from crdt_sessions.testing import settle
from crdt_sessions.testing.store_contract import NOW, A, B, rows, run
from tests.postgres import PostgresServer, every_version, shared_server
from tests.processes import PATIENCE, attempts, free_port

pytestmark = [pytest.mark.processes, every_version]

QUIET = Lease(beat_s=3600)
"""Nobody is found out by itself."""
QUICK = Lease(beat_s=0.05, silent_s=1.0, absent_s=0.3)
BEATING = Lease(beat_s=0.05)
"""It is soon known of everybody that they live."""
_numbers = itertools.count()


@pytest.fixture
def server(version):
    return shared_server(version)


@pytest.fixture
def schema():
    return f"fence{next(_numbers)}"


@pytest.fixture
async def sql(server, schema):
    """Executes statements from outside."""
    connection = await asyncpg.connect(server.url(), server_settings={"search_path": schema})
    yield connection.fetch
    await connection.close()


@contextlib.asynccontextmanager
async def opened(server, schema, lease=QUIET, **settings):
    async with PostgresStore(server.url(), schema=schema, lease=lease, **settings) as store:
        yield store


async def written(store, session=A):
    return [row.update for row in (await store.load(session)).rows]


def me(store):
    return store._database.nodes.me


async def fence(store, node):
    await store._database.nodes._fence(node)


async def backends(sql, node):
    found = await sql("SELECT pid FROM pg_stat_activity WHERE application_name = $1", f"crdt-sessions/{node}")
    return [pid for (pid,) in found]


async def test_a_node_that_was_fenced_stores_nothing_and_its_sessions_go_on_elsewhere(server, schema):
    lost = []
    async with opened(server, schema, fenced=lambda: lost.append(1)) as old, opened(server, schema) as new:
        await old.create(A, b"seed", generation=1, title=None, now=NOW)
        await old.append(A, rows(2, b"two"), now=NOW)
        with pytest.raises(HeldElsewhere):
            await new.append(A, rows(3, b"x"), now=NOW)
        zombie = me(old)
        await fence(new, zombie)
        assert await written(new) == [b"seed", b"two"]
        await new.append(A, rows(3, b"three"), now=NOW)
        with pytest.raises(Fenced):
            await old.append(A, rows(3, b"of a zombie"), now=NOW)
        assert lost == [1]
        with pytest.raises(HeldElsewhere):
            await old.append(A, rows(4, b"of a zombie"), now=NOW)
        assert me(old) != zombie
        await old.create(B, b"seed", generation=1, title=None, now=NOW)  # it goes on as another node
        assert await written(new) == [b"seed", b"two", b"three"]


async def test_a_fence_waits_for_what_is_under_way_and_the_next_owner_sees_it(server, schema, sql):
    async with opened(server, schema) as old, opened(server, schema) as new:
        await old.create(A, b"seed", generation=1, title=None, now=NOW)
        await old.append(A, rows(2, b"two"), now=NOW)
        node = me(old)
        other = await asyncpg.connect(server.url(), server_settings={"search_path": schema})
        holding = other.transaction()
        await holding.start()
        await other.execute("UPDATE lanes SET commits = commits WHERE node = $1", node)  # as a write does
        fencing = asyncio.create_task(fence(new, node))
        blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FROM lanes WHERE%'"
        while not await sql(blocked):
            await asyncio.sleep(0)
        behind = asyncio.ensure_future(old.append(A, rows(3, b"behind the fence"), now=NOW))
        await holding.rollback()
        await fencing
        with pytest.raises(Fenced):
            await behind
        await other.close()
        assert await written(new) == [b"seed", b"two"]


async def test_a_transaction_that_was_left_open_holds_up_no_fence(server, schema):
    async with opened(server, schema) as old, opened(server, schema) as new:
        await old.create(A, b"seed", generation=1, title=None, now=NOW)
        node = me(old)
        settings = {"search_path": schema, "application_name": f"crdt-sessions/{node}"}
        left = await asyncpg.connect(server.url(), server_settings=settings)
        await left.execute("BEGIN")
        await left.execute("UPDATE lanes SET commits = commits WHERE node = $1", node)
        async with asyncio.timeout(PATIENCE):
            await fence(new, node)
        while not left.is_closed():
            await asyncio.sleep(0)
        assert await written(new) == [b"seed"]


async def test_what_was_written_between_the_look_and_the_taking_is_seen(server, schema, monkeypatch):
    """Another node has it meanwhile, writes, and leaves it as free as it was."""
    async with opened(server, schema) as one, opened(server, schema) as other:
        await one.create(A, b"seed", generation=1, title=None, now=NOW)
        await one.release(A)
        fetch = lane.Lane.fetch

        async def fetch_late(self, statement, *values):
            found = await fetch(self, statement, *values)
            if statement is lane._LOOK:
                monkeypatch.setattr(lane.Lane, "fetch", fetch)
                await other.append(A, rows(2, b"two"), now=NOW)
                await other.release(A)
            return found

        monkeypatch.setattr(lane.Lane, "fetch", fetch_late)
        await one.append(A, rows(3, b"three"), now=NOW)
        assert await written(one) == [b"seed", b"two", b"three"]


async def test_a_session_is_free_behind_everything_that_was_written_of_it(server, schema, sql):
    async with opened(server, schema) as old, opened(server, schema) as new:
        await old.create(A, b"seed", generation=1, title=None, now=NOW)
        other = await asyncpg.connect(server.url(), server_settings={"search_path": schema})
        await other.execute("BEGIN")
        number = old._database._lanes.index(old._database._lane(A))
        await other.execute("UPDATE lanes SET commits = commits WHERE node = $1 AND lane = $2", me(old), number)
        appending = old.append(A, rows(2, b"two"), now=NOW)
        releasing = asyncio.ensure_future(old.release(A))
        while not await sql("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%updates%'"):
            await asyncio.sleep(0)
        await old._database._lanes[number - 1].submit(lane.nothing)  # the other lane has done all it was to do
        assert (await sql("SELECT owner FROM sessions"))[0][0] == me(old)
        await other.execute("ROLLBACK")
        await other.close()
        await asyncio.gather(appending, releasing)
        assert await written(new) == [b"seed", b"two"]


async def test_a_write_that_waits_for_a_fence_stores_nothing_though_its_connection_lives(server, schema, sql):
    """What a statement sees is older than its wait; the lane's row is looked at again after it."""
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await store.append(A, rows(2, b"two"), now=NOW)
        node = me(store)
        other = await asyncpg.connect(server.url(), server_settings={"search_path": schema})
        fencing = other.transaction()
        await fencing.start()
        await other.execute("UPDATE lanes SET fenced = true WHERE node = $1", node)
        behind = asyncio.ensure_future(store.append(A, rows(3, b"behind the fence"), now=NOW))
        blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1"
        while not await sql(blocked, f"crdt-sessions/{node}"):
            await asyncio.sleep(0)
        await fencing.commit()
        await other.close()
        with pytest.raises(Fenced):
            await behind
        assert await sql("SELECT FROM updates WHERE seq = 3") == []


async def test_what_was_committed_without_an_answer_is_found_and_not_written_twice(server, schema, sql):
    """Connections are ended at any moment while one writes: every append succeeds, once."""
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        node = me(store)

        async def cut(turns):
            for _ in range(turns):  # somewhere between the statement's way there and its answer's way back
                await asyncio.sleep(0)
            for pid in await backends(sql, node):
                await sql("SELECT pg_terminate_backend($1)", pid)

        for seq in range(2, 40):
            entries = Entries(runs=[run(f"r{seq}")])
            await asyncio.gather(store.append(A, rows(seq, b"%d" % seq), entries=entries, now=NOW), cut(seq % 8))
        stored = await store.load(A)
        assert [row.update for row in stored.rows] == [b"seed", *(b"%d" % seq for seq in range(2, 40))]
        assert len(stored.runs) == 38


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_connection_lost_around_the_commit_is_looked_up(server, schema, monkeypatch, moment):
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await store.append(A, rows(2, b"two"), now=NOW)
        ask, cuts = lane_connection.LaneConnection._ask, []

        async def cut_once(self, connection, statement, values):
            if "INSERT INTO updates" not in statement or cuts:
                return await ask(self, connection, statement, values)
            cuts.append(statement)
            if moment == "after":
                await ask(self, connection, statement, values)
            connection.terminate()
            return await ask(self, connection, statement, values)

        monkeypatch.setattr(lane_connection.LaneConnection, "_ask", cut_once)
        await store.append(A, rows(3, b"three"), now=NOW)
        await store.append(A, rows(4, b"four"), now=NOW)
        assert len(cuts) == 1
        assert await written(store) == [b"seed", b"two", b"three", b"four"]


async def test_statements_that_are_cancelled_are_written_again(server, schema, sql):
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        node = me(store)
        other = await asyncpg.connect(server.url(), server_settings={"search_path": schema})
        holding = other.transaction()
        await holding.start()
        await other.execute("UPDATE lanes SET commits = commits WHERE node = $1", node)
        appending = asyncio.ensure_future(store.append(A, rows(2, b"two"), now=NOW))
        blocked = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1"
        while not (found := await sql(blocked, f"crdt-sessions/{node}")):
            await asyncio.sleep(0)
        await sql("SELECT pg_cancel_backend($1)", found[0][0])
        await asyncio.sleep(0)
        await holding.rollback()
        await other.close()
        await appending
        assert await written(store) == [b"seed", b"two"]


async def test_where_a_log_ends_is_told_though_that_statement_is_cancelled(server, schema, sql):
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        other = await asyncpg.connect(server.url(), server_settings={"search_path": schema})
        holding = other.transaction()
        await holding.start()
        await other.execute("SELECT FROM sessions FOR NO KEY UPDATE")
        await store.append(A, rows(2, b"two"), now=NOW + 5)
        asked = asyncio.ensure_future(store.get(A))
        blocked = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1"
        while not (found := await sql(blocked, f"crdt-sessions/{me(store)}")):
            await asyncio.sleep(0)
        await sql("SELECT pg_cancel_backend($1)", found[0][0])
        await holding.rollback()
        await other.close()
        assert (await asked).updated_at == NOW + 5
        assert [tuple(each) for each in await sql("SELECT last_seq, updated_at FROM sessions")] == [(2, NOW + 5)]


async def test_nothing_is_told_of_rows_that_a_server_has_lost(server, schema, sql):
    async with opened(server, schema, lanes=1) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await store.append(A, rows(2, b"two"), now=NOW + 5)
        await sql("DELETE FROM updates WHERE seq = 2")  # as an asynchronous failover does
        await sql("UPDATE lanes SET commits = commits - 1 WHERE node = $1", me(store))
        for pid in await backends(sql, me(store)):
            await sql("SELECT pg_terminate_backend($1)", pid)
        (only,) = store._database._lanes
        while not only._connection._connection.is_closed():
            await asyncio.sleep(0)
        await store.check()
        assert not only.lags()
        assert [tuple(each) for each in await sql("SELECT last_seq, updated_at FROM sessions")] == [(1, NOW)]


WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


async def commits_wait(server, connection):
    """Return once commits wait for a standby: a process of the server's own has them do so, some time after a reload."""
    probe = await asyncpg.connect(server.url())
    found = []
    while not found:
        commit = asyncio.ensure_future(probe.execute("SELECT pg_logical_emit_message(true, 'probe', 'x')"))
        while not (found or commit.done()):
            found = await connection.fetch(WAITING)
        for (pid,) in found:
            await connection.execute("SELECT pg_cancel_backend($1)", pid)
        await commit
    await probe.close()


async def test_a_cancelled_wait_for_a_standby_is_no_acknowledgement(version, schema, monkeypatch):
    """The server says so in a warning only; the append ends when a standby has it, and not before."""
    monkeypatch.setattr(lane_connection, "PATIENCE_S", 60.0)
    server = PostgresServer(shared_server(version).programs)
    try:
        async with opened(server, schema) as store:
            await store.create(A, b"seed", generation=1, title=None, now=NOW)
            await store.append(A, rows(2, b"two"), now=NOW)
            connection = await asyncpg.connect(server.url())
            await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (nobody)'")
            await connection.execute("SELECT pg_reload_conf()")
            await commits_wait(server, connection)
            appending = asyncio.ensure_future(store.append(A, rows(3, b"three"), now=NOW))
            cancelled = set()
            while len(cancelled) < 2:  # the append itself, and the look at what became of it
                for (pid,) in await connection.fetch(WAITING):
                    await connection.execute("SELECT pg_cancel_backend($1)", pid)
                    cancelled.add(pid)
                assert not appending.done()
                await asyncio.sleep(0)
            await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            await connection.execute("SELECT pg_reload_conf()")
            await connection.close()
            await appending
            assert await written(store) == [b"seed", b"two", b"three"]
    finally:
        server.close()


async def test_less_than_was_acknowledged_is_told_once_and_then_gone_on_from(server, schema, sql):
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        await store.append(A, rows(2, b"two"), now=NOW)
        await store.append(A, rows(3, b"three"), now=NOW)
        await store.get(A)
        await sql("DELETE FROM updates WHERE seq = 3")  # as an asynchronous failover does
        await sql("UPDATE sessions SET last_seq = 2")
        for pid in await backends(sql, me(store)):
            await sql("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(Regressed) as caught:
            await store.append(A, rows(4, b"four"), now=NOW)
        assert (caught.value.acknowledged, caught.value.found) == (3, 2)
        assert await written(store) == [b"seed", b"two"]
        await store.append(A, rows(3, b"again"), now=NOW)


@pytest.mark.parametrize("wanted", ["to be read", "to be written"])
async def test_less_than_was_acknowledged_is_told_though_the_statement_beside_it_is_tried_again(
    server, schema, sql, monkeypatch, wanted
):
    async with opened(server, schema, lanes=1) as store:
        for name in (A, B):
            await store.create(name, b"seed", generation=1, title=None, now=NOW)
        await store.append(A, rows(2, b"two"), now=NOW)
        await store.release(B)  # and `sessions` is told of rows
        await sql("DELETE FROM updates WHERE seq = 2")  # as an asynchronous failover does
        await sql("UPDATE sessions SET last_seq = 1")
        for pid in await backends(sql, me(store)):
            await sql("SELECT pg_terminate_backend($1)", pid)
        write, given_up = lane_connection.LaneConnection.write, []

        async def give_up_once(self, statement, *values):
            if (statement is lane._TAKE or "INSERT INTO updates" in statement) and not given_up:
                given_up.append(statement)
                raise Again("a deadlock")
            await write(self, statement, *values)

        monkeypatch.setattr(lane_connection.LaneConnection, "write", give_up_once)
        if wanted == "to be read":
            told, beside = await asyncio.gather(store.load(A), store.load(B), return_exceptions=True)
            assert [row.update for row in beside.rows] == [b"seed"]
        else:
            appended = [store.append(A, rows(3, b"three"), now=NOW), store.append(B, rows(2, b"two"), now=NOW)]
            told, beside = await asyncio.gather(*appended, return_exceptions=True)
            assert beside is None
        assert len(given_up) == 1
        assert isinstance(told, Regressed)
        assert await written(store) == [b"seed"]
        await store.append(A, rows(2, b"again"), now=NOW)


async def test_a_node_without_connections_is_taken_over(server, schema):
    """As after SIGKILL: nothing was released, and nobody speaks for the node any more."""
    async with opened(server, schema, QUICK) as new:
        old = PostgresStore(server.url(), schema=schema, lease=QUIET)
        await old.__aenter__()
        await old.create(A, b"seed", generation=1, title=None, now=NOW)
        database = old._database
        database.nodes._beating.cancel()
        for each in [*(one._connection for one in database._lanes), database.nodes]:
            each._connection and each._connection.terminate()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(HeldElsewhere):
                    assert await written(new) == [b"seed"]
                    break
        with pytest.raises(Fenced):
            await old.append(A, rows(2, b"of a zombie"), now=NOW)
        await old.close()


async def test_a_node_beats_on_while_it_fences_another_however_long_that_takes(server, schema, sql):
    async with opened(server, schema, lease=QUICK) as old, opened(server, schema, lease=QUICK) as new:
        await old.create(A, b"seed", generation=1, title=None, now=NOW)
        node, lives = me(old), await new._database.nodes.joined()
        other = await asyncpg.connect(server.url(), server_settings={"search_path": schema})
        holding = other.transaction()
        await holding.start()
        await other.execute("UPDATE lanes SET commits = commits WHERE node = $1", node)  # as a write does
        old._database.nodes._beating.cancel()
        relation = f"relation = '{schema}.lanes'::regclass"
        fencing = (
            "SELECT a.pid FROM pg_stat_activity a JOIN pg_locks USING (pid)"
            f" WHERE {relation} AND a.wait_event_type = 'Lock' AND a.application_name = 'crdt-sessions'"
        )

        async def beats():
            return (await sql("SELECT n FROM beats WHERE node = $1", lives))[0]["n"]

        async with asyncio.timeout(PATIENCE):
            while not (waits := await sql(fencing)):
                await asyncio.sleep(0)
            seen, since = await beats(), asyncio.get_running_loop().time()
            while await beats() < seen + 5 or asyncio.get_running_loop().time() < since + 1.5 * QUICK.silent_s:
                await asyncio.sleep(0)
        assert await sql(fencing) == waits, "it is the same fence, and waits still"
        assert [peer.node for peer in new._database.nodes.others] == [node], "which is not gone before"
        await holding.rollback()
        await other.close()
        async with asyncio.timeout(PATIENCE):
            while new._database.nodes.others:
                await asyncio.sleep(0)
        await new.append(A, rows(2, b"two"), now=NOW)
        assert await written(new) == [b"seed", b"two"]


async def test_a_node_beats_on_after_a_defect_in_who_looks_at_the_nodes(server, schema, caplog):
    looks, thrice = [], asyncio.Event()

    def look(living):
        looks.append(living)
        if len(looks) == 3:
            thrice.set()
        raise KeyError("a defect")

    async with opened(server, schema, BEATING) as store:
        store.nodes.on_look = look
        await asyncio.wait_for(thrice.wait(), PATIENCE)
    assert "a defect" in caplog.text


async def test_a_node_that_slept_knows_before_it_asks_that_it_may_be_gone(server, schema, monkeypatch):
    async with opened(server, schema, lease=Lease(beat_s=3600, silent_s=3600)) as store:
        assert store.nodes.serves
        awake = nodes.steady_ns
        monkeypatch.setattr(nodes, "steady_ns", lambda: awake() + 3600 * 10**9)
        assert not store.nodes.serves


async def test_a_session_that_is_left_is_free_at_once(server, schema):
    async with opened(server, schema) as new:
        async with opened(server, schema) as old:
            await old.create(A, b"seed", generation=1, title=None, now=NOW)
            await old.append(A, rows(2, b"two"), entries=Entries(runs=[run("r", ready=True, due_at=1)]), now=NOW)
            assert (await new.take_due(NOW, limit=9), await new.ready_runs(["writer"], limit=1)) == ([], [])
        assert await new.take_due(NOW, limit=9) == [A]
        await new.append(A, rows(3, b"three"), now=NOW)


async def test_many_sessions_are_free_by_one_commit(server, schema, sql):
    names = [session_id(f"s{number}") for number in range(50)]
    async with opened(server, schema) as old, opened(server, schema) as new:
        for name in names:
            await old.create(name, b"seed", generation=1, title=None, now=NOW)
            old.append(name, rows(2, b"two"), now=NOW)
        await asyncio.gather(
            *(each.submit(lane.nothing) for each in old._database._lanes)
        )  # `sessions` is told of rows
        commits = "SELECT sum(commits) FROM lanes WHERE node = $1"
        before = (await sql(commits, me(old)))[0][0]
        await asyncio.gather(*map(old.release, names))
        assert (await sql(commits, me(old)))[0][0] - before == len(old._database._lanes)
        assert [await written(new, name) for name in names] == [[b"seed", b"two"]] * len(names)


async def test_many_sessions_that_are_wanted_at_once_are_taken_by_one_commit_and_read_together(
    server, schema, sql, monkeypatch
):
    names = [session_id(f"s{number}") for number in range(50)]
    async with opened(server, schema, BEATING) as old, opened(server, schema, BEATING) as new:
        for name in (*names, A):
            await old.create(name, b"seed", generation=1, title=None, now=NOW)
        await asyncio.gather(*map(old.release, names))
        commits = "SELECT sum(commits) FROM lanes WHERE node = $1"
        before, readings = (await sql(commits, me(new)))[0][0], []
        read = stored_rows.load_all

        async def load_all(connection, sessions):
            readings.append(len(sessions))
            return await read(connection, sessions)

        monkeypatch.setattr(stored_rows, "load_all", load_all)
        loading = asyncio.gather(*map(new.load, (*names, A, session_id("none"))), return_exceptions=True)
        *found, held, none = await loading
        assert [[row.update for row in each.rows] for each in found] == [[b"seed"]] * len(names)
        assert isinstance(held, HeldElsewhere)
        assert none is None
        assert (await sql(commits, me(new)))[0][0] - before == len(new._database._lanes)
        assert sum(readings) == len(names)
        assert len(readings) < len(names) / 2


async def test_of_sessions_that_are_read_together_a_damaged_one_harms_itself_only(server, schema, sql):
    names = [session_id(f"s{number}") for number in range(9)]
    async with opened(server, schema) as store:
        for name in names:
            await store.create(name, b"seed", generation=1, title=None, now=NOW)
        damage = "UPDATE updates SET data = 'lees' FROM sessions WHERE sessions.sid = updates.sid AND id = $1"
        await sql(damage, names[4])
        found = await asyncio.gather(*map(store.load, names), return_exceptions=True)
        assert isinstance(found.pop(4), DamagedLog)
        assert [[row.update for row in each.rows] for each in found] == [[b"seed"]] * 8


async def test_who_comes_when_all_readings_end_is_read_without_anybody_else(server, schema):
    """Between the end of a task and the loop's taking note of it."""
    loop, gate, readings = asyncio.get_running_loop(), asyncio.get_running_loop().create_future(), []

    async def view(read):
        readings.append(read)
        await gate
        return {}

    loads = Loads(view)
    others = []
    for name in ("one", "other"):
        others.append(asyncio.create_task(loads.load(session_id(name))))
        await settle()
    assert len(readings) == 2
    late = loads.load(B)
    gate.set_result(None)
    loop.call_soon(late.send, None)  # both have just ended
    await settle()
    assert len(readings) == 3
    late.close()
    assert await asyncio.gather(*others) == [None, None]


async def test_a_defect_while_sessions_are_read_leaves_nobody_waiting(server, schema, caplog):
    """Nor those who come when as many are read as are at once."""

    async def view(read):
        raise KeyError("a defect")

    loads = Loads(view)
    many = [asyncio.create_task(loads.load(session_id(f"s{number}"))) for number in range(40)]
    await settle()
    assert {type(each.exception()) for each in many if each.done()} == {StorageError}
    assert all(each.done() for each in many)
    assert "a defect" in caplog.text


async def test_a_defect_while_sessions_are_taken_fails_the_one_that_has_it(server, schema, monkeypatch):
    async with opened(server, schema, lanes=1) as store:
        names = [session_id(f"s{number}") for number in range(4)]
        for name in names:
            await store.create(name, b"seed", generation=1, title=None, now=NOW)
            await store.release(name)
        read = heads.Heads.read

        def read_most(self, session, head):
            if session == names[1]:
                raise KeyError("a defect")
            return read(self, session, head)

        monkeypatch.setattr(heads.Heads, "read", read_most)
        loaded = await asyncio.gather(*map(store.load, names), return_exceptions=True)
        assert isinstance(loaded.pop(1), StorageError)
        assert [[row.update for row in each.rows] for each in loaded] == [[b"seed"]] * 3
        told = await asyncio.gather(
            *(store.append(name, rows(2, b"two"), now=NOW) for name in names), return_exceptions=True
        )
        assert isinstance(told.pop(1), StorageError)
        assert told == [None] * 3


async def test_of_two_nodes_that_want_the_same_sessions_in_another_order_one_has_each(server, schema):
    names = [session_id(f"s{number}") for number in range(40)]
    async with opened(server, schema, BEATING) as one, opened(server, schema, BEATING) as other:
        for name in names:
            await one.create(name, b"seed", generation=1, title=None, now=NOW)
        for _ in range(5):
            await asyncio.gather(*(each.release(name) for name in names for each in (one, other)))
            asked = [each.load(name) for pair in zip(names, reversed(names), strict=True)
                     for each, name in zip((one, other), pair, strict=True)]  # fmt: skip
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(not isinstance(each, HeldElsewhere) for each in found) == len(names), found


async def test_who_counts_a_node_as_gone_looks_at_its_sessions_only(server, schema, sql):
    async with opened(server, schema):
        await sql(
            "INSERT INTO sessions (id, generation, created_at, updated_at, status, lineage, tenant, last_seq, owner)"
            " SELECT 's' || n, 1, 0, 0, 'active', 's', '', 0, n % 500 FROM generate_series(1, 10000) AS n"
        )
        await sql("ANALYZE sessions")
        plan = "\n".join(line for (line,) in await sql("EXPLAIN " + fencing._TELL.replace("$1", "7")))
        assert "sessions_of_node" in plan, plan
        assert "Seq Scan on sessions" not in plan, plan


async def test_a_run_that_changes_twice_in_one_commit_is_stored_as_it_was_last(server, schema, sql):
    """No statement may touch a row twice."""
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=None, now=NOW)
        statuses = ("queued", "running", "completed")
        appends = [
            store.append(A, rows(seq, b"x"), entries=Entries(runs=[run("r", status=status)]), now=NOW)
            for seq, status in enumerate(statuses, 2)
        ]
        commits = "SELECT sum(commits) FROM lanes"
        before = await sql(commits)
        await asyncio.gather(*appends)
        assert (await sql(commits))[0][0] == before[0][0] + 1
        assert [tuple(each) for each in await sql("SELECT id, status FROM runs")] == [("r", "completed")]


async def test_a_server_that_restarts_is_found_again(version, schema, monkeypatch):
    server = PostgresServer(shared_server(version).programs)
    try:
        async with opened(server, schema) as store:
            await store.create(A, b"seed", generation=1, title=None, now=NOW)
            await store.append(A, rows(2, b"two"), now=NOW)
            server.kill()
            with monkeypatch.context() as impatient:
                impatient.setattr(lane_connection, "PATIENCE_S", 0.1)
                with pytest.raises(StoreUnavailable):
                    await store.append(A, rows(3, b"three"), now=NOW)
                with pytest.raises(StoreUnavailable):
                    await store.check()
            await asyncio.to_thread(server.start)
            await store.check()
            assert await written(store) == [b"seed", b"two"]
            await store.append(A, rows(3, b"three"), now=NOW)
    finally:
        server.close()


async def test_every_text_comes_back_as_it_was(server, schema):
    strange = "a\x00b\x1a0\x1a"
    async with opened(server, schema) as store:
        await store.create(A, b"seed", generation=1, title=strange, now=NOW)
        assert (await store.get(A)).title == strange
        assert await store.record_step(A, "r", strange, strange) == strange
        with pytest.raises(StorageError):
            await store.describe(A, title="half \ud83d", now=NOW)
        await store.append(A, [Row(Seq(2), b"\x00")], now=NOW)


async def test_a_schema_of_something_else_or_of_a_newer_release_is_left_alone(server, schema, sql):
    await sql(f"CREATE SCHEMA {schema}")
    await sql("CREATE TABLE invoices (id int)")
    with pytest.raises(ForeignDatabase, match="invoices"):
        async with opened(server, schema):
            pass
    await sql("DROP TABLE invoices")
    async with opened(server, schema):
        pass
    await sql("UPDATE crdt_sessions_schema SET version = 99")
    async with opened(server, schema):  # it only adds to what this release knows
        pass
    await sql("UPDATE crdt_sessions_schema SET compatible = 98")
    with pytest.raises(NewerSchema):
        async with opened(server, schema):
            pass


async def test_nodes_that_start_together_make_one_schema(server, schema):
    async with contextlib.AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(opened(server, schema)) for _ in range(4)))


async def test_a_server_that_would_lose_what_it_acknowledges_is_refused(server, schema):
    with pytest.raises(StorageError, match="synchronous_standby_names"):
        async with opened(server, schema, quorum=True):
            pass
    for setting, wrong in (("default_transaction_read_only", "on"),):
        url = f"{server.url()}?{setting}={wrong}"
        with pytest.raises(StorageError, match="takes no writes"):
            await PostgresStore(url, schema=schema).__aenter__()


async def test_no_password_is_shown(version):
    assert shown("postgresql://app:secret@db:5432/s?password=x&sslmode=require") == (
        "postgresql://app@db:5432/s?sslmode=require"
    )
    assert shown("postgresql://db1,db2/s") == "postgresql://db1,db2/s"
    for wrong in ("postgresql://app:secret@[db/s", "postgresql://app:se/cret@db/s"):
        with pytest.raises(StorageError) as caught:
            await PostgresStore(wrong).__aenter__()
        assert "cret" not in str(caught.value)


async def test_the_audit_log_is_never_changed(server, schema, sql):
    async with opened(server, schema):
        for statement in ("UPDATE audit SET principal = 'eve'", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(asyncpg.RaiseError, match="append only"):
                await sql(statement)


@contextlib.contextmanager
def pooled(server, mode):
    """A PgBouncer in front of a server; gives its URL."""
    port, folder = free_port(), Path(tempfile.mkdtemp(prefix="bouncer-"))
    file = folder / "pgbouncer.ini"
    file.write_text(
        f"[databases]\npostgres = user=postgres host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n"
    )
    folder.chmod(0o755)
    process = subprocess.Popen(["pgbouncer", "-q", file], stderr=subprocess.DEVNULL, **server.unprivileged)
    try:
        for _ in attempts():
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
        yield server.url().replace(f":{server.port}/", f":{port}/")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="no pgbouncer")
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_keeps_a_connection_for_who_has_it_or_is_refused(server, schema, mode):
    async def use(url):
        async with PostgresStore(url, schema=schema, lease=QUIET) as store:
            await store.create(A, b"seed", generation=1, title=None, now=NOW)
            return await written(store)

    with pooled(server, mode) as url:
        if mode == "session":
            assert await use(url) == [b"seed"]
        else:
            with pytest.raises(StorageError, match="pool_mode = session"):
                await use(url)
