"""What runs have used: the store's method."""

from __future__ import annotations

from collections.abc import Mapping

from crdt_sessions.ids import SessionId
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.records import ADDED, AMOUNTS, USAGE_COLUMNS, USAGE_KEY
from crdt_sessions.storage.postgres.statements import fenced
from crdt_sessions.storage.postgres.text import read
from crdt_sessions.storage.usage import Amounts, UsageRecords

_SUMS = ", ".join(f"sum({name})::bigint" for name in Amounts._fields)
_READ = (
    f"SELECT model, currency, {_SUMS} FROM usage WHERE tenant = $1 AND ($2::text IS NULL OR session = $2)"
    " AND ($3::text IS NULL OR principal = $3) AND ($4::bigint IS NULL OR day >= $4)"
    " AND ($5::bigint IS NULL OR day <= $5) GROUP BY model, currency"
)
_DISOWN = fenced(
    whose="DELETE FROM usage WHERE tenant = $4 AND principal = $5 RETURNING *",
    nobodys=f"INSERT INTO usage ({USAGE_COLUMNS}) SELECT tenant, '', day, session, model, currency, {AMOUNTS}"
    f" FROM whose ON CONFLICT ({USAGE_KEY}) DO UPDATE SET {ADDED}",
)

_DISOWN = fenced(
    used="DELETE FROM usage WHERE tenant = $4 AND principal = $5 AND principal <> '' RETURNING *",
    nobodys=f"INSERT INTO usage ({USAGE_COLUMNS}) SELECT tenant, '', day, session, model, currency, {AMOUNTS}"
    f" FROM used ON CONFLICT ({USAGE_KEY}) DO UPDATE SET {ADDED}",
)


class PostgresUsageRecords(OfDatabase, UsageRecords):
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
        found = await self._database.select(_READ, tenant, session, principal, since, until)
        return {(read(model), read(currency)): Amounts(*amounts) for model, currency, *amounts in found}

    async def disown_usage(self, tenant: str, principal: str) -> None:
        await self._database.submit(lambda lane: lane.write(_DISOWN, tenant, principal))
