"""Child runs: whose they are, what they wait for, what ends with what, and what they cost."""

from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from crdt_sessions.limits import RunRules
from crdt_sessions.model import CHILD_LIMITS, ApprovalRequest, Spent, UsageReport
from crdt_sessions.sync import Rights
from tests.sync.runs import World

KNOWN = Rights(verified=True)
AGENT = replace(KNOWN, decide=False, cancel=False, ask=False)


@pytest.fixture(params=["known", "anybody"])
def world(request):
    known = {"rights": KNOWN, "agents": AGENT} if request.param == "known" else {}
    world = World(people=("ann", "eve"), **known)
    world.post()
    world.ask()
    world.settle()
    return world


def delegated(world, holder, key="1", **request):
    child = world.delegate(holder, key, **request)
    world.settle()
    return child


def error(world, run):
    outcome = world.run(run).outcome
    return outcome.error.code if outcome is not None and outcome.error is not None else None


def spend(world, holder, **values):
    report = UsageReport(epoch=holder.epoch, **values)
    world.network.edit(holder.name, lambda view: view.runs.report_usage(holder.run, report))
    world.settle()


def end(world, holder, status="completed", **more):
    world.report(holder, status, **more)
    world.settle()


# -- asking ------------------------------------------------------------------------------------------------------


def test_the_holder_of_a_lease_asks_for_a_child_that_begins_at_once(world):
    holder = world.claim()
    child = delegated(world, holder, task={"find": "Oslo"})
    record = world.record(child)
    assert (record.status, record.ready, record.parent, record.agent) == ("queued", True, "r", "helper")
    assert world.run(child).request.task == {"find": "Oslo"}
    assert world.run(child).request.by == "ann", "it works for whom its parent works"


def test_what_a_child_writes_stands_beside_the_conversation(world):
    helper = world.claim(delegated(world, world.claim()), "helper")
    world.write(helper, "found")
    world.settle()
    view = world.network.engine.view
    assert world.text(helper.output) == "found"
    assert [message.id for message in view.messages.ordered()] == ["q"]
    assert [message.id for message in view.messages.beside()] == [helper.output]
    assert view.messages[helper.output].seq is None
    assert [message.id for message in view.export().delegated] == [helper.output]


def test_asking_again_for_a_key_changes_nothing(world):
    holder = world.claim()
    child = delegated(world, holder)
    before = world.record(child)
    assert delegated(world, holder, task="something else") == child
    assert world.record(child) == before


def test_only_the_holder_may_ask(world):
    holder = world.claim()
    child = delegated(world, holder, who="eve")
    assert (world.status(child), error(world, child)) == ("failed", "bad-parent")
    assert world.status() == "running"


def test_a_child_of_another_run_is_refused(world):
    holder = world.claim()
    world.ask(run="s", policy="parallel")
    world.settle()
    child = delegated(world, holder, parent="s")
    assert (world.status(child), error(world, child)) == ("failed", "bad-parent")
    child = delegated(world, holder, parent="nothing")
    assert (world.status(child), error(world, child)) == ("failed", "bad-parent")


def test_a_run_that_is_over_gets_no_more_children(world):
    holder = world.claim()
    end(world, holder)
    child = delegated(world, holder, who="ann")
    assert (world.status(child), error(world, child)) == ("failed", "bad-parent")


def test_a_child_under_another_id_is_refused(world):
    holder = world.claim()
    world.network.edit(
        holder.name,
        lambda view: view.runs.request("mine", view.runs.value("r").request.replace(parent="r", key="1", task="x")),
    )
    world.settle()
    assert (world.status("mine"), error(world, "mine")) == ("failed", "bad-parent")


def test_a_task_that_is_too_large_fails_the_child(world):
    holder = world.claim()
    request = {"messageId": "r-out", "createdAt": 1, "parent": "r", "key": "1", "task": "x" * 70_000}
    child = "r:1"
    world.network.edit(holder.name, lambda view: view.runs.put_back(child, "request", request))
    world.settle()
    assert (world.status(child), error(world, child)) == ("failed", "bad-task")


