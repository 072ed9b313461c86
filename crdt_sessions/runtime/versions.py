"""The past of a session: versions that were kept, read, compared, named, brought back, and forked."""

from __future__ import annotations

import asyncio
from typing import Any

from crdt_sessions.errors import NotFound, RunsActive
from crdt_sessions.ids import Seq, SessionId
from crdt_sessions.model import difference
from crdt_sessions.runtime.access import ANONYMOUS
from crdt_sessions.runtime.registry import SessionRegistry
from crdt_sessions.runtime.session import Session
from crdt_sessions.storage import History, SessionRecord, Version


class Versions:
    """The past of one session.

    What is kept is decided by :class:`crdt_sessions.limits.Retention`; the states since the last snapshot can all be
    read. A session that is damaged and cannot be opened any more can still be read here, and forked.

    Args:
        registry: where the session is.
        session_id: which one.
    """

    def __init__(self, registry: SessionRegistry, session_id: SessionId) -> None:
        self._registry = registry
        self._session_id = session_id

    async def history(self) -> History:
        """Return what can be read.

        Raises:
            SessionNotFound: there is no such session.
        """
        return await self._registry.store.history(self._session_id)

    async def read(self, seq: Seq) -> bytes:
        """Return the document as it was with row *seq*, as one Yjs update.

        Raises:
            SessionNotFound: there is no such session.
            NotFound: that state cannot be read any more.
            StorageError: it is damaged.
        """
        rows = await self._registry.store.load_version(self._session_id, seq)
        return (await self._registry.documents.fold([row.update for row in rows])).update

    async def difference(self, before: Seq, after: Seq) -> list[dict[str, Any]]:
        """Return what turns the JSON form of version *before* into that of *after*, as a JSON Patch (RFC 6902).

        Raises:
            NotFound, SessionNotFound, StorageError: as :meth:`read`.
        """
        one, other = await self.read(before), await self.read(after)
        return await asyncio.to_thread(difference, one, other)

    async def keep(self, name: str | None = None) -> Version:
        """Make the present state a version, and return it; with a name it is kept until the session is deleted.

        Raises:
            SessionNotFound, StorageError: it could not be stored.
        """
        async with self._registry.open(self._session_id) as session:
            seq = await session.snapshot(name, keep_rows=True)
        return await self._find(seq)

    async def rename(self, seq: Seq, name: str | None) -> Version:
        """Give version *seq* another name, or none; return it.

        Raises:
            SessionNotFound: there is no such session.
            NotFound: no such version is kept.
        """
        await self._registry.store.rename_version(self._session_id, seq, name)
        return await self._find(seq)

    async def restore(self, seq: Seq) -> Version:
        """Make the session look as it did with row *seq*; return the version that was made of it just before.

        It is one more change: connected peers see it, and what others write meanwhile or have written offline
        is merged with it. Runs and receipts stay as they are.

        Raises:
            SessionNotFound, SessionClosed, StorageError: the session takes no writes.
            NotFound: that state cannot be read any more.
            RunsActive: an agent writes; stop it first.
        """
        earlier = await self.read(seq)
        async with self._registry.open(self._session_id) as session:
            _raise_if_busy(session)
            before = await session.snapshot(keep_rows=True)
            way = await self._registry.documents.revert_update(session.document.encode(), earlier)
            await session.apply(way, foreign=True)  # its own, from before it was taken over by this service, perhaps
        return await self._find(before)

    async def fork(
        self, target: SessionId, *, seq: Seq | None = None, title: str | None = None, by: str = ANONYMOUS
    ) -> SessionRecord:
        """Make a new session that begins as this one was with row *seq*, or as it is; return its record.

        It is made *by* that principal. *title* is its title; that of this one if None.

        Its runs that had not ended are interrupted there.

        Raises:
            SessionNotFound, NotFound, StorageError: that cannot be read.
            SessionExists: *target* is taken.
        """
        if seq is None:
            seq = (await self.history()).last
        content = await self.read(seq)
        return await self._registry.create(target, title=title, content=content, by=by)

    async def _find(self, seq: Seq) -> Version:
        versions = (await self.history()).versions
        found = next((version for version in versions if version.seq == seq), None)
        if found is None:
            raise NotFound(what="version", id=str(seq))
        return found


def _raise_if_busy(session: Session) -> None:
    active = [run.id for run in session.view.runs.unfinished()]
    if active:
        raise RunsActive(runs=active)
