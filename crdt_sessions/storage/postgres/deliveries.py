"""The outbox: the store's methods. Rows bring what is in it (``records.py``)."""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sessions.ids import Millis
from crdt_sessions.storage.base import Deliveries
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.errors import Refused
from crdt_sessions.storage.postgres.lane import Lane
from crdt_sessions.storage.postgres.statements import NOTHING, fenced, served_here
from crdt_sessions.storage.postgres.text import kept, read
from crdt_sessions.storage.stored import Delivery

_READ = (
    "SELECT deliveries.id, endpoint, session, kind, body, deliveries.created_at, attempts, next_at, error, dead"
    " FROM deliveries JOIN sessions ON sessions.id = session WHERE dead = $1"
    f" AND ($2::bigint IS NULL OR (next_at <= $2 AND {served_here('sessions.owner', '$5::bigint')}))"
    " AND ($3::text IS NULL OR sessions.tenant = $3) ORDER BY deliveries.created_at, deliveries.id LIMIT $4"
)
_DELIVERED = fenced(gone="DELETE FROM deliveries WHERE id = $4")
_POSTPONE = fenced(
    "put",
    put="UPDATE deliveries SET attempts = $5, next_at = $6, error = $7, dead = $8 WHERE id = $4"
    " AND ($9::text IS NULL OR session IN (SELECT id FROM sessions WHERE tenant = $9))",
)


class PostgresDeliveries(OfDatabase, Deliveries):
    """The :class:`Deliveries` in a database. Each node is told of what is due in the sessions that it serves."""

    async def deliveries(
        self, *, due: Millis | None, dead: bool = False, limit: int, tenant: str | None = None
    ) -> Sequence[Delivery]:
        found = await self._database.select(_READ, dead, due, tenant, limit, self._database.nodes.me)
        return [
            Delivery(id, endpoint, session, kind, read(body), created_at, attempts, next_at, read(error), dead)
            for id, endpoint, session, kind, body, created_at, attempts, next_at, error, dead in found
        ]

    async def delivered(self, id: str) -> None:
        await self._database.submit(lambda lane: lane.write(_DELIVERED, id))

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
        async def job(lane: Lane) -> bool:
            try:
                await lane.write(_POSTPONE, id, attempts, next_at, kept(error), dead, tenant)
            except Refused as refused:
                if refused.why == NOTHING:
                    return False
                raise
            return True

        return await self._database.submit(job)
