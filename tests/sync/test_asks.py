"""Questions that want a value: one answer counts, all others are told why theirs does not."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map

from crdt_sessions.limits import RunRules
from crdt_sessions.model import Approval, ApprovalRequest
from crdt_sessions.model.drafts import new_draft

from .runs import World

ROOMS = {"enum": ["single", "double"]}
TRIP = {
    "type": "object",
    "properties": {"nights": {"type": "integer", "minimum": 1}, "name": {"type": "string"}},
    "required": ["nights", "name"],
}
DEVICES = ("phone", "laptop", "tablet", "watch", "desk")


def asking(people=("ann", "bob"), **request):
    world = World(RunRules(lease_s=10, gone_grace_s=3, cancel_grace_s=5, max_attempts=3), people=people)
    world.post(people[0])
    world.ask(people[0])
    world.settle()
    world.suspend(world.claim(), **request)
    return world


def test_the_first_value_that_fits_counts():
    world = asking(kind="choose", form=ROOMS, message="Which room?")
    (pending,) = world.run().pending
    assert (pending.kind, pending.message) == ("choose", "Which room?")
    world.decide("ann", True, answer="suite")
    world.settle()
    assert (world.status(), world.part().approval) == ("suspended", None)
    (refused,) = world.part().refused
    assert (refused.by, refused.why, refused.value) == ("ann", "not-an-answer", None)
    assert "'suite' is not one of" in refused.detail
    world.decide("bob", True, answer="double")
    world.settle()
    assert (world.status(), world.part().approval.by, world.part().approval.value) == ("queued", "bob", "double")


def test_who_answers_otherwise_afterwards_is_late_and_who_answers_the_same_is_not():
    world = asking(people=("ann", "bob", "cid"), kind="choose", form=ROOMS)
    for who, answer in (("ann", "double"), ("bob", "double"), ("cid", "single")):
        world.decide(who, True, answer=answer)
    world.settle()
    part = world.part()
    assert part.approval.value == "double"
    assert {(late.by, late.value) for late in part.late} >= {("cid", "single")}


def test_a_question_can_be_declined():
    world = asking(kind="form", form=TRIP)
    world.decide("ann", False, reason="not now")
    world.settle()
    assert world.part().approval == Approval(approved=False, by="ann", reason="not now", at=world.network.now)


def test_the_default_counts_if_nobody_answers_in_time():
    world = asking(kind="choose", form=ROOMS, default="single", deadline=60_000)
    world.network.pass_time(61)
    world.settle()
    settled = world.part().approval
    assert (settled.approved, settled.value, settled.by, world.status()) == (True, "single", "deadline", "queued")


def test_without_a_default_nobody_has_answered():
    world = asking(kind="choose", form=ROOMS, deadline=60_000)
    world.network.pass_time(61)
    world.settle()
    assert (world.part().approval.approved, world.part().approval.by) == (False, "deadline")


def test_edited_input_stands_beside_what_the_model_wrote():
    world = asking(kind="edit", form={"type": "object", "properties": {"seat": {"type": "integer"}}})
    world.decide("ann", True, answer={"seat": 7})
    world.settle()
    part = world.part()
    assert (part.input, part.approval.value, part.approval.approved) == ({"seat": 1}, {"seat": 7}, True)


def test_all_must_answer_where_all_are_asked():
    world = asking(kind="choose", form=ROOMS, approvers=["ann", "bob"], needs="all")
    world.decide("ann", True, answer="single")
    world.settle()
    assert world.part().approval is None
    world.network.pass_time(1)
    world.decide("bob", True, answer="double")
    world.settle()
    assert (world.part().approval.by, world.part().approval.value) == ("bob", "double")


def test_a_draft_is_shared_field_by_field_and_counts_for_nothing():
    world = asking(kind="form", form=TRIP)
    for name in ("ann", "bob"):
        world.network.drop(name)
    world.fill_in("ann", nights=3)
    world.fill_in("bob", name="Bo")
    for name in ("ann", "bob"):
        world.network.connect(name)
    world.settle()
    assert world.part().draft == {"nights": 3, "name": "Bo"}
    assert (world.status(), world.part().approval) == ("suspended", None)
    seen = world.network.peers["ann"].replica.view.messages.value("r-out").parts[-1].draft
    world.decide("ann", True, answer=seen)
    world.settle()
    assert world.part().approval.value == {"nights": 3, "name": "Bo"}


@given(
    st.text("Ab ", max_size=3),
    st.lists(st.tuples(st.sampled_from(["phone", "laptop"]), st.floats(0, 1), st.text("xé😀", min_size=1, max_size=3)), max_size=6),
)  # fmt: skip
def test_what_two_devices_type_in_one_field_offline_stays_of_both(first, typed):
    form = {"type": "object", "properties": {"name": {"type": "string"}}}
    world = asking(people=("phone", "laptop"), kind="form", form=form, default={"name": first} if first else None)
    devices = {name: world.network.peers[name].replica.view for name in ("phone", "laptop")}
    assert all(
        view.messages["r-out"].tool("c").draft() == ({"name": first} if first else {}) for view in devices.values()
    )
    for name in devices:
        world.network.drop(name)
    for name, where, words in typed:
        stands = devices[name].messages["r-out"].tool("c").draft().get("name", "")
        at = int(len(stands) * where)
        world.fill_in(name, name=stands[:at] + words + stands[at:])
    for name in devices:
        world.network.connect(name)
    world.settle()
    found = world.part().draft.get("name", "")
    assert sorted(found) == sorted(first + "".join(words for _, _, words in typed)), "nothing is lost, nothing twice"
    assert all(view.messages["r-out"].tool("c").draft().get("name", "") == found for view in devices.values())


def test_a_field_of_free_text_is_filled_in_like_any_other_by_those_who_know_no_text():
    world = asking(kind="form", form=TRIP, default={"nights": 1, "name": "Guest"})
    assert world.part().draft == {"name": "Guest"}
    world.fill_in("ann", name="Guests")
    world.settle()
    world.fill_in("bob", name=None)
    world.settle()
    assert world.part().draft == {}, "what is emptied is filled in by nobody"

    def earlier(view):  # as clients of earlier releases do
        view.messages["r-out"].tool("c")._part["draft"]["name"] = "Bo"

    world.network.edit("ann", earlier)
    world.settle()
    assert world.part().draft == {"name": "Bo"}
    world.fill_in("bob", name="Bob", nights=2)
    world.settle()
    assert world.part().draft == {"name": "Bob", "nights": 2}


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        ({"kind": "form", "form": TRIP}, {"name": ""}),
        ({"kind": "choose", "form": {"type": "string"}, "default": "Oslo"}, {"value": "Oslo"}),
        ({"kind": "choose", "form": ROOMS}, {}),
        ({"kind": "form", "form": {"properties": {"day": {"type": "string", "format": "date"}}}}, {}),
        ({"kind": "form", "form": {"properties": {"to": {"type": "string", "default": "Bo"}}}}, {"to": "Bo"}),
        ({"kind": "edit", "form": {"properties": {"to": {"type": "string"}}}}, {"to": "Bergen"}),
        ({"kind": "edit"}, {}),
    ],
)
def test_fields_of_free_text_begin_with_what_is_there(question, texts):
    draft = Doc().get("part", type=Map)
    draft["draft"] = new_draft(ApprovalRequest(requested_at=1, **question), {"to": "Bergen", "nights": 1})
    assert {name: str(text) for name, text in draft["draft"].items()} == texts


def test_a_question_that_cannot_be_read_ends_its_run():
    world = World()
    world.post()
    world.ask()
    world.settle()
    holder = world.claim()
    world.suspend(holder)  # a question as it should be
    world.decide("ann", True)
    world.settle()
    holder = world.claim()

    def odd(view):
        part = view.messages["r-out"].open_tool("odd", "ask")._part
        part["approvalRequest"] = {"kind": "form", "schema": {"pattern": "x"}, "requestedAt": 1}
        part["state"] = "approval-requested"

    world.network.edit(holder.name, odd)
    world.report(holder, "suspended")
    world.settle()
    outcome = world.run().outcome
    assert (world.status(), outcome.error.code) == ("failed", "bad-question")
    assert "'odd'" in outcome.reason


def test_a_value_survives_a_restart():
    world = asking(kind="choose", form=ROOMS)
    world.decide("ann", True, answer="double")
    world.settle()
    world.network.crash()
    world.network.connect("ann")
    world.settle()
    assert world.part().approval.value == "double"
    assert world.record().approvals["c"].approval.value == "double"


ANSWERS = st.sampled_from(["single", "double", "suite", None, {"a": 1}])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.sampled_from(DEVICES), st.booleans(), ANSWERS),
        st.tuples(st.just("draft"), st.sampled_from(DEVICES), st.sampled_from("xyz"), st.integers(0, 9)),
        st.tuples(st.just("leave"), st.sampled_from(DEVICES), st.booleans(), st.none()),
        st.tuples(st.just("back"), st.sampled_from(DEVICES), st.none(), st.none()),
        st.tuples(st.just("send"), st.sampled_from(DEVICES), st.none(), st.none()),
        st.tuples(st.just("time"), st.just(""), st.none(), st.integers(1, 40)),
        st.tuples(st.just("crash"), st.just(""), st.none(), st.none()),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(STEPS, st.sampled_from(["any", "all"]), st.sampled_from([None, "single"]))
def test_five_devices_get_one_settlement_and_nobody_is_left_without_an_answer(steps, needs, default):
    world = asking(
        DEVICES, kind="choose", form=ROOMS, needs=needs, approvers=list(DEVICES[:4]), default=default, deadline=90_000
    )
    with closing(world.network):
        said, settlements = {}, []
        for step in steps:
            said |= taken(world, *step)
            found = world.network.engine.view.messages["r-out"].tool("c").approval
            settlements += [found] if found is not None else []
        bring_to_an_end(world, said, settlements)


def taken(world, what, who, one, other):
    """Take a step; return what somebody has said with it."""
    match what:
        case "decide":
            world.decide(who, one, answer=other)
            if world.network.peers[who].replica.view.messages.find("r-out") is not None:
                return {who: (one, other)}
        case "draft":
            world.fill_in(who, **{one: other})
        case "leave":
            world.network.drop(who, abrupt=one)
        case "back":
            world.network.connect(who)
        case "send":
            world.send(who)
        case "time":
            world.network.pass_time(other)
        case "crash":
            world.network.commit()
            world.network.crash()
    return {}


def bring_to_an_end(world, said, settlements):
    for name in DEVICES:
        world.network.connect(name)
    world.settle()
    world.network.pass_time(100)
    world.settle()
    part = world.part()
    assert part.approval is not None
    assert all(each == part.approval for each in settlements), "settled once"
    if part.approval.approved:
        assert part.approval.value in ROOMS["enum"]
    told = {each.by for each in part.refused or ()} | {each.by for each in part.late or ()} | {part.approval.by}
    settled = (part.approval.approved, part.approval.value)
    agreed = {who for who, (yes, value) in said.items() if (yes, value if yes else None) == settled}
    assert set(said) <= told | agreed, "whoever said something finds it counted, late or refused"
    assert world.status() in ("queued", "suspended", "running")


@pytest.mark.parametrize("who", ["ann", "bob"])
def test_every_device_sees_the_same_answer(who):
    world = asking(kind="choose", form=ROOMS)
    world.decide("ann", True, answer="single")
    world.decide("bob", True, answer="double")
    world.settle()
    theirs = world.network.peers[who].replica.view.messages.value("r-out").parts[-1]
    assert theirs == world.part()
    assert [late.value for late in theirs.late] == [{"single", "double"}.difference({theirs.approval.value}).pop()]
