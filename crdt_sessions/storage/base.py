"""The store seam: an append-only log of opaque updates per session. Bytes and ids only.

A store knows nothing of documents or frames. ``crdt_sessions.testing.store_contract`` is the suite every
store must pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt_sessions.ids import Millis, Seq, SessionId


@dataclass(frozen=True, slots=True)
class Row:
    """One stored update."""

    seq: Seq
    update: bytes


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


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session's record and everything stored of it."""

    record: SessionRecord
    rows: Sequence[Row]
    """In order; the first is the snapshot if there is one. Never empty."""

    @property
    def last_seq(self) -> Seq:
        """The number of the last row."""
        return self.rows[-1].seq


class UpdateStore(Protocol):
    """Where sessions are kept. All methods but :meth:`close` may raise :class:`StorageError`.

    A call that writes returns when its effect is durable. When it raises, nothing of it is stored.
    """

    async def create(
        self, session: SessionId, seed: bytes, *, generation: int, title: str | None, now: Millis
    ) -> SessionRecord:
        """Create a session whose first row is *seed*; both or neither exist afterwards.

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

    async def sessions(self, *, after: SessionId | None, limit: int) -> Sequence[SessionRecord]:
        """Return up to *limit* records in order of id, those behind *after*."""
        ...

    async def load(self, session: SessionId) -> StoredSession | None:
        """Return everything stored of a session, or None if there is none.

        Raises:
            DamagedLog: a row does not match its checksum, or one is missing.
        """
        ...

    async def append(self, session: SessionId, rows: Sequence[Row], *, now: Millis) -> None:
        """Append rows, all or none; their numbers follow the last one without a gap.

        Raises:
            SessionNotFound: there is no such session.
            StorageError: the numbers do not follow.
        """
        ...

    async def replace_with_snapshot(self, session: SessionId, snapshot: Row) -> None:
        """Replace all rows up to and including ``snapshot.seq`` by the snapshot, in one step.

        The caller has verified that the snapshot holds everything in them.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def describe(
        self, session: SessionId, *, title: str | None = None, status: str | None = None, now: Millis
    ) -> None:
        """Change what the record says; None leaves a field as it is.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def delete(self, session: SessionId, *, now: Millis) -> None:
        """Delete a session and everything stored of it, but remember its generation.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...

    async def check(self) -> None:
        """Return if the store can write now."""
        ...

    async def close(self) -> None:
        """Release everything; calls under way are finished first."""
        ...
