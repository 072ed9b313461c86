"""REST: being present without a socket."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field, JsonValue
from quart import Blueprint

from crdt_sessions.errors import AccessDenied, BadValue, TooLarge, TooMany
from crdt_sessions.ids import Millis
from crdt_sessions.model.checks import check_json
from crdt_sessions.model.strings import NAME_CHARACTERS, PrincipalId
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.sync import Actor
from crdt_sessions_server.auth import Principal, asked_session, current_principal
from crdt_sessions_server.http.describing import answers, refuses, tag
from crdt_sessions_server.http.schemas import Answer, Body, Query
from crdt_sessions_server.http.validation import validate_querystring, validate_request, validate_response

LONGEST_S = 300


class Announcement(Body):
    """That somebody is here, and what they do."""

    state: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="What others are shown, such as `activity`; `user`, `kind` and `device` are filled in.",
    )
    ttl_s: float = Field(30, ge=1, le=LONGEST_S, description="For how many seconds, if it is not announced again.")
    device: str = Field("", max_length=NAME_CHARACTERS, description="Tells several presences of one principal apart.")
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


class WhichPresence(Query):
    """Which of one's presences."""

    device: str = Field("", max_length=NAME_CHARACTERS)
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


class Announced(Answer):
    """A presence as others see it."""

    client_id: int = Field(description="Names it among those who are here.")
    state: dict[str, JsonValue]


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for being present without a socket."""
    presence = Blueprint("presence", __name__, url_prefix="/v1/sessions")

    @presence.put("/<name>/presence")
    @tag(["sessions"])
    @validate_request(Announcement)
    @validate_response(Announced)
    @refuses(TooMany, TooLarge)
    async def put_presence(name: str, data: Announcement) -> Announced:
        """Be present for a while, as a peer among the others; announce it again to stay, or to show another state."""
        principal = current_principal()
        who = principal.speaking_as(data.principal)
        state = shown(principal, who, data.state, data.device)
        async with registry.open(asked_session(name)) as session:
            client = session.presence.announce(
                Actor(who, principal.rights), data.device, json.dumps(state), Millis(int(data.ttl_s * 1000))
            )
        return Announced(client_id=client, state=state)

    @presence.delete("/<name>/presence")
    @tag(["sessions"])
    @validate_querystring(WhichPresence)
    @answers(204)
    async def delete_presence(name: str, query_args: WhichPresence) -> tuple[str, int]:
        """Leave before the time is over."""
        who = current_principal().speaking_as(query_args.principal)
        async with registry.open(asked_session(name)) as session:
            session.presence.withdraw(who, query_args.device)
        return "", 204

    return presence


def shown(principal: Principal, who: str, state: dict[str, Any], device: str) -> dict[str, Any]:
    """Return what others are shown of somebody: what was said, in the name of who says it.

    Raises:
        AccessDenied: it is said to be somebody else.
        BadValue: it is no presence.
    """
    said = check_json(state, "state").get("user", {})
    if not isinstance(said, dict):
        raise BadValue(where="state.user", why="is no object")
    if said.get("id", who) != who:
        raise AccessDenied(what=f"{who!r} is not present as somebody else")
    user = {"name": principal.name or who, **said, "id": who}
    named = {"device": device} if device else {}
    return {"kind": principal.kind, **state, **named, "user": user}
