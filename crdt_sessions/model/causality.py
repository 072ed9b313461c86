"""What an update needs that may not have arrived, read without the library.

A struct can be integrated once everything its client wrote before it is there, and what it stands beside or in. The
library keeps what cannot be integrated yet inside the document, out of sight, where hostile structs do their harm as
soon as somebody else brings what they waited for. So updates are taken apart before it sees them: what can be
integrated *now*, all of it, and what must wait until *later*, with the clocks it waits for.
Source of the format and of the rule: Yjs ``encoding.js``, ``StructSet`` and ``Item.getMissing``, update v1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from crdt_sessions.errors import MalformedUpdate, WireError
from crdt_sessions.ids import ClientId
from crdt_sessions.model import structs
from crdt_sessions.model.structs import GC, HAS_KEY, HAS_ORIGIN, HAS_RIGHT_ORIGIN, MAX_CLOCK, SKIP, units
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import Reader, varuint

Clocks = Mapping[int, int]
"""A state vector: by client, the number of its structs that are there."""
_Ids = tuple[tuple[int, int], ...]


class Later(NamedTuple):
    """What of an update must wait."""

    update: bytes
    wakes: dict[int, int]
    """Clocks by client: as soon as one of them is reached, it is worth while to look again."""
    reach: dict[int, int]
    """The clocks behind its structs, by client. Who has them all has all that was inserted."""
    deletes: bool
    """Whether it deletes something, too."""

    @property
    def authors(self) -> tuple[ClientId, ...]:
        """The clients by whom there are structs in it."""
        return tuple(map(ClientId, self.reach))


class Split(NamedTuple):
    """An update, taken apart."""

    now: bytes
    """What can be integrated; the empty update if that is nothing."""
    clocks: dict[int, int]
    """The clocks of the clients in it afterwards."""
    later: Later | None
    """What must wait; None if nothing must."""


class _Unreadable(Exception):
    """It is no struct, or beyond all clocks."""


class Struct(NamedTuple):
    """What one client inserted at once."""

    start: int
    """Where it begins in the update."""
    end: int
    clock: int
    size: int
    needs: _Ids
    """Structs of other clients that must be there."""
    skip: bool
    """Whether it only says that something lacks."""
    beside: _Ids
    """Between which structs it stands: client, and the clock of the one behind the place."""
    text: int
    """Where its text begins in the update, with its length; 0 if it is none."""


@dataclass(slots=True)
class Parsed:
    """An update, read."""

    inserted: dict[int, list[Struct]] = field(default_factory=dict)
    deleted: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Ranges: clock and size."""


def split(update: bytes, clocks: Clocks) -> Split:
    """Take an update apart into what can be integrated into a document of that state vector, and what must wait.

    Raises:
        MalformedUpdate: it cannot be read, names clocks that no client reaches, or waits for itself.
    """
    parsed = parse(update)
    known = {client: clocks.get(client, 0) for client in parsed.inserted}
    taken = _integrate(parsed.inserted, clocks, known)
    whole = all(taken[client] == len(listed) for client, listed in parsed.inserted.items())
    if whole and all(_reached(ranges, client, known, clocks) for client, ranges in parsed.deleted.items()):
        return Split(update, known, None)
    return _apart(update, parsed, taken, known, clocks)


def _integrate(inserted: dict[int, list[Struct]], clocks: Clocks, known: dict[int, int]) -> dict[int, int]:
    """Return how many structs of each client can be integrated; *known* moves with them."""
    taken = dict.fromkeys(inserted, 0)
    blocked: dict[int, list[int]] = {}  # by client, those whose next struct needs one of its structs
    to_do = list(inserted)
    while to_do:
        client = to_do.pop()
        at, listed, moved = taken[client], inserted[client], False
        while at < len(listed):
            struct = listed[at]
            if not struct.skip:
                if struct.clock > known[client]:
                    break
                lacks = next(
                    (who for who, clock in struct.needs if clock >= known.get(who, clocks.get(who, 0))), None
                )
                if lacks is not None:
                    blocked.setdefault(lacks, []).append(client)
                    break
                if (end := struct.clock + struct.size) > known[client]:
                    known[client], moved = end, True
            at += 1
        taken[client] = at
        if moved:
            to_do += blocked.pop(client, ())
    return taken


