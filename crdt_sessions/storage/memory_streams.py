"""Durable streams in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from crdt_sessions.ids import Millis
from crdt_sessions.storage.streams import (
    Decide,
    Producer,
    Stream,
    StreamChange,
    StreamEntry,
    StreamFacts,
    StreamStore,
    first_entries,
)


@dataclass(slots=True)
class _Kept:
    stream: Stream
    entries: list[StreamEntry] = field(default_factory=list)
    producers: dict[str, Producer] = field(default_factory=dict)


class MemoryStreams(StreamStore):
    """A :class:`StreamStore` that forgets everything when it goes."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, _Kept] = {}
        self._last_stream = 0

    async def stream(self, tenant: str, path: str, *, now: Millis) -> Stream | None:
        await self.sweep_streams(now)
        return self._at(tenant, path)

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
        await self.sweep_streams(now)
        found = self._at(tenant, path)
        known = self._kept[found.id].producers if found is not None else {}
        facts = StreamFacts(
            found,
            None if source is None else self._at(tenant, source),
            None if producer is None else known.get(producer),
        )
        change = decide(facts)
        if change is not None:
            self._apply(facts, change, producer)

    def _apply(self, facts: StreamFacts, change: StreamChange, producer: str | None) -> None:
        if change.stream is None:
            if facts.stream is not None:
                self._remove(facts.stream.id)
            return
        stream = change.stream
        if not stream.id:
            self._last_stream += 1
            stream = replace(stream, id=self._last_stream)
            self._kept[stream.id] = _Kept(stream)
        kept = self._kept[stream.id]
        kept.stream = stream
        if change.data:
            kept.entries.append(StreamEntry(stream.tail - len(change.data), change.data))
        if producer is not None and change.producer is not None:
            kept.producers[producer] = change.producer

    async def stream_entries(self, stream: Stream, after: int, *, most: int) -> Sequence[StreamEntry]:
        return first_entries((entry for entry in self._all(stream.id, stream.tail) if entry.end > after), most)

    async def streams(self, tenant: str, *, after: str = "", limit: int, now: Millis) -> Sequence[Stream]:
        await self.sweep_streams(now)
        found = [each.stream for each in self._kept.values() if each.stream.tenant == tenant]
        there = [stream for stream in found if not stream.gone and stream.path > after]
        return sorted(there, key=lambda stream: stream.path)[:limit]

    async def streams_at(self, tenant: str, paths: Sequence[str], *, now: Millis) -> Sequence[Stream]:
        await self.sweep_streams(now)
        found = (self._at(tenant, path) for path in paths)
        return [stream for stream in found if stream is not None and not stream.gone]

    async def stream_states(self, *, after: int = 0, limit: int) -> Sequence[Stream]:
        found = (self._kept[id].stream for id in sorted(self._kept) if id > after)
        return [stream for stream in found if stream.state is not None][:limit]

    async def count_streams(self, tenant: str) -> int:
        return sum(each.stream.tenant == tenant for each in self._kept.values())

    async def sweep_streams(self, now: Millis) -> None:
        for id in [id for id, each in self._kept.items() if each.stream.has_ended(now)]:
            self._remove(id)

    async def disown_streams(self, tenant: str, owner: str) -> int:
        owned = [each for each in self._kept.values() if (each.stream.tenant, each.stream.owner) == (tenant, owner)]
        for kept in owned:
            kept.stream = replace(kept.stream, owner="")
        return len(owned)

    def _at(self, tenant: str, path: str) -> Stream | None:
        found = (each.stream for each in self._kept.values())
        return next((stream for stream in found if (stream.tenant, stream.path) == (tenant, path)), None)

    def _remove(self, id: int) -> None:
        kept = self._kept[id]
        while not self._has_forks(kept.stream.id):
            del self._kept[kept.stream.id]
            if kept.stream.source is None:
                return
            kept = self._kept[kept.stream.source]
            if not kept.stream.gone:
                return
        kept.stream = replace(kept.stream, gone=True)

    def _has_forks(self, id: int) -> bool:
        return any(each.stream.source == id for each in self._kept.values())

    def _all(self, id: int, end: int) -> list[StreamEntry]:
        """Return the first *end* bytes of a stream, its sources' included, as entries."""
        parts: list[list[StreamEntry]] = []
        at: int | None = id
        while at is not None:
            kept = self._kept[at]
            parts.append([StreamEntry(start, data[: end - start]) for start, data in kept.entries if start < end])
            at, end = kept.stream.source, min(end, kept.stream.forked_at)
        return [entry for part in reversed(parts) for entry in part]
