"""Blocks of rich text that grow at their end while people write around them, and in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from crdt_sessions.client.place import Place
from crdt_sessions.model.dialects import Dialect
from crdt_sessions.model.growing import grows
from crdt_sessions.model.lexical import LexicalElement
from crdt_sessions.model.nodes import Element, ElementType, Node, Parent, TextType, Words, element
from crdt_sessions.model.rewriting import Scribe, size
from crdt_sessions.model.steps import RichText

_Shared = ElementType | TextType
_BLOCKS = frozenset({"root", "tablecell"})
"""Elements of Lexical in which blocks stand."""
_EMPTY = Words(())


class Growth:
    """Blocks that somebody writes into a fragment, each behind the one before.

    What people write in them stays. What they have taken away is not written again.

    Args:
        fragment: the rich text.
        dialect: whose names its elements have.
        place: where the words of the first paragraph go; without it the first block comes at the end.
    """

    def __init__(self, fragment: RichText, dialect: Dialect, place: Place | None) -> None:
        self._written: tuple[Node, ...] = ()
        self._path: list[_Shared] = []
        """What was written last: a block, the last one in it, and so on."""
        self._names: frozenset[str] = frozenset()
        self._place = place
        self._dialect = dialect
        self._fragment = fragment
        self._parent: Parent = _blocks_in(fragment)
        self._begun = place is None
        self._theirs = place.text if place is not None else None
        if place is not None:
            self._stand_in(place.text)

    def space(self, text: str) -> None:
        """Write the space in front of, or behind, what goes into a text of somebody else: Markdown has none there."""
        place = self._place
        if place is not None and place.text is self._theirs:
            place.write(text)

    def lacks(self, blocks: tuple[Node, ...]) -> bool:
        """Whether *blocks* are not what was written already."""
        return blocks != self._written

    def become(self, blocks: tuple[Node, ...]) -> None:
        """Write what *blocks* have more than was written before."""
        if not self._begun and blocks:
            if not isinstance(_last(blocks[0]), Words):
                return  # it has no words yet
            self._begun = True
            self._begin_in(blocks[0])
        if self._dialect == "blocknote" and self._parent is self._fragment:
            Scribe().insert(self._fragment, len(self._fragment.children), element("blockGroup"))
            self._parent = _blocks_in(self._fragment)
        before = len(self._written)
        self._names |= _mark_names(blocks[max(0, before - 1) :])
        if before and not self._is_there():
            self._path.clear()
        elif before and not grows(self._written[-1], blocks[before - 1]):
            self._replace(blocks[before - 1])
        elif before:
            self._grow(self._written[-1], blocks[before - 1], 0)
        for block in blocks[before:]:
            self._insert(self._parent, block, 0)
        self._written = blocks

    def close(self) -> None:
        """Stop following the place."""
        self._move(None)

    # -- where it is -----------------------------------------------------------------------------------------------

    def _stand_in(self, text: TextType) -> None:
        """Take the block in which a text is for the one behind which the next one comes."""
        path: list[Any] = [text]
        while self._is_within_block(path):
            path.insert(0, path[0].parent)
        self._path, self._parent = path, path[0].parent

    def _is_within_block(self, path: Sequence[Any]) -> bool:
        parent = path[0].parent
        if self._dialect == "lexical":
            return isinstance(parent, LexicalElement) and parent.tag not in _BLOCKS
        return isinstance(parent, ElementType) and len(path) <= (2 if self._dialect == "blocknote" else 1)

    def _begin_in(self, block: Node) -> None:
        """Have the words of a paragraph go where somebody has said; another *block* stands behind."""
        names = ("blockContainer", "paragraph") if self._dialect == "blocknote" else ("paragraph",)
        shell: Node = _EMPTY
        for name in reversed(names):
            shell = element(name, {}, [shell])
        self._written = (shell,) if grows(shell, block) else ()

    def _is_there(self) -> bool:
        """Whether nobody has taken away what was written last."""
        parent: Any = self._parent
        for shared in self._path:
            if _index(parent, shared) is None:
                return False
            parent = shared
        return bool(self._path)

    def _move(self, place: Place | None) -> None:
        if self._place is not None:
            self._place.close()
        self._place = place

    # -- what is written -------------------------------------------------------------------------------------------

    def _grow(self, before: Node, after: Node, level: int) -> None:
        if before == after:
            return
        if isinstance(before, Words) and isinstance(after, Words):
            if self._place is not None:
                self._place.write_atoms(after.atoms[len(before.atoms) :], self._names)
            return
        assert isinstance(before, Element)
        assert isinstance(after, Element)
        shared, count = cast(ElementType, self._path[level]), len(before.children)
        if count:
            self._grow(before.children[-1], after.children[count - 1], level + 1)
        for child in after.children[count:]:
            self._insert(shared, child, level + 1)

    def _insert(self, parent: Parent, node: Node, level: int) -> None:
        """Put a *node* into an element behind what was written there last."""
        last = _index(parent, self._path[level]) if level < len(self._path) else None
        at = last + 1 if last is not None else len(parent.children)
        Scribe().insert(parent, at, node)
        if isinstance(parent, LexicalElement):
            parent.number()
        del self._path[level:]
        shared: Any = parent.children[at]
        self._path.append(shared)
        while isinstance(shared, Parent) and len(shared.children):
            shared = shared.children[len(shared.children) - 1]
            self._path.append(shared)
        end = _last(node)
        written = sum(map(size, end.atoms)) if isinstance(end, Words) else 0
        self._move(Place(shared, written) if isinstance(shared, TextType) else None)

    def _replace(self, block: Node) -> None:
        """Put a *block* in place of the last one: it has become something else."""
        former = self._path[0]
        self._insert(self._parent, block, 0)
        at = _index(self._parent, former)
        if at is not None:
            del self._parent.children[at]


def _blocks_in(fragment: RichText) -> Parent:
    groups = (child for child in fragment.children if isinstance(child, ElementType) and child.tag == "blockGroup")
    return next(groups, fragment)


def _index(parent: Parent, shared: _Shared) -> int | None:
    return next((at for at, child in enumerate(parent.children) if child == shared), None)


def _last(node: Node) -> Node:
    """Return the last node in a node, and so on."""
    while isinstance(node, Element) and node.children:
        node = node.children[-1]
    return node


def _mark_names(nodes: Sequence[Node]) -> frozenset[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, Element):
            found |= _mark_names(node.children)
        else:
            found.update(*(json.loads(marks) for marks in {atom.marks for atom in node.atoms} if marks))
    return frozenset(found)
