"""The store seam: an append-only log of opaque updates per session, and the records beside it.

It is cut by concern: a caller takes the Protocol that it needs, and a store of the whole service meets all of them,
which is :class:`UpdateStore`. A store knows nothing of documents or frames.
``crdt_sessions.testing.store_contract`` has a suite for each concern.

What holds for every method:

* All may raise :class:`StorageError`. A call that writes returns when its effect is durable.
* When it raises :class:`StoreUnavailable`, the effect may be stored all the same: a connection to a database can
  break between the commit and its answer. Whoever goes on reads again what is stored; a session is loaded anew. When
  it raises anything else, nothing of it is stored.
* A session's own record, rows and entries are read as they were last stored. What is read across sessions may be
  behind for a second, where a method says so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.limits import Retention
from crdt_sessions.storage.attendance import AttendanceRecords
from crdt_sessions.storage.changes import SessionChanges
from crdt_sessions.storage.stored import (
    NO_ENTRIES,
    AccessChanges,
    Amounts,
    AuditEntry,
    Delivery,
    Entries,
    FoundRun,
    History,
    Revocation,
    Row,
    SessionRecord,
    StoredSession,
    Version,
)
from crdt_sessions.storage.streams import StreamStore

MOST_AGENTS = 1000
"""Names of agents that are remembered of a tenant."""


class SessionLog(Protocol):
    """The rows of sessions, their snapshots and versions, and a record of each."""

    async def create(
        self,
        session: SessionId,
        seed: bytes,
        *,
        generation: int,
        title: str | None,
        now: Millis,
        lineage: str | None = None,
        most: int | None = None,
    ) -> SessionRecord:
        """Create a session whose first row is *seed*, with a *title*, at *now*; return its record once it is stored.

        *lineage* names this creation; what :func:`crdt_sessions.ids.lineage_of` says if None. *most* is how many
        sessions its tenant may have, whichever process creates them; any number if None.

        Raises:
            SessionExists: there is one, or it was deleted and *generation* is not the next one.
            TooMany: its tenant has as many as it may have.
        """
        ...

    async def get(self, session: SessionId) -> SessionRecord | None:
        """Return a session's record, or None if there is none or it was deleted."""
        ...

    async def last_generation(self, session: SessionId) -> int:
        """Return the generation a session had when it was last known, deleted or not; 0 if never."""
        ...

    async def release(self, session: SessionId) -> None:
        """Let another process have a session, if several share the store. All that was written of it has ended."""
        return

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

        The rows' numbers follow the last one without a gap: a row is stored only if the one before it is. A run or
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
        self,
        record: SessionRecord,
        snapshots: Sequence[tuple[Version, Row]],
        *,
        entries: Entries = NO_ENTRIES,
        most: int | None = None,
    ) -> None:
        """Create a session that has a past, as another store had it; all of it or nothing.

        Args:
            record: its generation is the next one of that name.
            snapshots: versions with what is in them, oldest first; the last one is the session's present state.
            entries: its runs and writers.
            most: how many sessions its tenant may have; any number if None.

        Raises:
            SessionExists: there is one of that name, or the generation is not the next one.
            TooMany: its tenant has as many as it may have.
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


class SessionIndex(Protocol):
    """Lists of sessions. The time of a session's last change, and so its place, may be behind for a second."""

    async def sessions(
        self,
        *,
        after: SessionId | None,
        limit: int,
        tenant: str | None = None,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
    ) -> Sequence[SessionRecord]:
        """Return up to *limit* records in order of id, those after *after*.

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


class RunIndex(Protocol):
    """Runs of all sessions, the agents that ask for them, and the steps that runs have recorded."""

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

    async def take_due(self, now: Millis, *, limit: int) -> Sequence[SessionId]:
        """Return the sessions with a run that is due by *now*, which this process is to look after.

        Where several processes share a store, each is told of those that belong to it, and of up to *limit* that
        belonged to nobody and are its own from then on: no two are told of the same one.
        """
        ...

    async def note_agents(self, tenant: str, names: Sequence[str], now: Millis) -> None:
        """Remember that agents of these names ask for a tenant's runs at *now*; of a thousand, those seen last."""
        ...

    async def agents(self, tenant: str) -> Mapping[str, Millis]:
        """Return the agents of a tenant that are remembered, and when they were noted last."""
        ...

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        """Return the recorded result of the step *key* of a run, or None."""
        ...

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        """Record *value* for the step *key* of a run, unless there is one; return the recorded value.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...


class Deliveries(Protocol):
    """The outbox: messages to somebody outside. Rows bring them (:attr:`Entries.deliveries`)."""

    async def deliveries(self, *, dead: bool = False, limit: int, tenant: str | None = None) -> Sequence[Delivery]:
        """Return up to *limit* deliveries, oldest first: the dead ones, or all that wait.

        Of one *tenant*, or of all if None.
        """
        ...

    async def take_deliveries(self, now: Millis, *, limit: int, lease_ms: int) -> Sequence[Delivery]:
        """Return up to *limit* deliveries that are due by *now*, oldest first, for the caller to try.

        Where several processes share a store, nobody else is given them for *lease_ms* milliseconds. Then they are
        due again, unless it was said what became of them: whoever took them may be gone.
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
        """Note that an attempt failed, or that a dead delivery is tried again; tell whether there is one.

        *attempts*, *next_at*, *error* and *dead* are what is known of the delivery *id* from now on.
        With *tenant*, only if it belongs to that one.
        """
        ...


