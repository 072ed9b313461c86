"""The update log of a live session: what was broadcast lately, read by cursors.

The session keeps one log; a connection keeps only a cursor, so nobody has a queue that can grow. An entry
is made when its update is applied and becomes visible when its row is committed: the *tail*. Whoever reads
takes everything from its cursor to the tail as one frame, so batching appears exactly when it is needed.

What every reader has is dropped; what a reader lacks is kept up to a bound, and counted as what it costs
(``docs/decisions/0024-what-memory-costs.md``).
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from typing import NamedTuple

from crdt_sessions.ids import PeerId, Seq
from crdt_sessions.model import merge
from crdt_sessions.wire import EMPTY_UPDATE, Shared, Update

MAX_GROUP = 256
"""Entries merged into one frame at most: merging costs more than linear time."""
ENTRY_BYTES = 64
"""What an entry costs beside its bytes: their header, and what refers to them."""
_FEW = 64
"""Entries below which nothing is gained by dropping them."""


class Portion(NamedTuple):
    """Frames to send to a reader, and its cursor afterwards."""

    cursor: Seq
    frame: Shared | None
    """None if there is nothing in it for this reader."""


class UpdateLog:
    """A short window of deltas, numbered like the rows of the store.

    Args:
        after: the last sequence number that is already in the store.
        max_bytes: what may be kept of what was committed, for readers that lag; an entry counts as what it costs.
        memory: a bound that is shared with other logs; there is none if None.
    """

    def __init__(self, after: Seq, max_bytes: int, memory: LogMemory | None = None) -> None:
        self._deltas: deque[bytes | None] = deque()
        self._authors: deque[PeerId | None] = deque()
        self._max_bytes = max_bytes
        self._memory = memory or LogMemory(sys.maxsize)
        self._shared: dict[Seq, tuple[PeerId | None, Portion]] = {}  # and who wrote all of it, if that is one peer
        self._shared_bytes = 0
        self._cuts: deque[Seq] = deque()
        self._worth = _FEW
        self.bytes = 0
        """What the entries cost."""
        self.start = after
        """Sequence number before the first entry: a cursor below it has fallen off."""
        self.tail = after
        """Last committed sequence number."""
        self.head = after
        """Last sequence number given out."""

    def __len__(self) -> int:
        return len(self._deltas)

    def append(self, delta: bytes | None, author: PeerId | None) -> Seq:
        """Add an entry that is not committed yet and return its number.

        Args:
            delta: what peers must be sent; None if the document shows nothing new.
            author: the peer that has it already.
        """
        self.head = Seq(self.head + 1)
        self._deltas.append(delta)
        self._authors.append(author)
        self.bytes += ENTRY_BYTES + len(delta or b"")
        return self.head

    def cut(self) -> None:
        """Have no frame hold both what was appended up to here and what comes later."""
        while self._cuts and self._cuts[0] <= self.start:
            self._cuts.popleft()
        self._cuts.append(self.head)

    def commit(self, through: Seq) -> bool:
        """Make everything up to *through* visible.

        Return whether there may be enough that no reader needs any more to look what the slowest one has.
        """
        self.tail = max(self.tail, through)
        if self._shared:
            self._share_no_more()
        if self.bytes > self._max_bytes:
            self._drop(self.tail, self._max_bytes)
        self._memory.holds(self)
        return len(self._deltas) >= self._worth

    def forget(self, through: Seq) -> None:
        """Drop what was committed, up to *through*: every reader has it."""
        self._share_no_more()
        self._drop(min(through, self.tail))
        self._worth = _FEW + 2 * len(self._deltas)
        self._memory.holds(self)

    def close(self) -> None:
        """Drop everything."""
        self._share_no_more()
        self._deltas.clear()
        self._authors.clear()
        self.start, self.bytes = self.head, 0
        self._memory.holds(self)

    def portion(self, cursor: Seq, reader: PeerId) -> Portion | None:
        """Return the next portion after *cursor*, or None if there is nothing, or it has fallen off.

        Readers at the same cursor share the frame, so it is written once. A portion that holds only the reader's own
        updates has none.
        """
        shared = self._shared.get(cursor)
        if shared is None:
            if cursor >= self.tail or cursor < self.start:
                return None
            shared = self._behind(cursor)
            if self._shared_bytes > self._max_bytes:  # readers that lag stand at as many places as there are of them
                self._share_no_more()
            self._shared[cursor] = shared
            self._shared_bytes += ENTRY_BYTES + _cost(shared[1].frame)
        author, portion = shared
        return Portion(portion.cursor, None) if author == reader else portion

    def _behind(self, cursor: Seq) -> tuple[PeerId | None, Portion]:
        """Return the entries after *cursor*, and their author if that is one peer."""
        end = Seq(min(self.tail, cursor + MAX_GROUP))
        if self._cuts:
            end = min(end, *(cut for cut in self._cuts if cut > cursor), end)
        first, last = cursor - self.start, end - self.start
        if last - first == 1:  # as mostly
            delta, author = self._deltas[first], self._authors[first]
            shown = delta if delta != EMPTY_UPDATE else None
            return author, Portion(end, Shared(Update(shown)) if shown is not None else None)
        entries = list(zip(islice(self._deltas, first, last), islice(self._authors, first, last), strict=True))
        deltas = [delta for delta, _ in entries if delta is not None]
        authors = {author for delta, author in entries if delta is not None}
        author = authors.pop() if len(authors) == 1 else None
        return author, Portion(end, Shared(Update(merge(deltas))) if deltas else None)

    def _drop(self, through: Seq, most: int = -1) -> None:
        """Drop the first entries, as long as there are more than *most* bytes, up to *through* at the most."""
        if most < 0 and through >= self.head:  # all of it, as when everybody keeps up
            self._deltas.clear()
            self._authors.clear()
            self.start, self.bytes = self.head, 0
            return
        start, size = int(self.start), self.bytes
        while start < through and size > most:
            self._authors.popleft()
            size -= ENTRY_BYTES + len(self._deltas.popleft() or b"")
            start += 1
        self.start, self.bytes = Seq(start), size

    def _share_no_more(self) -> None:
        self._shared.clear()
        self._shared_bytes = 0


def _cost(frame: Shared | None) -> int:
    """Return the bytes that a frame takes at most: its own, and as many once it is written."""
    return 2 * len(frame.frame.update) if frame is not None and isinstance(frame.frame, Update) else 0


class LogMemory:
    """What the logs of all live sessions may hold together: those that share one share its bound.

    When there is more, the log that was written to longest ago forgets what was committed, then the next one. Nobody
    loses anything: readers that lag are brought up to date from their document.

    Args:
        max_bytes: the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._logs: dict[UpdateLog, int] = {}  # the one written to last is the last one
        self.bytes = 0
        """What they hold."""

    def holds(self, log: UpdateLog) -> None:
        """Take note that *log* has changed."""
        size = log.bytes
        self.bytes += size - self._logs.pop(log, 0)
        if size:
            self._logs[log] = size
            if self.bytes > self._max_bytes:
                self._make_room()

    def _make_room(self) -> None:
        for log in list(self._logs):
            log._drop(log.tail)
            self.bytes += log.bytes - self._logs.pop(log)
            if log.bytes:
                self._logs[log] = log.bytes
            if self.bytes <= self._max_bytes:
                return
