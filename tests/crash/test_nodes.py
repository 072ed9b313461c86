"""Three nodes on a replicated PostgreSQL, of which anything may die, sleep or be cut off: nothing acknowledged is lost."""

import itertools
import os
import random
from collections import Counter

import pytest

from tests.crash.nemesis import Nemesis, faults, small_disk
from tests.crash.nodes import World
from tests.postgres import VERSIONS, Pair, needs_postgres, programs_of
from tests.profiles import NIGHTLY, sample

pytestmark = [pytest.mark.crash, pytest.mark.slow, needs_postgres, pytest.mark.timeout(7200)]

ROUND = 45
"""Faults in one history: after them what was written is read, and another database is begun."""
QUORUM = ("--durability", "quorum")


@pytest.fixture(scope="module")
def disk():
    with small_disk() as folder:
        yield folder


@pytest.fixture(scope="module")
def pair(disk):
    """Two servers of their own, of which any is killed."""
    pair = Pair(programs_of(VERSIONS[-1]), quorum=True, disk=disk)
    yield pair
    pair.close()


async def test_nothing_acknowledged_is_lost_whatever_dies(pair, disk, tmp_path, capsys):
    """``FAULTS=1000 SEED=8 pytest``: the seed says what happens, though not at which moment of what goes on."""
    first, left, counts = int(os.environ.get("SEED", "7")), sample("faults"), Counter()
    for seed in itertools.count(first):
        name = f"nodes{seed}_{os.getpid()}"
        pair.sql(f"CREATE DATABASE {name}")
        async with World(pair, name, tmp_path, seed, *QUORUM) as world:
            await world.clients.progress()
            nemesis = Nemesis(world, disk if NIGHTLY else None)  # ten seconds each, and more where PostgreSQL hangs
            for together in faults(random.Random(seed), min(left, ROUND), nemesis.brief):
                await nemesis.harm(*together)
            assert await world.check() > len(world.history.faults)
            assert not [line for line in world.logged() if "acknowledged" in line], world.history
        pair.sql(f"DROP DATABASE {name} WITH (FORCE)")  # eight of them, with their log, fill the small disk
        counts.update(nemesis.counts)
        left -= len(world.history.faults)
        with capsys.disabled():
            print(f"\nseed {seed}, by {world.lines.what}: {world.history.summary}; {dict(counts)}")
        if left <= 0:
            return


@pytest.mark.nightly  # another two servers
async def test_what_a_standby_had_not_seen_is_told_and_brought_back_by_those_who_wrote_it(tmp_path):
    """Its clients are connected, so the document is whole again; the log says what the store had lost."""
    pair = Pair(programs_of(VERSIONS[-1]), quorum=False)
    try:
        async with World(pair, "postgres", tmp_path, 7, count=1) as world:
            await world.clients.progress()
            await Nemesis(world).fail_over_behind()
            assert [line for line in world.logged() if "acknowledged" in line], "nobody was told"
            await world.clients.rest()
            await world.clients.check_tokens()
    finally:
        pair.close()
