"""When a schedule is due: an interval, or a cron expression in a time zone. Arithmetic, no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import Field, ValidationError, model_validator

from crdt_sessions.errors import BadValue
from crdt_sessions.limits import ScheduleLimits
from crdt_sessions.model.base import Value
from crdt_sessions.model.checks import MAX_INTEGER, why_not
from crdt_sessions.model.strings import WORD_CHARACTERS, Time

SCHEDULE_LIMITS = ScheduleLimits()

Missed = Literal["skip", "once", "all"]

_FIELDS = 5

_Text = Annotated[str, Field(min_length=1, max_length=WORD_CHARACTERS)]


class Schedule(Value):
    """``request.schedule``: the question is asked again and again. Of ``every`` and ``cron`` there is exactly one.

    Raises:
        ValidationError: it is due at no time, or too often, or the time zone is not known.
    """

    every: Annotated[int, Field(ge=SCHEDULE_LIMITS.min_every_ms, le=MAX_INTEGER)] | None = None
    """Milliseconds from one time to the next."""
    cron: _Text | None = None
    """Five fields: minute, hour, day of the month, month, day of the week."""
    timezone: _Text = "UTC"
    """Of the cron expression, such as ``Europe/Berlin``."""
    missed: Missed = "once"
    """What becomes of times that passed while the service was away: nothing, one run for all, or one for each."""
    until: Time | None = None
    """After which it is not due any more."""

    @classmethod
    def of(cls, value: Any) -> Schedule:
        """Return *value*, JSON from outside, as a schedule.

        Raises:
            BadValue: it is none.
        """
        if isinstance(value, Schedule):
            value = value.to_json()
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            where, _, why = why_not(error, "schedule")[0].partition(": ")
            raise BadValue(where=where, why=why.removeprefix("Value error, ")) from None

    @model_validator(mode="after")
    def _is_due_sometimes(self) -> Self:
        if (self.every is None) == (self.cron is None):
            raise ValueError("exactly one of every and cron says when it is due")
        if self.cron is not None:
            if len(self.cron.split()) != _FIELDS:
                raise ValueError(f"{self.cron!r} is no cron expression of five fields")
            try:
                first = next(self._cron(datetime(2000, 1, 1, tzinfo=self._zone)), None)
            except CronSimError as error:
                raise ValueError(f"{self.cron!r} is no cron expression: {error}") from None
            if first is None:
                raise ValueError(f"{self.cron!r} is never due")
        return self

    def after(self, time: int, anchor: int) -> int | None:
        """Return when it is due next after *time*, in milliseconds; None if it is not any more.

        Args:
            time: in milliseconds.
            anchor: from which intervals are counted.
        """
        due: int
        if self.every is not None:
            due = anchor + ((time - anchor) // self.every + 1) * self.every
        else:
            found = next(self._cron(self._date(time)), None)
            if found is None:
                return None
            due = int(found.timestamp() * 1000)
        return due if due <= (MAX_INTEGER if self.until is None else self.until) else None

    def between(self, first: int, last: int, anchor: int) -> list[int]:
        """Return when it was due from *first* to *last*, both included: at most the newest that count, in order.

        Intervals are counted from *anchor*.
        """
        last = last if self.until is None else min(last, self.until)
        found: list[int] = []
        due = self._before(last + 1, anchor)
        while due is not None and due >= first and len(found) < SCHEDULE_LIMITS.max_missed:
            found.append(due)
            due = self._before(due, anchor)
        return found[::-1]

    def _before(self, time: int, anchor: int) -> int | None:
        """Return when it was due last before *time*."""
        if self.every is not None:
            return anchor + ((time - anchor - 1) // self.every) * self.every
        found = next(self._cron(self._date(time), reverse=True), None)
        if found is None:
            return None
        due = int(found.timestamp() * 1000)
        return due if due < time else None

    def _date(self, time: int) -> datetime:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time)).astimezone(self._zone)

    def _cron(self, start: datetime, *, reverse: bool = False) -> CronSim:
        return CronSim(self.cron or "", start, reverse)

    @property
    def _zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{self.timezone!r} is no time zone that is known here") from None
