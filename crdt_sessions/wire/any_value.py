"""The one reader of lib0's "any" values, in which Yjs writes JSON. Source: lib0 ``decoding.readAny``."""

from __future__ import annotations

from crdt_sessions.errors import BadText
from crdt_sessions.wire.varint import Reader

BYTES, LIST, OBJECT, TEXT, INTEGER = 116, 117, 118, 119, 125
"""Kinds of values that have as many bytes as they say, in a value's first byte."""
TRUE, FALSE, BIG_INTEGER, FLOAT64, FLOAT32, NULL, UNDEFINED = 120, 121, 122, 123, 124, 126, 127
"""Kinds of values that have always the same number of bytes."""

_SIZES = {TRUE: 0, FALSE: 0, BIG_INTEGER: 8, FLOAT64: 8, FLOAT32: 4, NULL: 0, UNDEFINED: 0}
_NOT_JSON = (BYTES, BIG_INTEGER, UNDEFINED)
_MAX_INTEGER_BYTES = 7
"""48 bits: more than anybody counts in JSON."""


def skip_value(reader: Reader, json_depth: int | None = None) -> None:
    """Read over one value, however deep.

    Args:
        reader: stands before the value.
        json_depth: if given, the value must be JSON, with values in at most so many levels, and integers of 48 bits.

    Raises:
        WireError: the bytes end before, there is no such kind, or the value is not what *json_depth* demands.
    """
    skip_text = reader.buffer if json_depth is None else reader.string
    left, named = 1, False  # how many values are left in the list or object that is open, and whether they have names
    around: list[tuple[int, bool]] = []  # the same of those that it is in
    while left or around:
        if not left:
            left, named = around.pop()
            continue
        left -= 1
        if named:
            skip_text()
        kind = reader.take(1)[0]
        if json_depth is not None and (len(around) >= json_depth or kind in _NOT_JSON):
            raise BadText(what="a value that is not JSON, or deeper than allowed")
        if kind == TEXT:
            skip_text()
        elif kind == INTEGER:
            _skip_integer(reader, None if json_depth is None else _MAX_INTEGER_BYTES)
        elif kind in (OBJECT, LIST):
            around.append((left, named))
            left, named = reader.varuint(), kind == OBJECT
        elif kind in _SIZES:
            reader.take(_SIZES[kind])
        elif kind == BYTES:
            reader.buffer()
        else:
            raise BadText(what=f"{kind} is no kind of value")


def _skip_integer(reader: Reader, most: int | None) -> None:
    size = 1
    while reader.take(1)[0] >= 0x80:
        size += 1
        if size - 1 == most:
            raise BadText(what="an integer of more than 48 bits")
