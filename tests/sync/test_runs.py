"""Runs: admission, claim, lease, fencing, control, approvals. One rule a test, no sleeping."""

import random
from collections import Counter
from dataclasses import replace

import pytest

from crdt_sessions.errors import LeaseLost, RunNotClaimable
from crdt_sessions.limits import RunRules
from crdt_sessions.model import ApprovalRequest, Author, Decision, MessageHead, RunOutcome, RunResult
from crdt_sessions.sync import ALL
from crdt_sessions.testing import content
from tests.profiles import sample

from .runs import RULES, World


@pytest.fixture
def world():
    return World()


@pytest.fixture
def asked(world):
    world.post()
    world.ask()
    world.settle()
    return world


@pytest.fixture
def held(asked):
    return asked, asked.claim()


# -- admission and policies --------------------------------------------------------------------------------------------


def test_a_request_is_queued_and_waits_for_days(asked):
    assert asked.status() == "queued"
    asked.network.pass_time(30 * 86400)
    asked.network.crash()
    for name in asked.network.peers:
        asked.network.connect(name)
    asked.settle()
    assert (asked.status(), asked.record().ready) == ("queued", True)
    holder = asked.claim()
    assert (asked.status(), asked.run().lease.epoch, holder.output) == ("running", 1, "r-out")


def test_a_request_made_offline_is_queued_when_its_author_returns(world):
    world.network.drop("ann")
    world.post()
    world.ask()
    world.network.pass_time(3600)
    world.network.connect("ann")
    world.settle()
    assert world.status() == "queued"


def test_one_claimant_wins(asked):
    asked.claim()
    with pytest.raises(RunNotClaimable, match="running"):
        asked.claim()


def test_a_run_is_for_the_agent_it_names(world):
    world.ask(agent="critic")
    world.settle()
    with pytest.raises(RunNotClaimable, match="critic"):
        world.claim(agent="writer")
    assert world.claim(agent="critic").epoch == 1


def test_asking_twice_is_asking_once(asked):
    asked.claim()
    asked.ask(message="other")
    asked.settle()
    assert asked.run().request.message_id == "q"
    assert (asked.status(), asked.record().epoch) == ("running", 1)


def test_by_default_runs_of_a_session_queue(held):
    world, holder = held
    world.ask(run="s")
    world.ask(run="t")
    world.settle()
    with pytest.raises(RunNotClaimable):
        world.claim("s")
    world.report(holder, "completed", reason="stop")
    world.settle()
    second = world.claim("s")
    with pytest.raises(RunNotClaimable):
        world.claim("t")
    world.report(second, "failed")
    world.settle()
    assert world.claim("t").epoch == 1


def test_the_policy_parallel_waits_for_nobody(held):
    world, _ = held
    world.ask(run="s", policy="parallel")
    world.settle()
    assert world.claim("s").run == "s"
    assert world.status() == "running"


def test_the_policy_reject_ends_the_newcomer(held):
    world, _ = held
    world.ask(run="s", policy="reject")
    world.settle()
    assert (world.status("s"), world.run("s").outcome.reason) == ("cancelled", "rejected: another run is active")
    assert world.status() == "running"


def test_the_policy_interrupt_stops_the_others_first(held):
    world, holder = held
    world.ask(run="waiting")
    world.ask(who="bob", run="s", policy="interrupt")
    world.settle()
    assert world.status("waiting") == "cancelled"
    assert (world.run().cancel.by, world.status()) == ("bob", "running")
    with pytest.raises(RunNotClaimable):
        world.claim("s")
    world.report(holder, "cancelled")
    world.settle()
    assert (world.status(), world.run().outcome.reason) == ("cancelled", "interrupted by s")
    assert world.claim("s").epoch == 1
    assert world.notices().count("run.queued") == 2


def test_a_policy_can_be_the_sessions(held):
    world, _ = held
    world.network.edit("bob", lambda view: view.set_run_policy("reject"))
    world.settle()
    world.ask(run="s")
    world.settle()
    assert world.status("s") == "cancelled"


def test_two_runs_never_write_one_message(world):
    world.post()
    world.ask()
    world.settle()
    holder = world.claim()
    world.write(holder, "half")
    world.settle()
    world.ask(run="s", message="r-out", trigger="continue", policy="parallel")
    world.settle()
    assert world.record("s").output == "s-out"
    world.report(holder, "failed")
    world.settle()
    world.ask(run="t", message="r-out", trigger="continue", policy="parallel")
    world.settle()
    assert world.record("t").output == "r-out"


def test_a_message_is_answered_by_whom_the_session_says(world):
    world.network.edit("ann", lambda view: view.set_agent("writer"))
    world.post(id="m1")
    world.settle()
    request = world.run("run-m1").request
    assert (request.agent, request.message_id, request.by) == ("writer", "m1", "ann")
    world.network.edit("ann", lambda view: view.set_agent(""))
    world.post(id="m2")
    world.settle()
    assert world.run("run-m2") is None


