"""Child runs: whether one may be asked for, what ends with its parent, and what the children of a run have cost."""

from __future__ import annotations

from collections.abc import Iterator

from crdt_sessions.ids import Millis
from crdt_sessions.model import CHILD_LIMITS, RunCancel, RunError, RunRequest, Spent, child_of
from crdt_sessions.sync.actor import Asker
from crdt_sessions.sync.records import RunRecord
from crdt_sessions.sync.runs.table import RunTable

_BAD, _DEEP, _MANY = "bad-parent", "too-deep", "too-many-children"


def cannot_delegate(table: RunTable, run_id: str, request: RunRequest, by: Asker) -> RunError | None:
    """Return why *by* cannot ask for the child that *request* says; None if that may be, or it is no child."""
    if request.parent is None:
        return None
    parent = table.record(request.parent)
    if parent is None or parent.lease is None or by.lease != (parent.id, parent.epoch):
        return RunError(code=_BAD, message="only the holder of its parent's lease may ask for a child run")
    if request.key is None or run_id != child_of(parent.id, request.key):
        return RunError(code=_BAD, message="the id of a child run is that of its parent, a colon, and its key")
    if request.trigger != "submit" or request.schedule is not None:
        return RunError(code=_BAD, message="a child run repeats nothing and has no schedule")
    return _why_too_many(table, run_id, parent)


def _why_too_many(table: RunTable, run_id: str, parent: RunRecord) -> RunError | None:
    limits = CHILD_LIMITS
    siblings = [child for child in table.children_of(parent.id) if child.id != run_id and not _refused(child)]
    if sum(1 for _ in _line(table, parent)) > limits.max_depth:
        return RunError(code=_DEEP, message=f"below a run there are {limits.max_depth} generations at most")
    if len(siblings) >= limits.max_children:
        return RunError(code=_MANY, message=f"its parent has asked for {limits.max_children} children already")
    if sum(not child.over for child in siblings) >= limits.max_active:
        why = f"{limits.max_active} children of its parent are going on already; wait for some of them first"
        return RunError(code=_MANY, message=why)
    return None


def stop_from_above(table: RunTable, request: RunRequest, now: Millis) -> RunCancel | None:
    """Return the stop of a run whose parent is being stopped; None if that is not so."""
    parent = table.record(request.parent)
    return stop_with(parent.cancel, now) if parent is not None and parent.cancel is not None else None


def stop_with(cancel: RunCancel, now: Millis) -> RunCancel:
    """Return the stop of a child whose parent is stopped by *cancel*."""
    return RunCancel(by=cancel.by, reason="the run that asked for it was stopped", at=now)


def orphans(table: RunTable, record: RunRecord) -> list[RunRecord]:
    """Return the children of a run that has ended which are not to go on without it."""
    children = table.children_of(record.id)
    return [child for child in children if child.request is not None and child.request.orphans != "go-on"]


def count_above(table: RunTable, record: RunRecord) -> None:
    """Count what a run has cost to what the children of its parent have, and so on upwards."""
    above = _line(table, record)
    next(above)
    for parent in above:
        table.put(parent.replace(children_spent=_spent_by(table.children_of(parent.id))))


def _spent_by(children: list[RunRecord]) -> Spent | None:
    total: Spent | None = None
    for child in children:
        for figures in (child.own, child.children_spent):
            total = total.plus(figures) if total is not None else figures
    return total


def _line(table: RunTable, record: RunRecord | None) -> Iterator[RunRecord]:
    """Yield a run, its parent, the parent of that, and so on."""
    while record is not None:
        yield record
        record = table.record(record.parent)


def _refused(record: RunRecord) -> bool:
    """Whether somebody asked for a child run that could be none."""
    error = record.outcome.error if record.outcome is not None else None
    return record.epoch == 0 and error is not None and error.code in (_BAD, _DEEP, _MANY)
