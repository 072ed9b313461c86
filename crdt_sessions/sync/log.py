"""The update log of a live session: what was broadcast lately, read by cursors.

The session keeps one log; a connection keeps only a cursor, so nobody has a queue that can grow. An entry
is made when its update is applied and becomes visible when its row is committed: the *tail*. Whoever reads
takes everything from its cursor to the tail as one frame, so batching appears exactly when it is needed.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from crdt_sessions.ids import PeerId, Seq
from crdt_sessions.model import merge
from crdt_sessions.wire import Update, encode

MAX_GROUP = 256
"""Entries merged into one frame at most: merging costs more than linear time."""


class _Entry(NamedTuple):
    seq: Seq
    delta: bytes | None
    author: PeerId | None


class Portion(NamedTuple):
    """What a reader is to be sent, and where its cursor stands afterwards."""

    cursor: Seq
    frame: bytes | None
    """None if there is nothing in it for this reader."""


class UpdateLog:
    """A short window of deltas, numbered like the rows of the store.

    Args:
        after: the last sequence number that is already in the store.
        max_bytes: how much of what was committed to keep for readers that lag.
    """

    def __init__(self, after: Seq, max_bytes: int) -> None:
        self._entries: deque[_Entry] = deque()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._shared: dict[Seq, tuple[set[PeerId | None], Portion]] = {}
        self.start = after
        """Sequence number before the first entry: a cursor below it has fallen off."""
        self.tail = after
        """Last committed sequence number."""
        self.head = after
        """Last sequence number given out."""

    def append(self, delta: bytes | None, author: PeerId | None) -> Seq:
        """Add an entry that is not committed yet and return its number.

        Args:
            delta: what peers must be sent; None if the document shows nothing new.
            author: the peer that has it already.
        """
        self.head = Seq(self.head + 1)
        self._entries.append(_Entry(self.head, delta, author))
        self._bytes += len(delta or b"")
        return self.head

    def commit(self, through: Seq) -> None:
        """Make everything up to *through* visible."""
        self.tail = max(self.tail, through)
        self._shared.clear()
        while self._entries and self._bytes > self._max_bytes and self._entries[0].seq <= self.tail:
            dropped = self._entries.popleft()
            self._bytes -= len(dropped.delta or b"")
            self.start = dropped.seq

    def portion(self, cursor: Seq, reader: PeerId) -> Portion | None:
        """Return the next portion behind *cursor*, or None if there is nothing, or it has fallen off.

        Readers at the same cursor share the bytes. A portion that holds only the reader's own updates has
        no frame.
        """
        if cursor >= self.tail or cursor < self.start:
            return None
        shared = self._shared.get(cursor)
        if shared is None:
            shared = self._shared[cursor] = self._behind(cursor)
        authors, portion = shared
        if portion.frame is not None and len(authors) == 1 and reader in authors:
            return Portion(portion.cursor, None)
        return portion

    def _behind(self, cursor: Seq) -> tuple[set[PeerId | None], Portion]:
        """Return what stands behind *cursor*, and who wrote it."""
        first = cursor - self.start
        end = Seq(min(self.tail, cursor + MAX_GROUP))
        entries = [self._entries[index] for index in range(first, first + end - cursor)]
        deltas = [entry.delta for entry in entries if entry.delta is not None]
        authors = {entry.author for entry in entries if entry.delta is not None}
        return authors, Portion(end, encode(Update(merge(deltas))) if deltas else None)
