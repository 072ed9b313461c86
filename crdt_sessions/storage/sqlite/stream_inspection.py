"""Looks at the durable streams of a database file that may be damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.inspected import InspectedStream, following, short_of
from crdt_sessions.storage.sqlite.streams import SELECT_STREAMS, stream_of
from crdt_sessions.storage.streams import Producer, Stream, StreamEntry


def inspected_streams(connection: sqlite3.Connection) -> Iterator[InspectedStream]:
    """Yield the streams, each after the one that it is a fork of; none if the file is older than streams are.

    Raises:
        StorageError: the list itself cannot be read.
    """
    try:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'streams'").fetchone():
            return
        listed = connection.execute(f"{_known(connection)} ORDER BY id").fetchall()
    except sqlite3.Error as error:
        raise StorageError(f"the list of streams cannot be read: {error}") from error
    for row in listed:
        yield _inspected(connection, stream_of(row))


def _known(connection: sqlite3.Connection) -> str:
    """Return :data:`SELECT_STREAMS` for a file that may be older than states are."""
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(streams)")}
    return SELECT_STREAMS if "state" in columns else SELECT_STREAMS.replace(", state", ", NULL")


def _inspected(connection: sqlite3.Connection, stream: Stream) -> InspectedStream:
    entries: list[StreamEntry] = []
    producers: list[tuple[str, Producer]] = []
    problems: list[str] = []
    try:
        statement = "SELECT end_at, data, checksum FROM stream_entries WHERE stream = ? ORDER BY end_at"
        entries += following(stream, connection.execute(statement, (stream.id,)))
        statement = "SELECT producer, epoch, seq FROM stream_producers WHERE stream = ?"
        producers += [(name, Producer(*at)) for name, *at in connection.execute(statement, (stream.id,))]
    except sqlite3.Error as error:
        problems.append(f"it cannot be read: {error}")
    found = InspectedStream(stream, tuple(entries), tuple(producers), tuple(problems))
    return found if problems else replace(found, problems=tuple(short_of(found)))
