"""``/healthz``: the process runs. ``/readyz``: it can store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from quart import Blueprint, Response

from crdt_sessions.errors import ShuttingDown, StorageError, StoreUnavailable
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.http.describing import answers, refuses
from crdt_sessions_server.http.problem_documents import problem
from crdt_sessions_server.http.problems import type_of
from crdt_sessions_server.http.schemas import JSON, Answer


class Alive(Answer):
    """The process runs."""

    status: Literal["ok"]


class Ready(Answer):
    """It can store."""

    status: Literal["ready"]
    live_sessions: int = Field(description="Sessions in memory.")
    connections: int
    quarantined_sessions: int = Field(description="Sessions that cannot be loaded.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the health routes; they need no token, and so name no session."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    @answers(200, {JSON: Alive})
    async def healthz() -> dict[str, str]:
        """Answer that the process runs."""
        return {"status": "ok"}

    @health.get("/readyz")
    @answers(200, {JSON: Ready})
    @refuses(StoreUnavailable, ShuttingDown)
    async def readyz() -> Response | dict[str, str | int]:
        """Answer whether the service can store what it is given, and how many sessions are damaged."""
        facts = {
            "liveSessions": len(registry.live),
            "connections": registry.capacity.connections,
            "quarantinedSessions": len(registry.quarantined),
        }
        try:
            await registry.health.check()
        except StorageError as error:
            return problem(type_of(StoreUnavailable), str(error), since=registry.health.since, **facts)
        if registry.leaving:
            return problem(type_of(ShuttingDown), "sessions are being handed over to other nodes", **facts)
        return {"status": "ready", **facts}

    return health
