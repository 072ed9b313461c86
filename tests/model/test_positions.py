"""Relative positions in artifacts: they stay where they are, whatever is written around them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc

from crdt_sessions.errors import BadValue, NotFound
from crdt_sessions.model import ArtifactHead, RelativePosition, SessionDoc, SessionView
from crdt_sessions.model import text as text_edits
from crdt_sessions.model.layout import roots

WORDS = st.text(alphabet="aaü😀👍🏽\n|", max_size=12)


def made(content, client=7):
    view = SessionView(SessionDoc(client))
    view.document.edit(lambda _: view.artifacts.add(ArtifactHead(id="a", created_at=1), content))
    return view


def edited(view, index, count, addition):
    view.document.edit(lambda _: view.artifacts.splice("a", index, count, addition))


@given(WORDS, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3), WORDS), max_size=3), st.sampled_from([0, -1]))
def test_every_index_has_a_position_that_leads_back(content, edits, assoc):
    view = made(content)
    for index, count, addition in edits:
        length = len(str(view.artifacts.text("a")))
        index = min(index, length)
        edited(view, index, min(count, length - index), addition)
    before = view.document.encode()
    for index in range(len(str(view.artifacts.text("a"))) + 1):
        assert view.artifacts.index_of("a", view.artifacts.position_at("a", index, assoc)) == index
    assert view.document.encode() == before, "what is looked up is looked up in a copy"
    view.document.close()


@given(WORDS, WORDS, WORDS, WORDS, st.sampled_from([0, -1]))
def test_a_position_moves_with_the_text_around_it(before, after, first, there, assoc):
    view = made(f"<{before}{after}>")
    place = len(before) + 1
    position = view.artifacts.position_at("a", place, assoc)
    edited(view, 0, 0, first)
    edited(view, len(first) + place, 0, there)
    follows = len(there) if assoc == 0 else 0
    assert view.artifacts.index_of("a", position) == len(first) + place + follows
    view.document.close()


def test_a_position_whose_character_is_gone_is_where_that_was():
    view = made("Grüße 😀 aus Köln")
    places = {assoc: view.artifacts.position_at("a", 6, assoc) for assoc in (0, -1)}
    edited(view, 2, 8, "")
    assert str(view.artifacts.text("a")) == "Grs Köln"
    assert {assoc: view.artifacts.index_of("a", place) for assoc, place in places.items()} == {0: 2, -1: 2}
    edited(view, 0, 8, "")
    assert view.artifacts.index_of("a", places[0]) == 0
    view.document.close()


def test_a_position_within_an_emoji_is_beside_it():
    view = made("a😀b")
    half = view.artifacts.position_at("a", 1).item
    for clock, assoc, index in ((half.clock, 0, 1), (half.clock + 1, 0, 1), (half.clock, -1, 2)):
        position = RelativePosition(item={"client": half.client, "clock": clock}, assoc=assoc)
        assert view.artifacts.index_of("a", position) == index
    view.document.close()


def test_the_ends_of_an_empty_text_are_positions():
    view = made("")
    begin, end = view.artifacts.position_at("a", 0, -1), view.artifacts.position_at("a", 0)
    edited(view, 0, 0, "Köln")
    assert [view.artifacts.index_of("a", each) for each in (begin, end)] == [0, 4]
    view.document.close()


def test_a_position_of_another_text_is_refused():
    view = made("abc")
    view.document.edit(lambda _: view.artifacts.add(ArtifactHead(id="b", created_at=2), "abc"))
    others = [view.artifacts.position_at("b", index) for index in (1, 3)]
    unknown = [
        {"item": {"client": 99, "clock": 0}}, {"item": {"client": 7, "clock": 2**31 - 1}},
        {"item": {"client": 7, "clock": 0}}, {"type": {"client": 7, "clock": 0}}, {"tname": "artifacts"}, {},
        {"item": {"client": 0, "clock": 0}}, {"item": {"client": 2**53 - 1, "clock": 0}},
    ]  # fmt: skip
    for position in [*others, *map(RelativePosition.model_validate, unknown)]:
        with pytest.raises(BadValue, match="no place in this text"):
            view.artifacts.index_of("a", position)
    for index in (-1, 4):
        with pytest.raises(BadValue, match="outside a text of 3"):
            view.artifacts.position_at("a", index)
    with pytest.raises(NotFound):
        view.artifacts.position_at("c", 0)
    view.document.close()


def test_a_position_stands_before_what_the_client_of_the_lowest_id_inserts():
    view = made("ab", client=5)
    position = view.artifacts.position_at("a", 1, -1)
    low = Doc(client_id=0)
    low.apply_update(view.document.encode())
    text_edits.insert(roots(low).artifacts["a"]["content"], 1, "||")
    view.document.apply(low.get_update())
    assert (str(view.artifacts.text("a")), view.artifacts.index_of("a", position)) == ("a||b", 1)
    view.document.close()


@given(WORDS, WORDS)
def test_a_replacement_changes_only_what_differs(before, after):
    view = made(f"<{before}>")
    first, last = view.artifacts.position_at("a", 0), view.artifacts.position_at("a", len(before) + 2, -1)
    view.document.edit(lambda _: view.artifacts.replace("a", f"<{after}>"))
    assert str(view.artifacts.text("a")) == f"<{after}>"
    assert [view.artifacts.index_of("a", each) for each in (first, last)] == [0, len(after) + 2]
    view.document.close()
