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
from collections.abc import Collection, Mapping

from crdt_sessions.errors import UpdateError
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.extent import extent_of
from crdt_sessions.wire.update_v1 import (
    DELETED,
    EMBED,
    FORMAT,
    GC,
    HAS_KEY,
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
)
from crdt_sessions.wire.varint import Reader, encode_state_vector

IN_TEXTS = (STRING, FORMAT, EMBED)
"""The kinds of content of which texts are made."""
_FEW = 8
"""Neighbours that are looked at one by one; of more, only those that were deleted, or the whole document is read."""
_MOST_READ = 1024 * 1024
"""Bytes of a document that may be read, which takes half a second at most. Of a larger one few neighbours are looked
at: what an honest client wrote without a connection must not be refused because it was much."""


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


def may_be_beside_text(
    document: SessionDoc, clocks: Mapping[int, int], client: int, clock: int, *, behind: bool
) -> bool:
    """Tell whether text may be put beside what a client wrote at a clock: it is in a sequence, and not collected.

    Text is in whatever it stands *behind*, so that must be known to be in a text
    (:mod:`crdt_sessions.model.text_places`). Other arguments are those of :func:`piece_at`.
    """
    piece = piece_at(document, clocks, client, clock)
    if piece is None or piece[0].info in (GC, SKIP) or piece[0].info & HAS_KEY:
        return False
    return not behind or piece[0].kind in IN_TEXTS


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


def check_neighbours(update: bytes, parsed: Parsed, document: SessionDoc, clocks: Mapping[int, int]) -> None:
    """Return if *update*, which the library wrote of a change to *document*, names such neighbours as clients do.

    Args:
        update: the change.
        parsed: the same, read.
        document: has taken it.
        clocks: its state vector.

    Raises:
        UpdateError: it does not.
    """
    new = {client: [(each.clock, each.size) for each in listed] for client, listed in parsed.inserted.items()}
    if any(each.info == GC for listed in parsed.inserted.values() for each in listed):
        new = {}  # what is new may be collected, too
    known: set[Id] = set()
    for client, listed in parsed.inserted.items():
        gone = sorted(parsed.deleted.get(client, ()))
        for struct in listed:
            if len(struct.beside) == 2 and not _is_gone(struct, gone):
                (left, after), right = struct.beside
                known.update(each for each in ((left, after - 1), right) if not _covers(new, each))
    if known and _one_is_collected(document, clocks, known):
        raise UpdateError(size=len(update))


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


def _one_is_collected(document: SessionDoc, clocks: Mapping[int, int], ids: Collection[Id]) -> bool:
    if len(ids) > _FEW:
        deleted = extent_of(document.doc).deleted
        ids = sorted(each for each in ids if _covers(deleted, each))
    if len(ids) > _FEW and len(whole := document.encode()) <= _MOST_READ:
        collected = {
            client: [(each.clock, each.size) for each in listed if each.info == GC]
            for client, listed in parse(whole).inserted.items()
        }
        return any(_covers(collected, each) for each in ids)
    pieces = (piece_at(document, clocks, *each) for each in list(ids)[:_FEW])
    return any(piece is None or piece[0].info in (GC, SKIP) for piece in pieces)
