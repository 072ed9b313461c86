"""What runs have used, added up by day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from crdt_sessions.ids import SessionId


class UsageKey(NamedTuple):
    """What usage is added up by."""

    principal: str
    """For whom runs worked; empty where nobody is known."""
    day: int
    """Days since the Unix epoch, UTC."""
    model: str
    """Empty where nobody said."""
    currency: str
    """Of the cost; empty if there is none."""


class Amounts(NamedTuple):
    """What was used: numbers to be added up. What had been reported too high is taken back by negative ones."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    calls: int = 0
    cost: int = 0
    """In millionths of the currency."""

    def plus(self, more: Amounts) -> Amounts:
        """Return the sums."""
        return Amounts(*(one + other for one, other in zip(self, more, strict=True)))


class UsageRecords(Protocol):
    """What runs have used, added up by day. Rows bring it (:attr:`Entries.usage`)."""

    async def usage(
        self,
        tenant: str,
        *,
        session: SessionId | None = None,
        principal: str | None = None,
        since: int | None = None,
        until: int | None = None,
    ) -> Mapping[tuple[str, str], Amounts]:
        """Return what a tenant's runs have used, by model and currency.

        Only in *session*, for *principal*, from the day *since* to the day *until*, both included; each if it is not
        None. What a session has used still counts for its tenant and its principals once the session is deleted.
        """
        ...

    async def disown_usage(self, tenant: str, principal: str) -> None:
        """Have what the runs of a principal have used count for nobody, and still for the tenant and its sessions."""
        ...