def test_a_message_that_asks_somebody_is_not_asked_about_again():
    world = World(RunRules(default_agent="*"))

    def both(view):
        world_post(view)
        world_ask(view)

    edits = []
    world.network.edit = lambda _, change: edits.append(change)
    world.post(id="m")
    world.ask(run="mine", message="m", agent="critic")
    world_post, world_ask = edits
    del world.network.edit
    world.network.edit("ann", both)
    world.settle()
    assert world.network.engine.view.runs.ids() == ["mine"]


def test_a_message_that_is_still_spoken_is_answered_when_it_is_complete():
    world = World(RunRules(default_agent="*"))

    def speak(view):
        head = MessageHead(id="m", role="user", author=Author(id="ann"), created_at=1)
        world.transcript = view.messages.add(head).open_audio()
        world.transcript.append("Plan my ")

    world.network.edit("ann", speak)
    world.settle()
    assert world.network.engine.view.runs.ids() == []
    world.network.edit("ann", lambda _: (world.transcript.append("weekend"), world.transcript.close()))
    world.settle()
    assert world.run("run-m").status == "queued"


def test_what_comes_from_another_session_is_not_answered_again():
    source = World(RunRules(default_agent="*"))
    source.post(id="old")
    source.settle()
    holder = source.claim("run-old")
    source.write(holder, "answered")
    source.settle()
    copy = World(RunRules(default_agent="*"))
    call = copy.network.bring(source.network.engine.document.encode())
    assert copy.network.answers[call].error is None
    copy.settle()
    assert (copy.status("run-old"), copy.run("run-old").outcome.reason) == ("interrupted", "imported")
    assert copy.network.engine.view.runs.ids() == ["run-old"]


# -- lease and fencing -----------------------------------------------------------------------------------------------


def test_a_holder_that_is_heard_of_keeps_its_lease(held):
    world, holder = held
    for _ in range(20):
        world.network.pass_time(6)
        world.write(holder, ".")
        world.settle()
    assert (world.status(), world.text()) == ("running", "." * 20)


def test_a_silent_holder_loses_its_lease_and_what_it_wrote_stays(held):
    world, holder = held
    world.write(holder, "half an ")
    world.settle()
    for _ in range(9):
        world.network.pass_time(1)
    assert world.status() == "running"
    world.network.pass_time(1)
    world.settle()
    assert (world.status(), world.run().lease, world.text()) == ("queued", None, "half an ")
    assert world.part().state == "interrupted"
    assert isinstance(world.network.peers[holder.name].closed_by, LeaseLost)


def test_a_closed_connection_is_noticed_sooner(held):
    world, holder = held
    world.network.drop(holder.name)
    world.network.pass_time(2)
    assert world.status() == "running"
    world.connect(holder)
    world.network.pass_time(2)
    assert world.status() == "running"
    world.network.drop(holder.name)
    world.network.pass_time(2)
    world.network.pass_time(1)
    assert world.status() == "queued"


def test_the_successor_continues_the_same_message_and_buffer(held):
    world, holder = held
    world.write(holder, "half an ")
    world.settle()
    world.network.drop(holder.name)
    for _ in range(4):
        world.network.pass_time(1)
    successor = world.claim()
    assert (successor.epoch, successor.output) == (2, holder.output)
    world.write(successor, "answer", close=True)
    world.report(successor, "completed", reason="stop")
    world.settle()
    message = world.network.engine.view.messages.value("r-out")
    assert (message.text, len(message.parts), message.parts[0].state) == ("half an answer", 1, "done")
    assert (world.status(), world.run().outcome.reason, world.run().lease) == ("completed", "stop", None)


def test_a_zombie_is_refused_whatever_way_it_comes(held):
    world, holder = held
    world.write(holder, "alive ")
    world.settle()
    world.network.drop(holder.name)
    for _ in range(4):
        world.network.pass_time(1)
    before = content(world.network.engine.document)
    world.write(holder, "undead")
    for lease in (holder.token, None):
        world.network.connect(holder.name, lease=lease)
        world.settle()
        assert isinstance(world.network.peers[holder.name].closed_by, LeaseLost)
    call = world.network.bring(world.network.peers[holder.name].replica.document.encode())
    assert isinstance(world.network.answers[call].error, LeaseLost)
    assert content(world.network.engine.document) == before
    world.network.crash()  # the fence is on record
    world.network.connect(holder.name)
    world.settle()
    assert isinstance(world.network.peers[holder.name].closed_by, LeaseLost)
    assert world.text() == "alive "


def test_a_zombies_result_counts_for_nothing(held):
    world, holder = held
    for _ in range(10):
        world.network.pass_time(1)
    world.claim()
    world.network.edit("ann", lambda view: view.runs.report("r", _result(holder.epoch)))
    world.settle()
    assert world.status() == "running"


def _result(epoch):
    return RunResult(status="completed", epoch=epoch, at=1)


