"""Places in a stream as text: opaque for clients, and in the order of the places as strings."""

from __future__ import annotations

import re

from crdt_sessions.errors import BadStreamRequest

START = "-1"
"""Stands for the beginning."""
NOW = "now"
"""Stands for the end, wherever that is."""
MAX_INTEGER = 2**53 - 1
"""The largest that JavaScript can hold."""

_OFFSET = re.compile(r"([0-9]{16})_([0-9]{16})")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}")


def spelled(position: int, beginning: int = 0) -> str:
    """Return the offset of the place after *position* bytes.

    *beginning* counts how often what the stream shows began anew; streams of their own never do.
    """
    return f"{beginning:016d}_{position:016d}"


def read_offset(offset: str) -> tuple[int, int]:
    """Return the beginning and the position that :func:`spelled` was given.

    Raises:
        BadStreamRequest: it was never handed out.
    """
    found = _OFFSET.fullmatch(offset)
    if found is None:
        raise BadStreamRequest(why=f"the offset {offset[:80]!r} is none that was handed out")
    return int(found[1]), int(found[2])


def place(offset: str) -> int:
    """Return after how many bytes the place of an *offset* is, of which :data:`START` is one.

    Raises:
        BadStreamRequest: it was never handed out.
    """
    if offset == START:
        return 0
    beginning, position = read_offset(offset)
    return MAX_INTEGER if beginning else position


def integer(text: str, name: str) -> int:
    """Return the integer that the header *name* holds: digits only, without zeros before it.

    Raises:
        BadStreamRequest: it holds none, or one that JavaScript cannot.
    """
    if _INTEGER.fullmatch(text) is None or int(text) > MAX_INTEGER:
        raise BadStreamRequest(why=f"{name} should be an integer from 0 to {MAX_INTEGER}, not {text[:40]!r}")
    return int(text)
