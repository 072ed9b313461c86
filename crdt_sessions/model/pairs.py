"""Surrogate pairs that an update tears apart, made harmless for the CRDT library.

Yjs counts text in UTF-16 units, of which an emoji has two, and a client may put something between them, or delete one
of them. Yjs then makes both a replacement character each, U+FFFD. The library that we use cannot: what it makes of
such a text has other lengths than its clocks say, and is lost. So it never sees such an update. A pair that stands in
the document is deleted first, since what is deleted can be taken apart; then come replacement characters for the
halves that stay, and then the update. A pair that stands in the update itself is written as Yjs would write it
(``docs/decisions/0038-torn-pairs.md``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from crdt_sessions.model.document import SessionDoc
from crdt_sessions.model.neighbours import piece_at
from crdt_sessions.wire.update_v1 import (
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    NO_DELETIONS,
    STRING,
    Id,
    Parsed,
    may_hold_pairs,
    parse,
)
from crdt_sessions.wire.varint import MAX_VARUINT, Reader, buffer, decode_state_vector, varuint

_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_REPLACEMENT = "\ufffd"
_FEW = 8
"""Places that are looked at one by one; of more, all pairs in the document are found at once."""
_LOW_CLIENTS = 2**20
_MOST_KNOWN = 64
"""Number of clients for which a stretch of text without pairs is remembered."""

_Place = Id
"""Client, and the clock of the unit after the place."""


class Mended(NamedTuple):
    """An update that tears no pair apart."""

    before: tuple[bytes, ...]
    """Updates to apply first, each in a transaction of its own."""
    update: bytes


class Pairs:
    """The surrogate pairs in a document.

    Args:
        document: the document.
    """

    def __init__(self, document: SessionDoc) -> None:
        self._document = document
        self._pieces: dict[int, tuple[int, int]] = {}  # by client, the places seen last that are in no pair: from, to

    def mended(self, update: bytes) -> Mended:
        """Return what to apply instead of *update*, all of which can be integrated.

        Raises:
            MalformedUpdate: *update* cannot be read.
        """
        inside = may_hold_pairs(update)
        if not inside and not self._document.may_hold_pairs:
            return Mended((), update)
        parsed = parse(update)
        clocks = decode_state_vector(self._document.state_vector())
        places = _places(parsed, clocks)
        if inside:
            update = _rewritten(update, parsed, places)
        torn = self._torn([place for place in places if 0 < place[1] < clocks.get(place[0], 0)], clocks)
        return Mended(_make_way(torn, parsed, clocks) if torn else (), update)

    def _torn(self, places: Sequence[_Place], clocks: dict[int, int]) -> list[_Place]:
        """Return those of *places* that are inside a pair of the document."""
        if not self._document.may_hold_pairs:
            return []
        if len(places) <= _FEW:
            return sorted(place for place in places if self._is_inside(*place, clocks))
        whole = self._document.encode()
        lows = {
            (client, struct.clock + low)
            for client, listed in parse(whole).inserted.items()
            for struct in listed
            if struct.text
            for low in _lows(Reader(whole[struct.text : struct.end]).string())
        }
        return sorted(lows.intersection(places))

    def _is_inside(self, client: int, at: int, clocks: dict[int, int]) -> bool:
        """Tell whether a place is inside a pair.

        Asked for the text after one half of a pair, the library returns the text after the whole pair.
        """
        begin, end = self._pieces.get(client, (0, 0))
        if begin <= at < end:
            return False
        after = self._text_from(client, at - 1, clocks)
        pair = _ASTRAL.search(after)
        self._remember(client, at, at + (pair.start() if pair else len(after)))
        if pair is None or pair.start() > 0:
            return False
        return self._text_from(client, at, clocks) == after[1:]

    def _remember(self, client: int, begin: int, end: int) -> None:
        self._pieces.pop(client, None)
        if begin < end:
            self._pieces[client] = (begin, end)
        if len(self._pieces) > _MOST_KNOWN:
            del self._pieces[next(iter(self._pieces))]

    def _text_from(self, client: int, at: int, clocks: dict[int, int]) -> str:
        """Return the text that a client inserted, from a clock on to the end of that piece; empty if it is none."""
        piece = piece_at(self._document, clocks, client, at)
        if piece is None:
            return ""
        head, content = piece
        return content.string() if head.kind == STRING and not head.info & HAS_KEY else ""


def places_in(update: bytes) -> Iterable[_Place]:
    """Return the places at which *update* splits text, wherever text is there.

    Raises:
        MalformedUpdate: *update* cannot be read.
    """
    return _places(parse(update), {})


def _places(parsed: Parsed, clocks: Mapping[int, int]) -> set[_Place]:
    places = {place for listed in parsed.inserted.values() for struct in listed for place in struct.beside}
    for client, ranges in parsed.deleted.items():
        places.update((client, at) for clock, size in ranges for at in (clock, clock + size))
    places.update(
        (client, clocks.get(client, 0)) for client in parsed.inserted
    )  # the library cuts off what it knows already
    return places


# -- in the update -------------------------------------------------------------------------------------------------


def _rewritten(update: bytes, parsed: Parsed, places: set[_Place]) -> bytes:
    """Return *update* with replacement characters for pairs in its own text that are torn."""
    parts: list[bytes] = []
    at = 0
    for client, listed in parsed.inserted.items():
        for struct in listed:
            if not struct.text:
                continue
            text = Reader(update[struct.text : struct.end]).string()
            torn = [low for low in _lows(text) if (client, struct.clock + low) in places]
            if torn:
                parts += (update[at : struct.text], buffer(_without(text, torn).encode()))
                at = struct.end
    return b"".join((*parts, update[at:])) if parts else update


def _lows(text: str) -> list[int]:
    """Return where the second halves of pairs are, in UTF-16 units."""
    return [match.start() + number + 1 for number, match in enumerate(_ASTRAL.finditer(text))]


def _without(text: str, torn: Sequence[int]) -> str:
    lows = iter(_lows(text))
    return _ASTRAL.sub(lambda match: 2 * _REPLACEMENT if next(lows) in torn else match[0], text)


# -- before the update -----------------------------------------------------------------------------------------------


def _make_way(torn: Sequence[_Place], parsed: Parsed, clocks: Mapping[int, int]) -> tuple[bytes, ...]:
    """Return what deletes pairs, and what puts replacement characters where halves of them stay.

    Structs between the halves are ordered by client. So the first half is replaced by a client with a lower id than
    all others, and the second half by one with a higher id.
    """
    gone: dict[int, list[int]] = {}
    for client, at in torn:
        gone.setdefault(client, []).append(at - 1)
    deleting = [varuint(0), varuint(len(gone))]
    for client, starts in gone.items():
        deleting += (varuint(client), varuint(len(starts)), *(varuint(at) + varuint(2) for at in starts))
    halves = [
        (author, [place for place in torn if not _deletes(parsed, place[0], place[1] - 1 + half)])
        for half, author in enumerate(_authors(clocks, torn[0]))
    ]
    inserting = [_replacements(author, stay) for author, stay in halves if stay]
    if not inserting:
        return (b"".join(deleting),)
    return b"".join(deleting), varuint(len(inserting)) + b"".join(reversed(inserting)) + NO_DELETIONS


def _replacements(author: int, places: Sequence[_Place]) -> bytes:
    structs = (
        bytes((STRING | HAS_ORIGIN | HAS_RIGHT_ORIGIN,))
        + b"".join(map(varuint, (client, at - 1, client, at)))
        + buffer(_REPLACEMENT.encode())
        for client, at in places
    )  # fmt: skip
    return varuint(len(places)) + varuint(author) + varuint(0) + b"".join(structs)


def _authors(clocks: Mapping[int, int], place: _Place) -> tuple[int, int]:
    """Return a low and a high client id that nobody has. Only the service tears, so nobody makes the same ones."""
    low = 1024 + hash(place) % _LOW_CLIENTS
    high = MAX_VARUINT - low
    while low in clocks:
        low += 1
    while high in clocks:
        high -= 1
    return low, high


def _deletes(parsed: Parsed, client: int, clock: int) -> bool:
    return any(start <= clock < start + size for start, size in parsed.deleted.get(client, ()))