def test_a_holder_that_ended_its_run_writes_no_more(held):
    world, holder = held
    world.write(holder, "done", close=True)
    world.report(holder, "completed")
    world.settle()
    assert world.network.peers[holder.name].closed_by is None, "it is owed the acknowledgement of its last words"
    assert world.network.peers[holder.name].replica.durable == world.network.peers[holder.name].replica.version
    world.write(holder, " more")
    world.settle()
    assert isinstance(world.network.peers[holder.name].closed_by, LeaseLost)
    assert world.text() == "done"


def test_an_agent_goes_on_with_another_run_on_the_connection_it_has(held):
    world, holder = held
    peer, first = world.network.peers[holder.name], world.network.peers[holder.name].replica
    first.set_presence({"user": {"id": "writer"}})
    world.write(holder, "done", close=True)
    world.report(holder, "completed")
    world.settle()
    world.ask(run="second")
    world.settle()
    connection, used = peer.connection, first.client_id
    successor = world.take_over(holder, "second")
    peer.replica.set_presence({"user": {"id": "writer"}})
    world.write(successor, "and on")
    world.settle()
    assert peer.connection == connection
    assert set(world.network.engine.roster.present()) == {peer.replica.client_id}, "it is seen once"
    assert (world.status("second"), world.text("second-out")) == ("running", "and on")
    assert world.network.records.writers[peer.replica.client_id].run == "second"
    assert world.network.records.writers[used].fenced_at is not None
    for _ in range(12):  # what it says renews the lease it has now, and nothing else
        world.network.pass_time(1)
        peer.replica.set_presence({"user": {"id": "writer"}})
        world.settle()
    assert world.status("second") == "running"
    world.network.drop(holder.name)
    for _ in range(4):
        world.network.pass_time(1)
    assert world.status("second") == "queued", "and the connection counts for it"


def test_an_agent_that_goes_on_with_another_run_has_left_the_first(held):
    world, holder = held
    world.settle()
    world.ask(run="second", policy="parallel")
    world.settle()
    world.take_over(holder, "second")
    for second in range(4):
        world.network.peers[holder.name].replica.set_presence({"second": second})
        world.settle()
        world.network.pass_time(1)
    assert (world.status(), world.status("second")) == ("queued", "running")


def test_a_peer_that_claims_anothers_lease_is_closed(held):
    world, holder = held
    world.settle()
    world.network.take_over("ann", "made up")
    world.settle()
    assert isinstance(world.network.peers["ann"].closed_by, LeaseLost)
    assert world.network.peers[holder.name].closed_by is None


def test_a_suspended_agent_does_not_keep_the_next_holders_lease_alive(held):
    world, holder = held
    world.suspend(holder)
    world.decide("ann", True)
    world.settle()
    successor = world.claim(connect=False)
    for second in range(11):
        world.network.peers[holder.name].replica.set_presence({"second": second})
        world.network.pass_time(1)
        world.settle()
    assert (successor.epoch, world.status()) == (2, "queued")


def test_a_run_is_given_up_after_too_many_lost_agents(asked):
    for attempt in range(1, 4):
        holder = asked.claim()
        assert asked.run().lease.attempt == attempt
        asked.write(holder, f"{attempt} ")
        asked.settle()
        asked.network.drop(holder.name)
        for _ in range(4):
            asked.network.pass_time(1)
        asked.settle()
    assert (asked.status(), asked.run().outcome.reason) == ("interrupted", "the agent was lost")
    assert asked.text() == "1 2 3 "
    assert asked.part().state == "interrupted"
    assert asked.notices().count("run.interrupted") == 1


def test_a_claimant_that_never_came_does_not_count(asked):
    for _ in range(5):
        asked.claim(connect=False)
        for _ in range(10):
            asked.network.pass_time(1)
    assert (asked.status(), asked.record().epoch, asked.record().attempt) == ("queued", 5, 0)


def test_a_server_that_slept_does_not_blame_the_agents(held):
    world, holder = held
    world.network.pass_time(1)
    world.network.pass_time(60)  # one look at the clock after a minute: it was the server that was away
    assert world.status() == "running"
    world.network.drop(holder.name)
    world.network.pass_time(1)
    world.network.pass_time(30)
    assert world.status() == "running"
    world.network.pass_time(2)
    assert world.status() == "queued"


def test_a_restart_of_the_server_gives_leases_their_time_again(held):
    world, holder = held
    world.write(holder, "before ")
    world.settle()
    world.network.crash()
    world.connect(holder)
    world.write(holder, "after")
    world.settle()
    assert (world.status(), world.text()) == ("running", "before after")
    world.network.crash()
    for _ in range(10):
        world.network.pass_time(1)
    assert world.status() == "queued"


def test_a_long_lease_can_be_asked_for_but_not_for_ever(asked):
    asked.claim(ttl_s=60, connect=False)
    for _ in range(59):
        asked.network.pass_time(1)
    assert asked.status() == "running"
    asked.network.pass_time(1)
    assert asked.status() == "queued"
    asked.claim(ttl_s=1e6, connect=False)
    assert asked.run().lease.ttl == RULES.longest_lease_s * 1000


