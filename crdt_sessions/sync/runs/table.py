"""The runs of one session on record, in their order, and what was decided about them since somebody asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.sync.aside import Aside
from crdt_sessions.sync.records import (
    ApprovalRecord,
    Asked,
    CallRecord,
    Deed,
    Notice,
    Records,
    RunRecord,
    Unreadable,
    lease_digest,
)
from crdt_sessions.sync.runs.mirror import Write, mirror

CALL_WAITING = "run.call_waiting"
"""A tool call waits for a device of a client, and none has taken it."""


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


class RunTable:
    """The runs of one session.

    Args:
        records: the runs on record.
        aside: what is not to be decided about.
    """

    def __init__(self, records: Iterable[RunRecord], aside: Aside) -> None:
        self._aside = aside
        self._records = {record.id: record for record in sorted(records, key=lambda record: record.order)}
        self._active = {record.id: None for record in self._records.values() if not record.over}  # in their order
        self._timed = {run_id: None for run_id in self._active if self._records[run_id].due_at is not None}
        self._last_order = max((record.order for record in self._records.values()), default=0)
        self._writers: dict[str, list[str]] = {}  # output to the runs that write it, or did: the last one may yet
        self._askers: dict[str, list[str]] = {}  # what is to be answered to the runs that were asked to
        self._children: dict[str, list[str]] = {}
        for record in self._records.values():
            self._index(record)
        self._mirror: dict[str, None] = {}
        self.decided = RunDecisions()
        """What was decided since the last :meth:`take`."""

    # -- reading -----------------------------------------------------------------------------------------------

    def __getitem__(self, run_id: str) -> RunRecord:
        return self._records[run_id]

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._records

    def record(self, run_id: str | None) -> RunRecord | None:
        """Return the record of a run."""
        return self._records.get(run_id) if run_id is not None else None

    def active(self, but: str | None = None) -> list[RunRecord]:
        """Return the runs that are not over, in their order, all *but* one."""
        return [self._records[run_id] for run_id in self._active if run_id != but]

    def contenders(self, but: str) -> list[RunRecord]:
        """Return the active runs that have a place in the order, all *but* one.

        Those that wait for their time have none yet, and child runs never have.
        """
        return [each for each in self.active(but) if each.waits_until is None and each.parent is None]

    def is_active(self, run_id: str | None) -> bool:
        """Whether there is such a run, and it is not over."""
        return run_id in self._active

    def timed(self) -> list[str]:
        """Return the runs that something is due for at some time: a lease runs, or there is a deadline."""
        return list(self._timed)

    def due_before(self, time: Millis) -> bool:
        """Whether somebody must go on looking at the clock: a lease runs, or a deadline comes before *time*."""
        timed = (self._records[run_id] for run_id in self._timed)
        return any(record.lease is not None or (record.due_at or 0) <= time for record in timed)

    def writers_of(self, message_id: str) -> list[str]:
        """Return the runs that write a message, or did, in their order."""
        return self._writers.get(message_id, [])

    def writer_of(self, message_id: str) -> str | None:
        """Return the run that writes a message, if it is not over."""
        run_id = self._writers.get(message_id, [""])[-1]
        return run_id if run_id in self._active else None

    def askers_of(self, message_id: str) -> list[str]:
        """Return the runs that were asked to answer a message, in their order."""
        return self._askers.get(message_id, [])

    def children_of(self, run_id: str) -> list[RunRecord]:
        """Return the runs that name a run as their parent, those asked for first first."""
        return [self._records[child] for child in self._children.get(run_id, ())]

    def approvals_of(self, message_id: str) -> dict[str, ApprovalRecord]:
        """Return the questions that runs have asked in a message, by tool call."""
        found: dict[str, ApprovalRecord] = {}
        for run_id in self.writers_of(message_id):
            found.update(self._records[run_id].approvals)
        return found

    def calls_of(self, message_id: str) -> dict[str, CallRecord]:
        """Return the calls of a message that clients execute, or did."""
        found: dict[str, CallRecord] = {}
        for run_id in self.writers_of(message_id):
            found.update(self._records[run_id].calls)
        return found

    def holder(self, token: str) -> RunRecord | None:
        """Return the run whose present lease has this token."""
        digest = lease_digest(token)
        return next((record for record in self.at_work() if record.secret == digest), None)

    def holds(self, run_id: str, epoch: int) -> bool:
        """Whether that is the run's present lease."""
        record = self._records.get(run_id)
        return record is not None and record.lease is not None and record.epoch == epoch

    def at_work(self) -> list[RunRecord]:
        """Return the runs that somebody has a lease of."""
        return [record for record in self.active() if record.lease is not None]

    def is_ready(self, run_id: str) -> bool:
        """Whether a run may be claimed."""
        record = self._records.get(run_id)
        return record is not None and record.ready

    # -- writing -----------------------------------------------------------------------------------------------

    def next_order(self) -> int:
        """Return the next place in the order of runs."""
        self._last_order += 1
        return self._last_order

    def add(self, record: RunRecord) -> RunRecord:
        """Take a run on record that is not over."""
        self._index(record)
        self._active[record.id] = None
        return self.put(record)

    def put(self, record: RunRecord, *, shows: bool = True) -> RunRecord:
        """Put a new state on record; *shows*: whether the run looks another way in the document."""
        self._records[record.id] = record
        if record.over:
            self._active.pop(record.id, None)
        if record.due_at is None:
            self._timed.pop(record.id, None)
        else:
            self._timed[record.id] = None
        self.decided.records.runs[record.id] = record
        if shows:
            self.show(record.id)
        return record

    def show(self, run_id: str) -> None:
        """Have the document agree with the record of a run."""
        self._mirror[run_id] = None

    def will_show(self, run_id: str) -> bool:
        """Whether the document is about to be made agree."""
        return run_id in self._mirror

    def notify(self, kind: str, record: RunRecord, now: Millis) -> None:
        """Tell people who are absent what became of a run."""
        request = record.request
        data: dict[str, Any] = {
            "run": record.id,
            "agent": record.agent,
            "status": kind.removeprefix("run."),
            "messageId": request.message_id if request is not None else None,
            "output": record.output,
            "reason": record.outcome.reason if record.outcome is not None else None,
        }
        if record.parent is not None:
            data["parent"] = record.parent
        if kind == "run.queued" and request is not None and request.input is not None:
            data["input"] = request.input.to_json()
        if kind == CALL_WAITING:
            data["calls"] = [call.to_json() for call in record.told_calls or () if call.taken is None]
        self.decided.records.notices.append(Notice(kind, data, now))

    @property
    def has_decided(self) -> bool:
        """Whether :meth:`take` has something to tell."""
        taken = self.decided
        return bool(self._mirror or taken.asked or taken.writes or taken.records or taken.released or taken.evicted)

    def take(self) -> RunDecisions:
        """Return what was decided since the last call."""
        taken, self.decided = self.decided, RunDecisions()
        for run_id in self._mirror:
            taken.writes.append(self._aside.blaming("run", run_id, mirror(self._records[run_id])))
        self._mirror.clear()
        return taken

    def _index(self, record: RunRecord) -> None:
        self._writers.setdefault(record.output, []).append(record.id)
        if record.parent is not None:
            self._children.setdefault(record.parent, []).append(record.id)
        elif record.request is not None:
            self._askers.setdefault(record.request.message_id, []).append(record.id)
