"""Steps: what was done to an artifact in one go, as JSON values; and how an artifact would be without some of them.

That is found out in a copy of the document, where everything is exact: what was deleted comes back right behind what
is left of it, whatever others wrote around it or in the middle of it, and what the steps wrote goes.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pycrdt import Doc, Map, Text, XmlFragment, XmlText
from pydantic import Field

from crdt_sessions.errors import NotFound
from crdt_sessions.model import layout
from crdt_sessions.model.base import Value
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.lexical import LexicalElement
from crdt_sessions.model.lexical_blocks import type_of
from crdt_sessions.model.lexical_marks import RESTORED
from crdt_sessions.model.library import apply_guarded
from crdt_sessions.model.nodes import (
    Atom,
    Element,
    Node,
    Words,
    canonical,
    element,
    node_of,
    read_children,
    read_words,
)
from crdt_sessions.model.strings import ArtifactId, RunId, Time, Who
from crdt_sessions.wire.update_v1 import (
    ANY,
    EMBED,
    HAS_KEY,
    HAS_ORIGIN,
    JSON,
    MAX_CLOCK,
    NO_DELETIONS,
    STRING,
    TYPE,
    Head,
    Id,
    Ranges,
    parse,
    read_head,
)
from crdt_sessions.wire.varint import Reader, decode_state_vector, string, varuint

RichText = XmlFragment | LexicalElement
"""What rich text is; of Lexical it is the root."""
Content = Text | RichText
"""What an artifact's content is."""

_FIRST = 0
"""Among those that insert at the same place, the client of the lowest id is the first."""
_COPY = 1
_MARKS = range(0xF0000, 0x10FFFE)
"""Characters for private use, each of which stands for one that was deleted."""
PROBED = '"probe-"'
"""What the marks have of what is in a link that is looked for."""
_MAP = 1
_XML_ELEMENT = 3
_ANY_TEXT = 119
_MARKED = "restored-"


class Deletion(Value):
    """Ids in a row that a step deleted, and what stood there."""

    client: int = Field(ge=0, le=MAX_INTEGER)
    clock: int = Field(ge=0, lt=MAX_CLOCK)
    content: Any
    """A node as :func:`~crdt_sessions.model.nodes.node_json` has it; or an attribute: its name, element and value; or
    what a text node of Lexical says."""


class Step(Value):
    """``edits[id].step``: what somebody did to an artifact in one go."""

    artifact: ArtifactId
    run: RunId | None = None
    by: Who
    at: Time
    client: int = Field(ge=0, le=MAX_INTEGER, description="The Yjs client that wrote it.")
    clock: int = Field(ge=0, lt=MAX_CLOCK, description="Where it began.")
    length: int | None = Field(None, ge=0, description="What it wrote, in ids; absent as long as it goes on.")
    deleted: list[Deletion] = Field(default_factory=list)


class Undone(Value):
    """``edits[id].undone``: that a step was undone."""

    by: Who
    at: Time


def content_in(doc: Doc[Any], artifact_id: str) -> Content:
    """Return the content of an artifact in a document.

    Raises:
        NotFound: there is no such artifact, or its content is neither text nor rich text.
    """
    entry = layout.roots(doc).artifacts.get(artifact_id)
    content = entry.get("content") if isinstance(entry, Map) else None
    if isinstance(content, XmlText):
        return LexicalElement(content)
    if not isinstance(content, Content):
        raise NotFound(what="artifact", id=artifact_id)
    return content


def copied(update: bytes) -> Doc[Any]:
    """Return a document with an update, to be thrown away: its client is not one that others may be told of."""
    copy: Doc[Any] = Doc(client_id=_COPY)
    apply_guarded(copy, update)
    return copy


def units(atom: Atom) -> int:
    """Return the number of ids that a character, or an embed, has: its UTF-16 units."""
    return len(atom.value.encode("utf-16-le")) // 2 if isinstance(atom.value, str) else 1


