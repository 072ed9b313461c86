"""REST: the audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from pydantic import Field, JsonValue
from quart import Blueprint, Response, request

from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import AuditEntry
from crdt_sessions_server.auth import current_principal
from crdt_sessions_server.http.describing import LINES, answers, tag
from crdt_sessions_server.http.schemas import JSON, NDJSON, Answer, Query
from crdt_sessions_server.http.streaming import compact, going_on
from crdt_sessions_server.http.validation import validate_querystring

_LONGEST_TTL_S = 30 * 24 * 3600.0


class AuditQuery(Query):
    """Which entries."""

    session: str | None = None
    principal: str | None = None
    action: str | None = None
    after: int = Field(0, ge=0, le=MAX_INTEGER, description="Only entries after this one.")
    limit: int = Field(100, ge=1, le=1000)


class AuditInfo(Answer):
    """Somebody did something."""

    id: int
    at: int
    session: str
    principal: str
    action: str
    detail: JsonValue


class AuditPage(Answer):
    """A page of the audit log, oldest first."""

    entries: list[AuditInfo]
    next_cursor: int | None = Field(None, description="Ask with this as ``after`` to get the next page.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for the audit log."""
    audit = Blueprint("audit", __name__, url_prefix="/v1")

    @audit.get("/audit")
    @tag(["access"])
    @validate_querystring(AuditQuery)
    @answers(200, {JSON: AuditPage, NDJSON: LINES})
    async def read_audit(query_args: AuditQuery) -> Response:
        """Read the audit log: a page as JSON, or all of it as lines if ``Accept`` says ``application/x-ndjson``."""
        await registry.audit.flush()
        wanted = {name: getattr(query_args, name) for name in ("session", "principal", "action")}
        tenant = current_principal().tenant
        if request.accept_mimetypes.best == NDJSON:
            return going_on(_lines(registry.audit.entries(tenant, after=query_args.after, **wanted)), NDJSON)
        found = await registry.store.audit(tenant, **wanted, after=query_args.after, limit=query_args.limit + 1)
        page = [_info(entry) for entry in found[: query_args.limit]]
        more = len(found) > query_args.limit
        answer = AuditPage(entries=page, next_cursor=page[-1].id if more else None)
        return Response(answer.model_dump_json(by_alias=True, exclude_none=True), content_type=JSON)

    return audit


async def _lines(entries: AsyncIterator[AuditEntry]) -> AsyncIterator[bytes]:
    async for entry in entries:
        yield compact(_info(entry).model_dump(by_alias=True)).encode() + b"\n"


def _info(entry: AuditEntry) -> AuditInfo:
    return AuditInfo(
        id=entry.id,
        at=entry.at,
        session=entry.session,
        principal=entry.principal,
        action=entry.action,
        detail=json.loads(entry.detail),
    )
