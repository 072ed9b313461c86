"""Bounds of one process: connections, and memory of all sessions together.

Whoever would be one too many is refused with the limit in the error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from crdt_sessions.errors import TooMany
from crdt_sessions.limits import Limits
from crdt_sessions.runtime.access import ANONYMOUS
from crdt_sessions.runtime.attendance import Attendance
from crdt_sessions.runtime.backlog import Backlog
from crdt_sessions.runtime.load import Load
from crdt_sessions.sync import LogMemory


class Capacity:
    """Counts what there is, and says whether there is room for more.

    Args:
        limits: how much there may be.
        load: measures the event loop and the memory; nothing does if None.
        attendance: counts the connections of principals.
    """

    def __init__(self, limits: Limits, load: Load | None, attendance: Attendance) -> None:
        self._limits = limits
        self.load = load
        """What measures the load of the process, if something does."""
        self.connections = 0
        """Connections right now."""
        self.by_tenant: Counter[str] = Counter()
        """Connections of each tenant right now."""
        self._attendance = attendance
        self.backlog = Backlog(limits.total_uncommitted_bytes)
        """What waits for the disk in all sessions."""
        self.log_memory = LogMemory(limits.total_log_bytes)
        """What the logs of all sessions take."""

    # -- connections ---------------------------------------------------------------------------------------------

    @contextmanager
    def admitted(self, tenant: str, principal: str) -> Iterator[None]:
        """Return a context that counts a connection or stream of a *tenant* and *principal*.

        Raises as :meth:`check_room`.
        """
        self.admit(tenant, principal)
        try:
            yield
        finally:
            self.leave(tenant, principal)

    def admit(self, tenant: str, principal: str) -> None:
        """Count a connection of a *tenant* and *principal*, until it leaves. Raises as :meth:`check_room`."""
        self.check_room(tenant, principal)
        self.connections += 1
        self.by_tenant[tenant] += 1
        self._attendance.come(tenant, principal)

    def leave(self, tenant: str, principal: str) -> None:
        """Count a connection no more that was admitted."""
        self._attendance.leave(tenant, principal)
        self.connections -= 1
        self.by_tenant[tenant] -= 1

    def check_room(self, tenant: str, principal: str) -> None:
        """Return if there is room for one more connection, or stream, of a *tenant* and *principal*.

        Raises:
            TooMany, Overloaded: there is not.
        """
        self.check_lag()
        if self.connections >= self._limits.max_connections:
            raise TooMany(what="connections", limit=self._limits.max_connections)
        if self.by_tenant[tenant] >= self._limits.max_connections_per_tenant:
            raise TooMany(what="connections of a tenant", limit=self._limits.max_connections_per_tenant)
        known = principal != ANONYMOUS
        if known and self._attendance.connections(tenant, principal) >= self._limits.max_connections_per_principal:
            limit = self._limits.max_connections_per_principal
            raise TooMany(what=f"connections of {principal}", limit=limit)

    def check_session(self, peers: int) -> None:
        """Return if there is room for one more connection to a session that has *peers* of them.

        Raises:
            TooMany: there is not.
        """
        if peers >= self._limits.max_connections_per_session:
            raise TooMany(what="connections to one session", limit=self._limits.max_connections_per_session)

    # -- load ----------------------------------------------------------------------------------------------------

    def check_lag(self) -> None:
        """Return if there is time for somebody new.

        Raises:
            Overloaded: the event loop lags.
        """
        if self.load is not None:
            self.load.check_lag()

    def check_memory(self) -> None:
        """Return if there is memory for one more session.

        Raises:
            Overloaded: there is not.
        """
        if self.load is not None:
            self.load.check_memory()

    @property
    def crowded(self) -> bool:
        """Whether memory is short."""
        return self.load is not None and self.load.crowded

    def give_back_memory(self, *, garbage: bool) -> None:
        """Return freed memory to the system.

        Args:
            garbage: whether there may be some that was not freed yet.
        """
        if self.load is not None:
            self.load.give_back_memory(garbage=garbage)
