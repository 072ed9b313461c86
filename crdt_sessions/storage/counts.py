"""How many sessions tenants have, for a store that one process has for itself: each tenant is counted once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from crdt_sessions.errors import TooMany

_TENANTS_KNOWN = 10_000


class SessionCounts:
    """Counts sessions as they are created.

    Args:
        count: counts the sessions of a tenant in the store.
    """

    def __init__(self, count: Callable[[str], Awaitable[int]]) -> None:
        self._count = count
        self._known: dict[str, int] = {}

    @asynccontextmanager
    async def one_more(self, tenant: str, most: int | None) -> AsyncIterator[None]:
        """Return a context in which a session of a *tenant* is created, who may have *most*; any number if None.

        Raises:
            TooMany: there are as many as there may be.
        """
        if most is None:
            self.forget(tenant)
            yield
            return
        if tenant not in self._known:
            found = await self._count(tenant)
            self._known.setdefault(tenant, found)  # somebody else may have been faster
            if len(self._known) > _TENANTS_KNOWN:
                del self._known[next(iter(self._known))]
        if self._known[tenant] >= most:
            raise TooMany(what="sessions of a tenant", limit=most)
        self._known[tenant] += 1
        try:
            yield
        except BaseException:
            self.forget(tenant)
            raise

    def forget(self, tenant: str) -> None:
        """Have the sessions of a tenant counted anew: some were deleted, or came to nothing."""
        self._known.pop(tenant, None)
