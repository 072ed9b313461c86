"""Markdown and rich text: what agents write, and what editors hold.

What Markdown has no word for stays where it is: an element of another name is a comment there, or in a line a link in
angle brackets, which keeps it, and
attributes and marks of other names belong to what they stand on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from crdt_sessions.errors import BadValue
from crdt_sessions.model.dialects import Dialect, dialect_of, from_dialect, our_mark, renamed, to_dialect
from crdt_sessions.model.nodes import KEPT, Atom, Element, Embed, Node, Words, element, joined, words

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

_COMMENT = re.compile(r"<!--\s*kept:([^\s>]*)\s*-->\s*")
_ESCAPED = re.compile(r"([\\`*_\[\]<>~|&])")
_BEGINS_BLOCK = re.compile(
    r"^(\s*)(\d{1,9}(?=[.)](?:\s|$))|(?=(?:#{1,6}|[-+*])(?:\s|$)|>|=+\s*$|-+\s*$))", re.MULTILINE
)
"""Where a line of a paragraph would be taken for something else, and after what of it a backslash prevents that."""


def from_markdown(text: str, dialect: Dialect) -> tuple[Node, ...]:
    """Return Markdown as what stands in a fragment of some *dialect*."""
    return to_dialect(_blocks(_parsed(text)), dialect)


def blocks_of(text: str, dialect: Dialect) -> tuple[Node, ...]:
    """Return Markdown that is being written as blocks, side by side: an underlined line is no heading here.

    Comments that keep something are left out: there is nothing to be kept.
    """
    blocks = [each for each in _blocks(_parsed(text, growing=True)) if not _keeps(each)]
    found = to_dialect(blocks, dialect)
    return tuple(each for group in found for each in _inside(group)) if dialect == "blocknote" else found


def last_block(text: str) -> int:
    """Return where the last block of Markdown that is being written begins; it is the one that may go on."""
    blocks = _parsed(text, growing=True)
    line = blocks[-1].map[0] if blocks and blocks[-1].map is not None else 0
    return sum(len(each) for each in text.splitlines(keepends=True)[:line])


def _parsed(text: str, *, growing: bool = False) -> Sequence[SyntaxTreeNode]:
    from markdown_it.tree import SyntaxTreeNode

    return SyntaxTreeNode(_parser(growing=growing).parse(text)).children


@lru_cache(maxsize=2)
def _parser(*, growing: bool) -> MarkdownIt:
    """Return the parser; of what is *growing*, no line changes what stands above it."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": 40}).enable(["table", "strikethrough"])
    return parser.disable(["lheading", "reference"]) if growing else parser


def _keeps(node: Node) -> bool:
    return isinstance(node, Element) and (node.name.startswith(KEPT) or any(map(_keeps, node.children)))


def _inside(node: Node) -> Sequence[Node]:
    return node.children if isinstance(node, Element) else ()


def inline_from_markdown(text: str, dialect: Dialect) -> tuple[Node, ...]:
    """Return Markdown of one paragraph as what stands in it."""
    blocks = _paragraphs(from_markdown(text, "tiptap"))
    if len(blocks) > 1:
        raise BadValue(where="the text", why="it is more than one paragraph; replace the whole document with it")
    found = [renamed(child, dialect) for block in blocks for child in block.children]
    before, after = (re.match(r"\s*", side) for side in (text, text[::-1]))  # Markdown has no space at the edges
    lead, trail = (match.group() if match else "" for match in (before, after))
    return tuple(joined([words(lead), *found, words(trail[::-1] if text.strip() else "")]))


def to_markdown(children: Sequence[Node], dialect: Dialect | None = None) -> str:
    """Return what stands in a fragment as Markdown; its *dialect* is what it looks like if None."""
    tree = from_dialect(children, dialect or dialect_of(children))
    text = "\n\n".join(_written(tree))
    return text + "\n" if text else ""


def inline_to_markdown(atoms: Sequence[Atom]) -> str:
    """Return characters with their marks as Markdown of one paragraph."""
    return _marked([Words(tuple(atoms))])


def _paragraphs(blocks: Sequence[Node]) -> list[Element]:
    found = [block for block in blocks if isinstance(block, Element)]
    if any(block.name not in ("paragraph",) for block in found):
        raise BadValue(where="the text", why="it is no plain paragraph; replace the whole document with it")
    return found


# -- from Markdown ---------------------------------------------------------------------------------------------------


def _blocks(tokens: Iterable[SyntaxTreeNode]) -> list[Node]:
    return [block for token in tokens for block in _block(token)]


