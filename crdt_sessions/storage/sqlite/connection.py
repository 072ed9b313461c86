"""Connections to the file, and how to do many statements on one of them at the cost of one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import aiosqlite

Result = TypeVar("Result")

PAGE_BYTES = 1024
"""Of a new database: a token writes a page or two into the log, whose size is what its commit costs
(``docs/decisions/0023-a-bounded-log.md``)."""
_CACHED_STATEMENTS = 192
"""Three times as many as there are statements that insert rows (``rows.py``)."""
_BUSY_MS = 2000


async def connect(path: Path) -> aiosqlite.Connection:
    """Return a connection as all of them are: WAL, every commit on disk, a short patience with locks."""
    connection = await aiosqlite.connect(path, isolation_level=None, cached_statements=_CACHED_STATEMENTS)
    try:
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {_BUSY_MS}",
        ):
            await connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        await connection.close()  # its thread would outlive everything else, and hold the process
        raise
    return connection


async def in_its_thread(connection: aiosqlite.Connection, work: Callable[[sqlite3.Connection], Result]) -> Result:
    """Do *work*, many statements perhaps, in the connection's thread, and come back once.

    aiosqlite goes to the thread and back for every statement, which costs more than most statements do. What it
    does that with has no public name.
    """
    result: Result = await connection._execute(work, connection._conn)  # type: ignore[no-untyped-call]
    return result
