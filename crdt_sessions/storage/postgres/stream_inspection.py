"""Looks at the durable streams of a database, each as it is at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from crdt_sessions.storage.inspected import InspectedStream, following, short_of
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.errors import translated
from crdt_sessions.storage.postgres.streams import SELECT_STREAMS, stored_stream
from crdt_sessions.storage.postgres.text import read
from crdt_sessions.storage.streams import Producer

_IDS = "SELECT id FROM streams WHERE id > $1 ORDER BY id LIMIT 500"
_ENTRIES = "SELECT end_at, data, checksum FROM stream_entries WHERE stream = $1 ORDER BY end_at"
_PRODUCERS = "SELECT producer, epoch, seq FROM stream_producers WHERE stream = $1 ORDER BY producer"


async def inspected_streams(connection: Connection, *, states: bool) -> AsyncIterator[InspectedStream]:
    """Yield the streams, each after the one that it is a fork of.

    Args:
        connection: to the database.
        states: whether its schema knows the states of streams.

    Raises:
        StorageError: they cannot be read.
    """
    select = SELECT_STREAMS if states else SELECT_STREAMS.replace(", state", ", NULL")
    after = 0
    while True:
        with translated():
            ids = [id for (id,) in await connection.fetch(_IDS, after)]
        for id in ids:
            if (found := await _inspected(connection, select, id)) is not None:
                yield found
        if not ids:
            return
        after = ids[-1]


async def _inspected(connection: Connection, select: str, id: int) -> InspectedStream | None:
    with translated():
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            row = await connection.fetchrow(f"{select} WHERE id = $1", id)
            if row is None:
                return None  # it went meanwhile
            stream = stored_stream(row)
            entries = tuple(following(stream, [tuple(each) for each in await connection.fetch(_ENTRIES, id)]))
            come = await connection.fetch(_PRODUCERS, id)
    producers = tuple((read(name), Producer(epoch, seq)) for name, epoch, seq in come)
    found = InspectedStream(stream, entries, producers, ())
    return replace(found, problems=tuple(short_of(found)))
