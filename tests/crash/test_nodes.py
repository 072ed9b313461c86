"""Three nodes on a real PostgreSQL, of which anything may die or sleep at any time: nothing acknowledged is lost."""

import itertools
import os
import random

import pytest

from tests.crash.nodes import FAULTS, World
from tests.postgres import VERSIONS, Pair, PostgresServer, needs_postgres, programs_of
from tests.profiles import NIGHTLY, sample

pytestmark = [pytest.mark.crash, pytest.mark.slow, needs_postgres, pytest.mark.timeout(7200)]

_numbers = itertools.count()


@pytest.fixture(scope="module")
def postgres():
    """A server of its own: it is killed."""
    server = PostgresServer(programs_of(VERSIONS[-1]))
    yield server
    server.close()


async def test_nothing_acknowledged_is_lost_whatever_dies(postgres, tmp_path):
    """Each kind of fault comes once in a round, in an order of the seed's."""
    seed = int(os.environ.get("SEED", "7"))
    name = f"nodes{next(_numbers)}_{os.getpid()}"
    postgres.sql(f"CREATE DATABASE {name}")
    order = random.Random(seed)
    rounds = (order.sample(FAULTS, len(FAULTS)) for _ in itertools.count())
    faults = list(itertools.islice(itertools.chain.from_iterable(rounds), sample("faults")))
    async with World(postgres, name, tmp_path, seed) as world:
        await world.progress()
        for fault in faults:
            await world.harm(fault)
        assert await world.check() > len(faults)


async def test_a_failover_to_a_standby_that_commits_wait_for_loses_nothing(tmp_path):
    pair = Pair(programs_of(VERSIONS[-1]), quorum=True)
    try:
        async with World(pair, "postgres", tmp_path, 7, "--durability", "quorum", count=1) as world:
            await world.progress()
            for _ in range(sample("failovers")):
                await world.harm("fail_over")
            await world.check()
            assert not [line for node in world.nodes for line in node.lines if "acknowledged" in line]
    finally:
        pair.close()


@pytest.mark.skipif(not NIGHTLY, reason="another two servers")
async def test_what_a_standby_had_not_seen_is_told_and_brought_back_by_those_who_wrote_it(tmp_path):
    """Its clients are connected, so the document is whole again; the log says what the store had lost."""
    pair = Pair(programs_of(VERSIONS[-1]), quorum=False)
    try:
        async with World(pair, "postgres", tmp_path, 7, count=1) as world:
            await world.progress()
            await world.harm("fail_over_behind")
            told = [line for node in world.nodes for line in node.lines if "acknowledged" in line]
            assert told, "nobody was told"
            await world.rest()
            await world.check_tokens()
    finally:
        pair.close()
