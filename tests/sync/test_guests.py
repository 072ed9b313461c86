"""Presences that were announced without a connection: they are peers among the others, for a while."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import AccessDenied, TooLarge, TooMany
from crdt_sessions.limits import Limits, Timing
from crdt_sessions.sync import Actor, Rights
from crdt_sessions.sync.awareness import AwarenessTable, Roster
from crdt_sessions.sync.guests import Guests
from crdt_sessions.wire import AwarenessEntry, decode_awareness

KNOWN = Rights(verified=True)


def made(**limits):
    limits, timing = Limits(**limits), Timing()
    roster = Roster(limits, timing)
    return roster, Guests(roster, limits, timing)


def state(who):
    return json.dumps({"user": {"id": who}})


def announce(guests, who="ann", name="", client=5, until=10_000, now=0, text=None):
    return guests.announce(Actor(who, KNOWN), name, client, text or state(who), until, now)


def test_it_is_here_until_its_time_is_over():
    roster, guests = made()
    announce(guests, until=9_000)
    guests.tick(8_999)
    assert roster.present() == {5: state("ann")}
    guests.tick(9_000)
    assert (roster.present(), len(guests)) == ({}, 0)


def test_it_stays_if_it_is_announced_again_and_shows_what_is_said_last():
    roster, guests = made()
    announce(guests, until=9_000)
    text = json.dumps({"user": {"id": "ann"}, "activity": "typing"})
    assert announce(guests, client=6, until=20_000, now=8_000, text=text) == 5, "the same client"
    guests.tick(19_999)
    assert roster.present() == {5: text}


def test_it_is_withdrawn_at_once_and_forgotten_with_its_principal():
    roster, guests = made()
    for name, client in (("", 5), ("phone", 6)):
        announce(guests, name=name, client=client)
    announce(guests, "bob", client=7)
    guests.withdraw("ann", "phone", 1)
    announce(guests, name="phone", client=6)
    assert 6 in roster.present(), "it may come back, as the same client"
    guests.withdraw("ann", "phone", 1)
    guests.withdraw("ann", "never there", 1)
    assert sorted(roster.present()) == [5, 7]
    guests.forget("ann", 2)
    assert sorted(roster.present()) == [7]
    guests.forget(None, 3)
    assert roster.present() == {}


def test_it_is_bounded_in_size_and_number():
    roster, guests = made(max_presences=3, max_presences_per_connection=2, max_presence_bytes=256)
    with pytest.raises(TooLarge):
        announce(guests, text=json.dumps("x" * 256))
    announce(guests, name="a", client=5)
    announce(guests, name="b", client=6)
    with pytest.raises(TooMany, match="of one principal"):
        announce(guests, name="c", client=7)
    announce(guests, "bob", client=8)
    with pytest.raises(TooMany, match="of the session"):
        announce(guests, "eve", client=9)
    assert (sorted(roster.present()), len(guests)) == ([5, 6, 8], 3)


def test_a_connection_cannot_speak_for_it():
    roster, guests = made()
    announce(guests)
    for principal in ("eve", "ann"):
        roster.hear(
            1,
            Actor(principal, KNOWN),
            [AwarenessEntry(5, 9, state(principal)), AwarenessEntry(6, 1, state(principal))],
            1,
        )
    assert roster.present()[5] == state("ann")


@given(st.integers(1_000, 300_000), st.lists(st.integers(1, 20_000), max_size=20))
def test_a_client_that_drops_what_is_not_renewed_sees_it_until_its_time_is_over(ttl, steps):
    roster, guests = made()
    peer, told, now = AwarenessTable(), 0, 0
    announce(guests, until=ttl)
    due = min(guests.due())
    while now < ttl + 40_000:
        now = min([*guests.due(), now + (steps.pop() if steps else 10_000)])
        guests.tick(now)
        roster.tick(now)
        frame = roster.frame_since(told, 99)
        if frame is not None:
            told = roster.version
            for entry in decode_awareness(frame.frame.payload):
                peer.accept(entry, now)
        for client in peer.silent_since(now - 30_000):
            peer.remove(client, now)
        assert (5 in peer.present()) is (now < ttl), (now, ttl, due)


def relay(guests, who="ann", client=5, clock=1, text='{"x": 1}', until=30_000, now=0):
    guests.relay(Actor(who, KNOWN), AwarenessEntry(client, clock, text), until, now)


def test_a_client_with_a_clock_of_its_own_is_never_spoken_for():
    roster, guests = made()
    relay(guests, clock=7)
    guests.tick(29_999)
    assert (roster.present(), roster.clock(5)) == ({5: '{"x": 1}'}, 7)
    relay(guests, clock=8, text='{"x": 2}', until=50_000, now=20_000)
    guests.tick(30_000)
    assert roster.present() == {5: '{"x": 2}'}
    guests.tick(50_000)
    assert (roster.present(), len(guests)) == ({}, 0)
    relay(guests, clock=9, until=90_000, now=60_000)
    relay(guests, clock=10, text="null", now=60_000)
    assert (roster.present(), len(guests)) == ({}, 0)
    relay(guests, client=6, text="null", now=60_000)
    assert len(guests) == 0


def test_a_client_speaks_for_nobody_else():
    roster, guests = made(max_presences_per_connection=2)
    relay(guests)
    for bad in (
        lambda: relay(guests, who="bob", clock=2, text='{"x": "stolen"}'),
        lambda: relay(guests, who="bob", client=6, text='{"user": {"id": "ann"}}'),
    ):
        with pytest.raises(AccessDenied):
            bad()
    assert roster.present() == {5: '{"x": 1}'}
    with pytest.raises(TooLarge):
        relay(guests, clock=3, text=json.dumps("x" * 100_000))
    relay(guests, client=7)
    with pytest.raises(TooMany):
        relay(guests, client=8)
