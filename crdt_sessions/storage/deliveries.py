"""The outbox: messages to somebody outside."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt_sessions.ids import Millis, SessionId

_AT_ONCE = Millis(0)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to somebody outside, to be delivered at least once."""

    id: str
    endpoint: str
    session: SessionId
    kind: str
    body: str
    created_at: Millis
    attempts: int = 0
    next_at: Millis = _AT_ONCE
    error: str | None = None
    """Why the last attempt failed."""
    dead: bool = False
    """Whether nobody tries any more."""


class Deliveries(Protocol):
    """The outbox: messages to somebody outside. Rows bring them (:attr:`Entries.deliveries`)."""

    async def deliveries(self, *, dead: bool = False, limit: int, tenant: str | None = None) -> Sequence[Delivery]:
        """Return up to *limit* deliveries, oldest first: the dead ones, or all that wait.

        Of one *tenant*, or of all if None.
        """
        ...

    async def take_deliveries(
        self, now: Millis, *, limit: int, lease_ms: int, without: Collection[str] = ()
    ) -> Sequence[Delivery]:
        """Return up to *limit* deliveries that are due by *now*, oldest first, for the caller to try.

        Those to the endpoints *without* which it is to be done are left where they are.

        Where several processes share a store, nobody else is given them for *lease_ms* milliseconds. Then they are
        due again, unless it was said what became of them: whoever took them may be gone.
        """
        ...

    async def delivered(self, id: str) -> None:
        """Forget the delivery *id*: it has arrived."""
        ...

    async def postpone(
        self,
        id: str,
        *,
        attempts: int,
        next_at: Millis,
        error: str | None,
        dead: bool,
        tenant: str | None = None,
    ) -> bool:
        """Note that an attempt failed, or that a dead delivery is tried again; tell whether there is one.

        *attempts*, *next_at*, *error* and *dead* are what is known of the delivery *id* from now on.
        With *tenant*, only if it belongs to that one.
        """
        ...
