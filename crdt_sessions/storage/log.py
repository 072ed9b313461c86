"""The rows of sessions, their snapshots and versions, and a record of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Protocol

from crdt_sessions.callbacks import Callback
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.limits import Retention
from crdt_sessions.storage.stored import NO_ENTRIES, Entries, History, Row, SessionRecord, StoredSession, Version


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

        A coroutine will do; an :class:`Outcome` costs least, which counts for each token of a stream. A session
        appends more before an earlier call has ended: they count in the order of the calls.

        The rows' numbers follow the last one without a gap: a row is stored only if the one before it is. A run or
        writer that is on record is replaced; a delivery that is there stays as it is.

        Raises:
            SessionNotFound: there is no such session.
            StorageError: the numbers do not follow.
        """
        ...

    def before_commit(self, hand_over: Callback) -> None:
        """Call *hand_over* once, soon: it appends what a session has written until then.

        A store that makes one commit of what comes while it writes may call it when that is about to begin.
        """
        asyncio.get_running_loop().call_soon(hand_over)

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
        be read until then. What goes is overwritten, as far as the store can see to that.

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
