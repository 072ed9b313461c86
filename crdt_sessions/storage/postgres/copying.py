"""What a SQLite file holds, as rows of the tables here: which columns, which of them are written otherwise.

A copy is read back and compared with what was sent before it is committed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.postgres.connection import Connection
from crdt_sessions.storage.postgres.text import kept
from crdt_sessions.storage.usage import Amounts

Rows = Sequence[tuple[Any, ...]]


class Table(NamedTuple):
    """A table that both have."""

    name: str
    key: str
    """The column here that says to what rows belong; the session's name or a stream's number in the file."""
    columns: tuple[str, ...]
    """The others, which both have."""
    flags: frozenset[str] = frozenset()
    """Numbers in the file, booleans here."""
    texts: frozenset[str] = frozenset()
    """Any text at all, as :func:`kept` writes it."""

    def read(self, connection: sqlite3.Connection, of: str | int) -> list[tuple[Any, ...]]:
        """Return the rows in the file that belong to *of*, as they are here, without the key."""
        key = "session" if self.key == "sid" else self.key
        statement = f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {key} = ?"
        return self.written(connection.execute(statement, (of,)))

    def written(self, rows: Any) -> list[tuple[Any, ...]]:
        """Return rows of the file as they are here."""
        at = {each: number for number, each in enumerate(self.columns)}
        flags = [at[each] for each in self.flags]
        texts = [at[each] for each in self.texts]
        if not flags and not texts:
            return list(rows)
        return [self._as_here(list(row), flags, texts) for row in rows]

    @staticmethod
    def _as_here(row: list[Any], flags: Sequence[int], texts: Sequence[int]) -> tuple[Any, ...]:
        for at in flags:
            row[at] = bool(row[at])
        for at in texts:
            row[at] = kept(row[at])
        return tuple(row)

    async def copy(self, connection: Connection, of: str | int, rows: Rows) -> None:
        """Copy rows, in a transaction, and read them back.

        Raises:
            StorageError: what was read is something else.
        """
        if not rows:
            return
        await connection.copy_records_to_table(
            self.name, records=[(of, *row) for row in rows], columns=(self.key, *self.columns)
        )
        found = await connection.fetch(f"SELECT {', '.join(self.columns)} FROM {self.name} WHERE {self.key} = $1", of)
        require_same(self.name, rows, [tuple(row) for row in found])


def require_same(table: str, sent: Rows, found: Rows) -> None:
    """Return if what was read back is what was sent, in any order.

    Raises:
        StorageError: it is not.
    """
    if len(sent) != len(found) or set(sent) != set(found):
        raise StorageError(f"what was read back of {table} is not what was sent; nothing of it is stored")


OF_SESSIONS = (
    Table("updates", "sid", ("seq", "at", "checksum", "waits", "data"), frozenset({"waits"})),
    Table(
        "snapshots", "sid", ("seq", "at", "checksum", "waits", "size", "name", "data"),
        frozenset({"waits"}), frozenset({"name"}),
    ),
    Table(
        "runs", "session",
        ("id", "tenant", "agent", "ready", "queued_at", "due_at", "data", "status", "answerer", "asked_at"),
        frozenset({"ready"}), frozenset({"data"}),
    ),
    Table("writers", "session", ("client", "principal", "run", "epoch", "fenced_at")),
    Table("steps", "session", ("run", "key", "value"), texts=frozenset({"run", "key", "value"})),
    Table(
        "deliveries", "session",
        ("id", "endpoint", "kind", "body", "created_at", "attempts", "next_at", "error", "dead"),
        frozenset({"dead"}), frozenset({"body", "error"}),
    ),
    Table("members", "session", ("principal", "role")),
    Table(
        "usage", "session", ("tenant", "principal", "day", "model", "currency", *Amounts._fields),
        texts=frozenset({"model", "currency"}),
    ),
)  # fmt: skip
"""What belongs to a session."""
OF_STREAMS = (
    Table("stream_entries", "stream", ("end_at", "data", "checksum")),
    Table("stream_producers", "stream", ("producer", "epoch", "seq"), texts=frozenset({"producer"})),
)
"""What belongs to a stream."""
STREAM = Table(
    "streams", "id",
    ("tenant", "path", "content_type", "owner", "created_at", "touched_at", "ttl_s", "expires_at", "due_at", "tail",
     "closed", "closed_by", "last_seq", "forked_at", "gone", "state"),
    frozenset({"closed", "gone"}), frozenset({"path", "last_seq"}),
)  # fmt: skip
"""Streams, but for what they are forks of: they get other numbers here."""
AUDIT = Table(
    "audit", "id", ("at", "tenant", "session", "principal", "action", "detail"),
    texts=frozenset({"session", "principal", "detail"}),
)  # fmt: skip
SESSION = Table(
    "sessions", "id",
    ("id", "tenant", "generation", "created_at", "updated_at", "status", "title", "lineage", "deleted_at"),
    texts=frozenset({"title"}),
)  # fmt: skip
"""Sessions, but for where their logs end, which the file may say a second too late."""
REVOCATIONS = Table("revocations", "", ("tenant", "kind", "value", "at"))
AGENTS = Table("agents", "", ("tenant", "name", "seen_at"))
