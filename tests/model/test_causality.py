"""What of an update can be integrated and what must wait, held against the library and against real traces."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text, get_update, merge_updates

from crdt_sessions.errors import MalformedUpdate
from crdt_sessions.model import SessionDoc, extent_of, split, text
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import decode_state_vector, varuint
from tests.hostile import corpus


def clocks_of(document):
    return decode_state_vector(document.state_vector())


def letters(word, client=5, after=None):
    """Return updates of one client that each type a letter behind the last one."""
    document = SessionDoc(client)
    if after is not None:
        document.apply(after)
        document.take_delta()
    draft = document.doc.get("draft", type=Text)
    return [document.edit(lambda _, letter=letter: draft.__iadd__(letter))[1] for letter in word]


class Taking:
    """A document that the library is given only what it can integrate."""

    def __init__(self):
        self.document, self.waiting = SessionDoc(1), []

    def take(self, update):
        self._take(update)
        again = True
        while again:
            again = False
            for later in list(self.waiting):
                known = clocks_of(self.document)
                if any(known.get(client, 0) >= clock for client, clock in later.wakes.items()):
                    self.waiting.remove(later)
                    self._take(later.update)
                    again = True

    def _take(self, update):
        taken = split(update, clocks_of(self.document))
        if taken.now != EMPTY_UPDATE:
            self.document.apply(taken.now)
        assert self.document.waiting == EMPTY_UPDATE
        known = clocks_of(self.document)
        assert {client: known.get(client, 0) for client in taken.clocks} == taken.clocks
        if taken.later is not None:
            self.waiting.append(taken.later)
        return taken.later


def history(rng, steps=40):
    """Return what three replicas write, in order: text, values and shared types in each other."""
    docs, made = [Doc(client_id=n + 1) for n in range(3)], []
    subscriptions = [doc.observe(lambda event: made.append(event.update)) for doc in docs]
    for step in range(steps):
        doc = rng.choice(docs)
        draft, state, listed = doc.get("draft", type=Text), doc.get("state", type=Map), doc.get("list", type=Array)
        match rng.randrange(6):
            case 0 if len(str(draft)) > 3:
                text.delete(draft, rng.randrange(len(str(draft)) - 1), 1)
            case 1:
                state[rng.choice("xyz")] = rng.choice([Map({"k": Text("inner")}), {"a": [1, 2]}, 5])
            case 2:
                listed.insert(rng.randint(0, len(listed)), step)
            case 3 if len(listed):
                del listed[rng.randrange(len(listed))]
            case _:
                text.insert(draft, rng.randint(0, len(str(draft))), rng.choice("aé😀"))
        if rng.random() < 0.4:
            rng.choice(docs).apply_update(doc.get_update())
    for doc, subscription in zip(docs, subscriptions, strict=True):
        doc.unobserve(subscription)
    return made


def agree(taking, made):
    whole = SessionDoc(2)
    for update in made:
        whole.apply(update)
    assert taking.waiting == []
    assert extent_of(taking.document.doc) == extent_of(whole.doc)
    whole.close()


@given(st.integers(0, 10_000), st.booleans())
def test_in_whatever_order_updates_come_the_library_is_never_given_what_it_cannot_integrate(seed, joined):
    rng = random.Random(seed)
    made = history(rng)
    mixed = rng.sample(made, len(made))
    if joined:  # updates with gaps in them, as a client keeps what waits
        mixed = [merge_updates(*mixed[at : at + 3]) for at in range(0, len(mixed), 3)]
    taking = Taking()
    for update in mixed:
        taking.take(update)
    agree(taking, made)


@given(st.integers(0, 10_000))
def test_an_update_of_a_client_to_which_something_lacks_is_taken_as_far_as_it_can_be(seed):
    """Yjs sends what waits in a document along with what it says the document has."""
    rng = random.Random(seed)
    made = history(rng)
    kept = [update for update in made if rng.random() < 0.8]
    one_by_one, at_once = Taking(), Taking()
    for update in kept:
        one_by_one.take(update)
    if kept:
        at_once.take(merge_updates(*kept))
    assert clocks_of(at_once.document) == clocks_of(one_by_one.document)
    for update in made:
        at_once.take(update)
    agree(at_once, made)


@given(st.integers(0, 10_000))
def test_every_kind_of_content_is_read(seed):
    rng = random.Random(seed)
    made = [corpus.SEED, *corpus.updates(rng, 40)]
    taking, whole = Taking(), SessionDoc(2)
    for update in rng.sample(made, len(made)):
        taking.take(update)
    for update in made:
        whole.apply(update)
    assert taking.waiting == []
    assert clocks_of(taking.document) == clocks_of(whole)


def test_letters_in_reverse_wait_for_the_one_before():
    _, second, third = letters("abc")
    waiting = split(third, {})
    assert (waiting.now, waiting.later.wakes, waiting.later.reach) == (EMPTY_UPDATE, {5: 2}, {5: 3})
    assert split(second, {5: 1}).later is None
    assert split(third, {5: 3}).later is None, "it is known"


def test_what_stands_beside_somebody_elses_letter_waits_for_that_one():
    (first,) = letters("a")
    (other,) = letters("b", client=6, after=first)
    assert split(other, {}).later.wakes == {5: 1}
    assert split(other, {5: 1}) == (other, {6: 1}, None)
    both = merge_updates(first, other)
    assert split(both, {}).later is None, "it brings what it needs"


def test_a_deletion_waits_for_what_it_deletes_and_takes_what_is_there():
    document = SessionDoc(5)
    draft = document.doc.get("draft", type=Text)
    document.edit(lambda _: draft.__iadd__("abcd"))
    _, gone = document.edit(lambda _: draft.__delitem__(slice(1, 3)))
    now, _, later = split(gone, {5: 2})
    assert (later.wakes, later.deletes, later.reach) == ({5: 3}, True, {})
    half = SessionDoc(6)
    half.apply(get_update(document.encode(), b"\x00"))
    assert split(gone, {5: 4}).later is None
    assert split(now, {5: 2}).later is None
    assert split(later.update, {5: 3}).later is None


def test_structs_before_a_gap_do_not_wait_for_those_after_it():
    first, _, third = letters("abc")
    now, clocks, later = split(merge_updates(first, third), {})
    assert clocks == {5: 1}
    assert (later.wakes, later.reach) == ({5: 2}, {5: 3})
    document = SessionDoc(1)
    document.apply(now)
    assert str(document.doc.get("draft", type=Text)) == "a"


def struct(client, clock, origin=None, typed=b"x"):
    head = b"\x01\x01" + varuint(client) + varuint(clock)
    if origin is None:
        return head + b"\x04\x01\x05draft" + varuint(len(typed)) + typed + b"\x00"
    return head + b"\x84" + varuint(origin[0]) + varuint(origin[1]) + varuint(len(typed)) + typed + b"\x00"


@pytest.mark.parametrize(
    "update",
    [
        struct(5, 2**32 - 1),
        struct(5, 2**31 - 1, (5, 3)),
        struct(5, 2**32 + 3),
        struct(5, 0, (6, 2**32 - 1)),
        b"\x01\x01\x05\x00\x00" + varuint(2**31) + b"\x00",
        b"\x00\x01\x05\x01\x00" + varuint(2**32),
        b"\x00\x01\x05\x01" + varuint(2**32 - 1) + b"\x01",
    ],
)
def test_clocks_that_no_client_reaches_are_malformed(update):
    with pytest.raises(MalformedUpdate):
        split(update, {})


def test_an_update_that_waits_for_itself_is_malformed():
    circle = b"\x02" + struct(5, 0, (6, 0))[1:-1] + struct(6, 0, (5, 0))[1:-1] + b"\x00"
    with pytest.raises(MalformedUpdate):
        split(circle, {})


@pytest.mark.parametrize(
    "update",
    [
        b"\x01\x02\x03",
        b"\xff" * 40,
        struct(5, 0, typed=b"\xff"),
        b"\x01\x01\x05\x00\x1f\x00",
        b"\x01\x01\x05\x00\x0a",
    ],
)
def test_an_unreadable_update_is_malformed(update):
    with pytest.raises(MalformedUpdate):
        split(update, {})


def test_values_however_deep_are_read_without_going_deep():
    deep = Doc(client_id=6)
    value = 1
    for _ in range(300):
        value = [{"k": value}, None, 1.5, "s", True, 2**40, b"b"]
    deep.get("state", type=Map)["deep"] = value
    deep.get("list", type=Array).extend([1, "x", [2]])
    assert split(deep.get_update(), {}).later is None
    bomb = b"\x01\x01\x05\x00\x28\x01\x05state\x01k\x01" + b"\x75\x01" * 100_000 + b"\x7e\x00"
    assert split(bomb, {}).later is None
