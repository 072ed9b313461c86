"""What a document has seen: its state vector and its deletions; and whether an update is within that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pycrdt import Doc, Snapshot, get_update

from crdt_sessions.model.library import guarded
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.update_v1 import read_id_set
from crdt_sessions.wire.varint import Reader, decode_state_vector


@dataclass(frozen=True, slots=True)
class Extent:
    """What a document has seen: equal for replicas that agree."""

    clocks: dict[int, int]
    """Client id to the number of structs integrated from it: the state vector."""
    deleted: dict[int, list[tuple[int, int]]]
    """Client id to deleted ranges (clock, length): the delete set."""


def extent_of(doc: Doc[Any]) -> Extent:
    """Return state vector and delete set of *doc*."""
    return decode_extent(Snapshot.from_doc(doc).encode())


def decode_extent(snapshot: bytes) -> Extent:
    """Return what an encoded Yjs snapshot says. Source: Yjs ``Snapshot.js``.

    Raises:
        WireError: it is not one.
    """
    reader = Reader(snapshot)
    deleted = read_id_set(reader)
    return Extent(decode_state_vector(reader.take(reader.remaining)), deleted)


def holds(doc: Doc[Any], update: bytes) -> bool:
    """Tell whether *doc* holds all of *update*; see :meth:`~crdt_sessions.model.SessionDoc.contains`.

    Comparing merged bytes would not do: the library writes the keys of JSON objects in random order.

    Raises:
        UpdateError: *update* cannot be decoded.
    """
    deletions = _beyond(doc, update)
    if not deletions:
        return deletions is not None
    known = extent_of(doc).deleted
    return all(_covers(known.get(client, []), ranges) for client, ranges in deletions.items())


def waits(doc: Doc[Any], update: bytes) -> bool:
    """Tell whether something of *update*, which was applied to *doc*, waits for what has not arrived.

    Cheaper than :func:`holds`, and correct where every deletion of a known struct is known as well.
    """
    deletions = _beyond(doc, update)
    if not deletions:
        return deletions is None
    state = decode_state_vector(doc.get_state())
    return any(ranges[-1][0] + ranges[-1][1] > state.get(client, 0) for client, ranges in deletions.items())


def _beyond(doc: Doc[Any], update: bytes) -> dict[int, list[tuple[int, int]]] | None:
    """Return what *update* deletes; None if it has structs that *doc* lacks."""
    if update == EMPTY_UPDATE:
        return {}
    unknown = Reader(guarded(lambda: get_update(update, doc.get_state()), size=len(update)))
    return None if unknown.varuint() != 0 else read_id_set(unknown)  # clients with structs beyond the state vector


def _covers(known: list[tuple[int, int]], asked: list[tuple[int, int]]) -> bool:
    """Tell whether each of the *asked* ranges lies in one of the *known* ones; both ascend and do not touch."""
    ranges = iter(known)
    start, size = next(ranges, (0, 0))
    for clock, length in asked:
        while start + size < clock + length:
            if (following := next(ranges, None)) is None:
                return False
            start, size = following
        if clock < start:
            return False
    return True