def test_settled_fields_are_restored_when_overwritten(held):
    world, holder = held
    lease = world.run().lease

    def tamper(view):
        entry = view.document.roots.runs["r"]
        entry["status"], entry["lease"], entry["epoch"], entry["agent"] = "completed", {"owner": "me"}, 99, "me"
        entry["outcome"] = RunOutcome(reason="mine", ended_at=1).json_value()
        del entry["output"]

    world.network.edit("bob", tamper)
    world.settle()
    run = world.run()
    assert (run.status, run.lease, run.epoch, run.agent, run.outcome, run.output) == (
        "running", lease, 1, "*", None, "r-out",
    )  # fmt: skip
    world.report(holder, "completed", reason="stop")
    world.settle()
    world.network.edit("bob", lambda view: view.document.roots.runs.pop("r"))
    world.settle()
    assert (world.status(), world.run().outcome.reason, world.run().request.message_id) == ("completed", "stop", "q")


def test_a_run_ends_once(held):
    world, holder = held
    world.report(holder, "failed", reason="error")
    world.settle()
    world.report(holder, "completed")
    world.cancel()
    world.settle()
    assert (world.status(), world.run().outcome.reason) == ("failed", "error")


def test_nothing_of_a_question_and_its_answer_is_tried_elsewhere_until_the_end(world):
    """What is tried costs milliseconds (docs/design/performance-notes.md)."""
    tried = world.network.sandbox.tried
    tried.clear()
    world.post()
    world.ask()
    world.settle()
    holder = world.claim()
    world.begin(holder)
    world.settle()
    for word in ("Once ", "upon ", "a time"):
        world.write(holder, word)
        world.settle()
    assert (world.text(), tried) == ("Once upon a time", [])
    world.report(holder, "completed")
    world.settle()
    assert len(tried) == 1, "it closes a part, which overwrites something"


# -- control -----------------------------------------------------------------------------------------------------------


def test_cancel_before_the_start(asked):
    asked.cancel("bob", reason="changed my mind")
    asked.settle()
    assert (asked.status(), asked.run().outcome.reason, asked.run().cancel.by) == (
        "cancelled", "changed my mind", "bob",
    )  # fmt: skip
    with pytest.raises(RunNotClaimable, match="cancelled"):
        asked.claim()


def test_cancel_from_a_device_that_was_offline_when_it_pressed_stop(asked):
    asked.network.drop("bob")
    asked.cancel("bob")
    asked.settle()
    assert asked.status() == "queued"
    asked.network.connect("bob")
    asked.settle()
    assert (asked.status(), asked.run().cancel.by) == ("cancelled", "bob")


def test_a_request_and_its_cancel_may_arrive_together(world):
    world.network.drop("ann")
    world.post()
    world.ask()
    world.cancel()
    world.network.connect("ann")
    world.settle()
    assert world.status() == "cancelled"


def test_stop_is_pressed_before_the_service_has_seen_the_question():
    world = World(RunRules(default_agent="*"))
    world.network.drop("ann")
    world.post(id="m")
    world.cancel("ann", "run-m")
    world.network.connect("ann")
    world.settle()
    assert (world.status("run-m"), world.run("run-m").request.message_id) == ("cancelled", "m")


@pytest.mark.parametrize("client", [7, 2_000_000], ids=["below the server's", "above the server's"])
def test_stop_is_pressed_while_the_service_writes_the_runs_entry(client):
    """Of two entries that were made at once the CRDT keeps one, by the ids of the clients that made them."""
    world = World(RunRules(default_agent="*"))
    world.network.add("cleo", client)
    world.network.connect("cleo")
    world.settle()
    world.post("ann", id="m")
    world.send("ann")
    world.cancel("cleo", "run-m", reason="never mind")
    world.settle()
    assert (world.status("run-m"), world.run("run-m").cancel.reason) == ("cancelled", "never mind")
    assert world.run("run-m").request.message_id == "m"


def test_an_agent_that_is_cancelled_stops_by_itself(held):
    world, holder = held
    world.write(holder, "so far")
    world.cancel("bob")
    world.settle()
    assert world.status() == "running"
    assert world.network.peers[holder.name].replica.view.runs.cancelled("r")
    world.report(holder, "completed")  # it was done when it heard; stop was pressed first
    world.settle()
    assert (world.status(), world.text()) == ("cancelled", "so far")


def test_an_agent_that_does_not_obey_is_fenced(held):
    world, holder = held
    world.cancel()
    world.settle()
    for _ in range(5):
        assert world.status() == "running"
        world.write(holder, "la ")
        world.settle()
        world.network.pass_time(1)
    world.settle()
    assert (world.status(), world.run().outcome.reason) == ("cancelled", "the agent did not stop by itself")
    assert isinstance(world.network.peers[holder.name].closed_by, LeaseLost)
    assert world.part().state == "interrupted"


