"""Looks at a database without changing it, also while nodes write to it, each session as it is at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

from crdt_sessions.errors import NewerSchema, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage.addresses import shown
from crdt_sessions.storage.inspected import Inspected, InspectedStream, gaps
from crdt_sessions.storage.integrity import checksum
from crdt_sessions.storage.packing import unpack
from crdt_sessions.storage.postgres import checks, records, rows
from crdt_sessions.storage.postgres.connection import Connection, close
from crdt_sessions.storage.postgres.errors import translated
from crdt_sessions.storage.postgres.migration import OURS
from crdt_sessions.storage.postgres.schema import STEPS
from crdt_sessions.storage.postgres.servers import Servers
from crdt_sessions.storage.postgres.store import SCHEMA
from crdt_sessions.storage.postgres.stream_inspection import inspected_streams
from crdt_sessions.storage.postgres.text import read
from crdt_sessions.storage.stored import Entries, Row, Version

_AT_ONCE = 500
_STATES_SINCE = 5
_SETTINGS = (
    "SELECT current_setting('server_version'), current_setting('fsync'), current_setting('full_page_writes'),"
    " current_setting('synchronous_standby_names'),"
    " (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))"
)
_NODES = "SELECT count(*) FILTER (WHERE NOT gone), count(*) FILTER (WHERE gone) FROM nodes"
_ORPHANS = (
    "SELECT count(*) FROM sessions WHERE owner IS NOT NULL AND NOT EXISTS"
    " (SELECT FROM nodes JOIN lanes USING (node) WHERE node = owner AND NOT gone AND NOT fenced)"
)
_LISTED = (
    f"SELECT {rows.COLUMNS}, last_seq, sid, deleted_at IS NOT NULL FROM sessions WHERE id > $1 ORDER BY id LIMIT $2"
)
_SNAPSHOTS = "SELECT seq, data, checksum, waits, size, at, name FROM snapshots WHERE sid = $1 ORDER BY seq"
_UPDATES = "SELECT seq, data, checksum, waits, 0, at, NULL FROM updates WHERE sid = $1 AND seq > $2 ORDER BY seq"


class Facts(NamedTuple):
    """What the server says of itself, and of the service's nodes."""

    server: str
    schema: int
    """Which of ours it is."""
    fsync: bool
    full_page_writes: bool
    standbys: str
    """What commits wait for; empty if they do not."""
    in_step: int
    """Standbys that are connected and waited for."""
    nodes: int
    """That count as alive."""
    gone: int
    orphans: int
    """Sessions of nodes that are gone: the next node that needs one takes it."""


class Inspection:
    """A database, opened to be looked at. Use it as a context manager.

    Args:
        url: of the database.
        schema: the PostgreSQL schema of the tables.

    Raises:
        NewerSchema: (on entering) a newer release wrote it.
        StorageError: (on entering) there is no way to it, or it is not a database of ours.
    """

    def __init__(self, url: str, *, schema: str = SCHEMA) -> None:
        self._url = url
        self._schema = schema
        self._connection: Connection
        self.version = 0
        """The schema version."""

    async def __aenter__(self) -> Inspection:
        self._connection = await Servers(self._url, self._schema).connect("crdt-sessions doctor")
        try:
            with translated():
                if await self._connection.fetchval(f"SELECT to_regclass('{OURS}')") is None:
                    raise StorageError(
                        f"{shown(self._url)} has no sessions: there is no schema {self._schema} of ours"
                    )
                version, compatible = await self._connection.fetchrow(f"SELECT version, compatible FROM {OURS}") or (
                    0,
                    0,
                )
            if compatible > len(STEPS):
                raise NewerSchema(path=f"the PostgreSQL schema {self._schema}", found=version, known=len(STEPS))
        except BaseException:
            await close(self._connection)
            raise
        self.version = version
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await close(self._connection)

    async def facts(self) -> Facts:
        """Return what the server says."""
        with translated():
            (settings,) = await self._connection.fetch(_SETTINGS)
            ((nodes, gone),) = await self._connection.fetch(_NODES)
            orphans = await self._connection.fetchval(_ORPHANS)
        server, fsync, pages, standbys, in_step = settings
        return Facts(server, self.version, fsync == "on", pages == "on", standbys, in_step, nodes, gone, orphans)

    async def check(self) -> None:
        """Return if what the server acknowledges stays.

        Raises:
            StorageError: it would not; the message says which setting it is.
        """
        await checks.check_server(self._connection, url=self._url, quorum=False)

    async def sessions(self) -> AsyncIterator[Inspected]:
        """Yield the sessions in order of id, deleted ones included."""
        after = ""
        while True:
            with translated():
                names = [id for id, *_ in await self._connection.fetch(_LISTED, after, _AT_ONCE)]
            for id in names:
                found = await self._session(SessionId(id))
                if found is not None:
                    yield found
            if not names:
                return
            after = names[-1]

    def streams(self) -> AsyncIterator[InspectedStream]:
        """Yield the durable streams, each after the one that it is a fork of."""
        return inspected_streams(self._connection, states=self.version >= _STATES_SINCE)

    async def _session(self, id: SessionId) -> Inspected | None:
        with translated():
            async with self._connection.transaction(isolation="repeatable_read", readonly=True):
                found = await self._connection.fetchrow(_LISTED.replace("id > $1", "id = $1"), id, 1)
                if found is None:
                    return None
                *_, last_seq, sid, deleted = found
                stored = await self._connection.fetch(_SNAPSHOTS, sid)
                problems: list[str] = []
                snapshots = _whole(id, "snapshots", stored, problems)
                behind = snapshots[-1][0].seq if snapshots else 0
                updates = _whole(id, "updates", await self._connection.fetch(_UPDATES, sid, behind), problems)
                runs = rows.grouped(await self._connection.fetch(records.RUNS, [id]))[id]
                writers = rows.grouped(await self._connection.fetch(records.WRITERS, [id]))[id]
        entries = Entries(records.run_entries(runs), records.writer_entries(writers))
        kept = tuple(row for row, _ in (*snapshots[-1:], *updates))
        if not deleted:
            problems += gaps(kept, last_seq)
        versions = tuple((version, row) for row, version in snapshots)
        return Inspected(rows.record_of(found), deleted, kept, versions, tuple(problems), entries)


def _whole(id: SessionId, table: str, stored: Sequence[Any], problems: list[str]) -> list[tuple[Row, Version]]:
    """Return the rows that match their checksums; say which do not."""
    found = []
    for seq, data, expected, waits, size, at, name in stored:
        update = unpack(data, size)
        row = Row(Seq(seq), update or b"", waits)
        if update is not None and checksum(id, row) == expected:
            found.append((row, Version(row.seq, Millis(at), len(row.update), read(name))))
        else:
            problems.append(f"row {seq} of {table} does not match its checksum")
    return found
