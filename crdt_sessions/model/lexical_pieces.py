"""What stands in a shared text of Lexical, piece by piece, and where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from pycrdt import Map, XmlElement, XmlText

from crdt_sessions.model.lexical_marks import (
    INLINE,
    LINE_BREAK,
    TYPE_KEY,
    Around,
    Properties,
    link_of,
    marks_of,
    properties_of,
)
from crdt_sessions.model.spelling import spelled

LINES = frozenset({"paragraph", "heading", "quote", "listitem", "code", *INLINE})
"""Elements whose decorators are part of a line."""


class Span(NamedTuple):
    """A child: where it begins and ends in its parent, and the element; None if it is text."""

    start: int
    stop: int
    element: XmlText | XmlElement | None


class Piece(NamedTuple):
    """Characters of one text node, or one embed."""

    container: XmlText
    """The element that it stands in: the block, or a link in it."""
    start: int
    """Where, in bytes; an embed takes one."""
    size: int
    value: Any
    """Characters, or an embed as JSON."""
    node: Properties | None
    """What its text node says of it; None if it has none."""
    around: Around
    """The elements that stand in the line which it is in, outermost first, and their properties as JSON."""
    top: int
    """Where in the block the next one may stand that is in none of these elements."""

    @property
    def stop(self) -> int:
        """Where it ends in its container."""
        return self.start + self.size

    @property
    def is_text(self) -> bool:
        """Whether it is characters."""
        return isinstance(self.value, str)

    @property
    def marks(self) -> Properties:
        """What is said of it."""
        return {
            **(marks_of(self.node) if self.node else {}),
            **{name: json.loads(said) for name, said in self.around},
        }


def spans_of(shared: XmlText, *, in_lines: bool) -> list[Span]:
    """Return the children of an element; *in_lines* says whether decorators are part of a line there."""
    found: list[Span] = []
    at = 0
    for value in _values(shared):
        stop = at + _size(value)
        if _is_block(value, in_lines):
            found.append(Span(at, stop, value))
        elif found and found[-1].element is None:
            found[-1] = found[-1]._replace(stop=stop)
        else:
            found.append(Span(at, stop, None))
        at = stop
    return found


def _values(shared: XmlText) -> Iterator[Any]:
    """Yield what stands in a shared text: characters in a row, and embeds."""
    text = ""
    for value, _ in shared.diff():
        if isinstance(value, str):
            text += value  # in two if somebody has formatted one of them, which is nothing to Lexical
            continue
        if text:
            yield text
        text = ""
        yield value
    if text:
        yield text


def _is_block(value: Any, in_lines: bool) -> bool:
    if isinstance(value, XmlText):
        return not in_lines or value.attributes.get(TYPE_KEY) not in INLINE
    return isinstance(value, XmlElement) and not in_lines


def _size(value: Any) -> int:
    return len(value.encode()) if isinstance(value, str) else 1


def pieces_of(container: XmlText, around: Around = (), top: int | None = None) -> Iterator[Piece]:
    """Yield what stands in a line; *top* is where a link that it is in ends in its block."""
    at, node = 0, None
    for value in _values(container):
        stop = at + _size(value)
        place = stop if top is None else top
        if isinstance(value, str):
            yield Piece(container, at, stop - at, value, node, around, place)
        elif isinstance(value, XmlText):
            node, name = None, str(value.attributes.get(TYPE_KEY))
            if name in INLINE:
                yield from pieces_of(value, (*around, (name, link_of(value))), place)
        elif isinstance(value, Map) and (properties := properties_of(value))[TYPE_KEY] != LINE_BREAK:
            node = properties
        else:
            node = None
            yield Piece(container, at, 1, _embed_of(value), None, around, place)
        at = stop


def _embed_of(value: Any) -> Any:
    if isinstance(value, XmlElement):
        said = {str(key): spelled(each) for key, each in value.attributes}  # type: ignore[attr-defined]
        return {TYPE_KEY: value.tag} | said
    return spelled(value)


def untidy(container: XmlText) -> Iterator[tuple[XmlText, int, Map[Any] | None]]:
    """Yield text nodes and links that are to go: where each stands, and the shared map of a text node."""
    at = 0
    said: Properties | None = None  # of the text right before
    empty: tuple[int, Map[Any], Properties] | None = None
    for value in _values(container):
        if isinstance(value, str):
            if empty is not None and empty[2] == said and _merges(said):
                yield container, empty[0], empty[1]
            elif empty is not None:
                said = empty[2]
            empty, at = None, at + _size(value)
            continue
        if empty is not None:
            yield container, empty[0], empty[1]
            empty = None
        if isinstance(value, Map) and (properties := properties_of(value))[TYPE_KEY] != LINE_BREAK:
            empty = at, value, properties
        elif isinstance(value, XmlText) and value.attributes.get(TYPE_KEY) in INLINE:
            gone = list(untidy(value))
            if len(value) == len(gone):
                yield container, at, None
            else:
                yield from gone
                said = None
        else:
            said = None
        at += 1
    if empty is not None:
        yield container, empty[0], empty[1]


def _merges(node: Properties) -> bool:
    """Whether its editor makes one of two text nodes side by side that both say this."""
    return node[TYPE_KEY] == "text" and not node.get("__mode") and not node.get("__detail")