def _block(token: SyntaxTreeNode) -> Iterator[Node]:
    children = token.children
    if token.type == "paragraph":
        yield element("paragraph", {}, _inline(children))
    elif token.type == "heading":
        yield element("heading", {"level": int(token.tag[1:])}, _inline(children))
    elif token.type in _CONTAINERS:
        start = token.attrs.get("start") if token.type == "ordered_list" else None
        yield element(_CONTAINERS[token.type], {"start": start}, _blocks(children))
    elif token.type in ("fence", "code_block"):
        language = token.info.strip() or None
        content = token.content.removesuffix("\n")
        yield element("codeBlock", {"language": language}, [words(content)] if content else [])
    elif token.type == "hr":
        yield element("horizontalRule")
    elif token.type == "table":
        rows = [row for part in children for row in part.children]
        yield element("table", {}, [element("tableRow", {}, map(_cell, row.children)) for row in rows])
    elif token.type == "html_block":
        kept = _COMMENT.findall(token.content)
        yield from (element(KEPT + name) for name in kept)
        if not kept:
            yield element("paragraph", {}, [words(token.content.strip())])


_CONTAINERS = {
    "bullet_list": "bulletList",
    "ordered_list": "orderedList",
    "list_item": "listItem",
    "blockquote": "blockquote",
}


def _cell(token: SyntaxTreeNode) -> Element:
    name = "tableHeader" if token.type == "th" else "tableCell"
    return element(name, {}, [element("paragraph", {}, _inline(token.children))])


def _inline(tokens: Iterable[SyntaxTreeNode]) -> list[Node]:
    found: list[Node] = []
    for token in tokens:
        for each in token.children if token.type == "inline" else [token]:
            found += _run(each, {})
    return joined(found)


def _run(token: SyntaxTreeNode, marks: dict[str, Any]) -> Iterator[Node]:
    if token.type in ("text", "text_special", "html_inline"):
        yield words(token.content, marks)
    elif token.type == "code_inline":
        yield words(token.content, marks | {"code": {}})
    elif token.type == "softbreak":
        yield words(" ", marks)
    elif token.type == "hardbreak":
        yield element("hardBreak")
    elif token.type == "image":
        yield element("image", {**token.attrs, "alt": token.content or None})
    elif token.type == "link" and token.markup == "autolink" and str(token.attrs.get("href")).startswith(KEPT):
        yield element(str(token.attrs["href"]))
    else:
        if token.type in _TOKEN_MARKS:
            marks = marks | {_TOKEN_MARKS[token.type]: {}}
        elif token.type == "link":
            marks = marks | {"link": {k: v for k, v in token.attrs.items() if k in ("href", "title")}}
        for child in token.children:
            yield from _run(child, marks)


_TOKEN_MARKS = {"strong": "bold", "em": "italic", "s": "strike"}


# -- to Markdown -----------------------------------------------------------------------------------------------------


def _written(blocks: Iterable[Node]) -> Iterator[str]:
    before, other = "", False
    for block in blocks:
        name = "" if isinstance(block, Words) else block.name
        other = name == before and not other  # with one sign, two lists in a row would be read as one
        before = name
        if isinstance(block, Words):
            yield _marked([block])
        elif name in _LISTS:
            yield _LISTS[name](block, other)
        else:
            yield _WRITERS.get(name, _kept)(block)


def _paragraph(block: Element) -> str:
    return _BEGINS_BLOCK.sub(lambda found: f"{found[1]}{found[2]}\\", _marked(block.children))


def _heading(block: Element) -> str:
    level = block.values.get("level")
    text = re.sub(r" *\\\n *", " ", _marked(block.children)).strip()  # a heading of this form is one line
    return "#" * (level if isinstance(level, int) and 1 <= level <= 6 else 1) + " " + text


def _bullets(block: Element, other: bool) -> str:
    sign = "* " if other else "- "
    return "\n".join(_indented(item, sign) for item in block.children if isinstance(item, Element))


def _numbers(block: Element, other: bool) -> str:
    end = ")" if other else "."
    start = block.values.get("start")
    first = start if isinstance(start, int) else 1
    items = (item for item in block.children if isinstance(item, Element))
    return "\n".join(_indented(item, f"{number}{end} ") for number, item in enumerate(items, first))


def _indented(item: Element, sign: str) -> str:
    parts = list(_written(item.children))
    tight = all(
        isinstance(c, Element) and c.name in ("paragraph", "bulletList", "orderedList") for c in item.children
    )
    text = ("\n" if tight and len(parts) == 2 else "\n\n").join(parts)
    return sign + text.replace("\n", "\n" + " " * len(sign))


