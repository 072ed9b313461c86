"""What nodes of one database do together is done once, and no limit is counted by one of them alone."""

import asyncio
import itertools
from contextlib import asynccontextmanager

import asyncpg
import pytest

from crdt_sessions.errors import SessionExists, StreamNotFound, TooMany
from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage import AuditEntry, Entries, Stream, StreamChange
from crdt_sessions.storage.postgres import PostgresStore, lane_connection
from crdt_sessions.storage.postgres.errors import Again
from crdt_sessions.storage.postgres.nodes import Lease
from crdt_sessions.testing.store_contract import NOW, A, delivery, rows, run
from tests.postgres import every_version, shared_server

pytestmark = [pytest.mark.processes, every_version]

QUIET = Lease(beat_s=3600)
_numbers = itertools.count()


@pytest.fixture
def opened(version):
    """Opens stores of nodes that share a database of their own."""
    schema = f"across{next(_numbers)}"

    @asynccontextmanager
    async def open(lease=QUIET):
        async with PostgresStore(shared_server(version).url(), schema=schema, lease=lease) as store:
            store.schema = schema
            yield store

    return open


async def test_a_tenant_has_no_more_sessions_than_it_may_whichever_nodes_create_them(opened):
    async with opened() as one, opened() as other:

        async def create(store, name):
            session = SessionId(f"acme/{name}")
            try:
                await store.create(session, b"seed", generation=1, title=None, now=NOW, most=5)
            except TooMany:
                return None
            return session

        made = await asyncio.gather(
            *(create(store, f"{at}{n}") for n in range(6) for at, store in enumerate([one, other]))
        )
        assert len([each for each in made if each]) == 5 == await one.count("acme")
        first = next(each for each in made if each)
        with pytest.raises(SessionExists):  # which is what is said of one that is there, and counts for nothing
            await other.create(first, b"seed", generation=1, title=None, now=NOW, most=5)
        owner = one if first.startswith("acme/0") else other
        await owner.delete(first, now=NOW)
        assert await create(one, "again")
        assert not await create(other, "one too many")


async def test_of_two_sessions_for_which_there_is_one_place_the_one_that_waited_is_not_made(opened, version):
    """What a statement sees is older than its wait; how many sessions there are is looked at again after it."""
    async with opened() as one, opened() as other:
        await one.create(SessionId("acme/0"), b"seed", generation=1, title=None, now=NOW, most=2)
        holding = await asyncpg.connect(shared_server(version).url(), server_settings={"search_path": one.schema})
        try:
            turn = holding.transaction()
            await turn.start()
            await holding.execute("SELECT FROM tenants WHERE tenant = 'acme' FOR UPDATE")
            racing = [
                asyncio.ensure_future(
                    store.create(SessionId(f"acme/{at}"), b"seed", generation=1, title=None, now=NOW, most=2)
                )
                for at, store in enumerate([one, other], 1)
            ]
            blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%of_one%'"
            while len(await one._database.select(blocked)) < 2:
                await asyncio.sleep(0)
            await turn.commit()
        finally:
            await holding.close()
        made = await asyncio.gather(*racing, return_exceptions=True)
        assert [isinstance(each, TooMany) for each in made].count(True) == 1, made
        assert await one.count("acme") == 2


async def test_a_delivery_is_taken_by_one_node_and_by_another_if_nothing_becomes_of_it(opened):
    async with opened() as one, opened() as other:
        await one.create(A, b"seed", generation=1, title=None, now=NOW)
        letters = [delivery(f"m{n}", at=n) for n in range(30)]
        await one.append(A, rows(2, b"x"), entries=Entries(deliveries=letters), now=NOW)
        taken = await asyncio.gather(
            *(store.take_deliveries(Millis(100), limit=5, lease_ms=50) for store in [one, other] * 4)
        )
        ids = [each.id for some in taken for each in some]
        assert len(ids) == len(set(ids))
        while more := await one.take_deliveries(Millis(100), limit=5, lease_ms=50):
            ids += [each.id for each in more]
        assert sorted(ids) == sorted(each.id for each in letters)
        await other.delivered("m0")
        assert await one.postpone("m1", attempts=1, next_at=Millis(1000), error="no", dead=False)
        assert await other.take_deliveries(Millis(149), limit=99, lease_ms=50) == []
        again = await other.take_deliveries(Millis(150), limit=99, lease_ms=50)  # the others said nothing
        assert [each.id for each in again] == [each.id for each in letters[2:]]
        assert {each.attempts for each in again} == {0}