def _apart(update: bytes, parsed: Parsed, taken: dict[int, int], known: dict[int, int], clocks: Clocks) -> Split:
    now = {client: _trimmed(listed[: taken[client]]) for client, listed in parsed.inserted.items()}
    later = {client: _trimmed(listed[taken[client] :]) for client, listed in parsed.inserted.items()}
    gone: dict[int, list[tuple[int, int]]] = {}
    kept: dict[int, list[tuple[int, int]]] = {}
    for client, ranges in parsed.deleted.items():
        reach = known.get(client, clocks.get(client, 0))
        for clock, size in ranges:
            there = min(max(reach - clock, 0), size)
            if there:
                gone.setdefault(client, []).append((clock, there))
            if there < size:
                kept.setdefault(client, []).append((clock + there, size - there))
    wakes = _wakes(later, kept, lambda client: known.get(client, clocks.get(client, 0)))
    if not wakes:
        raise MalformedUpdate(size=len(update))  # in a circle: nothing that could come would help
    behind = {client: max(each.clock + each.size for each in listed) for client, listed in later.items() if listed}
    return Split(
        _encode(update, now, gone), known, Later(_encode(update, later, kept), wakes, behind, deletes=bool(kept))
    )


def _trimmed(listed: list[Struct]) -> list[Struct]:
    """Return *listed* without what says at its beginning, or at its end, that something lacks."""
    found = [at for at, struct in enumerate(listed) if not struct.skip]
    return listed[found[0] : found[-1] + 1] if found else []


def _wakes(
    later: dict[int, list[Struct]], deleted: dict[int, list[tuple[int, int]]], reached: Callable[[int], int]
) -> dict[int, int]:
    """Return for what waits which clock it waits for first; nothing if it waits for nothing but itself."""
    wakes: dict[int, int] = {}
    outside = False

    def wait(client: int, clock: int) -> None:
        nonlocal outside
        wakes[client] = min(clock, wakes.get(client, clock))
        outside = outside or not any(each.clock < clock <= each.clock + each.size for each in later.get(client, ()))

    for client, listed in later.items():
        if listed and listed[0].clock > reached(client):
            wait(client, listed[0].clock)
        elif listed:
            wait(*next((who, clock + 1) for who, clock in listed[0].needs if clock >= reached(who)))
    for client, ranges in deleted.items():
        wait(client, min(clock for clock, _ in ranges) + 1)
    return wakes if outside else {}


def _reached(ranges: list[tuple[int, int]], client: int, known: dict[int, int], clocks: Clocks) -> bool:
    reach = known.get(client, clocks.get(client, 0))
    return all(clock + size <= reach for clock, size in ranges)


def _encode(update: bytes, inserted: dict[int, list[Struct]], deleted: dict[int, list[tuple[int, int]]]) -> bytes:
    """Return an update of some of the structs of *update*."""
    listed = {client: some for client, some in inserted.items() if some}
    parts = [varuint(len(listed))]
    for client, some in listed.items():
        parts += (varuint(len(some)), varuint(client), varuint(some[0].clock))
        parts += (update[struct.start : struct.end] for struct in some)
    parts.append(varuint(len(deleted)))
    for client, ranges in deleted.items():
        parts += (varuint(client), varuint(len(ranges)))
        parts += (varuint(clock) + varuint(size) for clock, size in ranges)
    encoded = b"".join(parts)
    return EMPTY_UPDATE if not listed and not deleted else encoded


# -- reading ------------------------------------------------------------------------------------------------------


def parse(update: bytes) -> Parsed:
    """Return what stands in *update*.

    Raises:
        MalformedUpdate: it cannot be read, or names clocks that no client reaches.
    """
    try:
        return _parse(Reader(update), len(update))
    except (WireError, UnicodeDecodeError, _Unreadable) as error:
        raise MalformedUpdate(size=len(update)) from error


