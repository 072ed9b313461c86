"""Who did what: a log that is never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt_sessions.ids import Millis


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Somebody did something."""

    at: Millis
    tenant: str
    session: str
    """The session's name; empty if it was done to none."""
    principal: str
    action: str
    """Such as ``session.delete``."""
    detail: str = "{}"
    """JSON."""
    id: int = 0
    """Its place in the log, given by the store."""


class AuditRecords(Protocol):
    """Who did what: a log that is never changed."""

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append *entries* to the audit log.

        Whoever tries again after :class:`StoreUnavailable` may have them there twice.
        """
        ...

    async def audit(
        self,
        tenant: str,
        *,
        session: str | None = None,
        principal: str | None = None,
        action: str | None = None,
        after: int = 0,
        limit: int,
    ) -> Sequence[AuditEntry]:
        """Return up to *limit* entries of a tenant's audit log after the one with the id *after*, in order of id.

        Only those of *session*, *principal* and *action*, each if it is not None. An entry may appear a second after
        :meth:`record` returned, but never before one that was returned earlier: who goes on after the last id misses
        none.
        """
        ...
