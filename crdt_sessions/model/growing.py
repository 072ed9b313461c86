"""Markdown that is still being written: what of it stays as it is, whatever comes next.

A star may begin something bold, a line may become a heading of another level. So what has come is read several times,
each time as if it went on in another way; what is the same in all of them can be shown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce

from crdt_sessions.model.dialects import Dialect
from crdt_sessions.model.markdown import blocks_of, last_block
from crdt_sessions.model.nodes import Element, Node, Words

_NEXT = {
    "": ("x", " x", "\nx", "\n\nx", "\n\n    x", "\n- x", "\n> x"),
    "*": ("*", "**", "***", "x*", "x**", "x***"),
    "_": ("_", "__", "___", "x_", "x__", "x___"),
    "~": ("~", "~~", "x~~", "~x~~"),
    "`": ("`", "``", "```", "x`", "x``", "`x``"),
    "[": ("](x)", "x](x)", "(x)", "x)"),
}
"""How text may go on that has a certain sign in it, such that what has begun may end, or become something else."""
_BEGINNING = ("# x", "#x", ". x", ") x", "- x", "-- ", "`` x")
"""How a line may, that consists of signs and digits."""
_SIGNS = re.compile(r"[\s\d#*+\-_>`~|=]*")
_UNFINISHED = re.compile(r"(?:\\|!|&#?\w{0,31}|<(?:[^\s>][^>\n]*)?)\Z")
"""What may become one character, a link, or nothing that is shown."""
_WHOLE = frozenset({"table"})
"""Elements that are shown when they are complete: editors mend those that are not."""
_MAY_BE_EMPTY = frozenset(
    {
        "paragraph",
        "heading",
        "codeBlock",
        "code_block",
        "code",
        "bulletListItem",
        "numberedListItem",
        "listitem",
        "quote",
    }
)
_EAGER = 64
"""An open block of so many characters is looked at with each further one, one twice as long with every other."""


class GrowingMarkdown:
    """Markdown that comes in pieces.

    Args:
        dialect: whose names the elements have.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect: Dialect = dialect
        self._done: tuple[Node, ...] = ()
        self._open = ""
        self._looked = 0
        self._shown: tuple[Node, ...] = ()

    def feed(self, text: str) -> tuple[Node, ...]:
        """Take what comes next; return all blocks, as far as they stay as they are. The last of them may grow."""
        self._open += text.replace("\r", "")
        if len(self._open) - self._looked > len(self._open) // _EAGER:
            self._look()
        return self._done + self._shown

    def end(self) -> tuple[Node, ...]:
        """Return all blocks: nothing comes any more."""
        return self._done + blocks_of(self._open, self._dialect)

    def _look(self) -> None:
        whole = self._read()
        line = self._open.rpartition("\n")[2]
        ways = [way for sign, some in _NEXT.items() if sign in self._open for way in some]
        if _SIGNS.fullmatch(line):
            ways += _BEGINNING
        self._shown = reduce(common, (self._read(way) for way in ways), whole)
        begin = last_block(self._open)
        before = blocks_of(self._open[:begin], self._dialect)
        if self._open[begin:].lstrip().startswith("|"):
            self._shown = self._shown[: len(before)]  # it becomes a table
        if before and len(self._shown) > len(before) and self._shown[: len(before)] == before:
            self._done, self._shown = self._done + before, self._shown[len(before) :]
            self._open = self._open[begin:]
        self._looked = len(self._open)

    def _read(self, way: str = "") -> tuple[Node, ...]:
        return blocks_of(_UNFINISHED.sub("", self._open) + way, self._dialect)


def common(one: Sequence[Node], other: Sequence[Node]) -> tuple[Node, ...]:
    """Return what both begin with; of the first nodes that differ, what those begin with."""
    found: list[Node] = []
    for a, b in zip(one, other, strict=False):
        if a == b:
            found.append(a)
            continue
        if (part := _common(a, b)) is not None:
            found.append(part)
        break
    return tuple(found)


def _common(a: Node, b: Node) -> Node | None:
    """Return what two nodes begin with; None if they have nothing in common that could be shown."""
    if isinstance(a, Words) and isinstance(b, Words):
        same = 0
        while same < min(len(a.atoms), len(b.atoms)) and a.atoms[same] == b.atoms[same]:
            same += 1
        return Words(a.atoms[:same]) if same else None
    if not isinstance(a, Element) or not isinstance(b, Element) or (a.name, a.attributes) != (b.name, b.attributes):
        return None
    children = common(a.children, b.children)
    shown = a.name not in _WHOLE and (children or a.name in _MAY_BE_EMPTY)
    return Element(a.name, a.attributes, children) if shown else None


def grows(before: Node, after: Node) -> bool:
    """Whether the second node is the first one with more at its end."""
    if isinstance(before, Words) and isinstance(after, Words):
        return after.atoms[: len(before.atoms)] == before.atoms
    if not isinstance(before, Element) or not isinstance(after, Element):
        return False
    if (before.name, before.attributes) != (after.name, after.attributes):
        return False
    return _all_grow(before.children, after.children)


def _all_grow(before: Sequence[Node], after: Sequence[Node]) -> bool:
    if len(after) < len(before):
        return False
    *same, last = before or (None,)
    if last is None:
        return True
    return tuple(same) == tuple(after[: len(same)]) and grows(last, after[len(same)])
