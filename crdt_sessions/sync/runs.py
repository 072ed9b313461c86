"""The part of the steward that decides about runs: admission, claim, lease, cancel, approval, the end.

::

                    ┌──────────── requeued: lease lost, handed over or back, approved or denied ───────────┐
                    ▼                                                                                      │
    request ──► queued ──── claim: epoch + 1 ────► running ──── suspended (waits for people) ──────────────┤
                  │                                   │  └──────── lease lost, attempts left ──────────────┘
                  │ cancel                            ├── result of the holder ──► completed | failed | cancelled
                  ▼                                   ├── cancel, not obeyed ────► cancelled
              cancelled                               └── no attempts left ──────► interrupted

What anybody wrote into the document is a proposal. What is decided here goes on record, is mirrored in the
document, and is restored there if somebody overwrites it. A terminal status is final.

Who waits for people holds nobody up; decision 0030 says what becomes of their question when they talk on.

Every change of a lease is final too: once lost, the clients that wrote under it are fenced (see
:mod:`crdt_sessions.sync.writers`), and a result that names another epoch than the present one counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from crdt_sessions.errors import RunNotClaimable
from crdt_sessions.ids import Millis
from crdt_sessions.limits import RunRules
from crdt_sessions.model import (
    ANY_AGENT,
    TERMINAL_STATUSES,
    Approval,
    Message,
    MessageHead,
    RefusedDecision,
    Run,
    RunCancel,
    RunError,
    RunLease,
    RunOutcome,
    RunRequest,
    RunResult,
    SessionView,
    Spent,
    Usage,
    UsageReport,
    answer_to,
    may_decide,
    output_of,
    same_request,
)
from crdt_sessions.model.schedules import SCHEDULE_LIMITS
from crdt_sessions.model.strings import is_agent, is_id
from crdt_sessions.model.values import RunPolicy, RunStatus, StreamState
from crdt_sessions.sync.actor import NOBODY_KNOWN, Asker
from crdt_sessions.sync.approvals import heard_of, refusing
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.records import (
    ApprovalRecord,
    Deed,
    Notice,
    Records,
    RunRecord,
    Spending,
    Unreadable,
    lease_digest,
)
from crdt_sessions.sync.schedules import Asked, asked_at, due_now, first_due

Write = Callable[[SessionView], None]

_LONG_AGO = Asker(decides=False)
"""Who asked for a run that has waited for its time: whether they may decide was not asked then."""

_ASLEEP_MS = 2000
"""A pause between two looks at the clock that is longer than this was the server's, not the agents'."""


@dataclass(slots=True)
class RunDecisions:
    """What was decided since the last time it was asked."""

    writes: list[Write] = field(default_factory=list)
    """What mirrors it in the document."""
    records: Records = field(default_factory=Records)
    released: set[tuple[str, int]] = field(default_factory=set)
    """Leases (run, epoch) that have ended: fence their writers."""
    deeds: list[Deed] = field(default_factory=list)
    """What people did that somebody may want to look up."""
    restored: list[str] = field(default_factory=list)
    """Fields of the server's that somebody had overwritten."""
    asked: list[Asked] = field(default_factory=list)
    """Questions that schedules ask."""
    unreadable: list[Unreadable] = field(default_factory=list)
    """Entries that are not of layout 1."""
    evicted: set[tuple[str, int]] = field(default_factory=set)
    """Those of them that were taken away: close their connections."""


