"""Which agents wait for runs at which node: the store's methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from crdt_sessions.storage.attendance import ALL_TENANTS, Agent, AttendanceRecords
from crdt_sessions.storage.postgres.database import OfDatabase
from crdt_sessions.storage.postgres.statements import fenced

_ATTEND = fenced(
    put="INSERT INTO attendance (node, tenant, agent, waits)"
    " SELECT $2, there.* FROM unnest($4::text[], $5::text[], $6::boolean[]) AS there"
    " ON CONFLICT (node, tenant, agent) DO UPDATE SET waits = excluded.waits",
    left_us="DELETE FROM attendance WHERE node = $2"
    " AND (tenant, agent) NOT IN (SELECT * FROM unnest($4::text[], $5::text[]))",
    gone="DELETE FROM attendance USING nodes WHERE nodes.node = attendance.node AND nodes.gone",
)
_OTHERS = "FROM attendance JOIN nodes USING (node) WHERE NOT nodes.gone AND attendance.node <> $1"
_ATTENDANCE = f"SELECT tenant, agent, bool_or(waits) {_OTHERS} GROUP BY tenant, agent"
_WANTED = (
    "SELECT tenant, agent FROM attendance WHERE node = $1 AND waits AND EXISTS ("
    "SELECT FROM runs JOIN sessions ON sessions.id = runs.session WHERE ready AND runs.agent = attendance.agent"
    f" AND attendance.tenant IN (runs.tenant, '{ALL_TENANTS}') AND sessions.status = 'active')"
)
_WHERE = (
    f"SELECT node {_OTHERS} AND waits AND agent = $3 AND tenant IN ($2, '{ALL_TENANTS}')"
    " AND nodes.address <> '' ORDER BY random() LIMIT 1"
)


class PostgresAttendance(OfDatabase, AttendanceRecords):
    """The :class:`AttendanceRecords` in a database."""

    async def attend(self, waiting: Collection[Agent], working: Collection[Agent]) -> None:
        there = sorted({*waiting, *working})
        columns = (
            [tenant for tenant, _ in there],
            [agent for _, agent in there],
            [each in waiting for each in there],
        )
        await self._database.submit(lambda lane: lane.write(_ATTEND, *columns))

    async def attendance(self) -> Mapping[Agent, bool]:
        found = await self._database.select(_ATTENDANCE, self._database.nodes.me)
        return {(tenant, agent): waits for tenant, agent, waits in found}

    async def wanted(self) -> Collection[Agent]:
        return [(tenant, agent) for tenant, agent in await self._database.select(_WANTED, self._database.nodes.me)]

    async def where_waits(self, tenant: str, agent: str) -> int | None:
        found = await self._database.select(_WHERE, self._database.nodes.me, tenant, agent)
        return int(found[0][0]) if found else None
