"""How runs end, and the other ways to lose a lease: suspended for people, given back, cancelled, lost."""

from __future__ import annotations

from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import RunCancel, RunError, RunOutcome
from crdt_sessions.model.parts import StreamState
from crdt_sessions.model.run_values import RunStatus
from crdt_sessions.sync.records import Deed, RunRecord
from crdt_sessions.sync.runs.children import orphans, stop_with
from crdt_sessions.sync.runs.client_calls import ClientCalls
from crdt_sessions.sync.runs.leases import Leases, left
from crdt_sessions.sync.runs.mirror import end_calls
from crdt_sessions.sync.runs.questions import Questions
from crdt_sessions.sync.runs.table import RunTable
from crdt_sessions.sync.runs.turns import Turns


class Endings:
    """Ends the runs of one session, and has what waits for that go on.

    Args:
        table: the runs.
        leases: who works on them.
        questions: what they ask people.
        calls: what they have clients do.
        turns: whose turn it is then.
        rules: when agents are given up.
    """

    def __init__(
        self, table: RunTable, leases: Leases, questions: Questions, calls: ClientCalls, turns: Turns, rules: RunRules
    ) -> None:
        self._table = table
        self._leases = leases
        self._questions = questions
        self._calls = calls
        self._turns = turns
        self._rules = rules

    def end(
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
        ended = self._table.put(
            self._leases.release(record, parts, now).replace(
                status=status,
                ready=False,
                cancel_deadline=None,
                waits_until=None,
                outcome=RunOutcome(reason=reason, error=error, superseded_by=superseded_by, ended_at=now),
            )
        )
        ended = self._calls.close(self._questions.close(ended, reason, now), now)
        self._table.decided.writes.append(end_calls(ended.output, status))
        self._table.notify(f"run.{status}", ended, now)
        self._end_orphans(ended, now)
        self._turns.promote(now)
        return ended

    def cancel(self, record: RunRecord, cancel: RunCancel, now: Millis) -> RunRecord:
        """Stop a run; an agent that works on it gets a moment to stop by itself."""
        if record.over or record.cancel is not None:
            return record
        self._table.decided.deeds.append(Deed("run.cancel", cancel.by, {"run": record.id}))
        cancelled = self._table.put(record.replace(cancel=cancel))
        for child in self._table.children_of(record.id):
            self.cancel(child, stop_with(cancel, now), now)
        if record.lease is None:
            return self.end(cancelled, "cancelled", cancel.reason or "cancelled", now)
        return self._table.put(cancelled.replace(cancel_deadline=now + int(self._rules.cancel_grace_s * 1000)))

    def miss(self, record: RunRecord, deadline: int, now: Millis) -> RunRecord:
        """End a run that was not done in time; what was written stays."""
        self._leases.evict(record)
        if record.cancel is not None:
            return self.end(record, "cancelled", record.cancel.reason or "cancelled", now)
        error = RunError(code="deadline", message="the run was not done by its deadline")
        return self.end(record, "failed", "deadline", now, error)

    def lose(self, record: RunRecord, now: Millis) -> None:
        """Take the lease away from an agent that is not heard of any more."""
        seen = self._leases.seen(record.id)
        self._leases.evict(record)
        record = left(record, now)
        if record.cancel is not None:
            self.end(record, "cancelled", record.cancel.reason or "cancelled", now)
        elif record.attempt >= self._rules.max_attempts and seen:
            self.end(record, "interrupted", "the agent was lost", now)
        else:  # a claimant that was never heard of took nothing but time
            self.requeue(record, now, attempt=record.attempt - (not seen), parts="interrupted")

    def requeue(
        self, record: RunRecord, now: Millis, *, attempt: int, agent: str | None = None, parts: StreamState = "done"
    ) -> None:
        """Let a run be claimed once more.

        Args:
            record: the run, whose lease it ends.
            now: the time.
            attempt: how many attempts count as made.
            agent: whom it is for; as before if None.
            parts: what becomes of parts that are not closed.
        """
        released = self._leases.release(record, parts, now)
        queued = self._table.put(
            released.replace(status="queued", attempt=attempt, agent=agent or record.agent, queued_at=now)
        )
        if record.status == "running":
            self._turns.make_ready(queued, now)  # it had its turn, and keeps it
        else:
            self._turns.queue(record.id, now)

    def suspend(self, record: RunRecord, now: Millis) -> None:
        """Wait for people, or their devices: the lease ends, and no process is needed until they have answered."""
        asked = self._questions.asked(record)
        if isinstance(asked, RunError):
            self.end(record, "failed", asked.message, now, asked)
            return
        released = self._leases.release(record, "done", now)
        suspended = self._table.put(released.replace(status="suspended", approvals=asked))
        if suspended.undecided:
            self._table.notify("run.approval_requested", suspended, now)
        self.hear_answers(suspended, now)
        self._turns.promote(now)

    def hear_answers(self, record: RunRecord, now: Millis) -> None:
        """Consider what people have answered and devices have done; a run that waits for nothing more goes on."""
        record = self._calls.consider(self._questions.hear(record, now), now)
        if record.status == "suspended" and not record.waits:
            self.requeue(record, now, attempt=0)

    def give_up(self, record: RunRecord, now: Millis) -> None:
        """End a run about which nothing can be decided, in its record alone, so that the next one gets its turn."""
        outcome = RunOutcome(reason="the service cannot decide about this run", ended_at=now)
        if record.lease is not None:
            self._table.decided.released.add((record.id, record.epoch))
        nothing = dict.fromkeys(("lease", "secret", "worker", "cancel_deadline", "waits_until")) | {"ready": False}
        self._end_orphans(self._table.put(record.replace(status="interrupted", outcome=outcome, **nothing)), now)
        self._turns.promote(now)

    def _end_orphans(self, record: RunRecord, now: Millis) -> None:
        """Stop what is not to go on without the run that asked for it."""
        for child in orphans(self._table, record):
            self.cancel(child, RunCancel(reason="the run that asked for it has ended", at=now), now)