@dataclass(slots=True)
class _Life:
    """Signs of life of the holder of a lease; not on record, since a restart of ours is not its fault."""

    heard: Millis
    connections: int = 0
    gone: Millis | None = None
    """Since when it has no connection any more."""
    spoke: Millis | None = None
    """When its first words were here."""
    seen: bool = False
    """Whether anything was ever heard of it after the claim."""


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
        self._records = {record.id: record for record in sorted(records, key=lambda record: record.order)}
        self._active = {record.id: None for record in self._records.values() if not record.over}  # in their order
        self._timed = {run_id: None for run_id in self._active if self._records[run_id].due_at is not None}
        self._last_order = max((record.order for record in self._records.values()), default=0)
        self._writers: dict[str, list[str]] = {}  # output to the runs that write it, or did: the last one may yet
        for record in self._records.values():
            self._writers.setdefault(record.output, []).append(record.id)
        self._askers: dict[str, list[str]] = {}  # what is to be answered to the runs that were asked to
        for record in self._records.values():
            if record.request is not None:
                self._askers.setdefault(record.request.message_id, []).append(record.id)
        self._lives: dict[str, _Life] = {}
        self._steering: dict[str, list[str]] = {}
        self._unfinished: set[str] = set()
        self._looked: Millis | None = None
        self._decided = RunDecisions()
        self._mirror: dict[str, None] = {}

    # -- reading -----------------------------------------------------------------------------------------------

    def record(self, run_id: str) -> RunRecord | None:
        """Return the record of a run."""
        return self._records.get(run_id)

    def writer_of(self, message_id: str) -> str | None:
        """Return the run that writes a message, if it is not over."""
        run_id = self._writers.get(message_id, [""])[-1]
        return run_id if run_id in self._active else None

    def approvals_of(self, message_id: str) -> dict[str, ApprovalRecord]:
        """Return the questions that runs have asked in a message, by tool call."""
        found: dict[str, ApprovalRecord] = {}
        for run_id in self._writers.get(message_id, ()):
            found.update(self._records[run_id].approvals)
        return found

    def holder(self, token: str) -> RunRecord | None:
        """Return the run whose present lease has this token."""
        digest = lease_digest(token)
        active = (self._records[run_id] for run_id in self._active)
        return next((record for record in active if record.lease is not None and record.secret == digest), None)

    def holds(self, run_id: str, epoch: int) -> bool:
        """Whether that is the run's present lease."""
        record = self._records.get(run_id)
        return record is not None and record.lease is not None and record.epoch == epoch

    def at_work(self) -> list[RunRecord]:
        """Return the runs that somebody has a lease of."""
        return [record for run_id in self._active if (record := self._records[run_id]).lease is not None]

    def is_ready(self, run_id: str) -> bool:
        """Whether a run may be claimed."""
        record = self._records.get(run_id)
        return record is not None and record.ready

    @property
    def timed(self) -> bool:
        """Whether :meth:`tick` may have something to do: a lease runs, or there is a deadline."""
        return bool(self._timed)

    def due_before(self, time: Millis) -> bool:
        """Whether somebody must go on looking at the clock: a lease runs, or a deadline comes before *time*."""
        timed = (self._records[run_id] for run_id in self._timed)
        return any(record.lease is not None or (record.due_at or 0) <= time for record in timed)

    @property
    def decided(self) -> bool:
        """Whether :meth:`take` has something to tell."""
        taken = self._decided
        return bool(self._mirror or taken.asked or taken.writes or taken.records or taken.released or taken.evicted)

    def take(self) -> RunDecisions:
        """Return what was decided since the last call."""
        taken, self._decided = self._decided, RunDecisions()
        for run_id in self._mirror:
            taken.writes.append(self._aside.blaming("run", run_id, _mirror(self._records[run_id])))
        self._mirror.clear()
        return taken

    # -- what the document says ----------------------------------------------------------------------------------

    def start(self, now: Millis) -> None:
        """Look at a loaded document: leases get their full time again, since the silence was ours."""
        for run_id in [each for each in self._active if self._aside.left("run", each)]:
            self._give_up(self._records[run_id], now)
        for run_id in self._active:
            if self._records[run_id].lease is not None:
                self._lives[run_id] = _Life(now)
        if self._active:
            for head in self._view.messages.heads():
                self._note_steering(head)
            self._promote(now)  # in older databases runs wait for a suspended one

    def look_at_run(self, run: Run, now: Millis, by: Asker = NOBODY_KNOWN) -> None:
        """Consider the proposals for a run, and restore what is settled.

        *by* is who proposed it, as far as that is known.
        """
        run_id = run.id
        known = self._records.get(run_id)
        if known is not None and run_id not in self._mirror and _overwritten(known, run):
            self._decided.restored.append("runs")
        record = known or self._admit(run, now, by)
        if record is None:
            return
        if run.cancel is not None:
            self._cancel(record, run.cancel, now)
        if run.reported is not None:
            self._hear_usage(self._records[run_id], run.reported, now)
        if run.result is not None:
            self._hear_result(self._records[run_id], run.result, now)
        if not _mirrored(self._records[run_id], run):
            self._mirror[run_id] = None

    def look_at_message(self, message_id: str, now: Millis) -> None:
        """Consider what a change of a message means for runs: a decision of people, a question that is complete."""
        writers = self._writers.get(message_id, ())
        if writers and (life := self._lives.get(writers[-1])) is not None and life.spoke is None:
            message = self._view.messages.value(message_id)
            life.spoke = now if message is not None and not message.empty else None
        for run_id in writers:
            if self._records[run_id].approvals:
                self._hear_decisions(self._records[run_id], now)
        if writers and (last := self._records[writers[-1]]).over:
            found = self._view.messages.find(message_id)
            if found is not None and found.ends_with(last.status):  # a call that came after the end
                self._decided.writes.append(_end_calls(message_id, last.status))
        if message_id in self._unfinished:
            message = self._view.messages.value(message_id)
            if message is not None and message.done and not message.empty:
                self.answer(message, now)

    def answer(self, head: MessageHead, now: Millis, by: Asker = NOBODY_KNOWN) -> None:
        """Ask for an answer to a message that has got its place in the order, if it asks nobody in particular."""
        self._note_steering(head)
        self._unfinished.discard(head.id)
        steered = self._records.get(head.steers) if head.steers is not None else None
        if (
            head.role != "user"
            or head.imported
            or head.id in self._askers
            or (steered is not None and not steered.over)
        ):
            return
        agent = steered.agent if steered is not None else self._answerer()
        if not agent:
            return
        message = self._view.messages.value(head.id)
        if message is not None and (not message.done or message.empty):
            self._unfinished.add(head.id)  # it is answered once it says something
            return
        known_as = by.principal or (message.by if message is not None else None)
        request = RunRequest(message_id=head.id, agent=agent, by=known_as or head.author.id, created_at=now)
        self._ask(_as_steered(request, steered), now, by)

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
            now: the time.

        Raises:
            RunNotClaimable: it is not queued, not its turn yet, or for another agent.
        """
        record, names = self._records.get(run_id), list(agents)
        if record is None or record.status != "queued" or not record.ready:
            raise RunNotClaimable(run=run_id, status=record.status if record is not None else "unknown")
        if record.agent != ANY_AGENT and record.agent not in names:
            raise RunNotClaimable(run=run_id, status=f"for the agent {record.agent}")
        if worker is not None and worker == record.left_by and (asked_at or now) <= (record.left_at or 0):
            # It asked before it went silent or gave the run back, and may not be there to hear the answer.
            raise RunNotClaimable(run=run_id, status="left by this worker, which has not asked since")
        with self._aside.about("run", run_id):
            return self._lend(record, names, owner, digest, ttl_ms, worker, now)

    def _lend(
        self,
        record: RunRecord,
        names: list[str],
        owner: str,
        digest: str,
        ttl_ms: int | None,
        worker: str | None,
        now: Millis,
    ) -> RunRecord:
        longest, usual = int(self._rules.longest_lease_s * 1000), int(self._rules.lease_s * 1000)
        lease = RunLease(
            owner=owner,
            agent=names[0] if record.agent == ANY_AGENT else record.agent,
            epoch=record.epoch + 1,
            attempt=record.attempt + 1,
            claimed_at=now,
            ttl=min(ttl_ms or usual, longest),
        )
        self._lives[record.id] = _Life(now)
        return self._put(
            record.replace(
                status="running",
                ready=False,
                lease=lease,
                secret=digest,
                worker=worker,
                answered_by=lease.agent,
                epoch=lease.epoch,
                attempt=lease.attempt,
            )
        )

    def renew(self, run_id: str, epoch: int, now: Millis) -> None:
        """Note a sign of life of a lease's holder."""
        if (life := self._lives.get(run_id)) is not None and self._records[run_id].epoch == epoch:
            life.heard, life.seen = now, True

    def attached(self, run_id: str, now: Millis) -> None:
        """Note that the holder has a connection."""
        if (life := self._lives.get(run_id)) is not None:
            life.connections += 1
            life.heard, life.gone, life.seen = now, None, True

    def detached(self, run_id: str, epoch: int, now: Millis) -> None:
        """Note that a connection of the holder has ended."""
        life, record = self._lives.get(run_id), self._records[run_id]
        if life is not None and record.epoch == epoch:
            life.connections -= 1
            if life.connections == 0:
                life.gone = now

    def tick(self, now: Millis) -> None:
        """Do what is due: end leases, give up cancelled agents, expire questions."""
        if self._looked is not None and now - self._looked > _ASLEEP_MS:
            for life in self._lives.values():  # we slept; their signs of life still wait to be read
                life.heard = min(now, Millis(life.heard + now - self._looked))
                life.gone = None if life.gone is None else min(now, Millis(life.gone + now - self._looked))
        self._looked = now
        for run_id in list(self._timed):
            with self._aside.about("run", run_id):
                self._tick(self._records[run_id], now)

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
            self._evict(record)
            self._end(record, "cancelled", "the agent did not stop by itself", now)
        elif record.lease is not None and now >= self._lease_ends(record.id, record.lease):
            self._lose(record, now)
        elif any(now >= (each.request.deadline or now + 1) for each in record.undecided):
            self._hear_decisions(record, now)

    def _come(self, record: RunRecord, request: RunRequest, now: Millis) -> None:
        """Do what a run has waited for: let it begin, or ask for others if it has a schedule."""
        if request.schedule is None:
            self._consider(self._put(record.replace(waits_until=None, queued_at=now)), request, now, _LONG_AGO)
            return
        question = self._view.messages.value(request.message_id)
        if question is None:
            self._end(record, "failed", "the message of the schedule is not there", now)
            return
        times, due = due_now(record, request.schedule, now)
        record = self._put(record.replace(waits_until=due))
        for time in times:
            self._ask_again(record, request, question, time, now)
        if due is None:
            self._end(record, "completed", "the schedule is over", now)

    def _ask_again(self, record: RunRecord, request: RunRequest, question: Message, time: int, now: Millis) -> None:
        """Ask for one time of a schedule, under ids that are made of that time."""
        message_id = asked_at(record.id, time)
        while message_id in self._view.messages or answer_to(message_id) in self._records:
            message_id = asked_at(message_id, time)  # somebody else has written something under it
        run_id = answer_to(message_id)
        head = MessageHead(id=message_id, role="user", author=question.author, reply_to=question.id, created_at=now)
        self._decided.asked.append(Asked(head, list(question.parts), question.by))
        again = RunRequest(
            message_id=message_id,
            agent=request.agent,
            policy=request.policy,
            by=request.by,
            created_at=now,
            input=request.input,
            scheduled_by=record.id,
        )
        self._admit(Run(id=run_id, request=again), now, _LONG_AGO)

    def _cannot_schedule(self, record: RunRecord) -> str | None:
        """Return why a schedule is not taken; None if it is."""
        others = (self._records[run_id].request for run_id in self._active if run_id != record.id)
        if sum(other is not None and other.schedule is not None for other in others) >= SCHEDULE_LIMITS.max_schedules:
            return f"the session has {SCHEDULE_LIMITS.max_schedules} schedules already; stop one of them first"
        return "the schedule is never due" if record.waits_until is None else None

    def _miss(self, record: RunRecord, deadline: int, now: Millis) -> RunRecord:
        """End a run that was not done in time; what was written stays."""
        self._evict(record)
        if record.cancel is not None:
            return self._end(record, "cancelled", record.cancel.reason or "cancelled", now)
        error = RunError(code="deadline", message="the run was not done by its deadline")
        return self._end(record, "failed", "deadline", now, error)

    def _lease_ends(self, run_id: str, lease: RunLease) -> int:
        life = self._lives[run_id]
        ends = life.heard + lease.ttl
        return ends if life.gone is None else min(ends, life.gone + int(self._rules.gone_grace_s * 1000))

    # -- admission ---------------------------------------------------------------------------------------------

    def _admit(self, run: Run, now: Millis, by: Asker) -> RunRecord | None:
        """Take a run on record; None if nobody has asked for it yet, or it cannot be called that."""
        if not is_id(run.id):
            return None
        if run.status is not None:
            return self._adopt(run, now)
        if run.request is None:
            return None
        request = self._settled_request(run.request, by)
        waits_until = _first_time(request, now)
        self._last_order += 1
        record = RunRecord(
            id=run.id,
            order=self._last_order,
            request=request,
            agent=request.agent,
            policy=request.policy or self._policy(),
            status="queued",
            output=self._output(run.id, request),
            queued_at=now,
            waits_until=waits_until,
        )
        self._askers.setdefault(request.message_id, []).append(record.id)
        self._writers.setdefault(record.output, []).append(record.id)
        self._active[record.id] = None
        self._put(record)
        if run.cancel is not None:
            return self._cancel(record, run.cancel, now)
        for key, why in request.flaws.items():
            return self._end(record, "failed", f"its {key} was refused", now, _refused(key, why))
        if request.schedule is not None and (no := self._cannot_schedule(record)) is not None:
            return self._end(record, "failed", no, now, RunError(code="bad-schedule", message=no))
        if request.deadline is not None and request.deadline <= now:
            return self._miss(record, request.deadline, now)
        return self._consider(record, request, now, by) if waits_until is None else record

    def _consider(self, record: RunRecord, request: RunRequest, now: Millis, by: Asker) -> RunRecord:
        """Let a run that is on record have its turn, or end it, as its policy says."""
        others = [self._records[run_id] for run_id in self._active if run_id != record.id]
        busy = [other for other in others if other.waits_until is None]
        if self._asks_nothing(request):
            return self._end(record, "cancelled", "there is nothing to answer: the message is empty", now)
        if busy and record.policy == "reject":
            return self._end(record, "cancelled", "rejected: another run is active", now)
        if busy and record.policy == "interrupt":
            for other in busy:
                reason = f"interrupted by {record.id}"
                self._cancel(other, RunCancel(by=request.by or "", reason=reason, at=now), now)
        if record.policy == "queue":
            self._supersede(record, request, now, by)
        return self._queue(record.id, now)

    def _settled_request(self, request: RunRequest, by: Asker) -> RunRequest:
        """Return a request as it goes on record: it says who asks, and has the input of the run that it repeats.

        That a schedule asks, only the server says.
        """
        if request.scheduled_by is not None and by is not _LONG_AGO:
            request = request.replace(scheduled_by=None)
        if by.principal is not None and request.by != by.principal:
            request = request.replace(by=by.principal)
        if request.trigger == "submit" or request.input is not None or "input" in request.flaws:
            return request
        asked = request.message_id
        repeated = self._writers.get(asked, []) if request.trigger == "continue" else self._askers.get(asked, [])
        earlier = self._records[repeated[-1]].request if repeated else None
        return request.replace(input=earlier.input) if earlier is not None and earlier.input is not None else request

    def _asks_nothing(self, request: RunRequest) -> bool:
        """Whether a run would be spent on a message of somebody that says nothing."""
        message = self._view.messages.value(request.message_id) if request.trigger != "continue" else None
        return message is not None and message.role == "user" and message.done and message.empty

    def _supersede(self, record: RunRecord, request: RunRequest, now: Millis, by: Asker) -> None:
        """End the runs that wait for the decision of somebody who says something else instead."""
        message = self._view.messages.find(request.message_id)
        head = message.head if message is not None else None
        if request.trigger == "continue" or head is None or head.role != "user" or head.author.kind == "agent":
            return
        asker = by.principal or request.by or head.author.id
        for other in [self._records[run_id] for run_id in self._active if run_id != record.id]:
            waits = other.undecided if other.status == "suspended" and by.decides else []
            asked_before = all(each.request.requested_at <= request.created_at for each in waits)
            if waits and asked_before and all(may_decide(each.request, asker) for each in waits):
                self._end(other, "cancelled", f"superseded by {record.id}", now, superseded_by=record.id)

    def _adopt(self, run: Run, now: Millis) -> RunRecord:
        """Take a run on record that was settled elsewhere, in the session this one was imported from.

        Nobody goes on with it here, so what its agent had not finished there is closed.
        """
        over = run.status is not None and run.status in TERMINAL_STATUSES and run.outcome is not None
        self._last_order += 1
        adopted = self._put(
            RunRecord(
                id=run.id,
                order=self._last_order,
                request=run.request,
                agent=run.agent or (run.request.agent if run.request is not None else ANY_AGENT),
                policy=self._rules.policy,
                status=run.status if over and run.status is not None else "interrupted",
                output=run.output or output_of(run.id),
                queued_at=now,
                epoch=run.epoch or 0,
                cancel=run.cancel,
                outcome=run.outcome if over else RunOutcome(reason="imported", ended_at=now),
                **_usage_on_record(run.usage),
            )
        )
        self._decided.writes.append(_close_parts(adopted.output, "interrupted"))
        self._decided.writes.append(_end_calls(adopted.output, adopted.status))
        return adopted

    def _output(self, run_id: str, request: RunRequest) -> str:
        """Return the message the run writes: one of its own, or the one it continues if no other run writes that."""
        message = self._view.messages.find(request.message_id) if request.trigger == "continue" else None
        head = message.head if message is not None else None
        if head is None or head.role != "assistant":
            return output_of(run_id)
        taken = any(self._records[other].output == head.id for other in self._active)
        return output_of(run_id) if taken else head.id

    def _policy(self) -> RunPolicy:
        policy = self._view.document.roots.meta.get("runPolicy")
        return next((known for known in get_args(RunPolicy) if known == policy), self._rules.policy)

    def _answerer(self) -> str:
        agent = self._view.document.roots.meta.get("agent")
        return agent if isinstance(agent, str) and (not agent or is_agent(agent)) else self._rules.default_agent

    def _make_ready(self, record: RunRecord, now: Millis) -> RunRecord:
        self._notify("run.queued", record, now)
        return self._put(record.replace(ready=True))

    def _queue(self, run_id: str, now: Millis) -> RunRecord:
        """Let a queued run be claimed, if it need not wait for another one."""
        record = self._records[run_id]
        return self._make_ready(record, now) if not record.ready and self._has_turn(record) else record

    def _has_turn(self, record: RunRecord) -> bool:
        """Whether nothing stands before a queued run: who waits for people holds nobody up.

        A run that waited for people may come after a younger one that has begun meanwhile.
        """
        if record.policy == "parallel":
            return True
        for other in (self._records[run_id] for run_id in self._active):
            if other.waits_until is not None:
                continue
            begun = (other.status == "running" or other.ready) and other.policy != "parallel"
            if other.id != record.id and other.status != "suspended" and (other.order < record.order or begun):
                return False
        return True

    def _promote(self, now: Millis) -> None:
        """Let the oldest run that waits for its turn have it, if nothing stands before it."""
        waiting = (record for run_id in self._active if (record := self._records[run_id]).status == "queued")
        first = next((record for record in waiting if not record.ready and record.waits_until is None), None)
        if first is not None:
            self._queue(first.id, now)

    # -- the end, and other ways to lose a lease -------------------------------------------------------------------

    def _cancel(self, record: RunRecord, cancel: RunCancel, now: Millis) -> RunRecord:
        """Stop a run; an agent that works on it gets a moment to stop by itself."""
        if record.over or record.cancel is not None:
            return record
        self._decided.deeds.append(Deed("run.cancel", cancel.by, {"run": record.id}))
        cancelled = self._put(record.replace(cancel=cancel))
        if record.lease is None:
            return self._end(cancelled, "cancelled", cancel.reason or "cancelled", now)
        return self._put(cancelled.replace(cancel_deadline=now + int(self._rules.cancel_grace_s * 1000)))

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
            self._requeue(_left(record, now), now, attempt=record.attempt - 1, parts="interrupted")

    def _hear_usage(self, record: RunRecord, report: UsageReport, now: Millis) -> None:
        """Take the word of the holder of the lease for what its attempt has cost so far."""
        if record.lease is None or report.epoch != record.epoch:
            return
        reported = Spent(**report.figures)
        if reported != record.reported:
            principal = record.request.by if record.request is not None else None
            self._decided.records.spendings.append(Spending(principal or "", now, record.reported, reported))
            self._put(self._timed_words(record).replace(reported=reported))

    def _timed_words(self, record: RunRecord) -> RunRecord:
        """Note how long the first words of a run took, if that is known by now."""
        life, lease = self._lives.get(record.id), record.lease
        if record.first_token_ms is not None or lease is None or life is None or life.spoke is None:
            return record
        return record.replace(first_token_ms=max(0, life.spoke - lease.claimed_at))

    def _added_up(self, record: RunRecord, now: Millis) -> RunRecord:
        """Count what the attempt that ends now has cost to the others."""
        if record.lease is None:
            return record
        spent = record.reported if record.spent is None else record.spent.plus(record.reported)
        lasted = record.duration_ms + max(0, now - record.lease.claimed_at)
        return self._timed_words(record).replace(spent=spent, reported=None, duration_ms=lasted)

    def _lose(self, record: RunRecord, now: Millis) -> None:
        """Take the lease away from an agent that is not heard of any more."""
        life = self._lives[record.id]
        self._evict(record)
        record = _left(record, now)
        if record.cancel is not None:
            self._end(record, "cancelled", record.cancel.reason or "cancelled", now)
        elif record.attempt >= self._rules.max_attempts and life.seen:
            self._end(record, "interrupted", "the agent was lost", now)
        else:  # a claimant that was never heard of took nothing but time
            self._requeue(record, now, attempt=record.attempt - (not life.seen), parts="interrupted")

    def _evict(self, record: RunRecord) -> None:
        if record.lease is not None:
            self._decided.evicted.add((record.id, record.epoch))

    def _release(self, record: RunRecord, parts: StreamState, now: Millis) -> RunRecord:
        """End the lease, if there is one, and close what its holder left open."""
        if record.lease is None:
            return record
        record = self._added_up(record, now)
        self._lives.pop(record.id, None)
        self._decided.released.add((record.id, record.epoch))
        self._decided.writes.append(_close_parts(record.output, parts))
        return record.replace(lease=None, secret=None, worker=None)

    def _requeue(
        self, record: RunRecord, now: Millis, *, attempt: int, agent: str | None = None, parts: StreamState = "done"
    ) -> None:
        released = self._release(record, parts, now)
        queued = self._put(
            released.replace(status="queued", attempt=attempt, agent=agent or record.agent, queued_at=now)
        )
        if record.status == "running":
            self._make_ready(queued, now)  # it had its turn, and keeps it
        else:
            self._queue(record.id, now)

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
        ended = self._put(
            self._release(record, parts, now).replace(
                status=status,
                ready=False,
                cancel_deadline=None,
                waits_until=None,
                outcome=RunOutcome(reason=reason, error=error, superseded_by=superseded_by, ended_at=now),
            )
        )
        del self._active[record.id]
        for call_id, each in record.approvals.items():
            if each.approval is None:
                approval = Approval(approved=False, by="", reason=reason, at=now)
                ended = self._settle_approval(ended, call_id, each.replace(approval=approval))
        self._decided.writes.append(_end_calls(ended.output, status))
        self._notify(f"run.{status}", ended, now)
        self._promote(now)
        self._follow_up(ended, now)
        return ended

    def _give_up(self, record: RunRecord, now: Millis) -> None:
        """End a run about which nothing can be decided, in its record alone, so that the next one gets its turn."""
        outcome = RunOutcome(reason="the service cannot decide about this run", ended_at=now)
        if record.lease is not None:
            self._decided.released.add((record.id, record.epoch))
        nothing = dict.fromkeys(("lease", "secret", "worker", "cancel_deadline", "waits_until")) | {"ready": False}
        self._put(record.replace(status="interrupted", outcome=outcome, **nothing))
        del self._active[record.id]
        self._promote(now)

    def _follow_up(self, record: RunRecord, now: Millis) -> None:
        """Ask for an answer to what was meant to steer the run and came too late for it."""
        run = self._view.runs.value(record.id)
        taken = (
            {message_id for message_id, consumed in run.steers.items() if consumed is True} if run is not None else ()
        )
        left = [message_id for message_id in self._steering.pop(record.id, []) if message_id not in taken]
        if left and record.status == "completed":
            request = RunRequest(message_id=left[-1], agent=record.agent, created_at=now)
            self._ask(_as_steered(request, record), now, Asker(decides=False))

    def _ask(self, request: RunRequest, now: Millis, by: Asker) -> None:
        run_id = answer_to(request.message_id)
        if run_id not in self._records:
            known = self._view.runs.value(run_id) or Run(id=run_id)  # somebody may have pressed stop already
            self._admit(known.replace(request=known.request or request), now, by)

    # -- people ------------------------------------------------------------------------------------------------

    def _suspend(self, record: RunRecord, now: Millis) -> None:
        """Wait for people: the lease ends, and no process is needed until they have decided."""
        message = self._view.messages.find(record.output)
        approvals = dict(record.approvals)
        for tool in message.tools() if message is not None else []:
            request = tool.approval_request
            if request is None and tool.waits:  # nobody can answer it, and the agent would ask again and again
                why = f"what the tool call {tool.call_id!r} asks people cannot be read"
                self._end(record, "failed", why, now, RunError(code="bad-question", message=why))
                return
            if request is not None and tool.call_id not in approvals:
                approvals[tool.call_id] = ApprovalRecord(request=request, tool_name=tool.name)
        suspended = self._put(self._release(record, "done", now).replace(status="suspended", approvals=approvals))
        self._notify("run.approval_requested", suspended, now)
        self._hear_decisions(suspended, now)
        self._promote(now)

    def refuse(self, run_id: str, call_id: str, refused: RefusedDecision) -> None:
        """Note that somebody decided about a question who has no say, and have it said where the question stands."""
        record = self._records[run_id]
        known = record.approvals.get(call_id)
        if known is not None and (settled := refusing(known, refused)) != known:
            written = run_id in self._mirror
            self._settle_approval(record, call_id, settled)
            if not written:
                del self._mirror[run_id]  # the run is as it was: what else somebody wrote there is still noticed

    def _hear_decisions(self, record: RunRecord, now: Millis) -> None:
        """Let the first decision by an approver count; mark the others as late or not allowed."""
        message = self._view.messages.find(record.output)
        for call_id, known in record.approvals.items():
            tool = message.tool(call_id) if message is not None else None
            heard = heard_of(known, tool.decisions() if tool is not None else {}, now)
            if heard != known:
                record = self._settle_approval(record, call_id, heard)
            elif tool is not None and not tool.shows(known.refused):
                self._decided.writes.append(_settle_tool(record, call_id, known))
            elif tool is not None and known.approval is not None and (tool.approval != known.approval or tool.waits):
                if tool.approval is not None and tool.approval != known.approval:
                    self._decided.restored.append("approval")
                self._decided.writes.append(_settle_tool(record, call_id, known))
        if record.status == "suspended" and not record.undecided:
            self._requeue(record, now, attempt=0)

    def _settle_approval(self, record: RunRecord, call_id: str, settled: ApprovalRecord) -> RunRecord:
        self._decided.writes.append(_settle_tool(record, call_id, settled))
        approval, before = settled.approval, record.approvals[call_id].approval
        if approval is not None and before is None and approval.by:
            detail = {"run": record.id, "call": call_id, "approved": approval.approved}
            self._decided.deeds.append(Deed("run.decide", approval.by, detail))
        return self._put(record.replace(approvals={**record.approvals, call_id: settled}))

    # -- the record --------------------------------------------------------------------------------------------

    def _put(self, record: RunRecord) -> RunRecord:
        self._records[record.id] = record
        if record.due_at is None:
            self._timed.pop(record.id, None)
        else:
            self._timed[record.id] = None
        self._decided.records.runs[record.id] = record
        self._mirror[record.id] = None
        return record

    def _notify(self, kind: str, record: RunRecord, now: Millis) -> None:
        request = record.request
        data: dict[str, Any] = {
            "run": record.id,
            "agent": record.agent,
            "status": kind.removeprefix("run."),
            "messageId": request.message_id if request is not None else None,
            "output": record.output,
            "reason": record.outcome.reason if record.outcome is not None else None,
        }
        if kind == "run.queued" and request is not None and request.input is not None:
            data["input"] = request.input.to_json()
        self._decided.records.notices.append(Notice(kind, data, now))

    def _note_steering(self, head: MessageHead) -> None:
        if head.steers in self._active and head.steers is not None:
            noted = self._steering.setdefault(head.steers, [])
            if head.id not in noted:
                noted.append(head.id)


