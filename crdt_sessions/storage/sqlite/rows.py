"""Rows, snapshots and the records of sessions, as SQL inside a transaction."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from crdt_sessions import failpoints
from crdt_sessions.errors import SessionExists, StorageError
from crdt_sessions.ids import Millis, Seq, SessionId, tenant_of
from crdt_sessions.storage.integrity import checksum, verified
from crdt_sessions.storage.packing import pack
from crdt_sessions.storage.sqlite import records
from crdt_sessions.storage.sqlite.heads import ROWS_AT_ONCE, Append, advance
from crdt_sessions.storage.sqlite.statements import changed, require_session
from crdt_sessions.storage.stored import History, Row, SessionRecord, StoredSession, Version

COLUMNS = "id, generation, created_at, updated_at, status, title, lineage"
"""Of ``sessions``: what makes a record."""
RECORD = f"SELECT {COLUMNS} FROM sessions"
_ROWS_UP_TO = (
    "WITH newest AS (SELECT * FROM snapshots WHERE session = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1)"
    " SELECT seq, data, checksum, waits, size FROM newest UNION ALL SELECT seq, data, checksum, waits, 0 FROM"
    " (SELECT * FROM updates WHERE session = ?1 AND seq <= ?2 AND seq > coalesce((SELECT seq FROM newest), 0)"
    " ORDER BY seq)"
)
"""The newest snapshot, then the rows after it."""
_INSERT = "INSERT INTO updates (session, seq, data, checksum, waits, at) VALUES"
_PLACES = "(?, ?, ?, ?, ?, ?)"
_INSERT_SNAPSHOT = (
    "INSERT INTO snapshots (session, seq, checksum, waits, data, size, name, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_NO_BOUND = 2**62

Snapshot = tuple[str, int, int, bool, bytes, int]
"""As it is stored: session, number, checksum, whether it waits, packed bytes, unpacked size."""
_StoredRow = tuple[str, int, bytes, int, bool, int]


def insert_session(connection: sqlite3.Connection, record: SessionRecord, last_seq: Seq) -> None:
    """Put a new session on record.

    Raises:
        SessionExists: there is one of that name, or its generation is not the next one.
    """
    made = changed(
        connection,
        "INSERT INTO sessions"
        " (id, generation, created_at, updated_at, status, title, last_seq, tenant, lineage)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " generation = excluded.generation, created_at = excluded.created_at,"
        " updated_at = excluded.updated_at, status = excluded.status, title = excluded.title,"
        " last_seq = excluded.last_seq, deleted_at = NULL, lineage = excluded.lineage"
        " WHERE deleted_at IS NOT NULL AND sessions.generation = excluded.generation - 1",
        (
            record.id, record.generation, record.created_at, record.updated_at, record.status, record.title, last_seq,
            tenant_of(record.id), record.lineage,
        ),
    )  # fmt: skip
    if not made:
        raise SessionExists(session=record.id)


def append_rows(connection: sqlite3.Connection, appends: Sequence[Append]) -> None:
    """Append a few rows in a transaction of one statement, for which this thread waits for the lock only once."""
    for _ in appends:
        failpoints.reach("before-append")
    failpoints.reach("before-commit")
    insert_rows(connection, appends)
    failpoints.reach("after-commit")


def append_all(connection: sqlite3.Connection, appends: Sequence[Append]) -> None:
    """Append rows to sessions. Few statements: each one costs this thread the interpreter's lock, and a wait for it.

    Raises:
        SessionNotFound: one of the sessions does not exist.
        StorageError: the rows of one of them do not follow its last one.
    """
    if not appends:
        return
    for _ in appends:
        failpoints.reach("before-append")
    heads: dict[SessionId, tuple[SessionId, int, int, int]] = {}
    for each in appends:
        before, last = each.rows[0].seq - 1, each.rows[-1].seq
        if each.session in heads:
            _, start, end, _ = heads[each.session]
            before = start if before == end else _NO_BOUND
        heads[each.session] = (each.session, before, last, each.now)
    if advance(connection, list(heads.values())) != len(heads):
        for each in appends:
            require_session(connection, each.session)
        raise StorageError(f"rows for {' or '.join(each.session for each in appends)} do not follow the last one")
    insert_rows(connection, appends)
    for each in appends:
        records.put(connection, each.session, each.entries)


def insert_rows(connection: sqlite3.Connection, appends: Sequence[Append]) -> None:
    """Insert the rows of *appends*, as they are."""
    rows = [row for each in appends for row in _stored(each.session, each.rows, each.now)]
    for at in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[at : at + ROWS_AT_ONCE]
        connection.execute(_insertion(len(some)), [value for row in some for value in row])


@functools.cache
def _insertion(count: int) -> str:
    return f"{_INSERT} {', '.join([_PLACES] * count)}"


def _stored(session: SessionId, rows: Sequence[Row], now: Millis) -> list[_StoredRow]:
    return [(session, row.seq, row.update, checksum(session, row), row.waits, now) for row in rows]


def packed(session: SessionId, snapshot: Row) -> Snapshot:
    """Return a snapshot as it is stored. Takes its time: not for the event loop."""
    return (session, snapshot.seq, checksum(session, snapshot), snapshot.waits, *pack(snapshot.update))


def put_snapshot(connection: sqlite3.Connection, stored: Snapshot, name: str | None, at: Millis) -> None:
    """Insert a snapshot of when the last row in it was written; one that is there only gets the name, if any."""
    session, seq, *_ = stored
    written = "SELECT at FROM updates WHERE session = ? AND seq = ?"
    found = connection.execute(written, (session, seq)).fetchone() or (at,)
    statement = f"{_INSERT_SNAPSHOT} ON CONFLICT DO UPDATE SET name = coalesce(excluded.name, name)"
    changed(connection, statement, (*stored, name, *found))


def insert_snapshots(
    connection: sqlite3.Connection, stored: Iterable[Snapshot], facts: Iterable[tuple[str | None, Millis]]
) -> None:
    """Insert snapshots with their *facts*: name and time."""
    connection.executemany(_INSERT_SNAPSHOT, [(*row, *about) for row, about in zip(stored, facts, strict=True)])


def base_of(connection: sqlite3.Connection, session: SessionId) -> Seq:
    """Return the number of the snapshot that the rows follow; 0 if they go back to the first one."""
    statement = (
        "SELECT coalesce(max(seq), 0) FROM snapshots WHERE session = ?1"
        " AND seq < coalesce((SELECT min(seq) FROM updates WHERE session = ?1), 9e18)"
    )
    return Seq(connection.execute(statement, (session,)).fetchone()[0])


def versions(connection: sqlite3.Connection, session: SessionId) -> list[Version]:
    """Return the snapshots that were kept, oldest first."""
    statement = "SELECT seq, at, iif(size, size, length(data)), name FROM snapshots WHERE session = ? ORDER BY seq"
    found = connection.execute(statement, (session,))
    return [Version(Seq(seq), Millis(at), size, name) for seq, at, size, name in found]


def history(connection: sqlite3.Connection, session: SessionId) -> History:
    """Return what can be read of a session's past.

    Raises:
        SessionNotFound: there is no such session.
    """
    require_session(connection, session)
    kept, base = versions(connection, session), base_of(connection, session)
    rows = connection.execute("SELECT seq, at FROM updates WHERE session = ? ORDER BY seq", (session,)).fetchall()
    points = [(version.seq, version.at) for version in kept if version.seq == base] + rows
    return History(kept, Seq(points[0][0]), Seq(points[-1][0]), [Millis(at) for _, at in points])


def rows_up_to(connection: sqlite3.Connection, session: SessionId, seq: Seq) -> list[Any]:
    """Return the newest snapshot up to row *seq*, and the rows from there, for :func:`verified`."""
    return connection.execute(_ROWS_UP_TO, (session, seq)).fetchall()


def load(connection: sqlite3.Connection, session: SessionId) -> StoredSession | None:
    """Return everything stored of a session, or None if there is none.

    Raises:
        DamagedLog: a row does not match its checksum, or one is missing.
    """
    found = connection.execute(
        f"SELECT {COLUMNS}, last_seq FROM sessions WHERE id = ? AND deleted_at IS NULL", (session,)
    ).fetchone()
    if found is None:
        return None
    *record, last_seq = found
    stored = rows_up_to(connection, session, Seq(_NO_BOUND))
    runs, writers = [connection.execute(query, (session,)).fetchall() for query in records.QUERIES]
    return StoredSession(
        SessionRecord(*record), verified(session, stored, last_seq), records.runs(runs), records.writers(writers)
    )
