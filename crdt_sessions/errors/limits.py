"""Errors of who asks for more than there is: size, speed, number, allowance."""

from __future__ import annotations

from crdt_sessions.errors.base import CrdtSessionsError


class TooLarge(CrdtSessionsError):
    """Something is over its limit."""

    def __init__(self, *, what: str, size: int, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} of {size} exceeds the limit of {limit} {unit}")
        self.what = what
        self.size = size
        self.limit = limit


class TooSlow(CrdtSessionsError):
    """A peer does not read what it asked for, or does not write its frames in time."""

    def __init__(self, *, what: str) -> None:
        super().__init__(what)
        self.what = what


class TooMany(CrdtSessionsError):
    """More of something than is allowed at a time; it works again with fewer."""

    def __init__(self, *, what: str, limit: float) -> None:
        super().__init__(f"more than {limit:g} {what}; come back later")
        self.what = what
        self.limit = limit


class AllowanceSpent(CrdtSessionsError):
    """What runs may use in a day is used; no more begin until the next day (UTC). Those under way go on.

    Args:
        whose: allowance it is.
        spent: what was used of it.
        limit: how much it is.
        unit: of both: tokens, or a currency.
        anew: when the next day begins, as ISO 8601 has it.
        retry_after_s: how long that is from now.
    """

    def __init__(self, *, whose: str, spent: float, limit: float, unit: str, anew: str, retry_after_s: int) -> None:
        super().__init__(
            f"the runs of {whose} have used {spent:,g} {unit} today, and may use {limit:,g} {unit} a day;"
            f" it begins anew at {anew}"
        )
        self.spent = spent
        self.limit = limit
        self.unit = unit
        self.anew = anew
        self.retry_after_s = retry_after_s


class Overloaded(CrdtSessionsError):
    """The process has too much to do to take on more."""

    def __init__(self, *, what: str, retry_after_s: int = 2) -> None:
        super().__init__(f"overloaded: {what}; come back in {retry_after_s} s")
        self.what = what
        self.retry_after_s = retry_after_s
