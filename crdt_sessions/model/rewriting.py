"""Making another text or tree of one that stands in the document by small edits: what stays the same is not touched.

So what others write meanwhile stays, wherever it stands between what stays. Text is compared by words, trees from
their elements inwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import zip_longest
from typing import Any, NamedTuple, cast
from uuid import uuid4

from pycrdt import XmlElement, XmlText

from crdt_sessions.model.lexical import LexicalElement, LexicalText
from crdt_sessions.model.lexical_marks import INLINE
from crdt_sessions.model.nodes import (
    KEPT,
    NAMED,
    Atom,
    Element,
    ElementType,
    Embed,
    Node,
    Parent,
    TextType,
    Words,
    read_children,
    read_words,
    spans,
)

_MOST_COMPARED = 20_000
"""Words up to which the middle of two texts is compared; beyond it all of the middle is one change."""
_ALIKE = 0.4
"""How alike two texts must be for one to become the other, and not to be removed for it."""


class Alike(NamedTuple):
    """When two nodes are the same for whoever rewrites, though they may not be in all."""

    atom: Callable[[Atom], Hashable]
    element: Callable[[Element], Hashable]
    """What of an element, without its children, tells it from others."""
    attributes: Callable[[Element], frozenset[str]]
    """Those that may be taken away from an element because the new one has none."""
    whole: Callable[[Element], bool]
    """Whether what is in an element does not count."""


EXACTLY = Alike(
    atom=lambda atom: atom,
    element=lambda element: (element.name, element.attributes),
    attributes=lambda element: frozenset(element.values),
    whole=lambda element: False,
)
"""Everything counts."""


class Change(NamedTuple):
    """What is to be put in place of a part of a sequence."""

    start: int
    stop: int
    begin: int
    end: int


class Scribe:
    """Makes the changes."""

    def __init__(self, alike: Alike = EXACTLY) -> None:
        self._alike = alike

    def rewrite_text(self, text: TextType, new: Words) -> None:
        """Make *new* of a shared text."""
        old = read_words(text).atoms
        self._change_text(text, old, new.atoms, text_changes(old, new.atoms, self._alike.atom))

    def splice(self, text: TextType, start: int, stop: int, new: Sequence[Atom]) -> None:
        """Put *new* in place of the atoms from *start* to *stop* of a shared text; what both have there stays."""
        old = read_words(text).atoms
        changes = text_changes(old[start:stop], new, self._alike.atom)
        whole = (*old[:start], *new, *old[stop:])
        self._change_text(text, old, whole, [Change(*(at + start for at in change)) for change in changes])

    def rewrite_children(self, parent: Parent, new: Sequence[Node]) -> None:
        """Make *new* of what stands in a shared fragment or element."""
        old = read_children(parent)
        for at, before, after in reversed(list(changed_children(old, new, self._alike))):
            if before is None:
                self.insert(parent, at, cast(Node, after))
            elif after is None:
                self.remove(parent, at, before)
            elif isinstance(after, Words):
                self.rewrite_text(cast(TextType, parent.children[at]), after)
            else:
                self._rewrite_element(cast(ElementType, parent.children[at]), cast(Element, before), after)
        if isinstance(parent, LexicalElement):
            parent.number()

    def delete(self, text: TextType, offset: int, atoms: Sequence[Atom]) -> None:
        """Delete *atoms*, which stand at a byte of a shared text."""
        del text[offset : offset + sum(map(size, atoms))]

    def remove(self, parent: Parent, at: int, node: Node) -> None:
        """Remove a *node* from a shared fragment or element."""
        shared = parent.children[at]
        if isinstance(shared, LexicalText):
            self._change_text(shared, cast(Words, node).atoms, (), [Change(0, len(cast(Words, node).atoms), 0, 0)])
        else:
            del parent.children[at]

    def tidy(self, text: LexicalText) -> None:
        """Have a text of Lexical as its editor would have it."""
        text.tidy()

    def set_attribute(self, shared: ElementType, key: str, old: Any, new: Any) -> None:
        """Set an attribute of an element, which was *old*; None if there is none."""
        if new is None:
            del shared.attributes[key]
        else:
            shared.attributes[key] = new

    def _rewrite_element(self, shared: ElementType, old: Element, new: Element) -> None:
        if self._alike.element(old) != self._alike.element(new):
            before, after = old.values, new.values
            gone = self._alike.attributes(old) & (before.keys() - after.keys())
            for key, value in {**after, **dict.fromkeys(sorted(gone))}.items():
                if before.get(key) != value:
                    self.set_attribute(shared, key, before.get(key), value)
        self.rewrite_children(shared, new.children)

    def insert(self, parent: Parent, at: int, node: Node) -> None:
        """Put a *node* into a shared fragment or element."""
        if isinstance(node, Words):
            text = cast(TextType, parent.children.insert(at, XmlText("")))
            write(text, 0, node.atoms, _mark_names(node.atoms))
            return
        if node.name.startswith(KEPT):
            return  # there is none any more
        shared = cast(ElementType, parent.children.insert(at, XmlElement(node.name)))
        names = {"id": uuid4().hex} if node.name == NAMED else {}
        for key, value in {**names, **node.values}.items():
            shared.attributes[key] = value
        for child in node.children:
            self.insert(shared, len(shared.children), child)
        if isinstance(shared, LexicalElement):
            shared.number()

    def _change_text(
        self, text: TextType, old: Sequence[Atom], new: Sequence[Atom], changes: Iterable[Change]
    ) -> None:
        names = _mark_names(old) | _mark_names(new)
        if isinstance(text, LexicalText):
            changes = _to_ends_of_links(old, new, changes)
        offsets = [0]
        for atom in old:
            offsets.append(offsets[-1] + size(atom))
        for start, stop, begin, end in reversed(list(changes)):
            # What is new comes first: somebody who types at the border stays on the side where they are.
            write(text, offsets[stop], new[begin:end], names)
            if stop > start:
                self.delete(text, offsets[start], old[start:stop])
        if isinstance(text, LexicalText):
            self.tidy(text)


def _to_ends_of_links(old: Sequence[Atom], new: Sequence[Atom], changes: Iterable[Change]) -> Iterator[Change]:
    """Yield changes of a text of Lexical: what is put within a link and is no part of it takes the rest of it along.

    For there a link is an element, and nothing else can stand in the middle of it.
    """
    rest = list(changes)
    while rest:
        change = rest.pop(0)
        while _tears_link(old, new, change):
            if rest and rest[0].start == change.stop:
                follower = rest.pop(0)
                change = Change(change.start, follower.stop, change.begin, follower.end)
            else:
                change = Change(change.start, change.stop + 1, change.begin, change.end + 1)
        yield change


def _tears_link(old: Sequence[Atom], new: Sequence[Atom], change: Change) -> bool:
    """Whether what stands on both sides of a change is one link, and something new between them is not."""
    if not 0 < change.start <= change.stop < len(old):
        return False
    link = _link(old[change.start - 1].marks)
    if not link or link != _link(old[change.stop].marks):
        return False
    return any(_link(atom.marks) != link for atom in new[change.begin : change.end])


@lru_cache(maxsize=1024)
def _link(marks: str) -> str:
    """Return what *marks* say of the links that something is in."""
    said = json.loads(marks) if marks else {}
    return json.dumps({name: said[name] for name in sorted(INLINE & said.keys())})[1:-1]


def write(text: TextType, offset: int, atoms: Sequence[Atom], names: frozenset[str]) -> None:
    """Insert *atoms* at a byte of a shared text, and none of the marks *names* that they do not have."""
    nothing = dict.fromkeys(names)
    for value, marks in spans(atoms):
        attributes = nothing | marks
        if isinstance(value, Embed):
            text.insert_embed(offset, json.loads(value.value), attributes or None)
            offset += 1
        else:
            text.insert(offset, value, attributes or None)
            offset += len(value.encode())


def size(atom: Atom) -> int:
    """Return the length of an atom in a shared text, in bytes."""
    return len(atom.value.encode()) if isinstance(atom.value, str) else 1


def text_changes(
    old: Sequence[Atom], new: Sequence[Atom], key: Callable[[Atom], Hashable] = EXACTLY.atom
) -> list[Change]:
    """Return how *old* becomes *new*, word by word, first changes first."""
    olds, news = list(map(key, old)), list(map(key, new))
    head = _alike(olds, news)
    while head > 0 and any(_in_word(each, head) for each in (old, new)):
        head -= 1
    tail = _alike(olds[head:][::-1], news[head:][::-1])
    while tail > 0 and any(_in_word(each, len(each) - tail) for each in (old, new)):
        tail -= 1
    stop, end = len(olds) - tail, len(news) - tail
    if head == stop and head == end:
        return []
    one, other = _tokens(old[head:stop], olds[head:stop]), _tokens(new[head:end], news[head:end])
    if not one or not other or len(one) + len(other) > _MOST_COMPARED:
        return [Change(head, stop, head, end)]
    starts, begins = _borders(one, head), _borders(other, head)
    codes = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    return [Change(starts[a], starts[b], begins[c], begins[d]) for tag, a, b, c, d in codes if tag != "equal"]


def _in_word(atoms: Sequence[Atom], at: int) -> bool:
    """Whether a place is in the middle of a word."""
    return 0 < at < len(atoms) and all(
        isinstance(each.value, str) and each.value.isalnum() for each in atoms[at - 1 : at + 1]
    )


def _tokens(atoms: Sequence[Atom], keys: Sequence[Hashable]) -> list[tuple[Hashable, ...]]:
    text = "".join(atom.value if isinstance(atom.value, str) else "\ufffc" for atom in atoms)
    return [tuple(keys[found.start() : found.end()]) for found in re.finditer(r"\w+|\s+|.", text, re.DOTALL)]


def _borders(tokens: Sequence[Sequence[Hashable]], start: int) -> list[int]:
    borders = [start]
    for token in tokens:
        borders.append(borders[-1] + len(token))
    return borders


def _alike(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Return how many items of both are the same at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _mark_names(atoms: Iterable[Atom]) -> frozenset[str]:
    return frozenset(name for marks in {atom.marks for atom in atoms} if marks for name in json.loads(marks))


ChildStep = tuple[int, Node | None, Node | None]
"""Where among the old nodes, what stands there (None: something comes in front of it), what it becomes."""


def changed_children(old: Sequence[Node], new: Sequence[Node], alike: Alike) -> Iterator[ChildStep]:
    """Yield what is to be done with children that are not the same, in their order."""
    one, other = [_key(node, alike) for node in old], [_key(node, alike) for node in new]
    for tag, a, b, c, d in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from _paired(old, new, range(a, b), range(c, d))


def _paired(old: Sequence[Node], new: Sequence[Node], olds: range, news: range) -> Iterator[ChildStep]:
    """Yield which of the old nodes become which of the new ones, which go, and which come."""
    ahead = list(news)
    if len(olds) == len(news):
        partners: dict[int, int] = {a: b for a, b in zip(olds, news, strict=True) if _kind(old[a]) == _kind(new[b])}
    else:
        partners = {}
        for a in olds:
            found = next((b for b in ahead if _becomes(old[a], new[b])), None)
            if found is not None:
                partners[a] = found
                ahead = [b for b in ahead if b > found]
    done = news.start
    for a in olds:
        if (b := partners.get(a)) is None:
            yield a, old[a], None
            continue
        yield from ((a, None, new[each]) for each in range(done, b))
        yield a, old[a], new[b]
        done = b + 1
    yield from ((olds.stop, None, new[each]) for each in range(done, news.stop))


def _becomes(old: Node, new: Node) -> bool:
    if _kind(old) != _kind(new):
        return False
    matcher = SequenceMatcher(None, old.text[:500], new.text[:500], autojunk=False)
    return matcher.quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE


def _kind(node: Node) -> str | None:
    return node.name if isinstance(node, Element) else None


def _key(node: Node, alike: Alike) -> Hashable:
    if isinstance(node, Words):
        return tuple(map(alike.atom, node.atoms))
    if alike.whole(node):
        return alike.element(node)
    return alike.element(node), tuple(_key(child, alike) for child in node.children)


def same(one: Iterable[Node], other: Iterable[Node], alike: Alike = EXACTLY) -> bool:
    """Whether two sequences of nodes are the same."""
    nothing: Any = object()
    return all(
        a is not nothing and b is not nothing and _key(a, alike) == _key(b, alike)
        for a, b in zip_longest(one, other, fillvalue=nothing)
    )
