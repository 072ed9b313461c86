"""Moves runs from one status to the next: what the document says, what is claimed and what is due meet here.

How runs come on record has a module of its own (``beginnings``), and so has how they end (``endings``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import (
    ANY_AGENT,
    MessageHead,
    Run,
    RunError,
    RunRequest,
    RunResult,
    SessionView,
    say_nothing,
)
from crdt_sessions.model.parts import being_written
from crdt_sessions.sync.actor import NOBODY_KNOWN, Asker
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.records import RunRecord
from crdt_sessions.sync.runs.beginnings import Beginnings
from crdt_sessions.sync.runs.client_calls import ClientCalls
from crdt_sessions.sync.runs.endings import Endings
from crdt_sessions.sync.runs.leases import Claim, Leases, left
from crdt_sessions.sync.runs.mirror import end_calls, mirrored, overwritten, stands
from crdt_sessions.sync.runs.questions import Questions
from crdt_sessions.sync.runs.requests import Requests, begins_anew, with_input_of
from crdt_sessions.sync.runs.steering import Steering
from crdt_sessions.sync.runs.table import RunTable
from crdt_sessions.sync.runs.turns import Turns
from crdt_sessions.sync.runs.usage import hear_usage


class RunSteward:
    """Decides about the runs of one session.

    Args:
        view: the session's document.
        records: the runs on record.
        rules: how runs are admitted and when agents are given up.
        aside: what is not to be decided about.
    """

    def __init__(
        self, view: SessionView, records: Iterable[RunRecord], rules: RunRules, aside: Aside | None = None
    ) -> None:
        self._aside = aside or Aside()
        self._view = view
        self.table = RunTable(records, self._aside)
        """The runs on record."""
        self.leases = Leases(self.table, rules)
        """Who works on them."""
        self.questions = Questions(view, self.table)
        """What they ask people."""
        self.calls = ClientCalls(view, self.table, rules)
        """What they have clients do."""
        self._requests = Requests(view, self.table, rules)
        self._turns = Turns(self.table)
        self._steering = Steering(view, self.table)
        self._endings = Endings(self.table, self.leases, self.questions, self.calls, self._turns, rules)
        self._beginnings = Beginnings(
            view, self.table, self._requests, self._turns, self._steering, self._endings, rules
        )
        self._unfinished: set[str] = set()

    # -- what the document says ----------------------------------------------------------------------------------

    def start(self, now: Millis) -> None:
        """Look at a loaded document: leases get their full time again, since the silence was ours."""
        for record in self.table.active():
            if self._aside.left("run", record.id):
                self._endings.give_up(record, now)
        self.leases.start(now)
        self.calls.start(now)
        if self.table.active():
            for message in self._view.messages.views():
                if message.steers is not None and (head := message.head) is not None:
                    self._steering.note(head)
            self._turns.promote(now)  # in older databases runs wait for a suspended one

    def is_settled(self, run_id: str, entry: Mapping[str, Any]) -> bool:
        """Whether a run is over and its entry in the document, unchecked, says so: nothing is to be decided about it.

        A wrong "no" is possible.
        """
        record = self.table.record(run_id)
        return record is not None and record.over and stands(record, entry)

    def look_at_run(self, run: Run, now: Millis, by: Asker = NOBODY_KNOWN) -> None:
        """Consider the proposals for a run, and restore what is settled.

        *by* is who proposed it, as far as that is known.
        """
        run_id = run.id
        known = self.table.record(run_id)
        if known is not None and not self.table.will_show(run_id) and overwritten(known, run):
            self.table.decided.restored.append("runs")
        record = known or self._beginnings.admit(run, now, by)
        if record is None:
            return
        if run.cancel is not None:
            self._endings.cancel(record, run.cancel, now)
        if run.reported is not None:
            hear_usage(self.table, self.table[run_id], run.reported, self.leases.spoke(run_id), now)
        if run.result is not None:
            self._hear_result(self.table[run_id], run.result, now)
        if not mirrored(self.table[run_id], run):
            self.table.show(run_id)

    def _hear_result(self, record: RunRecord, result: RunResult, now: Millis) -> None:
        """Take the word of the holder of the lease; of anybody else it counts for nothing."""
        if record.lease is None or result.epoch != record.epoch:
            return
        if record.cancel is not None:
            self._endings.end(record, "cancelled", record.cancel.reason or "cancelled", now)
        elif result.status in ("completed", "failed", "cancelled"):
            ended = self._endings.end(record, result.status, result.reason or result.status, now, result.error)
            self._beginnings.follow_up(ended, now)
        elif result.status == "suspended":
            self._endings.suspend(record, now)
        elif result.status == "handoff":
            self._endings.requeue(record, now, agent=result.agent or ANY_AGENT, attempt=0)
        elif result.status == "released":
            self._endings.requeue(left(record, now), now, attempt=record.attempt - 1, parts="interrupted")

    def look_at_message(self, message_id: str, now: Millis) -> None:
        """Consider what a change of a message means for runs: a decision of people, a question that is complete."""
        writers = self.table.writers_of(message_id)
        if writers and self.leases.silent(writers[-1]):
            message = self._view.messages.value(message_id)
            if message is not None and not message.empty:
                self.leases.note_words(writers[-1], now)
        for run_id in writers:
            record = self.table[run_id]
            if record.approvals or self.calls.concern(record):
                self._endings.hear_answers(record, now)
        if writers and (last := self.table[writers[-1]]).over:
            found = self._view.messages.find(message_id)
            if found is not None and found.ends_with(last.status):  # a call that came after the end
                self.table.decided.writes.append(end_calls(message_id, last.status))
        if message_id in self._unfinished:
            message = self._view.messages.value(message_id)
            if message is not None and message.done and not message.empty:
                self.answer(message, now)

    def answer(self, head: MessageHead, now: Millis, by: Asker = NOBODY_KNOWN) -> None:
        """Ask for an answer to a message that has got its place in the order, if it asks nobody in particular."""
        self._steering.note(head)
        self._unfinished.discard(head.id)
        steered = self.table.record(head.steers)
        if (
            head.role != "user"
            or head.imported
            or self.table.askers_of(head.id)
            or (steered is not None and not steered.over)
        ):
            return
        agent = steered.agent if steered is not None else self._requests.answerer()
        if not agent:
            return
        message = self._view.messages.find(head.id)
        parts = list(message.part_values()) if message is not None else []
        if message is not None and (say_nothing(parts) or any(map(being_written, parts))):
            self._unfinished.add(head.id)  # it is answered once it says something
            return
        known_as = by.principal or (message.by if message is not None else None)
        request = RunRequest(message_id=head.id, agent=agent, by=known_as or head.author.id, created_at=now)
        self._beginnings.ask(with_input_of(request, steered), now, by)

    # -- what agents and people do by other ways than the document ---------------------------------------------------

    def claim(
        self,
        run_id: str,
        *,
        agents: Iterable[str],
        owner: str,
        digest: str,
        ttl_ms: int | None = None,
        worker: str | None = None,
        asked_at: Millis | None = None,
        children: bool = True,
        now: Millis,
    ) -> RunRecord:
        """Give a queued run to a claimant; return it with its lease.

        Args:
            run_id: which one.
            agents: the names that the claimant works under.
            owner: its principal.
            digest: of the token that proves the lease.
            ttl_ms: how long it may be silent; the rules' if None.
            worker: the process that asks, if it says so.
            asked_at: since when it waits for a run; now if None.
            children: whether it takes child runs.
            now: the time.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or for another agent.
        """
        claim = Claim(list(agents), owner, digest, ttl_ms, worker, asked_at, children)
        record = self.leases.check(run_id, claim, now)
        with self._aside.about("run", run_id):
            return self.leases.lend(record, claim, now)

    def refuse(self, run_id: str, error: RunError, now: Millis) -> None:
        """End a run that nobody has begun yet, because of *error*; one that is under way goes on."""
        record = self.table.record(run_id)
        if record is not None and begins_anew(record):
            with self._aside.about("run", run_id):
                self._endings.end(record, "failed", error.message, now, error)

    def tick(self, now: Millis) -> None:
        """Do what is due: end leases, give up cancelled agents, expire questions."""
        if (pause := self.leases.look(now)) > 0:
            self.calls.slept(pause, now)
        for run_id in self.table.timed():
            with self._aside.about("run", run_id):
                self._tick(self.table[run_id], now)

    def _tick(self, record: RunRecord, now: Millis) -> None:
        request = record.request
        deadline = request.deadline if request is not None else None
        if deadline is not None and now >= deadline:
            self._endings.miss(record, deadline, now)
        elif record.waits_until is not None and request is not None and now >= record.waits_until:
            self._beginnings.come(record, request, now)
        else:
            self._tick_held(record, now)

    def _tick_held(self, record: RunRecord, now: Millis) -> None:
        if record.cancel is not None and record.cancel_deadline is not None and now >= record.cancel_deadline:
            self.leases.evict(record)
            self._endings.end(record, "cancelled", "the agent did not stop by itself", now)
        elif self.leases.lost(record, now):
            self._endings.lose(record, now)
        elif self.questions.due(record, now) or self.calls.due(record, now):
            self._endings.hear_answers(record, now)
