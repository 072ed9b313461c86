"""Schedules with virtual time: each time is asked for once, whatever dies, and missed ones as it says."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Map

from crdt_sessions.model import RunInput, Schedule
from crdt_sessions.model.schedules import SCHEDULE_LIMITS
from crdt_sessions.sync import Rights

from .runs import World

KNOWN = Rights(verified=True)


@pytest.fixture
def world():
    world = World()
    world.post(text="How is the weather?")
    return world


def schedule(world, run="r", who="ann", **schedule):
    request = {name: schedule.pop(name) for name in ("not_before", "input", "policy") if name in schedule}
    world.ask(who, run=run, schedule=Schedule.of(schedule), agent="writer", **request)
    world.settle()


def fired(world, by="r"):
    """Return the runs that a schedule has asked for, oldest first."""
    return [run for run in world.network.engine.view.runs.all() if run.request and run.request.scheduled_by == by]


def times_of(world, by="r"):
    return sorted(int(run.request.message_id.rpartition("@")[2]) for run in fired(world, by))


def finish(world):
    for run in fired(world):
        if run.status == "queued" and world.record(run.id).ready:
            holder = world.claim(run.id)
            world.write(holder, "Fine.", close=True)
            world.report(holder, "completed")
            world.settle()


def test_it_asks_at_each_of_its_times_and_never_begins_itself(world):
    begun = world.network.now
    schedule(world, every=10_000, policy="parallel", input=RunInput(model="small"))
    due = world.run().due
    assert begun + 10_000 <= due <= world.network.now + 10_000
    for _ in range(35):
        world.network.pass_time(1)
    world.settle()
    assert times_of(world) == [due, due + 10_000, due + 20_000]
    assert (world.status(), world.run().due, world.record("r").ready) == ("queued", due + 30_000, False)
    view = world.network.engine.view
    asked = [view.messages.value(run.request.message_id) for run in fired(world)]
    assert [message.text for message in asked] == ["How is the weather?"] * 3
    assert [message.seq for message in asked] == [2, 3, 4]
    assert {(message.author.id, message.reply_to, message.role) for message in asked} == {("ann", "q", "user")}
    assert {(run.agent, run.input.model, run.request.by) for run in fired(world)} == {("writer", "small", "ann")}
    assert world.network.engine.view.runs.unfinished() == fired(world)


def test_a_person_stops_it_like_any_run(world):
    schedule(world, every=5_000)
    world.network.pass_time(6)
    world.settle()
    world.cancel("bob")
    world.settle()
    for _ in range(30):
        world.network.pass_time(1)
    assert (world.status(), len(times_of(world)), world.run().due) == ("cancelled", 1, None)


def test_it_ends_when_it_is_over(world):
    schedule(world, every=5_000, until=world.network.now + 12_000)
    for _ in range(30):
        world.network.pass_time(1)
    assert (world.status(), world.run().outcome.reason) == ("completed", "the schedule is over")
    assert len(times_of(world)) == 2


@pytest.mark.parametrize(("missed", "count"), [("skip", 0), ("once", 1), ("all", 12)])
def test_times_that_passed_while_the_service_was_away_are_made_up_for_as_it_says(world, missed, count):
    schedule(world, every=300_000, missed=missed)
    due = world.run().due
    world.network.commit()
    world.network.pass_time(3600 + 120)
    world.network.crash()
    world.network.pass_time(1)
    world.settle()
    assert len(times_of(world)) == count
    if missed == "once":
        assert times_of(world) == [due + 11 * 300_000]
    for _ in range(200):
        world.network.pass_time(1)
    world.settle()
    assert len(times_of(world)) == count + 1, "it goes on"


def test_of_a_great_many_missed_times_only_the_newest_are_made_up_for(world):
    schedule(world, every=1_000, missed="all", policy="parallel")
    world.network.pass_time(3600 * 24)
    world.settle()
    assert len(times_of(world)) == SCHEDULE_LIMITS.max_missed
    assert times_of(world)[-1] > world.network.now - 2_000


def test_one_that_is_not_due_before_a_time_is_not(world):
    begins = world.network.now + 20_000
    schedule(world, every=10_000, not_before=begins)
    assert world.run().due == begins
    world.network.pass_time(25)
    assert times_of(world) == [begins]


@pytest.mark.parametrize("bad", [{"every": 1}, {"cron": "x"}, [1], {"every": 5000, "timezone": "Mars"}, {}])
def test_one_that_cannot_be_taken_fails_and_says_why(world, bad):
    request = {"messageId": "q", "agent": "writer", "createdAt": 1, "schedule": bad}
    world.network.edit("ann", lambda view: view.document.roots.runs.update({"r": Map({"request": request})}))
    world.settle()
    run = world.run()
    if bad == {"every": 5000, "timezone": "Mars"}:
        assert run.status == "queued", "an interval has no time zone"
        return
    assert (run.status, run.outcome.error.code) == ("failed", "bad-schedule")
    assert "ask again" in run.outcome.error.message


def test_a_session_has_so_many_and_no_more(world):
    for count in range(SCHEDULE_LIMITS.max_schedules):
        world.ask(run=f"r{count}", schedule=Schedule(every=60_000))
    world.settle()
    schedule(world, run="more", every=60_000)
    assert (world.run("more").status, world.run("more").outcome.error.code) == ("failed", "bad-schedule")


def test_one_whose_question_is_gone_ends(world):
    schedule(world, every=5_000)
    world.network.edit("bob", lambda view: view.document.roots.messages.pop("q"))
    world.settle()
    world.network.pass_time(6)
    assert (world.status(), fired(world)) == ("failed", [])


def test_who_writes_under_the_ids_of_what_is_to_come_changes_nothing():
    world = World(people=("ann", "eve"), rights=KNOWN)
    world.post(text="How is the weather?")
    schedule(world, every=10_000)
    at = f"r@{world.run().due}"
    world.post("eve", id=at, text="Send me the money")
    world.ask("eve", run=f"run-{at}", message="nothing")
    world.settle()
    world.network.pass_time(11)
    world.settle()
    (run,) = fired(world)
    message = world.network.engine.view.messages.value(run.request.message_id)
    assert (message.text, message.by, run.request.by) == ("How is the weather?", "ann", "ann")
    assert world.network.engine.view.messages.value(at).by == "eve"


STEPS = st.lists(
    st.sampled_from(["pass", "pass", "long", "commit", "crash", "answer", "compact", "leave"]),
    min_size=3,
    max_size=12,
)


@given(STEPS, st.sampled_from(["skip", "once", "all"]), st.sampled_from([{"every": 20_000}, {"cron": "* * * * *"}]))
def test_whatever_dies_each_time_is_recorded_once_and_tried_at_least_once(steps, missed, due):
    world = World()
    try:
        world.post(text="?")
        schedule(world, missed=missed, policy="parallel", **due)
        world.network.commit()
        first, recorded = world.record("r").waits_until, Counter()
        for step in steps:
            match step:
                case "pass":
                    world.network.pass_time(3)
                case "long":
                    world.network.pass_time(90)
                case "commit":
                    world.network.commit()
                    recorded |= Counter(times_of(world))
                case "crash":
                    world.network.crash()
                case "compact":
                    world.network.compact()
                case "answer":
                    finish(world)
                case "leave":
                    world.network.drop("ann")
                    world.network.connect("ann")
            assert max(Counter(times_of(world)).values(), default=1) == 1
        world.network.pass_time(1)
        world.network.commit()
        times, now = times_of(world), world.network.now
        assert max(Counter(times).values(), default=1) == 1, "once"
        assert set(recorded) <= set(times), "what was durable is there"
        expected, time, anchor = [], first, world.record("r").queued_at
        while time <= now:
            expected.append(time)
            time = Schedule.of(due).after(time, anchor)
        assert set(times) <= set(expected)
        if missed == "all":
            assert times == expected
        assert times or missed == "skip" or not expected
        assert world.record("r").waits_until > now
        finish(world)
        assert all(run.status == "completed" and run.epoch >= 1 for run in fired(world))
    finally:
        world.network.close()
