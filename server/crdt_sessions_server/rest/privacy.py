"""REST: export and erasure of a person's data."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import Field
from quart import Blueprint, Response
from quart_schema import tag, validate_response

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.ids import name_of
from crdt_sessions.model import SessionView
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import Grants, Permission, Principal, Role, current_admission, current_principal
from crdt_sessions_server.http.describing import LINES, answers
from crdt_sessions_server.http.schemas import NDJSON, Answer
from crdt_sessions_server.http.streaming import compact, going_on


class Erased(Answer):
    """What was erased."""

    sessions: int = Field(description="Sessions that knew the principal.")
    receipts: int
    steps: int = Field(description="Steps of work on artifacts, with the deleted text that was kept to undo them.")
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
        return going_on(_data(registry, current_admission().grants, caller, principal), NDJSON)

    @privacy.delete("/<principal>")
    @tag(["access"])
    @validate_response(Erased)
    async def erase(principal: str) -> Erased:
        """Erase a principal's receipts, presence and memberships in all sessions of the tenant, and its usage.

        So goes the deleted text that is kept to undo steps, if it or what deleted it may be the principal's: those
        steps cannot be undone any more.

        What its runs have used counts for nobody from now on, and still for the tenant.

        What they wrote stays, as part of the sessions and streams; delete those to delete it. Their tokens stay good:
        revoke them first.
        """
        caller, grants = current_principal(), current_admission().grants
        done = Erased(sessions=0, receipts=0, steps=0, presences=0, memberships=0, streams=0, usage=False)
        async for record in registry.records(caller.tenant):
            wanted, found = record.id, [0, 0, 0, 0]
            if principal in await grants.members(wanted):
                await grants.set_member(wanted, principal, None)
                found[2] = 1
            async with registry.open(wanted) as session:
                if principal in session.view.receipts:
                    await session.edit(lambda view: view.forget_receipt(principal), administrative=True)
                    found[0] = 1
                found[3] = await _forget_steps(session, principal)
                found[1] = session.forget_presence(principal)
            done.receipts += found[0]
            done.presences += found[1]
            done.memberships += found[2]
            done.steps += found[3]
            done.sessions += any(found)
        done.streams = await registry.streams.disown(caller.tenant, principal)
        done.usage = bool(await registry.store.usage(caller.tenant, principal=principal))
        await registry.store.disown_usage(caller.tenant, principal)
        registry.allowances.forget(caller.tenant, principal)
        await registry.audit.record("principal.erase", caller.id, tenant=caller.tenant, of=principal)
        return done

    return privacy


async def _forget_steps(session: Session, principal: str) -> int:
    clients = {writer.client for writer in session.engine.writers if writer.principal == principal}
    if steps := session.view.edits.about(principal, clients):
        await session.edit(lambda view: view.edits.forget(steps), administrative=True)
    return len(steps)


async def _data(registry: SessionRegistry, grants: Grants, caller: Principal, principal: str) -> AsyncIterator[bytes]:
    async for record in registry.records(caller.tenant):
        wanted = record.id
        if not caller.may_see(wanted):
            continue
        try:
            async with registry.open(wanted) as session:
                found = _said(session.view, principal)
        except CrdtSessionsError as error:  # a session that cannot be read is said to be one
            found = {"error": str(error)}
        if (role := (await grants.members(wanted)).get(principal)) is not None:
            found["role"] = Role(role)
        if found:
            yield compact({"session": name_of(wanted), **found}).encode() + b"\n"
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
