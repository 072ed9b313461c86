"""Three nodes on a real PostgreSQL, of which anything may die or sleep at any time: nothing acknowledged is lost."""

import itertools
import os
import random

import pytest

from tests.crash.nodes import FAULTS, World
from tests.postgres import VERSIONS, PostgresServer, needs_postgres, programs_of
from tests.profiles import sample

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
