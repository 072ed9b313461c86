"""lib0's values: each kind is read over whole, and JSON of moderate depth can be demanded."""

import struct

import pytest

from crdt_sessions.errors import WireError
from crdt_sessions.wire.any_value import skip_value
from crdt_sessions.wire.varint import Reader, buffer, string, varuint

NUMBER, NULL = b"\x7d\x05", b"\x7e"
JSON = {
    "text": b"\x77" + string("é"),
    "integer": b"\x7d\xbf\x80\x02",
    "float32": b"\x7c" + struct.pack(">f", 0.5),
    "float64": b"\x7b" + struct.pack(">d", 0.1),
    "true": b"\x78",
    "false": b"\x79",
    "null": NULL,
    "list": b"\x75" + varuint(3) + NUMBER + b"\x75\x00" + NULL,
    "object": b"\x76" + varuint(2) + string("a") + NUMBER + string("b") + b"\x76\x00",
}
OTHERS = {
    "bytes": b"\x74" + buffer(b"\xff\xfe"),
    "big integer": b"\x7a" + bytes(8),
    "undefined": b"\x7f",
    "inside": b"\x75\x01\x7f",
    "not utf-8": b"\x77" + buffer(b"\xff"),
    "a name that is not utf-8": b"\x76\x01" + buffer(b"\xff") + NULL,
    "a number of more than 48 bits": b"\x7d" + b"\x81" * 7 + b"\x01",
}


def nested(levels):
    return b"\x75\x01" * (levels - 1) + NULL


@pytest.mark.parametrize("value", JSON.values(), ids=JSON)
def test_json_is_read_over_whole(value):
    for demanded in (None, 5):
        reader = Reader(value + b"rest")
        skip_value(reader, json_depth=demanded)
        assert reader.take(reader.remaining) == b"rest"


@pytest.mark.parametrize("value", OTHERS.values(), ids=OTHERS)
def test_what_is_not_json_is_read_over_unless_json_is_demanded(value):
    reader = Reader(value + b"rest")
    skip_value(reader)
    assert reader.take(reader.remaining) == b"rest"
    with pytest.raises(WireError):
        skip_value(Reader(value), json_depth=5)


def test_depth_is_unlimited_unless_json_is_demanded():
    skip_value(Reader(nested(100_000)))
    skip_value(Reader(nested(5)), json_depth=5)
    with pytest.raises(WireError):
        skip_value(Reader(nested(6)), json_depth=5)


@pytest.mark.parametrize("value", [b"", b"\x00", b"\x73", b"\x80", b"\x77\x05ab", b"\x75\x02\x7e", b"\x7b\x00"])
def test_what_is_no_value_is_refused(value):
    for demanded in (None, 5):
        with pytest.raises(WireError):
            skip_value(Reader(value), json_depth=demanded)
