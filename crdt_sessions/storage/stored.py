"""The values that stores take and return: rows, records and entries. Bytes, ids and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from crdt_sessions.ids import Millis, Seq, SessionId

_AT_ONCE = Millis(0)


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
class RunEntry:
    """What the store knows of a run: enough to find it, and the rest as opaque text."""

    id: str
    agent: str
    ready: bool
    """Whether it may be claimed."""
    queued_at: Millis
    due_at: Millis | None
    """When its session must be looked at, even if nothing happens there."""
    data: str
    status: str = ""
    answerer: str = ""
    """The agent it is for, or that works on it or did where it may be anybody."""


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run that was looked for across sessions."""

    session: SessionId
    asked_at: Millis
    """When it was put on record first."""
    run: RunEntry


@dataclass(frozen=True, slots=True)
class WriterEntry:
    """A Yjs client that wrote for a run."""

    client: int
    principal: str
    run: str
    epoch: int
    fenced_at: int | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to somebody outside, to be delivered at least once."""

    id: str
    endpoint: str
    session: SessionId
    kind: str
    body: str
    created_at: Millis
    attempts: int = 0
    next_at: Millis = _AT_ONCE
    error: str | None = None
    """Why the last attempt failed."""
    dead: bool = False
    """Whether nobody tries any more."""


class UsageKey(NamedTuple):
    """What usage is added up by."""

    principal: str
    """For whom runs worked; empty where nobody is known."""
    day: int
    """Days since the Unix epoch, UTC."""
    model: str
    """Empty where nobody said."""
    currency: str
    """Of the cost; empty if there is none."""


class Amounts(NamedTuple):
    """What was used: numbers to be added up. What had been reported too high is taken back by negative ones."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    calls: int = 0
    cost: int = 0
    """In millionths of the currency."""

    def plus(self, more: Amounts) -> Amounts:
        """Return the sums."""
        return Amounts(*(one + other for one, other in zip(self, more, strict=True)))


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


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Somebody did something."""

    at: Millis
    tenant: str
    session: str
    """The session's name; empty if it was done to none."""
    principal: str
    action: str
    """Such as ``session.delete``."""
    detail: str = "{}"
    """JSON."""
    id: int = 0
    """Its place in the log, given by the store."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are not good any more."""

    tenant: str
    kind: Literal["token", "principal"]
    value: str
    """The token's id; or the principal, whose tokens made before *at* are meant."""
    at: Millis


@dataclass(frozen=True, slots=True)
class AccessChanges:
    """What has changed in who may do what, whichever process changed it."""

    mark: int
    """Where to go on from."""
    members: Sequence[tuple[SessionId, str]] = ()
    """Sessions and principals whose role there has changed."""
    revocations: Sequence[Revocation] = ()
