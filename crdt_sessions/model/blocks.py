"""Whole blocks of rich text: how one tree becomes another as changes that can be made one by one, and where they are.

A block is found again by the id of its element, whatever others write around it. What a change of blocks is in words
is Markdown; items of a list are a list in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pycrdt import TransactionEvent

from crdt_sessions.errors import UpdateError
from crdt_sessions.model.dialects import Dialect, alike
from crdt_sessions.model.library import apply_guarded
from crdt_sessions.model.markdown import from_markdown, inline_to_markdown, to_markdown
from crdt_sessions.model.nodes import Element, ElementType, Node, Parent, Words, attributes_of, element, read_children
from crdt_sessions.model.positions import RelativePosition, StructId
from crdt_sessions.model.revisions import Passage, Path, inline_atoms, marked_as
from crdt_sessions.model.rewriting import Alike, changed_children, text_changes
from crdt_sessions.model.steps import RichText, content_in, copied
from crdt_sessions.wire.update_v1 import ANY, HAS_KEY, NO_DELETIONS, Id, parse, read_head
from crdt_sessions.wire.varint import Reader, decode_state_vector, string, varuint

_PROBE = "probe"
_FIRST = 0
_EMPTY_STRING = b"\x77\x00"
_LISTS = frozenset({"bulletList", "orderedList", "bullet_list", "ordered_list", "list"})
_OPEN = _LISTS | {"listItem", "list_item", "listitem", "blockquote", "blockGroup"}
"""Elements whose blocks change one by one; others change as a whole."""
_TEXTS = frozenset({"paragraph", "heading", "bulletListItem", "numberedListItem", "quote", "listitem"})
"""Elements with a text in them; in an item of Lexical there may be a list."""


class Blocks(NamedTuple):
    """Neighbours in one parent."""

    path: Path
    """Where the parent is; the artifact itself has none."""
    start: int
    stop: int


class TextChange(NamedTuple):
    """Other words in one text."""

    passage: Passage
    after: str


class BlockChange(NamedTuple):
    """Other blocks in place of some, of none, or none in place of some."""

    blocks: Blocks
    after: str


Change = TextChange | BlockChange


def changes(old: Sequence[Node], new: Sequence[Node], dialect: Dialect) -> list[Change]:
    """Return how a fragment becomes another one, first changes first; each can be made without the others."""
    return list(_Comparison(dialect).children(None, old, new, ()))


class _Comparison:
    def __init__(self, dialect: Dialect) -> None:
        self._dialect: Dialect = dialect
        self._alike: Alike = alike(dialect)

    def children(
        self, parent: Element | None, old: Sequence[Node], new: Sequence[Node], path: Path
    ) -> Iterator[Change]:
        """Yield how what stands in an element, or in the artifact, becomes something else."""
        pending: tuple[int, int, list[Node]] | None = None
        for at, before, after in changed_children(old, new, self._alike):
            within = self._within(before, after, (*path, at))
            if pending is not None and (within is not None or pending[1] != at):
                yield self._change(parent, pending, path)
                pending = None
            if within is not None:
                yield from within
                continue
            start, _, added = pending or (at, at, [])
            pending = start, at + (before is not None), [*added, *([after] if after is not None else [])]
        if pending is not None:
            yield self._change(parent, pending, path)

    def _change(self, parent: Element | None, pending: tuple[int, int, list[Node]], path: Path) -> BlockChange:
        start, stop, nodes = pending
        return BlockChange(Blocks(path, start, stop), blocks_to_markdown(parent, nodes, self._dialect))

    def _within(self, before: Node | None, after: Node | None, path: Path) -> list[Change] | None:
        """Return how a block becomes another one by changes in it; None if it must be replaced."""
        if not isinstance(before, Element) or not isinstance(after, Element):
            return None
        if self._alike.element(before) != self._alike.element(after):
            return None
        if before.name in _TEXTS and not any(isinstance(child, Element) for child in before.children):
            return self._text(before, after, path)
        if before.name in _OPEN or (before.name == "blockContainer" and len(before.children) == len(after.children)):
            found = list(self.children(before, before.children, after.children, path))
            return None if before.name == "blockContainer" and any(_is_in(each, path) for each in found) else found
        return None

    def _text(self, before: Element, after: Element, path: Path) -> list[Change] | None:
        if not (len(before.children) == len(after.children) == 1):
            return None
        (old,), (new,) = before.children, after.children
        if not isinstance(old, Words) or not isinstance(new, Words) or not old.atoms:
            return None
        found: list[Change] = []
        for start, stop, begin, end in text_changes(old.atoms, new.atoms, self._alike.atom):
            said = inline_to_markdown(new.atoms[begin:end])
            made = marked_as(inline_atoms(said, self._dialect), old.atoms[start:stop])
            if list(map(self._alike.atom, made)) != list(map(self._alike.atom, new.atoms[begin:end])):
                return None  # Markdown has no words for that
            found.append(TextChange(Passage((*path, 0), start, stop), said))
        return found


def _is_in(change: Change, path: Path) -> bool:
    """Whether a change is of the blocks right in an element."""
    return isinstance(change, BlockChange) and change.blocks.path == path


# -- in words --------------------------------------------------------------------------------------------------------


def blocks_to_markdown(parent: Element | None, nodes: Sequence[Node], dialect: Dialect) -> str:
    """Return blocks that stand in an element, or in the artifact, as Markdown."""
    if not nodes:
        return ""
    name = parent.name if parent is not None else ""
    if parent is not None and (name in _LISTS or name == "blockGroup"):
        return to_markdown([Element(name, parent.attributes, tuple(nodes))], dialect)
    return to_markdown(nodes, dialect)


def blocks_from_markdown(parent: Element | None, text: str, dialect: Dialect) -> tuple[Node, ...]:
    """Return Markdown as blocks that may stand in an element, or in the artifact."""
    found = from_markdown(text, dialect) if text else ()
    inside = parent is not None and (parent.name in _LISTS or parent.name == "blockGroup")
    return tuple(child for each in found if isinstance(each, Element) for child in each.children) if inside else found


def read_blocks(content: RichText, blocks: Blocks, dialect: Dialect) -> str:
    """Return blocks of an artifact as Markdown."""
    parent = parent_at(content, blocks.path)
    return blocks_to_markdown(_shell(parent), read_children(parent)[blocks.start : blocks.stop], dialect)


def with_blocks(content: RichText, blocks: Blocks, after: str, dialect: Dialect) -> tuple[Parent, tuple[Node, ...]]:
    """Return the parent of blocks, and what stands in it with others in their place."""
    parent = parent_at(content, blocks.path)
    old = read_children(parent)
    new = blocks_from_markdown(_shell(parent), after, dialect)
    return parent, (*old[: blocks.start], *new, *old[blocks.stop :])


def _shell(parent: Parent) -> Element | None:
    return element(parent.tag or "", attributes_of(parent)) if isinstance(parent, ElementType) else None


# -- where they are --------------------------------------------------------------------------------------------------


def parent_at(content: RichText, path: Path) -> Parent:
    """Return the element at a path, or the artifact."""
    found: Any = content
    for place in path:
        found = found.children[place]
    return found  # type: ignore[no-any-return]


def places_of(content: RichText, artifact_id: str, blocks: Blocks) -> tuple[RelativePosition, RelativePosition]:
    """Return where blocks begin and end, as places that stay; if there are none, both are where they would be."""
    if blocks.start < blocks.stop:
        first, last = (_id_of(content, artifact_id, (*blocks.path, at)) for at in (blocks.start, blocks.stop - 1))
        return RelativePosition(type=None, item=first, assoc=0), RelativePosition(type=None, item=last, assoc=-1)
    if blocks.start:
        item, kind = _id_of(content, artifact_id, (*blocks.path, blocks.start - 1)), None
    else:
        item, kind = None, _id_of(content, artifact_id, blocks.path) if blocks.path else None
    place = RelativePosition(type=kind, item=item, assoc=-1)
    return place, place


def find_blocks(content: RichText, artifact_id: str, begin: RelativePosition, end: RelativePosition) -> Blocks | None:
    """Return where blocks are now; None if something of their ends is gone, or they are not side by side any more."""
    if begin == end:
        return _find_gap(content, artifact_id, begin)
    if begin.item is None or end.item is None:
        return None
    first, last = (_find(content, artifact_id, each.item) for each in (begin, end) if each.item is not None)
    if not first or not last or first[:-1] != last[:-1] or first[-1] > last[-1]:
        return None
    return Blocks(first[:-1], first[-1], last[-1] + 1)


def _find_gap(content: RichText, artifact_id: str, place: RelativePosition) -> Blocks | None:
    if place.item is not None:
        path = _find(content, artifact_id, place.item)
        return Blocks(path[:-1], path[-1] + 1, path[-1] + 1) if path else None
    if place.type is None:
        return Blocks((), 0, 0)
    path = _find(content, artifact_id, place.type)
    return Blocks(path, 0, 0) if path else None


def _id_of(content: RichText, artifact_id: str, path: Path) -> StructId:
    """Return the id of an element: what is put in it names it."""
    copy = copied(content.doc.get_update())
    shared: Any = parent_at(content_in(copy, artifact_id), path)  # type: ignore[arg-type]
    deltas: list[bytes] = []

    def note(event: TransactionEvent) -> None:
        deltas.append(event.update)

    subscription = copy.observe(note)
    shared.attributes[_PROBE] = ""
    copy.unobserve(subscription)
    ((struct,),) = parse(deltas[0]).inserted.values()
    client, clock = _parent(deltas[0], struct.start, struct.end)
    return StructId(client=client, clock=clock)


def _parent(update: bytes, start: int, end: int) -> Id:
    parent = read_head(Reader(update[start:end])).parent
    assert isinstance(parent, tuple)
    return parent


def _find(content: RichText, artifact_id: str, item: StructId) -> Path | None:
    """Return where the element is that has an id; None if there is none any more."""
    copy = copied(content.doc.get_update())
    known = decode_state_vector(copy.get_state())
    if known.get(item.client, 0) <= item.clock:
        return None
    mark = (
        varuint(1) + varuint(1) + varuint(_FIRST) + varuint(known.get(_FIRST, 0)) + bytes([HAS_KEY | ANY, 0])
        + varuint(item.client) + varuint(item.clock) + string(_PROBE) + varuint(1) + _EMPTY_STRING + NO_DELETIONS
    )  # fmt: skip
    try:
        apply_guarded(copy, mark)
    except UpdateError:
        return None  # it is no element
    return _probed(content_in(copy, artifact_id), ())  # type: ignore[arg-type]


def _probed(parent: Parent, path: Path) -> Path | None:
    for at, child in enumerate(parent.children):
        if isinstance(child, ElementType):
            if _PROBE in attributes_of(child):
                return (*path, at)
            if (found := _probed(child, (*path, at))) is not None:
                return found
    return None