def without(doc: Doc[Any], artifact_id: str, steps: Sequence[Step], gone: Sequence[Step]) -> list[Node]:
    """Return the content of an artifact as it would be without *steps*.

    Args:
        doc: the document.
        artifact_id: the artifact.
        steps: what is to be taken back.
        gone: the steps whose text does not come back: *steps*, and those that were undone before.

    Raises:
        NotFound: there is no such artifact.
    """
    copy = copied(doc.get_update())
    markers = _Markers(copy)
    known = decode_state_vector(copy.get_state())
    lost = _written(gone, known)
    for step in steps:
        for deletion in step.deleted:
            markers.put_back(deletion, lost)
    apply_guarded(copy, _deleting(_replaceable(doc.get_update(), _written(steps, known))))
    content = content_in(copy, artifact_id)
    if isinstance(content, Text):
        return [markers.read(read_words(content))]
    return [node for child in read_children(content) for node in markers.read_all(child)]


class _Markers:
    """Puts marks where something was deleted, and reads what was deleted in their place."""

    def __init__(self, copy: Doc[Any]) -> None:
        self._copy = copy
        self._atoms: dict[str, Atom] = {}
        self._elements: dict[str, Element] = {}
        self._free = iter(_MARKS)

    def put_back(self, deletion: Deletion, lost: Mapping[int, Ranges]) -> None:
        """Put back what was deleted, but for what has one of the ids *lost*, which would not be there."""
        place, said = (deletion.client, deletion.clock), deletion.content
        try:
            if isinstance(said, dict) and "attribute" in said:
                client, clock = said["of"]
                if not _within(lost, place):
                    self._insert((int(client), int(clock)), str(said["attribute"]), said.get("value"))
                return
            if isinstance(said, dict) and "node" in said:
                if not _within(lost, place):
                    self._insert_node(place, dict(said["node"]))
                return
            node = node_of(said)
        except (TypeError, ValueError, KeyError):
            return  # nothing of ours
        for bit, length in [(node, 1)] if isinstance(node, Element) else [(atom, units(atom)) for atom in node.atoms]:
            end = (place[0], place[1] + length - 1)
            if not _within(lost, place):
                self._insert(end, None, bit)
            place = (place[0], place[1] + length)

    def _insert(self, place: Id, attribute: str | None, what: Any) -> None:
        """Insert a mark for *what* right behind an id, or as an attribute of the element that has it."""
        known = decode_state_vector(self._copy.get_state())
        if known.get(place[0], 0) <= place[1]:
            return  # there is no such place
        where = varuint(place[0]) + varuint(place[1])
        if attribute is not None:
            text = bytes([_ANY_TEXT]) + string(canonical(what))
            struct = bytes([HAS_KEY | ANY, 0]) + where + string(_MARKED + attribute) + varuint(1) + text
        elif isinstance(what, Atom):
            mark = chr(next(self._free))
            self._atoms[mark] = what
            struct = bytes([HAS_ORIGIN | STRING]) + where + string(mark)
        else:
            name = f"{_MARKED}{len(self._elements)}"
            self._elements[name] = what
            struct = bytes([HAS_ORIGIN | TYPE]) + where + varuint(_XML_ELEMENT) + string(name)
        head = varuint(1) + varuint(1) + varuint(_FIRST) + varuint(known.get(_FIRST, 0))
        apply_guarded(self._copy, head + struct + NO_DELETIONS)

    def _insert_node(self, place: Id, properties: Mapping[str, Any]) -> None:
        """Insert a text node of Lexical right behind an id."""
        known = decode_state_vector(self._copy.get_state())
        if known.get(place[0], 0) <= place[1]:
            return  # there is no such place
        clock = known.get(_FIRST, 0)
        node = bytes([HAS_ORIGIN | TYPE]) + varuint(place[0]) + varuint(place[1]) + varuint(_MAP)
        text = bytes([_ANY_TEXT]) + string(canonical(properties))
        entry = bytes([HAS_KEY | ANY, 0]) + varuint(_FIRST) + varuint(clock) + string(RESTORED) + varuint(1) + text
        head = varuint(1) + varuint(2) + varuint(_FIRST) + varuint(clock)
        apply_guarded(self._copy, head + node + entry + NO_DELETIONS)

    def read(self, words: Words) -> Words:
        """Return *words* with what was deleted in them."""
        return Words(tuple(each for atom in words.atoms for each in self._read_atom(atom)))

    def read_all(self, node: Node) -> Iterator[Node]:
        """Yield *node* with what was deleted in it."""
        if isinstance(node, Words):
            yield self.read(node)
        elif (back := self._elements.get(node.name)) is not None:
            yield from [back] if back.name else back.children  # one without a name stands for the text in it
        else:
            children = (each for child in node.children for each in self.read_all(child))
            yield element(node.name, _attributes(node), children)

    def _read_atom(self, atom: Atom) -> Iterator[Atom]:
        if isinstance(atom.value, str):
            found = self._atoms.get(atom.value, atom)
            yield Atom(found.value, atom.marks) if PROBED in atom.marks else found
        elif (link := self._elements.get(type_of(atom.value))) is not None:
            yield from (each for child in link.children if isinstance(child, Words) for each in child.atoms)
        else:
            yield atom


