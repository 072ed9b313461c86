"""The audit log: the store's methods. Rows are only ever added: triggers refuse everything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from crdt_sessions.ids import Millis
from crdt_sessions.storage.audit import AuditEntry, AuditRecords
from crdt_sessions.storage.sqlite.database import OfDatabase

_INSERT = "INSERT INTO audit (at, tenant, session, principal, action, detail) VALUES (?, ?, ?, ?, ?, ?)"


class SqliteAuditRecords(OfDatabase, AuditRecords):
    """The :class:`AuditRecords` in a database."""

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        facts = [(each.at, each.tenant, each.session, each.principal, each.action, each.detail) for each in entries]

        def job(connection: sqlite3.Connection) -> None:
            connection.executemany(_INSERT, facts)

        await self._database.submit(job)

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
        wanted = {"session": session, "principal": principal, "action": action}
        given = {column: value for column, value in wanted.items() if value is not None}
        conditions = "".join(f" AND {column} = ?" for column in given)
        found = await self._database.select(
            "SELECT at, tenant, session, principal, action, detail, id FROM audit"
            f" WHERE tenant = ? AND id > ?{conditions} ORDER BY id LIMIT ?",
            (tenant, after, *given.values(), limit),
        )
        return [AuditEntry(Millis(at), *rest) for at, *rest in found]
