"""How much may be used in a day (UTC), by a principal and by a tenant, before no more runs begin.

What was used stands in the store. It is read for each of them when somebody asks, now and then, and what is reported
since is added here, so a token costs no query, and many questions cost one.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from crdt_sessions.clock import Clock
from crdt_sessions.errors import AllowanceSpent
from crdt_sessions.ids import Millis
from crdt_sessions.limits import UsageLimits
from crdt_sessions.model import Spent
from crdt_sessions.runtime.recent import Recent
from crdt_sessions.storage import UsageRecords
from crdt_sessions.sync.records import Spending

DAY_MS = 86_400_000
_MILLIONTH = 1_000_000
_FRESH_MS = 10_000
"""For how long sums are good: other nodes at the same database do not say what their runs use."""
_KNOWN = 10_000
"""Principals whose sums are kept in memory."""
_TRIES = 4
"""Sums that change whenever they are read are taken after so many times, as those of another node are."""


@dataclass(slots=True)
class _Sums:
    day: int
    read_at: Millis
    tokens: int
    cost: int
    """In millionths of the currency in which costs are limited."""


class Allowances:
    """Says whether somebody may have one more run begin.

    Args:
        store: knows what was used.
        limits: how much that may be.
        clock: says which day it is.
    """

    def __init__(self, store: UsageRecords, limits: UsageLimits, clock: Clock) -> None:
        self._store = store
        self._limits = limits
        self._clock = clock
        self._known: Recent[tuple[str, str | None], _Sums] = Recent(_KNOWN)
        self._noted: Recent[tuple[str, str | None], int] = Recent(_KNOWN)
        self._notes = 0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        limits = self._limits
        each = (limits.max_tokens_per_principal, limits.max_tokens_per_tenant)
        return any(limit is not None for limit in (*each, limits.max_cost_per_principal, limits.max_cost_per_tenant))

    async def check(self, tenant: str, principal: str | None) -> None:
        """Return if one more run may begin for a principal of a *tenant*; only the tenant counts if it is nobody.

        Raises:
            AllowanceSpent: what may be used in a day is used.
            StorageError: the store cannot be read.
        """
        limits = self._limits
        if principal:
            which = (limits.max_tokens_per_principal, limits.max_cost_per_principal)
            await self._check(tenant, principal, *which)
        await self._check(tenant, None, limits.max_tokens_per_tenant, limits.max_cost_per_tenant)

    async def _check(self, tenant: str, who: str | None, max_tokens: int | None, max_cost: float | None) -> None:
        if max_tokens is None and max_cost is None:
            return
        sums = await self._sums(tenant, who)
        whose = "the tenant" if who is None else repr(who)
        if max_tokens is not None and sums.tokens >= max_tokens:
            raise self._spent(whose, sums.tokens, max_tokens, "tokens")
        if max_cost is not None and sums.cost >= max_cost * _MILLIONTH:
            raise self._spent(whose, sums.cost / _MILLIONTH, max_cost, self._limits.cost_currency)

    def _spent(self, whose: str, spent: float, limit: float, unit: str) -> AllowanceSpent:
        now = self._clock.now()
        begins = (now // DAY_MS + 1) * DAY_MS
        anew = datetime.datetime.fromtimestamp(begins / 1000, datetime.UTC)
        wait_s = max(1, -(-(begins - now) // 1000))
        return AllowanceSpent(
            whose=whose, spent=spent, limit=limit, unit=unit, anew=f"{anew:%Y-%m-%dT%H:%M:%SZ}", retry_after_s=wait_s
        )

    async def _sums(self, tenant: str, who: str | None) -> _Sums:
        key = (tenant, who)
        tries = 0
        while True:
            tries += 1
            now, noted = self._clock.now(), self._noted.get(key)
            day = now // DAY_MS
            known = self._known.get(key)
            if known is not None and known.day == day and now - known.read_at < _FRESH_MS:
                return known
            found = await self._store.usage(tenant, principal=who, since=day, until=day)
            if tries < _TRIES and noted != self._noted.get(key):
                continue  # more was used meanwhile, which this may have or not
            sums = _Sums(day, now, 0, 0)
            for (_, currency), amounts in found.items():
                sums.tokens += amounts.input_tokens + amounts.output_tokens
                sums.cost += amounts.cost if currency == self._limits.cost_currency else 0
            return self._known.remember(key, sums)

    def note(self, tenant: str, spendings: Iterable[Spending]) -> None:
        """Add what runs of a *tenant* have used, once that is stored."""
        for each in spendings if self.limited else ():
            for who in (each.principal, None):
                self._note(tenant, who)
                known = self._known.get((tenant, who))
                if known is not None and known.day == _day_of(each.at):
                    known.tokens += each.after.tokens - (each.before.tokens if each.before is not None else 0)
                    known.cost += self._cost(each.after) - self._cost(each.before)

    def forget(self, tenant: str, principal: str) -> None:
        """Have what a *principal* of a *tenant* has used read anew: the store has forgotten whose it was."""
        self._note(tenant, principal)
        self._known.pop((tenant, principal), None)

    def _note(self, tenant: str, who: str | None) -> None:
        self._notes += 1
        self._noted.remember((tenant, who), self._notes)

    def _cost(self, spent: Spent | None) -> int:
        counts = spent is not None and spent.currency == self._limits.cost_currency
        return (spent.cost or 0) if spent is not None and counts else 0


def _day_of(time: Millis) -> int:
    return time // DAY_MS
