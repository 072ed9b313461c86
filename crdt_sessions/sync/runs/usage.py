"""What the attempts of a run have cost, on its record. Plain values."""

from __future__ import annotations

from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.model import Spent, Usage, UsageReport
from crdt_sessions.sync.records import RunRecord, Spending
from crdt_sessions.sync.runs.children import count_above
from crdt_sessions.sync.runs.table import RunTable


def hear_usage(table: RunTable, record: RunRecord, report: UsageReport, spoke: Millis | None, now: Millis) -> None:
    """Take the word of the holder of the lease for what its attempt has cost so far."""
    if record.lease is None or report.epoch != record.epoch:
        return
    reported = Spent(**report.figures)
    if reported != record.reported:
        principal = record.request.by if record.request is not None else None
        table.decided.records.spendings.append(Spending(principal or "", now, record.reported, reported))
        count_above(table, table.put(_timed_words(record, spoke).replace(reported=reported)))


def added_up(record: RunRecord, spoke: Millis | None, now: Millis) -> RunRecord:
    """Count what the attempt that ends now has cost to the others; *spoke* is when its first words were here."""
    if record.lease is None:
        return record
    spent = record.reported if record.spent is None else record.spent.plus(record.reported)
    lasted = record.duration_ms + max(0, now - record.lease.claimed_at)
    return _timed_words(record, spoke).replace(spent=spent, reported=None, duration_ms=lasted)


def usage_on_record(usage: Usage | None) -> dict[str, Any]:
    """Return the fields of a record of a run that has cost so much."""
    if usage is None:
        return {}
    spent = Spent(**usage.figures)
    children = usage.children
    return {
        "spent": spent,
        "children_spent": children,
        "first_token_ms": usage.first_token_ms,
        "duration_ms": usage.duration_ms or 0,
    }


def _timed_words(record: RunRecord, spoke: Millis | None) -> RunRecord:
    """Note how long the first words of a run took, if that is known by now."""
    if record.first_token_ms is not None or record.lease is None or spoke is None:
        return record
    return record.replace(first_token_ms=max(0, spoke - record.lease.claimed_at))
