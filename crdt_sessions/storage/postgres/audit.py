"""The audit log: the store's methods. Rows are only ever added: a trigger refuses everything else."""

from __future__ import annotations

from collections.abc import Sequence

from crdt_sessions.ids import Millis
from crdt_sessions.storage.audit import AuditEntry, AuditRecords
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.statements import fenced
from crdt_sessions.storage.postgres.text import kept, read

_COLUMNS = "at, tenant, session, principal, action, detail"
_RECORD = fenced(
    put=f"INSERT INTO audit ({_COLUMNS}) SELECT entry.* FROM (SELECT FROM audit_turn FOR UPDATE) AS turn,"
    " unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[]) AS entry"
)
"""One at a time: a number that is given out later is also seen later, so that who reads on misses none."""
_READ = (
    f"SELECT {_COLUMNS}, id FROM audit WHERE tenant = $1 AND id > $2 AND ($3::text IS NULL OR session = $3)"
    " AND ($4::text IS NULL OR principal = $4) AND ($5::text IS NULL OR action = $5) ORDER BY id LIMIT $6"
)


class PostgresAuditRecords(OfDatabase, AuditRecords):
    """The :class:`AuditRecords` in a database."""

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        if not entries:
            return
        facts = [
            (each.at, each.tenant, kept(each.session), kept(each.principal), each.action, kept(each.detail))
            for each in entries
        ]
        columns = [list(column) for column in zip(*facts, strict=True)]
        await self._database.submit(lambda lane: lane.write(_RECORD, *columns))

    async def audit(
        self,
        tenant: str,
        *,
        session: str | None = None,
        principal: str | None = None,
        action: str | None = None,
        after: int = 0,
        limit: int,
    ) -> Sequence[AuditEntry]:
        wanted = (kept(session), kept(principal), action)
        found = await self._database.select(_READ, tenant, after, *wanted, limit)
        return [
            AuditEntry(Millis(at), tenant, read(session), read(principal), action, read(detail), id)
            for at, tenant, session, principal, action, detail, id in found
        ]