def test_a_cancelled_run_whose_agent_dies_is_cancelled_not_retried(held):
    world, holder = held
    world.cancel()
    world.settle()
    world.network.drop(holder.name)
    world.network.pass_time(2)
    world.network.pass_time(1)
    assert world.status() == "cancelled"


def test_a_closed_socket_is_never_a_cancel(held):
    world, holder = held
    world.network.drop("ann", abrupt=False)
    world.network.drop("bob", abrupt=False)
    world.write(holder, "still here")
    world.settle()
    assert (world.status(), world.text()) == ("running", "still here")


def test_steering_is_consumed_once_and_what_came_too_late_is_answered(held):
    world, holder = held
    world.post("bob", "s1", "shorter", steers="r")
    world.settle()
    world.network.edit(holder.name, lambda view: view.runs.consume("r", "s1"))
    world.post("bob", "s2", "in Norwegian", steers="r")
    world.settle()
    assert world.run().steers == {"s1": True}
    world.report(holder, "completed")
    world.settle()
    assert world.network.engine.view.runs.value("run-s1") is None
    assert (world.run("run-s2").request.message_id, world.status("run-s2")) == ("s2", "queued")
    world.post("bob", "s3", "hello?", steers="r")
    world.settle()
    assert world.status("run-s3") == "queued"


def test_handing_over_keeps_the_message_and_fences_the_former_holder(held):
    world, holder = held
    world.write(holder, "The writer says. ")
    world.report(holder, "handoff", agent="critic")
    world.settle()
    assert (world.status(), world.run().agent, world.run().lease) == ("queued", "critic", None)
    with pytest.raises(RunNotClaimable):
        world.claim(agent="writer")
    critic = world.claim(agent="critic")
    assert (critic.epoch, critic.output, world.run().lease.attempt) == (2, "r-out", 1)
    world.write(critic, "The critic says.")
    world.write(holder, "No!")
    world.settle()
    assert world.text() == "The writer says. The critic says."
    assert isinstance(world.network.peers[holder.name].closed_by, LeaseLost)


def test_a_run_that_is_handed_back_does_not_lose_an_attempt(held):
    world, holder = held
    world.write(holder, "half")
    world.report(holder, "released")
    world.settle()
    assert (world.status(), world.record().attempt, world.part().state) == ("queued", 0, "interrupted")


# -- people decide -----------------------------------------------------------------------------------------------------


def test_a_run_that_waits_for_people_needs_no_process(held):
    world, holder = held
    world.suspend(holder)
    assert (world.status(), world.run().lease, world.part().state) == ("suspended", None, "approval-requested")
    world.network.pass_time(10 * 86400)
    world.network.crash()
    for name in ("ann", "bob"):
        world.network.connect(name)
    world.settle()
    assert world.status() == "suspended"
    world.decide("ann", True, reason="go")
    world.settle()
    assert (world.status(), world.part().state, world.part().approval.by) == ("queued", "approval-responded", "ann")
    assert world.claim().epoch == 2
    assert world.notices().count("run.approval_requested") == 1


def test_of_two_decisions_at_the_same_instant_one_wins_and_the_other_is_late(held):
    world, holder = held
    world.suspend(holder)
    world.decide("ann", True)
    world.decide("bob", False)
    world.settle()
    part = world.part()
    winner, loser = ("ann", "bob") if part.approval.by == "ann" else ("bob", "ann")
    assert part.approval.approved == (winner == "ann")
    assert [(each.by, each.approved) for each in part.late] == [(loser, loser == "ann")]
    for name in ("ann", "bob"):
        assert world.network.peers[name].replica.view.messages.value("r-out").parts[-1].approval == part.approval


def test_whatever_the_order_of_arrival_two_people_get_one_winner():
    """Schedules of an approval and a denial that are made at the same instant."""
    winners = Counter()
    for seed in range(sample("schedules")):
        rng = random.Random(seed)
        world = World()
        world.post()
        world.ask()
        world.settle()
        world.suspend(world.claim())
        for who, approved in rng.sample([("ann", True), ("bob", False)], 2):
            world.decide(who, approved)
        for _ in range(rng.randrange(12)):
            rng.choice([
                world.network.commit,
                lambda rng=rng, world=world: world.network.deliver(rng.choice(["ann", "bob"]), up=rng.random() < 0.5),
                lambda rng=rng, world=world: world.network.drop(rng.choice(["ann", "bob"])),
                world.network.crash,
            ])()  # fmt: skip
        for who in ("ann", "bob"):
            world.network.connect(who)
        world.settle()
        replicas = [world.network.peers[who].replica.view for who in ("ann", "bob")]
        approvals = [
            view.messages.value("r-out").parts[-1].approval for view in (*replicas, world.network.engine.view)
        ]
        assert len({(each.by, each.approved) for each in approvals}) == 1
        winner = approvals[0]
        assert winner.approved == (winner.by == "ann")
        assert [each.by for each in world.part().late] == ["bob" if winner.by == "ann" else "ann"]
        assert world.record().approvals["c"].approval == winner
        assert world.status() == "queued"
        winners[winner.by] += 1
    assert min(winners.values()) > sample("schedules") // 20, "the schedules do not race"


