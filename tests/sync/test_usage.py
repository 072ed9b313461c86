"""What runs cost: the holder reports it, the server adds attempts up, and nobody else has a say."""

from dataclasses import replace

import pytest

from crdt_sessions.errors import BadValue
from crdt_sessions.model import Run, RunOutcome, Spent, Usage, UsageReport
from crdt_sessions.sync import Rights
from tests.sync.runs import World

KNOWN = Rights(verified=True)
AGENT = replace(KNOWN, decide=False, cancel=False)


@pytest.fixture
def world():
    world = World(people=("ann", "eve"), rights=KNOWN, agents=AGENT)
    world.post()
    world.ask()
    world.settle()
    return world


def spend(world, holder, *, who=None, epoch=None, **values):
    report = UsageReport(epoch=holder.epoch if epoch is None else epoch, **values)
    world.network.edit(who or holder.name, lambda view: view.runs.report_usage(holder.run, report))
    world.settle()


def test_what_the_holder_reports_is_settled_while_it_works(world):
    holder = world.claim()
    spend(world, holder, input_tokens=10, output_tokens=2, calls=1, model="m-1")
    assert world.run().usage == Usage(input_tokens=10, output_tokens=2, calls=1, model="m-1")
    spend(world, holder, input_tokens=30, output_tokens=5, calls=2, model="m-2", cost=700, currency="EUR")
    usage = world.run().usage
    assert (usage.input_tokens, usage.output_tokens, usage.calls, usage.model) == (30, 5, 2, "m-2")
    assert (usage.cost, usage.currency) == (700, "EUR")


def test_a_run_of_which_nothing_is_reported_has_no_usage(world):
    holder = world.claim()
    world.write(holder, "words")
    world.report(holder, "completed")
    world.settle()
    assert world.run().usage is None


def test_attempts_are_added_up_and_the_time_they_took(world):
    first = world.claim()
    world.network.pass_time(2)
    world.write(first, "some words")
    world.settle()
    spend(world, first, input_tokens=10, output_tokens=2, cached_tokens=4, calls=1, cost=5, currency="USD")
    assert world.run().usage.first_token_ms == 2000
    world.network.pass_time(1)
    world.report(first, "released")
    world.settle()
    assert (world.status(), world.run().usage.duration_ms) == ("queued", 3000)
    world.network.pass_time(60)
    second = world.claim()
    assert world.run().usage.input_tokens == 10, "what was spent stays spent"
    spend(world, second, input_tokens=1, reasoning_tokens=3, output_tokens=4, calls=1, cost=7, currency="USD")
    world.network.pass_time(4)
    world.report(second, "completed")
    world.settle()
    assert world.run().usage == Usage(
        input_tokens=11,
        cached_tokens=4,
        output_tokens=6,
        reasoning_tokens=3,
        calls=2,
        cost=12,
        currency="USD",
        first_token_ms=2000,
        duration_ms=7000,
    )


def test_a_lost_attempt_counts(world):
    holder = world.claim()
    spend(world, holder, input_tokens=10, calls=1)
    world.network.drop(holder.name)
    world.network.pass_time(30)
    world.settle()
    assert (world.status(), world.run().usage.input_tokens) == ("queued", 10)
    zombie = world.claim()
    spend(world, zombie, epoch=holder.epoch, input_tokens=99)
    assert world.run().usage.input_tokens == 10, "a report of another epoch counts for nothing"


def test_usage_survives_a_crash_of_the_server(world):
    holder = world.claim()
    spend(world, holder, input_tokens=10)
    world.network.run_until_quiet()
    world.network.crash()
    for name in ("ann", "eve"):
        world.network.connect(name)
    world.connect(holder)
    world.settle()
    spend(world, holder, input_tokens=12)
    world.report(holder, "completed")
    world.settle()
    assert world.run().usage.input_tokens == 12


def test_nobody_but_the_holder_reports(world):
    holder = world.claim()
    spend(world, holder, input_tokens=10)
    spend(world, holder, who="eve", input_tokens=1_000_000)
    assert (world.run().reported.input_tokens, world.run().usage.input_tokens) == (10, 10)
    assert [what for who, what in world.network.violations if who == "eve"] == ["runs.reported"]


def test_what_is_settled_is_restored(world):
    holder = world.claim()
    spend(world, holder, input_tokens=10)
    world.network.edit("eve", lambda view: view.runs.put_back("r", "usage", {"inputTokens": 1}))
    world.settle()
    assert world.run().usage == Usage(input_tokens=10)
    world.network.edit("eve", lambda view: view.runs.put_back("r", "usage", None))
    world.settle()
    assert world.run().usage == Usage(input_tokens=10)


@pytest.mark.parametrize("odd", [7, {"inputTokens": -1, "epoch": 1}, {"cost": 1, "epoch": 1}, {"inputTokens": 5}])
def test_what_is_no_report_counts_for_nothing(world, odd):
    holder = world.claim()
    world.network.edit(holder.name, lambda view: view.runs.put_back("r", "reported", odd))
    world.settle()
    assert world.run().usage is None
    world.report(holder, "completed")
    world.settle()
    assert world.status() == "completed"


def test_an_imported_run_keeps_what_it_has_cost(world):
    usage = Usage(input_tokens=5, calls=1, duration_ms=70, first_token_ms=9)
    ended = Run(id="old", status="completed", outcome=RunOutcome(reason="done", ended_at=1), usage=usage, output="o")
    world.network.edit("ann", lambda view: view.runs.settle(ended))
    world.settle()
    assert world.run("old").usage == usage


def test_costs_in_several_currencies_are_not_mixed():
    dollars, euros = Spent.of(cost=5, currency="USD", calls=1), Spent.of(cost=7, currency="EUR", calls=1)
    assert dollars.plus(euros) == Spent(cost=5, currency="USD", calls=2)
    assert Spent.of(calls=1).plus(euros) == Spent(cost=7, currency="EUR", calls=2)
    assert dollars.plus(None) == dollars


@pytest.mark.parametrize(
    "bad", [{"calls": -1}, {"cost": 1}, {"input_tokens": 2**60}, {"cost": 1, "currency": "Euro"}]
)
def test_what_cannot_be_spent_is_refused(bad):
    with pytest.raises(BadValue, match="usage"):
        Spent.of(**bad)
