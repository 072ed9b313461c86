"""What has changed since: the seam for those who were away, and what it takes and returns.

Every commit to a session gives it a place in the order of changes of its tenant, behind all that were given before.
A mark names such a place. Marks are the store's own: nobody else looks into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt_sessions.storage.stored import SessionRecord


@dataclass(frozen=True, slots=True)
class ChangedSession:
    """A session that has changed."""

    record: SessionRecord
    """As it is now; as it was last, if it is deleted."""
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since a mark."""

    sessions: Sequence[ChangedSession]
    """Each once, the one that changed longest ago first."""
    mark: str
    """Where to go on."""
    more: bool = False
    """Whether there is more already."""
    reset: bool = False
    """Whether the mark was of another database, or of a past that a backup took back: this begins with the first."""


class SessionChanges(Protocol):
    """The order in which the sessions of a tenant changed."""

    async def changed_sessions(
        self, tenant: str, *, since: str | None, member: str | None = None, limit: int
    ) -> Changes:
        """Return up to *limit* sessions of a tenant that changed since the mark *since*; all there are, if None.

        What changes are: its creation, every row, another title or status, a role that somebody is given in it, its
        deletion. Who goes on with the answer's mark misses none, whatever dies in between. What other processes have
        committed may appear a second later, and something may appear twice.

        Args:
            tenant: whose sessions.
            since: the mark of an earlier answer. One that this database cannot have given counts as None, and the
                answer says so (:attr:`Changes.reset`).
            member: only sessions that give this principal a role, and those that were deleted.
            limit: at least 1.
        """
        ...


def numbers_in(mark: str | None, database: str, count: int) -> list[int] | None:
    """Return the numbers in a mark of *database*; None if it is not one of these, with so many numbers."""
    if mark is None:
        return None
    name, *numbers = mark.split(".")
    if name != database or len(numbers) != count:
        return None
    if not all(number.isascii() and number.isdigit() and len(number) < _DIGITS for number in numbers):
        return None
    return [int(number) for number in numbers]


def mark_of(database: str, *numbers: int) -> str:
    """Return the mark of *database* that has these numbers."""
    return ".".join((database, *map(str, numbers)))


_DIGITS = 19
"""Numbers with fewer than so many digits fit into 64 bits."""
