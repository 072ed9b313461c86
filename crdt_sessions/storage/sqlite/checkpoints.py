"""Keeps the write-ahead log of a database short, beside the commits.

SQLite begins its log anew only when everything in it was copied into the database and nobody reads an older state,
at a moment when nobody writes. Under a steady load that moment never comes by itself, so it is made: the log is
copied while commits go on, again and again until only a few pages are left, and these follow in the gap between two
commits. A log that reaches its bound all the same has the next commit wait.

What holds it up is another process that reads one state for long, such as a backup: until it is done, the log grows
by what is written meanwhile (``docs/decisions/0023-a-bounded-log.md``).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger("crdt_sessions.storage")

_BEGIN = 4
"""The log is copied as soon as it has this part of its bound; the rest is for what comes while that goes on."""
_STEP = 16
"""If it could not begin anew, that is tried again when it has grown by this part of its bound."""
_LOOK = 64
"""The log is looked at when about this part of its bound was written."""
_FEW = 64
"""Pages that may be left for the gap."""
_ROUNDS = 8
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


class Checkpoint(NamedTuple):
    """What SQLite says of a checkpoint. Source: sqlite.org/pragma.html#pragma_wal_checkpoint."""

    busy: bool
    """Whether somebody was in the way of beginning anew."""
    pages: int
    """In the log."""
    copied: int
    """Of these, into the database."""


class WriteAheadLog:
    """The file of a write-ahead log, to see how much of it is in use.

    It keeps its size when it begins anew; frames of a former round then have other salts than the header.
    Source: sqlite.org/walformat.html. SQLite takes no locks on this file, so it may be opened and closed freely.

    Args:
        path: the file.
        page_bytes: size of the database's pages.
    """

    def __init__(self, path: Path, page_bytes: int) -> None:
        self.frame_bytes = page_bytes + _FRAME_HEADER_BYTES
        self._file = path.open("rb", buffering=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def salts(self) -> bytes:
        """Return what tells the log from those before it; empty if nothing was ever written."""
        return self._read(16)

    def reaches(self, size: int) -> bool:
        """Tell whether at least *size* bytes of the file are in use."""
        frame = max(0, -(-(size - _HEADER_BYTES) // self.frame_bytes) - 1)
        found = self._read(_HEADER_BYTES + frame * self.frame_bytes + 8)
        return bool(found) and found == self.salts()

    def _read(self, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(8)


class Checkpoints:
    """Has a write-ahead log copied, and begin anew.

    Args:
        log: the log.
        max_bytes: what it may grow to, by one commit more at the most.
        run: performs a checkpoint of a mode (``PASSIVE`` or ``RESTART``) on a connection of its own, without waiting
            for anybody.
    """

    def __init__(self, log: WriteAheadLog, max_bytes: int, run: Callable[[str], Awaitable[Checkpoint]]) -> None:
        self._file = log
        self._max = max_bytes
        self._run = run
        self._salts = b""
        self._begun_anew = False  # and nothing was written since
        self._next = max_bytes // _BEGIN
        self._few_left = False
        self._unseen = 0
        self._copying: asyncio.Task[None] | None = None

    def look(self, *, held_up: bool, written: int | None = None) -> bool:
        """Look at the log after a commit, and have it copied if it is long; tell whether it is to begin anew now.

        Args:
            held_up: whether somebody in this process reads, for whom that would have to wait.
            written: about how many bytes the commit has put into the log; None if that is not known.
        """
        if written is not None and not self._few_left:
            self._unseen += written
            if self._unseen < self._max // _LOOK:  # reading the file costs more than a token's commit does otherwise
                return False
        self._unseen = 0
        salts = self._file.salts()
        if salts != self._salts:
            self._salts, self._begun_anew, self._few_left = salts, False, False
            self._next = self._max // _BEGIN
        if self._begun_anew:
            return False
        if self._few_left:
            return not held_up or self._file.reaches(max(self._max, self._next))
        if not self._file.reaches(self._next):
            return False
        if self._copying is None:
            self._copying = asyncio.create_task(self._copy(), name="sqlite checkpoint")
        return self._file.reaches(max(self._max, self._next))

    async def begin_anew(self) -> None:
        """Have the log begin anew; nobody in this process may read or write meanwhile."""
        await self.idle()
        self._few_left = False
        done = await self._try("RESTART")
        self._begun_anew = done is not None and not done.busy
        if not self._begun_anew:
            self._again_later(done)

    async def idle(self) -> None:
        """Return once nothing is being copied any more."""
        if self._copying is not None:
            await asyncio.wait({self._copying})

    def close(self) -> None:
        """Close the log's file."""
        self._file.close()

    async def _copy(self) -> None:
        try:
            left, before = 0, sys.maxsize
            done: Checkpoint | None = None
            for _ in range(_ROUNDS):
                done = await self._try("PASSIVE")
                if done is None or (left := done.pages - done.copied) >= before:
                    break  # it fails, or is held up
                if left <= _FEW:
                    self._few_left = True
                    return
                before = left
            self._again_later(done)
        finally:
            self._copying = None

    def _again_later(self, done: Checkpoint | None) -> None:
        """Leave the log alone until it has grown."""
        size = done.pages * self._file.frame_bytes if done is not None else self._next
        if size > self._max:
            _log.warning(
                "the write-ahead log has %d bytes: somebody has been reading one state of the database for long,"
                " such as a backup",
                size,
            )
        self._next = size + self._max // _STEP

    async def _try(self, mode: str) -> Checkpoint | None:
        try:
            return await self._run(mode)
        except sqlite3.Error as error:  # nothing is lost: it stays in the log, and is tried again
            _log.warning("the write-ahead log cannot be copied into the database: %s", error)
            return None
