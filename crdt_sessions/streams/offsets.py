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

_OFFSET = re.compile(r"[0-9]{16}_([0-9]{16})")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}")


def spelled(position: int) -> str:
    """Return the offset of the place after *position* bytes.

    The first number is for streams that lose their beginning some day; none does yet.
    """
    return f"{0:016d}_{position:016d}"


def place(offset: str) -> int:
    """Return after how many bytes the place of an *offset* is, of which :data:`START` is one.

    Raises:
        BadStreamRequest: it was never handed out.
    """
    if offset == START:
        return 0
    found = _OFFSET.fullmatch(offset)
    if found is None:
        raise BadStreamRequest(why=f"the offset {offset[:80]!r} is none that was handed out")
    return int(found[1]) if offset.startswith("0" * 16) else MAX_INTEGER


def integer(text: str, name: str) -> int:
    """Return the integer that the header *name* holds: digits only, without zeros before it.

    Raises:
        BadStreamRequest: it holds none, or one that JavaScript cannot.
    """
    if _INTEGER.fullmatch(text) is None or int(text) > MAX_INTEGER:
        raise BadStreamRequest(why=f"{name} should be an integer from 0 to {MAX_INTEGER}, not {text[:40]!r}")
    return int(text)
