"""How sessions come into being: created, or loaded from what is stored of them.

What a defect of ours prevents from being loaded is loaded without what is to blame for it, if that is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from crdt_sessions.clock import Clock
from crdt_sessions.defects import log_defect
from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import (
    CrdtSessionsError,
    DamagedDatabase,
    DamagedLog,
    EarlyUpdate,
    Fenced,
    HeldElsewhere,
    SessionDeleted,
    SessionExists,
    SessionFailed,
    SessionNotFound,
    UpdateError,
)
from crdt_sessions.ids import Millis, Seq, SessionId, check_session_id
from crdt_sessions.limits import Compaction, Retention
from crdt_sessions.model import Later, SessionDoc, encode_verified, seed, split
from crdt_sessions.runtime.audit import AuditLog
from crdt_sessions.runtime.documents import Documents
from crdt_sessions.runtime.identifiers import Identifiers
from crdt_sessions.runtime.quarantine import MOST_KNOWN, Quarantine
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.runtime.session import Session
from crdt_sessions.storage import Entries, Row, SessionLog, SessionRecord, StoredSession, Version
from crdt_sessions.sync import Aside, EngineFailed, Panics
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.varint import decode_state_vector

_log = logging.getLogger("crdt_sessions.registry")
_ROWS_AT_ONCE = 32
"""Rows that are read into a document before it is others' turn."""
_ATTEMPTS = 16
"""How often a session is loaded in a row, each time without what was to blame for the last failure."""

Start = Callable[[StoredSession, SessionDoc, Sequence[Later], Panics, Aside], Session]
"""Makes a session go: of what is stored, its document, what of its rows waits, and what is known to do harm in it."""