def _attributes(node: Element) -> dict[str, Any]:
    """Return the attributes of an element, with those that were deleted and that nobody else has given a value."""
    values = node.values
    deleted = {key[len(_MARKED) :]: json.loads(values.pop(key)) for key in list(values) if key.startswith(_MARKED)}
    return deleted | values


# -- ids -------------------------------------------------------------------------------------------------------------


def _written(steps: Iterable[Step], known: Mapping[int, int]) -> dict[int, Ranges]:
    """Return the ids that *steps* wrote, in a document with these clocks."""
    found: dict[int, Ranges] = {}
    for step in steps:
        end = known.get(step.client, 0)
        if step.length is not None:
            end = min(end, step.clock + step.length)
        if end > step.clock:
            found.setdefault(step.client, []).append((step.clock, end - step.clock))
    return found


def _replaceable(update: bytes, written: Mapping[int, Ranges]) -> dict[int, Ranges]:
    """Return the ids of *written* that can go: not elements in which somebody else has text, nor their attributes."""
    structs = _Structs(update)
    kept: set[Id] = set()
    for place in structs.of(STRING, EMBED):
        parent = None if _within(written, place) else structs.parent(place)
        while isinstance(parent, tuple) and parent not in kept:
            kept.add(parent)
            parent = structs.parent(parent)
    kept = {place for place in kept if _within(written, place)}
    kept |= {place for place in structs.of(ANY, JSON) if structs.parent(place) in kept}
    found: dict[int, Ranges] = {}
    for client, ranges in written.items():
        holes = sorted(clock for who, clock in kept if who == client)
        found[client] = [piece for start, length in ranges for piece in _around(start, length, holes)]
    return found


class _Structs:
    """What stands in a document, by its ids, with the types that it is in."""

    def __init__(self, update: bytes) -> None:
        self._heads: dict[int, tuple[list[int], list[Head]]] = {}
        self._parents: dict[Id, Id | str | None] = {}
        for client, listed in parse(update).inserted.items():
            clocks = [each.clock for each in listed]
            self._heads[client] = clocks, [read_head(Reader(update[each.start : each.end])) for each in listed]

    def of(self, *kinds: int) -> Iterator[Id]:
        """Yield where structs with these kinds of content begin."""
        for client, (clocks, heads) in self._heads.items():
            yield from ((client, clock) for clock, head in zip(clocks, heads, strict=True) if head.kind in kinds)

    def parent(self, place: Id) -> Id | str | None:
        """Return the type, or the name of the root, that an id is in; None if it is in none any more."""
        path: list[Id] = []
        found: Id | str | None = None
        at: Id | None = place
        while at is not None:
            client, clock = at
            clocks, heads = self._heads.get(client, ([], []))
            index = bisect_right(clocks, clock) - 1
            if index < 0:
                break
            begin, head = (client, clocks[index]), heads[index]
            if begin in self._parents:
                found = self._parents[begin]
                break
            path.append(begin)
            found = head.parent
            at = (head.origin or head.right) if found is None else None
        self._parents.update(dict.fromkeys(path, found))
        return found


def _around(start: int, length: int, holes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield a range without *holes*, which are in order."""
    end = start + length
    for hole in holes:
        if start <= hole < end:
            if hole > start:
                yield start, hole - start
            start = hole + 1
    if end > start:
        yield start, end - start


def _within(ranges: Mapping[int, Ranges], place: Id) -> bool:
    client, clock = place
    return any(start <= clock < start + length for start, length in ranges.get(client, ()))


def _deleting(ids: Mapping[int, Ranges]) -> bytes:
    parts = [varuint(0), varuint(len(ids))]
    for client, ranges in ids.items():
        parts += (varuint(client), varuint(len(ranges)))
        parts += (varuint(clock) + varuint(length) for clock, length in ranges)
    return b"".join(parts)
