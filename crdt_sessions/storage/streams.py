"""Durable streams: the values that a store keeps of them, and what it promises.

A stream is a log of bytes at a path of a tenant. The store knows nothing of the protocol: what a request does to a
stream is decided by a function that it is given, and that it calls with what it has inside one transaction. So a
decision is made on what is stored, and is stored with what it decided on, whoever else writes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from crdt_sessions.errors import DamagedLog
from crdt_sessions.ids import Millis, Seq, SessionId


class Batch(NamedTuple):
    """What a producer sends at once."""

    producer: str
    epoch: int
    seq: int


class Producer(NamedTuple):
    """How far a producer has come in a stream."""

    epoch: int
    seq: int
    """The highest that was accepted."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream without its bytes."""

    tenant: str
    path: str
    content_type: str
    owner: str
    """The principal that made it."""
    created_at: Millis
    touched_at: Millis
    """When it was last read or written, as far as that counts for *ttl_s*."""
    ttl_s: int | None = None
    """It goes after so many seconds in which nobody uses it."""
    expires_at: Millis | None = None
    """It goes at this time."""
    tail: int = 0
    """How many bytes it has, those it has from its source included."""
    closed: bool = False
    closed_by: Batch | None = None
    last_seq: str | None = None
    """The last word of writers that count by themselves."""
    source: int | None = None
    """The id of the stream that it is a fork of."""
    forked_at: int = 0
    """So many bytes are its source's."""
    gone: bool = False
    """Whether it is kept for its forks only."""
    state: str | None = None
    """What the protocol keeps at a path that is no log, as JSON: a subscription, a key. None for a stream."""
    id: int = 0
    """Given by the store; 0 for one that is not stored yet."""

    @property
    def due_at(self) -> Millis | None:
        """When it goes; None for never."""
        if self.ttl_s is not None:
            return Millis(self.touched_at + self.ttl_s * 1000)
        return self.expires_at

    def has_ended(self, now: Millis) -> bool:
        """Whether its time has come by *now*; one that is kept for its forks has none."""
        return not self.gone and self.due_at is not None and self.due_at <= now


class StreamEnd(NamedTuple):
    """What readers of a stream wait to see changed."""

    id: int
    tail: int
    closed: bool


class StreamFacts(NamedTuple):
    """What a decision is made on."""

    stream: Stream | None
    """What is at the path."""
    source: Stream | None = None
    """What is at the path of the source, if one was asked for."""
    producer: Producer | None = None
    """How far the producer has come that was asked for."""


class StreamChange(NamedTuple):
    """What was decided."""

    stream: Stream | None
    """How it is afterwards; None if it goes. Its tail counts *data* already."""
    data: bytes = b""
    """What is appended."""
    producer: Producer | None = None
    """How far the producer has come that was asked for."""


class StreamEntry(NamedTuple):
    """Bytes that were appended at once."""

    start: int
    data: bytes

    @property
    def end(self) -> int:
        """Where the next one starts."""
        return self.start + len(self.data)


def stream_checksum(id: int, end: int, data: bytes) -> int:
    """Return the CRC-32 over an entry's place and bytes."""
    return zlib.crc32(data, zlib.crc32(f"stream {id}/{end}".encode()))


def stream_entry(stream: Stream, id: int, end: int, data: bytes, expected: int, limit: int) -> StreamEntry:
    """Return an entry as it is read in a stream.

    Args:
        stream: which is read.
        id: the stream that the entry was appended to, this one or one that it is a fork of.
        end: where it ends there.
        data: its bytes.
        expected: its checksum.
        limit: where that stream ends in this one.

    Raises:
        DamagedLog: it does not match its checksum.
    """
    if stream_checksum(id, end, data) != expected:
        raise DamagedLog(session=SessionId(stream.path), seq=Seq(end), why="does not match its checksum")
    start = end - len(data)
    return StreamEntry(start, data[: limit - start])


def first_entries(entries: Iterable[StreamEntry], most: int) -> list[StreamEntry]:
    """Return the first of *entries*, with *most* bytes at the most, but one if there is one."""
    found: list[StreamEntry] = []
    size = 0
    for entry in entries:
        if found and size + len(entry.data) > most:
            break
        found.append(entry)
        size += len(entry.data)
    return found


Decide = Callable[[StreamFacts], StreamChange | None]
"""Decides; None leaves everything as it is, and an error does, too. It may be called more than once."""


class StreamStore(Protocol):
    """Durable streams.

    A stream whose time has come by *now* is removed, as if somebody did. One that is removed while there are forks of
    it stays, with :attr:`Stream.gone`, until the last of them is removed.
    """

    async def stream(self, tenant: str, path: str, *, now: Millis) -> Stream | None:
        """Return the stream of *tenant* at *path*, or None."""
        ...

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
        """Do to the stream at a path what *decide* says; return once that, and what it was decided on, is durable.

        Args:
            tenant: whose stream it is.
            path: where it is, or is to be.
            decide: decides; it is called with the facts, and what it raises is raised.
            now: the time.
            source: the path of another stream of the tenant that is among the facts.
            producer: the id of a producer that is among the facts.
        """
        ...

    async def stream_entries(self, stream: Stream, after: int, *, most: int) -> Sequence[StreamEntry]:
        """Return the entries that hold what follows the first *after* bytes, in order.

        Those of its sources included, as far as they are its own. They have about *most* bytes, and there is one at
        least, unless the stream ends there.

        Raises:
            DamagedLog: an entry does not match its checksum.
        """
        ...

    async def stream_ends(self, places: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], StreamEnd]:
        """Return how far the streams at places of tenants are; those that are not there are left out.

        Only where other processes share the store: nobody else changes them in one that is not shared.
        """
        return {}

    async def streams(self, tenant: str, *, after: str = "", limit: int, now: Millis) -> Sequence[Stream]:
        """Return up to *limit* streams of *tenant* in order of path, after the path *after*; none that is gone."""
        ...

    async def streams_at(self, tenant: str, paths: Sequence[str], *, now: Millis) -> Sequence[Stream]:
        """Return the streams of *tenant* at these paths, in any order; none that is gone, or not there."""
        ...

    async def stream_states(self, *, after: int = 0, limit: int) -> Sequence[Stream]:
        """Return up to *limit* streams of all tenants that have a state, in order of id, after the id *after*."""
        ...

    async def count_streams(self, tenant: str) -> int:
        """Return how many streams are kept for a tenant, those that are gone included."""
        ...

    async def sweep_streams(self, now: Millis) -> None:
        """Remove the streams whose time has come by *now*."""
        ...

    async def disown_streams(self, tenant: str, owner: str) -> int:
        """Forget that *owner* made streams of *tenant*; they stay, and are nobody's. Return how many."""
        ...
