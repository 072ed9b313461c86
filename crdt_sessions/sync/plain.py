"""Updates that are plainly harmless: what typing and streaming make, told by their shape alone.

The CRDT library can panic, loop for ever or crash the process on an update that was made to hurt
(docs/decisions/0011-a-process-for-foreign-bytes.md), so what comes from outside is first applied in another process.
Nine out of ten updates are a few characters put behind, or before, others that are there. Those need no such test:
everything in them can be checked by looking. So can what begins a message, see :mod:`crdt_sessions.sync.fresh`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from crdt_sessions.errors import UpdateError, WireError
from crdt_sessions.model import SessionDoc, places_in
from crdt_sessions.sync.fresh import OpenArrays, fresh
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.insertions import next_insertion, only_text
from crdt_sessions.wire.update_v1 import (
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    MAX_CLOCK,
    STRING,
    read_head,
    sole_block,
    units,
)
from crdt_sessions.wire.varint import Reader, decode_state_vector, varuint

_MAX_STRUCTS = 8
_MAX_ARRAYS = 32
_MAX_PLACES, _SHORT = 64, 256


class Passed(NamedTuple):
    """An update that need not be tried elsewhere."""

    update: bytes
    client: int
    """Who wrote it."""
    clock: int
    """Of the client, behind it."""
    arrays: OpenArrays | None
    """If it begins something, the arrays that may be gone on with; None if it is only text."""


class Inspector:
    """Tells plain updates of one document from others, and remembers its clocks meanwhile.

    Args:
        document: the document; whoever changes it calls :meth:`took`.
    """

    def __init__(self, document: SessionDoc) -> None:
        self._document = document
        self._clocks: dict[int, int] | None = None
        self._arrays: dict[tuple[int, int], tuple[int, int | None]] = {}
        self._places: dict[tuple[int, int], None] = {}  # inside texts, where something was put and tried lately
        self._expected = (0, b"\0", 0, b"")  # client, also encoded; clock; how an update that goes on there begins

    def passes(self, update: bytes) -> Passed | None:
        """Return what is known of *update* if it is one client's, and only inserts text next to what is there.

        Or if it begins something.
        That holds until the document changes.
        """
        if self._document.waiting != EMPTY_UPDATE:
            return None  # it may bring what others wait for
        clocks = self._clocks if self._clocks is not None else self.clocks()
        text = self._goes_on(update) or plain(update, clocks, self._is_whole)
        if text is not None:
            return Passed(update, *text, None)
        begun = fresh(update, clocks, self._has, self._arrays)
        return Passed(update, begun.client, begun.clock, begun.arrays) if begun is not None else None

    def clocks(self) -> Mapping[int, int]:
        """Return the document's state vector."""
        if self._clocks is None:
            self._clocks = decode_state_vector(self._document.state_vector())
        return self._clocks

    def _is_whole(self, client: int, at: int) -> bool:
        """Tell whether it is known that no surrogate pair is torn by what stands before a clock of a client."""
        return (client, at) in self._places or not self._document.may_hold_pairs

    def _has(self, root: str, key: str) -> bool:
        return key in getattr(self._document.roots, root)

    def _goes_on(self, update: bytes) -> tuple[int, int] | None:
        """Tell the same of an update that goes on where the last one ended, at a glance."""
        client, _, clock, expected = self._expected
        if self._clocks is None or self._clocks.get(client) != clock or not update.startswith(expected):
            return None
        added = only_text(update, len(expected))
        return (client, clock + added) if added and clock + added < MAX_CLOCK else None

    def took(self, update: bytes, passed: Passed | None = None) -> None:
        """Note that the document has changed by *update*, which was *passed* if it was taken because of its shape."""
        if self._clocks is not None and passed is not None:
            _, client, clock, arrays = passed
            self._clocks[client] = clock
            if arrays is not None:
                self._remember(arrays)
            name = self._expected[1] if client == self._expected[0] else varuint(client)
            self._expected = (client, name, clock, next_insertion(name, clock, HAS_ORIGIN | STRING))
        else:
            self._clocks = None
            if len(update) < _SHORT and self._document.may_hold_pairs:
                self._remember_places(update)

    def _remember(self, arrays: OpenArrays) -> None:
        self._arrays.update(arrays)
        while len(self._arrays) > _MAX_ARRAYS:
            del self._arrays[next(iter(self._arrays))]

    def _remember_places(self, update: bytes) -> None:
        with contextlib.suppress(UpdateError):
            self._places.update(dict.fromkeys(places_in(update)))
        while len(self._places) > _MAX_PLACES:
            del self._places[next(iter(self._places))]


def plain(
    update: bytes, clocks: Mapping[int, int], is_whole: Callable[[int, int], bool] = lambda _client, _at: True
) -> tuple[int, int] | None:
    """Return the client that wrote a plain update and its clock behind it; None if the update is not plain.

    Args:
        update: foreign bytes.
        clocks: the state vector of a document in which nothing waits for something missing.
        is_whole: tells of a place inside a text, by client and the clock behind it, that it is not inside a
            surrogate pair.

    A plain update follows what its client wrote before without a gap or an overlap, names as neighbours only
    structs that are there, deletes nothing, and ends where it should.
    """
    try:
        return _plain(Reader(update), clocks, is_whole)
    except WireError:
        return None


def _plain(reader: Reader, clocks: Mapping[int, int], is_whole: Callable[[int, int], bool]) -> tuple[int, int] | None:
    block = sole_block(reader)
    if block is None:
        return None
    structs, client, clock = block
    if not 1 <= structs <= _MAX_STRUCTS or clock != clocks.get(client, 0):
        return None
    for _ in range(structs):
        length = _inserted(reader, client, clock, clocks, is_whole)
        clock += length
        if not length or clock >= MAX_CLOCK:
            return None
    done = reader.varuint() == 0 and not reader.remaining  # no deletions, and nothing after them
    return (client, clock) if done else None


def _inserted(
    reader: Reader, client: int, clock: int, clocks: Mapping[int, int], is_whole: Callable[[int, int], bool]
) -> int:
    """Return the length of the text that the next struct inserts, in UTF-16 units; 0 if it is something else."""
    info, origin, right, _, _ = read_head(reader)
    if info & ~HAS_RIGHT_ORIGIN != STRING | HAS_ORIGIN:
        return 0
    for after, each in ((1, origin), (0, right)):
        if each is None:
            continue
        neighbour, at = each
        there = clocks.get(neighbour, 0)
        end, place = clock if neighbour == client else there, at + after
        if at >= end or (0 < place < end and (place > there or not is_whole(neighbour, place))):
            return 0
    return units(reader.string().encode())