def test_so_many_children_go_on_at_a_time(world):
    holder = world.claim()
    children = [delegated(world, holder, str(at)) for at in range(CHILD_LIMITS.max_active + 1)]
    assert [error(world, child) for child in children] == [None] * CHILD_LIMITS.max_active + ["too-many-children"]
    end(world, world.claim(children[0], "helper"))
    assert error(world, delegated(world, holder, "more")) is None


def test_a_run_has_so_many_children_in_all(world):
    holder = world.claim()
    for at in range(CHILD_LIMITS.max_children):
        child = delegated(world, holder, str(at))
        assert error(world, child) is None
        world.cancel("ann", child)
        world.settle()
    assert error(world, delegated(world, holder, "more")) == "too-many-children"


def test_children_stand_so_many_generations_deep(world):
    holder = world.claim()
    for _ in range(CHILD_LIMITS.max_depth):
        child = delegated(world, holder)
        assert world.status(child) == "queued"
        holder = world.claim(child, "helper")
    child = delegated(world, holder)
    assert (world.status(child), error(world, child)) == ("failed", "too-deep")


# -- the turn order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["queue", "reject", "interrupt", "parallel"])
def test_children_hold_nobody_up(world, policy):
    holder = world.claim()
    child = delegated(world, holder, orphans="go-on")
    world.claim(child, "helper")
    end(world, holder)
    world.ask(run="next", policy=policy)
    world.settle()
    assert world.record("next").ready
    assert world.status(child) == "running"


def test_a_message_instead_of_a_decision_leaves_a_child_that_asks(world):
    holder = world.claim()
    helper = world.claim(delegated(world, holder), "helper")
    world.suspend(helper)
    assert world.status(helper.run) == "suspended"
    world.post(id="q2")
    world.ask(run="s", message="q2")
    world.settle()
    assert world.status(helper.run) == "suspended"
    world.decide("ann", True, output=helper.output)
    world.settle()
    assert world.record(helper.run).ready


# -- ends ----------------------------------------------------------------------------------------------------------


def test_stopping_a_run_stops_its_children_and_theirs(world):
    holder = world.claim()
    helper = world.claim(delegated(world, holder, orphans="go-on"), "helper")
    below = world.claim(delegated(world, helper), "helper")
    waiting = delegated(world, holder, "2")
    world.cancel()
    world.settle()
    assert world.status(waiting) == "cancelled"
    assert all(world.run(each.run).cancel for each in (helper, below)), "they have a moment to stop by themselves"
    end(world, below, "cancelled")
    world.network.pass_time(6)
    world.settle()
    assert [world.status(each) for each in ("r", helper.run, below.run)] == ["cancelled"] * 3


@settings(phases=[Phase.generate])  # a tree that fails is small as it is, and a mutant is to be noticed soon
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=6), st.integers(0, 6)
)
def test_a_stop_reaches_all_below_it_in_one_commit_and_nobody_else(tree, which):
    """Any tree of runs, of which some have an agent, and any of them stopped."""
    world = World()
    world.post()
    world.ask()
    world.settle()
    holders, parents = [world.claim()], {"r": None}
    for at, (above, goes_on, works) in enumerate(tree):
        holder = holders[above % len(holders)]
        child = delegated(world, holder, str(at), orphans="go-on" if goes_on else None)
        if world.record(child).over:  # too deep
            continue
        parents[child] = holder.run
        if works:
            holders.append(world.claim(child, "helper"))

    def is_below(run, top):
        return run == top or (run is not None and is_below(parents[run], top))

    stopped = list(parents)[which % len(parents)]
    world.cancel(run=stopped)
    world.send("ann")  # that is one commit, and no time has passed
    assert {run for run in parents if world.record(run).cancel} == {run for run in parents if is_below(run, stopped)}


