"""Text that one client inserts in a row, update by update: told at a glance, and made one insertion.

The bytes are those that a client writes that inserted it all at once: neighbours are joined exactly where Yjs joins
them itself (``Item.mergeWith``), so no replica can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from crdt_sessions.errors import WireError
from crdt_sessions.wire.frames import AN_UPDATE
from crdt_sessions.wire.update_v1 import HAS_KEY, HAS_ORIGIN, MAX_CLOCK, NO_DELETIONS, STRING, Id, read_head, units
from crdt_sessions.wire.varint import ONE_BYTE, Reader, buffer, varuint

_ONE_STRUCT_OF_ONE_CLIENT = b"\x01\x01"
_HEADER = len(AN_UPDATE) + 1
"""Bytes before a short update in its message: what the message is, and the update's length."""

_FIRST = tuple(bytes((0x80 | low,)) for low in range(0x80))
"""The first byte of a number that takes several, by its low seven bits."""


class Insertions:
    """Insertions in a row by one client, each of them an update with one struct, each after the one before."""

    def __init__(
        self, first: bytes, head: bytes, info: int, client: bytes, right: Id | None, clock: int, text: bytes
    ) -> None:
        self._first = first
        self._head = head
        self._client, self._info = client, info | HAS_ORIGIN
        self._right = varuint(right[0]) + varuint(right[1]) if right is not None else b""
        self._clock = clock + units(text)
        self._texts = [text]
        self._expected = next_insertion(self._client, self._clock, self._info) + self._right

    @classmethod
    def begin(cls, update: bytes) -> Insertions | None:
        """Return those that begin with *update*; None if it is something else."""
        try:
            return cls._begin(update)
        except WireError:
            return None

    @classmethod
    def _begin(cls, update: bytes) -> Insertions | None:
        if update[:2] != _ONE_STRUCT_OF_ONE_CLIENT:
            return None
        reader = Reader(update)
        reader.take(2)
        client, clock, head = varuint(reader.varuint()), reader.varuint(), read_head(reader)
        if head.kind != STRING or head.info & HAS_KEY:
            return None
        before = update[: len(update) - reader.remaining]
        text = reader.string().encode()
        if reader.take(reader.remaining) != NO_DELETIONS or not text or clock + len(text) >= MAX_CLOCK:
            return None
        return cls(update, before, head.info, client, head.right, clock, text)

    def take(self, messages: Sequence[bytes], at: int) -> int:
        """Take *messages* from *at* on while each is one short update that goes on where the last one ended.

        Returns:
            the place of the first that does not. Each token of a flood comes by here: so it is one loop.
        """
        clock, expected, texts = self._clock, self._expected, self._texts
        block, between, after = 0, b"", b""  # clocks of one block differ in the first byte of their encoding only
        before_clock = _ONE_STRUCT_OF_ONE_CLIENT + self._client
        struct = bytes((self._info,)) + self._client
        room = (MAX_CLOCK - clock) // ONE_BYTE  # of so many messages no clock is too high
        for message in islice(messages, at, at + room):
            size, before = len(message) - _HEADER, len(expected)
            if not (
                before + 2 < size < ONE_BYTE
                and message[2] == size
                and message.startswith(AN_UPDATE)
                and message.startswith(expected, _HEADER)
                and message[_HEADER + before] == size - before - 2
                and message[-1] == 0
            ):
                break
            text = message[_HEADER + before + 1 : -1]
            try:
                clock += len(text) if text.isascii() else units(text)
            except UnicodeDecodeError:
                break
            texts.append(text)
            at += 1
            if clock >> 7 != block:
                block = clock >> 7
                higher = varuint(block)
                between, after = higher + struct, higher + self._right
            low = clock & 0x7F
            if block and low:
                expected = before_clock + _FIRST[low] + between + _FIRST[low - 1] + after
            else:
                expected = next_insertion(self._client, clock, self._info) + self._right
        self._clock, self._expected = clock, expected
        return at

    def __len__(self) -> int:
        """Return the number of updates."""
        return len(self._texts)

    def update(self) -> bytes:
        """Return all of it as one update."""
        if len(self._texts) == 1:
            return self._first
        return joined(self._head, self._texts)


def joined(head: bytes, texts: Iterable[bytes]) -> bytes:
    """Return the update that inserts *texts* one after the other; *head* is what stands before the first of them."""
    return head + buffer(b"".join(texts)) + NO_DELETIONS


def next_insertion(client: bytes, clock: int, info: int) -> bytes:
    """Return how an update begins that inserts text after the struct before *clock* of *client*, which is encoded."""
    return b"".join((_ONE_STRUCT_OF_ONE_CLIENT, client, varuint(clock), bytes((info,)), client, varuint(clock - 1)))


def only_text(update: bytes, at: int) -> int:
    """Return the length of the text in *update* from *at* on, if that is short and all that is there; else 0."""
    size = len(update) - at - 2
    if not 0 < size < ONE_BYTE or update[at] != size or update[-1] != 0:
        return 0
    try:
        return units(update[at + 1 : -1])
    except UnicodeDecodeError:
        return 0
