"""Members of sessions and revocations: the store's methods."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from crdt_sessions.ids import SessionId
from crdt_sessions.storage.access import AccessRecords, Revocation
from crdt_sessions.storage.sqlite.database import OfDatabase
from crdt_sessions.storage.sqlite.statements import changed, require_session


class SqliteAccessRecords(OfDatabase, AccessRecords):
    """The :class:`AccessRecords` in a database."""

    async def members(self, session: SessionId) -> Mapping[str, str]:
        return dict(await self._database.select("SELECT principal, role FROM members WHERE session = ?", (session,)))

    async def set_member(self, session: SessionId, principal: str, role: str | None) -> None:
        def job(connection: sqlite3.Connection) -> None:
            require_session(connection, session)
            if role is None:
                changed(connection, "DELETE FROM members WHERE session = ? AND principal = ?", (session, principal))
            else:
                changed(connection, "INSERT OR REPLACE INTO members VALUES (?, ?, ?)", (session, principal, role))

        await self._database.submit(job)

    async def revoke(self, revocation: Revocation) -> None:
        facts = (revocation.tenant, revocation.kind, revocation.value, revocation.at)

        def job(connection: sqlite3.Connection) -> None:
            changed(connection, "INSERT OR REPLACE INTO revocations VALUES (?, ?, ?, ?)", facts)

        await self._database.submit(job)

    async def revocations(self) -> Sequence[Revocation]:
        found = await self._database.select("SELECT tenant, kind, value, at FROM revocations", ())
        return [Revocation(*row) for row in found]
