"""``/healthz``: the process runs. ``/readyz``: it can store."""

from __future__ import annotations

from quart import Blueprint, Response

from crdt_sessions.errors import StorageError
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.problems import problem


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the health routes; they need no token, and so name no session."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answer that the process runs."""
        return {"status": "ok"}

    @health.get("/readyz")
    async def readyz() -> Response | dict[str, str | int]:
        """Answer whether the service can store what it is given, and how many sessions are damaged."""
        facts = {
            "liveSessions": len(registry.live),
            "connections": registry.connections,
            "quarantinedSessions": len(registry.quarantined),
        }
        try:
            await registry.health.check()
        except StorageError as error:
            return problem(503, "StorageUnavailable", str(error), since=registry.health.since, **facts)
        return {"status": "ready", **facts}

    return health
