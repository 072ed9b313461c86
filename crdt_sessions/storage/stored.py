"""What stores keep of a session: its record, its rows, and what goes on record with them. Bytes, ids and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage.deliveries import Delivery
from crdt_sessions.storage.runs import RunEntry
from crdt_sessions.storage.usage import Amounts, UsageKey


class Row(NamedTuple):
    """One stored update."""

    seq: Seq
    update: bytes
    waits: bool = False
    """Whether it is kept as it came, since something of it waits for an update that has not arrived."""


@dataclass(frozen=True, slots=True)
class Version:
    """A state of a session that can be read again: a snapshot that was kept."""

    seq: Seq
    """The last row that is in it."""
    at: Millis
    """When that row was stored."""
    size: int
    """Bytes."""
    name: str | None = None
    """Given by somebody; a version with a name is kept until the session is deleted."""


@dataclass(frozen=True, slots=True)
class History:
    """What can be read of a session's past."""

    versions: Sequence[Version]
    """The snapshots that were kept, oldest first."""
    first: Seq
    last: Seq
    """Every state from *first* to *last* can be read too: their rows were not folded yet."""
    times: Sequence[Millis] = ()
    """When the states from *first* to *last* were stored."""


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What the store knows of a session without reading its updates."""

    id: SessionId
    generation: int
    """1 for the first session of that name, one more each time it is created anew after a deletion."""
    created_at: Millis
    updated_at: Millis
    status: str
    title: str | None
    lineage: str
    """Names this creation of it: another one has another, of the same name or generation, and on another service."""


@dataclass(frozen=True, slots=True)
class WriterEntry:
    """A Yjs client that wrote for a run."""

    client: int
    principal: str
    run: str
    epoch: int
    fenced_at: int | None


@dataclass(frozen=True, slots=True)
class Entries:
    """What goes on record together with rows: all of it or nothing."""

    runs: Sequence[RunEntry] = ()
    writers: Sequence[WriterEntry] = ()
    deliveries: Sequence[Delivery] = ()
    usage: Mapping[UsageKey, Amounts] = field(default_factory=dict)
    """To be added to what the session has used."""


NO_ENTRIES = Entries()


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session's record and everything stored of it."""

    record: SessionRecord
    rows: Sequence[Row]
    """In order; the first is the snapshot if there is one. Never empty."""
    runs: Sequence[RunEntry] = ()
    writers: Sequence[WriterEntry] = ()

    @property
    def last_seq(self) -> Seq:
        """The number of the last row."""
        return self.rows[-1].seq
