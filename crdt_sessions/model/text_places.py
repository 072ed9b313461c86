"""Whether what an update writes is where clients put it: beside what they do, and no text in arrays.

Text is in what it stands behind, or before, whatever that is in. Clients put none into arrays. Bytes can say
anything, and the library reads an array for ever in which something stands behind a letter that is not ASCII
(``docs/decisions/0077-what-no-client-puts-side-by-side.md``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping

from crdt_sessions.errors import UpdateError
from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.neighbours import IN_TEXTS, check_entries, check_neighbours, piece_at
from crdt_sessions.wire.update_v1 import (
    DELETED,
    GC,
    HAS_KEY,
    SKIP,
    TYPE,
    Head,
    Id,
    Parsed,
    parse,
    read_head,
)
from crdt_sessions.wire.varint import Reader

_ARRAY = 0
"""What says that a type is an array. Source: Yjs, ``YArrayRefID`` of ContentType."""
_STEPS = 16
"""From how many things to the next one it is looked what they are in."""
_FEW = 16
"""Places that are looked at one by one; for more, the whole document is read."""
_MOST_READ = 256 * 1024
"""Bytes of a document that may be read, which takes a tenth of a second. In a larger one few places are looked at:
what an honest client wrote without a connection must not be refused because it was much."""

_Found = tuple[Head, Reader]


def check_change(update: bytes, document: SessionDoc, clocks: Mapping[int, int]) -> None:
    """Return if *update*, which the library wrote of a change to *document*, puts things where clients do.

    Args:
        update: the change.
        document: has taken it.
        clocks: its state vector.

    Raises:
        UpdateError: it does not, as far as that can be seen.
    """
    parsed = check_entries(update)
    check_neighbours(update, parsed, document, clocks)
    _check_texts(update, parsed, document, clocks)


def check_whole(update: bytes, document: SessionDoc, clocks: Mapping[int, int]) -> None:
    """Return if *update*, all of a document, has entries of maps as clients write them, and no text in arrays.

    Arguments and errors as of :func:`check_change`.
    """
    _check_texts(update, check_entries(update), document, clocks)


def _check_texts(update: bytes, parsed: Parsed, document: SessionDoc, clocks: Mapping[int, int]) -> None:
    """Return if no text in *update* is in an array, as far as that can be seen."""
    places = _Places(_Written(update, parsed), document, clocks)
    if not all(_may_be_text(head, places.find) for head in places.texts()):
        raise UpdateError(size=len(update))


class _Written:
    """An update, and what stands where in it."""

    def __init__(self, update: bytes, parsed: Parsed) -> None:
        self._update = update
        self.inserted = parsed.inserted

    def find(self, client: int, clock: int) -> _Found | None:
        """Return the head and the content of what a client wrote at a clock, from its beginning on."""
        listed = self.inserted.get(client, [])
        at = bisect_right(listed, clock, key=lambda struct: struct.clock) - 1
        if at < 0 or clock >= listed[at].clock + listed[at].size:
            return None
        reader = Reader(self._update[listed[at].start : listed[at].end])
        return read_head(reader), reader


class _Places:
    """What stands where: in an update, and in the document that has taken it."""

    def __init__(self, own: _Written, document: SessionDoc, clocks: Mapping[int, int]) -> None:
        self._own = own
        self._document = document
        self._clocks = clocks
        self._looked = 0
        self._whole: _Written | None = None
        self._too_large = False

    def texts(self) -> Iterator[Head]:
        """Yield the heads of what the update writes into texts."""
        for client, listed in self._own.inserted.items():
            for struct in listed:
                if struct.kind in IN_TEXTS and not struct.info & HAS_KEY:
                    found = self._own.find(client, struct.clock)
                    if found is not None:
                        yield found[0]

    def find(self, client: int, clock: int) -> _Found | None:
        """Return what stands there; None if it cannot be told."""
        found = self._own.find(client, clock)
        if found is not None or self._looked >= _FEW:
            return found or self._read_at(client, clock)
        self._looked += 1
        found = piece_at(self._document, self._clocks, client, clock)
        if found is not None and found[0].kind == DELETED:  # it may be a part: what it stands behind is then itself
            return self._read_at(client, clock)
        return found

    def _read_at(self, client: int, clock: int) -> _Found | None:
        if self._whole is None and not self._too_large:
            whole = self._document.encode()
            self._too_large = len(whole) > _MOST_READ
            self._whole = None if self._too_large else _Written(whole, parse(whole))
        return self._whole.find(client, clock) if self._whole is not None else None


def _may_be_text(head: Head, find: Callable[[int, int], _Found | None]) -> bool:
    """Tell whether what stands beside these neighbours, or in this parent, may be in something else than an array.

    Yjs 14 has text among the children of elements, and values beside text. What stands beside values, and of which it
    cannot be seen what it is in, is taken for an array.
    """
    values = False
    for _ in range(_STEPS):
        beside: Id | None = head.origin or head.right
        if beside is None:
            break
        found = find(*beside)
        if found is None or found[0].info in (GC, SKIP):
            return not values
        head = found[0]
        if head.kind in IN_TEXTS:
            return True
        values = values or head.kind not in (TYPE, DELETED)
    if head.origin is not None or head.right is not None or not isinstance(head.parent, tuple):
        return not values
    found = find(*head.parent)
    return found is None or found[0].kind != TYPE or found[1].take(1)[0] != _ARRAY
