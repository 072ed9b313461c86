"""When schedules are due: intervals, and cron expressions where clocks are changed."""

import itertools
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import BadValue
from crdt_sessions.model import Schedule
from crdt_sessions.model.schedules import SCHEDULE_LIMITS

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3_600_000


def at(*date, zone=UTC, fold=0):
    return int(datetime(*date, tzinfo=zone, fold=fold).timestamp() * 1000)


def spelled(times):
    return [datetime.fromtimestamp(time / 1000, BERLIN).strftime("%m-%d %H:%M%z") for time in times]


def following(schedule, start, count):
    found = []
    while len(found) < count and (start := schedule.after(start, 0)) is not None:
        found.append(start)
    return found


def test_an_interval_counts_from_where_it_begins():
    schedule = Schedule(every=HOUR)
    assert schedule.after(at(2026, 1, 1, 12, 30), at(2026, 1, 1, 0, 10)) == at(2026, 1, 1, 13, 10)
    assert schedule.after(at(2026, 1, 1, 13, 10), at(2026, 1, 1, 0, 10)) == at(2026, 1, 1, 14, 10)


def test_daily_is_daily_where_clocks_are_put_forward_and_back():
    daily = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    spring = following(daily, at(2026, 3, 28, 0, zone=BERLIN), 3)
    assert spelled(spring) == ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]
    autumn = following(daily, at(2026, 10, 24, 0, zone=BERLIN), 3)
    assert spelled(autumn) == ["10-24 02:30+0200", "10-25 02:30+0200", "10-26 02:30+0100"]


def test_hourly_is_hourly_also_in_the_hour_that_comes_twice():
    hourly = Schedule(cron="0 * * * *", timezone="Europe/Berlin")
    times = following(hourly, at(2026, 10, 25, 0, zone=BERLIN), 5)
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [HOUR] * 4


@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 3 * * sun", "15,45 1-3 * * *", "0 0 29 2 *"]),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.integers(at(2026, 1, 1), at(2028, 1, 1)),
    st.integers(0, 5 * 24 * HOUR),
)
def test_looking_back_finds_what_looking_ahead_would_have(cron, timezone, start, span):
    schedule = Schedule(cron=cron, timezone=timezone)
    ahead, time = [], start - 1
    while (time := schedule.after(time, 0)) is not None and time <= start + span:
        ahead.append(time)
    assert schedule.between(start, start + span, 0) == ahead[-SCHEDULE_LIMITS.max_missed :]


@given(st.integers(1000, HOUR), st.integers(-HOUR, HOUR), st.integers(0, 10 * HOUR), st.integers(0, HOUR))
def test_intervals_too(every, anchor, start, span):
    schedule = Schedule(every=every)
    ahead = [time for time in range(anchor - 20 * HOUR // every * every, start + span + 1, every) if time >= start]
    expected = (
        [time for time in range(start, start + span + 1) if (time - anchor) % every == 0] if span < 5000 else None
    )
    found = schedule.between(start, start + span, anchor)
    assert found == sorted(found)
    assert all((time - anchor) % every == 0 and start <= time <= start + span for time in found)
    if expected is not None:
        assert found == expected[-100:]
    assert len(found) == min(100, (start + span - anchor) // every - (start - 1 - anchor) // every)
    del ahead


def test_it_ends():
    schedule = Schedule(every=HOUR, until=at(2026, 1, 1, 2))
    assert following(schedule, at(2026, 1, 1), 9) == [at(2026, 1, 1, 1), at(2026, 1, 1, 2)]
    assert schedule.between(0, at(2027, 1, 1), 0)[-1] == at(2026, 1, 1, 2)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({}, "exactly one"),
        ({"every": 5000, "cron": "* * * * *"}, "exactly one"),
        ({"every": 10}, "greater than or equal to 1000"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "* * * * * *"}, "five fields"),
        ({"cron": "61 * * * *"}, "no cron expression: Bad minute"),
        ({"cron": "* * * * *", "timezone": "Mars/Olympus"}, "no time zone"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "no time zone"),
        ({"every": 5000, "missed": "most"}, "'skip', 'once' or 'all'"),
        ("daily", "should be a valid dictionary"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(value, why):
    with pytest.raises(BadValue, match=why):
        Schedule.of(value)
