"""What y-sweet's server is asked for over HTTP: documents, tokens for them, and their content.

Its clients get a *client token* first, which says where a document's WebSocket is; ``serving/sync_endpoint.py``
serves that. A backend gets it with ``@y-sweet/sdk``, for somebody else; a client with a token of its own may, for
itself.
"""

from __future__ import annotations

import glob
import uuid
from typing import Literal
from urllib.parse import quote

from pydantic import Field
from quart import Blueprint, Response, request

from crdt_sessions.errors import AccessDenied, BadSessionId, EarlyUpdate, SessionExists, SessionNotFound, UpdateError
from crdt_sessions.model.strings import PrincipalId
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.sync import Actor
from crdt_sessions_server.asgi import Y_SWEET_PREFIX
from crdt_sessions_server.auth import (
    Permission,
    Principal,
    Role,
    asked_session,
    current_admission,
    current_admitted,
    current_principal,
    lifetime_within,
    mint,
    patterns_within,
)
from crdt_sessions_server.http.describing import BYTES, NOTHING, answers, refuses, tag, takes
from crdt_sessions_server.http.schemas import OCTETS, Answer, Body, check_content_type
from crdt_sessions_server.http.validation import validate_request, validate_response
from crdt_sessions_server.rest.sessions import creates

_PREFIX = "/v1/y-sweet"
_LONGEST_S = 30 * 24 * 3600
_USUAL_S = 3600.0


class NewDocument(Body):
    """A document to make, unless it is there."""

    doc_id: str | None = Field(None, description="The session's name; one is made up if it is absent.")


class DocumentName(Answer):
    """A document that is there."""

    doc_id: str


class Wanted(Body):
    """What a client token is to be good for."""

    authorization: Literal["full", "read-only"] = "full"
    user_id: PrincipalId | None = Field(None, description="Whose it is to be; the caller's if absent.")
    valid_for_seconds: float | None = Field(None, gt=0, le=_LONGEST_S)


class ClientToken(Answer):
    """Where a document is, and what lets its client in."""

    url: str = Field(description="Of the WebSocket; clients put the document behind its path.")
    base_url: str = Field(description="Of the document over HTTP.")
    doc_id: str
    token: str | None = None
    authorization: Literal["full", "read-only"]


def blueprint(
    registry: SessionRegistry, *, secret: bytes | None, audience: str | None, issuer: str | None
) -> Blueprint:
    """Return the routes. Without *secret* a client gets the token that was asked with."""
    documents = Blueprint("y-sweet", __name__, url_prefix=_PREFIX)

    @documents.post("/doc/new")
    @tag(["y-sweet"])
    @validate_request(NewDocument)
    @validate_response(DocumentName)
    @refuses(BadSessionId)
    async def create_document(data: NewDocument) -> DocumentName:
        """Make a session for y-sweet's clients; one that is there stays as it is."""
        name = uuid.uuid4().hex if data.doc_id is None else data.doc_id
        principal = current_principal()
        if not principal.may_enter(name):
            raise AccessDenied(what="this token is not for that session")
        try:
            await registry.create(asked_session(name), by=principal.id)
        except SessionExists:
            await current_admission().admit(dict(request.scope), current_admitted().token, name, Permission.READ)
        return DocumentName(doc_id=name)

    @documents.post("/doc/<room:name>/auth")
    @tag(["y-sweet"])
    @validate_request(Wanted)
    @validate_response(ClientToken)
    async def authorize_document(name: str, data: Wanted) -> ClientToken:
        """Make a client token for one session.

        Whoever may make tokens gets one for whom they say, for this session only. Everybody else gets their own.
        """
        principal, session = current_principal(), asked_session(name)
        if await registry.store.get(session) is None and not creates(registry, principal):
            raise SessionNotFound(session=session)
        writes = principal.can(Permission.WRITE)
        if principal.anonymous or secret is None or not principal.can(Permission.ADMIN):
            _check_own(principal, data, writes=writes)
            token = current_admitted().token
        else:
            writes = data.authorization == "full"
            now = registry.clock.now()
            token = mint(
                secret,
                now=now,
                ttl_s=lifetime_within(principal, now, data.valid_for_seconds, _USUAL_S),
                principal=data.user_id or principal.id,
                audience=audience,
                issuer=issuer,
                role=Role.EDITOR if writes else Role.VIEWER,
                tenant=principal.tenant or None,
                sessions=[glob.escape(name)],
                agents=patterns_within(principal.agents, None, "agents"),
            )
            of, tenant = data.user_id or principal.id, principal.tenant
            await registry.audit.record("token.mint", principal.id, session, tenant=tenant, of=of)
        origin, encoded = current_admission().origin(dict(request.scope)), quote(name, safe="")
        return ClientToken(
            url=f"{origin.replace('http', 'ws', 1)}{Y_SWEET_PREFIX.rstrip('/')}?session={encoded}",
            base_url=f"{origin}{_PREFIX}/d/{encoded}",
            doc_id=name,
            token=token,
            authorization="full" if writes and data.authorization == "full" else "read-only",
        )

    @documents.get("/d/<name>/as-update")
    @tag(["y-sweet"])
    @answers(200, {OCTETS: BYTES})
    async def read_document(name: str) -> Response:
        """Read a whole session as one Yjs update, as y-sweet does."""
        async with registry.open(asked_session(name)) as session:
            return Response(await session.export(), content_type=OCTETS)

    @documents.post("/d/<name>/update")
    @tag(["y-sweet"])
    @takes({OCTETS: BYTES})
    @answers(200, NOTHING, "The update is on disk.")
    @refuses(UpdateError, EarlyUpdate)
    async def change_document(name: str) -> tuple[str, int]:
        """Merge a Yjs update into a session, as y-sweet does."""
        check_content_type(request.mimetype, OCTETS)
        principal = current_principal()
        async with registry.open(
            asked_session(name), create=creates(registry, principal), by=principal.id
        ) as session:
            await session.apply(await request.data, Actor(principal.id, principal.rights))
        return "", 200

    return documents


def _check_own(principal: Principal, data: Wanted, *, writes: bool) -> None:
    """Return if the caller's own token will do for what is wanted.

    Raises:
        AccessDenied: it would let in somebody else, or to more than was asked for.
    """
    if principal.anonymous:
        return
    if data.user_id not in (None, principal.id):
        raise AccessDenied(what=f"a token for {data.user_id!r} is for whoever may make tokens, which takes admin")
    if writes and data.authorization == "read-only":
        raise AccessDenied(what="a token for reading only is for whoever may make tokens, which takes admin")
