"""Updates that are plainly harmless: what typing and streaming make, told by their shape alone.

The CRDT library can panic, loop for ever or crash the process on an update that was made to hurt
(docs/decisions/0011-a-process-for-foreign-bytes.md), so what comes from outside is first applied in another process.
Nine out of ten updates are a few characters put behind, or before, others that are there. Those need no such test:
everything in them can be checked by looking. Source of the format: Yjs ``encoding.js``, update v1.
"""

from __future__ import annotations

from crdt_sessions.errors import WireError
from crdt_sessions.model import SessionDoc
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import Reader, decode_state_vector

_MAX_STRUCTS = 8
_MAX_CLOCK = 2**31
_STRING = 4
_HAS_ORIGIN, _HAS_RIGHT_ORIGIN = 0x80, 0x40


class Inspector:
    """Tells plain updates of one document from others, and remembers its clocks meanwhile.

    Args:
        document: the document; whoever changes it calls :meth:`took`.
    """

    def __init__(self, document: SessionDoc) -> None:
        self._document = document
        self._clocks: dict[int, int] | None = None
        self._passed: tuple[bytes, int, int] | None = None

    def passes(self, update: bytes) -> bool:
        """Tell whether *update* only inserts text, by one client, next to what the document holds."""
        if self._document.waiting != EMPTY_UPDATE:
            return False  # it may bring what others wait for
        if self._clocks is None:
            self._clocks = decode_state_vector(self._document.state_vector())
        found = plain(update, self._clocks)
        self._passed = (update, *found) if found is not None else None
        return found is not None

    def took(self, update: bytes) -> None:
        """Note that the document has changed by *update*."""
        if self._passed is not None and self._clocks is not None and self._passed[0] == update:
            _, client, clock = self._passed
            self._clocks[client] = clock
        else:
            self._clocks = None
        self._passed = None


def plain(update: bytes, clocks: dict[int, int]) -> tuple[int, int] | None:
    """Return the client that wrote a plain update and its clock behind it; None if the update is not plain.

    Args:
        update: foreign bytes.
        clocks: the state vector of a document in which nothing waits for something missing.

    A plain update follows what its client wrote before without a gap or an overlap, names as neighbours only
    structs that are there, deletes nothing, and ends where it should.
    """
    try:
        return _plain(Reader(update), clocks)
    except WireError:
        return None


def _plain(reader: Reader, clocks: dict[int, int]) -> tuple[int, int] | None:
    if reader.varuint() != 1:
        return None
    structs, client, clock = reader.varuint(), reader.varuint(), reader.varuint()
    if not 1 <= structs <= _MAX_STRUCTS or clock != clocks.get(client, 0):
        return None
    for _ in range(structs):
        length = _inserted(reader, client, clock, clocks)
        clock += length
        if not length or clock >= _MAX_CLOCK:
            return None
    done = reader.varuint() == 0 and not reader.remaining  # no deletions, and nothing behind them
    return (client, clock) if done else None


def _inserted(reader: Reader, client: int, clock: int, clocks: dict[int, int]) -> int:
    """Return the length of the text that the next struct inserts, in UTF-16 units; 0 if it is something else."""
    info = reader.take(1)[0]
    if info & ~_HAS_RIGHT_ORIGIN != _STRING | _HAS_ORIGIN:
        return 0
    for _ in range(2 if info & _HAS_RIGHT_ORIGIN else 1):
        neighbour, at = reader.varuint(), reader.varuint()
        if at >= (clock if neighbour == client else clocks.get(neighbour, 0)):
            return 0
    text = reader.string()
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
