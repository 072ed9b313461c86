"""Runs that begin later, and runs that must be done by a time."""

import pytest

from crdt_sessions.errors import RunNotClaimable

from .runs import World


@pytest.fixture
def world():
    world = World()
    world.post()
    return world


def later(world, seconds):
    return world.network.now + int(seconds * 1000)


def test_a_run_begins_at_its_time_and_not_before(world):
    at = later(world, 5)
    world.ask(not_before=at)
    world.settle()
    assert (world.status(), world.run().due, world.record("r").ready) == ("queued", at, False)
    assert world.notices() == []
    with pytest.raises(RunNotClaimable):
        world.claim()
    world.network.pass_time(4)
    assert not world.record("r").ready
    world.network.pass_time(2)
    world.settle()
    assert (world.run().due, world.record("r").ready, world.notices()) == (None, True, ["run.queued"])
    world.claim()


def test_its_time_comes_also_while_the_service_is_away(world):
    world.ask(not_before=later(world, 5))
    world.settle()
    world.network.commit()
    world.network.pass_time(60)
    world.network.crash()
    world.network.pass_time(1)
    assert world.record("r").ready


def test_while_it_waits_it_holds_nobody_up_and_nobody_counts_it(world):
    world.ask(not_before=later(world, 50))
    world.ask(run="second", policy="reject")
    world.ask(run="third", policy="interrupt")
    world.settle()
    assert (world.status(), world.run("second").status, world.record("third").ready) == ("queued", "cancelled", True)
    assert world.run("second").outcome.reason == "interrupted by third"
    assert world.network.engine.view.runs.unfinished() == [world.run("third")]


@pytest.mark.parametrize(
    ("policy", "mine", "other"),
    [("queue", "queued", "running"), ("reject", "cancelled", "running"), ("parallel", "queued", "running")],
)
def test_its_policy_counts_when_its_time_has_come(world, policy, mine, other):
    world.ask(not_before=later(world, 2), policy=policy)
    world.ask(run="other")
    world.settle()
    world.claim("other")
    world.network.pass_time(3)
    assert (world.status(), world.run("other").status) == (mine, other)
    assert world.record("r").ready is (policy == "parallel")


def test_stop_ends_it_before_it_begins(world):
    world.ask(not_before=later(world, 50))
    world.settle()
    world.cancel()
    world.settle()
    assert (world.status(), world.run().due) == ("cancelled", None)


def test_what_is_not_done_by_its_deadline_ends_then_and_says_so(world):
    at = later(world, 5)
    world.ask(deadline=at)
    world.settle()
    holder = world.claim()
    world.write(holder, "Once upon")
    world.settle()
    world.network.pass_time(4)
    assert world.status() == "running"
    world.network.pass_time(2)
    run = world.run()
    assert (run.status, run.outcome.reason, run.outcome.error.code) == ("failed", "deadline", "deadline")
    assert world.text() == "Once upon"
    assert world.network.engine.view.messages.value("r-out").done
    world.write(holder, " a time")
    world.report(holder, "completed")
    world.settle()
    assert (world.status(), world.text()) == ("failed", "Once upon")


@pytest.mark.parametrize("state", ["queued", "suspended", "waiting for its time"])
def test_a_deadline_ends_whatever_a_run_waits_for(world, state):
    world.ask(deadline=later(world, 5), not_before=later(world, 9) if state.startswith("waiting") else None)
    world.settle()
    if state == "suspended":
        world.suspend(world.claim(), approvers=["bob"])
    world.network.pass_time(6)
    assert (world.status(), world.run().outcome.reason, world.run().due) == ("failed", "deadline", None)
    if state == "suspended":
        assert world.part().approval.approved is False


def test_a_deadline_that_is_over_when_it_is_asked_ends_it_at_once(world):
    world.ask(deadline=later(world, -1))
    world.ask(run="next")
    world.settle()
    assert (world.status(), world.run().outcome.reason, world.record("next").ready) == ("failed", "deadline", True)


def test_who_was_stopped_and_does_not_obey_by_the_deadline_was_stopped(world):
    world.ask(deadline=later(world, 3))
    world.settle()
    world.claim()
    world.cancel()
    world.settle()
    world.network.pass_time(4)
    assert world.status() == "cancelled"


def test_a_run_that_is_done_in_time_has_no_deadline_any_more(world):
    world.ask(deadline=later(world, 5))
    world.settle()
    holder = world.claim()
    world.report(holder, "completed")
    world.settle()
    world.network.pass_time(10)
    assert (world.status(), world.network.engine.runs.table.timed()) == ("completed", [])
