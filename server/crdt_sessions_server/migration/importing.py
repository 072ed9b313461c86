"""Makes sessions of another server's documents: each at once, or not at all, so that it can be done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from crdt_sessions.errors import CrdtSessionsError, EarlyUpdate, StorageError
from crdt_sessions.ids import session_id
from crdt_sessions.model.library import merge
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions.wire import EMPTY_UPDATE
from crdt_sessions.wire.update_v1 import parse
from crdt_sessions.wire.varint import decode_state_vector
from crdt_sessions_server.migration.report import Line, Outcome, Report
from crdt_sessions_server.migration.source import Source

Progress = Callable[[str, int, int], None]
_OTHER = "a session of that name has nothing in common with it; delete one, or give --prefix or --merge"
_GAP = "a part of it follows changes that the source does not have"
_BY = "import"


@dataclass(frozen=True, slots=True)
class Importer:
    """Brings documents into a registry.

    Args:
        registry: the sessions, entered, with a sandbox.
        tenant: whose sessions they become.
        prefix: stands in front of each name.
        merge: whether a session that has nothing in common with a document of its name is given its content.
        trial: whether to look only; nothing is written then.
    """

    registry: SessionRegistry
    tenant: str = ""
    prefix: str = ""
    merge: bool = False
    trial: bool = False

    async def run(self, source: Source, report: Report, progress: Progress) -> None:
        """Bring all of a source's documents over; *report* is told what became of each.

        What is there already is known by its content, so a run that broke off, or a source in which people went on
        writing, is brought over by running again.

        Raises:
            StorageError: the source as a whole cannot be read, or the store failed.
        """
        names = source.names()
        for done, name in enumerate(names, start=1):
            report.lines.append(await self._bring(source, name))
            progress("documents", done, len(names))

    async def _bring(self, source: Source, name: str) -> Line:
        updates: list[bytes] = []
        try:
            updates = source.updates(name)
            outcome, why = await self._take(f"{self.prefix}{name}", updates)
        except CrdtSessionsError as error:
            if isinstance(error, StorageError) and updates:  # the store's, and not the source's
                raise
            outcome, why = Outcome.FAILED, str(error)
        return Line(name, outcome, len(updates), sum(map(len, updates)), why)

    async def _take(self, name: str, updates: list[bytes]) -> tuple[Outcome, str]:
        wanted = session_id(name, self.tenant)
        whole = merge(update for update in updates if update)
        if whole == EMPTY_UPDATE:
            return Outcome.EMPTY, ""
        if await self.registry.store.get(wanted) is not None:
            if self.trial:
                return Outcome.ADDED, ""
            async with self.registry.open(wanted) as session:
                return await self._add(session, whole)
        try:
            await self.registry.documents.vouch([whole])
            if not self.trial:
                await self.registry.create(wanted, content=whole, by=_BY)
        except EarlyUpdate:
            if not self.trial:
                async with self.registry.open(wanted, create=True, by=_BY) as session:
                    await _applied(session, whole)
            return Outcome.INCOMPLETE, _GAP
        return Outcome.NEW, ""

    async def _add(self, session: Session, whole: bytes) -> tuple[Outcome, str]:
        if await session.contains(whole):
            return Outcome.THERE, ""
        known = decode_state_vector(session.document.state_vector())
        if not (self.merge or known.keys() & parse(whole).inserted.keys()):
            return Outcome.FAILED, _OTHER
        outcome, why = await _applied(session, whole)
        return (Outcome.ADDED, "") if outcome is Outcome.NEW else (outcome, why)


async def _applied(session: Session, whole: bytes) -> tuple[Outcome, str]:
    try:
        await session.apply(whole, foreign=True)
    except EarlyUpdate:
        return Outcome.INCOMPLETE, _GAP
    return Outcome.NEW, ""
