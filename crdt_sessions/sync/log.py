"""The update log of a live session: the latest changes, read by cursors.

The session keeps one log, and each connection keeps only a cursor, so there are no queues that can grow. An entry is
made when its update is applied. It becomes visible when its row is committed; the *tail* is the last such entry. A
reader takes everything from its cursor to the tail as one frame, so batching appears exactly when it is needed.

Entries that every reader has are dropped. Others are kept up to a bound on the memory that they take
(``docs/decisions/0024-what-memory-costs.md``).
"""

from __future__ import annotations

import sys
from itertools import islice
from typing import NamedTuple

from crdt_sessions.ids import PeerId, Seq
from crdt_sessions.model import merge
from crdt_sessions.wire import EMPTY_UPDATE, Shared, Update

MAX_GROUP = 256
"""Most entries that are merged into one frame: merging takes more than linear time."""
ENTRY_BYTES = 64
"""Memory of an entry in addition to its bytes: their header, and the references to them."""
_FEW = 64
"""With fewer entries than this, dropping them gains nothing."""


class Portion(NamedTuple):
    """A frame to send to a reader, and the reader's cursor afterwards."""

    cursor: Seq
    frame: Shared | None
    """None if the portion has nothing for this reader."""


class UpdateLog:
    """A short window of deltas, numbered like the rows of the store.

    Args:
        after: the last sequence number that is already in the store.
        max_bytes: memory that committed entries may take while readers lag.
        memory: a bound that is shared with other logs; None for no such bound.
    """

    def __init__(self, after: Seq, max_bytes: int, memory: LogMemory | None = None) -> None:
        self._deltas: list[bytes | None] = []  # lists: an empty deque takes 760 bytes, and most sessions rest
        self._authors: list[PeerId | None] = []
        self._max_bytes = max_bytes
        self._memory = memory or LogMemory(sys.maxsize)
        self._shared: dict[Seq, tuple[PeerId | None, Portion]] = {}  # with the author, if one peer wrote all of it
        self._shared_bytes = 0
        self._cuts: list[Seq] = []
        self._worth = _FEW
        self.bytes = 0
        """Memory that the entries take."""
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
        """Let no frame hold both entries appended before this call and entries appended after it."""
        while self._cuts and self._cuts[0] <= self.start:
            self._cuts.pop(0)
        self._cuts.append(self.head)

    def commit(self, through: Seq) -> bool:
        """Make everything up to *through* visible.

        Return whether it is worth finding the slowest reader's cursor: there may be many entries that nobody needs.
        """
        self.tail = max(self.tail, through)
        if self._shared:
            self._share_no_more()
        if self.bytes > self._max_bytes:
            self._drop(self.tail, self._max_bytes)
        self._memory.holds(self)
        return len(self._deltas) >= self._worth

    def forget(self, through: Seq) -> None:
        """Drop committed entries up to *through*: every reader has them."""
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
        """Return the next portion after *cursor*; None if there is nothing, or if the cursor has fallen off.

        Readers at the same cursor share the frame, so it is written once. A portion with only the reader's own
        updates has no frame.
        """
        shared = self._shared.get(cursor)
        if shared is None:
            if cursor >= self.tail or cursor < self.start:
                return None
            shared = self._after(cursor)
            size = ENTRY_BYTES + _cost(shared[1].frame)
            if self._shared_bytes + size > self._max_bytes:  # each reader that lags may stand at a different cursor
                self._share_no_more()
            self._shared[cursor] = shared
            self._shared_bytes += size
        author, portion = shared
        return Portion(portion.cursor, None) if author == reader else portion

    def _after(self, cursor: Seq) -> tuple[PeerId | None, Portion]:
        """Return the portion after *cursor*, and its author if one peer wrote all of it."""
        end = Seq(min(self.tail, cursor + MAX_GROUP))
        if self._cuts:
            end = min(end, *(cut for cut in self._cuts if cut > cursor), end)
        first, last = cursor - self.start, end - self.start
        if last - first == 1:  # the usual case
            delta, author = self._deltas[first], self._authors[first]
            shown = delta if delta != EMPTY_UPDATE else None
            return author, Portion(end, Shared(Update(shown)) if shown is not None else None)
        entries = list(zip(islice(self._deltas, first, last), islice(self._authors, first, last), strict=True))
        deltas = [delta for delta, _ in entries if delta is not None]
        authors = {author for delta, author in entries if delta is not None}
        author = authors.pop() if len(authors) == 1 else None
        return author, Portion(end, Shared(Update(merge(deltas))) if deltas else None)

    def _drop(self, through: Seq, most: int = -1) -> None:
        """Drop the first entries, up to *through*, until at most *most* bytes are left."""
        if most < 0 and through >= self.head:  # drop all, as when every reader keeps up
            self._deltas.clear()
            self._authors.clear()
            self.start, self.bytes = self.head, 0
            return
        count, size = 0, self.bytes
        while self.start + count < through and size > most:
            size -= ENTRY_BYTES + len(self._deltas[count] or b"")
            count += 1
        del self._deltas[:count], self._authors[:count]
        self.start, self.bytes = Seq(self.start + count), size

    def _share_no_more(self) -> None:
        self._shared.clear()
        self._shared_bytes = 0


def _cost(frame: Shared | None) -> int:
    """Return the most bytes that a frame takes: its own, and as many once it is encoded, in either dialect."""
    return 3 * len(frame.frame.update) if frame is not None and isinstance(frame.frame, Update) else 0


class LogMemory:
    """Bounds the memory of all logs that share it.

    Above the bound, the log that was written to longest ago drops its committed entries, then the next one. No
    changes are lost: readers that lag are brought up to date from the document.

    Args:
        max_bytes: the bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._logs: dict[UpdateLog, int] = {}  # the log written to last is at the end
        self.bytes = 0
        """Memory that the logs take."""

    def holds(self, log: UpdateLog) -> None:
        """Note that *log* has changed."""
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