def _parse(reader: Reader, size: int) -> Parsed:
    parsed = Parsed()
    for _ in range(reader.varuint()):
        count, client, clock = reader.varuint(), reader.varuint(), reader.varuint()
        listed = parsed.inserted.setdefault(client, [])
        for _ in range(count):
            listed.append(struct := _struct(reader, client, clock, size))
            clock = _bounded(clock + struct.size)
    for _ in range(reader.varuint()):
        ranges = parsed.deleted.setdefault(reader.varuint(), [])
        for _ in range(reader.varuint()):
            clock, length = reader.varuint(), reader.varuint()
            _bounded(clock + length)
            if length:
                ranges.append((clock, length))
    return parsed


def _bounded(clock: int) -> int:
    if clock >= MAX_CLOCK:
        raise _Unreadable
    return clock


def _struct(reader: Reader, client: int, clock: int, size: int) -> Struct:
    """Read a struct of *client* in an update of *size* bytes."""
    start = size - reader.remaining
    info = reader.take(1)[0]
    if info in (GC, SKIP):
        length = _bounded(reader.varuint())
        return Struct(start, size - reader.remaining, clock, length, (), info == SKIP, (), 0)
    origin = (reader.varuint(), reader.varuint()) if info & HAS_ORIGIN else None
    right = (reader.varuint(), reader.varuint()) if info & HAS_RIGHT_ORIGIN else None
    parent = None
    if origin is None and right is None:  # then it says where it belongs
        if reader.varuint() == 1:
            reader.buffer()
        else:
            parent = (reader.varuint(), reader.varuint())
        if info & HAS_KEY:
            reader.buffer()
    kind = info & ~(HAS_ORIGIN | HAS_RIGHT_ORIGIN | HAS_KEY)
    read = _CONTENTS.get(kind)
    if read is None:
        raise _Unreadable
    content = size - reader.remaining
    length = _bounded(read(reader))
    needs = tuple((each[0], _bounded(each[1])) for each in (origin, right, parent) if each and each[0] != client)
    places = ((origin[0], origin[1] + 1) if origin else None, right)
    return Struct(
        start,
        size - reader.remaining,
        clock,
        length,
        needs,
        skip=False,
        beside=tuple(each for each in places if each),
        text=content if kind == structs.STRING else 0,
    )


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
        _skip_value(reader)
    return count


def _document(reader: Reader) -> int:
    reader.buffer()
    _skip_value(reader)
    return 1


def _skip_value(reader: Reader) -> None:
    """Read one of lib0's values, however deep. Source: lib0 ``decoding.readAny``."""
    stack = [(1, False)]  # of each list and object that is open: what is left of it, and whether that has names
    while stack:
        left, named = stack.pop()
        if not left:
            continue
        stack.append((left - 1, named))
        if named:
            reader.buffer()
        kind = reader.take(1)[0]
        if kind in (_OBJECT, _LIST):
            stack.append((reader.varuint(), kind == _OBJECT))
        elif kind in (_TEXT, _BYTES):
            reader.buffer()
        elif kind == _INTEGER:
            while reader.take(1)[0] >= 0x80:
                pass
        elif kind in _FIXED:
            reader.take(_FIXED[kind])
        else:
            raise _Unreadable


_XML_ELEMENT = 3
_BYTES, _LIST, _OBJECT, _TEXT, _INTEGER = 116, 117, 118, 119, 125
_FIXED = {120: 0, 121: 0, 122: 8, 123: 8, 124: 4, 126: 0, 127: 0}
"""Bytes behind true, false, a big integer, two sizes of float, null and undefined."""
_CONTENTS: dict[int, Callable[[Reader], int]] = {
    structs.DELETED: Reader.varuint,
    structs.JSON: _strings,
    structs.BINARY: _one,
    structs.STRING: lambda reader: units(reader.buffer()),
    structs.EMBED: _one,
    structs.FORMAT: _format,
    structs.TYPE: _type,
    structs.ANY: _values,
    structs.DOC: _document,
}
"""How each kind of content is read; returns its length."""
