"""Durable streams: the store's methods."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.ids import Millis
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.statements import changed
from crdt_sessions.storage.streams import (
    Batch,
    Decide,
    Producer,
    Stream,
    StreamChange,
    StreamEntry,
    StreamFacts,
    StreamStore,
    first_entries,
    stream_checksum,
    stream_entry,
)

_NAMES = tuple(each.name for each in fields(Stream))
_COLUMNS = ", ".join(_NAMES)
SELECT_STREAMS = f"SELECT {_COLUMNS} FROM streams"
"""Reads rows for :func:`stream_of`."""


class SqliteStreams(OfDatabase, StreamStore):
    """A :class:`StreamStore` in a database."""

    async def stream(self, tenant: str, path: str, *, now: Millis) -> Stream | None:
        found = await self._stream(tenant, path)
        if found is None or not found.has_ended(now):
            return found
        await self.sweep_streams(now)
        return await self._stream(tenant, path)

    async def _stream(self, tenant: str, path: str) -> Stream | None:
        rows = await self._database.select(f"{SELECT_STREAMS} WHERE tenant = ? AND path = ?", (tenant, path))
        return stream_of(rows[0]) if rows else None

    async def alter_stream(
        self,
        tenant: str,
        path: str,
        decide: Decide,
        *,
        now: Millis,
        source: str | None = None,
        producer: str | None = None,
    ) -> None:
        refused: list[CrdtSessionsError] = []

        def job(connection: sqlite3.Connection) -> None:
            refused.clear()
            _sweep(connection, now)
            found = _at(connection, tenant, path)
            facts = StreamFacts(
                found,
                None if source is None else _at(connection, tenant, source),
                None if found is None or producer is None else _producer(connection, found.id, producer),
            )
            try:
                change = decide(facts)
            except CrdtSessionsError as error:  # what others have written in this transaction stays
                refused.append(error)
                return
            if change is not None:
                _apply(connection, facts, change, producer)

        await self._database.submit(job)
        if refused:
            raise refused[0]

    async def stream_entries(self, stream: Stream, after: int, *, most: int) -> Sequence[StreamEntry]:
        return await self._database.view(
            lambda connection: first_entries(_following(connection, stream, after), most)
        )

    async def streams(self, tenant: str, *, after: str = "", limit: int, now: Millis) -> Sequence[Stream]:
        rows = await self._database.select(
            f"{SELECT_STREAMS} WHERE tenant = ? AND path > ? AND NOT gone AND (due_at IS NULL OR due_at > ?)"
            " ORDER BY path LIMIT ?",
            (tenant, after, now, limit),
        )
        return [stream_of(row) for row in rows]

    async def streams_at(self, tenant: str, paths: Sequence[str], *, now: Millis) -> Sequence[Stream]:
        rows = await self._database.select(
            f"{SELECT_STREAMS} WHERE tenant = ? AND path IN (SELECT value FROM json_each(?))"
            " AND NOT gone AND (due_at IS NULL OR due_at > ?)",
            (tenant, json.dumps(list(paths)), now),
        )
        return [stream_of(row) for row in rows]

    async def stream_states(self, *, after: int = 0, limit: int) -> Sequence[Stream]:
        rows = await self._database.select(
            f"{SELECT_STREAMS} WHERE state IS NOT NULL AND id > ? ORDER BY id LIMIT ?", (after, limit)
        )
        return [stream_of(row) for row in rows]

    async def count_streams(self, tenant: str) -> int:
        rows = await self._database.select("SELECT count(*) FROM streams WHERE tenant = ?", (tenant,))
        return int(rows[0][0])

    async def sweep_streams(self, now: Millis) -> None:
        if await self._database.select("SELECT 1 FROM streams WHERE due_at <= ? LIMIT 1", (now,)):
            await self._database.submit(lambda connection: _sweep(connection, now))

    async def disown_streams(self, tenant: str, owner: str) -> int:
        found = await self._database.select(
            "SELECT count(*) FROM streams WHERE tenant = ? AND owner = ?", (tenant, owner)
        )

        def job(connection: sqlite3.Connection) -> None:
            changed(connection, "UPDATE streams SET owner = '' WHERE tenant = ? AND owner = ?", (tenant, owner))

        await self._database.submit(job)
        return int(found[0][0])


def stream_of(row: Sequence[Any]) -> Stream:
    """Return the stream that a row of :data:`SELECT_STREAMS` says."""
    found = dict(zip(_NAMES, row, strict=True))
    by = found["closed_by"]
    batch = None if by is None else Batch(*json.loads(by))
    return Stream(**{**found, "closed": bool(found["closed"]), "closed_by": batch, "gone": bool(found["gone"])})


def _values(stream: Stream) -> tuple[Any, ...]:
    by = None if stream.closed_by is None else json.dumps(stream.closed_by)
    stored = {"closed": int(stream.closed), "closed_by": by, "gone": int(stream.gone), "id": stream.id or None}
    facts = (stored[name] if name in stored else getattr(stream, name) for name in _NAMES)
    return (*facts, None if stream.gone else stream.due_at)


def _at(connection: sqlite3.Connection, tenant: str, path: str) -> Stream | None:
    row = connection.execute(f"{SELECT_STREAMS} WHERE tenant = ? AND path = ?", (tenant, path)).fetchone()
    return None if row is None else stream_of(row)


def _by_id(connection: sqlite3.Connection, id: int) -> Stream:
    return stream_of(connection.execute(f"{SELECT_STREAMS} WHERE id = ?", (id,)).fetchone())


def _producer(connection: sqlite3.Connection, stream: int, producer: str) -> Producer | None:
    statement = "SELECT epoch, seq FROM stream_producers WHERE stream = ? AND producer = ?"
    row = connection.execute(statement, (stream, producer)).fetchone()
    return None if row is None else Producer(*row)


def _apply(connection: sqlite3.Connection, facts: StreamFacts, change: StreamChange, producer: str | None) -> None:
    if change.stream is None:
        if facts.stream is not None:
            _remove(connection, facts.stream.id)
        return
    id = _put(connection, change.stream)
    if change.data:
        end = change.stream.tail
        facts_of_it = (id, end, change.data, stream_checksum(id, end, change.data))
        connection.execute("INSERT INTO stream_entries VALUES (?, ?, ?, ?)", facts_of_it)
    if producer is not None and change.producer is not None:
        place = (id, producer, *change.producer)
        connection.execute("INSERT OR REPLACE INTO stream_producers VALUES (?, ?, ?, ?)", place)


def _put(connection: sqlite3.Connection, stream: Stream) -> int:
    """Store *stream*; return its id."""
    values = _values(stream)
    if stream.id:
        statement = f"UPDATE streams SET ({_COLUMNS}, due_at) = ({', '.join('?' * len(values))}) WHERE id = ?"
        connection.execute(statement, (*values, stream.id))
        return stream.id
    marks = ", ".join("?" * len(values))
    found = connection.execute(f"INSERT INTO streams ({_COLUMNS}, due_at) VALUES ({marks}) RETURNING id", values)
    return int(found.fetchone()[0])


def _sweep(connection: sqlite3.Connection, now: Millis) -> None:
    for (id,) in connection.execute("SELECT id FROM streams WHERE due_at <= ?", (now,)).fetchall():
        _remove(connection, id)


def _remove(connection: sqlite3.Connection, id: int) -> None:
    """Remove a stream, and all that was kept for it only; one that has forks is kept for them."""
    stream = _by_id(connection, id)
    while connection.execute("SELECT 1 FROM streams WHERE source = ?", (stream.id,)).fetchone() is None:
        for table, column in (("stream_entries", "stream"), ("stream_producers", "stream"), ("streams", "id")):
            changed(connection, f"DELETE FROM {table} WHERE {column} = ?", (stream.id,))
        if stream.source is None:
            return
        stream = _by_id(connection, stream.source)
        if not stream.gone:
            return
    if not stream.gone:
        _put(connection, replace(stream, gone=True))


def _following(connection: sqlite3.Connection, stream: Stream, after: int) -> Iterator[StreamEntry]:
    for id, limit in _parts(connection, stream, after):
        rows = connection.execute(
            "SELECT end_at, data, checksum FROM stream_entries WHERE stream = ? AND end_at > ? ORDER BY end_at",
            (id, after),
        )
        for end, data, expected in rows:
            start = end - len(data)
            if start >= limit:
                break
            yield stream_entry(stream, id, end, data, expected, limit)


def _parts(connection: sqlite3.Connection, stream: Stream, after: int) -> list[tuple[int, int]]:
    """Return the streams that hold what follows *after*, with where each of them ends in this one."""
    parts = [(stream.id, stream.tail)]
    at, limit = stream, stream.tail
    while at.source is not None and after < (limit := min(limit, at.forked_at)):
        parts.append((at.source, limit))
        at = _by_id(connection, at.source)
    return parts[::-1]
