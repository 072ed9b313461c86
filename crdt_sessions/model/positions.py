"""Places in a shared text that stay where they are while others write: the relative positions of Yjs.

The CRDT library has them too, but counts partly bytes and partly UTF-16 units, does not say which text a position is
in, and panics at the end of a text. So what a place is, is found out in a copy of the document: what is deleted there
has an id, and what is inserted right behind an id stands where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from pycrdt import Assoc, Doc, Text, TransactionEvent
from pydantic import Field

from crdt_sessions.errors import BadValue, UpdateError
from crdt_sessions.model.base import Value
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.library import apply_guarded
from crdt_sessions.model.nodes import TextType, read_words
from crdt_sessions.model.rewriting import size
from crdt_sessions.wire.update_v1 import HAS_ORIGIN, MAX_CLOCK, NO_DELETIONS, STRING, parse
from crdt_sessions.wire.varint import decode_state_vector, string, varuint

_FIRST = 0
"""Among those that insert at the same place, the client of the lowest id is the first."""
_COPY = 1


class StructId(Value):
    """What a client inserted: one UTF-16 unit of a text, or a shared type."""

    client: int = Field(ge=0, le=MAX_INTEGER)
    clock: int = Field(ge=0, lt=MAX_CLOCK)


class RelativePosition(Value):
    """A place in a text, as ``Y.relativePositionToJSON`` has it."""

    type: StructId | None = Field(None, description="The text; it may be left out if there is an item.")
    item: StructId | None = Field(None, description="The character; without it, an end of the text is meant.")
    assoc: Literal[-1, 0] = Field(
        0, description="0: before the character, or at the end; -1: behind the character, or at the beginning."
    )


def position_at(
    text: TextType, index: int, assoc: Literal[-1, 0], same_in: Callable[[Doc[Any]], TextType]
) -> RelativePosition:
    """Return the place before the code point at *index*, as one that stays there.

    Args:
        text: the text, or one of a rich text, in a document.
        index: in code points, an embed being one; the length of the text is its end.
        assoc: 0 to stay before what follows, -1 to stay behind what precedes.
        same_in: returns the same text in a copy of the document.

    Raises:
        BadValue: *index* is outside the text.
    """
    length = len(read_words(text).atoms)
    if not 0 <= index <= length:
        raise BadValue(where="index", why=f"{index} is outside a text of {length} characters")
    beside = index + assoc
    if not 0 <= beside < length:
        return RelativePosition(type=_type_of(text), item=None, assoc=assoc)
    client, clock, units = _delete(same_in(_copy(text.doc)), beside)
    return RelativePosition(
        type=_type_of(text), item=StructId(client=client, clock=clock + units - 1 if assoc else clock), assoc=assoc
    )


def index_of(text: Text, position: RelativePosition, same_in: Callable[[Doc[Any]], Text]) -> int:
    """Return where a place is now, in code points. If its character was deleted, it is where that was.

    Args:
        text: the text, in a document.
        position: the place.
        same_in: returns the same text in a copy of the document.

    Raises:
        BadValue: it is no place in this text.
    """
    if position.item is None:
        if position.type != _type_of(text):
            raise _elsewhere()
        return 0 if position.assoc else len(str(text))
    return find_place(text.doc, position.item, position.assoc, lambda copy: [((), same_in(copy))])[1]


def find_place(
    doc: Doc[Any],
    item: StructId,
    assoc: Literal[-1, 0],
    texts_in: Callable[[Doc[Any]], Iterable[tuple[tuple[int, ...], TextType]]],
) -> tuple[tuple[int, ...], int]:
    """Return in which of several texts a place is, and where in it, in code points.

    Args:
        doc: the document.
        item: the character that the place is at.
        assoc: on which side of it, as :class:`RelativePosition` has it.
        texts_in: returns the texts in a copy of the document, each with what it is called.

    Raises:
        BadValue: it is in none of them.
    """
    copy = _copy(doc)
    texts = list(texts_in(copy))
    said = set("".join(read_words(text).text for _, text in texts))
    mark = next(char for char in map(chr, range(0xE000, 0x10FFFF)) if char not in said)
    try:
        apply_guarded(copy, _behind(item, mark, decode_state_vector(copy.get_state())))
    except UpdateError as error:
        raise _elsewhere() from error
    for name, text in texts:
        values = [atom.value for atom in read_words(text).atoms]
        if mark not in values:
            continue
        found = values.index(mark)
        if assoc or not found:
            return name, found
        client, clock, units = _delete(text, found - 1)
        return name, found - (client == item.client and clock <= item.clock < clock + units)
    raise _elsewhere()


def _elsewhere() -> BadValue:
    return BadValue(where="position", why="it is no place in this text; ask for one with an index")


def _type_of(text: TextType) -> StructId | None:
    """Return the id of a text: all that the library says of its beginning, and of one in rich text not even that."""
    if not isinstance(text, Text):
        return None
    return StructId.model_validate(text.sticky_index(0, Assoc.BEFORE).to_json()["type"])


def _copy(doc: Doc[Any]) -> Doc[Any]:
    copy: Doc[Any] = Doc(client_id=_COPY)
    apply_guarded(copy, doc.get_update())
    return copy


def _delete(text: TextType, index: int) -> tuple[int, int, int]:
    """Delete the code point at *index*; return which one that was: client, clock, UTF-16 units."""
    deltas: list[bytes] = []
    atoms = read_words(text).atoms
    offset = sum(map(size, atoms[:index]))

    def note(event: TransactionEvent) -> None:
        deltas.append(event.update)

    doc = text.doc
    subscription = doc.observe(note)
    try:
        del text[offset : offset + size(atoms[index])]
    finally:
        doc.unobserve(subscription)
    client, ((clock, units), *_) = next(iter(parse(deltas[0]).deleted.items()))
    return client, clock, units if isinstance(atoms[index].value, str) else 1  # what an embed holds goes with it


def _behind(item: StructId, mark: str, known: dict[int, int]) -> bytes:
    """Return an update that inserts *mark* right behind *item*, before whatever anybody else has inserted there."""
    return (
        varuint(1) + varuint(1) + varuint(_FIRST) + varuint(known.get(_FIRST, 0)) + bytes([HAS_ORIGIN | STRING])
        + varuint(item.client) + varuint(item.clock) + string(mark) + NO_DELETIONS
    )  # fmt: skip
