"""Moves runs from one status to the next."""

from __future__ import annotations

from collections.abc import Iterable

from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import (
    ANY_AGENT,
    TERMINAL_STATUSES,
    MessageHead,
    Run,
    RunCancel,
    RunError,
    RunOutcome,
    RunRequest,
    RunResult,
    SessionView,
    answer_to,
    may_decide,
    output_of,
)
from crdt_sessions.model.parts import StreamState
from crdt_sessions.model.run_values import RunStatus
from crdt_sessions.model.strings import is_id
from crdt_sessions.sync.actor import NOBODY_KNOWN, Asker
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.records import Deed, RunRecord
from crdt_sessions.sync.runs.children import cannot_delegate, orphans, stop_from_above, stop_with
from crdt_sessions.sync.runs.client_calls import ClientCalls
from crdt_sessions.sync.runs.leases import Claim, Leases, left
from crdt_sessions.sync.runs.mirror import close_parts, end_calls, mirrored, overwritten
from crdt_sessions.sync.runs.questions import Questions
from crdt_sessions.sync.runs.requests import LONG_AGO, Requests, begins_anew, first_time, refused, with_input_of
from crdt_sessions.sync.runs.schedules import cannot_schedule, due_now, free_id_at, question_at
from crdt_sessions.sync.runs.steering import Steering
from crdt_sessions.sync.runs.table import RunTable
from crdt_sessions.sync.runs.turns import Turns
from crdt_sessions.sync.runs.usage import hear_usage, usage_on_record


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
        self._rules = rules
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
        self._unfinished: set[str] = set()

    # -- what the document says ----------------------------------------------------------------------------------

    def start(self, now: Millis) -> None:
        """Look at a loaded document: leases get their full time again, since the silence was ours."""
        for record in self.table.active():
            if self._aside.left("run", record.id):
                self._give_up(record, now)
        self.leases.start(now)
        self.calls.start(now)
        if self.table.active():
            for head in self._view.messages.heads():
                self._steering.note(head)
            self._turns.promote(now)  # in older databases runs wait for a suspended one

    def look_at_run(self, run: Run, now: Millis, by: Asker = NOBODY_KNOWN) -> None:
        """Consider the proposals for a run, and restore what is settled.

        *by* is who proposed it, as far as that is known.
        """
        run_id = run.id
        known = self.table.record(run_id)
        if known is not None and not self.table.will_show(run_id) and overwritten(known, run):
            self.table.decided.restored.append("runs")
        record = known or self._admit(run, now, by)
        if record is None:
            return
        if run.cancel is not None:
            self._cancel(record, run.cancel, now)
        if run.reported is not None:
            hear_usage(self.table, self.table[run_id], run.reported, self.leases.spoke(run_id), now)
        if run.result is not None:
            self._hear_result(self.table[run_id], run.result, now)
        if not mirrored(self.table[run_id], run):
            self.table.show(run_id)

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
                self._hear_answers(record, now)
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
        message = self._view.messages.value(head.id)
        if message is not None and (not message.done or message.empty):
            self._unfinished.add(head.id)  # it is answered once it says something
            return
        known_as = by.principal or (message.by if message is not None else None)
        request = RunRequest(message_id=head.id, agent=agent, by=known_as or head.author.id, created_at=now)
        self._ask(with_input_of(request, steered), now, by)

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
                self._end(record, "failed", error.message, now, error)

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
            self._miss(record, deadline, now)
        elif record.waits_until is not None and request is not None and now >= record.waits_until:
            self._come(record, request, now)
        else:
            self._tick_held(record, now)

    def _tick_held(self, record: RunRecord, now: Millis) -> None:
        if record.cancel is not None and record.cancel_deadline is not None and now >= record.cancel_deadline:
            self.leases.evict(record)
            self._end(record, "cancelled", "the agent did not stop by itself", now)
        elif self.leases.lost(record, now):
            self._lose(record, now)
        elif self.questions.due(record, now) or self.calls.due(record, now):
            self._hear_answers(record, now)

    def _come(self, record: RunRecord, request: RunRequest, now: Millis) -> None:
        """Do what a run has waited for: let it begin, or ask for others if it has a schedule."""
        if request.schedule is None:
            self._consider(self.table.put(record.replace(waits_until=None, queued_at=now)), request, now, LONG_AGO)
            return
        question = self._view.messages.value(request.message_id)
        if question is None:
            self._end(record, "failed", "the message of the schedule is not there", now)
            return
        times, due = due_now(record, request.schedule, now)
        record = self.table.put(record.replace(waits_until=due))
        for time in times:
            message_id = free_id_at(record.id, time, self._view.messages, self.table)
            asked, again = question_at(record, request, question, message_id, now)
            self.table.decided.asked.append(asked)
            self._admit(Run(id=answer_to(message_id), request=again), now, LONG_AGO)
        if due is None:
            self._end(record, "completed", "the schedule is over", now)

    def _miss(self, record: RunRecord, deadline: int, now: Millis) -> RunRecord:
        """End a run that was not done in time; what was written stays."""
        self.leases.evict(record)
        if record.cancel is not None:
            return self._end(record, "cancelled", record.cancel.reason or "cancelled", now)
        error = RunError(code="deadline", message="the run was not done by its deadline")
        return self._end(record, "failed", "deadline", now, error)

    # -- admission ---------------------------------------------------------------------------------------------

    def _admit(self, run: Run, now: Millis, by: Asker) -> RunRecord | None:
        """Take a run on record; None if nobody has asked for it yet, or it cannot be called that."""
        if not is_id(run.id):
            return None
        if run.status is not None:
            return self._adopt(run, now)
        if run.request is None:
            return None
        request = self._requests.settled(run.request, by)
        waits_until = first_time(request, now)
        record = RunRecord(
            id=run.id,
            order=self.table.next_order(),
            request=request,
            agent=request.agent,
            policy=self._requests.policy(request),
            status="queued",
            output=self._requests.output(run.id, request),
            queued_at=now,
            waits_until=waits_until,
        )
        self.table.add(record)
        cancel = run.cancel or stop_from_above(self.table, request, now)
        if cancel is not None:
            return self._cancel(record, cancel, now)
        for key, why in request.flaws.items():
            return self._end(record, "failed", f"its {key} was refused", now, refused(key, why))
        no = cannot_delegate(self.table, run.id, request, by) or cannot_schedule(self.table, record, request)
        if no is not None:
            return self._end(record, "failed", no.message, now, no)
        if request.deadline is not None and request.deadline <= now:
            return self._miss(record, request.deadline, now)
        return self._consider(record, request, now, by) if waits_until is None else record

    def _consider(self, record: RunRecord, request: RunRequest, now: Millis, by: Asker) -> RunRecord:
        """Let a run that is on record have its turn, or end it, as its policy says."""
        busy = self.table.contenders(but=record.id)
        if self._requests.asks_nothing(request):
            return self._end(record, "cancelled", "there is nothing to answer: the message is empty", now)
        if busy and record.policy == "reject":
            return self._end(record, "cancelled", "rejected: another run is active", now)
        if busy and record.policy == "interrupt":
            for other in busy:
                reason = f"interrupted by {record.id}"
                self._cancel(other, RunCancel(by=request.by or "", reason=reason, at=now), now)
        if record.policy == "queue":
            self._supersede(record, request, now, by)
        return self._turns.queue(record.id, now)

    def _supersede(self, record: RunRecord, request: RunRequest, now: Millis, by: Asker) -> None:
        """End the runs that wait for the decision of somebody who says something else instead."""
        asker = self._requests.talks_on(request, by)
        if asker is None:
            return
        for other in self.table.contenders(but=record.id):
            waits = other.undecided if other.status == "suspended" and by.decides else []
            asked_before = all(each.request.requested_at <= request.created_at for each in waits)
            if waits and asked_before and all(may_decide(each.request, asker) for each in waits):
                self._end(other, "cancelled", f"superseded by {record.id}", now, superseded_by=record.id)

    def _adopt(self, run: Run, now: Millis) -> RunRecord:
        """Take a run on record that was settled elsewhere, in the session this one was imported from.

        Nobody goes on with it here, so what its agent had not finished there is closed.
        """
        over = run.status is not None and run.status in TERMINAL_STATUSES and run.outcome is not None
        adopted = self.table.put(
            RunRecord(
                id=run.id,
                order=self.table.next_order(),
                request=run.request,
                agent=run.agent or (run.request.agent if run.request is not None else ANY_AGENT),
                policy=self._rules.policy,
                status=run.status if over and run.status is not None else "interrupted",
                output=run.output or output_of(run.id),
                queued_at=now,
                epoch=run.epoch or 0,
                cancel=run.cancel,
                outcome=run.outcome if over else RunOutcome(reason="imported", ended_at=now),
                **usage_on_record(run.usage),
            )
        )
        self.table.decided.writes.append(close_parts(adopted.output, "interrupted"))
        self.table.decided.writes.append(end_calls(adopted.output, adopted.status))
        return adopted

    # -- the end, and other ways to lose a lease -------------------------------------------------------------------

    def _cancel(self, record: RunRecord, cancel: RunCancel, now: Millis) -> RunRecord:
        """Stop a run; an agent that works on it gets a moment to stop by itself."""
        if record.over or record.cancel is not None:
            return record
        self.table.decided.deeds.append(Deed("run.cancel", cancel.by, {"run": record.id}))
        cancelled = self.table.put(record.replace(cancel=cancel))
        for child in self.table.children_of(record.id):
            self._cancel(child, stop_with(cancel, now), now)
        if record.lease is None:
            return self._end(cancelled, "cancelled", cancel.reason or "cancelled", now)
        return self.table.put(cancelled.replace(cancel_deadline=now + int(self._rules.cancel_grace_s * 1000)))

    def _hear_result(self, record: RunRecord, result: RunResult, now: Millis) -> None:
        """Take the word of the holder of the lease; of anybody else it counts for nothing."""
        if record.lease is None or result.epoch != record.epoch:
            return
        if record.cancel is not None:
            self._end(record, "cancelled", record.cancel.reason or "cancelled", now)
        elif result.status in ("completed", "failed", "cancelled"):
            self._end(record, result.status, result.reason or result.status, now, result.error)
        elif result.status == "suspended":
            self._suspend(record, now)
        elif result.status == "handoff":
            self._requeue(record, now, agent=result.agent or ANY_AGENT, attempt=0)
        elif result.status == "released":
            self._requeue(left(record, now), now, attempt=record.attempt - 1, parts="interrupted")

    def _lose(self, record: RunRecord, now: Millis) -> None:
        """Take the lease away from an agent that is not heard of any more."""
        seen = self.leases.seen(record.id)
        self.leases.evict(record)
        record = left(record, now)
        if record.cancel is not None:
            self._end(record, "cancelled", record.cancel.reason or "cancelled", now)
        elif record.attempt >= self._rules.max_attempts and seen:
            self._end(record, "interrupted", "the agent was lost", now)
        else:  # a claimant that was never heard of took nothing but time
            self._requeue(record, now, attempt=record.attempt - (not seen), parts="interrupted")

    def _requeue(
        self, record: RunRecord, now: Millis, *, attempt: int, agent: str | None = None, parts: StreamState = "done"
    ) -> None:
        released = self.leases.release(record, parts, now)
        queued = self.table.put(
            released.replace(status="queued", attempt=attempt, agent=agent or record.agent, queued_at=now)
        )
        if record.status == "running":
            self._turns.make_ready(queued, now)  # it had its turn, and keeps it
        else:
            self._turns.queue(record.id, now)

    def _end(
        self,
        record: RunRecord,
        status: RunStatus,
        reason: str,
        now: Millis,
        error: RunError | None = None,
        superseded_by: str | None = None,
    ) -> RunRecord:
        """Settle how the run ended, once."""
        parts: StreamState = "done" if status == "completed" else "interrupted"
        ended = self.table.put(
            self.leases.release(record, parts, now).replace(
                status=status,
                ready=False,
                cancel_deadline=None,
                waits_until=None,
                outcome=RunOutcome(reason=reason, error=error, superseded_by=superseded_by, ended_at=now),
            )
        )
        ended = self.calls.close(self.questions.close(ended, reason, now), now)
        self.table.decided.writes.append(end_calls(ended.output, status))
        self.table.notify(f"run.{status}", ended, now)
        self._end_orphans(ended, now)
        self._turns.promote(now)
        self._follow_up(ended, now)
        return ended

    def _give_up(self, record: RunRecord, now: Millis) -> None:
        """End a run about which nothing can be decided, in its record alone, so that the next one gets its turn."""
        outcome = RunOutcome(reason="the service cannot decide about this run", ended_at=now)
        if record.lease is not None:
            self.table.decided.released.add((record.id, record.epoch))
        nothing = dict.fromkeys(("lease", "secret", "worker", "cancel_deadline", "waits_until")) | {"ready": False}
        self._end_orphans(self.table.put(record.replace(status="interrupted", outcome=outcome, **nothing)), now)
        self._turns.promote(now)

    def _end_orphans(self, record: RunRecord, now: Millis) -> None:
        """Stop what is not to go on without the run that asked for it."""
        for child in orphans(self.table, record):
            self._cancel(child, RunCancel(reason="the run that asked for it has ended", at=now), now)

    def _follow_up(self, record: RunRecord, now: Millis) -> None:
        """Ask for an answer to what was meant to steer the run and came too late for it."""
        untaken = self._steering.untaken(record)
        if untaken and record.status == "completed":
            request = RunRequest(message_id=untaken[-1], agent=record.agent, created_at=now)
            self._ask(with_input_of(request, record), now, Asker(decides=False))

    def _ask(self, request: RunRequest, now: Millis, by: Asker) -> None:
        run_id = answer_to(request.message_id)
        if run_id not in self.table:
            known = self._view.runs.value(run_id) or Run(id=run_id)  # somebody may have pressed stop already
            self._admit(known.replace(request=known.request or request), now, by)

    # -- people ------------------------------------------------------------------------------------------------

    def _suspend(self, record: RunRecord, now: Millis) -> None:
        """Wait for people, or their devices: the lease ends, and no process is needed until they have answered."""
        asked = self.questions.asked(record)
        if isinstance(asked, RunError):
            self._end(record, "failed", asked.message, now, asked)
            return
        released = self.leases.release(record, "done", now)
        suspended = self.table.put(released.replace(status="suspended", approvals=asked))
        if suspended.undecided:
            self.table.notify("run.approval_requested", suspended, now)
        self._hear_answers(suspended, now)
        self._turns.promote(now)

    def _hear_answers(self, record: RunRecord, now: Millis) -> None:
        """Consider what people have answered and devices have done; a run that waits for nothing more goes on."""
        record = self.calls.consider(self.questions.hear(record, now), now)
        if record.status == "suspended" and not record.waits:
            self._requeue(record, now, attempt=0)
