"""``/healthz``: the process runs. ``/readyz``: it can store."""

from __future__ import annotations

from quart import Blueprint, Response

from crdt_sessions.errors import StorageError
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.problems import problem


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the health routes; they need no token."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answer that the process runs."""
        return {"status": "ok"}

    @health.get("/readyz")
    async def readyz() -> Response | dict[str, str | int]:
        """Answer whether the service can store what it is given."""
        try:
            await registry.store.check()
        except StorageError as error:
            return problem(503, "StorageUnavailable", str(error))
        return {"status": "ready", "liveSessions": len(registry.live)}

    return health