class AccessRecords(Protocol):
    """Who may do what: roles in sessions, and tokens that are not good any more."""

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

    async def access_changes(self, after: int | None) -> AccessChanges:
        """Return what other processes, and this one, have changed since the mark *after*; only a mark if it is None.

        A change may be told twice; who goes on from the last mark misses none, for a day. A store that is not
        :attr:`UpdateStore.shared` has none to tell.
        """
        return AccessChanges(0)


class UsageRecords(Protocol):
    """What runs have used, added up by day. Rows bring it (:attr:`Entries.usage`)."""

    async def usage(
        self,
        tenant: str,
        *,
        session: SessionId | None = None,
        principal: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Mapping[tuple[str, str], Amounts]:
        """Return what a tenant's runs have used, by model and currency.

        Only in *session*, for *principal*, from the day *since* to the day *until*, both included; each if it is not
        None. What a session has used still counts for its tenant and its principals once the session is deleted.
        """
        ...

    async def disown_usage(self, tenant: str, principal: str) -> None:
        """Have what the runs of a principal have used count for nobody, and still for the tenant and its sessions."""
        ...


class AuditRecords(Protocol):
    """Who did what: a log that is never changed."""

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append *entries* to the audit log.

        Whoever tries again after :class:`StoreUnavailable` may have them there twice.
        """
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
        """Return up to *limit* entries of a tenant's audit log after the one with the id *after*, in order of id.

        Only those of *session*, *principal* and *action*, each if it is not None. An entry may appear a second after
        :meth:`record` returned, but never before one that was returned earlier: who goes on after the last id misses
        none.
        """
        ...


class UpdateStore(
    SessionLog,
    SessionIndex,
    SessionChanges,
    RunIndex,
    Deliveries,
    AccessRecords,
    UsageRecords,
    AuditRecords,
    AttendanceRecords,
    StreamStore,
    Protocol,
):
    """Where sessions are kept: everything that the service asks of a store.

    Each method is described where it is declared: :class:`SessionLog`, :class:`SessionIndex`, :class:`RunIndex`,
    :class:`Deliveries`, :class:`AccessRecords`, :class:`UsageRecords`, :class:`AuditRecords`, in
    ``streams.py`` :class:`StreamStore`, and in ``changes.py`` :class:`SessionChanges`. All but :meth:`close` may
    raise :class:`StorageError`.

    A call that writes returns when its effect is durable. When it raises :class:`StoreUnavailable`, the effect may be
    stored all the same, since a connection to a database can break between the commit and its answer; so what is
    stored is read again before anything else is written. When it raises anything else, nothing of it is stored.
    """

    shared: bool = False
    """Whether other processes may use it at the same time."""

    @property
    def node(self) -> str:
        """What other processes know this one by; empty if the store is not shared."""
        return ""

    async def check(self) -> None:
        """Return if the store can write now.

        Raises:
            StoreUnavailable: it cannot; the message says why.
        """
        ...

    async def close(self) -> None:
        """Release everything; calls under way are finished first."""
        ...
