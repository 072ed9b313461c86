"""Which agents are where, for processes that share a store: hints, a few seconds old at the most."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

ALL_TENANTS = "*"
Agent = tuple[str, str]
"""A tenant, or :data:`ALL_TENANTS`, and the name of an agent that asks for its runs."""


class AttendanceRecords(Protocol):
    """Who waits for runs, or works, in which process. A store that is not shared has nobody to tell."""

    async def attend(self, waiting: Collection[Agent], working: Collection[Agent]) -> None:
        """Tell which agents are here, in place of what was told before.

        Args:
            waiting: those that wait for runs.
            working: those that work on one.
        """
        return

    async def attendance(self) -> Mapping[Agent, bool]:
        """Return the agents in other processes that live, and whether they wait for runs."""
        return {}

    async def wanted(self) -> Collection[Agent]:
        """Return those of who waits here, as was told, for whom there is a run, in whatever session."""
        return ()

    async def where_waits(self, tenant: str, agent: str) -> int | None:
        """Return another process, by its node, where such an agent waits for the tenant's runs; None if in none."""
        return None
