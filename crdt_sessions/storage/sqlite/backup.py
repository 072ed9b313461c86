"""Copies a database while it is in use."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from crdt_sessions.errors import StorageError
from crdt_sessions.storage.sqlite.inspection import Inspection

Progress = Callable[[int, int], None]
"""Called with the number of pages copied and of all pages."""

_PAGES_A_STEP = 512


def back_up(path: Path, target: Path, progress: Progress = lambda done, total: None) -> None:
    """Copy a database, as it is at one moment, into a new file; a service may be writing to it.

    SQLite's backup API reads page by page and begins anew if the service has written in between, so the copy is of
    one moment. It appears under its name only when it is complete, on disk, and whole.

    Args:
        path: the database.
        target: the copy.
        progress: called after each step.

    Raises:
        StorageError: *path* is not a database of ours, *target* exists or cannot be written, or the copy is damaged.
        NewerSchema: a newer release wrote *path*.
    """
    if target.exists():
        raise StorageError(f"{target} exists; choose another name, so that nothing is overwritten")
    if not target.parent.is_dir():
        raise StorageError(f"there is no folder {target.parent}; make it, or choose another place for {target.name}")
    partial = target.with_name(f"{target.name}.partial")
    with Inspection(path):
        pass  # it is one of ours
    try:
        _copy(path, partial, progress)
        with Inspection(partial) as copied:
            if problems := copied.integrity():
                raise StorageError(f"the copy is damaged, and so may be {path}: {problems[0]}")
        partial.replace(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path} cannot be copied to {target}: {error}") from error
    finally:
        for left in (partial, partial.with_name(f"{partial.name}-journal")):
            left.unlink(missing_ok=True)


def _copy(path: Path, partial: Path, progress: Progress) -> None:
    partial.unlink(missing_ok=True)
    source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    with closing(source), closing(sqlite3.connect(partial)) as copy:
        source.execute("BEGIN")  # one moment: what is written meanwhile does not make it begin anew
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        source.backup(
            copy,
            pages=_PAGES_A_STEP,
            progress=lambda _, remaining, total: progress(total - remaining, total),
        )
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, whole in itself
    with partial.open("rb") as file:
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make a new name in *folder* durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
