"""A document of Lexical, seen as elements and texts, with the methods that those of the CRDT library have.

``@lexical/yjs`` keeps an element as an ``XmlText`` whose attributes are its properties. In it stand elements, and
text: a map with the properties of a text node, and behind it the characters of that node. Links are elements among
the text, a new line is a map, and whatever is drawn by the application (decorators) is an ``XmlElement``. Here all of
that which stands in a line is one text: what a text node or a link says of its characters is said by marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from pycrdt import Doc, Map, XmlElement, XmlText

from crdt_sessions.model.lexical_marks import (
    LINE_BREAK,
    TYPE_KEY,
    USUAL,
    Around,
    Properties,
    around_in,
    map_of,
    node_of,
    put_link,
    said_in,
)
from crdt_sessions.model.lexical_pieces import LINES, Piece, Span, pieces_of, spans_of, untidy
from crdt_sessions.model.spelling import whole

_UNTYPED = "UNDEFINED"
"""The name of all decorators in the document."""
_DECORATORS = frozenset({"horizontalrule"})


class LexicalElement:
    """An element, or the root.

    Args:
        shared: what it is in the document; a decorator is an ``XmlElement``.
    """

    def __init__(self, shared: XmlText | XmlElement) -> None:
        self.shared = shared

    @property
    def doc(self) -> Doc[Any]:
        """Its document."""
        return self.shared.doc

    @property
    def tag(self) -> str:
        """Its type, such as ``heading``."""
        named: Any = self.shared.attributes.get(TYPE_KEY)
        if isinstance(named, str):
            return named
        return (isinstance(self.shared, XmlElement) and self.shared.tag) or "root"

    @property
    def attributes(self) -> LexicalAttributes:
        """Its properties, but for its type."""
        return LexicalAttributes(self.shared)

    @property
    def children(self) -> LexicalChildren:
        """What stands in it."""
        return LexicalChildren(self)

    @property
    def parent(self) -> LexicalElement | None:
        """The element that it is in."""
        found = self.shared.parent
        return LexicalElement(found) if isinstance(found, XmlText) else None

    def number(self) -> None:
        """Give the items of a list their numbers, which its editor shows; of what is no list, do nothing."""
        if self.tag != "list":
            return
        value = whole(self.shared.attributes.get("__start")) or 1
        for item in self.children:
            if isinstance(item, LexicalElement):
                if item.shared.attributes.get("__value") != value:
                    item.shared.attributes["__value"] = value
                first = next(iter(item.children), None)
                value += not (isinstance(first, LexicalElement) and first.tag == "list")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LexicalElement) and self.shared == other.shared

    def __hash__(self) -> int:
        return hash(self.shared)


class LexicalAttributes:
    """The properties of an element, by their names, but for those that follow from others."""

    def __init__(self, shared: XmlText | XmlElement) -> None:
        self._shared = shared

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        pairs = cast(Iterable[tuple[str, Any]], self._shared.attributes)
        return (pair for pair in pairs if pair[0] not in (TYPE_KEY, "__value"))

    def __setitem__(self, key: str, value: Any) -> None:
        self._shared.attributes[key] = value

    def __delitem__(self, key: str) -> None:
        del self._shared.attributes[key]


class LexicalChildren:
    """What stands in an element: elements and texts; two texts are never neighbours."""

    def __init__(self, parent: LexicalElement) -> None:
        self._parent = parent

    def _spans(self) -> list[Span]:
        shared = self._parent.shared
        return spans_of(shared, in_lines=self._parent.tag in LINES) if isinstance(shared, XmlText) else []

    def __len__(self) -> int:
        return len(self._spans())

    def __iter__(self) -> Iterator[LexicalElement | LexicalText]:
        return iter([self._child(span, at) for at, span in enumerate(self._spans())])

    def __getitem__(self, at: int) -> LexicalElement | LexicalText:
        return self._child(self._spans()[at], at)

    def __delitem__(self, at: int) -> None:
        start, stop, _ = self._spans()[at]
        del self._shared[start:stop]

    def insert(self, at: int, child: XmlText | XmlElement) -> LexicalElement | LexicalText:
        """Put an element, or a text that is written into at once, in front of a child; return it."""
        spans = self._spans()
        place = spans[at].start if at < len(spans) else len(self._shared)
        if isinstance(child, XmlText):
            return LexicalText(self._shared, at, place)
        tag = str(child.prelim[0])
        shared = XmlElement(_UNTYPED) if tag in _DECORATORS else XmlText()
        self._shared.insert_embed(place, shared)
        shared.attributes[TYPE_KEY] = tag
        return LexicalElement(shared)

    @property
    def _shared(self) -> XmlText:
        shared = self._parent.shared
        assert isinstance(shared, XmlText)
        return shared

    def _child(self, span: Span, at: int) -> LexicalElement | LexicalText:
        if span.element is not None:
            return LexicalElement(span.element)
        return LexicalText(self._shared, at, span.start)


class LexicalText:
    """What stands in a line, with its places in bytes; an embed takes one, and what only says something takes none.

    Args:
        block: the element.
        at: which of its children it is.
        start: where it begins, or would.
    """

    def __init__(self, block: XmlText, at: int, start: int) -> None:
        self._block, self._at, self._start = block, at, start
        self._pieces: list[Piece] | None = None

    @property
    def doc(self) -> Doc[Any]:
        """Its document."""
        return self._block.doc

    @property
    def parent(self) -> LexicalElement:
        """The element that it is in."""
        return LexicalElement(self._block)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LexicalText) and (self._block, self._at) == (other._block, other._at)

    def __hash__(self) -> int:
        return hash((self._block, self._at))

    def observe(self, follow: Callable[[Any], None]) -> Any:
        """Have *follow* called with what changes in the block."""
        return self._block.observe(follow)

    def unobserve(self, subscription: Any) -> None:
        """Have it called no more."""
        self._block.unobserve(subscription)

    # -- reading ---------------------------------------------------------------------------------------------------

    def diff(self) -> list[tuple[Any, Properties | None]]:
        """Return its characters and embeds with their marks."""
        self._pieces = self._read()
        return [(piece.value, piece.marks or None) for piece in self._pieces]

    def _read(self) -> list[Piece]:
        spans = LexicalChildren(LexicalElement(self._block))._spans()
        if self._at >= len(spans) or spans[self._at].element is not None:
            return []
        self._start, stop, _ = spans[self._at]
        return [piece for piece in pieces_of(self._block) if self._start < piece.top <= stop]

    def inside(self, place: int) -> int:
        """Return which place in this text one in the block is."""
        found = 0
        for piece in self._read():
            if piece.top <= place:
                found += piece.size
            elif piece.container == self._block and piece.start < place:
                found += place - piece.start
        return found

    def outside(self, offset: int) -> int:
        """Return where in the block a place is: behind what it is behind here; of a link, that is behind the link."""
        at = 0
        for piece in self._read():
            if at + piece.size >= offset > at:
                return piece.start + offset - at if piece.container == self._block else piece.top
            at += piece.size
        return self._start

    # -- writing ---------------------------------------------------------------------------------------------------

    def insert(self, offset: int, text: str, marks: Mapping[str, Any] | None = None) -> None:
        """Write *text* at a place; marks that are None are none."""
        said = said_in(marks)
        container, at, node = self._room(offset, said)
        if node:
            container.insert_embed(at, map_of(node_of(said)))
        container.insert(at + node, text)
        self._pieces = None

    def insert_embed(self, offset: int, value: Any, marks: Mapping[str, Any] | None = None) -> None:
        """Write an embed at a place: a new line, or a decorator that was there before; others are left out."""
        if not isinstance(value, dict) or TYPE_KEY not in value:
            return
        container, at, _ = self._room(offset, said_in(marks), embed=True)
        if value[TYPE_KEY] == LINE_BREAK:
            container.insert_embed(at, Map(value))
        else:
            shared = XmlElement(_UNTYPED)
            container.insert_embed(at, shared)
            for key, each in value.items():
                shared.attributes[key] = each
        self._pieces = None

    def __delitem__(self, bounds: slice) -> None:
        pieces = self._pieces if self._pieces is not None else self._read()
        end = sum(piece.size for piece in pieces)
        start, stop = bounds.start or 0, end if bounds.stop is None else bounds.stop
        for index in range(len(pieces) - 1, -1, -1):
            piece = pieces[index]
            end -= piece.size
            first, last = max(start - end, 0), min(stop - end, piece.size)
            if first < last:
                del piece.container[piece.start + first : piece.start + last]
                pieces[index] = piece._replace(size=piece.size - last + first)
                for later in range(index + 1, len(pieces)):
                    if pieces[later].container == piece.container:
                        pieces[later] = pieces[later]._replace(start=pieces[later].start - last + first)
        self._pieces = pieces

    def covered(self, offset: int, length: int) -> list[tuple[LexicalElement, int, int]]:
        """Return the outermost elements in the line of which everything is between two places: where that is."""
        found: list[tuple[LexicalElement, int, int]] = []
        at = 0
        for piece in self._read():
            stop = at + piece.size
            if piece.around:
                shared = piece.container
                for _ in piece.around[1:]:
                    shared = cast(XmlText, shared.parent)
                if found and found[-1][0].shared == shared:
                    found[-1] = (found[-1][0], found[-1][1], stop)
                else:
                    found.append((LexicalElement(shared), at, stop))
            at = stop
        return [each for each in found if offset <= each[1] and each[2] <= offset + length]

    def untidy(self) -> list[tuple[XmlText, int, Map[Any] | None]]:
        """Return what is to go, last things first, so that its editor finds what it would make of it itself.

        That are text nodes without text, those that say the same as the one in front of them, and links without
        text. Each is told by where it stands, and the shared map of a text node.
        """
        self._pieces = None
        return list(reversed(list(untidy(self._block))))

    def tidy(self) -> None:
        """Take away what is :meth:`untidy`."""
        for container, at, _ in self.untidy():
            del container[at : at + 1]

    def _room(self, offset: int, marks: Properties, *, embed: bool = False) -> tuple[XmlText, int, bool]:
        """Make room at a place; return where in which element it is, and whether a text node must begin there."""
        left, right = self._beside(offset)
        for piece, at in ((left, left.stop if left else 0), (right, right.start if right else 0)):
            if not embed and piece is not None and piece.is_text and piece.node and piece.marks == marks:
                return piece.container, at, False
        if right is not None and right.is_text and (right is left or not right.node):  # it needs a node of its own
            place = left.stop if left is right and left is not None else right.start
            right.container.insert_embed(place, map_of(right.node or USUAL))
        around = around_in(marks)
        if left is not None and left.around == around:
            return left.container, left.stop, True
        if right is not None and right.around == around:
            return right.container, right.start - bool(right.is_text and right.node), True
        return *self._line_elements(left.top if left is not None else self._start, around), True

    def _beside(self, offset: int) -> tuple[Piece | None, Piece | None]:
        """Return what stands on both sides of a place; within a text node, both are the part in front of it."""
        left: Piece | None = None
        at = 0
        for piece in self._read():
            if at >= offset:
                return left, piece
            left, at = piece, at + piece.size
            if at > offset:
                left = piece._replace(
                    size=piece.size - at + offset, top=piece.top - (at - offset) * (not piece.around)
                )
                return left, left
        return left, None

    def _line_elements(self, place: int, around: Around) -> tuple[XmlText, int]:
        container = self._block
        for name, said in around:
            inner = XmlText()
            container.insert_embed(place, inner)
            put_link(inner, name, said)
            container, place = inner, 0
        return container, place
