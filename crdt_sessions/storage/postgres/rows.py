"""Reads rows, snapshots and the records of sessions, as SQL inside a transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from crdt_sessions.errors import DamagedLog, SessionNotFound
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage.integrity import verified
from crdt_sessions.storage.postgres import records
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.text import read
from crdt_sessions.storage.stored import History, SessionRecord, StoredSession, Version

COLUMNS = "id, generation, created_at, updated_at, status, title, lineage"
"""Of ``sessions``: what makes a record."""
RECORD = f"SELECT {COLUMNS}, last_seq, sid FROM sessions WHERE id = $1 AND deleted_at IS NULL"
_RECORDS = RECORD.replace("= $1", "= ANY($1::text[])")
VERSIONS = (
    "SELECT seq, at, CASE WHEN size > 0 THEN size ELSE length(data) END, name FROM snapshots WHERE sid = $1"
    " ORDER BY seq"
)
_UP_TO = (
    "WITH newest AS (SELECT * FROM snapshots WHERE sid = $1 AND seq <= $2 ORDER BY seq DESC LIMIT 1)"
    " SELECT seq, data, checksum, waits, size FROM newest UNION ALL"
    " SELECT seq, data, checksum, waits, 0 FROM updates WHERE sid = $1 AND seq <= $2"
    " AND seq > coalesce((SELECT seq FROM newest), 0) ORDER BY seq"
)
"""The newest snapshot, then the rows after it."""
_NEWEST = (
    "SELECT wanted.sid, stored.* FROM unnest($1::bigint[]) AS wanted (sid) CROSS JOIN LATERAL ("
    + _UP_TO.replace(" AND seq <= $2", "").replace("$1", "wanted.sid")
    + ") AS stored"
)
"""The same for many sessions, up to the end."""


def record_of(row: Any) -> SessionRecord:
    """Return a row that begins with :data:`COLUMNS` as a value."""
    id, generation, created_at, updated_at, status, title, lineage = tuple(row)[:7]
    return SessionRecord(id, generation, created_at, updated_at, status, read(title), lineage)


def versions_of(rows: Sequence[Any]) -> list[Version]:
    """Return the rows of :data:`VERSIONS` as values."""
    return [Version(Seq(seq), Millis(at), size, read(name)) for seq, at, size, name in rows]


def base_of(versions: Sequence[Version], first: int | None) -> Seq:
    """Return the number of the snapshot that the rows follow; 0 if they go back to the first one.

    Args:
        versions: those that are kept.
        first: the number of the first row; None if there is none.
    """
    return Seq(max((each.seq for each in versions if first is None or each.seq < first), default=0))


async def load(connection: Connection, session: SessionId) -> StoredSession | None:
    """Return everything stored of a session, or None if there is none.

    Raises:
        DamagedLog: a row does not match its checksum, or one is missing.
    """
    found = (await load_all(connection, [session])).get(session)
    if isinstance(found, DamagedLog):
        raise found
    return found


async def load_all(
    connection: Connection, sessions: Sequence[SessionId]
) -> dict[SessionId, StoredSession | DamagedLog]:
    """Return everything stored of those sessions that there are, or why it is damaged."""
    found = await connection.fetch(_RECORDS, sessions)
    stored = grouped(await connection.fetch(_NEWEST, [row["sid"] for row in found]))
    runs = grouped(await connection.fetch(records.RUNS, sessions))
    writers = grouped(await connection.fetch(records.WRITERS, sessions))
    loaded: dict[SessionId, StoredSession | DamagedLog] = {}
    for row in found:
        record = record_of(row)
        try:
            loaded[record.id] = StoredSession(
                record,
                verified(record.id, stored[row["sid"]], row["last_seq"]),
                records.run_entries(runs[record.id]),
                records.writer_entries(writers[record.id]),
            )
        except DamagedLog as error:
            loaded[record.id] = error
    return loaded


def grouped(rows: Sequence[Any]) -> defaultdict[Any, list[Any]]:
    """Return rows by their first column, without it."""
    found: defaultdict[Any, list[Any]] = defaultdict(list)
    for key, *rest in rows:
        found[key].append(rest)
    return found


async def sid_of(connection: Connection, session: SessionId) -> int:
    """Return the ``sid`` of a session.

    Raises:
        SessionNotFound: there is none, or it was deleted.
    """
    found = await connection.fetchrow(RECORD, session)
    if found is None:
        raise SessionNotFound(session=session)
    return int(found["sid"])


async def rows_up_to(connection: Connection, sid: int, seq: Seq) -> list[Any]:
    """Return the newest snapshot up to row *seq*, and the rows from there, for :func:`verified`."""
    return await connection.fetch(_UP_TO, sid, seq)


async def history(connection: Connection, session: SessionId) -> History:
    """Return what can be read of a session's past.

    Raises:
        SessionNotFound: there is no such session.
    """
    sid = await sid_of(connection, session)
    kept = versions_of(await connection.fetch(VERSIONS, sid))
    rows = [
        tuple(row) for row in await connection.fetch("SELECT seq, at FROM updates WHERE sid = $1 ORDER BY seq", sid)
    ]
    base = base_of(kept, rows[0][0] if rows else None)
    points = [(version.seq, version.at) for version in kept if version.seq == base] + rows
    return History(kept, Seq(points[0][0]), Seq(points[-1][0]), [Millis(at) for _, at in points])
