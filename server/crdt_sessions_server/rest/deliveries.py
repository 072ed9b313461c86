"""REST: what webhooks were not delivered."""

from __future__ import annotations

from pydantic import Field
from quart import Blueprint

from crdt_sessions.ids import name_of
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import Delivery
from crdt_sessions_server.auth import current_principal
from crdt_sessions_server.http.describing import answers, tag
from crdt_sessions_server.http.schemas import Answer, Query
from crdt_sessions_server.http.validation import validate_querystring, validate_response


class DeliveryInfo(Answer):
    """A message to an endpoint that has not arrived."""

    id: str
    endpoint: str
    session: str
    kind: str
    created_at: int
    attempts: int
    next_at: int
    error: str | None = None
    dead: bool


class DeliveryPage(Answer):
    """Messages that have not arrived, oldest first."""

    deliveries: list[DeliveryInfo]


class DeliveryQuery(Query):
    """Which messages."""

    dead: bool = Field(False, description="Those that nobody tries to deliver any more.")
    limit: int = Field(50, ge=1, le=1000)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for failed deliveries."""
    deliveries = Blueprint("deliveries", __name__, url_prefix="/v1/webhooks")

    @deliveries.get("/deliveries")
    @tag(["webhooks"])
    @validate_querystring(DeliveryQuery)
    @validate_response(DeliveryPage)
    async def list_deliveries(query_args: DeliveryQuery) -> DeliveryPage:
        """List what waits to be delivered, or the dead letters."""
        read = registry.outbox.dead if query_args.dead else registry.outbox.waiting
        found = await read(query_args.limit, current_principal().tenant)
        return DeliveryPage(deliveries=[_info(each) for each in found])

    @deliveries.post("/deliveries/<id>/retry")
    @tag(["webhooks"])
    @answers(202, description="It is tried soon.")
    async def retry_delivery(id: str) -> tuple[str, int]:
        """Try a delivery again, now and anew."""
        await registry.outbox.retry(id, current_principal().tenant)
        return "", 202

    return deliveries


def _info(delivery: Delivery) -> DeliveryInfo:
    facts = {name: getattr(delivery, name) for name in DeliveryInfo.model_fields}
    return DeliveryInfo(**facts | {"session": name_of(delivery.session)})
