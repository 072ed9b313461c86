"""What was found where a database was looked at that may be damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from crdt_sessions.errors import DamagedLog
from crdt_sessions.storage.stored import Entries, Row, SessionRecord, Version
from crdt_sessions.storage.streams import Producer, Stream, StreamEntry, stream_entry

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Inspected:
    """What was found of one session."""

    record: SessionRecord
    deleted: bool
    rows: tuple[Row, ...]
    """The rows that match their checksums, in order; the newest snapshot that does is the first."""
    versions: tuple[tuple[Version, Row], ...]
    """The versions that were kept and match their checksums, oldest first."""
    problems: tuple[str, ...]
    """What is wrong, for people; empty if nothing is."""
    entries: Entries
    """Runs and writers on record."""


@dataclass(frozen=True, slots=True)
class InspectedStream:
    """What was found of one durable stream."""

    stream: Stream
    entries: tuple[StreamEntry, ...]
    """Its own ones from the first on, as far as each follows the one before and matches its checksum."""
    producers: tuple[tuple[str, Producer], ...]
    problems: tuple[str, ...]
    """What is wrong, for people; empty if nothing is."""

    @property
    def end(self) -> int:
        """Up to where it can be read."""
        return self.entries[-1].end if self.entries else self.stream.forked_at


def following(stream: Stream, rows: Iterable[tuple[int, bytes, int]]) -> Iterator[StreamEntry]:
    """Yield the entries of a stream up to the first that is missing or damaged.

    Args:
        stream: which it is.
        rows: where each of its own entries ends, its bytes and its checksum, in order.
    """
    end = stream.forked_at
    for end_at, data, expected in rows:
        try:
            entry = stream_entry(stream, stream.id, end_at, data, expected, end_at)
        except DamagedLog:
            return
        if entry.start != end:
            return
        yield entry
        end = entry.end


def short_of(found: InspectedStream) -> list[str]:
    """Return what a stream lacks at its end, for people; nothing if it has all."""
    if found.end == found.stream.tail:
        return []
    return [f"it can be read up to byte {found.end} of {found.stream.tail}: what follows is missing or damaged"]


def gaps(rows: Sequence[Row], last_seq: int) -> list[str]:
    """Return which rows are missing up to *last_seq*, for people."""
    if not rows:
        return [f"all rows up to {last_seq} are missing"]
    expected = [*range(rows[0].seq, last_seq + 1)]
    missing = sorted(set(expected) - {row.seq for row in rows})
    problems = [f"row {seq} is missing" for seq in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        problems.append(f"and {len(missing) - _SHOWN} more")
    return problems