def test_a_decision_cannot_be_flipped(held):
    world, holder = held
    world.suspend(holder)
    world.decide("ann", True)
    world.settle()
    world.decide("ann", False)
    world.decide("bob", False)

    def forge(view):
        view.messages["r-out"].parts[1]["approval"] = {"approved": False, "by": "bob", "at": 1}

    world.network.edit("bob", forge)
    world.settle()
    part = world.part()
    assert (part.approval.approved, part.approval.by) == (True, "ann")
    assert {(each.by, each.approved) for each in part.late} == {("ann", False), ("bob", False)}
    successor = world.claim()
    world.report(successor, "completed")
    world.network.edit("bob", forge)
    world.settle()
    assert world.part().approval.by == "ann"


def test_only_the_approvers_may_decide(held):
    world, holder = held
    world.suspend(holder, approvers=["bob"])
    world.decide("ann", True)
    world.settle()
    assert (world.status(), world.part().approval) == ("suspended", None)
    world.decide("bob", False)
    world.settle()
    assert (world.part().approval.by, world.part().approval.approved) == ("bob", False)


def test_a_refused_decision_is_recorded_beside_its_question(held):
    world, holder = held
    world.suspend(holder, approvers=["bob"])
    world.decide("ann", True, reason="please")
    world.settle()
    said = [(each.by, each.approved, each.reason, each.why) for each in world.part().refused]
    assert said == [("ann", True, "please", "not-an-approver")]
    assert world.network.peers["ann"].replica.view.messages.value("r-out").parts[-1].refused == world.part().refused
    world.network.edit("bob", lambda view: view.messages["r-out"].parts[1].pop("refused"))
    world.network.crash()
    for name in ("ann", "bob"):
        world.network.connect(name)
    world.decide("ann", False)
    world.settle()
    assert [(each.by, each.approved) for each in world.part().refused] == [("ann", False)], "the last one of each"
    world.decide("bob", True)
    world.settle()
    assert (world.part().approval.by, world.part().late, len(world.part().refused)) == ("bob", None, 1)


def test_recorded_refusals_of_decisions_are_bounded(held):
    """Where nobody is known, anybody may decide under any number of names."""
    world, holder = held
    world.suspend(holder, approvers=["bob"])

    def flood(view):
        for number in range(100):
            view.messages["r-out"].tool("c").decide(f"eve-{number}", Decision(approved=True, at=1))

    world.network.edit("ann", flood)
    world.settle()
    assert len(world.part().refused) == 20
    size = len(world.network.engine.document.encode())
    world.post("ann", "m2")
    world.settle()
    assert len(world.network.engine.document.encode()) < size + 1000, "and nothing is written again and again"


def test_a_run_names_the_calls_that_wait(held):
    world, holder = held
    assert world.run().pending is None
    world.suspend(holder, approvers=["bob"], needs="all", deadline=world.network.now + 60_000)
    (pending,) = world.run().pending
    assert (pending.tool_call_id, pending.tool_name, pending.approvers) == ("c", "book", ["bob"])
    assert (pending.needs, pending.deadline) == ("all", world.part().approval_request.deadline)
    world.network.edit("ann", lambda view: view.runs.put_back("r", "pending", []))
    world.settle()
    assert world.run().pending == [pending]
    world.decide("bob", True)
    world.settle()
    assert world.run().pending is None


@pytest.mark.parametrize("last", [True, False])
def test_all_approvers_may_be_needed(held, last):
    world, holder = held
    world.suspend(holder, approvers=["ann", "bob"], needs="all")
    world.decide("ann", True)
    world.settle()
    assert world.status() == "suspended"
    world.decide("bob", last)
    world.settle()
    assert (world.part().approval.approved, world.part().approval.by) == (last, "bob")
    assert world.part().late is None or not last


def test_a_question_expires(held):
    world, holder = held
    world.suspend(holder, deadline=world.network.now + 60_000)
    world.network.pass_time(59)
    assert world.status() == "suspended"
    world.network.pass_time(2)
    world.settle()
    assert (world.status(), world.part().approval.by, world.part().approval.approved) == ("queued", "deadline", False)
    world.decide("ann", True)
    world.settle()
    assert [each.by for each in world.part().late] == ["ann"]


def test_a_suspended_run_can_be_cancelled_and_its_question_is_closed(held):
    world, holder = held
    world.suspend(holder)
    world.cancel()
    world.settle()
    assert (world.status(), world.part().approval.approved) == ("cancelled", False)
    assert world.part().state == "output-denied"


def test_only_what_is_due_keeps_a_session_in_memory(held):
    world, holder = held
    runs, now = world.network.engine.runs, world.network.now
    assert runs.table.due_before(now + 60_000)
    world.suspend(holder)
    assert not world.network.engine.runs.table.due_before(now + 60_000)


