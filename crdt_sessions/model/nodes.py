"""Text with marks and trees of elements, as values: what stands in a text or rich text of the document.

A tree has the shape that the Yjs bindings of ProseMirror, Tiptap and BlockNote write: elements with attributes, and
texts whose formatting says, by the name of each mark, what its attributes are. Documents of Lexical are seen the same
way (:mod:`crdt_sessions.model.lexical`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple, cast

from pycrdt import Text, XmlElement, XmlFragment, XmlText

from crdt_sessions.model.lexical import LexicalElement, LexicalText
from crdt_sessions.model.lexical_marks import LINE_BREAK, TYPE_KEY
from crdt_sessions.model.spelling import spelled

TextType = Text | XmlText | LexicalText
"""A shared type that holds text with marks."""
ElementType = XmlElement | LexicalElement
"""A shared type that holds elements and texts, and has attributes."""
Parent = XmlFragment | ElementType
"""A shared type that holds elements and texts."""

PLAIN = ""
"""No marks."""
NAMED = "blockContainer"
"""The element of BlockNote that has an id, by which its editor knows it."""
KEPT = "kept:"
"""How the name of an element begins that stands for one of that name, whatever is in it, where there is one."""


class Embed(NamedTuple):
    """What stands in a text and is no character, as JSON."""

    value: str


NEW_LINE = Embed(json.dumps({TYPE_KEY: LINE_BREAK}, separators=(",", ":")))
"""What Lexical has where a line ends in a paragraph."""


class Atom(NamedTuple):
    """One character, or one embed, with its marks as canonical JSON."""

    value: str | Embed
    marks: str


@dataclass(frozen=True, slots=True)
class Words:
    """A text with marks."""

    atoms: tuple[Atom, ...]

    @property
    def text(self) -> str:
        """Its characters."""
        return "".join(each.value for each in self.atoms if isinstance(each.value, str))


@dataclass(frozen=True, slots=True)
class Element:
    """An element."""

    name: str
    attributes: str = "{}"
    """Canonical JSON."""
    children: tuple[Node, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """Its attributes."""
        found: dict[str, Any] = json.loads(self.attributes)
        return found

    @property
    def text(self) -> str:
        """The characters of all texts in it."""
        return "".join(child.text for child in self.children)


Node = Element | Words


def element(name: str, attributes: Mapping[str, Any] | None = None, children: Iterable[Node] = ()) -> Element:
    """Return an element; attributes that are None are left out."""
    return Element(name, canonical({k: v for k, v in (attributes or {}).items() if v is not None}), tuple(children))


def words(text: str, marks: Mapping[str, Any] | None = None) -> Words:
    """Return *text*, all of it with the same *marks*."""
    return Words(_atoms(text, canonical(marks) if marks else PLAIN))


def canonical(value: Any) -> str:
    """Return *value* as JSON that is the same for equal values."""
    return json.dumps(_whole(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def joined(nodes: Iterable[Node]) -> list[Node]:
    """Return nodes with texts that are neighbours as one, as editors write them."""
    found: list[Node] = []
    for node in nodes:
        if isinstance(node, Words) and found and isinstance(found[-1], Words):
            found[-1] = Words(found[-1].atoms + node.atoms)
        elif isinstance(node, Element) or node.atoms:
            found.append(node)
    return found


def spans(atoms: Sequence[Atom]) -> list[tuple[str | Embed, dict[str, Any]]]:
    """Return *atoms* as texts and embeds with the marks of each."""
    found: list[tuple[str | Embed, dict[str, Any]]] = []
    for (marks, embedded), group in groupby(atoms, lambda atom: (atom.marks, isinstance(atom.value, Embed))):
        values = json.loads(marks) if marks else {}
        if embedded:
            found += [(atom.value, values) for atom in group]
        else:
            found.append(("".join(str(atom.value) for atom in group), values))
    return found


def read_words(text: TextType) -> Words:
    """Return what stands in a shared text."""
    atoms: list[Atom] = []
    for value, attributes in text.diff():
        marks = canonical(attributes) if attributes else PLAIN
        atoms += _atoms(value, marks) if isinstance(value, str) else (Atom(Embed(canonical(spelled(value))), marks),)
    return Words(tuple(atoms))


def read_children(parent: Parent) -> tuple[Node, ...]:
    """Return what stands in a shared fragment or element."""
    return tuple(read(child) for child in parent.children)


def read(shared: Parent | TextType) -> Node:
    """Return a shared element or text as a value."""
    if isinstance(shared, TextType):
        return read_words(shared)
    if isinstance(shared, ElementType):
        return element(shared.tag or "", attributes_of(shared), read_children(shared))
    return element("", {}, read_children(shared))


def attributes_of(shared: ElementType) -> dict[str, Any]:
    """Return the attributes of a shared element."""
    return {key: spelled(value) for key, value in cast(Iterable[tuple[str, Any]], shared.attributes)}


def atoms_in(node: Node) -> Iterator[Atom]:
    """Yield what all texts in a node consist of."""
    if isinstance(node, Words):
        yield from node.atoms
    else:
        for child in node.children:
            yield from atoms_in(child)


def node_json(node: Node) -> Any:
    """Return a node as JSON, for :func:`node_of`."""
    if isinstance(node, Words):
        return [
            [{"embed": json.loads(v.value)} if isinstance(v, Embed) else v, marks] for v, marks in spans(node.atoms)
        ]
    return {"name": node.name, "attributes": node.values, "children": [node_json(child) for child in node.children]}


def node_of(value: Any) -> Node:
    """Return the node that :func:`node_json` wrote as *value*.

    Raises:
        ValueError: it is none.
    """
    try:
        if isinstance(value, list):
            return Words(tuple(atom for said, marks in value for atom in _said(said, marks)))
        children = [node_of(child) for child in value["children"]]
        return element(str(value["name"]), dict(value["attributes"]), children)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no node") from error


def _said(said: Any, marks: Any) -> tuple[Atom, ...]:
    written = canonical(marks) if marks else PLAIN
    return _atoms(said, written) if isinstance(said, str) else (Atom(Embed(canonical(said["embed"])), written),)


def _atoms(text: str, marks: str) -> tuple[Atom, ...]:
    return tuple(_atom(character, marks) for character in text)


@lru_cache(maxsize=4096)
def _atom(character: str, marks: str) -> Atom:
    return Atom(character, marks)


def _whole(value: Any) -> Any:
    """Return *value* with numbers without fractions as integers, as JSON of JavaScript has them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _whole(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(each) for each in value]
    return value
