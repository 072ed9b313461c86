"""Which times of a schedule are made up for when it is looked at, when it is due next, and what it asks then.

A schedule is the request of a run that never begins. At each of its times the steward copies its question and asks
for an answer. That its next time stands on record, and the question and its run in the document, is one commit: so
whatever dies in between, a time is recorded once.
"""

from __future__ import annotations

from collections.abc import Container

from crdt_sessions.ids import Millis
from crdt_sessions.model import Message, MessageHead, RunError, RunRequest, Schedule, answer_to
from crdt_sessions.model.schedules import SCHEDULE_LIMITS
from crdt_sessions.model.strings import derived
from crdt_sessions.sync.records import Asked, RunRecord
from crdt_sessions.sync.runs.table import RunTable


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


def question_at(
    schedule: RunRecord, request: RunRequest, question: Message, message_id: str, now: Millis
) -> tuple[Asked, RunRequest]:
    """Return the question that a schedule asks once more, under *message_id*, and the request for its answer."""
    head = MessageHead(id=message_id, role="user", author=question.author, reply_to=question.id, created_at=now)
    again = RunRequest(
        message_id=message_id,
        agent=request.agent,
        policy=request.policy,
        by=request.by,
        created_at=now,
        input=request.input,
        scheduled_by=schedule.id,
    )
    return Asked(head, list(question.parts), question.by), again


def free_id_at(schedule_id: str, time: int, messages: Container[str], table: RunTable) -> str:
    """Return the id of the message that a schedule asks at one of its times: one that nobody has written under."""
    message_id = _id_at(schedule_id, time)
    while message_id in messages or answer_to(message_id) in table:
        message_id = _id_at(message_id, time)
    return message_id


def cannot_schedule(table: RunTable, record: RunRecord, request: RunRequest) -> RunError | None:
    """Return why the schedule of a request is not taken; None if it is, or there is none."""
    if request.schedule is None:
        return None
    others = (other.request for other in table.active(but=record.id))
    if sum(other is not None and other.schedule is not None for other in others) >= SCHEDULE_LIMITS.max_schedules:
        why = f"the session has {SCHEDULE_LIMITS.max_schedules} schedules already; stop one of them first"
        return RunError(code="bad-schedule", message=why)
    if record.waits_until is None:
        return RunError(code="bad-schedule", message="the schedule is never due")
    return None


def _id_at(schedule_id: str, time: int) -> str:
    return derived("", schedule_id, f"@{time}")


def _anchor(record: RunRecord) -> int:
    begins = record.request.not_before if record.request is not None else None
    return begins if begins is not None else record.queued_at
