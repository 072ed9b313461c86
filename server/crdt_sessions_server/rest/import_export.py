"""REST: export, import, and sync for clients that cannot hold a socket."""

from __future__ import annotations

import json
import secrets
from typing import Any, Literal

from pydantic import ValidationError
from quart import Blueprint, Response, request

from crdt_sessions.errors import (
    BadDocument,
    EarlyUpdate,
    SessionExists,
    UnknownFrame,
    UpdateError,
    WireError,
    WrongLineage,
)
from crdt_sessions.ids import SessionId
from crdt_sessions.model import SessionExport, markdown
from crdt_sessions.model.checks import parse_json
from crdt_sessions.model.importing import document_from
from crdt_sessions.runtime import SessionRegistry, archive, take_over
from crdt_sessions.storage import SessionRecord
from crdt_sessions.sync import Actor
from crdt_sessions.wire import EMPTY_UPDATE, SyncStep1, SyncStep2, Update, decode, encode
from crdt_sessions.wire.varint import check_clients
from crdt_sessions_server.auth import Permission, Principal, asked_session, current_principal
from crdt_sessions_server.http.complaints import complaints
from crdt_sessions_server.http.describing import BYTES, LINES, MARKDOWN, answers, refuses, tag, takes
from crdt_sessions_server.http.schemas import JSON, NDJSON, OCTETS, Query, check_content_type
from crdt_sessions_server.http.validation import validate_querystring
from crdt_sessions_server.rest.exchange import check_frames
from crdt_sessions_server.rest.sessions import SessionInfo, creates, session_info


class ExportQuery(Query):
    """In which form."""

    format: Literal["json", "yjs", "markdown", "archive"] = "json"


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for whole documents."""
    import_export = Blueprint("import_export", __name__, url_prefix="/v1/sessions")

    @import_export.get("/<name>/export")
    @tag(["transfer"])
    @validate_querystring(ExportQuery)
    @answers(200, {JSON: SessionExport, OCTETS: BYTES, MARKDOWN: LINES, NDJSON: LINES})
    async def export_session(name: str, query_args: ExportQuery) -> Response:
        """Export a session: as JSON, as a Yjs update, as a Markdown transcript, or with all its versions."""
        wanted = asked_session(name)
        await registry.audit.record("session.export", current_principal().id, wanted, format=query_args.format)
        if query_args.format == "archive":
            return Response(await archive(registry, wanted), content_type=NDJSON)
        async with registry.open(wanted) as session:
            if query_args.format == "yjs":
                return Response(await session.export(), content_type=OCTETS)
            export = session.view.export()
            await session.readable()
        if query_args.format == "markdown":
            return Response(markdown(export), content_type="text/markdown; charset=utf-8")
        return Response(json.dumps(export.to_json(), ensure_ascii=False), content_type=JSON)

    @import_export.post("/<name>/import")
    @tag(["transfer"])
    @takes({OCTETS: BYTES, JSON: SessionExport, NDJSON: LINES})
    @answers(200, {JSON: SessionInfo}, "Merged into the session.")
    @answers(201, {JSON: SessionInfo}, "A new session.")
    @refuses(UpdateError, EarlyUpdate, BadDocument, SessionExists)
    async def import_session(name: str) -> tuple[dict[str, Any], int]:
        """Import a session.

        A Yjs update (``application/octet-stream``) is merged into the session, which is created if need be.
        A JSON export (``application/json``) becomes a new session; into an existing one it would duplicate
        everything, so that is a 409. So does an archive (``application/x-ndjson``), which brings its versions.
        """
        wanted, body = asked_session(name), await request.data
        check_content_type(request.mimetype, OCTETS, JSON, NDJSON)
        registry.audit.note("session.import", current_principal().id, wanted, format=request.mimetype)
        if request.mimetype == JSON:
            return session_info(await _import_json(registry, wanted, body)).model_dump(by_alias=True), 201
        if request.mimetype == NDJSON:
            return session_info(await take_over(registry, wanted, body)).model_dump(by_alias=True), 201
        principal = current_principal()
        async with registry.open(wanted, create=True, by=principal.id) as session:
            principal.require(Permission.WRITE)
            await session.apply(body, Actor(principal.id, principal.rights), foreign=True)
            return session_info(session.record).model_dump(by_alias=True), 200

    @import_export.post("/<name>/sync")
    @tag(["transfer"])
    @takes({OCTETS: BYTES})
    @answers(200, {OCTETS: BYTES})
    @refuses(WireError, UpdateError, EarlyUpdate, WrongLineage)
    async def sync_session(name: str) -> Response:
        """Sync without a socket: protocol frames up, protocol frames down.

        The body holds a SyncStep1 (what the client has) and any number of SyncStep2 or Update frames (what it
        brings). The answer holds a SyncStep2 (what it lacks) and a SyncStep1 (what the server has). When the
        answer arrives, what was brought is durable.
        """
        check_content_type(request.mimetype, OCTETS)
        asked, brought = _parse(await request.data)
        answer = await _exchange(registry, asked_session(name), current_principal(), asked, brought)
        return Response(answer, content_type=OCTETS)

    return import_export


async def _import_json(registry: SessionRegistry, wanted: SessionId, body: bytes) -> SessionRecord:
    try:
        value = parse_json(body)
    except ValueError as error:
        raise BadDocument(why="not a session export: it is no JSON") from error
    try:
        export = SessionExport.model_validate(value)
    except ValidationError as error:
        field, message = complaints(error, value)[0]
        raise BadDocument(why=f"not a session export: {field or 'it'} {message}") from error
    await registry.loading.check_absent(wanted)
    content = document_from(export, client_id=secrets.randbelow(2**32 - 1) + 1)
    return await registry.create(
        wanted, title=export.meta.title, metadata=export.meta.metadata, content=content, by=current_principal().id
    )


def _parse(body: bytes) -> tuple[bytes | None, list[bytes]]:
    """Return the state vector and the updates in the body of a sync request.

    Raises:
        WireError: they cannot be read.
        TooLarge: there are too many frames, or the state vector has too many entries.
    """
    asked: bytes | None = None
    brought: list[bytes] = []
    for count, frame in enumerate(decode(body), 1):
        check_frames(count)
        if isinstance(frame, SyncStep1):
            check_clients(frame.state_vector)
            asked = frame.state_vector
        elif isinstance(frame, SyncStep2 | Update):
            brought.append(frame.update)
        else:
            raise UnknownFrame(kind=encode(frame)[0])
    return asked, [update for update in brought if update != EMPTY_UPDATE]


async def _exchange(
    registry: SessionRegistry, wanted: SessionId, principal: Principal, asked: bytes | None, brought: list[bytes]
) -> bytes:
    async with registry.open(wanted, create=creates(registry, principal), by=principal.id) as session:
        document = session.document
        for update in brought:
            await session.apply(update, Actor(principal.id, principal.rights))
        answer = encode(SyncStep1(document.state_vector()))
        if asked is not None:
            answer = encode(SyncStep2(document.encode(asked))) + answer
        await session.durable()
        return answer
