"""Sessions that sleep: what wakes them up, what does not, and that nobody misses anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import TooSlow
from crdt_sessions.model import Author, MessageHead, TextPart
from crdt_sessions.sync import READ_ONLY, RightsChanged, Tick
from crdt_sessions.testing import SimNetwork
from crdt_sessions.testing.network import content
from crdt_sessions.wire import KEEPALIVE, YWebSocket


def post(id):
    head = MessageHead(id=id, role="user", author=Author(id="ann"), created_at=1)
    return lambda view: view.messages.add(head, [TextPart(type="text", text="hello")])


@pytest.fixture
def network():
    """A session that sleeps, with two who are present."""
    network = SimNetwork()
    for name in ("ann", "bob"):
        network.add(name).replica.set_presence({"user": {"name": name}})
        network.connect(name)
    network.edit("ann", post("m1"))
    network.run_until_quiet()
    assert network.sleep()
    yield network
    network.close()


def sleeps_on(network):
    return network.restarts == 0


def names(network, name):
    return sorted(each["user"]["name"] for each in network.peers[name].replica.presences().values())


def test_who_renews_a_presence_does_not_wake_the_session_up(network):
    for _ in range(20):
        network.pass_time(14)
        network.run_until_quiet()
    assert sleeps_on(network)
    assert (names(network, "ann"), names(network, "bob")) == (["bob"], ["ann"])


def test_who_says_nothing_is_told_that_the_service_is_there(network):
    bob = network.peers["bob"]
    network.act("bob", lambda replica: replica.set_presence(None))
    network.run_until_quiet()
    network.restarts = 0
    assert network.sleep()
    for _ in range(2):
        network.pass_time(19)
        network.run_until_quiet()
    network.drop("ann", abrupt=False)
    network.run_until_quiet()
    bob.downlink.clear()
    network.pass_time(21)
    assert list(bob.downlink) == YWebSocket(1000).write([KEEPALIVE])
    assert sleeps_on(network)


def test_who_announced_a_presence_and_is_silent_is_closed(network):
    for _ in range(10):
        network.now += 20_000
        network._handle(Tick())
    assert isinstance(network.peers["ann"].closed_by, TooSlow)
    assert sleeps_on(network)


def test_who_leaves_is_gone_for_the_others(network):
    network.drop("ann", abrupt=False)
    network.run_until_quiet()
    assert sleeps_on(network)
    assert names(network, "bob") == []


def test_who_breaks_off_and_does_not_come_back_is_gone_after_a_while(network):
    network.drop("ann")
    network.run_until_quiet()
    assert names(network, "bob") == ["ann"]
    network.pass_time(4)
    network.run_until_quiet()
    assert sleeps_on(network)
    assert names(network, "bob") == []


def test_who_comes_back_wakes_the_session_up_and_is_who_they_were(network):
    network.drop("ann")
    network.edit("ann", post("m2"))
    network.connect("ann")
    network.run_until_quiet()
    assert not sleeps_on(network)
    assert names(network, "bob") == ["ann"]
    assert "m2" in network.peers["bob"].replica.view.messages


@pytest.mark.parametrize("writes", ["ann", "bob"])
def test_what_somebody_writes_wakes_it_up_and_reaches_everybody(network, writes):
    network.edit(writes, post("m2"))
    network.run_until_quiet()
    assert network.restarts == 1
    for peer in network.peers.values():
        assert "m2" in peer.replica.view.messages
        assert peer.replica.durable == peer.replica.version
    assert network.sleep(), "and it may sleep again"


def test_another_presence_wakes_it_up(network):
    network.act("ann", lambda replica: replica.set_presence({"user": {"name": "Ann"}}))
    network.run_until_quiet()
    assert not sleeps_on(network)
    assert names(network, "bob") == ["Ann"]


def test_rights_that_were_taken_away_meanwhile_are_gone_when_it_wakes_up(network):
    network._handle(RightsChanged(network.peers["ann"].connection, READ_ONLY))
    network.edit("ann", post("m2"))
    network.run_until_quiet()
    assert "m2" not in network.engine.view.messages


def test_a_session_does_not_sleep_while_something_is_under_way():
    network = SimNetwork()
    network.add("ann")
    network.connect("ann")
    assert not network.sleep(), "it was not told what there is"
    network.run_until_quiet()
    network.edit("ann", post("m1"))
    network.deliver("ann", up=True)
    assert not network.sleep(), "something is not stored yet"
    network.run_until_quiet()
    network.pass_time(1.5)
    network.run_until_quiet()
    assert network.sleep()
    network.close()


# -- at any time -----------------------------------------------------------------------------------------------------

_NAMES = ("ann", "bob", "cat")
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "announce", "drop", "leave", "connect", "deliver", "time", "commit", "crash", "fold"]
        ),
        st.sampled_from(_NAMES),
        st.booleans(),
    ),
    max_size=12,
)


def step(network, number, what, name, flag):
    match what:
        case "write":
            network.edit(name, post(f"m{number}"))
        case "announce":
            network.act(name, lambda replica: replica.set_presence({"user": {"name": f"{name} {number}"}}))
        case "drop" | "leave":
            network.drop(name, abrupt=what == "drop")
        case "connect":
            network.connect(name)
        case "deliver":
            network.deliver(name, up=flag)
        case "time":
            network.pass_time(20 if flag else 1.5)
        case "commit":
            network.commit()
        case "crash":
            network.crash()
        case "fold":
            network.compact()


@given(steps=st.lists(_STEPS, max_size=5))
def test_whenever_it_sleeps_and_whatever_wakes_it_up_everybody_has_everything(steps):
    network, number = SimNetwork(), 0
    try:
        for name in _NAMES:
            network.add(name).replica.set_presence({"user": {"name": name}})
            network.connect(name)
        for some in steps:
            network.run_until_quiet()
            network.pass_time(4)
            network.run_until_quiet()
            assert network.sleep()
            for what, name, flag in some:
                number += 1
                step(network, number, what, name, flag)
        for name in _NAMES:
            network.connect(name)
        network.run_until_quiet()
        contents = {name: content(document) for name, document in network.documents().items()}
        assert all(each == contents["server"] for each in contents.values())
        assert all(peer.replica.durable == peer.replica.version for peer in network.peers.values())
    finally:
        network.close()
