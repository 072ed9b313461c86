"""``crdt-sessions import``: moves a SQLite database into PostgreSQL, and says what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.addresses import shown
from crdt_sessions.storage.sqlite.inspection import Inspection
from crdt_sessions_server.ops import postgres
from crdt_sessions_server.ops.doctor import problems_of

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]

_TABLES = (
    "sessions",
    "updates",
    "snapshots",
    "runs",
    "writers",
    "steps",
    "deliveries",
    "members",
    "usage",
    "streams",
    "stream_entries",
    "stream_producers",
    "audit",
    "revocations",
    "agents",
)
"""In the order in which they are told."""


async def move(file: Path, url: str, say: Say, progress: Progress, *, dry_run: bool = False) -> None:
    """Move a SQLite database into PostgreSQL; a run that was killed is gone on with.

    Args:
        file: the database. No service may have it open; nothing in it is changed.
        url: of the PostgreSQL database.
        say: called with each line.
        progress: called with what is copied, how much of it is done, and how much there is.
        dry_run: only look whether it could be done.

    Raises:
        StorageError: it cannot be done; the message says why, and what to do.
        ValueError: the driver is missing.
    """
    with postgres.importer(file, url) as importer:
        _refuse_damaged(file)
        done = await importer.run(progress, dry_run=dry_run)
    for table in _TABLES:
        if done.copied[table]:
            say(f"  {done.copied[table]} {table.replace('_', ' ')}")
    if done.there:
        say(f"  {done.there} sessions had been copied before")
    if dry_run:
        say(f"{file} can be moved to {shown(url)}; nothing was moved")
    else:
        say(f"all of {file} is in {shown(url)}, read back and compared; next: crdt-sessions serve --database URL")


def _refuse_damaged(file: Path) -> None:
    with Inspection(file) as inspection:
        problems = [f"the file is damaged: {problem}" for problem in inspection.integrity()]
        for session in inspection.sessions():
            problems += [f"{unquote(session.record.id)}: {problem}" for problem in problems_of(session)]
    if problems:
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise StorageError(
            f"{file} is damaged: {problems[0]}{more}; nothing was copied: save what can be read with crdt-sessions"
            f" doctor {file} --salvage NEW-FILE, and import that"
        )
