"""Documents of y-sweet's file store: ``<folder>/<document>/data.ysweet``, a map of bytes to bytes.

What lies in S3 is the same files: copy them first.
Sources: y-sweet 0.9, ``sync_kv.rs`` (a ``BTreeMap`` by bincode 1) and ``stores/filesystem.rs``; ``yrs-kvstore``,
``keys.rs``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from crdt_sessions.errors import WireError
from crdt_sessions.wire.varint import Reader
from crdt_sessions_server.migration.source import unreadable

FILE = "data.ysweet"
_DOCUMENT = b"\x00\x01"
"""What keys begin with that are no index: a version, and where they belong. The document's number follows."""
_KIND_AT = 6
_STATE, _UPDATE = 0, 2


class YSweetFiles:
    """A folder of y-sweet's.

    Args:
        path: the folder.
    """

    kind = "y-sweet's files"

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> Sequence[str]:
        """See :meth:`Source.names`."""
        return sorted(file.parent.relative_to(self._path).as_posix() for file in self._path.rglob(FILE))

    def updates(self, name: str) -> list[bytes]:
        """See :meth:`Source.updates`."""
        file = self._path / name / FILE
        try:
            entries = sorted(_entries(file.read_bytes()))
        except (OSError, WireError) as error:
            raise unreadable(file, str(error)) from error
        return [
            value
            for key, value in entries
            if key.startswith(_DOCUMENT) and len(key) > _KIND_AT and key[_KIND_AT] in (_STATE, _UPDATE)
        ]

    def close(self) -> None:
        """See :meth:`Source.close`."""


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    reader = Reader(data)
    for _ in range(_length(reader)):
        yield reader.take(_length(reader)), reader.take(_length(reader))
    if reader.remaining:
        raise WireError(f"{reader.remaining} bytes follow the last entry")


def _length(reader: Reader) -> int:
    return int.from_bytes(reader.take(8), "little")
