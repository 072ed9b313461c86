"""A reader of LevelDB's files, which leaves them as they are.

Only so much as it takes to read a database once, as a whole: which tables are alive (``MANIFEST``), what is in them,
and what is in the log behind them. The newest entry of a key counts. Checksums are not looked at: a document that was
damaged is noticed where its updates are read.
Sources: LevelDB's ``doc/impl.md``, ``doc/log_format.md``, ``doc/table_format.md``, ``db/version_edit.cc``,
``db/write_batch.cc``; snappy's ``format_description.txt``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crdt_sessions.errors import WireError
from crdt_sessions.wire.varint import Reader

_BLOCK = 32 * 1024
_HEADER = 7
_FULL, _FIRST, _MIDDLE, _LAST = range(1, 5)
_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57
_SNAPPY = 1
_VALUE = 1
_TRAILER = 8
"""Behind each key in a table: its number, and whether it is a value."""

Entries = dict[bytes, tuple[int, bytes | None]]
"""Key to the number of its newest entry, and its value; None if it was deleted."""


@dataclass(slots=True)
class _Version:
    """What a manifest says of the files."""

    log_number: int = 0
    tables: set[int] = field(default_factory=set)


def read(folder: Path) -> dict[bytes, bytes]:
    """Return all that a database holds.

    Raises:
        WireError, struct.error, IndexError: a file is damaged.
        OSError: one cannot be read.
    """
    manifest = (folder / "CURRENT").read_text("ascii").strip()
    version = _version((folder / manifest).read_bytes())
    entries: Entries = {}
    for number in sorted(version.tables):
        found = next(path for path in (folder / f"{number:06}.ldb", folder / f"{number:06}.sst") if path.exists())
        for key, count, value in _table(found.read_bytes()):
            _put(entries, key, count, value)
    for log in sorted(folder.glob("*.log")):
        if int(log.stem) >= version.log_number:
            for record in _records(log.read_bytes()):
                for key, count, value in _batch(record):
                    _put(entries, key, count, value)
    return {key: value for key, (_, value) in sorted(entries.items()) if value is not None}


def _put(entries: Entries, key: bytes, count: int, value: bytes | None) -> None:
    known = entries.get(key)
    if known is None or known[0] <= count:
        entries[key] = (count, value)


# -- logs, of which the manifest is one ----------------------------------------------------------------------------


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a log. What was being written when its process died is left out."""
    record = b""
    at = 0
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:  # too little for a header: the rest of a block is empty
            at += _BLOCK - at % _BLOCK
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        piece = data[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size
        if not _FULL <= kind <= _LAST or len(piece) < size:
            return
        record = piece if kind in (_FULL, _FIRST) else record + piece
        if kind in (_FULL, _LAST):
            yield record


def _batch(record: bytes) -> Iterator[tuple[bytes, int, bytes | None]]:
    (first,) = struct.unpack_from("<Q", record)
    reader = Reader(record[12:])
    count = first
    while reader.remaining:
        kind = reader.take(1)[0]
        key = reader.buffer()
        yield key, count, reader.buffer() if kind == _VALUE else None
        count += 1


def _version(manifest: bytes) -> _Version:
    version = _Version()

    def new_table(reader: Reader) -> None:
        reader.varuint()  # its level
        version.tables.add(reader.varuint())
        reader.varuint()  # its size
        reader.buffer(), reader.buffer()  # its first and last key

    def table_gone(reader: Reader) -> None:
        reader.varuint()
        version.tables.discard(reader.varuint())

    def log_number(reader: Reader) -> None:
        version.log_number = reader.varuint()

    def compacted(reader: Reader) -> None:
        reader.varuint(), reader.buffer()

    edits: dict[int, Callable[[Reader], object]] = {
        1: Reader.buffer,  # what compares keys
        2: log_number,
        3: Reader.varuint,  # the next file
        4: Reader.varuint,  # the last number
        5: compacted,
        6: table_gone,
        7: new_table,
        9: Reader.varuint,  # the log before
    }
    for record in _records(manifest):
        reader = Reader(record)
        while reader.remaining:
            edits[reader.varuint()](reader)
    return version


# -- tables --------------------------------------------------------------------------------------------------------


def _table(data: bytes) -> Iterator[tuple[bytes, int, bytes | None]]:
    footer = data[-_FOOTER:]
    if len(footer) < _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise WireError("a table does not end like one")
    handles = Reader(footer)
    handles.varuint(), handles.varuint()  # of what is known of the table
    for _, handle in _block(data, handles):
        for key, value in _block(data, Reader(handle)):
            (tag,) = struct.unpack("<Q", key[-_TRAILER:])
            yield key[:-_TRAILER], tag >> 8, value if tag & 0xFF == _VALUE else None


def _block(data: bytes, handle: Reader) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values of the block that a handle is of."""
    offset, size = handle.varuint(), handle.varuint()
    block = data[offset : offset + size]
    if data[offset + size] == _SNAPPY:
        block = unsnappy(block)
    (restarts,) = struct.unpack("<I", block[-4:])
    reader = Reader(block[: len(block) - 4 - 4 * restarts])
    key = b""
    while reader.remaining:
        shared, more, length = reader.varuint(), reader.varuint(), reader.varuint()
        key = key[:shared] + reader.take(more)
        yield key, reader.take(length)


def unsnappy(data: bytes) -> bytes:
    """Return what snappy made *data* of.

    Raises:
        WireError, IndexError: it did not.
    """
    reader = Reader(data)
    size, made = reader.varuint(), bytearray()
    while reader.remaining:
        tag = reader.take(1)[0]
        kind, upper = tag & 3, tag >> 2
        if kind == 0:
            length = upper + 1 if upper < 60 else int.from_bytes(reader.take(upper - 59), "little") + 1
            made += reader.take(length)
            continue
        if kind == 1:
            length, offset = 4 + (upper & 7), (tag >> 5 << 8) | reader.take(1)[0]
        else:
            length, offset = upper + 1, int.from_bytes(reader.take(2 if kind == 2 else 4), "little")
        for _ in range(length):  # it may repeat what it has just made
            made.append(made[-offset])
    if len(made) != size:
        raise WireError("a block is not as long as it says")
    return bytes(made)
