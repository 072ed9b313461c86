"""Where the logs end: as the writer knows it, and as the table ``sessions`` says.

Where nothing is appended but a few rows, a commit is one statement. What ``sessions`` says of the ends of their logs
follows with the next transaction that does anything else, after a second at the latest
(``docs/decisions/0019-one-statement-for-a-commit.md``).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage.outcome import Outcome
from crdt_sessions.storage.sqlite.statements import changed
from crdt_sessions.storage.stored import NO_ENTRIES, Entries, Row

ROWS_AT_ONCE = 64
"""How many rows a statement inserts at most; there is one for each number, compiled once."""
WRITTEN = (
    "max(coalesce((SELECT max(seq) FROM updates WHERE session = id), 0),"
    " coalesce((SELECT max(seq) FROM snapshots WHERE session = id), 0))"
)
"""SQL for the last row of a session that was stored, whatever ``sessions`` says; 0 if there is none.

A process that died may have told ``sessions`` nothing of its last rows, and the next one has folded them already.
"""
_ADVANCE = (
    "UPDATE sessions SET last_seq = head.last, updated_at = head.at, change = 1 + head.place +"
    " (SELECT max(change) FROM sessions AS others WHERE others.tenant = sessions.tenant) FROM"
    " (SELECT key AS place, json_extract(value, '$[0]') AS session, json_extract(value, '$[1]') AS before,"
    " json_extract(value, '$[2]') AS last, json_extract(value, '$[3]') AS at FROM json_each(?)) AS head"
    " WHERE id = head.session AND deleted_at IS NULL AND (head.before IS NULL OR"
    f" head.before = max(last_seq, {WRITTEN}))"
)
"""Move the ends of many logs, as far as they are where they should be, or where is null.

All are put behind the other sessions of their tenants in the order of changes, by the one statement: a trigger would
be another one for each.
"""
_MOST_KNOWN = 10_000
"""Sessions of which is remembered where their logs end; a row of another one is written with a look at the table."""


class Append(NamedTuple):
    """Rows for one session. Those of many sessions are one statement."""

    session: SessionId
    rows: Sequence[Row]
    entries: Entries
    now: Millis


Job = Callable[[sqlite3.Connection], None]


@dataclass(slots=True)
class Queued:
    """Something to be written, and who waits for it."""

    job: Job | Append
    done: Outcome
    deletes: SessionId | None = None


class Heads:
    """Where the logs end, as the writer knows it. Only its thread changes this."""

    def __init__(self) -> None:
        self._last: dict[SessionId, int] = {}  # of those that were written to lately
        self.behind: dict[SessionId, tuple[int, Millis]] = {}
        """What ``sessions`` does not say yet: the last row, and when it was written."""

    def followed_by(self, jobs: Sequence[Queued]) -> list[Append] | None:
        """Return *jobs*, if they are nothing but a few rows that follow the known ends of logs."""
        ends: dict[SessionId, int] = {}
        appends: list[Append] = []
        count = 0
        for queued in jobs:
            job = queued.job
            if not isinstance(job, Append) or job.entries is not NO_ENTRIES:
                return None
            if ends.get(job.session, self._last.get(job.session)) != job.rows[0].seq - 1:
                return None
            ends[job.session] = job.rows[-1].seq
            appends.append(job)
            count += len(job.rows)
        return appends if count <= ROWS_AT_ONCE else None

    def appended(self, jobs: Sequence[Queued], *, told: bool) -> None:
        """Note that the rows of *jobs* were committed, and whether ``sessions`` was *told* of them."""
        if told:
            self.behind.clear()
        if len(self._last) > _MOST_KNOWN:
            self._last.clear()
        for queued in jobs:
            if queued.deletes is not None:
                self._last.pop(queued.deletes, None)
            if not isinstance(job := queued.job, Append):
                continue
            self._last[job.session] = job.rows[-1].seq
            if not told:
                self.behind[job.session] = (job.rows[-1].seq, job.now)

    def catch_up(self, connection: sqlite3.Connection) -> None:
        """Tell ``sessions`` of the ends of the logs."""
        if self.behind:
            advance(connection, [(session, None, last, at) for session, (last, at) in self.behind.items()])


def advance(connection: sqlite3.Connection, heads: Sequence[tuple[SessionId, int | None, int, int]]) -> int:
    """Have ``sessions`` say where logs end; return of how many it does now.

    Args:
        connection: inside a transaction.
        heads: session, the last row there was or None if that is known, the last row, when it was written.
    """
    return changed(connection, _ADVANCE, (json.dumps(heads),))
