"""What updates put things beside, as the library tells it.

Where an item stands beside another one, it is in the same type and, in a map, under the same key. Clients put an item
of a sequence between two neighbours in it, and the entry of a map behind the one before, alone. What names other
neighbours was forged, and libraries do not agree on it, nor one library with itself after loading
(``docs/decisions/0077-what-no-client-puts-side-by-side.md``).

The library tells no item's parent. But it says of each item that it encodes whether it is the entry of a map, and of
what was collected nothing is left but the extent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from crdt_sessions.errors import UpdateError
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.extent import extent_of
from crdt_sessions.wire.update_v1 import (
    DELETED,
    GC,
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    SKIP,
    STRING,
    Head,
    Id,
    Parsed,
    Ranges,
    Struct,
    parse,
    read_head,
    sole_block,
    units,
)
from crdt_sessions.wire.varint import Reader, encode_state_vector

_FEW = 8
"""Neighbours that are looked at one by one; for more, the whole document is read."""
_MOST_READ = 1024 * 1024
"""Bytes of a document that may be read, which takes half a second at most. Of a larger one few neighbours are looked
at: what an honest client wrote without a connection must not be refused because it was much."""
_ROW = 8
"""Pieces of one client's text that are looked at."""


def piece_at(document: SessionDoc, clocks: Mapping[int, int], client: int, clock: int) -> tuple[Head, Reader] | None:
    """Return what a client wrote at a clock, from there on to the end of that piece: its head, and its content.

    Args:
        document: the document.
        clocks: its state vector.
        client: the client.
        clock: below the client's clock in *clocks*.
    """
    reader = Reader(document.encode(encode_state_vector({**clocks, client: clock})))
    return (read_head(reader), reader) if sole_block(reader) is not None else None


def may_be_beside_text(document: SessionDoc, clocks: Mapping[int, int], client: int, clock: int) -> bool:
    """Tell whether text may be put beside what a client wrote at a clock: it is in a sequence, and not collected.

    Arguments are those of :func:`piece_at`.
    """
    piece = piece_at(document, clocks, client, clock)
    return piece is not None and piece[0].info not in (GC, SKIP) and not piece[0].info & HAS_KEY


def may_be_neighbours(document: SessionDoc, clocks: Mapping[int, int], left: Id, right: Id) -> bool:
    """Tell whether somebody may have seen *right* next to *left*, as far as what one client wrote in a row tells.

    What a client wrote behind its own last character each time stands in the order of its clocks, and who has seen
    the last of it has seen all of it. Not more than a few pieces of it are looked at.
    """
    (client, low), (other, high) = left, right
    if client != other or high == low + 1:
        return True
    low, high = min(low, high), max(low, high)
    reader = Reader(document.encode(encode_state_vector({**clocks, client: low})))
    structs, _, clock = sole_block(reader) or (0, client, low)
    for number in range(min(structs, _ROW)):
        head = read_head(reader)
        if number and head.origin != (client, clock - 1):
            return True
        if head.kind not in (STRING, DELETED):
            return True
        clock += units(reader.buffer()) if head.kind == STRING else reader.varuint()
        if clock > high:
            return False
    return True


def check_entries(update: bytes) -> Parsed:
    """Return what stands in an update that the library wrote, if each entry of a map in it is one that clients write.

    Raises:
        UpdateError: one could be split, or stands before something.
    """
    parsed = parse(update)
    for client, listed in parsed.inserted.items():
        gone = sorted(parsed.deleted.get(client, ()))
        for struct in listed:
            if struct.info & HAS_KEY:
                splits = struct.size > 1 and not _is_gone(struct, gone)
                if splits or struct.info & HAS_RIGHT_ORIGIN:
                    raise UpdateError(size=len(update))
    return parsed


