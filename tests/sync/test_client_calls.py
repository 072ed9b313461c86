"""Tools that run in a client: of many devices one is given the call, and one result is settled, whatever happens."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crdt_sessions.limits import RunRules
from crdt_sessions.model import ClientCall, Offer
from crdt_sessions.sync import Rights
from crdt_sessions.testing import content

from .devices import Device, call_in_client
from .runs import World

RULES = RunRules(lease_s=10, gone_grace_s=3, cancel_grace_s=5, max_attempts=3, device_lease_s=5)
KNOWN = Rights(verified=True)


@pytest.fixture
def world():
    worlds = []

    def make(*tabs, suspend=True, rights=KNOWN, **request):
        world = World(RULES, people=tabs, rights=rights)
        worlds.append(world)
        world.post(tabs[0])
        world.ask(tabs[0])
        world.settle()
        world.holder = world.claim()
        devices = [Device(world, name) for name in tabs]
        for device in devices:
            device.appear()
        call_in_client(world, world.holder, suspend=suspend, **request)
        return world, *devices

    yield make
    for each in worlds:
        each.network.close()


def tool(world, call="c"):
    return world.network.engine.view.messages.find("r-out").tool(call)


def taken(world):
    calls = world.run().calls
    return calls[0].taken.device if calls and calls[0].taken else None


def test_one_of_five_is_given_the_call_and_its_result_goes_on_with_the_run(world):
    world, *tabs = world("ann", "bob", "cay", "dee", "eve")
    assert world.status() == "suspended"
    assert world.run().pending == []
    (waiting,) = world.run().calls
    assert (waiting.tool_call_id, waiting.tool_name, waiting.taken) == ("c", "place", None)
    for tab in tabs:
        tab.offer()
    world.settle()
    assert sum(len(tab.given()) for tab in tabs) == 1
    for tab in tabs:
        tab.execute()
    world.settle()
    assert [len(tab.done) for tab in tabs].count(1) == 1
    (done,) = [tab for tab in tabs if tab.done]
    part = world.part(index=0)
    assert (part.state, part.output) == ("output-available", {"on": done.id})
    assert (part.outcome.code, part.outcome.device, part.outcome.by, part.outcome.attempt) == (
        "done", done.id, done.name, 1,
    )  # fmt: skip
    assert (world.status(), world.run().calls) == ("queued", None)
    assert world.record().attempt == 0


def test_a_run_that_goes_on_gets_its_result_meanwhile(world):
    world, ann = world("ann", suspend=False)
    assert world.status() == "running"
    ann.offer()
    world.settle()
    ann.execute()
    world.settle()
    assert (world.status(), tool(world).state, world.record().epoch) == ("running", "output-available", 1)


def test_a_device_that_goes_away_loses_the_call_and_the_next_one_gets_it(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    bob.offer()
    world.settle()
    assert taken(world) == ann.id
    world.network.drop("ann")
    for _ in range(20):
        world.network.pass_time(1)
        world.settle()
    assert taken(world) == bob.id
    bob.execute()
    world.settle()
    assert (tool(world).outcome.attempt, tool(world).outcome.device) == (2, bob.id)


def test_a_device_that_is_there_keeps_the_call_however_long_it_takes(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    bob.offer()
    for _ in range(60):
        world.network.pass_time(1)
        ann.appear()
        world.settle()
    assert taken(world) == ann.id


@pytest.mark.parametrize(("grace", "kept"), [(None, 5), (1000, 1)])
def test_a_device_keeps_the_call_while_its_connection_lives_and_a_while_longer(world, grace, kept):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    bob.offer()
    calls = world.network.engine.runs.calls
    calls.attach(ann.id)
    world.network.drop("ann")
    for _ in range(60):
        world.network.pass_time(1)
        world.settle()
    assert taken(world) == ann.id
    calls.detach(ann.id, world.network.now, grace=grace)
    for _ in range(kept):
        assert taken(world) == ann.id
        world.network.pass_time(1)
    world.settle()
    assert taken(world) == bob.id


def test_a_device_is_hurried_unless_it_has_a_connection_and_is_never_given_more_time(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    bob.offer()
    calls = world.network.engine.runs.calls
    calls.attach(ann.id)
    world.network.drop("ann")
    calls.hurry(ann.id, world.network.now, 1000)
    for _ in range(3):
        world.network.pass_time(1)
    assert taken(world) == ann.id
    calls.detach(ann.id, world.network.now)
    for grace in (1000, 60_000):
        calls.hurry(ann.id, world.network.now, grace)
        assert taken(world) == ann.id
    world.network.pass_time(1)
    world.settle()
    assert taken(world) == bob.id


def test_an_offer_that_was_made_earlier_and_comes_later_takes_nothing_away(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()  # on its way
    world.network.pass_time(1)
    bob.offer()
    world.send("bob")
    assert taken(world) == bob.id
    world.settle()
    assert taken(world) == bob.id
    assert world.record().calls["c"].former == ()


def test_a_device_that_says_good_bye_makes_room_at_once(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    bob.offer()
    world.settle()
    ann.withdraw("r-out")
    world.settle()
    assert taken(world) == bob.id


def test_a_result_that_comes_after_another_one_is_marked_late(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    bob.offer()
    world.settle()
    world.network.drop("ann")
    ann.execute()  # it is away, and does not know that it will lose it
    for _ in range(20):
        world.network.pass_time(1)
        world.settle()
    bob.execute()
    world.settle()
    world.network.connect("ann", rights=KNOWN)
    world.settle()
    (late,) = world.part(index=0).late_results
    assert (late.device, late.by, late.why) == (ann.id, "ann", "late")
    assert world.part(index=0).output == {"on": bob.id}


def test_the_result_of_one_that_was_away_counts_if_nobody_else_has_the_call(world):
    world, ann = world("ann")
    ann.offer()
    world.settle()
    world.network.drop("ann")
    ann.execute()
    for _ in range(20):
        world.network.pass_time(1)
    assert taken(world) is None
    world.network.connect("ann", rights=KNOWN)
    world.settle()
    assert (tool(world).outcome.code, tool(world).outcome.device) == ("done", ann.id)


def test_a_result_of_somebody_who_was_never_given_the_call_is_none(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    bob.bring("r-out", value="mine")
    world.settle()
    assert tool(world).outcome is None
    (late,) = world.part(index=0).late_results
    assert (late.device, late.why) == (bob.id, "not-the-taker")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"status": "refused", "error_text": "no camera"}, "no camera"),
        ({"status": "failed", "error_text": "it broke"}, "it broke"),
        ({"status": "refused"}, "the device refused to call the tool"),
    ],
)
def test_what_a_device_refuses_or_cannot_do_is_an_outcome(world, said, error):
    world, ann = world("ann")
    ann.offer()
    world.settle()
    ann.execute(output=None, **said)
    world.settle()
    part = world.part(index=0)
    assert (part.state, part.error_text, part.outcome.code) == ("output-error", error, said["status"])
    assert world.status() == "queued"


def test_a_deadline_is_an_outcome(world):
    world, _ = world("ann", deadline=1_700_000_000_000 + 4000)
    assert world.record().due_at == 1_700_000_000_000 + 4000
    for _ in range(5):
        world.network.pass_time(1)
    assert (tool(world).outcome.code, tool(world).state) == ("deadline", "output-error")
    assert world.status() == "queued"


def waiting(world):
    """The calls of each notice that nobody does them."""
    told = [notice for notice in world.network.records.notices if notice.kind == "run.call_waiting"]
    return [[call["toolCallId"] for call in notice.data["calls"]] for notice in told]


@pytest.mark.parametrize("suspend", [True, False])
def test_that_no_device_takes_a_call_is_told_once_and_after_a_while(world, suspend):
    world, ann = world("ann", suspend=suspend)
    world.network.pass_time(4)
    assert waiting(world) == [], "a device that is there has its time to offer itself"
    assert world.record().due_at == 1_700_000_000_000 + 5000, "the session is loaded for it"
    world.network.crash()
    world.network.connect("ann", rights=KNOWN)
    for _ in range(20):
        world.network.pass_time(1)
        world.settle()
    assert waiting(world) == [["c"]]
    ann.offer()
    world.settle()
    assert taken(world) == ann.id
    world.network.drop("ann")
    for _ in range(20):
        world.network.pass_time(1)
        world.settle()
    assert waiting(world) == [["c"], ["c"]], "it waits again, since the one that had it has gone"


def test_a_call_that_a_device_takes_is_nobody_elses_business(world):
    world, ann = world("ann")
    world.network.pass_time(4)
    ann.offer()
    world.settle()
    for _ in range(20):
        world.network.pass_time(1)
        ann.appear()
        world.settle()
    ann.execute()
    world.settle()
    world.network.pass_time(20)
    assert (tool(world).outcome.code, waiting(world)) == ("done", [])


def test_when_all_devices_have_gone_that_is_an_outcome(world):
    world, ann, bob = world("ann", "bob", attempts=2)
    for tab in (ann, bob):
        tab.offer()
    world.settle()
    for name in ("ann", "bob"):
        world.network.drop(name)
    for _ in range(30):
        world.network.pass_time(1)
    assert (tool(world).outcome.code, tool(world).outcome.attempt) == ("gone", 2)
    assert world.status() == "queued"


def test_a_run_that_is_stopped_ends_its_calls(world):
    world, ann = world("ann")
    ann.offer()
    world.settle()
    world.cancel("ann")
    world.settle()
    assert (world.status(), tool(world).outcome.code, tool(world).state) == ("cancelled", "ended", "output-error")
    ann.execute()
    assert world.run().calls is None


def test_only_those_who_are_asked_may_take_it(world):
    world, ann, bob = world("ann", "bob", takers=["bob"])
    ann.offer()
    world.settle()
    assert taken(world) is None
    bob.offer()
    world.settle()
    assert taken(world) == bob.id


def test_nobody_speaks_for_the_device_of_another(world):
    world, ann, bob = world("ann", "bob")
    ann.offer()
    world.settle()
    ann.principal, bob.principal = "bob", "ann"
    ann.world.network.edit("bob", lambda view: view.messages.find("r-out").tool("c").propose(ann.id, forged()))
    bob.offer()
    world.settle()
    assert tool(world).outcome is None
    assert world.network.violations == [("bob", "results"), ("bob", "offers")]
    assert bob.id not in tool(world).offers()


def forged():
    from crdt_sessions.model import CallResult

    return CallResult(by="ann", output="forged", at=1)


def test_people_cannot_ask_devices_to_do_something(world):
    world, _ = world("ann")

    def change(view):
        view.messages.find("r-out").open_tool("d", "delete").call_in_client(ClientCall(requested_at=1))

    world.network.edit("ann", change)
    world.settle()
    assert tool(world, "d").client_call is None
    assert [call.tool_call_id for call in world.run().calls] == ["c"]


def test_what_is_settled_is_restored(world):
    world, ann = world("ann", rights=Rights())

    def change(view):
        view.document.roots.runs["r"]["calls"] = []
        view.messages.find("r-out").tool("c")._part["outcome"] = {"code": "done", "at": 1}

    world.network.edit("ann", change)
    world.settle()
    assert len(world.run().calls) == 1
    ann.offer()
    world.settle()
    ann.execute()
    world.settle()
    world.network.edit("ann", change)
    world.settle()
    assert (tool(world).outcome.device, world.part(index=0).output) == (ann.id, {"on": ann.id})
    assert world.run().calls is None


@pytest.mark.parametrize("crash_before", ["taken", "result"])
def test_a_restart_of_the_server_changes_nothing(world, crash_before):
    world, ann, _ = world("ann", "bob")
    if crash_before == "taken":
        world.network.crash()
        back(world)
    ann.offer()
    world.settle()
    if crash_before == "result":
        world.network.crash()
        back(world)
    assert taken(world) == ann.id
    ann.execute()
    world.settle()
    assert tool(world).outcome.device == ann.id


def back(world):
    for name in ("ann", "bob"):
        world.network.connect(name, rights=KNOWN)
    world.settle()


def test_a_tool_call_stays_when_the_answer_begins_anew(world):
    world, ann = world("ann")
    ann.offer()
    world.settle()
    ann.execute()
    world.settle()
    holder = world.claim()
    world.network.edit(holder.name, lambda view: view.messages["r-out"].supersede())
    world.settle()
    assert tool(world).output_value == {"on": ann.id}


TABS = ("one", "two", "three", "four", "five")
WHICH = st.sampled_from(TABS)


class ClientCallMachine(RuleBasedStateMachine):
    """Five tabs of one person race for a call; networks break, tabs die, the server crashes, time passes."""

    @initialize(suspend=st.booleans(), deadline=st.sampled_from([None, 60]), attempts=st.integers(1, 3))
    def begin(self, suspend, deadline, attempts):
        self.world = World(RunRules(lease_s=1000, gone_grace_s=1000, device_lease_s=5, max_attempts=9), people=TABS)
        self.network = self.world.network
        self.tabs = {name: Device(self.world, name, "ann") for name in TABS}
        self.world.post("one")
        self.world.ask("one")
        self.world.settle()
        self.holder = self.world.claim()
        for tab in self.tabs.values():
            tab.appear()
        self.given, self.settled, self.deadline = {}, {}, deadline
        until = {} if deadline is None else {"deadline": self.network.now + 1000 * deadline}
        call_in_client(self.world, self.holder, suspend=suspend, attempts=attempts, **until)
        self.attempts, self.suspend = attempts, suspend

    @rule(which=WHICH, now=st.booleans())
    def offer(self, which, now):
        self.tabs[which].offer()
        if now:
            self.exchange(which)
            self.network.commit()

    @rule(which=WHICH)
    def execute(self, which):
        self.tabs[which].execute()

    @rule(which=WHICH)
    def refuse(self, which):
        self.tabs[which].execute(output=None, status="refused")

    @rule(which=WHICH)
    def appear(self, which):
        self.tabs[which].appear()

    @rule(which=WHICH, abrupt=st.booleans())
    def go_offline(self, which, abrupt):
        self.network.drop(which, abrupt=abrupt)

    @rule(which=WHICH)
    def come_back(self, which):
        self.network.connect(which)

    @rule(which=WHICH, up=st.booleans())
    def deliver(self, which, up):
        self.network.deliver(which, up=up)

    @rule(which=WHICH)
    def exchange(self, which):
        while self.network.deliver(which, up=True) or self.network.deliver(which, up=False):
            pass

    @rule()
    def commit(self):
        self.network.commit()

    @rule()
    def settle(self):
        self.world.settle()

    @rule()
    def crash(self):
        self.network.crash()

    @rule(seconds=st.sampled_from([1, 3, 7]))
    def pass_time(self, seconds):
        for _ in range(seconds):
            self.network.pass_time(1)

    @invariant()
    def one_has_it_at_a_time_and_what_is_settled_stays(self):
        if not hasattr(self, "world"):
            return
        record = self.network.records.runs.get("r")
        for call_id, call in record.calls.items() if record is not None else ():
            if call.taken is not None:
                known = self.given.setdefault(call.taken.attempt, call.taken.device)
                assert known == call.taken.device
            if call.outcome is None and call.taken is None and call.tell_at is None:
                assert any(notice.kind == "run.call_waiting" for notice in self.network.records.notices)
            assert len(call.former) <= self.attempts
            assert self.settled.setdefault(call_id, call.outcome) in (None, call.outcome)
            self.settled[call_id] = call.outcome
            if call.outcome is not None and call.outcome.code in ("done", "refused"):
                tab = next(tab for tab in self.tabs.values() if tab.id == call.outcome.device)
                assert len(tab.done) == 1

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            self._bring_to_an_end()
        finally:
            self.network.close()

    def _bring_to_an_end(self):
        """Let all come back and do what they are given: there is one result, and the run goes on."""
        for _ in range(6):
            for name, tab in self.tabs.items():
                self.network.connect(name)
                self.world.settle()
                tab.appear()
                tab.offer()
                self.world.settle()
                tab.execute()
                self.world.settle()
            self.network.connect(self.holder.name, lease=self.holder.token) if not self.suspend else None
            self.network.pass_time(1)
            self.world.settle()
        self.one_has_it_at_a_time_and_what_is_settled_stays()
        call = self.network.records.runs["r"].calls["c"]
        assert call.outcome is not None
        executed = sum(len(tab.done) for tab in self.tabs.values())
        if call.outcome.code == "done":
            assert 1 <= executed <= self.attempts
        if call.outcome.code == "gone":
            assert call.outcome.attempt == self.attempts
        assert self.world.status() == ("queued" if self.suspend else "running")
        documents = self.network.documents()
        contents = {name: content(documents[name]) for name in (*TABS, "server", "disk")}
        for name in (*TABS, "disk"):
            assert contents[name] == contents["server"], name


class TestClientCalls(ClientCallMachine.TestCase):
    settings = settings()


def test_an_offer_is_no_offer_if_it_says_nothing():
    assert Offer.model_validate({"at": 1}).by == ""
