"""The outbox: the store's methods. Rows bring what is in it (``records.py``)."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.storage.deliveries import Deliveries, Delivery
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.errors import Refused
from crdt_sessions.storage.postgres.lane import Lane
from crdt_sessions.storage.postgres.statements import NOTHING, fenced
from crdt_sessions.storage.postgres.text import kept, read

_COLUMNS = "id, endpoint, session, kind, body, created_at, attempts, next_at, error, dead"
_READ = (
    f"SELECT {_COLUMNS} FROM deliveries WHERE dead = $1"
    " AND ($2::text IS NULL OR session IN (SELECT id FROM sessions WHERE tenant = $2))"
    " ORDER BY created_at, id LIMIT $3"
)
_ARE_DUE = "SELECT EXISTS (SELECT FROM deliveries WHERE NOT dead AND next_at <= $1 AND endpoint <> ALL($2::text[]))"
_TAKE = fenced(
    taken="UPDATE deliveries SET taken = $4, next_at = $5 WHERE id = ANY(ARRAY("
    "SELECT id FROM deliveries WHERE NOT dead AND next_at <= $6 AND endpoint <> ALL($8::text[])"
    " ORDER BY created_at, id LIMIT $7"
    " FOR UPDATE SKIP LOCKED))"
)
"""What another node takes just now is skipped; what it took since this began is looked at again, and is not due."""
_TAKEN = f"SELECT {_COLUMNS} FROM deliveries WHERE next_at = $1 AND taken = $2 ORDER BY created_at, id"
_TAKING_BITS = 62
_DELIVERED = fenced(gone="DELETE FROM deliveries WHERE id = $4")
_POSTPONE = fenced(
    "put",
    put="UPDATE deliveries SET attempts = $5, next_at = $6, error = $7, dead = $8 WHERE id = $4"
    " AND ($9::text IS NULL OR session IN (SELECT id FROM sessions WHERE tenant = $9))",
)


class PostgresDeliveries(OfDatabase, Deliveries):
    """The :class:`Deliveries` in a database. Every node takes some of what is due, of whatever session."""

    async def deliveries(self, *, dead: bool = False, limit: int, tenant: str | None = None) -> Sequence[Delivery]:
        return _deliveries(await self._database.select(_READ, dead, tenant, limit))

    async def take_deliveries(
        self, now: Millis, *, limit: int, lease_ms: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        ((are_due,),) = await self._database.select(_ARE_DUE, now, list(without))
        if not are_due:
            return []
        until, others = now + lease_ms, list(without)

        async def job(lane: Lane) -> Sequence[Delivery]:
            taking = secrets.randbits(_TAKING_BITS)
            await lane.write(_TAKE, taking, until, now, limit, others)
            return _deliveries(await lane.fetch(_TAKEN, until, taking))

        return await self._database.submit(job)

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


def _deliveries(found: Iterable[Any]) -> list[Delivery]:
    return [
        Delivery(id, endpoint, session, kind, read(body), created_at, attempts, next_at, read(error), dead)
        for id, endpoint, session, kind, body, created_at, attempts, next_at, error, dead in found
    ]
