"""How Yjs encodes what an update inserts: what those that look at updates by themselves have in common.

Source: Yjs ``encoding.js`` and ``Item.js``, update v1.
"""

from __future__ import annotations

MAX_CLOCK = 2**31
STRING, TYPE, ANY = 4, 7, 8
"""Kinds of content, in the low bits of a struct's first byte."""
HAS_ORIGIN, HAS_RIGHT_ORIGIN, HAS_KEY = 0x80, 0x40, 0x20
"""Its other bits: whether it stands behind, or before, another one, and whether it is the entry of a map."""


def units(text: bytes) -> int:
    """Return the length of UTF-8 text in UTF-16 units, which Yjs counts in.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return len(text) if text.isascii() else len(text.decode().encode("utf-16-le")) // 2
