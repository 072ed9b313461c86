"""How much is tried in which profile: HYPOTHESIS_PROFILE is dev (default), ci, nightly, or weekly.

This is the one place that says it (decision 0075).

* **Numbers** of what is random or repeated stand in the table below. A variable of the environment of the same name in
  capitals overrides one: ``KILLS=200 pytest tests/crash/test_kills.py``.
* **Tests** that show once more what another one shows in CI (a second browser binding, version of a client, recording,
  way of dying) are marked ``nightly``, or ``weekly`` if they take half an hour. Of a family of cases marked
  ``sampled(every)`` dev and CI try each *every*-th. A kind of behaviour keeps at least one test in CI.

What was left to a later profile is counted at the end of each run. A test that is named (``pytest path::test``) is run
in every profile, with all its cases.

What each takes on two cores, in processor seconds: CI 1,000 (ten minutes with what comes before), nightly 4,200 (forty
minutes with nothing beside it; faults and kills a quarter of an hour each), weekly 43,000 (six hours; properties and
machines 3,500, kills 2,700, the great model of the fence 1,800, faults and pages in empty environments 1,500 each,
agents 1,000). The longest file of the weekly profile is the one with the kills: an hour.
"""

import os
from collections import Counter

PROFILES = ("dev", "ci", "nightly", "weekly")
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")
NIGHTLY = PROFILE in {"nightly", "weekly"}
WEEKLY = PROFILE == "weekly"

_TABLE = {  # dev, ci, nightly, weekly
    "examples": (50, 40, 200, 1_000),  # of each property, by Hypothesis; with ten thousand, machines take a night
    "shrinking": (1, 1, 1, 1),  # whether an example that fails is made smaller; mutants need none to look at
    "steps": (30, 30, 60, 200),  # of each of its state machines
    "schedules": (60, 100, 300, 1_000),  # in which two people decide at the same instant
    "kills": (5, 5, 300, 1_000),  # of the service, at random instants
    "passes": (1, 1, 4, 15),  # of each named point of the storage path, before the service dies there
    "deaths": (3, 3, 15, 40),  # of the service between two peers that write
    "faults": (5, 30, 150, 1_000),  # of three nodes and their PostgreSQL
    "handings_over": (1, 1, 1, 3),  # of PostgreSQL by Patroni, in each way
    "node_histories": (40, 30, 1_000, 10_000),  # of nodes over one simulated database
    "agents": (1, 1, 8, 40),  # that die in each way
    "frames": (5_000, 3_000, 100_000, 1_000_000),  # mutated, thrown at a service
    "histories": (532, 532, 532, 5_320),  # of the conformance data
    "traces": (1, 1, 2, 2),  # concurrent, of people who wrote together
    "tabs": (3, 6, 40, 150),  # schedules of tabs that hear each other, drop and are loaded anew
    "scribbles": (4, 4, 40, 200),  # of clients that know nothing of emoji
    "places": (1, 1, 10, 40),  # texts in which Yjs and the service must name the same places
    "lexical": (2, 2, 12, 60),  # documents that people in Lexical and an agent write at once
    "silence": (17, 17, 75, 75),  # seconds in which a run says nothing; streams are kept alive every 15
    "mutants": (20, 16, 1, 1),  # of all, every how many-th is tried; that its piece of code is there, is seen of all
    "recordings": (12, 12, 1, 1),  # of real answers, every how many-th goes through every gateway at once
    "soak": (30, 20, 300, 600),  # seconds of a steady load
    "phones": (10, 10, 200, 1_000),  # that are online for seconds at random in thirty days
    "fresh": (1, 1, 6, 99),  # pages of the documentation that are read in an empty environment as well
    "conformance": (0, 0, 1, 1),  # whether the cases of the Durable Streams suite that take long are run, too
    "coverage": (0, 0, 1, 1),  # whether requests at every bound of the OpenAPI document are made, beside random ones
    "idleness": (34, 34, 66, 66),  # seconds in which a client says nothing; stock clients hang up after 30
}


def sample(name: str) -> int:
    """Return how many of *name* are tried in this profile."""
    given = os.environ.get(name.upper())
    return int(given) if given else _TABLE[name][PROFILES.index(PROFILE)]


def parted(items):
    """Return the tests among *items* that this profile runs, and those that it leaves to a later one."""
    kept, left, cases = [], [], Counter()
    for item in items:
        function = item.nodeid.partition("[")[0]
        (left if _is_left(item, cases[function]) else kept).append(item)
        cases[function] += 1
    return kept, left


def _is_left(item, case):
    sampled = item.get_closest_marker("sampled")
    return (
        (not WEEKLY and item.get_closest_marker("weekly") is not None)
        or (not NIGHTLY and item.get_closest_marker("nightly") is not None)
        or (not NIGHTLY and sampled is not None and case % sampled.args[0] != 0)
    )
