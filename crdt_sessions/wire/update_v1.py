"""The one reader of Yjs updates, version 1: bytes to structs and ranges of deleted ids, and back.

It says what stands in an update. What may be done with it is decided elsewhere: which updates are harmless by their
shape (:mod:`crdt_sessions.sync.plain`, :mod:`crdt_sessions.sync.fresh`), what must wait for others
(:mod:`crdt_sessions.model.causality`), which would tear a character apart (:mod:`crdt_sessions.model.pairs`).
Source of the format: Yjs ``encoding.js``, ``Item.js``, ``StructSet`` and ``DeleteSet.js``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crdt_sessions.errors import BadText, MalformedUpdate, WireError
from crdt_sessions.wire.any_value import skip_value
from crdt_sessions.wire.frames import EMPTY_UPDATE
from crdt_sessions.wire.varint import Reader, varuint

MAX_CLOCK = 2**31
"""No client writes so many characters; beyond it the library counts wrongly."""
GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)
"""Kinds of content, in the low bits of a struct's first byte."""
HAS_ORIGIN, HAS_RIGHT_ORIGIN, HAS_KEY = 0x80, 0x40, 0x20
"""Its other bits: whether it stands after, or before, another one, and whether it is the entry of a map."""
NO_DELETIONS = b"\x00"
"""How an update ends that deletes nothing."""

Id = tuple[int, int]
"""A struct, or one of the characters in it: client and clock."""
Block = tuple[int, int, int]
"""What stands before the structs of one client: their number, the client, and the clock of the first of them."""
Ranges = list[tuple[int, int]]
"""Ids of one client: clock and number."""


class _Unreadable(Exception):
    """It is no struct, or its clock is too high."""


class Head(NamedTuple):
    """What stands before the content of a struct."""

    info: int
    """Its first byte."""
    origin: Id | None
    """What it stands after."""
    right: Id | None
    """What it stands before."""
    parent: Id | str | None
    """The type, or the root, that it is in; None if a neighbour tells, or it is in none."""
    key: str | None
    """Its key, if it is the entry of a map and has no neighbour."""

    @property
    def kind(self) -> int:
        """The kind of its content."""
        return self.info & ~(HAS_ORIGIN | HAS_RIGHT_ORIGIN | HAS_KEY)


class Struct(NamedTuple):
    """What one client inserted at once."""

    start: int
    """Where it begins in the update."""
    end: int
    clock: int
    size: int
    needs: tuple[Id, ...]
    """Structs of other clients that must be there."""
    skip: bool
    """Whether it only says that something lacks."""
    beside: tuple[Id, ...]
    """Between which structs it stands: client, and the clock after the place."""
    text: int
    """Where its text begins in the update, with its length; 0 if it is none."""
    astray: bool = False
    """Whether it stands before what it cannot stand before: something that its own client has not written yet, such
    as itself, or the very thing that it stands behind."""
    info: int = 0
    """Its first byte."""

    @property
    def kind(self) -> int:
        """The kind of its content."""
        return self.info & ~(HAS_ORIGIN | HAS_RIGHT_ORIGIN | HAS_KEY)


@dataclass(slots=True)
class Parsed:
    """An update, read."""

    inserted: dict[int, list[Struct]] = field(default_factory=dict)
    deleted: dict[int, Ranges] = field(default_factory=dict)


# -- whole updates -------------------------------------------------------------------------------------------------


def parse(update: bytes) -> Parsed:
    """Return what stands in *update*.

    Raises:
        MalformedUpdate: it cannot be read, or has a clock of :data:`MAX_CLOCK` or more.
    """
    try:
        return _parse(Reader(update), len(update))
    except (WireError, UnicodeDecodeError, _Unreadable) as error:
        raise MalformedUpdate(size=len(update)) from error


def count_clients(update: bytes) -> int:
    """Return the number of clients that *update* holds structs of.

    Raises:
        MalformedUpdate: it does not begin with one.
    """
    return _begin(update)[0]


def first_client(update: bytes) -> int | None:
    """Return the first client that *update* holds structs of; only that one can be read without reading structs.

    Raises:
        MalformedUpdate: what stands before them cannot be read.
    """
    _, block = _begin(update)
    return block[1] if block is not None else None


def sole_client(update: bytes) -> int | None:
    """Return the only client that *update* holds structs of; None if there are none, or several.

    Raises:
        MalformedUpdate: what stands before them cannot be read.
    """
    clients, block = _begin(update)
    return block[1] if block is not None and clients == 1 else None


