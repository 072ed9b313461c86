"""Updates that tear surrogate pairs apart: what the library is given is sound, and reads as Yjs reads it."""

import pytest
from pycrdt import Doc, Map, Text, merge_updates

from crdt_sessions.model import Pairs, SessionDoc, encode_verified
from crdt_sessions.wire import EMPTY_UPDATE

BEGUN = bytes.fromhex("0101858080800800040101740661f09f98806200")
"""``insert(0, 'a😀b')`` into the text ``t``, by client 2**31 + 5. These bytes are what Yjs 13.6.33 made."""
TORN = {
    "insert(2, 'X')": ("0101858080800804c4858080800801858080800802015800", "a\ufffdX\ufffdb"),
    "delete(1, 1)": ("00018580808008010101", "a\ufffdb"),
    "delete(2, 1)": ("00018580808008010201", "a\ufffdb"),
    "delete(0, 2)": ("00018580808008010002", "\ufffdb"),
    "delete(2, 2)": ("00018580808008010202", "a\ufffd"),
    "format(1, 1, { bold: true })": (
        "0102858080800804c685808080080085808080080104626f6c640474727565c685808080080185808080080204626f6c64046e756c6c00",
        "a\ufffd\ufffdb",
    ),
}


def begun(*updates, client=9):
    document = SessionDoc(client)
    for update in updates:
        document.apply(update)
    return document


def text_of(document):
    return str(document.doc.get("t", type=Text))


def take(document, update):
    """Apply what is to be applied in place of *update*; return it."""
    before, update = Pairs(document).mended(update)
    for each in (*before, update):
        document.apply(each)
    assert document.waiting == EMPTY_UPDATE
    encode_verified(document)
    return [*before, update]


@pytest.mark.parametrize("way", TORN)
def test_a_pair_that_is_torn_is_two_replacement_characters_of_which_those_deleted_are_gone(way):
    update, expected = TORN[way]
    document = begun(BEGUN)
    updates = take(document, bytes.fromhex(update))
    assert text_of(document) == expected
    others = begun(BEGUN, *updates)
    assert text_of(others) == text_of(begun(document.encode())) == expected
    assert Pairs(document).mended(bytes.fromhex(update)).before == (), "a second time it is an echo"


@pytest.mark.parametrize("way", TORN)
def test_a_pair_and_what_tears_it_in_one_update_are_rewritten(way):
    update, expected = TORN[way]
    document = begun()
    (taken,) = take(document, merge_updates(BEGUN, bytes.fromhex(update)))
    assert text_of(document) == text_of(begun(taken)) == expected


@pytest.mark.parametrize("way", ["insert(1, 'X')", "insert(3, 'X')", "delete(1, 2)", "delete(0, 1)", "delete(3, 1)"])
def test_an_update_that_tears_no_pair_is_left_unchanged(way):
    update = bytes.fromhex(
        {
            "insert(1, 'X')": "0101858080800804c4858080800800858080800801015800",
            "insert(3, 'X')": "0101858080800804c4858080800802858080800803015800",
            "delete(1, 2)": "00018580808008010102",
            "delete(0, 1)": "00018580808008010001",
            "delete(3, 1)": "00018580808008010301",
        }[way]
    )
    assert Pairs(begun(BEGUN)).mended(update) == ((), update)
    whole = merge_updates(BEGUN, update)
    assert Pairs(begun()).mended(whole) == ((), whole)


def test_neighbouring_pairs_are_told_apart():
    document = SessionDoc(9)
    document.edit(lambda _: document.doc.get("t", type=Text).__iadd__("😀😀"))
    assert Pairs(document).mended(b"\x00\x01\x09\x01\x02\x02").before == ()
    assert len(Pairs(document).mended(b"\x00\x01\x09\x01\x02\x01").before) == 2


@pytest.mark.parametrize("count", [1, 4, 5, 100])
def test_many_torn_pairs_in_one_update_are_found(count):
    document = SessionDoc(9)
    document.edit(lambda _: document.doc.get("t", type=Text).__iadd__(120 * "€😀"))
    ranges = b"".join(bytes([at * 3 + 1 & 0x7F | 0x80, at * 3 + 1 >> 7, 1]) for at in range(count))
    take(document, b"\x00\x01\x09" + bytes([count]) + ranges)
    assert text_of(document) == count * "€\ufffd" + (120 - count) * "€😀"


def test_what_is_cut_off_in_the_middle_of_a_pair_because_it_is_known_is_rewritten():
    document = begun(
        bytes.fromhex("01018580808008000401017404" + "61efbfbd" + "00")
    )  # its client had typed the first half
    take(document, BEGUN)
    assert text_of(document) == "a\ufffd\ufffdb"


def test_whether_there_may_be_pairs_is_known_after_each_change():
    document = begun()
    draft = document.doc.get("t", type=Text)
    assert not document.may_hold_pairs
    document.edit(lambda _: draft.__iadd__("grüße €"))
    assert not document.may_hold_pairs
    document.edit(lambda _: draft.__iadd__("😀"))
    assert document.may_hold_pairs
    other = begun()
    assert not other.may_hold_pairs
    other.apply(BEGUN)
    assert other.may_hold_pairs


def test_what_was_looked_at_before_is_known_and_remains_right():
    document = SessionDoc(9)
    document.edit(lambda _: document.doc.get("t", type=Text).__iadd__("😀abc😀def😀"))
    pairs, fresh = Pairs(document), lambda: Pairs(document)
    for at in (*range(1, 12), *range(11, 0, -1)):
        update = b"\x00\x01\x09\x01" + bytes([at, 1])
        assert pairs.mended(update) == fresh().mended(update)
        assert bool(pairs.mended(update).before) == (at in (1, 5, 6, 10, 11))


def test_a_place_in_what_was_collected_is_in_no_pair():
    """Of what stands in a deleted type only its extent is left: a GC struct, which has no head and no text."""
    author, late = Doc(client_id=5), Doc(client_id=6)
    author["notes"] = notes = Map()
    notes["n"] = Text("a🙂b")
    late.apply_update(author.get_update())
    document = begun(BEGUN, author.get_update())  # where there is a pair besides
    before = late.get_state()
    late.get("notes", type=Map)["n"].insert(1, "x")  # in front of the pair, by somebody who has not heard
    del notes["n"]
    document.apply(author.get_update())
    update = late.get_update(before)
    mended = Pairs(document).mended(update)
    assert (mended.before, mended.update) == ((), update)
