"""How runs come on record: asked for by somebody, by a schedule or by the server, or settled elsewhere."""

from __future__ import annotations

from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import (
    ANY_AGENT,
    TERMINAL_STATUSES,
    Run,
    RunCancel,
    RunOutcome,
    RunRequest,
    SessionView,
    answer_to,
    may_decide,
    output_of,
)
from crdt_sessions.model.strings import is_id
from crdt_sessions.sync.actor import Asker
from crdt_sessions.sync.records import RunRecord
from crdt_sessions.sync.runs.children import cannot_delegate, stop_from_above
from crdt_sessions.sync.runs.endings import Endings
from crdt_sessions.sync.runs.mirror import close_parts, end_calls
from crdt_sessions.sync.runs.requests import LONG_AGO, Requests, first_time, refused, with_input_of
from crdt_sessions.sync.runs.schedules import cannot_schedule, due_now, free_id_at, question_at
from crdt_sessions.sync.runs.steering import Steering
from crdt_sessions.sync.runs.table import RunTable
from crdt_sessions.sync.runs.turns import Turns
from crdt_sessions.sync.runs.usage import usage_on_record


class Beginnings:
    """Admits the runs of one session.

    Args:
        view: the session's document.
        table: the runs on record.
        requests: reads what is asked for.
        turns: whose turn it is.
        steering: what is said to runs that are active.
        endings: ends those that are not admitted, or that have to go.
        rules: how runs are admitted.
    """

    def __init__(
        self,
        view: SessionView,
        table: RunTable,
        requests: Requests,
        turns: Turns,
        steering: Steering,
        endings: Endings,
        rules: RunRules,
    ) -> None:
        self._view = view
        self._table = table
        self._requests = requests
        self._turns = turns
        self._steering = steering
        self._endings = endings
        self._rules = rules

    def admit(self, run: Run, now: Millis, by: Asker) -> RunRecord | None:
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
            order=self._table.next_order(),
            request=request,
            agent=request.agent,
            policy=self._requests.policy(request),
            status="queued",
            output=self._requests.output(run.id, request),
            queued_at=now,
            waits_until=waits_until,
        )
        self._table.add(record)
        cancel = run.cancel or stop_from_above(self._table, request, now)
        if cancel is not None:
            return self._endings.cancel(record, cancel, now)
        for key, why in request.flaws.items():
            return self._endings.end(record, "failed", f"its {key} was refused", now, refused(key, why))
        no = cannot_delegate(self._table, run.id, request, by) or cannot_schedule(self._table, record, request)
        if no is not None:
            return self._endings.end(record, "failed", no.message, now, no)
        if request.deadline is not None and request.deadline <= now:
            return self._endings.miss(record, request.deadline, now)
        return self._consider(record, request, now, by) if waits_until is None else record

    def _consider(self, record: RunRecord, request: RunRequest, now: Millis, by: Asker) -> RunRecord:
        """Let a run that is on record have its turn, or end it, as its policy says."""
        busy = self._table.contenders(but=record.id)
        if self._requests.asks_nothing(request):
            return self._endings.end(record, "cancelled", "there is nothing to answer: the message is empty", now)
        if busy and record.policy == "reject":
            return self._endings.end(record, "cancelled", "rejected: another run is active", now)
        if busy and record.policy == "interrupt":
            for other in busy:
                reason = f"interrupted by {record.id}"
                self._endings.cancel(other, RunCancel(by=request.by or "", reason=reason, at=now), now)
        if record.policy == "queue":
            self._supersede(record, request, now, by)
        return self._turns.queue(record.id, now)

    def _supersede(self, record: RunRecord, request: RunRequest, now: Millis, by: Asker) -> None:
        """End the runs that wait for the decision of somebody who says something else instead."""
        others = self._table.contenders(but=record.id) if by.decides else []
        undecided = [other for other in others if other.status == "suspended" and other.undecided]
        asker = self._requests.talks_on(request, by) if undecided else None
        if asker is None:
            return
        for other in undecided:
            waits = other.undecided
            asked_before = all(each.request.requested_at <= request.created_at for each in waits)
            if asked_before and all(may_decide(each.request, asker) for each in waits):
                self._endings.end(other, "cancelled", f"superseded by {record.id}", now, superseded_by=record.id)

    def _adopt(self, run: Run, now: Millis) -> RunRecord:
        """Take a run on record that was settled elsewhere, in the session this one was imported from.

        Nobody goes on with it here, so what its agent had not finished there is closed.
        """
        over = run.status is not None and run.status in TERMINAL_STATUSES and run.outcome is not None
        adopted = self._table.put(
            RunRecord(
                id=run.id,
                order=self._table.next_order(),
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
        self._table.decided.writes.append(close_parts(adopted.output, "interrupted"))
        self._table.decided.writes.append(end_calls(adopted.output, adopted.status))
        return adopted

    def come(self, record: RunRecord, request: RunRequest, now: Millis) -> None:
        """Do what a run has waited for: let it begin, or ask for others if it has a schedule."""
        if request.schedule is None:
            self._consider(self._table.put(record.replace(waits_until=None, queued_at=now)), request, now, LONG_AGO)
            return
        question = self._view.messages.value(request.message_id)
        if question is None:
            self._endings.end(record, "failed", "the message of the schedule is not there", now)
            return
        times, due = due_now(record, request.schedule, now)
        record = self._table.put(record.replace(waits_until=due))
        for time in times:
            message_id = free_id_at(record.id, time, self._view.messages, self._table)
            asked, again = question_at(record, request, question, message_id, now)
            self._table.decided.asked.append(asked)
            self.admit(Run(id=answer_to(message_id), request=again), now, LONG_AGO)
        if due is None:
            self.follow_up(self._endings.end(record, "completed", "the schedule is over", now), now)

    def ask(self, request: RunRequest, now: Millis, by: Asker) -> None:
        """Ask for an answer, unless there is a run for that already."""
        run_id = answer_to(request.message_id)
        if run_id not in self._table:
            known = self._view.runs.value(run_id) or Run(id=run_id)  # somebody may have pressed stop already
            self.admit(known.replace(request=known.request or request), now, by)

    def follow_up(self, record: RunRecord, now: Millis) -> None:
        """Ask for an answer to what was meant to steer the run and came too late for it."""
        untaken = self._steering.untaken(record)
        if untaken and record.status == "completed":
            request = RunRequest(message_id=untaken[-1], agent=record.agent, created_at=now)
            self.ask(with_input_of(request, record), now, Asker(decides=False))
