"""What runs have used: the store's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crdt_sessions.ids import SessionId
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.records import disown_usage
from crdt_sessions.storage.usage import Amounts, UsageRecords

_SUMS = ", ".join(f"sum({name})" for name in Amounts._fields)


class SqliteUsageRecords(OfDatabase, UsageRecords):
    """The :class:`UsageRecords` in a database."""

    async def usage(
        self,
        tenant: str,
        *,
        session: SessionId | None = None,
        principal: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Mapping[tuple[str, str], Amounts]:
        wanted: list[tuple[str, Any]] = [
            ("session = ?", session),
            ("principal = ?", principal),
            ("day >= ?", since),
            ("day <= ?", until),
        ]
        if session is not None:
            await self._database.caught_up(session)
        asked = [(condition, value) for condition, value in wanted if value is not None]
        found = await self._database.select(
            f"SELECT model, currency, {_SUMS} FROM usage WHERE tenant = ?"
            f"{''.join(f' AND {condition}' for condition, _ in asked)} GROUP BY model, currency",
            (tenant, *(value for _, value in asked)),
        )
        return {(model, currency): Amounts(*amounts) for model, currency, *amounts in found}

    async def disown_usage(self, tenant: str, principal: str) -> None:
        await self._database.submit(lambda connection: disown_usage(connection, tenant, principal))
