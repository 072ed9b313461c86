"""REST: who one is, tokens and revocations, members of sessions, and the audit log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Literal

from pydantic import Field, JsonValue, model_validator
from quart import Blueprint, Response, request
from quart_schema import tag, validate_querystring, validate_request, validate_response

from crdt_sessions.errors import BadValue, NotFound, SessionNotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.strings import NAME_CHARACTERS, PrincipalId, checked_id
from crdt_sessions.model.values import Kind
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import AuditEntry
from crdt_sessions_server.access import PERMISSIONS, Role, asked_session, current_door, current_principal, mint
from crdt_sessions_server.bodies import JSON, NDJSON, Answer, Body, Query
from crdt_sessions_server.describing import LINES, answers, refuses
from crdt_sessions_server.streaming import compact, going_on

_LONGEST_TTL_S = 30 * 24 * 3600.0


class Me(Answer):
    """Who one is here."""

    principal: str
    name: str
    kind: Kind
    role: Role = Field(description="In the session that was asked about, or where a session says nothing else.")
    tenant: str
    permissions: list[str]
    anonymous: bool
    expires_at: int | None = Field(
        None, le=MAX_INTEGER, description="When the token stops being good, in milliseconds."
    )


class MeQuery(Query):
    """Where."""

    session: str | None = Field(None, description="Tell what one may do in this session.")


class NewToken(Body):
    """A token to make."""

    principal: PrincipalId
    name: str | None = Field(None, max_length=NAME_CHARACTERS)
    kind: Kind = "human"
    role: Role = Role.EDITOR
    sessions: list[str] | None = Field(None, max_length=100, description="Patterns of names; all if absent.")
    agents: list[str] | None = Field(None, max_length=100, description="Patterns of agents' names; all if absent.")
    ttl_s: float = Field(3600, gt=0, le=_LONGEST_TTL_S, description="Seconds for which it is good.")


class Token(Answer):
    """A token."""

    token: str


class NewRevocation(Body):
    """What is not good any more: one token, or all that a principal has so far."""

    token_id: str | None = Field(None, min_length=1, max_length=200, description="The claim jti.")
    principal: PrincipalId | None = None

    @model_validator(mode="after")
    def _one(self) -> NewRevocation:
        if (self.token_id is None) == (self.principal is None):
            raise ValueError("give either tokenId or principal")
        return self


class RevocationInfo(Answer):
    """A revocation on record."""

    kind: Literal["token", "principal"]
    value: str
    at: int


class RevocationList(Answer):
    """All revocations on record."""

    revocations: list[RevocationInfo]


class Membership(Body):
    """What somebody may do in a session."""

    role: Role


class MemberList(Answer):
    """Who has a role of its own in a session."""

    members: dict[str, Role]


class AuditQuery(Query):
    """Which entries."""

    session: str | None = None
    principal: str | None = None
    action: str | None = None
    after: int = Field(0, ge=0, le=MAX_INTEGER, description="Only entries behind this one.")
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


def blueprint(
    registry: SessionRegistry, *, secret: bytes | None, audience: str | None, issuer: str | None
) -> Blueprint:
    """Return the routes. Without *secret* tokens are made elsewhere."""
    access = Blueprint("access", __name__, url_prefix="/v1")
    _token_routes(access, registry, secret, audience, issuer)
    _member_routes(access, registry)
    _audit_routes(access, registry)
    return access


def _token_routes(
    access: Blueprint, registry: SessionRegistry, secret: bytes | None, audience: str | None, issuer: str | None
) -> None:
    @access.get("/me")
    @tag(["access"])
    @validate_querystring(MeQuery)
    @validate_response(Me)
    async def get_me(query_args: MeQuery) -> Me:
        """Tell who one is, and what one may do."""
        principal = current_principal()
        if query_args.session is not None and not principal.anonymous:
            principal = await current_door().gate.in_session(principal, asked_session(query_args.session))
        return Me(
            principal=principal.id,
            name=principal.name,
            kind=principal.kind,
            role=principal.role,
            tenant=principal.tenant,
            permissions=sorted(PERMISSIONS[principal.role]),
            anonymous=principal.anonymous,
            expires_at=principal.expires_at,
        )

    @access.post("/tokens")
    @tag(["access"])
    @validate_request(NewToken)
    @validate_response(Token, 201)
    @refuses(NotFound)
    async def mint_token(data: NewToken) -> tuple[Token, int]:
        """Make a token, for a principal of one's own tenant. It is shown once and kept nowhere."""
        if secret is None:
            raise NotFound(what="secret to sign tokens with; see the setting", id="jwt_secret")
        caller = current_principal()
        token = mint(
            secret,
            now=registry.clock.now(),
            ttl_s=data.ttl_s,
            principal=data.principal,
            audience=audience,
            issuer=issuer,
            name=data.name,
            kind=data.kind,
            role=data.role,
            tenant=caller.tenant or None,
            sessions=data.sessions,
            agents=data.agents,
        )
        await registry.audit.record("token.mint", caller.id, tenant=caller.tenant, of=data.principal, role=data.role)
        return Token(token=token), 201

    @access.post("/revocations")
    @tag(["access"])
    @validate_request(NewRevocation)
    @answers(204)
    async def revoke(data: NewRevocation) -> tuple[str, int]:
        """Take tokens out of use. What they opened is closed within a second."""
        caller, gate = current_principal(), current_door().gate
        if data.token_id is not None:
            await gate.revoke(caller.tenant, "token", data.token_id)
        elif data.principal is not None:
            await gate.revoke(caller.tenant, "principal", data.principal)
        await registry.audit.record(
            "token.revoke", caller.id, tenant=caller.tenant, token=data.token_id, of=data.principal
        )
        return "", 204

    @access.get("/revocations")
    @tag(["access"])
    @validate_response(RevocationList)
    async def list_revocations() -> RevocationList:
        """List what was taken out of use."""
        tenant = current_principal().tenant
        known = [each for each in await registry.store.revocations() if each.tenant == tenant]
        return RevocationList(
            revocations=[RevocationInfo(kind=each.kind, value=each.value, at=each.at) for each in known]
        )


