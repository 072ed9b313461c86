"""Text that a document is known to take, gathered until somebody needs the document.

Why nothing is lost by it: ``docs/decisions/0058-known-to-apply-before-stored.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crdt_sessions.wire.insertions import joined

MAX_BYTES = 16 * 1024
"""Bytes from which on the document takes what has gathered. Taking it holds up the loop."""
_TEXT_BYTES = 64
"""What a text counts for in addition to its bytes, so that there are never more than a few hundred."""


class DocumentFailed(Exception):
    """The document did not take what it was known to take: a defect. It must not be used any more.

    It is not one of the errors that refuse an update: nothing that comes later is to blame.
    """


@dataclass(slots=True, eq=False)
class _Row:
    """Texts of one client, each right after the one before."""

    head: bytes
    clock: int
    texts: list[bytes] = field(default_factory=list)


class DeferredText:
    """Insertions of text that a document has not taken yet, each after the last one of its client."""

    __slots__ = ("_rows", "bytes")

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self.bytes = 0
        """What they count for; 0 if there are none."""

    def add(self, client: int, clock: int, update: bytes, at: int) -> None:
        """Add an update that inserts a short text and does nothing else.

        Args:
            client: who wrote it.
            clock: the client's clock after it.
            update: inserts text where the client's last insertion ends.
            at: where its text stands, behind a byte that says how long it is.
        """
        row = self._rows.get(client)
        if row is None:
            row = self._rows[client] = _Row(update[:at], clock)
        row.clock = clock
        row.texts.append(update[at + 1 : -1])
        self.bytes += len(update) + _TEXT_BYTES

    def updates(self) -> Iterator[bytes]:
        """Yield them, those of each client as one update."""
        return (joined(row.head, row.texts) for row in self._rows.values())

    def held_by(self, clocks: Mapping[int, int]) -> bool:
        """Whether a document with these clocks has taken them, and nothing else of their clients."""
        return all(clocks.get(client) == row.clock for client, row in self._rows.items())

    def clear(self) -> None:
        """Forget them."""
        self._rows.clear()
        self.bytes = 0
