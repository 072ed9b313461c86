"""One process owns a database. The operating system drops the lock when the process dies, however it dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from crdt_sessions.errors import DatabaseInUse, StorageError

if sys.platform == "win32":  # pragma: no cover - the service is tested on POSIX
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class FileLock:
    """An advisory lock on a file beside the database.

    Args:
        path: the lock file.
        guarded: the database, for the message.
    """

    def __init__(self, path: Path, guarded: Path) -> None:
        self._path = path
        self._guarded = guarded
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DatabaseInUse: another process has it.
            StorageError: the lock file cannot be made.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error
        try:
            _try_lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise DatabaseInUse(path=str(self._guarded)) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would race with the next owner."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
