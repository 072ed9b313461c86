"""Checksums of rows, and what must hold of those that are read together. Every store keeps them the same way."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from crdt_sessions.errors import DamagedLog
from crdt_sessions.ids import Seq, SessionId
from crdt_sessions.storage.packing import unpack
from crdt_sessions.storage.stored import Row


def checksum(session: SessionId, row: Row) -> int:
    """Return the CRC-32 over the row's place and bytes: a row that was moved is as wrong as one that was changed."""
    return zlib.crc32(row.update, zlib.crc32(f"{session}/{row.seq}".encode()))


def verified(
    session: SessionId, stored: Sequence[tuple[int, bytes, int, int, int]], last_seq: int
) -> tuple[Row, ...]:
    """Return the rows of a session that were stored as number, bytes, checksum, whether they wait, unpacked size.

    Args:
        session: whose they are.
        stored: in order.
        last_seq: the number of the last one there must be.

    Raises:
        DamagedLog: one does not match its checksum, or is missing.
    """
    rows: list[Row] = []
    for seq, data, expected, waits, size in stored:
        update = unpack(data, size)
        row = Row(Seq(seq), update or b"", bool(waits))
        if update is None or checksum(session, row) != expected:
            raise DamagedLog(session=session, seq=seq, why="does not match its checksum")
        if rows and seq != rows[-1].seq + 1:
            raise DamagedLog(session=session, seq=rows[-1].seq + 1, why="is missing")
        rows.append(row)
    if not rows or rows[-1].seq < last_seq:
        raise DamagedLog(session=session, seq=last_seq, why="is missing")
    return tuple(rows)
