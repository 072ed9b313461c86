"""REST for what runs have cost: its holder says it."""

from __future__ import annotations

from quart import Blueprint
from quart_schema import tag, validate_request, validate_response

from crdt_sessions.errors import LeaseLost
from crdt_sessions.model import Run
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.http.describing import reads, refuses
from crdt_sessions_server.rest.leases import LEASE_TOKEN, Spending, held_run


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of usage."""
    usage = Blueprint("usage", __name__, url_prefix="/v1")

    @usage.put("/sessions/<string:name>/runs/<string:run>/usage")
    @tag(["agents"])
    @validate_request(Spending)
    @validate_response(Run)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    async def put_usage(name: str, run: str, data: Spending) -> Run:
        """Say what this attempt has cost so far; the answer has what all attempts have cost."""
        spent = data.spent()
        async with held_run(registry, name, run) as holding:
            return await holding.usage(spent)

    return usage
