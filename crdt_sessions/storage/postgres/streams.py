"""Durable streams: the store's methods.

Several nodes may write to one stream, which nobody owns: each change is stored only if the stream is still as it was
when it was decided on, as its ``version`` says, and is decided anew otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

from crdt_sessions.errors import StoreUnavailable
from crdt_sessions.ids import Millis
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.errors import Again, Refused
from crdt_sessions.storage.postgres.lane import Lane
from crdt_sessions.storage.postgres.statements import NOTHING, fenced, missing
from crdt_sessions.storage.postgres.text import kept, read
from crdt_sessions.storage.streams import (
    Batch,
    Decide,
    Producer,
    Stream,
    StreamChange,
    StreamEnd,
    StreamEntry,
    StreamFacts,
    StreamStore,
    first_entries,
    stream_checksum,
    stream_entry,
)

_NAMES = tuple(each.name for each in fields(Stream))
_COLUMNS = ", ".join(_NAMES)
_ENDS = (
    "SELECT tenant, path, id, tail, closed FROM streams JOIN unnest($1::text[], $2::text[]) AS place (tenant, path)"
    " USING (tenant, path) WHERE NOT gone"
)
SELECT_STREAMS = f"SELECT {_COLUMNS}, version FROM streams"
"""Reads rows for :func:`stored_stream`."""
_MARKS = ", ".join(f"${4 + at}" for at in range(len(_NAMES) + 1))
_AFTER = 4 + len(_NAMES) + 1
_DATA = f"${_AFTER}::bytea, ${_AFTER + 1}::bigint"
_PRODUCER = f"${_AFTER + 2}::text, ${_AFTER + 3}::bigint, ${_AFTER + 4}::bigint"
_VERSION = f"${_AFTER + 5}::bigint"
_ID = f"${4 + _NAMES.index('id')}::bigint"
_TAIL = f"${4 + _NAMES.index('tail')}::bigint"
_SOURCE = f"${4 + _NAMES.index('source')}::bigint"
_BESIDE = {
    "entry": "INSERT INTO stream_entries (stream, end_at, data, checksum)"
    f" SELECT {_ID}, {_TAIL}, {_DATA} FROM put WHERE ${_AFTER}::bytea IS NOT NULL",
    "come": f"INSERT INTO stream_producers (stream, producer, epoch, seq) SELECT {_ID}, {_PRODUCER} FROM put"
    f" WHERE ${_AFTER + 2}::text IS NOT NULL"
    " ON CONFLICT (stream, producer) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq",
}
_CHANGE = fenced(
    "put",
    put=f"UPDATE streams SET ({_COLUMNS}, due_at) = ROW({_MARKS}), version = version + 1"
    f" WHERE id = {_ID} AND version = {_VERSION}",
    **_BESIDE,
)
_MAKE = fenced(
    "put",
    put=f"INSERT INTO streams ({_COLUMNS}, due_at, version) SELECT {_MARKS}, 0"
    f" WHERE {_VERSION} IS NULL ON CONFLICT DO NOTHING",
    **_BESIDE,
)
_FORK = fenced(
    "put",
    held=f"UPDATE streams SET version = version + 1 WHERE id = {_SOURCE} AND version = {_VERSION}",
    put=f"INSERT INTO streams ({_COLUMNS}, due_at, version) SELECT {_MARKS}, 0 FROM held ON CONFLICT DO NOTHING",
    **_BESIDE,
)
_KEEP_FOR_FORKS = fenced(
    "put", put="UPDATE streams SET gone = true, due_at = NULL, version = version + 1 WHERE id = $4 AND version = $5"
)
_DISOWN = fenced(
    put="UPDATE streams SET owner = '', version = version + 1 WHERE tenant = $4 AND owner = $5 AND owner <> ''"
)
_REMOVE = fenced(
    "whole",
    put="DELETE FROM streams USING unnest($4::bigint[], $5::bigint[]) AS line (stream, seen)"
    " WHERE streams.id = line.stream AND streams.version = line.seen RETURNING 1",
    held="UPDATE streams SET version = version + 1 WHERE id = $6::bigint AND (NOT gone OR version = $7::bigint)",
    whole="SELECT 1 WHERE (SELECT count(*) FROM put) = cardinality($4::bigint[])"
    " AND (SELECT count(*) FROM held) = ($6::bigint IS NOT NULL)::int",
    entries="DELETE FROM stream_entries WHERE stream = ANY($4::bigint[])",
    come="DELETE FROM stream_producers WHERE stream = ANY($4::bigint[])",
)
"""Streams that were kept for each other only go in one commit: nobody would ask for a second one.

