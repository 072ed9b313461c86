"""Runs of all sessions, agents and steps: the store's methods."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage.postgres import records
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.lane import Lane
from crdt_sessions.storage.postgres.lists import NO_BOUND, runs_page
from crdt_sessions.storage.postgres.statements import fenced, served_here
from crdt_sessions.storage.postgres.text import kept, read
from crdt_sessions.storage.runs import MOST_AGENTS, FoundRun, RunIndex
from crdt_sessions.storage.statuses import RUN_STATUSES

_READY = (
    "SELECT runs.session, runs.id FROM runs JOIN sessions ON sessions.id = runs.session"
    " WHERE ready AND agent = ANY($1::text[]) AND sessions.status = 'active'"
    " AND ($2::text IS NULL OR sessions.tenant = $2)"
    f" AND ({served_here('sessions.owner', '$4::bigint')} OR EXISTS (SELECT FROM nodes AS here, nodes AS there"
    " WHERE here.node = $4 AND there.node = sessions.owner AND here.address <> '' AND there.address <> ''))"
    " ORDER BY queued_at, runs.session, runs.id LIMIT $3"
)
_DUE = (
    "SELECT DISTINCT sid, session, sessions.owner FROM runs JOIN sessions ON sessions.id = session WHERE due_at <= $1"
    f" AND {served_here('sessions.owner', '$2::bigint')}"
)
_TAKE_DUE = fenced(
    taken="UPDATE sessions SET owner = $2 WHERE sid = ANY(ARRAY("
    "SELECT sessions.sid FROM sessions JOIN unnest($4::bigint[], $5::bigint[]) AS found (sid, owner)"
    " ON found.sid = sessions.sid WHERE sessions.owner IS NOT DISTINCT FROM found.owner AND deleted_at IS NULL"
    " FOR UPDATE OF sessions SKIP LOCKED))"
)
"""Only from the owners that were read, as one session is taken; what somebody else takes just now is theirs."""
_TAKEN = "SELECT id FROM sessions WHERE sid = ANY($1::bigint[]) AND owner = $2"
_NOTE = fenced(
    put="INSERT INTO agents (tenant, name, seen_at) SELECT $4, unnest($5::text[]), $6"
    " ON CONFLICT (tenant, name) DO UPDATE SET seen_at = excluded.seen_at"
)
_FORGET = fenced(
    gone="DELETE FROM agents WHERE tenant = $4 AND name NOT IN"
    " (SELECT name FROM agents WHERE tenant = $4 ORDER BY seen_at DESC, name LIMIT $5)"
)
_RECORD = fenced(put="INSERT INTO steps (session, run, key, value) VALUES ($4, $5, $6, $7) ON CONFLICT DO NOTHING")
_STEP = "SELECT value FROM steps WHERE session = $1 AND run = $2 AND key = $3"


class PostgresRunIndex(OfDatabase, RunIndex):
    """A :class:`RunIndex` in a database. Runs that wait are those of sessions that this node can reach."""

    async def ready_runs(
        self, agents: Sequence[str], *, limit: int, tenant: str | None = None
    ) -> Sequence[tuple[SessionId, str]]:
        found = await self._database.select(_READY, list(agents), tenant, limit, self._database.nodes.me)
        return [(SessionId(session), run) for session, run in found]

    async def runs(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        answerer: str | None = None,
        before: tuple[Millis, SessionId, str] | None = None,
        limit: int,
    ) -> Sequence[FoundRun]:
        which = (answerer,) if answerer is not None else ()
        wanted = list(RUN_STATUSES if statuses is None else statuses)
        found = await self._database.select(
            runs_page(answerer is not None), tenant, wanted, *(before or (NO_BOUND, "", "")), limit, *which
        )
        entries = records.run_entries(row[2:] for row in map(tuple, found))
        return [FoundRun(row[0], row[1], entry) for row, entry in zip(found, entries, strict=True)]

    async def take_due(self, now: Millis, *, limit: int) -> Sequence[SessionId]:
        me = self._database.nodes.me
        found = await self._database.select(_DUE, now, me)
        due = [SessionId(session) for _, session, owner in found if owner == me]
        free = [(sid, owner) for sid, _, owner in found if owner != me]
        chosen = random.sample(free, min(limit, len(free)))
        if not chosen:
            return due
        sids, owners = map(list, zip(*chosen, strict=True))

        async def job(lane: Lane) -> list[SessionId]:
            await lane.write(_TAKE_DUE, sids, owners)
            return [SessionId(session) for (session,) in await lane.fetch(_TAKEN, sids, lane.node)]

        return [*due, *await self._database.submit(job)]

    async def note_agents(self, tenant: str, names: Sequence[str], now: Millis) -> None:
        async def job(lane: Lane) -> None:
            await lane.write(_NOTE, tenant, sorted(set(names)), now)
            await lane.write(_FORGET, tenant, MOST_AGENTS)

        await self._database.submit(job)

    async def agents(self, tenant: str) -> Mapping[str, Millis]:
        found = await self._database.select(
            "SELECT name, seen_at FROM agents WHERE tenant = $1 ORDER BY name", tenant
        )
        return dict(map(tuple, found))

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        found = await self._database.select(_STEP, session, kept(run), kept(key))
        return read(found[0][0]) if found else None

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        async def job(lane: Lane) -> str:
            await lane.owned(session)
            await lane.write(_RECORD, session, kept(run), kept(key), kept(value))
            found = await lane.fetch(_STEP, session, kept(run), kept(key))
            return read(found[0][0]) if found else value

        return await self._database.submit(job, session)
