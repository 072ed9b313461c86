"""Plain updates: those of typing and streaming. Their shape alone shows that they are harmless.

The CRDT library can panic, loop for ever or crash the process on a hostile update
(docs/decisions/0011-a-process-for-foreign-bytes.md), so foreign updates are first applied in another process. Nine
out of ten updates only insert a few characters after, or before, existing ones. They need no trial: everything in
them can be checked by reading. The same is true of updates that begin a message; see :mod:`crdt_sessions.sync.fresh`.

Their shape does not show what they change. Text that names the entry of a map as its neighbour takes the place of
that entry: no library writes that, but anybody can. So they are applied, and what has changed is looked at, as with
any other update.

Most of them go on where the last one of their client ended. Once one of those was seen to be in a text, all that
follow are, so it is known what they change, and the document need not be asked
(docs/decisions/0058-known-to-apply-before-stored.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from crdt_sessions.errors import UpdateError, WireError
from crdt_sessions.model import SessionDoc, may_be_beside_text, places_in
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
_MAX_STREAMS = 16


@dataclass(slots=True, eq=False)
class Stream:
    """The place where the last change of a client ended."""

    client: int
    name: bytes
    """The client, encoded."""
    clock: int
    """The client's clock there."""
    expected: bytes
    """How an update begins that goes on there with text, up to the length of the text."""
    messages: Collection[str] | None = None
    """The messages that change with it and are all that can change: text goes on in the text that it stands after.
    None if it is not known yet that it stands in one."""
    text: bool = False
    """Whether what stands there is known to be in a sequence, so that text may follow."""


class Passed(NamedTuple):
    """An update that needs no trial."""

    update: bytes
    client: int
    """The Yjs client that wrote it."""
    clock: int
    """The client's clock after it."""
    arrays: OpenArrays | None
    """The arrays to which the client may append later, if the update begins something; None if it is only text."""
    stream: Stream | None = None
    """The place where it goes on, if it does: the update is what is expected there, and a text."""


_NO_STREAM = Stream(0, b"", 0, b"\xff")
"""No update goes on there: only malformed ones begin like that."""


class Inspector:
    """Finds the updates of one document that need no trial, and remembers its clocks.

    Args:
        document: the document. Code that changes it must call :meth:`took`.
    """

    def __init__(self, document: SessionDoc) -> None:
        self._document = document
        self._clocks: dict[int, int] | None = None
        self._arrays: dict[tuple[int, int], tuple[int, int | None]] = {}
        self._places: dict[tuple[int, int], None] = {}  # inside texts, where tried updates inserted lately
        self._streams: dict[int, Stream] = {}  # begun since the last update that is neither plain nor fresh
        self._stream = _NO_STREAM  # the one that went on last
        self._takes: dict[tuple[int, int, bool], None] = {}  # what text may be put beside, asked since then

    def passes(self, update: bytes) -> Passed | None:
        """Return *update* as passed if it is plain or fresh; None if it needs a trial.

        The answer holds until the document changes.
        """
        if self._document.waiting != EMPTY_UPDATE:
            return None  # the update may complete others that the document keeps pending
        clocks = self._clocks if self._clocks is not None else self.clocks()
        stream = self._goes_on(update)
        if stream is not None and (stream.text or self._takes_text(stream.client, stream.clock - 1, behind=True)):
            added = only_text(update, len(stream.expected))
            if added and stream.clock + added < MAX_CLOCK:
                return Passed(update, stream.client, stream.clock + added, None, stream)
        text = plain(update, clocks, self._is_whole, self._takes_text)
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
        """Tell whether it is known that text inserted at this clock of a client tears no surrogate pair."""
        return (client, at) in self._places or not self._document.may_hold_pairs

    def _takes_text(self, client: int, at: int, *, behind: bool) -> bool:
        """Tell whether text may be put beside what a client wrote at a clock, which the document has."""
        stream = self._streams.get(client)
        if (stream is not None and stream.text and at == stream.clock - 1) or (client, at, behind) in self._takes:
            return True
        if not may_be_beside_text(self._document, self.clocks(), client, at, behind=behind):
            return False
        while len(self._takes) >= _MAX_PLACES:
            del self._takes[next(iter(self._takes))]
        self._takes[client, at, behind] = None
        return True

    def _has(self, root: str, key: str) -> bool:
        return key in getattr(self._document.roots, root)

    def _goes_on(self, update: bytes) -> Stream | None:
        """Return the place where an update goes on: the quick way for streams."""
        if update.startswith(self._stream.expected) and self._stream is not _NO_STREAM:
            return self._stream
        for stream in self._streams.values():
            if update.startswith(stream.expected):
                return stream
        return None

    def took(self, update: bytes, passed: Passed | None = None) -> None:
        """Note that the document has taken *update*, or will; *passed* says that it had no trial."""
        if self._clocks is not None and passed is not None:
            _, client, clock, arrays, stream = passed
            self._clocks[client] = clock
            if arrays is not None:
                self._remember(arrays)
            if stream is None:
                stream = self._begin(client)
            stream.clock, stream.expected = clock, next_insertion(stream.name, clock, HAS_ORIGIN | STRING)
            stream.text = arrays is None
            self._stream = stream
        else:
            self._clocks = None
            self.forget_streams()
            if len(update) < _SHORT and self._document.may_hold_pairs:
                self._remember_places(update)

    def _begin(self, client: int) -> Stream:
        """Return a new place of a client, of which nothing is known."""
        self._streams.pop(client, None)
        if len(self._streams) == _MAX_STREAMS:
            del self._streams[next(iter(self._streams))]
        stream = self._streams[client] = Stream(client, varuint(client), 0, b"")
        return stream

    def learn(self, stream: Stream, messages: Collection[str]) -> None:
        """Note that an update that went on in *stream* has changed texts in these messages, or in none, and no more.

        It was no entry of a map: it would have deleted what it goes on from, and the stream would be forgotten.
        """
        stream.messages = messages

    def forget_streams(self) -> None:
        """Note that something was deleted: perhaps what a stream goes on from, or what it is in."""
        self._stream = _NO_STREAM
        self._streams.clear()
        self._takes.clear()

    def _remember(self, arrays: OpenArrays) -> None:
        self._arrays.update(arrays)
        while len(self._arrays) > _MAX_ARRAYS:
            del self._arrays[next(iter(self._arrays))]

    def _remember_places(self, update: bytes) -> None:
        with contextlib.suppress(UpdateError):
            self._places.update(dict.fromkeys(places_in(update)))
        while len(self._places) > _MAX_PLACES:
            del self._places[next(iter(self._places))]


