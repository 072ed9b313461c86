"""Errors of the store: what was not acknowledged is not stored."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError, session_name


class StorageError(CrdtSessionsError):
    """The store failed. Nothing of what was to be written is stored, unless it is a :class:`StoreUnavailable`."""


class SessionFailed(StorageError):
    """The service failed half-way through a change, so it reloads the session from disk. Try again.

    What it failed on stands in the service's log with the same *reference*, and is nobody else's business.
    """

    def __init__(self, *, reference: str) -> None:
        super().__init__(f"the session failed and is loaded anew; try again (reference {reference})")
        self.reference = reference


class DamagedLog(StorageError):
    """A stored row does not match its checksum, or the CRDT cannot apply it."""

    def __init__(self, *, session: str, seq: int, why: str) -> None:
        self.session = session_name(session)
        super().__init__(f"session {self.session!r}, row {seq}: {why}")
        self.seq = seq
        self.why = why


class DamagedDatabase(StorageError):
    """SQLite finds the file damaged where it was asked to look. Other places of it may be sound."""


class StoreUnavailable(StorageError):
    """The store cannot write now: the disk is full, fails, is read-only, or another process holds a lock.

    Where a database was reached over a network, what was being written may be stored all the same: read it again
    before you write anything else.
    """


class DatabaseGone(StoreUnavailable):
    """A file of the database was removed or replaced while it was open: what would be written now is lost."""

    def __init__(self, *, path: str) -> None:
        super().__init__(
            f"{path} was removed or replaced while the service has it open: put that file back, or stop the service"
            " and restore a copy"
        )
        self.path = path


class DatabaseInUse(StorageError):
    """Another process has the database open; one process owns a database."""

    def __init__(self, *, path: str) -> None:
        super().__init__(
            f"{path} is in use by another process; one process owns a SQLite file: stop the other one, or keep the"
            " sessions in PostgreSQL, which several may share (--database postgresql://...)"
        )
        self.path = path


class DatabaseHasOtherNames(StorageError):
    """The database file has several hard links; by another name a second process could open it unnoticed."""

    def __init__(self, *, path: str, links: int) -> None:
        super().__init__(
            f"{path} has {links} names (hard links), and by each of them other files beside it: remove the others, or"
            " use a copy"
        )
        self.path = path
        self.links = links


class ForeignDatabase(StorageError):
    """The file is no database, or one of something else; it is left as it is."""

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(f"{path} holds no sessions: {why}; it is left as it is, name another file")
        self.path = path
        self.why = why


class NewerSchema(StorageError):
    """The database was written by a newer release; this one does not touch it."""

    def __init__(self, *, path: str, found: int, known: int) -> None:
        super().__init__(f"{path} has schema version {found}, this release knows {known}: upgrade crdt-sessions")
        self.path = path
        self.found = found
        self.known = known
