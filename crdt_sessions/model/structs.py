"""How Yjs encodes what an update inserts: what those that look at updates by themselves have in common.

Source: Yjs ``encoding.js`` and ``Item.js``, update v1.
"""

from __future__ import annotations

import re

MAX_CLOCK = 2**31
"""No client writes so many characters; behind it the library counts wrongly."""
GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)
"""Kinds of content, in the low bits of a struct's first byte."""
HAS_ORIGIN, HAS_RIGHT_ORIGIN, HAS_KEY = 0x80, 0x40, 0x20
"""Its other bits: whether it stands behind, or before, another one, and whether it is the entry of a map."""


def units(text: bytes) -> int:
    """Return the length of UTF-8 text in UTF-16 units, which Yjs counts in.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return len(text) if text.isascii() else len(text.decode().encode("utf-16-le")) // 2


def may_hold_pairs(update: bytes) -> bool:
    """Tell whether *update* may hold characters of two UTF-16 units; a wrong "yes" is possible."""
    return (len(update) < _SHORT or any(lead in update for lead in _LEADS)) and _FOUR_BYTES.search(update) is not None


_LEADS = tuple(bytes((lead,)) for lead in range(0xF0, 0xF5))
_SHORT = 256
"""Looking for them one after the other is quicker in what is longer."""
_FOUR_BYTES = re.compile(rb"\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf4][\x80-\xbf]{3}")
"""Such a character, in UTF-8."""
