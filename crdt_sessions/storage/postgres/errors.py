"""What PostgreSQL's errors mean for us. Source: postgresql.org/docs/current/errcodes-appendix.html."""

from __future__ import annotations

from types import TracebackType

import asyncpg

from crdt_sessions.errors import DamagedDatabase, StorageError, StoreUnavailable
from crdt_sessions.storage.defects import defect

REFUSED = "CS001"
"""What ``refuse`` raises: see ``schema.py``."""
_LOST = ("08", "57P01", "57P02", "57P05")
"""The connection is gone, and with it the answer."""
_AGAIN = ("40", "57014")
"""The server gave up on the statement, because of another one or because it was told to."""
_UNAVAILABLE = (*_LOST, "25006", "28", "3D", "53", "55P03", "57", "58")
"""Answers that may be others in a moment, or once somebody has mended the server."""
_STRAYED = ("42P05", "26000")
"""A statement that was prepared on this connection is not there, or one that was not is."""
POOLED = (
    "a pooler hands its connections to others between transactions; connect to the server itself, or set"
    " pool_mode = session"
)
_DAMAGED = "XX00"


class Refused(Exception):
    """A statement found that it may not do what it was to do; it did nothing."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Unknown(Exception):
    """The connection was lost before the answer: whether it is stored must be looked up."""


class Again(Exception):
    """Nothing is stored, and it is worth to be tried again from the start."""


class translated:
    """Turns the driver's errors into ours, and those of values that a database cannot hold.

    Args:
        writing: whether somebody goes on from :class:`Unknown`, :class:`Again` and :class:`Refused`. Else the
            database cannot be used at the moment.
    """

    def __init__(self, *, writing: bool = False) -> None:
        self._writing = writing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(
            error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | ValueError
        ):
            found = _error_for(error)
            if not self._writing and isinstance(found, Unknown | Again | Refused):
                raise StoreUnavailable(str(found)) from error
            raise found from error


def is_lost(error: BaseException) -> bool:
    """Tell whether an error of the driver's means that the connection is gone."""
    if isinstance(error, asyncpg.PostgresError):
        return _state(error).startswith(_LOST)
    return isinstance(error, OSError | asyncpg.InternalClientError) or (
        isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError)
    )


def _error_for(error: Exception) -> Exception:
    said = str(error) or type(error).__name__
    if is_lost(error):
        return Unknown(f"PostgreSQL: the connection is lost: {said}")
    if isinstance(error, asyncpg.PostgresError):
        state = _state(error)
        if state == REFUSED:
            return Refused(said)
        if state.startswith(_DAMAGED) and state != "XX000":
            return DamagedDatabase(f"PostgreSQL: {said}; restore the database from its backup")
        if state.startswith(_AGAIN):
            return Again(f"PostgreSQL: {said}")
        if state.startswith(_UNAVAILABLE):
            return StoreUnavailable(f"PostgreSQL: {said}")
        if state in _STRAYED:
            return StorageError(f"PostgreSQL: {POOLED}")
        if state.startswith("42501"):
            return StorageError(f"PostgreSQL: {said}: the role of the service must own its schema")
    return defect(error, f"PostgreSQL: {said}")  # or a value that no database takes


def _state(error: asyncpg.PostgresError) -> str:
    return str(getattr(error, "sqlstate", None) or "")
