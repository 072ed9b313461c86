"""Field rules and authorship: what a participant may not write is put back, and told."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Map, Text

from crdt_sessions.errors import ForeignWriter
from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import (
    Approval,
    ApprovalRequest,
    Author,
    Decision,
    MessageHead,
    RunRequest,
    RunResult,
    TextPart,
)
from crdt_sessions.sync import Actor, Deed, Replica, Rights, Violation
from crdt_sessions.testing import SimNetwork
from crdt_sessions.wire import AwarenessEntry, AwarenessFrame, PermissionDenied, Update, encode, encode_awareness
from tests.sync.forged import FORGER, entry, text_beside
from tests.sync.test_engine import A, B, Bench, letters

from .runs import World

KNOWN = Rights(verified=True)
AGENT = Rights(decide=False, cancel=False, verified=True)
ASKS_NOBODY = replace(KNOWN, ask=False, cancel=False)
BACKEND = replace(KNOWN, vouch=True)


@pytest.fixture
def world():
    world = World(people=("ann", "bob", "eve"), rights=KNOWN, agents=AGENT)
    world.post()
    world.ask()
    world.settle()
    return world


def forge(world, who, change):
    """Let somebody with a client that keeps no rules write something."""
    world.network.edit(who, change)
    world.settle()


def violations(world, who="eve"):
    return {what for principal, what in world.network.violations if principal == who}


def same_everywhere(world):
    said = {str(peer.replica.view.runs.value("r")) for peer in world.network.peers.values() if peer.connection}
    assert len(said) == 1
    return world.run()


def test_a_decision_in_somebody_elses_name_counts_for_nothing(world):
    world.suspend(world.claim(), approvers=["bob"])

    def as_bob(view):
        view.messages["r-out"].tool("c").decide("bob", Decision(approved=True, at=world.network.now))

    forge(world, "eve", as_bob)
    assert (world.status(), world.part().decisions) == ("suspended", {})
    assert violations(world) == {"decisions"}
    assert [(each.by, each.approved, each.why) for each in world.part().refused] == [("eve", True, "not-yours")]
    world.decide("bob", False)
    world.settle()
    assert (world.part().approval.by, world.part().approval.approved) == ("bob", False)
    assert violations(world, "bob") == set()


def test_a_part_that_comes_with_a_decision_loses_it(world):
    """A new part of a message that is being written need not be tried elsewhere; judged it is all the same."""
    holder = world.claim()
    name = holder.name
    world.begin(holder)
    world.settle()
    decided = {"bob": {"approved": True, "at": 1}}
    part = {"type": "tool", "toolCallId": "c", "toolName": "book", "state": "approval-requested"}
    part |= {"inputText": Text(""), "decisions": Map(decided)}
    forge(world, name, lambda view: view.messages["r-out"].parts.append(Map(part)))
    assert world.part().decisions == {}
    assert violations(world, name) == {"decisions"}


def test_a_decision_of_somebody_else_cannot_be_changed_or_removed(world):
    world.suspend(world.claim(), approvers=["ann", "bob"], needs="all")
    world.decide("ann", False, reason="no")
    world.settle()
    world = world_of(world)
    said = world.part().decisions
    for change in (
        lambda part: part["decisions"].pop("ann"),
        lambda part: part.update({"decisions": Map({"ann": {"approved": True, "at": 1}})}),
        lambda part: part.update({"decisions": {"ann": {"approved": True, "at": 1}}}),
    ):
        forge(world, "eve", lambda view, change=change: change(part_of(view)))
        assert world.part().decisions == said


def world_of(world, rights=KNOWN):
    world.network.crash()
    for name in world.network.peers:
        world.network.connect(name, rights=rights)
    world.settle()
    return world


def part_of(view):
    parts = view.messages["r-out"].parts
    return next(parts[at] for at in range(len(parts)) if parts[at].get("type") == "tool")


def test_a_question_cannot_be_turned_to_somebody_else_before_it_is_asked(world):
    holder = world.claim()
    world.write(holder, "Well.")

    def ask(view):
        tool = view.messages[holder.output].open_tool("c", "book")
        tool.ask(ApprovalRequest(approvers=["bob"], requested_at=1))

    world.network.edit(holder.name, ask)
    world.settle()
    forge(
        world, "eve",
        lambda view: part_of(view).update({"approvalRequest": {"approvers": ["eve"], "requestedAt": 1}}),
    )  # fmt: skip
    assert world.part().approval_request.approvers == ["bob"]
    assert violations(world) == {"approvalRequest"}


@pytest.mark.parametrize("field", ["approvalRequest", "approval", "bob"])
def test_text_that_takes_the_place_of_a_field_is_put_back_and_its_author_told(world, field):
    """It looks like typing: text beside something. But what it stands beside is the entry of a map."""
    world.suspend(world.claim(), approvers=["ann", "bob"], needs="all")
    world.decide("bob", True)
    if field == "approval":
        world.decide("ann", False)
    world.settle()
    before, clock = world.part(), 0
    beside = entry(world.network.engine.document, field)
    for text in ("x", "yz", "w"):
        forgery = text_beside(beside, text, clock=clock)
        world.network.peers["eve"].uplink.append(encode(Update(forgery)))
        world.settle()
        beside, clock = (FORGER, clock + len(text) - 1), clock + len(text)
        assert world.part() == before
    assert violations(world) == {"decisions" if field == "bob" else field}
    assert {principal for principal, _ in world.network.violations} == {"eve"}
    if field != "approval":
        world.decide("ann", False)
        world.settle()
    assert (world.part().approval.approved, violations(world, "ann")) == (False, set())
    known = world.network.engine.view.messages.value("r-out")
    assert all(peer.replica.view.messages.value("r-out") == known for peer in world.network.peers.values())


def test_a_second_part_of_the_same_call_in_front_of_it_changes_nothing(world):
    world.suspend(world.claim(), approvers=["bob"])

    def shadow(view):
        yes = {"approved": True, "at": 1}
        view.messages["r-out"].parts.insert(
            0,
            Map(
                {
                    "type": "tool",
                    "toolCallId": "c",
                    "toolName": "book",
                    "inputText": Text(""),
                    "input": {},
                    "state": "approval-requested",
                    "decisions": Map({"bob": yes}),
                }
            ),
        )

    forge(world, "eve", shadow)
    assert world.status() == "suspended"
    assert violations(world) == {"decisions"}


def test_an_agent_does_not_decide_what_it_asks_people_nor_stop_others(world):
    world.suspend(world.claim())
    world.network.add("bot")
    world.network.connect("bot", rights=AGENT)
    world.settle()

    def approve_itself(view):
        view.messages["r-out"].tool("c").decide("bot", Decision(approved=True, at=1))
        view.runs.put_back("r", "cancel", {"by": "bot", "at": 1})

    forge(world, "bot", approve_itself)
    assert (world.status(), world.run().cancel, world.part().decisions) == ("suspended", None, {})
    assert violations(world, "bot") == {"decisions", "runs.cancel"}
    assert [(each.by, each.why) for each in world.part().refused] == [("bot", "role")]


def test_only_the_holder_of_the_lease_says_what_became_of_a_run(world):
    holder = world.claim()
    world.write(holder, "Half of it")
    done = RunResult(status="completed", epoch=holder.epoch, at=1)
    forge(world, "eve", lambda view: view.runs.report("r", done))
    assert (world.status(), world.run().result) == ("running", None)
    assert violations(world) == {"runs.result"}
    world.report(holder, "completed")
    world.settle()
    assert world.status() == "completed"
    assert same_everywhere(world).result.epoch == holder.epoch


def test_fields_that_the_server_settled_are_restored_and_reported(world):
    holder = world.claim()
    world.suspend(holder, approvers=["bob"])

    def tamper(view):
        view.document.roots.meta["status"] = "archived"
        view.messages["q"].seq = 99
        view.messages["q"].by = "bob"
        view.runs.put_back("r", "status", "completed")
        view.messages["r-out"].tool("c").settle(Approval(approved=True, by="bob", at=1), [])

    forge(world, "eve", tamper)
    assert world.network.engine.writable
    assert (world.status(), world.network.engine.view.messages["q"].seq) == ("suspended", 1)
    assert world.network.engine.view.messages["q"].by == "ann"
    assert {"meta.status", "seq", "runs"} <= violations(world)


def test_the_author_of_a_message_is_settled_and_its_content_is_not(world):
    head = MessageHead(id="m", role="user", author=Author(id="bob"), created_at=1)
    world.network.edit("eve", lambda view: view.messages.add(head, [TextPart(type="text", text="I quit")]))
    world.settle()
    message = world.network.engine.view.messages.value("m")
    assert (message.author.id, message.by) == ("bob", "eve")


def test_requests_and_stops_without_the_right_have_no_effect(world):
    world.network.drop("eve")
    world.network.connect("eve", rights=ASKS_NOBODY)
    world.settle()
    request = RunRequest(message_id="q", agent="writer", created_at=1)

    def change(view):
        view.runs.request("mine", request)
        view.runs.put_back("r", "cancel", {"by": "eve", "at": 1})
        view.runs.put_back("later", "cancel", {"by": "eve", "at": 1})

    forge(world, "eve", change)
    assert (world.run("mine").request, world.record("mine"), world.run().cancel) == (None, None, None)
    assert not world.network.engine.view.runs.cancelled("later")
    assert violations(world) == {"runs.request", "runs.cancel"}


def test_a_backend_speaks_for_others(world):
    world.suspend(world.claim(), approvers=["bob"])
    world.network.drop("eve")
    world.network.connect("eve", rights=BACKEND)
    world.settle()
    forge(
        world, "eve",
        lambda view: view.messages["r-out"].tool("c").decide("bob", Decision(approved=True, at=world.network.now)),
    )  # fmt: skip
    assert (world.part().approval.by, world.status()) == ("bob", "queued")
    assert violations(world) == set()


def test_without_known_principals_everybody_may_do_everything():
    world = World()
    world.post()
    world.ask()
    world.settle()
    world.suspend(world.claim(), approvers=["bob"])
    forge(world, "ann", lambda view: view.messages["r-out"].tool("c").decide("bob", Decision(approved=True, at=1)))
    assert world.status() == "queued"
    assert world.network.engine.view.messages["q"].by is None
    assert [each.run for each in world.network.engine.writers] == ["r"], "only those with leases are known"


STEPS = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.sampled_from("ABERCQ"), st.booleans()), max_size=8
)


def test_who_may_not_stop_a_run_asks_twice_at_most():
    world = World(RunRules(default_agent="*"), rights=replace(KNOWN, cancel=False))
    world.post("ann", id="m")
    world.send("ann")
    world.cancel("bob", "run-m")
    world.settle()
    assert world.status("run-m") == "queued"
    assert world.network.violations in ([("bob", "runs.cancel")], [("bob", "runs.cancel")] * 2)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.booleans())
@pytest.mark.slow
def test_only_writes_that_their_authors_may_make_remain(steps, crash):
    """A: decide as ann, B: as bob, E: as eve; R: a result, C: cancel without the right, Q: turn the question."""
    rights = replace(KNOWN, cancel=False)
    world = World(people=("ann", "bob", "eve"), rights=rights, agents=AGENT)
    world.post()
    world.ask()
    world.settle()
    world.suspend(world.claim(), approvers=["ann", "bob", "eve"], needs="all")
    own, names = {}, {"A": "ann", "B": "bob", "E": "eve"}
    for who, what, approved in steps:
        if world.status() != "suspended":
            break

        def write(view, who=who, what=what, approved=approved):
            tool = view.messages["r-out"].tool("c")
            if what in names:
                tool.decide(names[what], Decision(approved=approved, at=7))
            elif what == "R":
                view.runs.report("r", RunResult(status="completed", epoch=1, at=1))
            elif what == "C":
                view.runs.put_back("r", "cancel", {"by": who, "at": 1})
            else:
                part_of(view).update({"approvalRequest": {"approvers": [who], "requestedAt": 1}})

        world.network.edit(who, write)
        if names.get(what) == who:
            own[who] = approved
        world.settle()
        if crash:
            world = world_of(world, rights)
    said = world.part().decisions or {}
    assert {who: each["approved"] for who, each in said.items()} == own
    assert world.part().approval_request.approvers == ["ann", "bob", "eve"]
    assert (world.run().cancel, world.run().result.status) == (None, "suspended")
    if False in own.values():
        assert (world.status(), world.part().approval.approved) == ("queued", False)
    elif len(own) == 3:
        assert (world.status(), world.part().approval.approved) == ("queued", True)
    else:
        assert world.status() == "suspended"


# -- whose a client is -------------------------------------------------------------------------------------------------


@pytest.fixture
def bench():
    return Bench()


def draft(bench):
    return str(bench.engine.document.doc.get("draft", type=Text))


REFUSED = PermissionDenied(str(ForeignWriter(client=50)))


def test_a_client_belongs_to_the_first_principal_that_brings_its_new_structs(bench):
    first, second = letters("ab")
    bench.join(A, principal="ann", rights=KNOWN)
    bench.join(B, principal="eve", rights=KNOWN)
    bench.send(A, Update(first))
    (writer,) = bench.engine.writers
    assert (writer.client, writer.principal) == (50, "ann")
    assert [record.writers for record in (row.records for row in bench.rows) if record.writers] == [{50: writer}]
    assert bench.send(B, Update(first)) == [], "what is known may be said by everybody"
    _, told = bench.send(B, Update(second))
    assert REFUSED in bench.take(B)
    assert (told.principal, told.what) == ("eve", "client")
    assert draft(bench) == "a"
    bench.send(A, Update(second))
    assert draft(bench) == "ab"


def test_an_update_of_several_clients_is_refused_if_one_is_somebody_elses(bench):
    bench.join(A, principal="ann", rights=KNOWN)
    bench.join(B, principal="eve", rights=KNOWN)
    (mine,), (first, second) = letters("x", client_id=60), letters("ab", client_id=50)
    bench.send(A, Update(first))
    both = Replica(61)
    for update in (first, mine, second):
        both.edit(lambda view, update=update: view.document.apply(update))
    bench.send(B, Update(both.document.encode()))
    assert REFUSED in bench.take(B)
    assert [each.principal for each in bench.engine.writers] == ["ann"], "nothing of it was taken"


def test_authorship_that_is_only_recorded_lets_everybody_write(bench):
    bench = Bench(enforce=False)
    bench.join(A, principal="ann", rights=KNOWN)
    bench.join(B, principal="eve", rights=KNOWN)
    first, second = letters("ab")
    bench.send(A, Update(first))
    effects = bench.send(B, Update(second))
    assert draft(bench) == "ab"
    assert [each.principal for each in bench.engine.writers] == ["ann"]
    assert Violation("eve", "client") in effects, "it is counted"


def test_owners_of_clients_survive_a_restart_and_a_backend_owns_none():
    network = SimNetwork()
    for name, rights in (("ann", KNOWN), ("backend", BACKEND)):
        network.add(name)
        network.connect(name, rights=rights)
        network.run_until_quiet()
        network.edit(name, lambda view, name=name: view.set_title(name))
        network.run_until_quiet()
    network.crash()
    assert [each.principal for each in network.engine.writers] == ["ann"]


def test_an_update_over_http_is_its_senders(bench):
    first, second = letters("ab")
    bench.apply(first, Actor("ann", KNOWN))
    with pytest.raises(ForeignWriter):
        bench.apply(second, Actor("eve", KNOWN))
    bench.apply(second)
    assert draft(bench) == "ab"


# -- presence ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "heard"),
    [
        ('{"user":{"id":"ann"}}', False),
        ('{"user":{"id":"eve"}}', True),
        ('{"user":{"name":"Ann"}}', True),
        ('{"user":7}', True),
        ("{}", True),
        ("[[]]", True),
    ],
)
def test_a_presence_says_only_who_one_is(bench, state, heard):
    bench.join(A, principal="eve", rights=KNOWN)
    effects = bench.send(A, AwarenessFrame(encode_awareness([AwarenessEntry(77, 1, state)])))
    assert (77 in bench.engine.roster.present()) is heard
    assert [each.what for each in effects if hasattr(each, "what")] == ([] if heard else ["presence"])


def test_the_presence_of_somebody_is_forgotten_when_asked_to(bench):
    bench.join(A, principal="eve", rights=KNOWN)
    bench.join(B, principal="bob", rights=KNOWN)
    for peer, client in ((A, 77), (B, 78)):
        bench.send(peer, AwarenessFrame(encode_awareness([AwarenessEntry(client, 1, "{}")])))
    count, _ = bench.engine.forget_presence("eve", Millis(bench.now))
    assert (count, list(bench.engine.roster.present())) == (1, [78])


def test_an_approval_that_nobody_gave_is_removed_also_where_another_run_goes_on(world):
    holder = world.claim()
    world.suspend(holder, approvers=["bob"])
    yes = Approval(approved=True, by="bob", at=1)
    forge(world, "eve", lambda view: view.messages["r-out"].tool("c").settle(yes, []))
    assert (world.part().approval, world.part().state, world.status()) == (None, "approval-requested", "suspended")
    assert violations(world) == {"approval"}
    world.decide("bob", False)
    world.settle()
    given = world.part().approval
    forge(world, "eve", lambda view: view.messages["r-out"].tool("c").settle(yes, []))
    assert world.part().approval == given
    again = world.claim()
    world.report(again, "failed")
    world.settle()

    def go_on(view):
        request = RunRequest(message_id="r-out", agent="writer", trigger="continue", created_at=9)
        view.runs.request("r2", request)
        view.messages["r-out"].tool("c").settle(yes, [])

    forge(world, "ann", go_on)
    assert world.run("r2").output == "r-out"
    assert world.part().approval == given
    assert violations(world, "ann") == {"approval"}


def test_an_overwritten_head_is_reported(world):
    forge(world, "eve", lambda view: view.messages["q"]._entry.__setitem__("head", {"id": "q", "role": "system"}))
    assert violations(world) == {"head"}


def test_deeds_are_reported_with_their_principals(world):
    deeds = []
    perform = world.network._perform

    def watching(engine, effects):
        deeds.extend((each.action, each.principal) for each in effects if isinstance(each, Deed))
        perform(engine, effects)

    world.network._perform = watching
    world.suspend(world.claim())
    world.decide("bob", True)
    world.settle()
    forge(world, "eve", lambda view: view.runs.put_back("r", "cancel", {"by": "bob", "at": 1}))
    assert deeds == [("run.decide", "bob"), ("run.cancel", "eve")], "who it was, not who it says it was"


def test_nobody_takes_back_what_stands_in_a_message_but_who_writes_it(world):
    holder = world.claim()
    world.write(holder, "Well.")
    world.settle()
    forge(world, "eve", lambda view: view.messages["r-out"].supersede())
    assert (world.text(), violations(world)) == ("Well.", {"superseded"})
    world.network.edit(holder.name, lambda view: view.messages["r-out"].supersede())
    world.write(holder, "Anew.")
    world.settle()
    assert (world.text(), violations(world, holder.name)) == ("Anew.", set())
    forge(world, "eve", lambda view: view.document.roots.messages["r-out"].update({"superseded": 0}))
    assert world.text() == "Anew."
    world_of(world)
    forge(world, "eve", lambda view: view.document.roots.messages["r-out"].pop("superseded"))
    assert world.text() == "Anew."
    assert {"ann": world.text()} == {"ann": world.network.peers["ann"].replica.view.messages.value("r-out").text}


def test_a_request_does_not_say_that_a_schedule_asks(world):
    request = RunRequest(message_id="q", agent="writer", scheduled_by="r", created_at=1)
    forge(world, "eve", lambda view: view.runs.request("mine", request))
    assert world.run("mine").request.scheduled_by is None
