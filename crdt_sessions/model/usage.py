"""What a run has cost: tokens, calls of models, money, and time."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from crdt_sessions.errors import BadValue
from crdt_sessions.model.base import Value
from crdt_sessions.model.checks import MAX_INTEGER, why_not
from crdt_sessions.model.strings import Word

Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
"""How much of something; absent where nobody knows."""
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
"""A code of ISO 4217, such as ``USD``."""

_COUNTS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "calls")


class Spent(Value):
    """What calls of models took. All of it is optional: who reports says what it knows."""

    input_tokens: Count | None = None
    """What models read, cached tokens included."""
    cached_tokens: Count | None = None
    """Of those, what came from a cache of the provider's."""
    output_tokens: Count | None = None
    """What models wrote, their thoughts included."""
    reasoning_tokens: Count | None = None
    """Of those, the thoughts."""
    calls: Count | None = None
    """How often a model was called."""
    model: Word | None = None
    """The one that was called last."""
    cost: Count | None = None
    """Money, in millionths of the currency."""
    currency: Currency | None = None

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return *values*, from outside, as what was spent.

        Raises:
            BadValue: a number is negative or too large, or a cost has no currency.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            where, _, why = why_not(error, "usage")[0].partition(": ")
            raise BadValue(where=where, why=why) from None

    @model_validator(mode="after")
    def _has_currency(self) -> Self:
        if self.cost is not None and self.currency is None:
            raise ValueError("a cost needs a currency")
        return self

    @property
    def figures(self) -> dict[str, Any]:
        """What was spent, by the names of its fields; without what a report or a run's usage has besides."""
        return {name: getattr(self, name) for name in Spent.model_fields}

    @property
    def tokens(self) -> int:
        """All that was read and written."""
        return (self.input_tokens or 0) + (self.output_tokens or 0)

    def plus(self, more: Spent | None) -> Spent:
        """Return what both have cost; a cost in another currency than the first one is left out."""
        if more is None:
            return self
        sums: dict[str, Any] = {name: _sum(getattr(self, name), getattr(more, name)) for name in _COUNTS}
        currency = self.currency or more.currency
        costs = (each.cost if each.currency == currency else None for each in (self, more))
        return Spent(**sums, model=more.model or self.model, cost=_sum(*costs), currency=currency)


class UsageReport(Spent):
    """``runs[id].reported``: what the holder of the lease says that its attempt has cost so far."""

    epoch: Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]
    """The epoch of the lease it holds; a report of another epoch counts for nothing."""


class Usage(Spent):
    """``runs[id].usage``: what all attempts have cost. Written by the server, once something was reported."""

    first_token_ms: Count | None = None
    """From the claim of the attempt that wrote first until its first words were here."""
    duration_ms: Count | None = None
    """How long agents had the run, without the times it waited; of attempts that have ended."""
    children: Spent | None = None
    """What its child runs, and theirs, have cost; no part of the other figures."""


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one + other, MAX_INTEGER)
