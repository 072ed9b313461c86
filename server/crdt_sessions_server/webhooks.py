"""Webhooks: the file that names them, and REST to look at what was not delivered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from quart import Blueprint
from quart_schema import tag, validate_querystring, validate_response

from crdt_sessions.ids import TENANT_PATTERN, name_of
from crdt_sessions.runtime import SessionRegistry, Webhook
from crdt_sessions.storage import Delivery
from crdt_sessions_server.access import current_principal
from crdt_sessions_server.bodies import Answer, Query
from crdt_sessions_server.describing import answers
from crdt_sessions_server.explain import explain, read_json


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    url: str = Field(pattern=r"^https?://")
    secret: str
    events: tuple[str, ...] = ()
    tenant: str = Field("", pattern=rf"^$|{TENANT_PATTERN}")


_ENTRIES = TypeAdapter(list[_Entry])


def read_webhooks(path: Path) -> list[Webhook]:
    """Read a file of webhooks.

    Raises:
        ValueError: it cannot be read or is not of that form; the message says what to do and shows no secret.
    """
    what = f"webhooks file {path}"

    def place(where: Sequence[int | str]) -> str:
        return ": ".join((what, *(f"entry {each + 1}" if isinstance(each, int) else each for each in where[:2])))

    try:
        entries = _ENTRIES.validate_python(read_json(path, "webhooks file"))
    except ValidationError as error:
        raise ValueError("\n".join(explain(error, place, _Entry.model_fields))) from None
    try:
        return [Webhook(entry.name, entry.url, entry.secret, entry.events, entry.tenant) for entry in entries]
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


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
    """Return the routes for what was not delivered."""
    webhooks = Blueprint("webhooks", __name__, url_prefix="/v1/webhooks")

    @webhooks.get("/deliveries")
    @tag(["webhooks"])
    @validate_querystring(DeliveryQuery)
    @validate_response(DeliveryPage)
    async def list_deliveries(query_args: DeliveryQuery) -> DeliveryPage:
        """List what waits to be delivered, or the dead letters."""
        read = registry.outbox.dead if query_args.dead else registry.outbox.waiting
        found = await read(query_args.limit, current_principal().tenant)
        return DeliveryPage(deliveries=[_info(each) for each in found])

    @webhooks.post("/deliveries/<id>/retry")
    @tag(["webhooks"])
    @answers(202, description="It is tried soon.")
    async def retry_delivery(id: str) -> tuple[str, int]:
        """Try a delivery again, now and anew."""
        await registry.outbox.retry(id, current_principal().tenant)
        return "", 202

    return webhooks


def _info(delivery: Delivery) -> DeliveryInfo:
    facts = {name: getattr(delivery, name) for name in DeliveryInfo.model_fields}
    return DeliveryInfo(**facts | {"session": name_of(delivery.session)})
