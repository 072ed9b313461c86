"""Runs under any schedule: one owner at a time, one terminal status, one winner, epochs that only grow.

Several agents claim, write, die, hang and come back as zombies; people ask, stop, decide and tamper, also offline; the
network reorders, the disk lags, the server is killed, the session sleeps. What was once durable is never contradicted,
what is due comes in its time, and who is absent is told once.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crdt_sessions.errors import RunNotClaimable
from crdt_sessions.limits import RunRules
from crdt_sessions.model import SETTLED_KEYS, TERMINAL_STATUSES, ApprovalRequest, Schedule
from crdt_sessions.testing import content

from .runs import World

PEOPLE = ("ann", "bob")
WHO = st.sampled_from(PEOPLE)
RUNS = st.sampled_from(["r1", "r2", "r3"])
AGENTS = st.sampled_from(["writer", "critic"])
ENDS = {f"run.{status}" for status in TERMINAL_STATUSES}
HOUR_MS = 3_600_000
POLICIES = st.sampled_from([None, "queue", "interrupt", "reject", "parallel"])


FORGED = "mine"
"""What the outcome says that peers write."""


class RunMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.world = World(RunRules(lease_s=10, gone_grace_s=3, cancel_grace_s=5, max_attempts=2))
        self.network = self.world.network
        self.holders = []
        self.ended, self.decided, self.epochs = {}, {}, {}
        self.world.post()
        self.world.ask("ann", "r1")
        self.network.run_until_quiet()

    def _sent(self, name, at_once):
        """Let what *name* did arrive now, or leave it to the schedule."""
        if at_once:
            self.exchange(name)
            self.network.commit()

    def exchange(self, name):
        while self.network.deliver(name, up=True) or self.network.deliver(name, up=False):
            pass

    def _holder(self, which):
        """Choose a holder, the later ones more often: an old one is a zombie."""
        return self.holders[-1 - which % len(self.holders)] if self.holders else None

    @property
    def awake(self):
        """Whether there is an engine to look at; to ask for it wakes the session up."""
        return hasattr(self, "network") and not self.network.asleep

    # -- people ------------------------------------------------------------------------------------------------

    @rule(
        who=WHO,
        run=RUNS,
        policy=POLICIES,
        agent=st.sampled_from(["*", "*", "writer"]),
        after=st.sampled_from([None, None, 2, 15]),
        within=st.sampled_from([None, None, 1, 20]),
        now=st.booleans(),
    )
    def ask(self, who, run, policy, agent, after, within, now):
        times = {"not_before": after, "deadline": within}
        at = {name: self.network.now + 1000 * seconds for name, seconds in times.items() if seconds is not None}
        self.world.ask(who, run, policy=policy, agent=agent, **at)
        self._sent(who, now)

    @rule(who=WHO, every=st.sampled_from([5_000, 1_200_000]), now=st.booleans())
    def schedule(self, who, every, now):
        """Have something asked at each of its times, by nobody who is there."""
        schedule = Schedule.of({"every": every, "missed": "all" if every > HOUR_MS / 10 else "once"})
        self.world.ask(who, "s1", policy="parallel", agent="writer", schedule=schedule)
        self._sent(who, now)

    @rule(who=WHO, run=st.sampled_from(["r2", "r3", "r1", "s1"]), now=st.booleans())
    def cancel(self, who, run, now):
        self.world.cancel(who, run)
        self._sent(who, now)

    @rule(who=WHO, run=RUNS, approved=st.booleans(), now=st.booleans())
    def decide(self, who, run, approved, now):
        self.world.decide(who, approved, output=f"{run}-out")
        self._sent(who, now)

    @rule(who=WHO, run=RUNS, key=st.sampled_from(SETTLED_KEYS))
    def tamper(self, who, run, key):
        def change(view):
            if run in view.runs:
                values = {"status": "completed", "epoch": 7, "outcome": {"reason": FORGED, "endedAt": 1}}
                view.document.roots.runs[run][key] = values.get(key, "mine")

        self.network.edit(who, change)

    @rule(who=WHO, abrupt=st.booleans())
    def leave(self, who, abrupt):
        self.network.drop(who, abrupt=abrupt)

    @rule(who=WHO)
    def come_back(self, who):
        self.network.connect(who)

    # -- agents ------------------------------------------------------------------------------------------------

    @rule(run=RUNS, agent=AGENTS, connect=st.booleans())
    def claim(self, run, agent, connect):
        self._claim(run, agent)
        if connect and self.holders:
            self.network.connect(self.holders[-1].name, lease=self.holders[-1].token)
            self._sent(self.holders[-1].name, True)

    def _claim(self, run, agent):
        record = self.world.record(run)
        before = record.epoch if record is not None else 0
        try:
            holder = self.world.claim(run, agent, connect=False)
        except RunNotClaimable:
            return
        assert holder.epoch == before + 1
        self.holders.append(holder)

    @rule(which=st.integers(0, 3), run=RUNS, agent=AGENTS, now=st.booleans())
    def take_over(self, which, run, agent, now):
        """An agent that has reported goes on with another run, on the same connection."""
        holder = self._holder(which)
        if holder is None or self.network.peers[holder.name].connection is None:
            return
        self.network.peers[holder.name].replica.leave()
        self._sent(holder.name, True)
        self._sent(holder.name, True)
        replica, record = self.network.peers[holder.name].replica, self.world.record(holder.run)
        if not replica.synced or replica.durable < replica.version or record.lease is not None:
            return
        try:
            follower = self.world.take_over(holder, run, agent)
        except RunNotClaimable:
            return
        self.holders = [each for each in self.holders if each.name != holder.name]
        self.holders.append(follower)
        self._sent(follower.name, now)

    @rule(which=st.integers(0, 3), text=st.sampled_from(["a ", "b "]), now=st.booleans())
    def write(self, which, text, now):
        if holder := self._holder(which):
            self.world.write(holder, text)
            self._sent(holder.name, now)

    @rule(which=st.integers(0, 3), now=st.booleans())
    def call(self, which, now):
        if holder := self._holder(which):
            self.world.call(holder)
            self._sent(holder.name, now)

    @rule(
        which=st.integers(0, 3),
        status=st.sampled_from(["completed", "failed", "cancelled", "handoff", "released"]),
        now=st.booleans(),
    )
    def report(self, which, status, now):
        if holder := self._holder(which):
            self.world.report(holder, status)
            self._sent(holder.name, now)

    @rule(
        which=st.integers(0, 3),
        needs=st.sampled_from(["any", "all"]),
        deadline=st.none() | st.just(20_000),
        now=st.booleans(),
    )
    def suspend(self, which, needs, deadline, now):
        if holder := self._holder(which):
            request = ApprovalRequest(
                approvers=list(PEOPLE),
                needs=needs,
                requested_at=self.network.now,
                deadline=None if deadline is None else self.network.now + deadline,
            )
            self.world.write(holder, "? ")
            self.world.report(holder, "suspended", approve=request)
            self._sent(holder.name, now)
            for name in PEOPLE if now else ():
                self.exchange(name)

    @rule(run=RUNS, needs=st.sampled_from(["any", "all"]), deadline=st.none() | st.just(20_000))
    def ask_people(self, run, needs, deadline):
        """A whole way at once, so that decisions are often due."""
        self.claim(run, "writer", True)
        self.suspend(0, needs, deadline, True)

    @rule(which=st.integers(0, 3), abrupt=st.booleans())
    def die(self, which, abrupt):
        if holder := self._holder(which):
            self.network.drop(holder.name, abrupt=abrupt)

    @rule(which=st.integers(0, 3), with_lease=st.booleans(), now=st.booleans())
    def rise_again(self, which, with_lease, now):
        if holder := self._holder(which):
            # The service knows a holder's client by what it first wrote with its lease.
            known = self.network.peers[holder.name].replica.client_id in self.network.records.writers
            self.network.connect(holder.name, lease=holder.token if with_lease or not known else None)
            self._sent(holder.name, now)

    # -- the world ---------------------------------------------------------------------------------------------

    @rule(which=st.integers(0, 20), up=st.booleans())
    def deliver(self, which, up):
        self.network.deliver(self._somebody(which), up=up)

    @rule(which=st.integers(0, 20))
    def deliver_all(self, which):
        self.exchange(self._somebody(which))

    @rule(which=st.integers(0, 20), up=st.booleans())
    def reorder(self, which, up):
        self.network.reorder(self._somebody(which), up=up)

    def _somebody(self, which):
        names = sorted(self.network.peers)
        return names[which % len(names)]

    @rule()
    def commit(self):
        self.network.commit()

    @rule()
    def crash(self):
        self.network.crash()

    @rule()
    def compact(self):
        self.network.compact()

    @rule(seconds=st.sampled_from([1, 3, 11, 3600]))
    def pass_time(self, seconds):
        for _ in range(min(seconds, 12)):
            self.network.pass_time(1)
        if seconds > 12:
            self.network.pass_time(seconds)
        self.nothing_is_late()

    @rule(seconds=st.sampled_from([0, 3, 11, 3600]))
    def sleep(self, seconds):
        """Let the session sleep if it may; what comes in the next steps, or is due, wakes it up."""
        self.network.run_until_quiet()
        self.network.pass_time(1.5)
        self.network.run_until_quiet()
        if self.network.sleep() and seconds:
            self.pass_time(seconds)

    def nothing_is_late(self):
        """What has a time has been looked at by now, whether the session slept or not."""
        now = self.network.now
        records = self.network.records.runs.values() if self.network.asleep else self._records()
        for record in records:
            if record.over:
                continue
            deadline = record.request.deadline if record.request is not None else None
            times = (record.waits_until, deadline, *(each.request.deadline for each in record.undecided))
            assert all(time is None or time > now for time in times), record
            assert record.lease is None or not self.network.asleep, record
        if not self.network.asleep:
            self.schedules_have_asked_at_each_of_their_times(now)

    def schedules_have_asked_at_each_of_their_times(self, now):
        record = self.world.record("s1")
        if record is None or record.over or record.request.schedule.missed != "all":
            return
        every = record.request.schedule.every
        runs = self.network.engine.view.runs.all()
        asked = sorted(
            int(run.request.message_id.rpartition("@")[2])
            for run in runs
            if run.request is not None and run.request.scheduled_by == "s1"
        )
        assert asked == list(range(record.waits_until - every * len(asked), record.waits_until, every))
        assert now < record.waits_until <= now + every

    def _records(self):
        found = [self.world.record(run_id) for run_id in self.network.engine.view.runs.ids()]
        return [record for record in found if record is not None]

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def what_was_durable_is_not_contradicted(self):
        if not self.awake:
            return
        for run_id, record in self.network.records.runs.items():
            now = self.world.record(run_id)
            assert now is not None
            assert record.epoch >= self.epochs.get(run_id, 0)
            assert now.epoch >= record.epoch
            self.epochs[run_id] = record.epoch
            if run_id in self.ended:
                assert (record.status, record.outcome) == self.ended[run_id]
            if record.over:
                self.ended[run_id] = (record.status, record.outcome)
                assert record.outcome.reason
            for call_id, each in record.approvals.items():
                known = self.decided.setdefault((run_id, call_id), each.approval)
                if known is not None:
                    assert each.approval == known
                self.decided[run_id, call_id] = each.approval

    @invariant()
    def document_and_record_agree(self):
        if not self.awake:
            return
        for run_id in self.network.engine.view.runs.ids():
            record, run = self.world.record(run_id), self.world.run(run_id)
            if record is None:
                continue
            assert (run.status, run.agent, run.epoch, run.lease, run.output, run.outcome) == (
                record.status, record.agent, record.epoch, record.lease, record.output, record.outcome,
            )  # fmt: skip
            assert (record.lease is not None) == (record.status == "running")

    @invariant()
    def a_run_that_has_ended_has_ended_its_calls(self):
        if not self.awake:
            return
        for run_id in self.network.engine.view.runs.ids():
            record = self.world.record(run_id)
            if record is None or not record.over:
                continue
            message = self.network.engine.view.messages.value(record.output)
            for part in message.parts if message is not None else ():
                open_call = part.type == "tool" and not part.state.startswith("output-")
                a_clients = record.status == "completed" and part.type == "tool" and part.state == "input-available"
                assert a_clients or not open_call, (record.status, part)

    @invariant()
    def one_has_the_turn_and_nobody_waits_for_nothing(self):
        if not self.awake:
            return
        records = [self.world.record(run_id) for run_id in self.network.engine.view.runs.ids()]
        active = [record for record in records if record is not None and not record.over]
        for record in active:
            assert record.waits_until is None or (record.status == "queued" and not record.ready), record
        active = [record for record in active if record.waits_until is None]
        turns = [record for record in active if record.status == "running" or record.ready]
        assert sum(record.policy != "parallel" for record in turns) <= 1, turns
        assert turns or all(record.status == "suspended" for record in active), active

    @invariant()
    def nobody_begins_before_the_time_or_is_left_behind_it(self):
        if not self.awake:
            return
        for run_id in self.network.engine.view.runs.ids():
            record = self.world.record(run_id)
            request = record.request if record is not None else None
            if request is not None and record.epoch and request.not_before is not None:
                assert self.network.now >= request.not_before, record
            if request is not None and request.deadline is not None and not record.over:
                assert self.network.now <= request.deadline + 3_600_000, record

    @invariant()
    def who_is_absent_is_told_once(self):
        if not hasattr(self, "network"):
            return
        told = Counter(notice.data["run"] for notice in self.network.records.notices if notice.kind in ENDS)
        over = {run_id for run_id, record in self.network.records.runs.items() if record.over}
        assert set(told) <= over
        assert all(count == 1 for count in told.values()), told
        began = {run_id for run_id in over if not self._adopted(self.network.records.runs[run_id])}
        assert began <= set(told)

    def _adopted(self, record):
        """Whether a run came with a status, which somebody forged before the service had heard of it: no news."""
        return record.request is None or record.outcome.reason in ("imported", FORGED)

    @invariant()
    def the_fenced_do_not_write(self):
        if not self.awake:
            return
        clocks = content(self.network.engine.document)["clocks"]
        for client, writer in self.network.records.writers.items():
            if writer.fenced_at is not None:
                assert clocks.get(client, 0) <= writer.fenced_at

    def teardown(self):
        """Let everybody come back and every run be worked on: all end, and everybody agrees."""
        if not hasattr(self, "network"):
            return
        try:
            self._bring_to_an_end()
        finally:
            self.network.close()

    def _bring_to_an_end(self):
        for holder in self.holders:
            self.network.drop(holder.name)
        for name in PEOPLE:
            self.network.connect(name)
        self.network.run_until_quiet()  # of two schedules of one name, one is left
        self.world.cancel("ann", "s1")
        self.network.run_until_quiet()
        for _ in range(40):
            for run_id in self.network.engine.view.runs.ids():
                self._finish(run_id)
            self.network.pass_time(1)
            self.network.run_until_quiet()
        for run_id in self.network.engine.view.runs.ids():
            record = self.world.record(run_id)
            assert record is None or record.status in TERMINAL_STATUSES, f"{run_id} was left open: {record}"
        self.what_was_durable_is_not_contradicted()
        documents = self.network.documents()
        contents = {name: content(documents[name]) for name in (*PEOPLE, "server", "disk")}
        for name in PEOPLE:
            assert contents[name] == contents["server"], name
        assert contents["disk"] == contents["server"]
        for message in self.network.engine.view.messages.ordered():
            assert message.done, "a stream was left dangling"

    def _finish(self, run_id):
        record = self.world.record(run_id)
        if record is not None and record.status == "suspended":
            for name in PEOPLE:
                self.world.decide(name, True, output=record.output)
        if record is not None and record.status == "queued" and record.ready:
            holder = self.world.claim(run_id, "writer" if record.agent == "*" else record.agent)
            self.world.write(holder, "end", close=True)
            self.world.report(holder, "completed")
            self.network.run_until_quiet()
            self.network.drop(holder.name)


class TestRuns(RunMachine.TestCase):
    settings = settings()


def test_a_run_that_comes_with_a_forged_status_ends_and_is_no_news():
    """The request was lost with the service, and comes again with what its author wrote over it: found by a night."""
    machine = RunMachine()
    machine.begin()
    machine.ask(who="ann", run="r2", policy=None, agent="*", after=None, within=None, now=False)
    machine.network.crash()
    machine.come_back("ann")
    machine.tamper("ann", "r2", "status")
    machine.exchange("ann")
    machine.network.commit()
    assert machine.network.records.runs["r2"].over
    machine.who_is_absent_is_told_once()
    machine.teardown()