def test_a_run_that_goes_on_with_an_answer_may_ask_people_again(held):
    world, holder = held
    world.suspend(holder)
    world.decide("ann", True)
    world.settle()
    world.report(world.claim(), "failed")
    world.settle()
    world.ask(run="r2", message="r-out", trigger="continue")
    world.settle()
    again = world.claim("r2")

    def ask(view):
        message = view.begin_output(view.runs.value("r2"), Author(id="w", kind="agent"), 1)
        tool = message.open_tool("c2", "pay")
        tool.ask(ApprovalRequest(requested_at=1))
        view.runs.report("r2", RunResult(status="suspended", epoch=again.epoch, at=1))

    world.network.edit(again.name, ask)
    world.settle()
    assert world.status("r2") == "suspended"
    world.decide("bob", True, call="c2")
    world.settle()
    assert (world.part().approval.by, world.status("r2")) == ("bob", "queued")
    assert world.part(index=-2).approval.by == "ann", "what was decided before stays"


# -- the end of a run ends its calls -------------------------------------------------------------------------------------


def _stop(world, holder):
    world.cancel()
    world.settle()
    world.report(holder, "cancelled")


def _fail(world, holder):
    world.report(holder, "failed")


def _hang(world, holder):
    world.cancel()
    world.settle()
    for _ in range(6):
        world.network.pass_time(1)


def _die(world, holder):
    for _ in range(RULES.max_attempts):
        world.network.drop(holder.name)
        for _ in range(4):
            world.network.pass_time(1)
        world.settle()
        if world.record().ready:
            holder = world.claim()


@pytest.mark.parametrize(
    ("end", "why"),
    [(_stop, "was stopped"), (_fail, "failed"), (_hang, "was stopped"), (_die, "agent was lost")],
)
def test_the_end_of_a_run_ends_its_calls(held, end, why):
    world, holder = held
    world.call(holder)
    world.settle()
    end(world, holder)
    world.settle()
    assert world.run().over
    part = world.part()
    assert (part.state, part.input) == ("output-error", {"at": "Oslo"})
    assert why in part.error_text


def test_a_call_that_the_client_is_to_execute_outlives_a_run_that_is_complete(held):
    world, holder = held
    world.call(holder)
    world.report(holder, "completed")
    world.settle()
    assert (world.status(), world.part().state) == ("completed", "input-available")


@pytest.mark.parametrize(("approved", "state"), [(True, "output-error"), (False, "output-denied")])
def test_a_call_that_people_were_asked_about_has_ended_when_its_run_has(held, approved, state):
    world, holder = held
    world.suspend(holder)
    world.decide("ann", approved)
    world.settle()
    assert world.part().state == "approval-responded"
    world.report(world.claim(), "completed")
    world.settle()
    assert (world.status(), world.part().state) == ("completed", state)


def test_a_question_that_is_open_when_the_run_ends_stays_closed_whoever_decides_later(held):
    world, holder = held
    world.suspend(holder)
    world.cancel("bob")
    world.settle()
    assert world.part().state == "output-denied"
    world.decide("ann", True)
    world.network.edit(
        "ann", lambda view: view.messages["r-out"].tool("c")._part.__setitem__("state", "approval-requested")
    )
    world.settle()
    part = world.part()
    assert (part.state, part.approval.approved, [late.by for late in part.late]) == ("output-denied", False, ["ann"])


def test_a_call_that_arrives_after_the_end_has_ended_too(held):
    world, holder = held
    world.begin(holder)
    world.settle()
    world.report(holder, "failed")
    world.settle()
    world.network.edit("bob", lambda view: view.messages["r-out"].open_tool("late", "look"))
    world.settle()
    assert (world.part().tool_call_id, world.part().state) == ("late", "output-error")


# -- a question does not stop the conversation -----------------------------------------------------------------------


def suspended(world, holder=None, **request):
    world.suspend(holder or world.claim(), **request)
    assert world.status() == "suspended"


def other_question(world, who="ann", run="r2", message="q2", **request):
    world.post(who, id=message, text="no, seat 12")
    world.ask(who, run=run, message=message, **request)
    world.settle()


def test_a_message_of_somebody_who_was_asked_takes_the_questions_place(asked):
    suspended(asked)
    other_question(asked)
    assert (asked.status(), asked.run().outcome.reason) == ("cancelled", "superseded by r2")
    assert asked.run().outcome.superseded_by == "r2"
    part = asked.part()
    assert (part.state, part.approval.approved, part.approval.by, part.approval.reason) == (
        "output-denied", False, "", "superseded by r2",
    )  # fmt: skip
    assert asked.claim("r2").epoch == 1
    asked.decide("bob", True)  # who has not heard of it, or cannot believe it
    asked.settle()
    assert (asked.status(), asked.part().approval.approved, asked.part().late[0].by) == ("cancelled", False, "bob")


