"""The store seam: an append-only log of opaque updates per session. Bytes and ids only.

A store knows nothing of documents or frames. ``crdt_sessions.testing.store_contract`` is the suite every
store must pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.limits import Retention

_AT_ONCE = Millis(0)

MOST_AGENTS = 1000
"""Names of agents that are remembered of a tenant."""


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


@dataclass(frozen=True, slots=True)
class Entries:
    """What goes on record together with rows: all of it or nothing."""

    runs: Sequence[RunEntry] = ()
    writers: Sequence[WriterEntry] = ()
    deliveries: Sequence[Delivery] = ()


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


class UpdateStore(Protocol):
    """Where sessions are kept. All methods but :meth:`close` may raise :class:`StorageError`.

    A call that writes returns when its effect is durable. When it raises, nothing of it is stored.
    """

    async def create(
        self,
        session: SessionId,
        seed: bytes,
        *,
        generation: int,
        title: str | None,
        now: Millis,
        lineage: str | None = None,
    ) -> SessionRecord:
        """Create a session whose first row is *seed*, with a *title*, at *now*; return its record once it is stored.

        *lineage* names this creation; what :func:`crdt_sessions.ids.lineage_of` says if None.

        Raises:
            SessionExists: there is one, or it was deleted and *generation* is not the next one.
        """
        ...

    async def get(self, session: SessionId) -> SessionRecord | None:
        """Return a session's record, or None if there is none or it was deleted."""
        ...

    async def last_generation(self, session: SessionId) -> int:
        """Return the generation a session had when it was last known, deleted or not; 0 if never."""
        ...

    async def sessions(
        self,
        *,
        after: SessionId | None,
        limit: int,
        tenant: str | None = None,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
    ) -> Sequence[SessionRecord]:
        """Return up to *limit* records in order of id, those behind *after*.

        Of one *tenant*, or of all if None; with one of *statuses*; in which *member* has a role of their own.
        """
        ...

    async def recent_sessions(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
        before: tuple[Millis, SessionId] | None = None,
        limit: int,
    ) -> Sequence[SessionRecord]:
        """Return up to *limit* records of a tenant, those that changed last first.

        *before* is the time of change and the id of the last one that is known. What changes meanwhile moves to the
        front: it is not returned twice. *statuses* and *member* are as in :meth:`sessions`.
        """
        ...

    async def count(self, tenant: str) -> int:
        """Return how many sessions a tenant has."""
        ...

    async def load(self, session: SessionId) -> StoredSession | None:
        """Return everything stored of a session, or None if there is none.

        Raises:
            DamagedLog: a row does not match its checksum, or one is missing.
        """
        ...

    def append(
        self, session: SessionId, rows: Sequence[Row], *, entries: Entries = NO_ENTRIES, now: Millis
    ) -> Awaitable[None]:
        """Append *rows* and put *entries* on record at *now*, all or nothing; return what ends once they are stored.

        A coroutine will do; with a future there is one task less for each token of a stream. A session appends more
        before an earlier call has ended: they count in the order of the calls.

        The rows' numbers follow the last one without a gap, so nothing is stored behind a call that failed. A run or
        writer that is on record is replaced; a delivery that is there stays as it is.

        Raises:
            SessionNotFound: there is no such session.
            StorageError: the numbers do not follow.
        """
        ...

    async def replace_with_snapshot(
        self,
        session: SessionId,
        snapshot: Row,
        *,
        retention: Retention,
        name: str | None = None,
        keep_rows: bool = False,
        now: Millis,
    ) -> None:
        """Replace all rows up to and including ``snapshot.seq`` by the snapshot, in one step, at *now*.

        The caller has verified that the snapshot holds everything in them. Earlier snapshots become versions, and
        those that *retention* does not keep go. A snapshot that is there already only gets the *name*, if there is
        one. With *keep_rows* the rows stay until they are replaced the next time, so that every state between can
        be read until then.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def adopt(
        self, record: SessionRecord, snapshots: Sequence[tuple[Version, Row]], *, entries: Entries = NO_ENTRIES
    ) -> None:
        """Create a session that has a past, as another store had it; all of it or nothing.

        Args:
            record: its generation is the next one of that name.
            snapshots: versions with what is in them, oldest first; the last one is the session's present state.
            entries: its runs and writers.

        Raises:
            SessionExists: there is one of that name, or the generation is not the next one.
        """
        ...

    async def history(self, session: SessionId) -> History:
        """Return what can be read of a session's past.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def load_version(self, session: SessionId, seq: Seq) -> Sequence[Row]:
        """Return rows that make up the session as it was with row *seq*: a snapshot, then what follows it.

        Raises:
            SessionNotFound: there is no such session.
            NotFound: it cannot be read any more.
            DamagedLog: a row does not match its checksum.
        """
        ...

    async def rename_version(self, session: SessionId, seq: Seq, name: str | None) -> None:
        """Give the kept version *seq* another name, or none: then the next snapshot may remove it.

        Raises:
            SessionNotFound: there is no such session.
            NotFound: no such version is kept.
        """
        ...

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        """Change *title* and *status* of the record, at *now*; None leaves a field as it is.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        """Delete a session, at *now*, and everything stored of it, deliveries included, but remember its generation.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    # -- runs ----------------------------------------------------------------------------------------------------

    async def ready_runs(
        self, agents: Sequence[str], *, limit: int, tenant: str | None = None
    ) -> Sequence[tuple[SessionId, str]]:
        """Return up to *limit* runs of active sessions that are ready and for one of *agents*, oldest first.

        Of one *tenant*, or of all if None.
        """
        ...

    async def runs(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        answerer: str | None = None,
        before: tuple[Millis, SessionId, str] | None = None,
        limit: int,
    ) -> Sequence[FoundRun]:
        """Return up to *limit* runs of a tenant, those that were asked for last first.

        With one of *statuses*, for one agent (:attr:`RunEntry.answerer`), of those asked for before the one that has
        this time, session and id.
        """
        ...

    async def note_agents(self, tenant: str, names: Sequence[str], now: Millis) -> None:
        """Remember that agents of these names ask for a tenant's runs at *now*; of a thousand, those seen last."""
        ...

    async def agents(self, tenant: str) -> Mapping[str, Millis]:
        """Return the agents of a tenant that are remembered, and when they were noted last."""
        ...

    async def due_sessions(self, now: Millis) -> Sequence[SessionId]:
        """Return the sessions with a run that is due by *now*."""
        ...

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        """Return what was recorded for the step *key* of a run, or None."""
        ...

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        """Record *value* for the step *key* of a run, unless there is one; return what is recorded.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    # -- the outbox ----------------------------------------------------------------------------------------------

    async def deliveries(
        self, *, due: Millis | None, dead: bool = False, limit: int, tenant: str | None = None
    ) -> Sequence[Delivery]:
        """Return up to *limit* deliveries, oldest first: the dead ones, or those due by *due*, or all that wait.

        Of one *tenant*, or of all if None.
        """
        ...

    async def delivered(self, id: str) -> None:
        """Forget the delivery *id*: it has arrived."""
        ...

    async def postpone(
        self,
        id: str,
        *,
        attempts: int,
        next_at: Millis,
        error: str | None,
        dead: bool,
        tenant: str | None = None,
    ) -> bool:
        """Note that an attempt failed, or that a dead delivery is to be tried again; tell whether there is one.

        *attempts*, *next_at*, *error* and *dead* are what is known of the delivery *id* from now on.
        With *tenant*, only if it belongs to that one.
        """
        ...

    # -- who may do what, and who did ------------------------------------------------------------------------------

    async def members(self, session: SessionId) -> Mapping[str, str]:
        """Return the roles that principals have in a session, where they differ from what their tokens say."""
        ...

    async def set_member(self, session: SessionId, principal: str, role: str | None) -> None:
        """Give a principal a role in a session, or none of its own.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def revoke(self, revocation: Revocation) -> None:
        """Put a revocation on record; a later one of the same thing replaces it."""
        ...

    async def revocations(self) -> Sequence[Revocation]:
        """Return all that are on record."""
        ...

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append *entries* to the audit log, which is never changed."""
        ...

    async def audit(
        self,
        tenant: str,
        *,
        session: str | None = None,
        principal: str | None = None,
        action: str | None = None,
        after: int = 0,
        limit: int,
    ) -> Sequence[AuditEntry]:
        """Return up to *limit* entries of a tenant's audit log behind *after*, oldest first.

        Only those of *session*, *principal* and *action*, each if it is not None.
        """
        ...

    async def check(self) -> None:
        """Return if the store can write now.

        Raises:
            StoreUnavailable: it cannot; the message says why.
        """
        ...

    async def close(self) -> None:
        """Release everything; calls under way are finished first."""
        ...
