"""Lists across sessions, as SQL: each has an index that gives it in order, so that a page costs what is on it.

Of several statuses each is read in order by itself, as far as a page goes; then they are merged.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage.lists import SessionIndex
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.records import RUN_COLUMNS
from crdt_sessions.storage.postgres.rows import COLUMNS, record_of
from crdt_sessions.storage.statuses import SESSION_STATUSES
from crdt_sessions.storage.stored import SessionRecord

NO_BOUND = 2**62
"""Later than every time: the first page is what comes before it."""
_MEMBER = "id IN (SELECT session FROM members WHERE principal = {})"
_BY_ID = (
    f"SELECT {COLUMNS} FROM sessions WHERE deleted_at IS NULL AND id > $1 AND ($2::text IS NULL OR tenant = $2)"
    " AND ($3::text[] IS NULL OR status = ANY($3))"
    f" AND ($4::text IS NULL OR {_MEMBER.format('$4')}) ORDER BY id LIMIT $5"
)
_RECENT = (
    f"SELECT {COLUMNS} FROM unnest($2::text[]) AS wanted (one) CROSS JOIN LATERAL ("
    f"SELECT {COLUMNS} FROM sessions WHERE deleted_at IS NULL AND tenant = $1 AND status = wanted.one"
    " AND (updated_at, id) < ($3::bigint, $4::text) ORDER BY updated_at DESC, id DESC LIMIT $5) AS found"
    " ORDER BY updated_at DESC, id DESC LIMIT $5"
)
_RECENT_OF_MEMBER = (
    f"SELECT {COLUMNS} FROM sessions WHERE deleted_at IS NULL AND tenant = $1 AND status = ANY($2::text[])"
    f" AND (updated_at, id) < ($3::bigint, $4::text) AND {_MEMBER.format('$6')}"
    " ORDER BY updated_at DESC, id DESC LIMIT $5"
)


@functools.cache
def runs_page(of_one_agent: bool) -> str:
    """Return the query for a tenant's runs, the last that was asked for first.

    Its parameters are the tenant, statuses, what comes before (time, session, run), the limit, and the agent.
    """
    one_agent = " AND answerer = $7" if of_one_agent else ""
    order = "asked_at DESC, session DESC, id DESC"
    return (
        f"SELECT session, asked_at, {RUN_COLUMNS} FROM unnest($2::text[]) AS wanted (one) CROSS JOIN LATERAL ("
        f"SELECT * FROM runs WHERE tenant = $1 AND status = wanted.one{one_agent}"
        f" AND (asked_at, session, id) < ($3::bigint, $4::text, $5::text) ORDER BY {order} LIMIT $6) AS found"
        f" ORDER BY {order} LIMIT $6"
    )


class PostgresSessionIndex(OfDatabase, SessionIndex):
    """A :class:`SessionIndex` in a database."""

    async def sessions(
        self,
        *,
        after: SessionId | None,
        limit: int,
        tenant: str | None = None,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
    ) -> Sequence[SessionRecord]:
        await self._database.caught_up()
        which = None if statuses is None else list(statuses)
        found = await self._database.select(_BY_ID, after or "", tenant, which, member, limit)
        return [record_of(row) for row in found]

    async def recent_sessions(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
        before: tuple[Millis, SessionId] | None = None,
        limit: int,
    ) -> Sequence[SessionRecord]:
        await self._database.caught_up()
        wanted = list(SESSION_STATUSES if statuses is None else statuses)
        page = (tenant, wanted, *(before or (NO_BOUND, "")), limit)
        found = await (
            self._database.select(_RECENT, *page)
            if member is None
            else self._database.select(_RECENT_OF_MEMBER, *page, member)
        )
        return [record_of(row) for row in found]

    async def count(self, tenant: str) -> int:
        statement = "SELECT count(*) FROM sessions WHERE deleted_at IS NULL AND tenant = $1"
        return int((await self._database.select(statement, tenant))[0][0])
