"""What ``crdt-sessions doctor`` says of durable streams, and what it saves of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from crdt_sessions.ids import Millis
from crdt_sessions.storage import StreamChange, StreamStore
from crdt_sessions.storage.inspected import InspectedStream

_BEGINNING = Millis(0)
"""The time at which streams are saved: the time of none has come then."""


def is_whole(found: InspectedStream, say: Callable[[str], None]) -> bool:
    """Print what a stream has, and what is wrong with it; return whether nothing is."""
    say(_line(found))
    for problem in found.problems:
        say(f"    {problem}")
    return not found.problems


async def copy_all(streams: Iterable[InspectedStream], store: StreamStore, say: Callable[[str], None]) -> None:
    """Copy what can be read of *streams* into a new store, each after the one that it is a fork of."""
    saved: dict[int, tuple[int, int]] = {}
    """Stream there to stream here, and up to where it can be read."""
    for found in streams:
        source = found.stream.source
        if source is not None and (source not in saved or saved[source][1] < found.stream.forked_at):
            say(f"{_line(found)}\n    not saved: what it is a fork of is damaged before that place")
            continue
        saved[found.stream.id] = await _copy(found, None if source is None else saved[source][0], store), found.end
        for problem in found.problems:
            say(f"{_line(found)}\n    saved without: {problem}")


async def _copy(found: InspectedStream, source: int | None, store: StreamStore) -> int:
    """Copy a stream; return its id there."""
    tenant, path = found.stream.tenant, found.stream.path
    stream = replace(found.stream, id=0, source=source, tail=found.stream.forked_at)

    async def put(change: StreamChange, producer: str | None = None) -> int:
        await store.alter_stream(tenant, path, lambda _: change, now=_BEGINNING, producer=producer)
        put = await store.stream(tenant, path, now=_BEGINNING)
        assert put is not None
        return put.id

    stream = replace(stream, id=await put(StreamChange(stream)))
    for entry in found.entries:
        stream = replace(stream, tail=entry.end)
        await put(StreamChange(stream, entry.data))
    for name, producer in found.producers:
        await put(StreamChange(stream, producer=producer), name)
    return stream.id


def _line(found: InspectedStream) -> str:
    stream = found.stream
    kept = ", kept for its forks" if stream.gone else ""
    return f"  stream {stream.path}: {len(found.entries)} entries, {stream.tail} bytes{kept}"
