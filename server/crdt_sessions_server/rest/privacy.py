"""REST: export and erasure of a person's data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from pydantic import Field
from quart import Blueprint, Response

from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import CrdtSessionsError, HeldElsewhere, SessionNotFound
from crdt_sessions.ids import SessionId, name_of
from crdt_sessions.model import SessionView
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions.storage import SessionRecord
from crdt_sessions_server.auth import Grants, Permission, Principal, Role, current_principal
from crdt_sessions_server.http.describing import LINES, answers, tag
from crdt_sessions_server.http.errands import Errand, Errands, current_errands, in_turn
from crdt_sessions_server.http.schemas import NDJSON, Answer
from crdt_sessions_server.http.streaming import compact, going_on
from crdt_sessions_server.http.validation import validate_response

_TELL, _ERASE = "tell-of-person", "erase-person"
"""What nodes ask each other to do with a session."""


class Erased(Answer):
    """What was erased."""

    sessions: int = Field(description="Sessions that knew the principal.")
    receipts: int
    steps: int = Field(description="Steps of work on artifacts, with the deleted text that was kept to undo them.")
    versions: int = Field(
        description="Earlier versions of sessions in which it had written: none of theirs is left but the present."
    )
    presences: int
    memberships: int
    streams: int = Field(description="Durable streams that it had made; they stay, and are nobody's.")
    usage: bool = Field(description="Whether something was used by runs for the principal; it counts for nobody now.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes."""
    privacy = Blueprint("privacy", __name__, url_prefix="/v1/principals")

    @privacy.get("/<principal>/data")
    @tag(["access"])
    @answers(200, {NDJSON: LINES})
    async def export_data(principal: str) -> Response:
        """Export the data of a principal, as lines of JSON: messages, receipts, memberships, streams, the audit log.

        Everybody may have their own; that of others takes ``admin``.
        """
        caller = current_principal()
        if principal != caller.id:
            caller.require(Permission.ADMIN)
        await registry.audit.record("principal.export", caller.id, tenant=caller.tenant, of=principal)
        return going_on(_data(registry, current_errands(), caller, principal), NDJSON)

    @privacy.delete("/<principal>")
    @tag(["access"])
    @validate_response(Erased)
    async def erase(principal: str) -> Erased:
        """Erase a principal's receipts, presence and memberships in all sessions of the tenant, and its usage.

        So goes the deleted text that is kept to undo steps, if it or what deleted it may be the principal's: those
        steps cannot be undone any more. And so does the past of sessions in which the principal has written, with all
        versions, named ones too: what was deleted there is nowhere any more.

        What its runs have used counts for nobody from now on, and still for the tenant.

        What they wrote stays, as part of the sessions and streams; delete those to delete it. Their tokens stay good:
        revoke them first.
        """
        return await to_the_end(_erase(registry, current_errands(), current_principal(), principal))

    return privacy


async def _erase(registry: SessionRegistry, errands: Errands, caller: Principal, principal: str) -> Erased:
    done = Erased(sessions=0, receipts=0, steps=0, versions=0, presences=0, memberships=0, streams=0, usage=False)
    told = in_turn(registry.records(caller.tenant), lambda record: errands.run(_ERASE, record.id, principal))
    async with aclosing(told):
        async for found in told:
            done.receipts += found["receipts"]
            done.steps += found["steps"]
            done.versions += found["versions"]
            done.presences += found["presences"]
            done.memberships += found["memberships"]
            done.sessions += any(found.values())
    done.streams = await registry.streams.disown(caller.tenant, principal)
    done.usage = bool(await registry.store.usage(caller.tenant, principal=principal))
    await registry.store.disown_usage(caller.tenant, principal)
    registry.allowances.forget(caller.tenant, principal)
    await registry.audit.record("principal.erase", caller.id, tenant=caller.tenant, of=principal)
    return done


async def _forget_steps(session: Session, principal: str) -> int:
    clients = {writer.client for writer in session.engine.writers if writer.principal == principal}
    if steps := session.view.edits.about(principal, clients):
        await session.edit(lambda view: view.edits.forget(steps), administrative=True)
    return len(steps)


def _wrote(session: Session, principal: str) -> bool:
    known = any(writer.principal == principal for writer in session.engine.writers)
    return known or bool(_said(session.view, principal))


async def _forget_past(registry: SessionRegistry, name: SessionId, session: Session) -> int:
    """Have nothing but the present of a session; return how many versions that took."""
    before = await registry.store.history(name)
    if before.first == before.last and len(before.versions) == 1:
        return 0  # so it is already
    await session.forget_past()
    after = await registry.store.history(name)
    return len({each.seq for each in before.versions} - {each.seq for each in after.versions})


def errands(registry: SessionRegistry, grants: Grants) -> dict[str, Errand]:
    """Return what is done with each session, by the node that has it."""

    async def tell(session: SessionId, principal: str) -> dict[str, Any]:
        found: dict[str, Any]
        try:
            async with registry.open(session) as live:
                found = _said(live.view, principal)
        except HeldElsewhere:
            raise
        except CrdtSessionsError as error:  # a session that cannot be read is said to be one
            found = {"error": str(error)}
        if (role := (await grants.members(session)).get(principal)) is not None:
            found["role"] = Role(role)
        return found

    async def erase(session: SessionId, principal: str) -> dict[str, Any]:
        done = {"receipts": 0, "steps": 0, "versions": 0, "presences": 0, "memberships": 0}
        with suppress(SessionNotFound):  # it was deleted meanwhile
            async with registry.open(session) as live:
                if principal in await grants.members(session):
                    await grants.set_member(session, principal, None)
                    done["memberships"] = 1
                if principal in live.view.receipts:
                    await live.edit(lambda view: view.forget_receipt(principal), administrative=True)
                    done["receipts"] = 1
                done["steps"] = await _forget_steps(live, principal)
                if done["receipts"] or done["steps"] or _wrote(live, principal):
                    done["versions"] = await _forget_past(registry, session, live)
                done["presences"] = live.presence.forget(principal)
        return done

    return {_TELL: tell, _ERASE: erase}


async def _data(
    registry: SessionRegistry, errands: Errands, caller: Principal, principal: str
) -> AsyncIterator[bytes]:
    async def told(record: SessionRecord) -> dict[str, Any]:
        if not caller.may_see(record.id):
            return {}
        try:
            found = await errands.run(_TELL, record.id, principal)
        except CrdtSessionsError as error:  # the node that has it cannot be asked
            found = {"error": str(error)}
        return {"session": name_of(record.id), **found} if found else {}

    lines = in_turn(registry.records(caller.tenant), told)
    async with aclosing(lines):
        async for line in lines:
            if line:
                yield compact(line).encode() + b"\n"
    async for stream in registry.streams.owned(caller.tenant, principal):
        facts = {"stream": stream.path, "contentType": stream.content_type, "createdAt": stream.created_at}
        yield compact({**facts, "bytes": stream.tail}).encode() + b"\n"
    async for entry in registry.audit.entries(caller.tenant, principal=principal):
        yield compact({"at": entry.at, "session": entry.session, "action": entry.action}).encode() + b"\n"


def _said(view: SessionView, principal: str) -> dict[str, Any]:
    messages = [
        message.to_json()
        for message in view.messages.ordered()
        if message.by == principal or (message.by is None and message.author.id == principal)
    ]
    found: dict[str, Any] = {"messages": messages} if messages else {}
    if principal in view.receipts:
        found["readUpTo"] = view.read_up_to(principal)
    return found