class TakesText(Protocol):
    """Tells whether text may be put beside what a client wrote at a clock."""

    def __call__(self, client: int, at: int, /, *, behind: bool) -> bool:
        """Tell it: *behind* that, or before."""
        ...


def plain(
    update: bytes,
    clocks: Mapping[int, int],
    is_whole: Callable[[int, int], bool] = lambda _client, _at: True,
    takes_text: TakesText = lambda _client, _at, *, behind: True,
) -> tuple[int, int] | None:
    """Return the client that wrote a plain update and its clock after it; None if the update is not plain.

    Args:
        update: foreign bytes.
        clocks: the state vector of a document in which nothing is pending.
        is_whole: tells whether a place inside a text, named by client and the clock after it, is known not to be
            inside a surrogate pair.
        takes_text: tells whether what a client wrote at a clock, which the document has, is in a sequence; in a text
            if text is to stand behind it.

    A plain update goes on where its client's last change ended, without a gap or an overlap. It names only existing
    structs as neighbours, names nothing to be deleted, and has no bytes left at its end.
    """
    try:
        return _plain(Reader(update), clocks, is_whole, takes_text)
    except WireError:
        return None


def _plain(
    reader: Reader,
    clocks: Mapping[int, int],
    is_whole: Callable[[int, int], bool],
    takes_text: TakesText,
) -> tuple[int, int] | None:
    block = sole_block(reader)
    if block is None:
        return None
    structs, client, clock = block
    if not 1 <= structs <= _MAX_STRUCTS or clock != clocks.get(client, 0):
        return None
    for _ in range(structs):
        length = _inserted(reader, client, clock, clocks, is_whole, takes_text)
        clock += length
        if not length or clock >= MAX_CLOCK:
            return None
    done = reader.varuint() == 0 and not reader.remaining  # no deletions, and nothing after them
    return (client, clock) if done else None


def _inserted(
    reader: Reader,
    client: int,
    clock: int,
    clocks: Mapping[int, int],
    is_whole: Callable[[int, int], bool],
    takes_text: TakesText,
) -> int:
    """Return the length of the text that the next struct inserts, in UTF-16 units; 0 if it is something else."""
    info, origin, right, _, _ = read_head(reader)
    if info & ~HAS_RIGHT_ORIGIN != STRING | HAS_ORIGIN or right == origin:
        return 0
    for after, each in ((1, origin), (0, right)):
        if each is None:
            continue
        neighbour, at = each
        there = clocks.get(neighbour, 0)
        end, place = clock if neighbour == client else there, at + after
        if at >= end or (0 < place < end and (place > there or not is_whole(neighbour, place))):
            return 0
        if at < there and not takes_text(neighbour, at, behind=bool(after)):
            return 0
    return units(reader.string().encode())
