"""Looks at a database file without changing it, also one that is damaged or in use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from crdt_sessions.errors import StorageError
from crdt_sessions.ids import Millis, Seq, SessionId
from crdt_sessions.storage.inspected import Inspected, InspectedStream, gaps
from crdt_sessions.storage.integrity import checksum
from crdt_sessions.storage.packing import unpack
from crdt_sessions.storage.sqlite import records
from crdt_sessions.storage.sqlite.foreign import schema_version
from crdt_sessions.storage.sqlite.stream_inspection import inspected_streams
from crdt_sessions.storage.stored import Entries, Row, SessionRecord, Version

_VERSIONS_SINCE = 3
"""The schema that gave snapshots a time and a name."""
_PACKED_SINCE = 4
"""The schema that compresses snapshots."""
_LINEAGE_SINCE = 6
"""The schema that gives each creation of a session a name of its own."""


class Inspection:
    """A database, opened to be looked at. Use it as a context manager.

    Args:
        path: the file.

    Raises:
        StorageError: (on entering) it is not there, or cannot be read.
        ForeignDatabase: (on entering) it is no database, or one of something else.
        NewerSchema: (on entering) a newer release wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.version = 0
        """The schema version."""

    def __enter__(self) -> Inspection:
        if not self.path.is_file():
            raise StorageError(f"there is no file {self.path}")
        with contextlib.ExitStack() as undo:
            try:
                self._connection = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)
                undo.callback(self._connection.close)
                self.version = schema_version(self._connection, self.path)
            except sqlite3.Error as error:
                why = _not_opened(self.path, error) or f"it cannot be read as a SQLite database: {error}"
                raise StorageError(f"{self.path}: {why}") from error
            if self.version == 0:
                raise StorageError(f"{self.path} is not a database of sessions: it is empty")
            undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()

    def integrity(self) -> list[str]:
        """Return what SQLite finds wrong with the file; nothing if it is whole."""
        try:
            with closing(self._connection.execute("PRAGMA integrity_check")) as cursor:
                found = [str(line) for (line,) in cursor]
        except sqlite3.Error as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def sessions(self) -> Iterator[Inspected]:
        """Yield the sessions in order of id, deleted ones included.

        Raises:
            StorageError: the list itself cannot be read.
        """
        lineage = "lineage" if self.version >= _LINEAGE_SINCE else "generation || '-' || created_at"
        columns = f"id, generation, created_at, updated_at, status, title, {lineage}, last_seq, deleted_at"
        try:
            listed = self._connection.execute(f"SELECT {columns} FROM sessions ORDER BY id").fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the list of sessions cannot be read: {error}") from error
        for *record, last_seq, deleted_at in listed:
            yield self._session(SessionRecord(*record), last_seq, deleted=deleted_at is not None)

    def streams(self) -> Iterator[InspectedStream]:
        """Yield the durable streams, each after the one that it is a fork of.

        Raises:
            StorageError: the list itself cannot be read.
        """
        return inspected_streams(self._connection)

    def _session(self, record: SessionRecord, last_seq: int, *, deleted: bool) -> Inspected:
        problems: list[str] = []
        snapshots = self._rows(record.id, "snapshots", problems)
        newest = snapshots[-1:]
        behind = newest[0].seq if newest else 0
        rows = (*newest, *(row for row in self._rows(record.id, "updates", problems) if row.seq > behind))
        if not deleted:
            problems += gaps(rows, last_seq)
        versions = tuple(self._versions(record, snapshots))
        return Inspected(record, deleted, rows, versions, tuple(problems), self._entries(record.id, problems))

    def _versions(self, record: SessionRecord, snapshots: list[Row]) -> Iterator[tuple[Version, Row]]:
        facts: dict[int, tuple[int, str | None]] = {}
        if self.version >= _VERSIONS_SINCE:
            with contextlib.suppress(sqlite3.Error):  # then they have no names
                statement = "SELECT seq, at, name FROM snapshots WHERE session = ?"
                facts = {seq: (at, name) for seq, at, name in self._connection.execute(statement, (record.id,))}
        for row in snapshots:
            at, name = facts.get(row.seq, (record.updated_at, None))
            yield Version(row.seq, Millis(at), len(row.update), name), row

    def _rows(self, session: SessionId, table: str, problems: list[str]) -> list[Row]:
        found: list[Row] = []
        size = "size" if table == "snapshots" and self.version >= _PACKED_SINCE else "0"
        statement = f"SELECT seq, data, {size}, checksum FROM {table} WHERE session = ? ORDER BY seq"
        try:
            with closing(self._connection.execute(statement, (session,))) as cursor:
                for seq, data, length, expected in cursor:
                    update = unpack(data, length)
                    row = Row(Seq(seq), update or b"")
                    if update is not None and checksum(session, row) == expected:
                        found.append(row)
                    else:
                        problems.append(f"row {seq} of {table} does not match its checksum")
        except sqlite3.Error as error:
            problems.append(f"{table} cannot be read beyond row {found[-1].seq if found else 0}: {error}")
        return found

    def _entries(self, session: SessionId, problems: list[str]) -> Entries:
        if self.version < 2:
            return Entries()
        try:
            runs, writers = [self._connection.execute(query, (session,)).fetchall() for query in records.QUERIES]
        except sqlite3.Error as error:
            problems.append(f"runs cannot be read: {error}")
            return Entries()
        return Entries(records.runs(runs), records.writers(writers))


def _not_opened(path: Path, error: sqlite3.Error) -> str | None:
    """Return what of the file or its folder keeps SQLite from opening a database, and what to do; None if nothing.

    SQLite reads there only if it is told that the file never changes, but a service elsewhere may write to it.
    """
    if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return None
    if not _may(path, os.R_OK):
        return "it may not be read by this user; run this as the user of the service"
    folder = path.resolve().parent
    if not _may(folder, os.W_OK):
        return (
            f"the folder {folder} cannot be written to, where SQLite keeps files of its own while it reads; copy the"
            f" file, and {path.name}-wal if it is there, to another folder, and name that copy"
        )
    return None


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)
