"""How much is tried in which profile: HYPOTHESIS_PROFILE is dev (default), ci, or nightly.

This is the one place that says it. What takes long is a sample in CI, and whole in ``make nightly``. A variable of
the environment of the same name in capitals overrides a number: ``KILLS=200 pytest tests/crash/test_kills.py``.

What the nightly numbers take, in processor seconds, of which two cores have 43,000 in six hours; estimated from what
CI takes: kills 2,500, properties and state machines 3,500 (an example of 200 steps takes 0.3), faults 1,500, pages in
empty environments 1,500, agents that die 1,000, frames and passes 600 each, histories of nodes, the soak and phones 300
each, recordings and mutants 200 each, all others and what is never a sample 2,500. The longest file is the one with the
kills: an hour.
"""

import os

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "dev")
NIGHTLY = PROFILE == "nightly"

_TABLE = {  # dev, ci, nightly
    "examples": (50, 60, 1_000),  # of each property, by Hypothesis; with ten thousand, machines alone take a night
    "shrinking": (1, 1, 1),  # whether an example that fails is made smaller; mutants need none to look at
    "steps": (30, 40, 200),  # of each of its state machines
    "schedules": (60, 100, 1_000),  # in which two people decide at the same instant
    "kills": (10, 5, 930),  # of the service, at random instants
    "passes": (2, 1, 15),  # of each named point of the storage path, before the service dies there
    "deaths": (8, 6, 40),  # of the service between two peers that write
    "faults": (5, 30, 1_000),  # of three nodes and their PostgreSQL
    "handings_over": (1, 1, 3),  # of PostgreSQL by Patroni, in each way
    "node_histories": (40, 100, 10_000),  # of nodes over one simulated database
    "agents": (3, 1, 40),  # that die in each way
    "frames": (10_000, 10_000, 1_000_000),  # mutated, thrown at a service
    "histories": (532, 532, 5_320),  # of the conformance data
    "traces": (1, 1, 2),  # concurrent, of people who wrote together
    "tabs": (3, 6, 150),  # schedules of tabs that hear each other, drop and are loaded anew
    "scribbles": (4, 4, 200),  # of clients that know nothing of emoji
    "places": (2, 2, 40),  # texts in which Yjs and the service must name the same places
    "silence": (17, 17, 75),  # seconds in which a run says nothing; streams are kept alive every 15
    "mutants": (
        9,
        8,
        1,
    ),  # of all of them, every how many-th is tried; that its piece of code is there, is seen of all
    "recordings": (5, 4, 1),  # of real answers, every how many-th goes through every gateway at once
    "soak": (30, 20, 600),  # seconds of a steady load
    "phones": (12, 20, 1_000),  # that are online for seconds at random in thirty days
    "fresh": (0, 0, 99),  # pages of the documentation that are read in an empty environment as well
    "conformance": (0, 0, 1),  # whether the cases of the Durable Streams suite that take long are run, too
    "coverage": (0, 0, 1),  # whether requests at every bound of the OpenAPI document are made, beside random ones
    "idleness": (34, 34, 66),  # seconds in which a client says nothing; stock clients hang up after 30
}


def sample(name: str) -> int:
    """Return how many of *name* are tried in this profile."""
    given = os.environ.get(name.upper())
    return int(given) if given else _TABLE[name][("dev", "ci", "nightly").index(PROFILE)]