Who is left behind them has another version then: whoever removes that one, or another fork of it, decides anew.
"""
_CHANGED = "a stream has changed meanwhile"


class _Stored(NamedTuple):
    stream: Stream
    version: int


class PostgresStreams(OfDatabase, StreamStore):
    """A :class:`StreamStore` in a database."""

    async def stream(self, tenant: str, path: str, *, now: Millis) -> Stream | None:
        found = await self._stream(tenant, path)
        if found is None or not found.has_ended(now):
            return found
        await self.sweep_streams(now)
        return await self._stream(tenant, path)

    async def _stream(self, tenant: str, path: str) -> Stream | None:
        rows = await self._database.select(f"{SELECT_STREAMS} WHERE tenant = $1 AND path = $2", tenant, kept(path))
        return _stored(rows[0]).stream if rows else None

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
        async def job(lane: Lane) -> None:
            found = await _at(lane, tenant, path, now)
            origin = None if source is None else await _at(lane, tenant, source, now)
            facts = StreamFacts(
                found and found.stream,
                origin and origin.stream,
                None if found is None or producer is None else await _producer(lane, found.stream.id, producer),
            )
            change = decide(facts)
            if change is None:
                return
            if change.stream is not None:
                await _put(lane, change, found, producer)
            elif found is not None:
                await _remove(lane, found)

        await self._database.submit(job, path)

    async def stream_entries(self, stream: Stream, after: int, *, most: int) -> Sequence[StreamEntry]:
        async def read(connection: Connection) -> list[StreamEntry]:
            rows = await _following(connection, stream, after, most)
            return first_entries((stream_entry(stream, *row) for row in rows), most)

        return await self._database.view(read)

    async def stream_ends(self, places: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], StreamEnd]:
        columns = [tenant for tenant, _ in places], [kept(path) for _, path in places]
        found = await self._database.select(_ENDS, *columns)
        return {(tenant, read(path)): StreamEnd(*end) for tenant, path, *end in found}

    async def streams(self, tenant: str, *, after: str = "", limit: int, now: Millis) -> Sequence[Stream]:
        rows = await self._database.select(
            f"{SELECT_STREAMS} WHERE tenant = $1 AND path > $2 AND NOT gone AND (due_at IS NULL OR due_at > $3)"
            " ORDER BY path LIMIT $4",
            tenant, kept(after), now, limit,
        )  # fmt: skip
        return [_stored(row).stream for row in rows]

    async def streams_at(self, tenant: str, paths: Sequence[str], *, now: Millis) -> Sequence[Stream]:
        rows = await self._database.select(
            f"{SELECT_STREAMS} WHERE tenant = $1 AND path = ANY($2) AND NOT gone AND (due_at IS NULL OR due_at > $3)",
            tenant, [kept(path) for path in paths], now,
        )  # fmt: skip
        return [_stored(row).stream for row in rows]

    async def stream_states(self, *, after: int = 0, limit: int) -> Sequence[Stream]:
        rows = await self._database.select(
            f"{SELECT_STREAMS} WHERE state IS NOT NULL AND id > $1 ORDER BY id LIMIT $2", after, limit
        )
        return [_stored(row).stream for row in rows]

    async def count_streams(self, tenant: str) -> int:
        rows = await self._database.select("SELECT count(*) FROM streams WHERE tenant = $1", tenant)
        return int(rows[0][0])

    async def sweep_streams(self, now: Millis) -> None:
        async def job(lane: Lane) -> None:
            for (id,) in await lane.fetch("SELECT id FROM streams WHERE due_at <= $1", now):
                found = await _by_id(lane, id)  # those before it may have changed it
                while found is not None and found.stream.has_ended(now) and not await _removed(lane, found):
                    found = await _by_id(lane, id)

        await self._database.submit(job)

    async def disown_streams(self, tenant: str, owner: str) -> int:
        statement = "SELECT count(*) FROM streams WHERE tenant = $1 AND owner = $2"
        rows = await self._database.select(statement, tenant, owner)
        await self._database.submit(lambda lane: lane.write(_DISOWN, tenant, owner))
        return int(rows[0][0])


def _stored(row: Any) -> _Stored:
    *facts, version = tuple(row)
    found = dict(zip(_NAMES, facts, strict=True))
    by = found["closed_by"]
    batch = None if by is None else Batch(*json.loads(by))
    texts = {name: read(found[name]) for name in ("path", "last_seq")}
    return _Stored(Stream(**{**found, **texts, "closed_by": batch}), version)


def _values(stream: Stream) -> list[Any]:
    by = None if stream.closed_by is None else json.dumps(stream.closed_by)
    texts = {"path": kept(stream.path), "last_seq": kept(stream.last_seq), "closed_by": by}
    facts = [texts[name] if name in texts else getattr(stream, name) for name in _NAMES]
    return [*facts, None if stream.gone else stream.due_at]


def stored_stream(row: Any) -> Stream:
    """Return the stream that a row of :data:`SELECT_STREAMS` says."""
    return _stored(row).stream


async def _at(lane: Lane, tenant: str, path: str, now: Millis) -> _Stored | None:
    """Return what is at a path, without what is due."""
    rows = await lane.fetch(f"{SELECT_STREAMS} WHERE tenant = $1 AND path = $2", tenant, kept(path))
    found = _stored(rows[0]) if rows else None
    if found is None or not found.stream.has_ended(now):
        return found
    await _remove(lane, found)
    return await _at(lane, tenant, path, now)


async def _by_id(lane: Lane, id: int) -> _Stored | None:
    rows = await lane.fetch(f"{SELECT_STREAMS} WHERE id = $1", id)
    return _stored(rows[0]) if rows else None


async def _producer(lane: Lane, stream: int, producer: str) -> Producer | None:
    statement = "SELECT epoch, seq FROM stream_producers WHERE stream = $1 AND producer = $2"
    rows = await lane.fetch(statement, stream, kept(producer))
    return Producer(*rows[0]) if rows else None


async def _put(lane: Lane, change: StreamChange, found: _Stored | None, producer: str | None) -> None:
    """Store a change, if the stream and what it is a fork of are still as they were."""
    stream = change.stream
    assert stream is not None
    statement, version = _CHANGE, None if found is None else found.version
    if not stream.id:
        ((id,),) = await lane.fetch("SELECT nextval(pg_get_serial_sequence('streams', 'id'))")
        source = None if stream.source is None else await _by_id(lane, stream.source)
        if stream.source is not None and source is None:
            raise Again("the source of a fork has gone meanwhile")
        statement, version = (_MAKE, None) if source is None else (_FORK, source.version)
        stream = replace(stream, id=id)
    come: tuple[Any, ...] = (None, None, None)
    if producer is not None and change.producer is not None:
        come = (kept(producer), *change.producer)
    data = (change.data, stream_checksum(stream.id, stream.tail, change.data)) if change.data else (None, None)
    with missing(Again(_CHANGED)):
        await lane.write(statement, *_values(stream), *data, *come, version)


async def _remove(lane: Lane, found: _Stored) -> None:
    """Do what :func:`_removed` does, if the stream is still as it was found.

    Raises:
        Again: it is not.
    """
    if not await _removed(lane, found):
        raise Again(_CHANGED)


async def _removed(lane: Lane, found: _Stored) -> bool:
    """Remove a stream, and all that was kept for it only; one that has forks is kept for them.

    Tell whether that was done: nothing is, if one of them is not as it was found any more.
    """
    try:
        if await _forks(lane, found):
            await lane.write(_KEEP_FOR_FORKS, found.stream.id, found.version)
        else:
            await _remove_line(lane, found)
    except Refused as refused:
        if refused.why != NOTHING:
            raise
        return False
    return True


async def _remove_line(lane: Lane, found: _Stored) -> None:
    line, left = [found], await _source(lane, found)
    while left is not None and left.stream.gone and await _forks(lane, left) == 1:
        line.append(left)
        left = await _source(lane, left)
    of_left = (None, None) if left is None else (left.stream.id, left.version)
    await lane.write(_REMOVE, [each.stream.id for each in line], [each.version for each in line], *of_left)


async def _source(lane: Lane, fork: _Stored) -> _Stored | None:
    return None if fork.stream.source is None else await _by_id(lane, fork.stream.source)


async def _forks(lane: Lane, found: _Stored) -> int:
    """Return how many forks a stream has; of several, two are counted."""
    return len(await lane.fetch("SELECT FROM streams WHERE source = $1 LIMIT 2", found.stream.id))


async def _following(
    connection: Connection, stream: Stream, after: int, most: int
) -> list[tuple[int, int, bytes, int, int]]:
    """Return what :func:`stream_entry` takes, of the *most* bytes after a place, and of one entry at least."""
    found: list[tuple[int, int, bytes, int, int]] = []
    for id, limit in await _parts(connection, stream, after):
        rows = await connection.fetch(
            "SELECT end_at, data, checksum FROM stream_entries"
            " WHERE stream = $1 AND end_at > $2 AND end_at - length(data) < $3 AND end_at <= greatest("
            "$4, (SELECT min(end_at) FROM stream_entries WHERE stream = $1 AND end_at > $2)) ORDER BY end_at",
            id, after, limit, after + most,
        )  # fmt: skip
        found += ((id, *row, limit) for row in rows)
    return found


async def _parts(connection: Connection, stream: Stream, after: int) -> list[tuple[int, int]]:
    """Return the streams that hold what follows *after*, with where each of them ends in this one."""
    parts = [(stream.id, stream.tail)]
    at, limit = stream, stream.tail
    while at.source is not None and after < (limit := min(limit, at.forked_at)):
        parts.append((at.source, limit))
        row = await connection.fetchrow(f"{SELECT_STREAMS} WHERE id = $1", at.source)
        if row is None:
            raise StoreUnavailable(f"what the stream {stream.path!r} is a fork of has gone meanwhile")
        at = _stored(row).stream
    return parts[::-1]
