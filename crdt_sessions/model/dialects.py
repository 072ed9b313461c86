"""Rich text as editors hold it: four dialects, and one tree that stands between them and Markdown.

The tree has Tiptap's names. ProseMirror's own schema names the same things otherwise, and BlockNote has no lists, but
blocks that are items of one. Lexical's own names are in :mod:`crdt_sessions.model.lexical_blocks`. Elements of other
names are kept: the tree says that they are there, and no more.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal

from crdt_sessions.model import lexical_blocks
from crdt_sessions.model.lexical import LexicalElement
from crdt_sessions.model.lexical_blocks import from_lexical, to_lexical, type_of
from crdt_sessions.model.nodes import (
    KEPT,
    NEW_LINE,
    PLAIN,
    Atom,
    Element,
    Embed,
    Node,
    Parent,
    Words,
    canonical,
    element,
    joined,
    read_children,
    words,
)
from crdt_sessions.model.rewriting import Alike

Dialect = Literal["tiptap", "prosemirror", "blocknote", "lexical"]
"""Whose names the elements have."""

_PROSEMIRROR = {
    "bulletList": "bullet_list",
    "orderedList": "ordered_list",
    "listItem": "list_item",
    "codeBlock": "code_block",
    "horizontalRule": "horizontal_rule",
    "hardBreak": "hard_break",
    "tableRow": "table_row",
    "tableHeader": "table_header",
    "tableCell": "table_cell",
}
_PROSEMIRROR_MARKS = {"bold": "strong", "italic": "em"}
_SHARED = ("paragraph", "heading", "blockquote", "image", "table")
_TIPTAP = {name: name for name in (*_SHARED, *_PROSEMIRROR)}
_NAMES: dict[Dialect, dict[str, str]] = {
    "tiptap": _TIPTAP,
    "prosemirror": _TIPTAP | _PROSEMIRROR,
    "blocknote": _TIPTAP | {"blockquote": "quote", "horizontalRule": "divider"},
    "lexical": {},
}
_ITEMS = {"bulletListItem": "bulletList", "numberedListItem": "orderedList"}
"""BlockNote's blocks that are items, and the lists they make."""
_SAID = frozenset({"level", "start", "language", "params", "order", "src", "href", "alt", "title", "url", "name"})
"""Attributes that Markdown has words for."""
_MARKS = ("link", "bold", "italic", "strike", "code")


def dialect_in(content: Parent, otherwise: Dialect = "tiptap") -> Dialect:
    """Return in whose dialect a shared fragment is; *otherwise* if it holds nothing that tells."""
    return "lexical" if isinstance(content, LexicalElement) else dialect_of(read_children(content), otherwise)


def dialect_of(children: Iterable[Node], otherwise: Dialect = "tiptap") -> Dialect:
    """Return in whose dialect rich text is; *otherwise* if it holds nothing that tells."""
    names = {each for child in children for each in _names_in(child)}
    if names & {"blockGroup", "blockContainer"}:
        return "blocknote"
    if names & set(_PROSEMIRROR.values()):
        return "prosemirror"
    return "tiptap" if names & (set(_PROSEMIRROR) - {"heading"}) else otherwise


def to_dialect(blocks: Sequence[Node], dialect: Dialect) -> tuple[Node, ...]:
    """Return blocks with Tiptap's names as what stands in a fragment of some *dialect*."""
    if dialect == "lexical":
        return to_lexical(blocks)
    if dialect == "blocknote":
        return (element("blockGroup", {}, _lowered(blocks)),)
    return tuple(renamed(block, dialect) for block in blocks)


def from_dialect(children: Sequence[Node], dialect: Dialect) -> list[Node]:
    """Return what stands in a fragment of some *dialect* with Tiptap's names."""
    if dialect == "lexical":
        return from_lexical(children)
    if dialect == "blocknote":
        return _lifted([each for child in children if isinstance(child, Element) for each in child.children])
    return [_generic(child, dialect) for child in children]


