"""Which times of a schedule are made up for when it is looked at, and when it is due next. Plain arithmetic.

A schedule is the request of a run that never begins. At each of its times the steward copies its question and asks
for an answer. That its next time stands on record, and the question and its run in the document, is one commit: so
whatever dies in between, a time is recorded once.
"""

from __future__ import annotations

from dataclasses import dataclass

from crdt_sessions.ids import Millis
from crdt_sessions.model import MessageHead, RunRequest, Schedule
from crdt_sessions.model.schedules import SCHEDULE_LIMITS
from crdt_sessions.model.strings import derived
from crdt_sessions.model.values import Value
from crdt_sessions.sync.records import RunRecord


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that a schedule asks: a message that is to be written, and to have its place."""

    head: MessageHead
    parts: list[Value]
    by: str | None
    """The principal whose question it is, where that is known."""


def first_due(request: RunRequest, schedule: Schedule, now: Millis) -> int | None:
    """Return when a schedule that is asked for *now* is due for the first time; None if it never is."""
    begins = request.not_before if request.not_before is not None else now
    return schedule.after(max(now, begins - 1) if request.not_before is not None else now, begins)


def due_now(record: RunRecord, schedule: Schedule, now: Millis) -> tuple[list[int], int | None]:
    """Return for which times a schedule that is due asks *now*, and when it is due next, None if not any more."""
    anchor = _anchor(record)
    passed = schedule.between(record.waits_until or now, now, anchor)
    if schedule.missed != "all":
        passed = passed[-1:]
    if schedule.missed == "skip" and passed and now - passed[0] > SCHEDULE_LIMITS.late_ms:
        passed = []
    return passed, schedule.after(now, anchor)


def asked_at(schedule_id: str, time: int) -> str:
    """Return the id of the message that a schedule asks at one of its times."""
    return derived("", schedule_id, f"@{time}")


def _anchor(record: RunRecord) -> int:
    begins = record.request.not_before if record.request is not None else None
    return begins if begins is not None else record.queued_at
