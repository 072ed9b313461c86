"""What holds documents of another server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from crdt_sessions.errors import StorageError


class Source(Protocol):
    """Documents, each with a name and the updates that it consists of."""

    kind: str
    """What it is, for people."""

    def names(self) -> Sequence[str]:
        """Return the names of the documents, in order.

        Raises:
            StorageError: it cannot be read.
        """
        ...

    def updates(self, name: str) -> list[bytes]:
        """Return a document's updates (encoding v1), oldest first.

        Raises:
            StorageError: this document cannot be read.
        """
        ...

    def close(self) -> None:
        """Let go of its files."""
        ...


def unreadable(path: Path, why: str) -> StorageError:
    """Return the error that something of a source cannot be read."""
    return StorageError(f"{path} cannot be read: {why}")