def alike(dialect: Dialect) -> Alike:
    """Return when an element of rich text and one that came from Markdown are the same to who writes Markdown."""
    if dialect == "lexical":
        return _LEXICAL
    names = frozenset(_NAMES[dialect].values()) | _BLOCKNOTE

    def key(written: Element) -> Hashable:
        if written.name not in names:
            return written.name.removeprefix(KEPT)
        said = {
            k: v for k, v in written.values.items() if k in _SAID and v not in (None, "") and (k, v) not in _USUAL
        }
        return written.name, canonical(said)

    return Alike(
        atom=lambda atom: (atom.value, _said_marks(atom.marks)),
        element=key,
        attributes=lambda written: _SAID & written.values.keys(),
        whole=lambda written: written.name not in names,
    )


_BLOCKNOTE = frozenset({*_ITEMS, "blockGroup", "blockContainer", "tableParagraph", "quote", "divider"})
_USUAL = (("start", 1), ("order", 1), ("language", "text"), ("title", ""))


def _lexical_key(written: Element) -> Hashable:
    is_known = written.name in lexical_blocks.NAMES
    return lexical_blocks.said(written) if is_known else written.name.removeprefix(KEPT)


def _lexical_atom(atom: Atom) -> Hashable:
    if isinstance(atom.value, Embed) and atom.value != NEW_LINE:
        return KEPT, type_of(atom.value).removeprefix(KEPT)
    return atom.value, _said_marks(atom.marks)


_LEXICAL = Alike(
    atom=_lexical_atom,
    element=_lexical_key,
    attributes=lambda written: frozenset(),
    whole=lambda written: written.name not in lexical_blocks.NAMES,
)


@lru_cache(maxsize=1024)
def _said_marks(marks: str) -> str:
    """Return the marks that Markdown has words for."""
    said = {}
    for name, value in (json.loads(marks) if marks else {}).items():
        ours = our_mark(name)
        if ours in _MARKS:
            said[ours] = value.get("href") if ours == "link" and isinstance(value, dict) else True
    return canonical(said)


def our_mark(name: str) -> str:
    """Return the name of a mark in Tiptap."""
    name = name.split("--")[0]  # y-prosemirror adds a digest to marks that may overlap
    return {"strong": "bold", "em": "italic"}.get(name, name)


def _names_in(node: Node) -> Iterator[str]:
    if isinstance(node, Element):
        yield node.name
        for child in node.children:
            yield from _names_in(child)


def renamed(node: Node, dialect: Dialect) -> Node:
    """Return a node with Tiptap's names with those of another dialect; lists of BlockNote are no matter of names."""
    if isinstance(node, Words):
        if dialect != "prosemirror":
            return node
        return Words(tuple(Atom(atom.value, _renamed_marks(atom.marks)) for atom in node.atoms))
    values = dict(node.values)
    if dialect == "prosemirror" and "start" in values:
        values["order"] = values.pop("start")
    if dialect == "prosemirror" and node.name == "codeBlock" and "language" in values:
        values["params"] = values.pop("language")
    return element(_NAMES[dialect].get(node.name, node.name), values, (renamed(c, dialect) for c in node.children))


@lru_cache(maxsize=1024)
def _renamed_marks(marks: str) -> str:
    if not marks:
        return PLAIN
    return canonical({_PROSEMIRROR_MARKS.get(name, name): value for name, value in json.loads(marks).items()})


def _generic(node: Node, dialect: Dialect) -> Node:
    """Return a node of some dialect with Tiptap's names."""
    if isinstance(node, Words):
        return node
    names = {their: our for our, their in _NAMES[dialect].items()}
    values = dict(node.values)
    for their, our in (("order", "start"), ("params", "language")):
        if their in values:
            values[our] = values.pop(their)
    name = names.get(node.name, KEPT + node.name.removeprefix(KEPT))
    return element(name, values, (_generic(child, dialect) for child in node.children))


