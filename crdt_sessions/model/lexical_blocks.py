"""Blocks with Tiptap's names, and as Lexical's own nodes have them.

A quote of Lexical has no blocks, but lines; an item of a list neither: a list below it is an item of its own. A line
ends in an embed, and a cell says by a number whether it is a heading.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from crdt_sessions.model.lexical_marks import LINE_BREAK, TYPE_KEY
from crdt_sessions.model.nodes import (
    KEPT,
    NEW_LINE,
    PLAIN,
    Atom,
    Element,
    Embed,
    Node,
    Words,
    canonical,
    element,
    joined,
    words,
)

NAMES = frozenset(
    {"paragraph", "heading", "quote", "list", "listitem", "code", "horizontalrule", "table", "tablerow", "tablecell"}
)
_LISTS = {"bulletList": "bullet", "orderedList": "number"}
_TAGS = {"bullet": "ul", "number": "ol"}
_HEADER = 1
"""Of a cell in a row of headings; 3 if its column is one as well."""
_BREAK = Atom(NEW_LINE, PLAIN)
_LEVELS = {f"h{level}": level for level in range(1, 7)}


def said(written: Element) -> Hashable:
    """Return what Markdown says of an element of Lexical."""
    values = written.values
    if written.name == "heading":
        return "heading", _LEVELS.get(_text(values.get("__tag")), 1)
    if written.name == "list":
        numbered = _is_numbered(values)
        return "list", numbered, values.get("__start") or 1 if numbered else 1
    if written.name == "code":
        return "code", values.get("__language") or None
    if written.name == "tablecell":
        return "tablecell", _is_header(values)
    return written.name


# -- to Lexical ------------------------------------------------------------------------------------------------------


def to_lexical(blocks: Iterable[Node]) -> tuple[Node, ...]:
    """Return blocks as what stands in a root of Lexical."""
    return tuple(each for block in blocks for each in _lowered(block))


def _lowered(block: Node) -> Iterator[Element]:
    if isinstance(block, Words):
        yield element("paragraph", {}, [block])
    elif block.name in _LISTS:
        kind, start = _LISTS[block.name], block.values.get("start")
        numbered = {"__start": start} if kind == "number" and start not in (None, 1) else {}
        items = (each for at, item in enumerate(block.children) for each in _items(item, first=at == 0))
        yield element("list", {"__listType": kind, "__tag": _TAGS[kind], **numbered}, items)
    elif block.name == "blockquote":
        for child in block.children:
            yield element("quote", {}, _line([*_lines(child)]))
    elif block.name == "table":
        yield element("table", {}, map(_row, block.children))
    elif block.name == "heading":
        yield element("heading", {"__tag": f"h{block.values.get('level', 1)}"}, _line([block]))
    elif block.name == "codeBlock":
        yield element("code", {"__language": block.values.get("language")}, _line([_broken(block.text)]))
    elif block.name == "horizontalRule":
        yield element("horizontalrule")
    elif block.name == "paragraph":
        yield element("paragraph", {}, _line([block]))
    else:
        yield block


def _items(item: Node, *, first: bool) -> Iterator[Element]:
    """Yield an item, and those that have the lists below it."""
    blocks = item.children if isinstance(item, Element) else (item,)
    lines = [line for block in blocks if not _is_list(block) for line in _lines(block)]
    below = [block for block in blocks if _is_list(block)]
    if lines or not below or not first:
        yield element("listitem", {}, _line(lines))
    yield from (element("listitem", {}, _lowered(each)) for each in below)


def _row(row: Node) -> Element:
    cells = row.children if isinstance(row, Element) else ()
    return element("tablerow", {}, (_cell(cell) for cell in cells if isinstance(cell, Element)))


def _cell(cell: Element) -> Element:
    state = _HEADER if cell.name == "tableHeader" else 0
    return element("tablecell", {"__headerState": state}, to_lexical(cell.children))


def _lines(block: Node) -> Iterator[Node]:
    """Yield what is to be lines of a block that has no blocks in it."""
    if isinstance(block, Element) and block.name == "codeBlock":
        yield _broken(block.text)
    elif isinstance(block, Element) and block.name not in ("paragraph", "heading"):
        inner = [line for child in block.children for line in _lines(child)]
        yield from inner or [words(block.text)]
    else:
        yield block


def _line(blocks: Sequence[Node]) -> list[Node]:
    """Return what stands in blocks as one text, a line each."""
    atoms: list[Atom] = []
    for at, block in enumerate(blocks):
        if at:
            atoms.append(_BREAK)
        for each in block.children if isinstance(block, Element) else (block,):
            atoms += each.atoms if isinstance(each, Words) else _inline(each)
    return joined([Words(tuple(atoms))])


def _inline(node: Element) -> Sequence[Atom]:
    if node.name == "hardBreak":
        return (_BREAK,)
    if node.name == "image":  # none of Lexical's own nodes is one: it is a link
        source = node.values.get("src") or ""
        return words(str(node.values.get("alt") or source), {"link": {"href": source}}).atoms
    return (Atom(Embed(canonical({TYPE_KEY: node.name})), PLAIN),)


def _broken(text: str) -> Words:
    return Words(tuple(_BREAK if atom.value == "\n" else atom for atom in words(text).atoms))


# -- from Lexical ----------------------------------------------------------------------------------------------------


def from_lexical(children: Iterable[Node]) -> list[Node]:
    """Return what stands in a root of Lexical with Tiptap's names."""
    return [_lifted(child) for child in children]


