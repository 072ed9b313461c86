"""Lists of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.storage.stored import SessionRecord


class SessionIndex(Protocol):
    """Lists of sessions. The time of a session's last change, and so its place, may be behind for a second."""

    async def sessions(
        self,
        *,
        after: SessionId | None,
        limit: int,
        tenant: str | None = None,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
    ) -> Sequence[SessionRecord]:
        """Return up to *limit* records in order of id, those after *after*.

        Of one *tenant*, or of all if None; with one of *statuses*; in which *member* has a role of their own.
        """
        ...

    async def recent_sessions(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        member: str | None = None,
        before: tuple[Millis, SessionId] | None = None,
        limit: int,
    ) -> Sequence[SessionRecord]:
        """Return up to *limit* records of a tenant, those that changed last first.

        *before* is the time of change and the id of the last one that is known. What changes meanwhile moves to the
        front: it is not returned twice. *statuses* and *member* are as in :meth:`sessions`.
        """
        ...

    async def count(self, tenant: str) -> int:
        """Return how many sessions a tenant has."""
        ...