async def test_what_nobody_looks_after_any_more_is_taken_by_one_node(opened):
    due = Entries(runs=[run("r", due_at=5)])
    async with opened() as one, opened() as other:
        names = [SessionId(f"s{n}") for n in range(20)]
        async with opened() as gone:
            for session in (*names, A):
                await gone.create(session, b"seed", generation=1, title=None, now=NOW)
                await gone.append(session, rows(2, b"x"), entries=due, now=NOW)
            assert len(await gone.take_due(Millis(5), limit=1)) == 21, "what is its own is no question of how many"
            assert await one.take_due(Millis(5), limit=9) == []
        found = await asyncio.gather(*(store.take_due(Millis(5), limit=6) for store in (one, other)))
        for store, first in zip((one, other), found, strict=True):
            assert len(first) <= 6
            assert set(first) <= set(await store.take_due(Millis(5), limit=0))
        mine, theirs = [await store.take_due(Millis(5), limit=99) for store in (one, other)]
        assert sorted({*mine, *theirs}) == sorted([*names, A])
        assert not set(mine) & set(theirs)
        for store, owned in ((one, mine), (other, theirs)):
            for session in owned:
                await store.append(session, rows(3, b"y"), now=NOW)


async def test_who_reads_the_audit_log_on_misses_no_entry_that_is_committed_late(opened, version):
    async with opened() as one, opened() as other:

        async def record(store, action):
            await store.record([AuditEntry(NOW, "", "", "ann", action)])

        await record(one, "first")
        late = await asyncpg.connect(shared_server(version).url(), server_settings={"search_path": one.schema})
        writing = late.transaction()
        await writing.start()
        await late.execute("SELECT FROM audit_turn FOR UPDATE")  # as every writer does, and is slow from there on
        await late.execute(
            "INSERT INTO audit (at, tenant, session, principal, action, detail) VALUES (1, '', '', 'ann', 'late', '{}')"
        )
        behind = asyncio.create_task(record(other, "behind"))
        blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%audit_turn%'"
        while not await one._database.select(blocked):
            await asyncio.sleep(0)
        (seen,) = await one.audit("", limit=9)
        await writing.commit()
        await behind
        await late.close()
        assert [each.action for each in await one.audit("", after=seen.id, limit=9)] == ["late", "behind"]


async def test_what_was_taken_since_it_was_read_is_not_taken_again(opened, monkeypatch):
    async with opened() as one, opened() as other:
        async with opened() as gone:
            await gone.create(A, b"seed", generation=1, title=None, now=NOW)
            await gone.append(A, rows(2, b"x"), entries=Entries(runs=[run("r", due_at=5)]), now=NOW)
        select, taken = one._database.select, []

        async def slow(statement, *values):
            found = await select(statement, *values)
            taken.extend(await other.take_due(Millis(5), limit=9))  # in between
            return found

        monkeypatch.setattr(one._database, "select", slow)
        assert await one.take_due(Millis(5), limit=9) == []
        assert taken == [A]
        await other.append(A, rows(3, b"y"), now=NOW)


async def forked(store, path, source=None, **facts):
    """Make a stream, or a fork of another one."""

    def decide(found):
        id = found.source and found.source.id
        return StreamChange(Stream("", path, "text/plain", "ann", NOW, NOW, source=id, **facts))

    await store.alter_stream("", path, decide, now=NOW, source=source)


async def removed(store, path):
    """Remove a stream, as who asks for it does."""

    def decide(facts):
        if facts.stream is None:
            raise StreamNotFound(path=path)
        return StreamChange(None)

    await store.alter_stream("", path, decide, now=NOW)


async def test_a_fork_is_removed_with_what_was_kept_for_it_or_not_at_all(opened, monkeypatch):
    """Whoever removed it would be told that it is not there, and what was kept for it would stay for ever."""
    async with opened() as store:
        for n in range(5):
            await forked(store, f"{n}", f"{n - 1}" if n else None)
        for n in range(4):
            await removed(store, f"{n}")
        assert await store.count_streams("") == 5
        write, written = lane_connection.LaneConnection.write, []

        async def give_up_after_the_first(self, statement, *values):
            written.append(statement)
            if len(written) == 2:
                raise Again("a deadlock")
            await write(self, statement, *values)

        monkeypatch.setattr(lane_connection.LaneConnection, "write", give_up_after_the_first)
        await removed(store, "4")
        assert await store.count_streams("") == 0
        with pytest.raises(StreamNotFound):
            await removed(store, "4")


async def test_what_is_kept_for_forks_goes_whoever_removes_them_at_once(opened):
    async with opened() as one, opened() as other:
        for _ in range(20):
            await forked(one, "source")
            for path in ("a", "b", "c"):
                await forked(one, path, "source")
            await asyncio.gather(removed(one, "a"), removed(other, "source"), removed(other, "b"), removed(one, "c"))
            assert await one.count_streams("") == 0


async def test_streams_whose_time_has_come_go_together(opened):
    async with opened() as one, opened() as other:
        await forked(one, "kept")
        for source in range(12):
            await forked(one, f"{source}", ttl_s=5)
            await forked(one, f"fork of {source}", f"{source}", ttl_s=5)
            await forked(one, f"fork of what is kept {source}", "kept", ttl_s=5)
        later = Millis(NOW + 5000)
        await asyncio.gather(one.sweep_streams(later), other.sweep_streams(later))
        assert [each.path for each in await one.streams("", limit=99, now=NOW)] == ["kept"]
        assert await one.count_streams("") == 1
