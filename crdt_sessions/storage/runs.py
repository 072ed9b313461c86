"""What can be found of runs across sessions, and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from crdt_sessions.ids import Millis, SessionId

MOST_AGENTS = 1000
"""Names of agents that are remembered of a tenant."""


@dataclass(frozen=True, slots=True)
class RunEntry:
    """What the store knows of a run: enough to find it, and the rest as opaque text."""

    id: str
    agent: str
    ready: bool
    """Whether it may be claimed."""
    queued_at: Millis
    due_at: Millis | None
    """When its session must be looked at, even if nothing happens there."""
    data: str
    status: str = ""
    answerer: str = ""
    """The agent it is for, or that works on it or did where it may be anybody."""


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run that was looked for across sessions."""

    session: SessionId
    asked_at: Millis
    """When it was put on record first."""
    run: RunEntry


class RunIndex(Protocol):
    """Runs of all sessions, the agents that ask for them, and the steps that runs have recorded."""

    async def ready_runs(
        self, agents: Sequence[str], *, limit: int, tenant: str | None = None
    ) -> Sequence[tuple[SessionId, str]]:
        """Return up to *limit* runs of active sessions that are ready and for one of *agents*, oldest first.

        Of one *tenant*, or of all if None.
        """
        ...

    async def runs(
        self,
        tenant: str,
        *,
        statuses: Sequence[str] | None = None,
        answerer: str | None = None,
        before: tuple[Millis, SessionId, str] | None = None,
        limit: int,
    ) -> Sequence[FoundRun]:
        """Return up to *limit* runs of a tenant, those that were asked for last first.

        With one of *statuses*, for one agent (:attr:`RunEntry.answerer`), of those asked for before the one that has
        this time, session and id.
        """
        ...

    async def take_due(self, now: Millis, *, limit: int) -> Sequence[SessionId]:
        """Return the sessions with a run that is due by *now*, which this process is to look after.

        Where several processes share a store, each is told of those that belong to it, and of up to *limit* that
        belonged to nobody and are its own from then on: no two are told of the same one.
        """
        ...

    async def note_agents(self, tenant: str, names: Sequence[str], now: Millis) -> None:
        """Remember that agents of these names ask for a tenant's runs at *now*; of a thousand, those seen last."""
        ...

    async def agents(self, tenant: str) -> Mapping[str, Millis]:
        """Return the agents of a tenant that are remembered, and when they were noted last."""
        ...

    async def step(self, session: SessionId, run: str, key: str) -> str | None:
        """Return the recorded result of the step *key* of a run, or None."""
        ...

    async def record_step(self, session: SessionId, run: str, key: str, value: str) -> str:
        """Record *value* for the step *key* of a run, unless there is one; return the recorded value.

        Raises:
            SessionNotFound: there is no such session.
        """
        ...
