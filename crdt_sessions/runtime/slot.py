"""A place for one session in memory, while it is loaded, used, asleep and dropped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.runtime.session import Session

LOOK_AT_ONCE = Millis(0)
"""The time until which a session rests that is to be looked at."""


@dataclass(slots=True, eq=False)
class Slot:
    """A place for one session."""

    session_id: SessionId
    creates: bool
    """Whether it is created if it never existed."""
    loading: asyncio.Task[Session] | None = field(init=False, default=None)
    """The load that is under way. One that has ended is forgotten: a task takes half a kilobyte, and its error is for
    those who waited for it."""
    session: Session | None = None
    """The loaded session, once it is."""
    users: int = 0
    idle_since: Millis | None = None
    draining: asyncio.Task[None] | None = None
    lost: CrdtSessionsError | None = None
    """Why what was being loaded may be something else by now."""
    rests_until: Millis = LOOK_AT_ONCE
    """Until when nothing is due in a session that is asleep, unless somebody comes or goes."""

    @property
    def busy(self) -> bool:
        """Whether the session is being loaded."""
        return self.loading is not None

    async def loaded(self) -> Session:
        """Return the session once it is loaded; raise as its load does."""
        if self.loading is not None:
            return await asyncio.shield(self.loading)
        assert self.session is not None
        return self.session

    async def settled(self) -> Session | None:
        """Return the session once it is not being loaded, whatever became of that; None if it never was loaded."""
        if self.loading is not None:
            await asyncio.gather(self.loading, return_exceptions=True)
        return self.session