def test_a_run_that_is_being_stopped_gets_no_more_children(world):
    holder = world.claim()
    world.cancel()
    world.settle()
    assert world.status(delegated(world, holder)) == "cancelled"


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_orphans_end_with_their_parent_unless_they_are_to_go_on(world, status):
    holder = world.claim()
    ends, goes_on = delegated(world, holder, "1"), delegated(world, holder, "2", orphans="go-on")
    working = world.claim(delegated(world, holder, "3"), "helper")
    end(world, holder, status)
    assert [world.status(each) for each in (ends, goes_on, working.run)] == ["cancelled", "queued", "running"]
    world.network.pass_time(6)
    world.settle()
    assert world.status(working.run) == "cancelled", "it had its moment"
    end(world, world.claim(goes_on, "helper"))
    assert world.status(goes_on) == "completed"


def test_a_parent_that_is_given_up_takes_its_children_along():
    world = World(RunRules(lease_s=10, gone_grace_s=3, cancel_grace_s=5, max_attempts=1))
    world.post()
    world.ask()
    world.settle()
    child = delegated(world, world.claim())
    world.network.pass_time(11)
    world.settle()
    assert (world.status(), world.status(child)) == ("interrupted", "cancelled")


def test_the_next_attempt_finds_the_children(world):
    first = world.claim()
    child = delegated(world, first)
    world.report(first, "released")
    world.settle()
    assert world.status(child) == "queued"
    helper = world.claim(child, "helper")
    second = world.claim()
    assert delegated(world, second) == child
    world.write(helper, "found", close=True)
    end(world, helper)
    assert (world.status(child), world.text(helper.output), world.record(child).epoch) == ("completed", "found", 1)


def test_a_lease_that_was_lost_asks_for_no_child():
    world = World()
    world.post()
    world.ask()
    world.settle()
    lost = world.claim()
    world.network.drop(lost.name)
    world.network.pass_time(12)
    assert world.status() == "queued"
    world.claim()
    world.network.connect(lost.name)
    child = delegated(world, lost)
    assert world.run(child) is None or error(world, child) == "bad-parent"


@pytest.mark.parametrize("how", ["suspended", "handoff"])
def test_a_parent_that_goes_on_later_keeps_its_children(world, how):
    holder = world.claim()
    child = delegated(world, holder)
    if how == "suspended":
        world.suspend(holder)
    else:
        end(world, holder, "handoff", agent="critic")
    assert world.status(child) == "queued"
    world.network.crash()
    world.settle()
    assert world.status(child) == "queued"
    world.network.connect("ann", rights=KNOWN)
    world.cancel()
    world.settle()
    assert (world.status(), world.status(child)) == ("cancelled", "cancelled")


# -- usage ---------------------------------------------------------------------------------------------------------


def test_what_children_cost_is_a_figure_of_its_own_of_every_run_above_them(world):
    holder = world.claim()
    helper = world.claim(delegated(world, holder), "helper")
    below = world.claim(delegated(world, helper), "helper")
    spend(world, holder, input_tokens=100, calls=1)
    spend(world, helper, input_tokens=10, calls=1, cost=5, currency="EUR")
    spend(world, below, input_tokens=1, calls=1, cost=2, currency="EUR")
    spend(world, below, input_tokens=2, calls=2, cost=4, currency="EUR")
    top, middle = world.run().usage, world.run(helper.run).usage
    assert (top.input_tokens, top.children) == (100, Spent(input_tokens=12, calls=3, cost=9, currency="EUR"))
    assert (middle.input_tokens, middle.children.input_tokens) == (10, 2)


def test_a_run_of_which_only_children_have_cost_something_says_so(world):
    holder = world.claim()
    spend(world, world.claim(delegated(world, holder), "helper"), calls=1)
    assert world.run().usage.to_json() == {"children": {"calls": 1}}


def test_a_child_that_asks_people_says_so_as_any_run_does(world):
    helper = world.claim(delegated(world, world.claim()), "helper")
    world.write(helper, "May I?")
    world.report(helper, "suspended", approve=ApprovalRequest(requested_at=world.network.now))
    world.settle()
    assert [call.tool_call_id for call in world.run(helper.run).pending] == ["c"]
