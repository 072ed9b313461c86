"""Yjs updates, read: what stands before a struct's content, and what is no update."""

import pytest
from pycrdt import Array, Doc, Map, Text

from crdt_sessions.errors import MalformedUpdate, WireError
from crdt_sessions.wire.update_v1 import (
    ANY,
    GC,
    SKIP,
    STRING,
    TYPE,
    Head,
    count_clients,
    first_client,
    parse,
    read_head,
    select,
    sole_block,
    sole_client,
)
from crdt_sessions.wire.varint import Reader, decode_state_vector, string, varuint

TO_A_ROOT, TO_A_TYPE = varuint(1) + string("messages"), varuint(0) + varuint(7) + varuint(3)


@pytest.mark.parametrize(
    ("encoded", "head"),
    [
        (bytes((0x84,)) + varuint(7) + varuint(300), Head(0x84, (7, 300), None, None, None)),
        (bytes((0x44,)) + varuint(7) + varuint(1), Head(0x44, None, (7, 1), None, None)),
        (bytes((0xE8, 1, 2, 3, 4)), Head(0xE8, (1, 2), (3, 4), None, None)),
        (bytes((0x04,)) + TO_A_ROOT, Head(0x04, None, None, "messages", None)),
        (bytes((0x27,)) + TO_A_TYPE + string("é"), Head(0x27, None, None, (7, 3), "é")),
        (bytes((GC,)), Head(GC, None, None, None, None)),
        (bytes((SKIP,)), Head(SKIP, None, None, None, None)),
    ],
)
def test_a_head_says_where_a_struct_belongs(encoded, head):
    reader = Reader(encoded + b"rest")
    assert read_head(reader) == head
    assert reader.take(reader.remaining) == b"rest"


def test_the_kind_of_a_head_is_without_its_flags():
    assert [Head(info, None, None, None, None).kind for info in (0xC4, 0x28, 0x07)] == [STRING, ANY, TYPE]


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        bytes((0x84, 1)),
        bytes((0x04, 2, 0, 0)),  # neither a root nor a type
        bytes((0x04, 1, 2, 0xFF, 0xFE)),  # not UTF-8
        bytes((0x24, 0, 1, 1, 1, 0xFF)),
    ],
)
def test_what_is_no_head_is_refused(encoded):
    with pytest.raises(WireError):
        read_head(Reader(encoded))
    with pytest.raises(MalformedUpdate):
        parse(b"\x01\x01\x05\x00" + encoded)


def test_all_that_an_update_holds_can_be_selected_again():
    doc = Doc(client_id=5)
    doc["messages"] = messages = Map()
    messages["m"] = Map({"parts": Array([Text("a"), 1.5, {"b": [None, True]}])})
    text = doc.get("draft", type=Text)
    text += "hello 🙂"
    del text[1:3]
    update = doc.get_update()
    read = parse(update)
    assert select(update, read.inserted, read.deleted) == update
    assert {5: sum(struct.size for struct in read.inserted[5])} == decode_state_vector(doc.get_state())


NOTHING, ONE, TWO = (
    b"\x00\x00",
    b"\x01\x01" + varuint(300) + b"\x05" + bytes((GC, 1)) + b"\x00",
    b"\x02\x01\x09\x00" + bytes((GC, 1)) + b"\x01\x05\x00" + bytes((GC, 1)) + b"\x00",
)


def test_whose_structs_an_update_begins_with():
    assert [count_clients(update) for update in (NOTHING, ONE, TWO)] == [0, 1, 2]
    assert [first_client(update) for update in (NOTHING, ONE, TWO)] == [None, 300, 9]
    assert [sole_client(update) for update in (NOTHING, ONE, TWO)] == [None, 300, None]
    assert [sole_block(Reader(update)) for update in (NOTHING, ONE, TWO)] == [None, (1, 300, 5), None]


@pytest.mark.parametrize("cut", [b"", b"\x01", b"\x01\x01\x80", b"\x02\x01\x09"])
def test_an_update_that_ends_before_its_first_struct_is_refused(cut):
    for read in (count_clients, first_client, sole_client):
        with pytest.raises(MalformedUpdate):
            read(cut)