class Loading:
    """Creates and loads sessions.

    Args:
        log: where they are stored.
        clock: the only source of time.
        most_sessions: how many a tenant may have.
        quarantine: which ones are left alone.
        documents: tries foreign content.
        identifiers: names for what is new.
        audit: is told of those that are created.
        compaction: when rows are folded.
        retention: which versions are kept.
        start: makes a session of what was loaded. Raises :class:`EngineFailed` and closes the document if it cannot.
    """

    def __init__(
        self,
        log: SessionLog,
        *,
        clock: Clock,
        most_sessions: int,
        quarantine: Quarantine,
        documents: Documents,
        identifiers: Identifiers,
        audit: AuditLog,
        compaction: Compaction,
        retention: Retention,
        start: Start,
    ) -> None:
        self._log = log
        self._clock = clock
        self._most_sessions = most_sessions
        self._quarantine = quarantine
        self._documents = documents
        self._identifiers = identifiers
        self._audit = audit
        self._compaction = compaction
        self._retention = retention
        self._start = start
        self._panics: Recent[SessionId, Panics] = Recent(MOST_KNOWN)
        self._aside: Recent[SessionId, Aside] = Recent(MOST_KNOWN)

    # -- creating ------------------------------------------------------------------------------------------------

    async def check_absent(self, session_id: SessionId) -> None:
        """Return if there is no session of that name.

        Raises:
            SessionExists: there is one.
        """
        if await self._log.get(session_id) is not None:
            raise SessionExists(session=session_id)

    async def create(
        self,
        session_id: SessionId,
        *,
        title: str | None = None,
        metadata: dict[str, Any] | None = None,
        agent: str | None = None,
        content: bytes | None = None,
        by: str,
    ) -> SessionRecord:
        """Create a session. Arguments and errors as :meth:`SessionRegistry.create`."""
        generation = await self._reserve(session_id)
        created = await self._create(
            session_id, generation=generation, title=title, metadata=metadata, agent=agent, content=content, by=by
        )
        return created.record

    async def adopt(
        self,
        session_id: SessionId,
        snapshots: Sequence[tuple[Version, Row]],
        *,
        created_at: Millis,
        status: str,
        title: str | None,
        entries: Entries,
    ) -> SessionRecord:
        """Create a session that has a past; return its record once it is durable.

        Args:
            session_id: its name.
            snapshots: versions with what is in them, oldest first. Their content was tried.
            created_at: when it was created first.
            status: its status.
            title: its title.
            entries: its runs and writers.

        Raises:
            SessionExists, TooMany, BadSessionId, StorageError: it cannot be created.
        """
        now, generation = self._clock.now(), await self._reserve(session_id)
        lineage = self._identifiers.lineage()
        record = SessionRecord(session_id, generation, created_at, now, status, title, lineage)
        await self._log.adopt(record, snapshots, entries=entries, most=self._most_sessions)
        return record

    async def _reserve(self, session_id: SessionId) -> int:
        """Return the generation of a session that is about to be created.

        Raises:
            SessionExists: there is one of that name.
            BadSessionId: it is a name, and not what ``session_id`` makes of it.
        """
        await self.check_absent(session_id)
        check_session_id(session_id)
        return await self._log.last_generation(session_id) + 1

    async def _create(
        self,
        session_id: SessionId,
        *,
        generation: int,
        title: str | None = None,
        metadata: dict[str, Any] | None = None,
        agent: str | None = None,
        content: bytes | None = None,
        by: str,
    ) -> StoredSession:
        """Create a session; return what is stored of it. Arguments and errors as :meth:`create`."""
        now = self._clock.now()
        lineage = self._identifiers.lineage()
        begin = seed(
            session_id,
            generation=generation,
            lineage=lineage,
            created_at=now,
            client_id=self._identifiers.client_id(),
            title=title,
            metadata=metadata,
            agent=agent,
        )
        if content is not None:
            begin, waiting = await self._documents.vouch([begin, content])
            if waiting != EMPTY_UPDATE:
                raise EarlyUpdate(size=len(waiting))

        async def store() -> SessionRecord:
            record = await self._log.create(
                session_id,
                begin,
                generation=generation,
                title=title,
                now=now,
                lineage=lineage,
                most=self._most_sessions,
            )
            self._audit.note("session.create", by, session_id)
            _log.info("session begins", extra={"session": session_id, "principal": by})
            return record

        return StoredSession(await to_the_end(store()), [Row(Seq(1), begin)])

    # -- loading -------------------------------------------------------------------------------------------------

    async def load(self, session_id: SessionId, *, create: bool, by: str) -> Session:
        """Return a session that goes on from what is stored of it.

        Args:
            session_id: its name.
            create: whether to create it if it never existed.
            by: the principal who would.

        Raises:
            SessionNotFound: there is none.
            TooMany, StorageError: it cannot be created, or loaded.
        """
        try:
            stored = await self._log.load(session_id) or await self._found(session_id, create=create, by=by)
            session = await self._revive_with_patience(stored)
        except (DamagedLog, DamagedDatabase) as error:
            self._quarantine.hold(session_id, error)
            raise
        except CrdtSessionsError:
            raise
        except Exception as error:
            found = log_defect(_log, "a defect prevents that it is loaded", error, session=session_id)
            failed = SessionFailed(reference=found)
            self._quarantine.hold(session_id, failed)
            raise failed from error
        self._quarantine.release(session_id)
        _log.debug("loaded", extra={"session": session_id, "rows": len(stored.rows)})
        return session

    async def _found(self, session_id: SessionId, *, create: bool, by: str) -> StoredSession:
        """Return what is stored of a session that is made because somebody joins it, and has never been before."""
        if await self._log.last_generation(session_id):
            raise SessionDeleted(session=session_id)
        if not create:
            raise SessionNotFound(session=session_id)
        check_session_id(session_id)
        try:
            return await self._create(session_id, generation=1, by=by)
        except SessionExists:  # somebody else was quicker
            stored = await self._log.load(session_id)
            if stored is None:
                raise SessionNotFound(session=session_id) from None
            return stored

    async def _revive_with_patience(self, stored: StoredSession) -> Session:
        """Load a session; if a defect of ours prevents it, without what it is to blame for.

        Raises:
            DamagedLog: a row cannot be applied.
            EngineFailed: nothing is known to be to blame, or too much.
        """
        session_id = stored.record.id
        panics = self._panics.remember(session_id, self._panics.get(session_id) or Panics())
        aside = self._aside.remember(session_id, self._aside.get(session_id) or Aside())
        unexplained = attempts = 0
        while True:
            attempts, blamed = attempts + 1, aside.count
            document, waiting = await self._read(stored)
            stored = await self._folded(stored, document, waiting)
            try:
                return self._start(stored, document, waiting, panics, aside)
            except EngineFailed as error:
                about = {"session": session_id, "left_alone": aside.all_left()}
                _log.error("a defect prevents that it is loaded", exc_info=error, extra=about)
                unexplained += aside.count == blamed
                if unexplained > 1 or attempts == _ATTEMPTS:
                    raise
            await asyncio.sleep(0)  # others' sessions go on

    async def _read(self, stored: StoredSession) -> tuple[SessionDoc, list[Later]]:
        """Return the document, and what of its rows waits.

        Others' sessions go on between its rows, of which there may be thousands.
        """
        document = SessionDoc(self._identifiers.client_id())
        waiting: list[Later] = []
        try:
            for at, row in enumerate(stored.rows, start=1):
                try:
                    if row.waits:  # stored so by an earlier release; no document takes it before it was tried
                        taken, _, later = split(row.update, decode_state_vector(document.state_vector()))
                        document.apply(taken)
                        waiting += [later] if later is not None else []
                    else:
                        document.apply(row.update)
                except UpdateError as error:
                    raise DamagedLog(session=stored.record.id, seq=row.seq, why=str(error)) from error
                if at % _ROWS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        except BaseException:
            document.close()
            raise
        return document, waiting

    async def _folded(self, stored: StoredSession, document: SessionDoc, waiting: Sequence[Later]) -> StoredSession:
        """Return what is stored, with one row for all if there are more than are to be.

        A service that is killed again and again dies before it has folded what it wrote. With the document at hand
        this takes next to nothing. Nobody writes before it is done, so rows do not pile up from one life to the next.
        """
        whole = not waiting and document.waiting == EMPTY_UPDATE
        if len(stored.rows) <= self._compaction.max_rows or not whole:
            return stored
        about = {"session": stored.record.id, "rows": len(stored.rows)}
        try:
            snapshot = Row(stored.last_seq, encode_verified(document))
            await self._log.replace_with_snapshot(
                stored.record.id, snapshot, retention=self._retention, now=self._clock.now()
            )
        except BaseException as error:
            if isinstance(error, CrdtSessionsError) and not isinstance(error, Fenced | HeldElsewhere):
                _log.error("folding failed: %s", error, extra=about)
                return stored  # the rows stay as they are, and are folded later
            document.close()
            raise
        _log.info("compacted", extra={**about, "snapshot_bytes": len(snapshot.update)})
        return replace(stored, rows=[snapshot])
