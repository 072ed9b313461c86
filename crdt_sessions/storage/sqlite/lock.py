"""One process owns a database. The operating system drops the lock when the process dies, however it dies.

There are two, since neither holds everywhere. The one on a file beside the database works on every system. The one on
the database itself also keeps out who reaches it by another name with other files beside it, such as a bind mount; it
takes open file description locks, which Linux has.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from crdt_sessions.errors import DatabaseHasOtherNames, DatabaseInUse, StorageError

_BYTE = 0x40000000 + 4096
"""Which byte of the database is locked: one after those that SQLite locks (its ``PENDING_BYTE`` and 511 more)."""

if sys.platform == "win32":  # pragma: no cover - the service is tested on POSIX
    import msvcrt

    def _lock_whole(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock_whole(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


if sys.platform == "linux":

    def _lock_byte(descriptor: int) -> None:
        lock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)  # struct flock of fcntl(2)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
else:

    def _lock_byte(descriptor: int) -> None:
        """Do nothing: elsewhere there are only locks that fall when SQLite closes a descriptor, or shut it out."""


class DatabaseLock:
    """An advisory lock on a database.

    Args:
        database: the file; it is created, empty, if missing.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._descriptors: list[int] = []
        self._made: Path | None = None

    def acquire(self) -> None:
        """Take the lock, before SQLite opens the file.

        Raises:
            DatabaseInUse: another process has it.
            DatabaseHasOtherNames: the file has several hard links.
            StorageError: it cannot be opened.
        """
        try:
            file = self._database.resolve()
            if file.is_dir():
                raise StorageError(f"{file} is a folder; name a file in it")
            if not file.parent.is_dir():
                raise StorageError(
                    f"there is no folder {file.parent}; make it, or choose another place for {file.name}"
                )
        except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name too long, a character NUL
            raise StorageError(f"{self._database} cannot be opened: {error}") from error
        try:
            beside = file.with_name(f"{file.name}.lock")
            self._made = None if beside.exists() else beside
            self._take(beside, 0o600, _lock_whole)
            self._refuse_links(file)
            self._take(file, 0o644, _lock_byte)
        except BaseException:
            self.release()
            raise

    def _take(self, file: Path, mode: int, lock: Callable[[int], None]) -> None:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, mode)
        except OSError as error:
            raise StorageError(
                f"{file} cannot be opened to be written: {error.strerror}; a database is this file and others"
                " beside it, in a folder that can be written to"
            ) from error
        self._descriptors.append(descriptor)
        try:
            lock(descriptor)
        except (BlockingIOError, PermissionError) as error:  # which one depends on the system
            raise DatabaseInUse(path=str(self._database)) from error
        except OSError as error:
            raise StorageError(f"{file} cannot be locked: {error.strerror}") from error

    def _refuse_links(self, file: Path) -> None:
        """By another name it has another write-ahead log beside it: what is in the one is not seen by the other."""
        if file.is_file() and (links := file.stat().st_nlink) > 1:
            raise DatabaseHasOtherNames(path=str(file), links=links)

    def release(self) -> None:
        """Give the lock back, after SQLite has closed the file: its own locks fall with any descriptor of that file.

        The file beside the database stays, since removing it would race with the next owner.
        """
        while self._descriptors:
            os.close(self._descriptors.pop())

    def leave_no_trace(self) -> None:
        """Remove the file beside the database, if this lock made it: nobody will ever own what is not ours."""
        if self._made is not None:
            self._made.unlink(missing_ok=True)
