"""Durable streams of a process: decisions, the store, and readers that wait for what comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crdt_sessions.clock import Clock
from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import BadStreamRequest, ShuttingDown, StorageError, TooMany
from crdt_sessions.limits import Limits
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.signals import Signal
from crdt_sessions.storage import Stream, StreamChange, StreamEnd, StreamEntry, StreamFacts, StreamStore
from crdt_sessions.streams import changes
from crdt_sessions.streams.changes import Append, Appended, Creation
from crdt_sessions.streams.framing import is_json, media_type, sub_offset
from crdt_sessions.streams.offsets import spelled

CHUNK_BYTES = 1024 * 1024
"""A read returns so many bytes at the most, or one append that is larger."""
_LOOK_EVERY_S = 0.2
"""How soon a reader hears of what another process wrote."""
_TENANTS_KNOWN = 10_000
_NEWEST_KNOWN = 1_000
"""Streams of which the last append is kept for those who wait for it."""
_NEWEST_BYTES = 16 * 1024
"""Larger ones are read from the store."""
_PAGE = 500
_Place = tuple[str, str]
"""Of a stream: its tenant, and its path."""
_log = logging.getLogger("crdt_sessions.streams")


@dataclass(frozen=True, slots=True)
class Piece:
    """What a read found.

    Args:
        data: a piece of the log.
        start: where it begins.
        stream: as it was then; its tail is not before the end of the piece.
        held: so many bytes that follow are no whole character yet; they come with the rest of it.
    """

    data: bytes
    start: int
    stream: Stream
    held: int = 0

    @property
    def end(self) -> int:
        """Where to go on."""
        return self.start + len(self.data)

    @property
    def seen(self) -> int:
        """Nothing is to be told before something follows that."""
        return self.end + self.held

    @property
    def up_to_date(self) -> bool:
        """Whether it has all that can be told of the stream."""
        return self.seen >= self.stream.tail

    @property
    def last(self) -> bool:
        """Whether nothing will ever follow."""
        return self.stream.closed and self.up_to_date


@dataclass(frozen=True, slots=True)
class _Newest:
    """A stream as its last append left it, and that append: all who wait for it need not ask the store."""

    stream: Stream
    entry: StreamEntry


class Streams:
    """The durable streams of a process.

    Args:
        store: where they are kept.
        clock: the only source of time.
        limits: sizes.
        shared: whether other processes write to that store.
    """

    def __init__(self, store: StreamStore, clock: Clock, limits: Limits, *, shared: bool = False) -> None:
        self._store = store
        self._shared = shared
        self._clock = clock
        self._limits = limits
        self._waiting: dict[_Place, tuple[Signal, int]] = {}  # and how many wait
        self._counts: Recent[str, int] = Recent(_TENANTS_KNOWN)
        self._newest: Recent[_Place, _Newest] = Recent(_NEWEST_KNOWN)
        self._stopping = False
        self.on_change: Callable[[str, str], None] = lambda tenant, path: None
        """Told of each change of a stream by this process: whose it is, and where."""

    def stop(self) -> None:
        """End all waiting: the process is about to stop."""
        self._stopping = True
        for signal, _ in self._waiting.values():
            signal.notify_all()

    # -- writing -------------------------------------------------------------------------------------------------

    async def create(self, wanted: Creation) -> tuple[Stream, bool]:
        """Make a stream; return it once it is durable, and whether it is new.

        Raises:
            StreamError, TooLarge: that cannot be.
            TooMany: the tenant has as many as it may have.
        """
        await self._check_room(wanted.tenant)
        now = self._clock.now()
        made: list[tuple[Stream, bool]] = []

        def decide(facts: StreamFacts) -> StreamChange | None:
            stream, change = changes.create(facts, wanted, now, most=self._limits.max_stream_bytes)
            made.append((stream, change is not None))
            return change

        async def write() -> None:
            await self._store.alter_stream(wanted.tenant, wanted.path, decide, now=now, source=wanted.source)
            if made[-1][1]:
                self._counts[wanted.tenant] = self._counts.get(wanted.tenant, 0) + 1
                self._newest.pop((wanted.tenant, wanted.path), None)
                self._wake(wanted.tenant, wanted.path)

        await to_the_end(write())
        return made[-1]

    async def append(self, tenant: str, path: str, wanted: Append) -> Appended:
        """Append to a stream, or close it; return what became of it once that is durable.

        Raises:
            StreamError, TooLarge: it cannot be.
        """
        now = self._clock.now()
        done: list[tuple[Appended, bytes]] = []

        def decide(facts: StreamFacts) -> StreamChange | None:
            appended, change = changes.append(facts, path, wanted, now, most=self._limits.max_stream_bytes)
            done.append((appended, change.data if change is not None else b""))
            return change

        producer = None if wanted.batch is None else wanted.batch.producer

        async def write() -> Appended:
            await self._store.alter_stream(tenant, path, decide, now=now, producer=producer)
            appended, data = done[-1]
            if not appended.repeated:
                self._keep(appended.stream, data)
                self._wake(tenant, path)
            return appended

        return await to_the_end(write())

    async def delete(self, tenant: str, path: str) -> None:
        """Delete a stream.

        Raises:
            StreamNotFound, StreamGone: there is none, or none any more.
        """
        now = self._clock.now()

        async def write() -> None:
            await self._store.alter_stream(tenant, path, lambda facts: changes.delete(facts, path), now=now)
            self._counts.pop(tenant, None)
            self._newest.pop((tenant, path), None)
            self._wake(tenant, path)

        await to_the_end(write())

    async def sweep(self) -> None:
        """Remove the streams whose time has come; those that nobody asks for would stay for ever."""
        await self._store.sweep_streams(self._clock.now())

    async def owned(self, tenant: str, owner: str) -> AsyncIterator[Stream]:
        """Yield the streams that somebody made, in order of path."""
        after = ""
        while page := await self._store.streams(tenant, after=after, limit=_PAGE, now=self._clock.now()):
            for stream in page:
                if stream.owner == owner:
                    yield stream
            after = page[-1].path

    async def disown(self, tenant: str, owner: str) -> int:
        """Forget who made streams; return how many that were."""
        return await self._store.disown_streams(tenant, owner)

    async def _check_room(self, tenant: str) -> None:
        most = self._limits.max_streams_per_tenant
        if self._counts.get(tenant, most) >= most:  # it is not known, or some may have gone since
            self._counts.remember(tenant, await self._store.count_streams(tenant))
        if self._counts[tenant] >= most:
            raise TooMany(what="durable streams of a tenant", limit=most)

    # -- reading -------------------------------------------------------------------------------------------------

    async def find(self, tenant: str, path: str) -> Stream:
        """Return a stream.

        Raises:
            StreamNotFound, StreamGone: there is none, or none any more.
        """
        return changes.existing(await self._store.stream(tenant, path, now=self._clock.now()), path)

    async def used(self, stream: Stream) -> None:
        """Note that a stream is read: those with a time to live, live as long again."""
        now = self._clock.now()
        if changes.needs_touch(stream, now):
            await self._store.alter_stream(
                stream.tenant, stream.path, lambda facts: changes.touch(facts, now), now=now
            )

    async def read(self, stream: Stream, position: int) -> Piece:
        """Return what follows *position* in a stream; of text, whole characters.

        Raises:
            BadStreamRequest: it is no place of the stream.
        """
        if position > stream.tail:
            raise BadStreamRequest(why=f"the offset is beyond {spelled(stream.tail)}, where the stream ends")
        data = await self._following(stream, position)
        if not media_type(stream.content_type).startswith("text/"):
            return Piece(data, position, stream)
        whole = _whole_characters(data)
        while data and not whole and position + len(data) < stream.tail:  # the rest is in another append
            data += await self._following(stream, position + len(data))
            whole = _whole_characters(data)
        piece = Piece(data, position, stream)
        return piece if piece.last else Piece(whole, position, stream, held=len(data) - len(whole))

    async def _following(self, stream: Stream, position: int) -> bytes:
        newest = self._newest.get((stream.tenant, stream.path))
        if newest is not None and newest.stream.id == stream.id and newest.entry.start == position:
            entries: Sequence[StreamEntry] = [newest.entry]
        else:
            entries = await self._store.stream_entries(stream, position, most=CHUNK_BYTES)
        data = b"".join(entry.data for entry in entries)
        if entries and entries[0].start < position:
            if is_json(stream.content_type):
                raise BadStreamRequest(why="the offset lies within what was appended at once")
            data = data[position - entries[0].start :]
        return data

    async def wait(self, stream: Stream, position: int, seconds: float) -> Stream:
        """Return the stream once something follows *position*, or it is closed, or after *seconds*.

        Raises:
            StreamNotFound, StreamGone: it went meanwhile.
            ShuttingDown: the process is about to stop.
        """
        key, until = (stream.tenant, stream.path), asyncio.get_running_loop().time() + seconds
        with self._watching(key) as changed:
            found = await self._as_it_is(key)  # not before one is told of changes
            while found.tail <= position and not found.closed and not self._stopping:
                try:
                    async with asyncio.timeout_at(until):
                        await changed()
                except TimeoutError:
                    break
                found = await self._as_it_is(key)
        if self._stopping:
            raise ShuttingDown
        return found

    async def _as_it_is(self, key: _Place) -> Stream:
        newest = self._newest.get(key)
        return await self.find(*key) if newest is None else newest.stream

    def _keep(self, stream: Stream, data: bytes) -> None:
        """Keep what was appended last, unless the stream may change without a word to this."""
        key, lasting = (stream.tenant, stream.path), stream.ttl_s is None and stream.expires_at is None
        if self._shared or not lasting or len(data) > _NEWEST_BYTES:
            self._newest.pop(key, None)
        else:
            self._newest.remember(key, _Newest(stream, StreamEntry(stream.tail - len(data), data)))

    async def follow(self) -> None:
        """Look, until cancelled, whether other processes change the streams that are waited for here."""
        known: Mapping[_Place, StreamEnd] = {}
        while True:
            await self._clock.sleep(_LOOK_EVERY_S)
            watched = [*self._waiting]
            try:
                found = await self._store.stream_ends(watched) if watched else {}
            except StorageError as error:
                _log.error("what others write to durable streams is not seen: %s", error)
                continue
            for place in watched:
                if place not in known or found.get(place) != known[place]:  # whoever is woken looks for themselves
                    self._wake(*place)
            known = found

    @contextlib.contextmanager
    def _watching(self, key: _Place) -> Iterator[Callable[[], Awaitable[None]]]:
        """Return a context with what waits for the next change of a stream within it."""
        signal, readers = self._waiting.get(key, (Signal(), 0))
        self._waiting[key] = (signal, readers + 1)
        seen = signal.count

        async def changed() -> None:
            nonlocal seen
            await signal.wait_for(lambda: self._stopping or signal.count != seen)
            seen = signal.count

        try:
            yield changed
        finally:
            _, readers = self._waiting.pop(key)
            if readers > 1:
                self._waiting[key] = (signal, readers - 1)

    async def fork_place(self, tenant: str, path: str, position: int | None, sub: int) -> int | None:
        """Return after how many bytes a stream is to be forked: *position*, and *sub* messages or bytes further on.

        Raises:
            StreamNotFound: there is no such stream.
            BadStreamRequest: it has no such place.
        """
        source = await self._store.stream(tenant, path, now=self._clock.now())
        if source is None or source.gone or (position is None and not sub):
            return position  # who makes the fork says so
        start = source.tail if position is None else position
        if start > source.tail:
            return start
        entries = await self._store.stream_entries(source, start, most=1)
        return start + _within(source, entries[0] if entries else StreamEntry(start, b""), start, sub)

    def _wake(self, tenant: str, path: str) -> None:
        self.on_change(tenant, path)
        if (tenant, path) in self._waiting:
            self._waiting[tenant, path][0].notify_all()


def _within(source: Stream, entry: StreamEntry, start: int, sub: int) -> int:
    if is_json(source.content_type) and entry.start < start:
        raise BadStreamRequest(why="Stream-Fork-Offset lies within what was appended at once")
    return sub_offset(source.content_type, entry.data[start - entry.start :], sub)


def _whole_characters(data: bytes) -> bytes:
    """Return UTF-8 without the beginning of a character at its end."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0b1100_0000:
            needs = 2 if byte < 0b1110_0000 else 3 if byte < 0b1111_0000 else 4
            return data[:-back] if needs > back else data
        if byte < 0b1000_0000:
            return data
    return data
