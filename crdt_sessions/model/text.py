"""Text by code points. pycrdt counts UTF-8 bytes, JavaScript counts UTF-16 units; our API counts characters.

Every edit of a ``Text`` at an index goes through here: a raw pycrdt index that falls inside a character
puts the insertion somewhere else without an error.
"""

from __future__ import annotations

from pycrdt import Text

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def utf8_offset(content: str, index: int) -> int:
    """Return how many UTF-8 bytes the first *index* code points of *content* take.

    Raises:
        IndexError: *index* is negative or beyond the end.
    """
    if not 0 <= index <= len(content):
        raise IndexError(f"index {index} is outside a text of {len(content)} characters")
    return len(content[:index].encode("utf-8"))


def insert(text: Text, index: int, addition: str) -> None:
    """Insert *addition* before the code point at *index*.

    Raises:
        IndexError: *index* is negative or beyond the end.
    """
    text.insert(utf8_offset(str(text), index), addition)


def delete(text: Text, index: int, count: int) -> None:
    """Delete *count* code points from *index* on.

    Raises:
        IndexError: the range is not within the text.
    """
    content = str(text)
    start, end = utf8_offset(content, index), utf8_offset(content, index + count)
    if end > start:
        del text[start:end]


def rewrite(text: Text, content: str) -> None:
    """Make *content* of a text, by one change of what differs: what others write around it stays."""
    before = str(text)
    begin = _alike(before, content)
    same = _alike(before[begin:][::-1], content[begin:][::-1])
    delete(text, begin, len(before) - begin - same)
    if addition := content[begin : len(content) - same]:
        insert(text, begin, addition)


def _alike(one: str, other: str) -> int:
    """Return how many characters two strings begin alike with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


class SurrogateJoiner:
    r"""Joins UTF-16 surrogates that a token stream tore apart.

    Models emit bytes; some servers cut them in the middle of an emoji and send each half as ``\ud83d``
    and ``\ude00`` in two JSON chunks. Neither half is a character, so the first is held until the second
    arrives.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what of *text*, and of what was held before, is whole; halves without a partner become U+FFFD."""
        if not self._held and text.isascii():
            return text
        whole = self._held + text
        self._held = ""
        if whole and "\ud800" <= whole[-1] <= "\udbff":
            self._held, whole = whole[-1], whole[:-1]
        return join_surrogates(whole)

    def end(self) -> str:
        """Return the rest: nothing, or one U+FFFD."""
        held, self._held = self._held, ""
        return _REPLACEMENT if held else ""


def join_surrogates(text: str) -> str:
    """Return *text* with surrogate pairs as the characters they mean, and lone surrogates as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