@pytest.mark.parametrize(
    ("who", "request_", "asks"),
    [
        ("ann", {"approvers": ["bob"]}, {}),
        ("ann", {"approvers": ["bob"], "needs": "all"}, {}),
        ("bob", {}, {"policy": "parallel"}),
        ("bob", {}, {"trigger": "continue"}),
    ],
)
def test_others_are_answered_while_a_question_stays_open(asked, who, request_, asks):
    suspended(asked, **request_)
    other_question(asked, who, **asks)
    assert (asked.status(), asked.part().state) == ("suspended", "approval-requested")
    asked.report(asked.claim("r2"), "completed")
    asked.decide("bob", True)
    asked.settle()
    assert (asked.status(), asked.status("r2")) == ("queued", "completed")
    assert asked.claim().epoch == 2


def test_a_message_written_offline_before_the_question_is_no_answer_to_it(asked):
    holder = asked.claim()
    asked.network.drop("ann")
    asked.post("ann", id="q2", text="and another thing")
    asked.ask("ann", run="r2", message="q2")
    asked.network.pass_time(5)
    suspended(asked, holder)
    asked.network.connect("ann")
    asked.settle()
    assert (asked.status(), asked.record("r2").ready) == ("suspended", True)
    asked.network.drop("ann")
    asked.network.pass_time(5)
    asked.post("ann", id="q3", text="forget it")
    asked.ask("ann", run="r3", message="q3")
    asked.network.connect("ann")
    asked.settle()
    assert (asked.status(), asked.status("r3")) == ("cancelled", "queued")


def test_who_may_ask_but_not_decide_takes_no_questions_place():
    world = World(rights=replace(ALL, decide=False, verified=True))
    world.post()
    world.ask()
    world.settle()
    suspended(world)
    other_question(world)
    assert (world.status(), world.record("r2").ready) == ("suspended", True)


@pytest.mark.parametrize(
    ("policy", "first", "second"), [("interrupt", "cancelled", "queued"), ("reject", "suspended", "cancelled")]
)
def test_policies_that_interrupt_or_reject_know_runs_that_wait(asked, policy, first, second):
    suspended(asked)
    other_question(asked, policy=policy)
    assert (asked.status(), asked.status("r2")) == (first, second)
    if policy == "reject":
        assert "rejected" in asked.run("r2").outcome.reason
        asked.cancel("bob")
        asked.settle()
    assert asked.part().state == "output-denied"


def test_one_run_at_a_time_works_and_who_was_kept_waiting_comes_first(asked):
    suspended(asked, approvers=["bob"])
    other_question(asked)
    second = asked.claim("r2")
    other_question(asked, run="r3", message="q3")
    asked.decide("bob", True)
    asked.settle()
    assert [asked.record(run).ready for run in ("r", "r3")] == [False, False], "the second has begun"
    asked.network.crash()
    for name in asked.network.peers:
        asked.network.connect(name, lease=second.token if name == second.name else None)
    asked.settle()
    asked.report(second, "completed")
    asked.settle()
    assert [asked.record(run).ready for run in ("r", "r3")] == [True, False], "it is older"
    asked.report(asked.claim(), "completed")
    asked.settle()
    assert asked.record("r3").ready


def test_two_that_wait_take_turns(asked):
    suspended(asked, approvers=["bob"])
    other_question(asked)
    second = asked.claim("r2")
    asked.decide("bob", True)
    asked.settle()
    assert not asked.record().ready
    asked.write(second, "May I?")
    asked.report(second, "suspended", approve=ApprovalRequest(requested_at=asked.network.now, approvers=["bob"]))
    asked.settle()
    assert asked.record().ready
    first = asked.claim()
    asked.decide("bob", True, output="r2-out")
    asked.settle()
    assert (asked.status("r2"), asked.record("r2").ready) == ("queued", False)
    asked.report(first, "released")
    asked.settle()
    assert (asked.record().ready, asked.record("r2").ready) == (True, False), "who is at work keeps its turn"


def test_a_deadline_passes_while_others_are_answered(asked):
    suspended(asked, approvers=["bob"], deadline=asked.network.now + 5000)
    other_question(asked)
    second = asked.claim("r2")
    for _ in range(6):
        asked.network.pass_time(1)
        asked.write(second, "still here ")
        asked.settle()
    assert (asked.part("r-out", -1).approval.by, asked.status(), asked.record().ready) == (
        "deadline",
        "queued",
        False,
    )


def test_a_message_that_nobody_was_asked_about_takes_the_questions_place_too():
    world = World(RunRules(default_agent="writer"))
    world.post("ann", id="q")
    world.settle()
    holder = world.claim("run-q")
    world.write(holder, "May I?")
    world.report(holder, "suspended", approve=ApprovalRequest(requested_at=world.network.now))
    world.settle()
    world.post("bob", id="q2", text="rather not")
    world.settle()
    assert (world.status("run-q"), world.record("run-q2").ready) == ("cancelled", True)
