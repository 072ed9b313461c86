"""Members of sessions and revocations: the store's methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crdt_sessions.ids import SessionId
from crdt_sessions.storage.access import AccessChanges, AccessRecords, Revocation
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.lane import Lane
from crdt_sessions.storage.postgres.statements import fenced

_SET = fenced(
    put="INSERT INTO members (session, principal, role) VALUES ($4, $5, $6)"
    " ON CONFLICT (session, principal) DO UPDATE SET role = excluded.role"
)
_REMOVE = fenced(gone="DELETE FROM members WHERE session = $4 AND principal = $5")
_REVOKE = fenced(
    put="INSERT INTO revocations (tenant, kind, value, at) VALUES ($4, $5, $6, $7)"
    " ON CONFLICT (tenant, kind, value) DO UPDATE SET at = excluded.at"
)
_CHANGED = (
    "SELECT change, session, principal, tenant, kind, value, at FROM access_changes WHERE change > $1 ORDER BY change"
)


class PostgresAccessRecords(OfDatabase, AccessRecords):
    """The :class:`AccessRecords` in a database."""

    async def members(self, session: SessionId) -> Mapping[str, str]:
        found = await self._database.select("SELECT principal, role FROM members WHERE session = $1", session)
        return dict(map(tuple, found))

    async def set_member(self, session: SessionId, principal: str, role: str | None) -> None:
        async def job(lane: Lane) -> None:
            await lane.owned(session)
            if role is None:
                await lane.write(_REMOVE, session, principal)
            else:
                await lane.write(_SET, session, principal, role)

        await self._database.submit(job, session)

    async def revoke(self, revocation: Revocation) -> None:
        facts = (revocation.tenant, revocation.kind, revocation.value, revocation.at)
        await self._database.submit(lambda lane: lane.write(_REVOKE, *facts))

    async def revocations(self) -> Sequence[Revocation]:
        found = await self._database.select("SELECT tenant, kind, value, at FROM revocations ORDER BY at")
        return [Revocation(*row) for row in found]

    async def access_changes(self, after: int | None) -> AccessChanges:
        if after is None:
            ((mark,),) = await self._database.select("SELECT coalesce(max(change), 0) FROM access_changes")
            return AccessChanges(mark)
        found = await self._database.select(_CHANGED, after)
        return AccessChanges(
            found[-1]["change"] if found else after,
            [(SessionId(each["session"]), each["principal"]) for each in found if each["session"] is not None],
            [Revocation(*list(each)[3:]) for each in found if each["session"] is None],
        )
