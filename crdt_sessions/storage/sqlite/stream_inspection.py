"""Looks at the durable streams of a database file that may be damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from crdt_sessions.errors import DamagedLog, StorageError
from crdt_sessions.storage.inspected import InspectedStream
from crdt_sessions.storage.sqlite.streams import SELECT_STREAMS, stream_of
from crdt_sessions.storage.streams import Producer, Stream, StreamEntry, stream_entry


def inspected_streams(connection: sqlite3.Connection) -> Iterator[InspectedStream]:
    """Yield the streams, each after the one that it is a fork of; none if the file is older than streams are.

    Raises:
        StorageError: the list itself cannot be read.
    """
    try:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'streams'").fetchone():
            return
        listed = connection.execute(f"{SELECT_STREAMS} ORDER BY id").fetchall()
    except sqlite3.Error as error:
        raise StorageError(f"the list of streams cannot be read: {error}") from error
    for row in listed:
        yield _inspected(connection, stream_of(row))


def _inspected(connection: sqlite3.Connection, stream: Stream) -> InspectedStream:
    entries: list[StreamEntry] = []
    producers: list[tuple[str, Producer]] = []
    problems: list[str] = []
    try:
        entries += _entries(connection, stream)
        end = entries[-1].end if entries else stream.forked_at
        if end != stream.tail:
            problems.append(f"it can be read up to byte {end} of {stream.tail}: what follows is missing or damaged")
        statement = "SELECT producer, epoch, seq FROM stream_producers WHERE stream = ?"
        producers += [(name, Producer(*at)) for name, *at in connection.execute(statement, (stream.id,))]
    except sqlite3.Error as error:
        problems.append(f"it cannot be read: {error}")
    return InspectedStream(stream, tuple(entries), tuple(producers), tuple(problems))


def _entries(connection: sqlite3.Connection, stream: Stream) -> Iterator[StreamEntry]:
    """Yield the entries of a stream up to the first that is missing or damaged."""
    end = stream.forked_at
    statement = "SELECT end_at, data, checksum FROM stream_entries WHERE stream = ? ORDER BY end_at"
    for end_at, data, expected in connection.execute(statement, (stream.id,)):
        try:
            entry = stream_entry(stream, stream.id, end_at, data, expected, end_at)
        except DamagedLog:
            return
        if entry.start != end:
            return
        yield entry
        end = entry.end
