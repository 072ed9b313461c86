"""Absences longer than everybody's windows: a day, and thirty, across restarts and compaction, on a fake clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.limits import Limits
from crdt_sessions.testing import SimNetwork, content

DAY_S = 86_400


def write(net, name, key, value):
    net.peers[name].replica.edit(lambda view: view.state.__setitem__(key, value))


def settle(net):
    """Connect everybody, and let everything arrive."""
    for name in net.peers:
        net.connect(name)
    net.pass_time(0.1)
    net.run_until_quiet()


def agree(net):
    contents = {name: content(document) for name, document in net.documents().items()}
    first = contents["server"]
    for name, each in contents.items():
        assert each == first, f"{name} differs"
    return first["json"]["state"]


@pytest.mark.parametrize("away_s", [DAY_S, 30 * DAY_S])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("compact", [False, True])
def test_who_was_away_gets_what_is_missing_and_brings_what_it_wrote(away_s, restart, compact):
    net = SimNetwork(limits=Limits(log_bytes=2000))  # a window of a few dozen updates
    for name in ("stays", "leaves"):
        net.add(name)
    write(net, "leaves", "before", 1)
    settle(net)
    for direction in (True, False):
        while net.deliver("leaves", up=direction):
            pass
    net.drop("leaves")
    hours = int(away_s / 3600)
    for hour in range(0, hours, max(1, hours // 60)):
        write(net, "stays", f"k{hour % 50}", hour)
        write(net, "leaves", f"offline{hour % 7}", hour)
        net.pass_time(3600)
        net.run_until_quiet()
        if compact and hour % 3 == 0:
            net.compact()
        if restart and hour % 5 == 0:
            net.crash()
            net.connect("stays")
            net.run_until_quiet()
    settle(net)
    state = agree(net)
    assert state["before"] == 1
    assert {key for key in state if key.startswith("offline")} == {f"offline{n}" for n in range(7)} & set(state)
    assert any(key.startswith("offline") for key in state)
    assert any(key.startswith("k") for key in state)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans(), st.booleans()), max_size=12))
def test_any_absences_with_any_restarts_and_compactions(lives):
    """Each step: somebody leaves for so many ten days, all write, and the server may restart or compact meanwhile."""
    net = SimNetwork(limits=Limits(log_bytes=500))
    for name in "abc":
        net.add(name)
    settle(net)
    for step, (away, decades, restart, compact) in enumerate(lives):
        net.drop(away)
        for name in "abc":
            write(net, name, f"{name}{step}", step)
        net.run_until_quiet()
        net.pass_time(decades * 10 * DAY_S)
        if compact:
            net.compact()
        if restart:
            net.crash()
        settle(net)
    state = agree(net)
    assert state == {f"{name}{step}": step for step in range(len(lives)) for name in "abc"}
