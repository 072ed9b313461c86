"""Plain updates: what is taken without being tried elsewhere is what it seems to be."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Map, Text

from crdt_sessions.model import SessionDoc, extent_of
from crdt_sessions.sync.plain import Inspector, plain
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import decode_state_vector
from tests.hostile.corpus import mutate
from tests.sync.forged import FORGER, entry, text_beside


def typed(*texts, right=False):
    """A document, and the update that each of *texts* made when it was typed at the end, or at the begin."""
    document = SessionDoc(7)
    draft = document.doc.get("draft", type=Text)
    deltas = []
    for text in ("x", *texts):
        _, delta = document.edit(lambda _, text=text: draft.insert(0, text) if right else draft.__iadd__(text))
        deltas.append(delta)
    return document, deltas


def clocks(document):
    return decode_state_vector(document.state_vector())


def test_typing_and_streaming_are_plain():
    document, deltas = typed("a", "hello ", "wörld 😀", "x" * 500)
    reader = SessionDoc(8)
    assert plain(deltas[0], {}) is None, "the first one names a root: its neighbour is not there yet"
    reader.apply(deltas[0])
    for delta in deltas[1:]:
        assert plain(delta, clocks(reader)) is not None
        reader.apply(delta)
        client, clock = 7, clocks(reader)[7]
        assert plain(delta, clocks(reader)) is None, "a second time it is an echo"
        assert (client, clock) == (7, clocks(reader)[7])
    assert extent_of(reader.doc) == extent_of(document.doc)


@pytest.mark.parametrize(
    "change",
    [
        lambda doc, text: text.clear(),
        lambda doc, text: text.format(0, 1, {"bold": True}),
        lambda doc, text: doc.get("state", type=Map).__setitem__("k", 1),
        lambda doc, text: doc.get("state", type=Map).__setitem__("k", Map({"a": 1})),
        lambda doc, text: text.insert_embed(1, {"image": "x"}),
    ],
)
def test_other_updates_are_not_plain(change):
    document, deltas = typed("abc")
    before = clocks(document)
    _, delta = document.edit(lambda doc: change(doc.doc, doc.doc.get("draft", type=Text)))
    assert plain(delta, before) is None
    assert deltas


def test_no_update_is_plain_while_another_is_pending():
    document, deltas = typed("a", "b", "c")
    reader = SessionDoc(8)
    inspector = Inspector(reader)
    reader.apply(deltas[0])
    reader.apply(deltas[2])
    inspector.took(deltas[2])
    assert not inspector.passes(deltas[1])
    reader.apply(deltas[1])
    inspector.took(deltas[1])
    assert inspector.passes(deltas[3])
    assert document


@given(st.integers(0, 2**32))
def test_every_plain_update_only_inserts_text(seed):
    """Mutated typing: what still passes moves one clock by what it says, deletes nothing and leaves nothing waiting."""
    rng = random.Random(seed)
    document, deltas = typed("hello", "wörld 😀", "abc", right=rng.random() < 0.5)
    reader = SessionDoc(8)
    for delta in deltas[:-1]:
        reader.apply(delta)
    candidate = mutate(rng, deltas[-1], deltas)
    before = extent_of(reader.doc)
    found = plain(candidate, before.clocks)
    if found is not None:
        client, clock = found
        reader.apply(candidate)
        after = extent_of(reader.doc)
        assert reader.waiting == EMPTY_UPDATE
        assert after.clocks == before.clocks | {client: clock}
        assert after.deleted == before.deleted
    for each in (document, reader):
        each.close()


@given(st.integers(0, 2**32), st.integers(2, 30))
def test_the_remembered_clocks_are_those_of_the_document(seed, steps):
    """The inspector says at any time what one who asks the document anew says."""
    rng = random.Random(seed)
    document = SessionDoc(8)
    inspector = Inspector(document)
    writers = [SessionDoc(20 + number) for number in range(3)]
    for _ in range(steps):
        writer = rng.choice(writers)
        writer.apply(document.encode(writer.state_vector()))
        draft, state = writer.doc.get("draft", type=Text), writer.roots.state
        change = rng.choice([lambda _, d=draft: d.__iadd__("ab"), lambda _, s=state: s.__setitem__("k", 1)])
        writer.take_delta()
        _, delta = writer.edit(change)
        complete = document.waiting == EMPTY_UPDATE  # what follows one that was not taken waits
        assert (inspector.passes(delta) is not None) == (complete and plain(delta, clocks(document)) is not None)
        if rng.random() < 0.8:
            passed = inspector.passes(delta)
            document.apply(delta)
            inspector.took(delta, passed)
    for each in (document, *writers):
        each.close()


def test_text_inside_text_with_emoji_is_tried_once_and_then_plain():
    document = SessionDoc(9)
    inspector = Inspector(document)

    def take(update):
        passed = inspector.passes(update)
        document.apply(update)
        inspector.took(update, passed)
        return passed is not None

    take(typed_at("a😀b"))
    assert take(typed_at("X", client=2, clock=0, between=(0, 1))) is False, "it may be inside of the emoji"
    assert take(typed_at("Y", client=2, clock=1, behind=(2, 0), between=(0, 1)))
    assert take(typed_at("Z", client=2, clock=2, behind=(2, 1), between=(0, 1)))
    assert take(typed_at("W", client=3, clock=0, between=(1, 2))) is False
    assert inspector.passes(typed_at("V", client=4, clock=0, behind=(1, 3))), "at the end there is nothing to tear"


def test_text_inside_text_without_emoji_is_plain():
    document = SessionDoc(9)
    document.apply(typed_at("aüb"))
    assert Inspector(document).passes(typed_at("X", client=2, clock=0, between=(0, 1)))


def test_an_update_that_inserts_an_emoji_and_tears_it_is_not_plain():
    document = SessionDoc(9)
    document.apply(typed_at("a"))
    first, second = typed_at("😀", clock=1, behind=(1, 0)), typed_at("X", clock=3, behind=(1, 1))
    both = b"\x01\x02" + first[2:-1] + second[4:]
    assert Inspector(document).passes(first)
    assert not Inspector(document).passes(both)


# -- beside what -------------------------------------------------------------------------------------------------------


@pytest.fixture
def written():
    """A document with a text of one client, an entry of a map by another, and what was collected."""
    document = SessionDoc(9)
    document.apply(typed_at("abcd"))
    author = SessionDoc(50)
    for change in (
        lambda doc: doc.roots.state.__setitem__("k", 1.0),
        lambda doc: doc.roots.state.__setitem__("l", 1.0),
        lambda doc: doc.roots.state.pop("l"),
        lambda doc: doc.roots.state.__setitem__("gone", Text("wxyz")),
        lambda doc: doc.roots.state.pop("gone"),
    ):
        document.apply(author.edit(change)[1])
    yield document
    document.close()
    author.close()


ENTRY, POPPED, COLLECTED, LETTER = (50, 0), (50, 1), (50, 4), (1, 1)


@pytest.mark.parametrize("beside", [ENTRY, POPPED, COLLECTED])
def test_text_beside_what_is_in_no_sequence_is_not_plain(written, beside):
    """Behind an entry it would be one, of several characters, which no library writes and none can split; before one,
    and beside what was collected, Yjs makes something else of it than we do."""
    inspector = Inspector(written)
    assert not inspector.passes(text_beside(beside, "X"))
    assert not inspector.passes(text_beside(LETTER, "X", right=beside))
    assert not inspector.passes(text_beside(beside, "X", right=LETTER))
    assert inspector.passes(text_beside(LETTER, "X", right=(1, 2)))


def test_text_behind_a_fresh_message_is_looked_at_once_and_not_plain_behind_its_last_field():
    """A message may end with a field: behind that, text would be a field."""
    document, author = SessionDoc(9), SessionDoc(FORGER)
    inspector = Inspector(document)

    def begin(key, value):
        update = author.edit(lambda doc: doc.roots.messages.__setitem__(key, Map(value)))[1]
        passed = inspector.passes(update)
        assert passed, "it is fresh"
        document.apply(update)
        inspector.took(update, passed)
        return clocks(document)[FORGER]

    end = begin("m1", {"x": Text("abc")})
    assert inspector.passes(text_beside((FORGER, end - 1), "def", clock=end))
    end = begin("m2", {"y": 1.0})
    assert not inspector.passes(text_beside((FORGER, end - 1), "def", clock=end))
    assert entry(document, "y") == (FORGER, end - 1)
    for each in (document, author):
        each.close()


def test_what_was_collected_meanwhile_is_not_taken_for_text():
    document, author = SessionDoc(9), SessionDoc(50)
    inspector = Inspector(document)

    def take(update):
        passed = inspector.passes(update)
        document.apply(update)
        inspector.took(update, passed)
        return passed

    for change in (lambda doc: doc.roots.state.__setitem__("t", Text("ab")), lambda doc: doc.roots.state.pop("t")):
        take(author.edit(change)[1])
        passed = take(text_beside((50, 1), "X", clock=clocks(document).get(FORGER, 0), right=(50, 2)))
    assert not passed
    for each in (document, author):
        each.close()


def test_typing_asks_the_document_where_it_begins_and_then_no_more(written, monkeypatch):
    """Looking at neighbours costs more the more their client has written since."""
    asked, encode = [], SessionDoc.encode
    monkeypatch.setattr(SessionDoc, "encode", lambda *arguments: asked.append(1) or encode(*arguments))
    inspector = Inspector(written)

    def take(update):
        passed = inspector.passes(update)
        assert passed
        written.apply(update)
        inspector.took(update, passed)

    take(text_beside((1, 1), "X", right=(1, 2)))
    assert len(asked) == 2
    for clock in range(1, 30):
        take(text_beside((FORGER, clock - 1), "X", clock=clock, right=(1, 2)))
    assert len(asked) == 2
    take(text_beside((1, 3), "Y", client=60))
    assert len(asked) == 3
    for clock in range(1, 30):
        take(text_beside((60, clock - 1), "Y", client=60, clock=clock))
    assert len(asked) == 3


def typed_at(text, *, client=1, clock=0, behind=None, between=None):
    """An update that inserts into ``t``: first, *behind* a struct, or *between* two of client 1."""
    if between is not None:
        behind, right = behind or (1, between[0]), bytes([1, between[1]])
    else:
        right = b""
    content = bytes([len(text.encode())]) + text.encode() + b"\x00"
    head = bytes([1, 1, client, clock])
    if behind is None:
        return head + b"\x04\x01\x01t" + content
    return head + bytes([0xC4 if right else 0x84]) + bytes(behind) + right + content
