"""REST: who one is, tokens, and taking them out of use."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator
from quart import Blueprint

from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import NotFound
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.strings import NAME_CHARACTERS, PrincipalId
from crdt_sessions.model.values import Kind
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import (
    PERMISSIONS,
    Role,
    asked_session,
    current_admission,
    current_principal,
    lifetime_within,
    mint,
    patterns_within,
)
from crdt_sessions_server.http.describing import answers, refuses, tag
from crdt_sessions_server.http.schemas import Answer, Body, Query
from crdt_sessions_server.http.validation import validate_querystring, validate_request, validate_response

_LONGEST_TTL_S = 30 * 24 * 3600.0
_USUAL_TTL_S = 3600.0


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
    sessions: list[str] | None = Field(
        None, max_length=100, description="Patterns of names; all of the caller's if absent."
    )
    agents: list[str] | None = Field(
        None, max_length=100, description="Patterns of agents' names; all of the caller's if absent."
    )
    ttl_s: float | None = Field(
        None,
        gt=0,
        le=_LONGEST_TTL_S,
        description="Seconds for which it is good; an hour if absent, or as long as the caller's if that is less.",
    )


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


def blueprint(
    registry: SessionRegistry, *, secret: bytes | None, audience: str | None, issuer: str | None
) -> Blueprint:
    """Return the routes. Without *secret* tokens are made elsewhere."""
    tokens = Blueprint("tokens", __name__, url_prefix="/v1")

    @tokens.get("/me")
    @tag(["access"])
    @validate_querystring(MeQuery)
    @validate_response(Me)
    async def get_me(query_args: MeQuery) -> Me:
        """Tell who one is, and what one may do."""
        principal = current_principal()
        if query_args.session is not None and not principal.anonymous:
            principal = await current_admission().grants.in_session(principal, asked_session(query_args.session))
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

    @tokens.post("/tokens")
    @tag(["access"])
    @validate_request(NewToken)
    @validate_response(Token, 201)
    @refuses(NotFound)
    async def mint_token(data: NewToken) -> tuple[Token, int]:
        """Make a token, for a principal of one's own tenant. It is shown once and kept nowhere.

        It opens no more than the caller's own: no other sessions and agents, and for no longer (403).
        """
        if secret is None:
            raise NotFound(what="secret to sign tokens with; see the setting", id="jwt_secret")
        caller, now = current_principal(), registry.clock.now()
        token = mint(
            secret,
            now=now,
            ttl_s=lifetime_within(caller, now, data.ttl_s, _USUAL_TTL_S),
            principal=data.principal,
            audience=audience,
            issuer=issuer,
            name=data.name,
            kind=data.kind,
            role=data.role,
            tenant=caller.tenant or None,
            sessions=patterns_within(caller.sessions, data.sessions, "sessions"),
            agents=patterns_within(caller.agents, data.agents, "agents"),
        )
        await registry.audit.record("token.mint", caller.id, tenant=caller.tenant, of=data.principal, role=data.role)
        return Token(token=token), 201

    @tokens.post("/revocations")
    @tag(["access"])
    @validate_request(NewRevocation)
    @answers(204)
    async def revoke(data: NewRevocation) -> tuple[str, int]:
        """Take tokens out of use. What they opened is closed within a second."""
        caller, grants = current_principal(), current_admission().grants

        async def revoke_it() -> None:
            if data.token_id is not None:
                await grants.revoke(caller.tenant, "token", data.token_id)
            elif data.principal is not None:
                await grants.revoke(caller.tenant, "principal", data.principal)
            await registry.audit.record(
                "token.revoke", caller.id, tenant=caller.tenant, token=data.token_id, of=data.principal
            )

        await to_the_end(revoke_it())
        return "", 204

    @tokens.get("/revocations")
    @tag(["access"])
    @validate_response(RevocationList)
    async def list_revocations() -> RevocationList:
        """List the revocations."""
        tenant = current_principal().tenant
        known = [each for each in await registry.store.revocations() if each.tenant == tenant]
        return RevocationList(
            revocations=[RevocationInfo(kind=each.kind, value=each.value, at=each.at) for each in known]
        )

    return tokens