def _left(record: RunRecord, now: Millis) -> RunRecord:
    """Note which process did not end the run."""
    return record.replace(left_by=record.worker, left_at=now)


def _as_steered(request: RunRequest, steered: RunRecord | None) -> RunRequest:
    """Give a question that was meant to steer a run the input of that run."""
    meant = steered.request if steered is not None else None
    return request.replace(input=meant.input) if meant is not None and meant.input is not None else request


def _refused(key: str, why: str) -> RunError:
    return RunError(
        code=f"bad-{key}", message=f"{why}; ask again with one that is as docs/protocol.md says, under Runs"
    )


def _first_time(request: RunRequest, now: Millis) -> int | None:
    """Return until when a run waits before it begins, or before its schedule is due; None if it waits for no time."""
    if request.schedule is not None:
        return first_due(request, request.schedule, now)
    return request.not_before if (request.not_before or 0) > now else None


def _usage_on_record(usage: Usage | None) -> dict[str, Any]:
    """Return the fields of a record of a run that has cost so much."""
    if usage is None:
        return {}
    spent = Spent(**usage.figures)
    return {"spent": spent, "first_token_ms": usage.first_token_ms, "duration_ms": usage.duration_ms or 0}


def _mirror(record: RunRecord) -> Write:
    return lambda view: view.runs.settle(record.run)


def _mirrored(record: RunRecord, run: Run) -> bool:
    """Whether the document agrees with the record."""
    request = record.request
    return record.run.settled == run.settled and (request is None or same_request(run, request))


def _overwritten(record: RunRecord, run: Run) -> bool:
    """Whether somebody has written something else over what is settled."""
    asked = record.request
    other = run.request is not None and asked is not None and not same_request(run, asked)
    return other or record.run.settled != run.settled


def _close_parts(message_id: str, state: StreamState) -> Write:
    def write(view: SessionView) -> None:
        message = view.messages.find(message_id)
        if message is not None:
            message.close_parts(state)

    return write


def _end_calls(message_id: str, status: RunStatus) -> Write:
    def write(view: SessionView) -> None:
        message = view.messages.find(message_id)
        if message is not None:
            message.end_calls(status)

    return write


def _settle_tool(run: RunRecord, call_id: str, record: ApprovalRecord) -> Write:
    def write(view: SessionView) -> None:
        message = view.messages.find(run.output)
        tool = message.tool(call_id) if message is not None else None
        if tool is not None:
            tool.settle(record.approval, record.late, record.refused)
            if run.over:
                tool.end(run.status)

    return write