def read_block(reader: Reader) -> Block:
    """Read what stands before the structs of one client.

    Raises:
        WireError: the bytes end before.
    """
    return reader.varuint(), reader.varuint(), reader.varuint()


def sole_block(reader: Reader) -> Block | None:
    """Read the same, from the start of an update; None if it does not hold structs of exactly one client.

    Raises:
        WireError: the bytes end before.
    """
    return read_block(reader) if reader.varuint() == 1 else None


def covers(clocks: Mapping[int, int], update: bytes) -> bool:
    """Tell whether a replica with these clocks has all that *update* inserts; not if it inserts nothing.

    It does not tell for an update that cannot be read, which is not covered.
    """
    try:
        inserted = parse(update).inserted
    except MalformedUpdate:
        return False
    ends = {client: some[-1].clock + some[-1].size for client, some in inserted.items() if some}
    return bool(ends) and all(end <= clocks.get(client, 0) for client, end in ends.items())


def without_astray(update: bytes, parsed: Parsed) -> bytes:
    """Return *update* with its structs behind what they stand behind, and before nothing that cannot follow there.

    Raises:
        MalformedUpdate: one of them stands behind nothing.
    """
    parts: list[bytes] = []
    at = 0
    for struct in sorted(each for listed in parsed.inserted.values() for each in listed if each.astray):
        reader = Reader(update[struct.start : struct.end])
        head = read_head(reader)
        if head.origin is None:
            raise MalformedUpdate(size=len(update))
        parts += (update[at : struct.start], bytes((head.info & ~HAS_RIGHT_ORIGIN,)), *map(varuint, head.origin))
        at = struct.end - reader.remaining
    return b"".join((*parts, update[at:]))


def select(update: bytes, inserted: Mapping[int, Sequence[Struct]], deleted: Mapping[int, Ranges]) -> bytes:
    """Return an update that holds only some of the structs of *update*, and deletes these ids."""
    listed = {client: some for client, some in inserted.items() if some}
    if not listed and not deleted:
        return EMPTY_UPDATE
    parts = [varuint(len(listed))]
    for client, some in listed.items():
        parts += (varuint(len(some)), varuint(client), varuint(some[0].clock))
        parts += (update[struct.start : struct.end] for struct in some)
    parts.append(varuint(len(deleted)))
    for client, ranges in deleted.items():
        parts += (varuint(client), varuint(len(ranges)))
        parts += (varuint(clock) + varuint(size) for clock, size in ranges)
    return b"".join(parts)


def _parse(reader: Reader, size: int) -> Parsed:
    parsed = Parsed()
    for _ in range(reader.varuint()):
        count, client, clock = read_block(reader)
        listed = parsed.inserted.setdefault(client, [])
        for _ in range(count):
            listed.append(struct := _struct(reader, client, clock, size))
            clock = _bounded(clock + struct.size)
    for client, ranges in _deleted(reader):
        some = parsed.deleted.setdefault(client, [])
        for clock, length in ranges:
            _bounded(clock + length)
            if length:
                some.append((clock, length))
    return parsed


def _begin(update: bytes) -> tuple[int, Block | None]:
    """Return the number of clients, and what stands before the structs of the first one."""
    try:
        reader = Reader(update)
        clients = reader.varuint()
        return clients, read_block(reader) if clients else None
    except WireError as error:
        raise MalformedUpdate(size=len(update)) from error


def _bounded(clock: int) -> int:
    if clock >= MAX_CLOCK:
        raise _Unreadable
    return clock


# -- deleted ids ---------------------------------------------------------------------------------------------------


def read_id_set(reader: Reader) -> dict[int, Ranges]:
    """Read ranges of ids by client; in order, and neighbours joined.

    Raises:
        WireError: the bytes end before.
    """
    found: dict[int, Ranges] = {}
    for client, ranges in _deleted(reader):
        joined: Ranges = []
        for clock, length in sorted(ranges):
            if joined and joined[-1][0] + joined[-1][1] >= clock:
                start = joined[-1][0]
                joined[-1] = (start, max(joined[-1][1], clock + length - start))
            else:
                joined.append((clock, length))
        if joined:
            found[client] = joined
    return found


