"""The clock does not jump, whatever is done to the machine's."""

import time

from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.clock import SystemClock

SECOND = 1_000_000_000


class Machine:
    def __init__(self):
        self.wall, self.steady = 1_700_000_000 * SECOND, 5 * SECOND

    def pass_time(self, seconds):
        self.wall += int(seconds * SECOND)
        self.steady += int(seconds * SECOND)

    def clock(self):
        return SystemClock(lambda: self.wall, lambda: self.steady)


def test_the_clock_follows_small_corrections_at_once():
    machine = Machine()
    clock = machine.clock()
    machine.pass_time(100)
    machine.wall += 5_000_000  # NTP
    assert clock.now() == machine.wall // 1_000_000


def test_a_clock_that_is_set_ahead_or_back_is_followed_slowly():
    for step in (3600, -3600):
        machine = Machine()
        clock = machine.clock()
        before = clock.now()
        machine.wall += step * SECOND
        machine.pass_time(10)
        assert clock.now() - before == (11_000 if step > 0 else 9_000)
        for _ in range(40_000):
            machine.pass_time(1)
            clock.now()
        assert clock.now() == machine.wall // 1_000_000


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1e5, 1e5)), max_size=20))
def test_whatever_happens_time_goes_on_evenly(steps):
    machine = Machine()
    clock = machine.clock()
    now = clock.now()
    for passed, step in steps:
        machine.pass_time(passed)
        machine.wall += int(step * SECOND)
        later = clock.now()
        assert passed * 900 - 2 <= later - now <= passed * 1100 + 2
        now = later


def test_the_system_clock_is_near_the_machines():

    assert abs(SystemClock().now() - time.time() * 1000) < 1000


def test_it_goes_by_another_clock_at_once_and_then_follows_that_one():
    machine, servers = Machine(), Machine()
    servers.wall -= 7200 * SECOND
    clock = machine.clock()
    clock.go_by(lambda: servers.wall)
    assert clock.now() == servers.wall // 1_000_000
    for each in (machine, servers):
        each.pass_time(10)
    machine.wall += 3600 * SECOND
    assert clock.now() == servers.wall // 1_000_000
