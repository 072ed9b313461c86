"""Trees of runs under any schedule: no orphan stays open, bounds hold, a result reaches the parent once.

Agents claim, delegate, end, die and come back; people press stop; the server is killed; leases run out. Time is virtual.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crdt_sessions.errors import RunNotClaimable
from crdt_sessions.limits import RunRules
from crdt_sessions.model import TERMINAL_STATUSES, child_of

from .runs import World

GRACE_S = 5
WHICH = st.integers(0, 7)
KEYS = st.sampled_from(["1", "2", "3"])


class TreeMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.world = World(
            RunRules(lease_s=10, gone_grace_s=3, cancel_grace_s=GRACE_S, max_attempts=2), people=("ann",)
        )
        self.network = self.world.network
        self.holders = []
        self.ended, self.stopped_at = {}, {}
        self.world.post()
        for run, policy in (("r", None), ("s", "parallel")):
            self.world.ask(run=run, policy=policy)
        self.network.run_until_quiet()
        self.claim(0)

    def _records(self):
        found = (self.world.record(run_id) for run_id in self.network.engine.view.runs.ids())
        return [record for record in found if record is not None]

    def _holder(self, which):
        return self.holders[-1 - which % len(self.holders)] if self.holders else None

    def _present(self, which):
        """Choose a holder whose lease goes on, if there is one."""
        table = self.network.engine.runs.table
        present = [each for each in self.holders if table.holds(each.run, each.epoch)]
        return present[-1 - which % len(present)] if present else self._holder(which)

    def _settle(self, now):
        if now:
            self.network.run_until_quiet()

    # -- agents ------------------------------------------------------------------------------------------------

    @rule(which=WHICH)
    def claim(self, which):
        ready = [record for record in self._records() if record.ready]
        if not ready:
            return
        record = ready[which % len(ready)]
        try:
            self.holders.append(self.world.claim(record.id, "writer" if record.agent == "*" else record.agent))
        except RunNotClaimable:
            return

    @rule(which=WHICH, key=KEYS, orphans=st.sampled_from([None, "end", "go-on"]), now=st.booleans())
    def delegate(self, which, key, orphans, now):
        if holder := self._present(which):
            self.world.delegate(holder, key, orphans=orphans)
            self._settle(now)

    @rule(which=WHICH, keys=st.sets(KEYS), now=st.booleans())
    def fan_out(self, which, keys, now):
        for key in sorted(keys):
            self.delegate(which, key, None, False)
        self._settle(now)

    @rule(which=WHICH, status=st.sampled_from(["completed", "failed", "handoff", "released", "suspended"]))
    def report(self, which, status):
        if holder := self._present(which):
            self.world.write(holder, "words ", close=True)
            more = {"agent": "helper"} if status == "handoff" else {}
            self.world.report(holder, status, **more)
            self.network.run_until_quiet()

    @rule(which=WHICH, abrupt=st.booleans())
    def die(self, which, abrupt):
        if holder := self._present(which):
            self.network.drop(holder.name, abrupt=abrupt)

    @rule(which=WHICH)
    def rise_again(self, which):
        if holder := self._holder(which):
            self.network.connect(holder.name, lease=holder.token)
            self.network.run_until_quiet()

    # -- people and the world ------------------------------------------------------------------------------------

    @rule(which=WHICH, now=st.booleans())
    def cancel(self, which, now):
        records = self._records()
        if records:
            self.world.cancel("ann", records[which % len(records)].id)
            self._settle(now)

    @rule(parent=st.sampled_from(["r", "s", "r:1", "nowhere"]), key=KEYS)
    def intrude(self, parent, key):
        """Somebody who holds no lease asks for a child of a run."""
        if child_of(parent, key) in self.network.peers["ann"].replica.view.runs:
            return
        if self.holders:
            child = self.world.delegate(self.holders[0], key, parent=parent, who="ann")
            self.network.run_until_quiet()
            record = self.world.record(child)
            assert record is None or record.over or record.epoch or self._was_asked_for(record)

    def _was_asked_for(self, record):
        """Whether the holder of the parent has asked for the same child, and was first."""
        return record.request.by != "ann" or record.parent in {holder.run for holder in self.holders}

    @rule()
    def crash(self):
        self.network.crash()
        self.network.connect("ann")

    @rule(seconds=st.sampled_from([1, 3, 11]))
    def pass_time(self, seconds):
        for _ in range(seconds):
            self.network.pass_time(1)
        self.network.run_until_quiet()

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def no_orphan_stays_open(self):
        if not hasattr(self, "network"):
            return
        for record in self._records():
            parent = self.world.record(record.parent)
            if parent is None or record.over:
                continue
            goes_on = record.request.orphans == "go-on" and parent.cancel is None
            if (parent.over and not goes_on) or parent.cancel is not None:
                assert record.cancel is not None, (parent, record)
                assert record.lease is not None, "who has no agent needs no moment to stop"
                assert self.network.now <= record.cancel_deadline + 1000, "the moment is over"

    @invariant()
    def an_end_is_final_and_told_once(self):
        if not hasattr(self, "network"):
            return
        for run_id, record in self.network.records.runs.items():
            if run_id in self.ended:
                assert (record.status, record.outcome, record.cancel) == self.ended[run_id]
            if record.over:
                self.ended[run_id] = (record.status, record.outcome, record.cancel)

    @invariant()
    def children_are_nobodys_turn(self):
        if not hasattr(self, "network"):
            return
        for record in self._records():
            if record.parent is not None and record.status == "queued":
                assert record.ready, record

    @invariant()
    def the_conversation_has_no_word_of_a_child(self):
        if not hasattr(self, "network"):
            return
        view = self.network.engine.view
        children = {record.id for record in self._records() if record.parent is not None}
        assert not [each.id for each in view.messages.ordered() if each.run_id in children]

    def teardown(self):
        if not hasattr(self, "network"):
            return
        try:
            self._bring_to_an_end()
        finally:
            self.network.close()

    def _bring_to_an_end(self):
        for holder in self.holders:
            self.network.drop(holder.name)
        for run in ("r", "s"):
            self.world.cancel("ann", run)
        self.network.connect("ann")
        for _ in range(GRACE_S + 3):
            self.network.pass_time(1)
            self.network.run_until_quiet()
        self.no_orphan_stays_open()
        for record in self._records():
            parent = self.world.record(record.parent)
            if parent is None or parent.cancel is not None:
                assert record.status in TERMINAL_STATUSES, record
        for message in self.network.engine.view.messages.all_views():
            run = self.world.record(message.run_id)
            assert run is None or not run.over or message.to_value().done, "a stream was left dangling"


class TestTrees(TreeMachine.TestCase):
    settings = settings()