def _deleted(reader: Reader) -> Iterator[tuple[int, Ranges]]:
    for _ in range(reader.varuint()):
        yield reader.varuint(), [(reader.varuint(), reader.varuint()) for _ in range(reader.varuint())]


# -- structs -------------------------------------------------------------------------------------------------------


def read_head(reader: Reader) -> Head:
    """Read what stands before the content of a struct. Of GC and Skip that is the first byte alone.

    Raises:
        WireError: the bytes end before, or a name is not UTF-8.
    """
    info = reader.take(1)[0]
    if info in (GC, SKIP):
        return Head(info, None, None, None, None)
    origin = (reader.varuint(), reader.varuint()) if info & HAS_ORIGIN else None
    right = (reader.varuint(), reader.varuint()) if info & HAS_RIGHT_ORIGIN else None
    if origin is not None or right is not None:
        return Head(info, origin, right, None, None)
    if (named := reader.varuint()) not in (0, 1):
        raise BadText(what=f"{named} does not say where a struct belongs")
    parent = reader.string() if named else (reader.varuint(), reader.varuint())
    return Head(info, None, None, parent, reader.string() if info & HAS_KEY else None)


def _struct(reader: Reader, client: int, clock: int, size: int) -> Struct:
    """Read a struct of *client* in an update of *size* bytes."""
    start = size - reader.remaining
    head = read_head(reader)
    if head.info in (GC, SKIP):
        length = _bounded(reader.varuint())
        return Struct(start, size - reader.remaining, clock, length, (), head.info == SKIP, (), 0, info=head.info)
    read = _CONTENTS.get(head.kind)
    if read is None:
        raise _Unreadable
    content = size - reader.remaining
    length = _bounded(read(reader))
    parent = None if isinstance(head.parent, str) else head.parent
    if any(each is not None and each[0] == client and each[1] >= clock for each in (head.origin, parent)):
        raise _Unreadable  # it would have to be there before itself
    named = (each for each in (head.origin, head.right, parent) if each is not None and each[0] != client)
    after = (head.origin[0], head.origin[1] + 1) if head.origin is not None else None
    return Struct(
        start,
        size - reader.remaining,
        clock,
        length,
        needs=tuple((who, _bounded(at)) for who, at in named),
        skip=False,
        beside=tuple(each for each in (after, head.right) if each is not None),
        text=content if head.kind == STRING else 0,
        astray=head.right is not None
        and (head.right == head.origin or (head.right[0] == client and head.right[1] >= clock)),
        info=head.info,
    )


# -- contents ------------------------------------------------------------------------------------------------------


def units(text: bytes) -> int:
    """Return the length of UTF-8 text in UTF-16 units, which Yjs counts in.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return len(text) if text.isascii() else len(text.decode().encode("utf-16-le")) // 2


def may_hold_pairs(update: bytes) -> bool:
    """Tell whether *update* may hold characters of two UTF-16 units; a wrong "yes" is possible."""
    return (len(update) < _SHORT or any(lead in update for lead in _LEADS)) and _FOUR_BYTES.search(update) is not None


_LEADS = tuple(bytes((lead,)) for lead in range(0xF0, 0xF5))
_SHORT = 256
"""In longer updates it is quicker to look for each of them in turn."""
_FOUR_BYTES = re.compile(rb"\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf4][\x80-\xbf]{3}")
"""Such a character, in UTF-8."""


def _strings(reader: Reader) -> int:
    count = reader.varuint()
    for _ in range(count):
        reader.buffer()
    return count


def _one(reader: Reader) -> int:
    reader.buffer()
    return 1


def _format(reader: Reader) -> int:
    reader.buffer()
    return _one(reader)


def _type(reader: Reader) -> int:
    if reader.varuint() == _XML_ELEMENT:
        reader.buffer()
    return 1


def _values(reader: Reader) -> int:
    count = reader.varuint()
    for _ in range(count):
        skip_value(reader)
    return count


def _document(reader: Reader) -> int:
    reader.buffer()
    skip_value(reader)
    return 1


_XML_ELEMENT = 3
_CONTENTS: dict[int, Callable[[Reader], int]] = {
    DELETED: Reader.varuint,
    JSON: _strings,
    BINARY: _one,
    STRING: lambda reader: units(reader.buffer()),
    EMBED: _one,
    FORMAT: _format,
    TYPE: _type,
    ANY: _values,
    DOC: _document,
}
"""How each kind of content is read; returns its length."""