def _lifted(node: Node) -> Node:
    if isinstance(node, Words):
        return element("paragraph", {}, _apart(node))
    values = node.values
    if node.name == "list":
        numbered = _is_numbered(values)
        start = values.get("__start") if numbered and values.get("__start") != 1 else None
        return element("orderedList" if numbered else "bulletList", {"start": start}, _lifted_items(node.children))
    if node.name == "quote":
        return element("blockquote", {}, [element("paragraph", {}, _apart_all(node))])
    if node.name == "heading":
        return element("heading", {"level": _LEVELS.get(_text(values.get("__tag")), 1)}, _apart_all(node))
    if node.name == "code":
        return element("codeBlock", {"language": values.get("__language") or None}, [words(_code(node))])
    if node.name == "table":
        return element("table", {}, (_lifted_row(row) for row in node.children if isinstance(row, Element)))
    if node.name == "horizontalrule":
        return element("horizontalRule")
    if node.name == "paragraph":
        return element("paragraph", {}, _apart_all(node))
    return Element(KEPT + node.name.removeprefix(KEPT))


def _lifted_items(items: Iterable[Node]) -> list[Node]:
    found: list[Node] = []
    for item in items:
        children = item.children if isinstance(item, Element) else (item,)
        below: list[Node] = [_lifted(child) for child in children if isinstance(child, Element)]
        text = [each for child in children if isinstance(child, Words) for each in _apart(child)]
        last = found[-1] if found else None
        if below and not text and isinstance(last, Element):
            found[-1] = element(last.name, {}, [*last.children, *below])
        else:
            paragraph = [] if below and not text else [element("paragraph", {}, text)]
            found.append(element("listItem", {}, [*paragraph, *below]))
    return found


def _lifted_row(row: Element) -> Element:
    cells = [cell for cell in row.children if isinstance(cell, Element)]
    return element("tableRow", {}, (element(_cell_name(cell), {}, from_lexical(cell.children)) for cell in cells))


def _cell_name(cell: Element) -> str:
    return "tableHeader" if _is_header(cell.values) else "tableCell"


def _apart_all(node: Element) -> list[Node]:
    """Return what stands in a block, as inline content."""
    return [each for child in node.children for each in (_apart(child) if isinstance(child, Words) else [child])]


def _apart(text: Words) -> list[Node]:
    """Return a text as inline content: what is no character in it as elements."""
    found: list[Node] = []
    for atom in text.atoms:
        if not isinstance(atom.value, Embed):
            found.append(Words((atom,)))
        else:
            name = type_of(atom.value)
            found.append(element("hardBreak") if name == LINE_BREAK else Element(KEPT + name.removeprefix(KEPT)))
    return joined(found)


def _code(node: Element) -> str:
    atoms = (atom for child in node.children if isinstance(child, Words) for atom in child.atoms)
    return "".join("\n" if isinstance(atom.value, Embed) else atom.value for atom in atoms)


def type_of(embed: Embed) -> str:
    """Return the type of what stands in a line of Lexical and is no character."""
    value: Any = json.loads(embed.value)
    return _text(value.get(TYPE_KEY)) if isinstance(value, dict) else ""


def _is_list(block: Node) -> bool:
    return isinstance(block, Element) and block.name in _LISTS


def _is_numbered(values: dict[str, Any]) -> bool:
    return bool(values.get("__listType", "number") == "number")


def _is_header(values: dict[str, Any]) -> bool:
    return values.get("__headerState") in (1, 3)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
