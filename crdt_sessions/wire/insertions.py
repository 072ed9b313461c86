"""Text that one client inserts in a row, update by update: told at a glance, and made one insertion.

The bytes are those that a client writes that inserted it all at once: neighbours are joined exactly where Yjs joins
them itself (``Item.mergeWith``), so no replica can tell.
"""

from __future__ import annotations

from collections.abc import Iterable

from crdt_sessions.errors import WireError
from crdt_sessions.wire.update_v1 import HAS_KEY, HAS_ORIGIN, NO_DELETIONS, STRING, Id, read_head, units
from crdt_sessions.wire.varint import ONE_BYTE, Reader, buffer, varuint

_ONE_STRUCT_OF_ONE_CLIENT = b"\x01\x01"


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
        self._expect()

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
        if reader.take(reader.remaining) != NO_DELETIONS or not text:
            return None
        return cls(update, before, head.info, client, head.right, clock, text)

    def takes(self, update: bytes) -> bool:
        """Take *update*, if it goes on where the last one ended."""
        at = len(self._expected)
        if not update.startswith(self._expected) or not (added := only_text(update, at)):
            return False
        self._clock += added
        self._texts.append(update[at + 1 : -1])
        self._expect()
        return True

    def update(self) -> bytes:
        """Return all of it as one update."""
        if len(self._texts) == 1:
            return self._first
        return joined(self._head, self._texts)

    def _expect(self) -> None:
        self._expected = next_insertion(self._client, self._clock, self._info) + self._right


def joined(head: bytes, texts: Iterable[bytes]) -> bytes:
    """Return the update that inserts *texts* one after the other; *head* is what stands before the first of them."""
    return head + buffer(b"".join(texts)) + NO_DELETIONS


def next_insertion(client: bytes, clock: int, info: int) -> bytes:
    """Return how an update begins that inserts text after the struct before *clock* of *client*, which is encoded."""
    return b"".join((_ONE_STRUCT_OF_ONE_CLIENT, client, varuint(clock), bytes((info,)), client, varuint(clock - 1)))


def only_text(update: bytes, at: int) -> int:
    """Return the length of the text in *update* from *at* on, if that is short and all that is there; else 0."""
    text = update[at + 1 : -1]
    if not text or len(text) >= ONE_BYTE or update[at] != len(text) or update[-1] != 0:
        return 0
    try:
        return units(text)
    except UnicodeDecodeError:
        return 0