def _quote(block: Element) -> str:
    return "\n".join(f"> {line}".rstrip() for line in "\n\n".join(_written(block.children)).split("\n"))


def _code(block: Element) -> str:
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`{3,}", block.text))])
    return f"{fence}{block.values.get('language') or ''}\n{block.text}\n{fence}"


def _table(block: Element) -> str:
    rows = [
        [_cell_text(cell) for cell in row.children if isinstance(cell, Element)]
        for row in block.children
        if isinstance(row, Element)
    ]
    width = max(map(len, rows), default=0)
    lines = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in rows]
    return "\n".join([*lines[:1], "|" + " --- |" * width, *lines[1:]])


def _cell_text(cell: Element) -> str:
    return " ".join(_marked(child.children) for child in cell.children if isinstance(child, Element))


def _picture(block: Element) -> str:
    values = block.values
    return f"![{values.get('alt') or values.get('name') or ''}]({values.get('src') or values.get('url') or ''})"


def _kept(block: Element) -> str:
    return f"<!-- {KEPT}{block.name.removeprefix(KEPT)} -->"


_LISTS = {"bulletList": _bullets, "orderedList": _numbers}

_WRITERS = {
    "paragraph": _paragraph,
    "heading": _heading,
    "blockquote": _quote,
    "codeBlock": _code,
    "horizontalRule": lambda block: "---",
    "table": _table,
    "image": _picture,
}


def _kept_inline(node: Element) -> str:
    return f"<{KEPT}{node.name.removeprefix(KEPT)}>"  # a comment at the beginning of a line would be a block


_INLINE_WRITERS: dict[str, Callable[[Element], str]] = {"hardBreak": lambda node: "\\\n", "image": _picture}


def _marked(nodes: Iterable[Node]) -> str:
    """Return inline content as Markdown."""
    found, open_marks = "", _Marks()
    for node in nodes:
        if isinstance(node, Element):
            found += open_marks.close()
            found += _INLINE_WRITERS.get(node.name, _kept_inline)(node)
            continue
        for marks, group in groupby(node.atoms, lambda atom: atom.marks):
            text = "".join(atom.value for atom in group if not isinstance(atom.value, Embed))
            found += open_marks.say(text, {our_mark(k): v for k, v in (json.loads(marks) if marks else {}).items()})
    return found + open_marks.close()


class _Marks:
    """The marks that are open at some place of a paragraph, outermost first."""

    def __init__(self) -> None:
        self._open: list[tuple[str, str]] = []
        """Each with how it ends."""
        self._space = ""
        """Which was written within marks, and belongs behind their end if that comes next."""

    def say(self, text: str, marks: dict[str, Any]) -> str:
        """Return *text* with *marks*, after the ends of those that are open and not among them."""
        core = text.strip()
        if not core:
            self._space += text
            return ""
        ends = {mark: _end(mark, value) for mark, value in marks.items() if mark in _ENDS}
        stays = 0
        while stays < len(self._open) and ends.get(self._open[stays][0]) == self._open[stays][1]:
            stays += 1
        before = self._end_after(stays) + self._pause() + text[: len(text) - len(text.lstrip())]
        new = [mark for mark in _ENDS if mark in ends and mark not in (mark for mark, _ in self._open)]
        self._open += [(mark, ends[mark]) for mark in new]
        self._space = text[len(text.rstrip()) :]
        return before + "".join("[" if mark == "link" else ends[mark] for mark in new) + _said(core, marks)

    def close(self) -> str:
        """Return the ends of all marks."""
        return self._end_after(0) + self._pause()

    def _end_after(self, stays: int) -> str:
        ending = self._open[stays:]
        del self._open[stays:]
        return "".join(end for _, end in reversed(ending))

    def _pause(self) -> str:
        space, self._space = self._space, ""
        return space


_ENDS = {"link": "](<{}>)", "bold": "**", "italic": "*", "strike": "~~"}


def _end(mark: str, value: Any) -> str:
    return (
        _ENDS[mark].format(value.get("href") or "" if isinstance(value, dict) else "")
        if mark == "link"
        else _ENDS[mark]
    )


def _said(core: str, marks: dict[str, Any]) -> str:
    if "code" not in marks:
        return _ESCAPED.sub(r"\\\1", core)
    ticks = "`" * (max([0, *map(len, re.findall("`+", core))]) + 1)
    return f"{ticks} {core} {ticks}" if "`" in core else f"`{core}`"
