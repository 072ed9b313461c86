"""Documents of ``y-leveldb``, as ``y-websocket``'s server keeps them. Source: ``y-leveldb.js`` 0.1 and 0.2."""

from __future__ import annotations

import contextlib
import os
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from crdt_sessions.errors import WireError
from crdt_sessions.wire.varint import Reader
from crdt_sessions_server.migration import leveldb
from crdt_sessions_server.migration.source import unreadable

_STRING, _UINT32 = 0, 1


class YLevelDb:
    """A folder of LevelDB.

    Args:
        path: the folder.

    Raises:
        StorageError: it cannot be read, or some process has it open.
    """

    kind = "y-leveldb"

    def __init__(self, path: Path) -> None:
        self._documents: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        try:
            with _locked(path):
                entries = leveldb.read(path)
        except (OSError, WireError, struct.error, IndexError, KeyError, StopIteration) as error:
            raise unreadable(path, f"{type(error).__name__}: {error}") from error
        for key, value in entries.items():
            match _parts(key):
                case ["v1", str(name), "update", int(clock)]:
                    self._documents[name].append((clock, value))
                case _:  # state vectors, and what applications note about documents
                    pass

    def names(self) -> Sequence[str]:
        """See :meth:`Source.names`."""
        return sorted(self._documents)

    def updates(self, name: str) -> list[bytes]:
        """See :meth:`Source.updates`."""
        return [update for _, update in sorted(self._documents[name])]

    def close(self) -> None:
        """See :meth:`Source.close`."""


def _parts(key: bytes) -> list[str | int]:
    """Return what a key is made of; nothing if it is no key of y-leveldb."""
    reader, parts = Reader(key), list[str | int]()
    try:
        while reader.remaining:
            kind = reader.take(1)[0]
            if kind not in (_STRING, _UINT32):
                return []
            parts.append(reader.string() if kind == _STRING else int.from_bytes(reader.take(4), "big"))
    except WireError:
        return []
    return parts


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Have nobody else write meanwhile.

    Raises:
        OSError: somebody has it open.
    """
    if os.name == "nt" or not (path / "LOCK").exists():
        yield
        return
    import fcntl

    with (path / "LOCK").open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError("some process has it open; stop that first") from error
        yield