def _lowered(blocks: Iterable[Node]) -> Iterator[Element]:
    """Yield blocks as BlockNote has them: each in a container of its own, lists as their items."""
    for block in blocks:
        if not isinstance(block, Element):
            continue
        if block.name in ("bulletList", "orderedList"):
            kind = "bulletListItem" if block.name == "bulletList" else "numberedListItem"
            for at, item in enumerate(block.children):
                start = block.values.get("start") if at == 0 else None
                yield _item(kind, start, item.children if isinstance(item, Element) else ())
        elif block.name == "blockquote":
            yield from (_container(element("quote", {}, each)) for each in _quoted(block))
        elif block.name == "table":
            yield _container(_renamed_cells(block))
        elif block.name.startswith(KEPT):
            yield block
        else:
            yield _container(element(_NAMES["blocknote"].get(block.name, block.name), block.values, block.children))


def _item(kind: str, start: Any, children: Sequence[Node]) -> Element:
    first = children[0] if children and isinstance(children[0], Element) else None
    if first is not None and first.name == "paragraph":
        return _container(element(kind, {"start": start}, first.children), _lowered(children[1:]))
    return _container(element(kind, {"start": start}), _lowered(children))


def _quoted(block: Element) -> Iterator[Sequence[Node]]:
    for child in block.children:
        if isinstance(child, Element):
            yield child.children if child.name in ("paragraph", "heading") else [words(child.text)]


def _renamed_cells(table: Element) -> Element:
    rows = []
    for row in table.children:
        cells = [
            element(cell.name, {}, [element("tableParagraph", {}, _cell_content(cell))])
            for cell in (row.children if isinstance(row, Element) else ())
            if isinstance(cell, Element)
        ]
        rows.append(element("tableRow", {}, cells))
    return element("table", {}, rows)


def _cell_content(cell: Element) -> list[Node]:
    return joined(each for child in cell.children if isinstance(child, Element) for each in child.children)


def _container(block: Element, below: Iterable[Element] = ()) -> Element:
    nested = list(below)
    return element("blockContainer", {}, [block, *([element("blockGroup", {}, nested)] if nested else [])])


def _lifted(containers: Iterable[Node]) -> list[Node]:
    """Return BlockNote's blocks with Tiptap's names, items that follow one another as a list."""
    blocks = [_opened(each) for each in containers if isinstance(each, Element)]
    found: list[Node] = []
    for kind, group in groupby(blocks, lambda pair: _ITEMS.get(pair[0].name)):
        for block, below in group:
            if kind is None:
                found += [_lifted_block(block), *below]
                continue
            item = element("listItem", {}, [element("paragraph", {}, block.children), *below])
            last = found[-1] if found else None
            start = block.values.get("start")
            if isinstance(last, Element) and last.name == kind and start is None:
                found[-1] = element(kind, last.values, [*last.children, item])
            else:
                found.append(element(kind, {"start": start}, [item]))
    return found


def _opened(container: Element) -> tuple[Element, list[Node]]:
    """Return the block in a container, and those below it."""
    children = [child for child in container.children if isinstance(child, Element)]
    if container.name != "blockContainer" or not children:
        return container, []
    below = [each for child in children[1:] for each in child.children]
    return children[0], _lifted(below)


def _lifted_block(block: Element) -> Node:
    if block.name == "table":
        cells_named = json.loads(json.dumps(block.values))
        return element(
            "table", cells_named, [_lifted_cells(row) for row in block.children if isinstance(row, Element)]
        )
    if block.name == "quote":
        return element("blockquote", {}, [element("paragraph", {}, block.children)])
    return _generic(block, "blocknote")


def _lifted_cells(row: Element) -> Element:
    cells = [cell for cell in row.children if isinstance(cell, Element)]
    return element("tableRow", {}, [element(c.name, {}, [element("paragraph", {}, _cell_content(c))]) for c in cells])
