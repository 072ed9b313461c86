"""Runs of all sessions, agents and steps: the store's methods."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage.runs import MOST_AGENTS, FoundRun, RunIndex
from crdt_sessions.storage.sqlite import lists
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.statements import changed, marks, of_tenant, require_session


class SqliteRunIndex(OfDatabase, RunIndex):
    """A :class:`RunIndex` in a database."""

    async def ready_runs(
        self, agents: Sequence[str], *, limit: int, tenant: str | None = None
    ) -> Sequence[tuple[SessionId, str]]:
        of_one, which = of_tenant(tenant, "sessions.tenant")
        found = await self._database.select(
            "SELECT runs.session, runs.id FROM runs JOIN sessions ON sessions.id = runs.session"
            f" WHERE ready AND agent IN ({marks(agents)}) AND sessions.status = 'active'{of_one}"
            " ORDER BY queued_at, runs.session, runs.id LIMIT ?",
            (*agents, *which, limit),
        )
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
        query = lists.runs(tenant, statuses=statuses, answerer=answerer, before=before, limit=limit)
        return lists.found_runs(await self._database.select(*query))

    async def take_due(self, now: Millis, *, limit: int) -> Sequence[SessionId]:
        found = await self._database.select("SELECT DISTINCT session FROM runs WHERE due_at <= ?", (now,))
        return [SessionId(session) for (session,) in found]

    async def note_agents(self, tenant: str, names: Sequence[str], now: Millis) -> None:
        def job(connection: sqlite3.Connection) -> None:
            seen = [(tenant, name, now) for name in names]
            connection.executemany("INSERT OR REPLACE INTO agents VALUES (?, ?, ?)", seen)
            connection.execute(
                "DELETE FROM agents WHERE tenant = ?1 AND name NOT IN"
                " (SELECT name FROM agents WHERE tenant = ?1 ORDER BY seen_at DESC, name LIMIT ?2)",
                (tenant, MOST_AGENTS),
            )

        await self._database.submit(job)

    async def agents(self, tenant: str) -> Mapping[str, Millis]:
        return dict(
            await self._database.select("SELECT name, seen_at FROM agents WHERE tenant = ? ORDER BY name", (tenant,))
        )

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        found = await self._database.select(
            "SELECT value FROM steps WHERE session = ? AND run = ? AND key = ?", (session, run, key)
        )
        return str(found[0][0]) if found else None

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        def job(connection: sqlite3.Connection) -> None:
            require_session(connection, session)
            statement = "INSERT INTO steps VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            changed(connection, statement, (session, run, key, value))

        await self._database.submit(job)
        return await self.step(session, run, key) or value