def _member_routes(access: Blueprint, registry: SessionRegistry) -> None:
    async def existing(name: str) -> SessionId:
        wanted = asked_session(name)
        if await registry.store.get(wanted) is None:
            raise SessionNotFound(session=wanted)
        return wanted

    async def change(name: str, principal: str, role: Role | None) -> None:
        caller, wanted = current_principal(), await existing(name)
        if role is Role.SERVICE:
            raise BadValue(where="role", why="service is a role of a whole tenant, given by tokens")
        await current_door().gate.set_member(wanted, checked_id(principal, "principal"), role)
        await registry.audit.record("member.change", caller.id, wanted, member=principal, role=role)

    @access.get("/sessions/<name>/members")
    @tag(["access"])
    @validate_response(MemberList)
    async def list_members(name: str) -> MemberList:
        """List who has a role of its own in a session, whatever their tokens say."""
        found = await current_door().gate.members(await existing(name))
        return MemberList(members={principal: Role(role) for principal, role in found.items()})

    @access.put("/sessions/<name>/members/<principal>")
    @tag(["access"])
    @validate_request(Membership)
    @answers(204)
    async def put_member(name: str, principal: str, data: Membership) -> tuple[str, int]:
        """Give a principal a role in a session. Connections that are open feel it within a second."""
        await change(name, principal, data.role)
        return "", 204

    @access.delete("/sessions/<name>/members/<principal>")
    @tag(["access"])
    @answers(204)
    async def delete_member(name: str, principal: str) -> tuple[str, int]:
        """Let a principal's token say again what it may do in a session."""
        await change(name, principal, None)
        return "", 204


def _audit_routes(access: Blueprint, registry: SessionRegistry) -> None:
    @access.get("/audit")
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