def check_neighbours(update: bytes, document: SessionDoc, clocks: Mapping[int, int]) -> None:
    """Return if *update*, which the library wrote of a change to *document*, names such neighbours as clients do.

    Args:
        update: the change.
        document: has taken it.
        clocks: its state vector.

    Raises:
        UpdateError: it does not.
    """
    parsed = check_entries(update)
    known, pairs = _named(parsed)
    if len(known) > _FEW:
        deleted = extent_of(document.doc).deleted
        known = {each for each in known if _covers(deleted, each)}
    inserted = _read(document) if max(len(known), len(pairs)) > _FEW else None
    if inserted is not None:
        collected = {client: _collected(listed) for client, listed in inserted.items()}
        rows = {client: _rows(client, listed) for client, listed in inserted.items()}
        forged = any(_covers(collected, each) for each in known) or any(_in_one_row(rows, *pair) for pair in pairs)
    else:
        forged = any(_is_collected(document, clocks, *each) for each in sorted(known)[:_FEW]) or not all(
            may_be_neighbours(document, clocks, *pair) for pair in sorted(pairs)[:_FEW]
        )
    if forged:
        raise UpdateError(size=len(update))


def _named(parsed: Parsed) -> tuple[set[Id], set[tuple[Id, Id]]]:
    """Return the neighbours that an update names and does not bring, and the pairs of them that are in question."""
    new = {client: [(each.clock, each.size) for each in listed] for client, listed in parsed.inserted.items()}
    if any(each.info == GC for listed in parsed.inserted.values() for each in listed):
        new = {}  # what is new may be collected, too
    known: set[Id] = set()
    pairs: set[tuple[Id, Id]] = set()
    for client, listed in parsed.inserted.items():
        gone = sorted(parsed.deleted.get(client, ()))
        for struct in listed:
            if len(struct.beside) == 2 and not _is_gone(struct, gone):
                (who, after), right = struct.beside
                left = (who, after - 1)
                known.update(each for each in (left, right) if not _covers(new, each))
                if who == right[0] and right[1] != after:
                    pairs.add((left, right))
    return known, pairs


def _read(document: SessionDoc) -> Mapping[int, Sequence[Struct]] | None:
    """Return what a document holds, in order; None if that is too much to be read."""
    whole = document.encode()
    return parse(whole).inserted if len(whole) <= _MOST_READ else None


def _collected(listed: Sequence[Struct]) -> Ranges:
    return [(each.clock, each.size) for each in listed if each.info == GC]


def _rows(client: int, listed: Sequence[Struct]) -> Ranges:
    """Return what a client wrote in a row: each text behind the last character of the one before."""
    rows: Ranges = []
    for each in listed:
        if each.kind not in (STRING, DELETED):
            continue
        behind = each.beside[0] if each.info & HAS_ORIGIN else None
        if rows and sum(rows[-1]) == each.clock and behind == (client, each.clock):
            begin, size = rows[-1]
            rows[-1] = (begin, size + each.size)
        else:
            rows.append((each.clock, each.size))
    return rows


def _in_one_row(rows: Mapping[int, Ranges], left: Id, right: Id) -> bool:
    low, high = min(left, right), max(left, right)
    return _reach(rows.get(low[0], []), low[1]) > high[1]


def _is_gone(struct: Struct, deleted: Ranges) -> bool:
    return struct.kind == DELETED or _reach(deleted, struct.clock) >= struct.clock + struct.size


def _covers(ranges: Mapping[int, Ranges], each: Id) -> bool:
    client, clock = each
    return _reach(ranges.get(client, []), clock) > clock


def _reach(ranges: Ranges, clock: int) -> int:
    """Return the end of the last range that begins at a clock or before it; *ranges* ascend."""
    at = bisect_right(ranges, clock, key=_start)
    return sum(ranges[at - 1]) if at else 0


def _start(each: tuple[int, int]) -> int:
    return each[0]


def _is_collected(document: SessionDoc, clocks: Mapping[int, int], client: int, clock: int) -> bool:
    piece = piece_at(document, clocks, client, clock)
    return piece is None or piece[0].info in (GC, SKIP)
