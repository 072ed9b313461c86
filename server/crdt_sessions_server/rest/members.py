"""REST: who has a role of its own in a session."""

from __future__ import annotations

from quart import Blueprint

from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import BadValue, SessionNotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.model.strings import checked_id
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import Role, asked_session, current_admission, current_principal
from crdt_sessions_server.http.describing import answers, tag
from crdt_sessions_server.http.schemas import Answer, Body
from crdt_sessions_server.http.validation import validate_request, validate_response

_LONGEST_TTL_S = 30 * 24 * 3600.0


class Membership(Body):
    """What somebody may do in a session."""

    role: Role


class MemberList(Answer):
    """Who has a role of its own in a session."""

    members: dict[str, Role]


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for members of sessions."""
    members = Blueprint("members", __name__, url_prefix="/v1")

    async def existing(name: str) -> SessionId:
        wanted = asked_session(name)
        if await registry.store.get(wanted) is None:
            raise SessionNotFound(session=wanted)
        return wanted

    async def change(name: str, principal: str, role: Role | None) -> None:
        caller, wanted = current_principal(), await existing(name)
        if role is Role.SERVICE:
            raise BadValue(where="role", why="service is a role of a whole tenant, given by tokens")
        grants, member = current_admission().grants, checked_id(principal, "principal")

        async def change_it() -> None:
            await grants.set_member(wanted, member, role)
            await registry.audit.record("member.change", caller.id, wanted, member=member, role=role)

        await to_the_end(change_it())

    @members.get("/sessions/<name>/members")
    @tag(["access"])
    @validate_response(MemberList)
    async def list_members(name: str) -> MemberList:
        """List who has a role of its own in a session, whatever their tokens say."""
        found = await current_admission().grants.members(await existing(name))
        return MemberList(members={principal: Role(role) for principal, role in found.items()})

    @members.put("/sessions/<name>/members/<principal>")
    @tag(["access"])
    @validate_request(Membership)
    @answers(204)
    async def put_member(name: str, principal: str, data: Membership) -> tuple[str, int]:
        """Give a principal a role in a session. Connections that are open feel it within a second."""
        await change(name, principal, data.role)
        return "", 204

    @members.delete("/sessions/<name>/members/<principal>")
    @tag(["access"])
    @answers(204)
    async def delete_member(name: str, principal: str) -> tuple[str, int]:
        """Let a principal's token say again what it may do in a session."""
        await change(name, principal, None)
        return "", 204

    return members
