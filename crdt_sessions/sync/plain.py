"""Updates that are plainly harmless: what typing and streaming make, told by their shape alone.

The CRDT library can panic, loop for ever or crash the process on an update that was made to hurt
(docs/decisions/0011-a-process-for-foreign-bytes.md), so what comes from outside is first applied in another process.
Nine out of ten updates are a few characters put behind, or before, others that are there. Those need no such test:
everything in them can be checked by looking. So can what begins a message, see :mod:`crdt_sessions.sync.fresh`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from crdt_sessions.errors import UpdateError, WireError
from crdt_sessions.model import SessionDoc, places_in
from crdt_sessions.sync.fresh import OpenArrays, fresh
from crdt_sessions.wire import AN_UPDATE, EMPTY_UPDATE, Update, encode, sole_update
from crdt_sessions.wire.update_v1 import (
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    MAX_CLOCK,
    NO_DELETIONS,
    STRING,
    Id,
    read_head,
    sole_block,
    units,
)
from crdt_sessions.wire.varint import ONE_BYTE, Reader, buffer, decode_state_vector, varuint

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
        added = _only_text(update, len(expected))
        return (client, clock + added) if added and clock + added < MAX_CLOCK else None

    def took(self, update: bytes, passed: Passed | None = None) -> None:
        """Note that the document has changed by *update*, which was *passed* if it was taken because of its shape."""
        if self._clocks is not None and passed is not None:
            _, client, clock, arrays = passed
            self._clocks[client] = clock
            if arrays is not None:
                self._remember(arrays)
            name = self._expected[1] if client == self._expected[0] else varuint(client)
            self._expected = (client, name, clock, _next_one(name, clock, HAS_ORIGIN | STRING))
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


def joined(messages: Sequence[bytes]) -> list[bytes]:
    """Return messages that say the same, but what one client inserted in a row is one insertion.

    A stream of tokens that has piled up is then taken, stored and sent on as if it had been written at once. The
    bytes are those that a client writes that did so: neighbours are joined exactly where Yjs joins them itself
    (``Item.mergeWith``), so no replica can tell.

    Args:
        messages: WebSocket messages of one peer, in their order.
    """
    result: list[bytes] = []
    run: _Run | None = None
    for message in messages:
        if run is not None and run.takes(message):
            continue
        if run is not None:
            result.append(run.message())
        run = _Run.begin(message)
        if run is None:
            result.append(message)
    if run is not None:
        result.append(run.message())
    return result


_ONE_STRUCT_OF_ONE_CLIENT = b"\x01\x01"


class _Run:
    """Insertions in a row by one client, each of them an update with one struct, behind one another."""

    def __init__(
        self, message: bytes, head: bytes, info: int, client: bytes, right: Id | None, clock: int, text: bytes
    ) -> None:
        self._first = message
        self._head = head
        self._client, self._info = client, info | HAS_ORIGIN
        self._right = varuint(right[0]) + varuint(right[1]) if right is not None else b""
        self._clock = clock + units(text)
        self._texts = [text]
        self._expect()

    @classmethod
    def begin(cls, message: bytes) -> _Run | None:
        """Return the run that begins with *message*; None if it is something else."""
        try:
            return cls._begin(message)
        except WireError:
            return None

    @classmethod
    def _begin(cls, message: bytes) -> _Run | None:
        if message[:2] != AN_UPDATE:
            return None
        outer = Reader(message)
        outer.take(2)
        update = outer.buffer()
        if outer.remaining or update[:2] != _ONE_STRUCT_OF_ONE_CLIENT:
            return None
        reader = Reader(update)
        reader.take(2)
        client, clock, head = varuint(reader.varuint()), reader.varuint(), read_head(reader)
        if head.kind != STRING or head.info & HAS_KEY:
            return None
        before = update[: len(update) - reader.remaining]
        text = reader.string().encode()
        if reader.take(reader.remaining) != NO_DELETIONS or not text:
            return None
        return cls(message, before, head.info, client, head.right, clock, text)

    def takes(self, message: bytes) -> bool:
        """Take *message*, if it goes on where the last one ended."""
        update, at = sole_update(message), len(self._expected)
        if update is None or not update.startswith(self._expected) or not (added := _only_text(update, at)):
            return False
        self._clock += added
        self._texts.append(update[at + 1 : -1])
        self._expect()
        return True

    def message(self) -> bytes:
        """Return all of it as one message."""
        if len(self._texts) == 1:
            return self._first
        return encode(Update(self._head + buffer(b"".join(self._texts)) + NO_DELETIONS))

    def _expect(self) -> None:
        self._expected = _next_one(self._client, self._clock, self._info) + self._right


def _next_one(client: bytes, clock: int, info: int) -> bytes:
    """Return how an update begins that inserts text behind the struct before *clock*."""
    return b"".join((_ONE_STRUCT_OF_ONE_CLIENT, client, varuint(clock), bytes((info,)), client, varuint(clock - 1)))


def _only_text(update: bytes, at: int) -> int:
    """Return the length of the text in *update* from *at* on, if that is short and all that is there; else 0."""
    text = update[at + 1 : -1]
    if not text or len(text) >= ONE_BYTE or update[at] != len(text) or update[-1] != 0:
        return 0
    try:
        return units(text)
    except UnicodeDecodeError:
        return 0
