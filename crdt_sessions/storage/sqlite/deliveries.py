"""The outbox: the store's methods. Rows bring what is in it (``records.py``)."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from crdt_sessions.ids import Millis
from crdt_sessions.storage.deliveries import Deliveries, Delivery
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.statements import changed, of_tenant


class SqliteDeliveries(OfDatabase, Deliveries):
    """The :class:`Deliveries` in a database."""

    async def deliveries(self, *, dead: bool = False, limit: int, tenant: str | None = None) -> Sequence[Delivery]:
        of_one, which = of_tenant(tenant)
        if of_one:
            of_one = f" AND session IN (SELECT id FROM sessions WHERE true{of_one})"
        return await self._read(f"dead = ?{of_one}", int(dead), *which, limit)

    async def take_deliveries(
        self, now: Millis, *, limit: int, lease_ms: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        marks = ", ".join("?" * len(without))
        where = f"NOT dead AND next_at <= ? AND endpoint NOT IN ({marks})"
        return await self._read(where, now, *without, limit)  # nobody else has this store

    async def _read(self, where: str, *values: Any) -> list[Delivery]:
        found = await self._database.select(
            "SELECT id, endpoint, session, kind, body, created_at, attempts, next_at, error, dead FROM deliveries"
            f" WHERE {where} ORDER BY created_at, id LIMIT ?",
            values,
        )
        return [Delivery(*row) for row in [(*facts, bool(dead)) for *facts, dead in found]]

    async def delivered(self, id: str) -> None:
        def job(connection: sqlite3.Connection) -> None:
            changed(connection, "DELETE FROM deliveries WHERE id = ?", (id,))

        await self._database.submit(job)

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
        counts: list[int] = []

        def job(connection: sqlite3.Connection) -> None:
            statement = (
                "UPDATE deliveries SET attempts = ?1, next_at = ?2, error = ?3, dead = ?4 WHERE id = ?5 AND"
                " (?6 IS NULL OR session IN (SELECT id FROM sessions WHERE tenant = ?6))"
            )
            counts.append(changed(connection, statement, (attempts, next_at, error, int(dead), id, tenant)))

        await self._database.submit(job)
        return counts[-1] > 0
