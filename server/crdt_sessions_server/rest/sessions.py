"""REST: sessions as a whole."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal
from urllib.parse import quote

from pydantic import Field, JsonValue
from quart import Blueprint

from crdt_sessions.endings import to_the_end
from crdt_sessions.errors import AccessDenied, BadSessionId, SessionExists
from crdt_sessions.ids import Millis, SessionId, name_of
from crdt_sessions.model import (
    SessionView,
)
from crdt_sessions.model.run_values import RunPolicy
from crdt_sessions.model.strings import (
    TITLE_CHARACTERS,
    AgentName,
    PrincipalId,
)
from crdt_sessions.model.values import SessionStatus
from crdt_sessions.runtime import Session, SessionRegistry, present
from crdt_sessions.storage import SessionRecord
from crdt_sessions_server.auth import Permission, Principal, asked_session, current_admission, current_principal
from crdt_sessions_server.http.describing import answers, refuses, tag
from crdt_sessions_server.http.paging import MAX_PAGE, cursor_at, place_of, some_of, visible
from crdt_sessions_server.http.schemas import Answer, Body, Query
from crdt_sessions_server.http.sealing import Seal
from crdt_sessions_server.http.validation import validate_querystring, validate_request, validate_response


class NewSession(Body):
    """A session to create."""

    id: str | None = Field(None, description="Its name; one is made up if absent.")
    title: str | None = Field(None, max_length=TITLE_CHARACTERS)
    metadata: dict[str, JsonValue] | None = None
    agent: AgentName | Literal[""] | None = Field(
        None, description="Who answers a user's message that asks nobody; empty for nobody."
    )


class SessionChange(Body):
    """What is to change of a session."""

    title: str | None = Field(None, max_length=TITLE_CHARACTERS)
    agent: AgentName | Literal[""] | None = None
    run_policy: RunPolicy | None = None
    status: Literal["active", "closed", "archived"] | None = None


class SessionInfo(Answer):
    """A session as lists show it."""

    id: str
    generation: int
    lineage: str = Field(description="Names this creation of it; a local copy belongs to one.")
    created_at: int
    updated_at: int
    status: str
    title: str | None = None


class SessionDetail(SessionInfo):
    """A session, looked at closely."""

    metadata: dict[str, JsonValue] | None = Field(None, description="What the application keeps with it.")
    peers: int = Field(description="Connections right now.")
    messages: int
    unread: int = Field(description="Messages of others after the caller's receipt.")


class SessionPage(Answer):
    """A page of sessions."""

    sessions: list[SessionInfo]
    next_cursor: str | None = Field(None, description="Ask with this to get the next page; absent on the last.")


class WriterInfo(Answer):
    """Whose a Yjs client is."""

    client: int
    principal: str
    run: str | None = Field(None, description="The run it wrote for.")
    fenced_at: int | None = Field(None, description="The clock from which on what it writes is refused.")


class Written(Answer):
    """Who wrote a message."""

    id: str
    author: str = Field(description="Who it says it is by.")
    by: str | None = Field(None, description="Who sent it, as far as that was known.")
    parts: list[str | None] = Field(description="Whose client wrote each of its parts; null where that is not known.")


class Authors(Answer):
    """Who wrote what in a session."""

    writers: list[WriterInfo]
    messages: list[Written]


class PresencePage(Answer):
    """Who is here."""

    present: list[dict[str, JsonValue]]


class PageQuery(Query):
    """Which page of which sessions."""

    order: Literal["id", "recent"] = Field("id", description="By id; or those that changed last first.")
    status: str | None = Field(
        None,
        pattern=some_of(SessionStatus),
        description="Only those with one of these statuses, with commas in between.",
    )
    member: PrincipalId | None = Field(
        None, description="Only those that give this principal a role; see their `members`."
    )
    cursor: str | None = Field(None, description="`nextCursor` of the page before, which was in the same order.")
    limit: int = Field(50, ge=1, le=MAX_PAGE)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for sessions as a whole."""
    sessions = Blueprint("sessions", __name__, url_prefix="/v1/sessions")
    seal = Seal(registry.store, registry.clock)

    @sessions.post("")
    @tag(["sessions"])
    @validate_request(NewSession)
    @validate_response(SessionInfo, 201)
    @refuses(SessionExists, BadSessionId)
    async def create_session(data: NewSession) -> tuple[SessionInfo, int, dict[str, str]]:
        """Create a session. One that was deleted is created anew, as the next generation."""
        principal, name = current_principal(), data.id if data.id is not None else uuid.uuid4().hex
        if not principal.may_enter(name):
            raise AccessDenied(what="this token is not for that session")
        wanted = asked_session(name)
        record = await registry.create(
            wanted, title=data.title, metadata=data.metadata, agent=data.agent, by=principal.id
        )
        return session_info(record), 201, {"Location": location_of(name)}

    @sessions.get("")
    @tag(["sessions"])
    @validate_querystring(PageQuery)
    @validate_response(SessionPage)
    async def list_sessions(query_args: PageQuery) -> SessionPage:
        """List sessions page by page: in order of id, or those that changed last first.

        What changes while one reads page after page of the latter moves to the front, and is not told twice. Of very
        many sessions that a token is not for, a page may have few, or none, and a cursor all the same.
        """
        return await _page(registry, query_args, seal)

    @sessions.get("/<name>")
    @tag(["sessions"])
    @validate_response(SessionDetail)
    async def get_session(name: str) -> SessionDetail:
        """Look at one session."""
        async with registry.open(asked_session(name)) as session:
            record = await registry.store.get(session.id) or session.record
            return SessionDetail(
                **session_info(record).model_dump(),
                peers=session.peers,
                metadata=session.view.meta.metadata,
                messages=len(session.view.messages),
                unread=session.said.unread(current_principal().id),
            )

    @sessions.patch("/<name>")
    @tag(["sessions"])
    @validate_request(SessionChange)
    @validate_response(SessionInfo)
    async def change_session(name: str, data: SessionChange) -> SessionInfo:
        """Rename a session, close it (it takes no more writes), archive it or open it again."""
        async with registry.open(asked_session(name)) as session:
            await session.edit(lambda view: _change(view, data), administrative=True)
            if data.status is not None:
                await to_the_end(_set_status(registry, session.id, data.status, current_principal().id))
            return session_info(await registry.store.get(session.id) or session.record)

    @sessions.delete("/<name>")
    @tag(["sessions"])
    @answers(204)
    async def delete_session(name: str) -> tuple[str, int]:
        """Delete a session for good. Its peers are closed with 4404 and it does not come back by itself."""
        await delete_for_good(registry, asked_session(name))
        return "", 204

    @sessions.get("/<name>/presence")
    @tag(["sessions"])
    @validate_response(PresencePage)
    async def get_presence(name: str) -> PresencePage:
        """List the peers that are present."""
        async with registry.open(asked_session(name)) as session:
            return PresencePage(present=present(session))

    @sessions.get("/<name>/authors")
    @tag(["sessions"])
    @validate_response(Authors)
    async def get_authors(name: str) -> Authors:
        """Tell who wrote what, by what the service knew when it came and not by what it says.

        Without tokens no author is known. Deletions are not listed.
        """
        async with registry.open(asked_session(name)) as session, session.reading():
            return _authors(session)

    return sessions


def _authors(session: Session) -> Authors:
    writers = session.engine.writers
    whose = {writer.client: writer.principal for writer in writers}
    return Authors(
        writers=[
            WriterInfo(client=each.client, principal=each.principal, run=each.run or None, fenced_at=each.fenced_at)
            for each in writers
        ],
        messages=[
            Written(
                id=view.id,
                author=head.author.id,
                by=view.by,
                parts=[whose.get(client) for client in view.part_clients()],
            )
            for view in session.view.messages.views()
            if (head := view.head) is not None
        ],
    )


def _cursor(order: str, last: SessionInfo) -> str:
    return cursor_at(last.updated_at, last.id) if order == "recent" else last.id


async def _page(registry: SessionRegistry, query: PageQuery, seal: Seal) -> SessionPage:
    principal = current_principal()
    if query.cursor is not None:
        query.cursor = await seal.opened(query.cursor)
    records, last = await _listed(registry, query, principal)
    cursor = None if last is None else _cursor(query.order, session_info(last))
    if last is not None and cursor is not None and not principal.may_see(last.id):
        cursor = await seal.sealed(cursor)
    return SessionPage(sessions=[session_info(record) for record in records], next_cursor=cursor)


async def _listed(
    registry: SessionRegistry, query: PageQuery, principal: Principal
) -> tuple[list[SessionRecord], SessionRecord | None]:
    """Return a page of the sessions that a principal may use, and after which one to go on; see :func:`visible`."""
    statuses = query.status.split(",") if query.status is not None else None
    store, tenant, first, after = registry.store, principal.tenant, None, None
    if query.cursor is not None and query.order == "recent":
        at, name = place_of(query.cursor, int, str)
        first = (Millis(at), asked_session(name))
    elif query.cursor is not None:
        after = asked_session(query.cursor)

    async def read(last: SessionRecord | None, limit: int) -> Sequence[SessionRecord]:
        if query.order == "recent":
            before = (last.updated_at, last.id) if last is not None else first
            return await store.recent_sessions(
                tenant, statuses=statuses, member=query.member, before=before, limit=limit
            )
        place = last.id if last is not None else after
        return await store.sessions(after=place, limit=limit, tenant=tenant, statuses=statuses, member=query.member)

    return await visible(read, lambda record: principal.may_see(record.id), query.limit)


async def delete_for_good(registry: SessionRegistry, wanted: SessionId) -> None:
    """Delete a session in the name of the current principal.

    Raises:
        SessionNotFound: there is none.
    """
    grants, caller = current_admission().grants, current_principal()

    async def delete() -> None:
        await registry.delete(wanted)
        grants.forget(wanted)
        await registry.audit.record("session.delete", caller.id, wanted)

    await to_the_end(delete())


def creates(registry: SessionRegistry, principal: Principal) -> bool:
    """Whether a session that is not there is made for a principal who uses it."""
    return registry.auto_create and principal.can(Permission.CREATE)


def used(registry: SessionRegistry, name: str) -> AbstractAsyncContextManager[Session]:
    """Open the session that the current request names; it is made if it is not there, and its principal may."""
    principal = current_principal()
    return registry.open(asked_session(name), create=creates(registry, principal), by=principal.id)


async def _set_status(registry: SessionRegistry, wanted: SessionId, status: str, by: str) -> None:
    async with registry.open(wanted) as session:  # whoever asked may leave before it is done
        await session.set_status(status)
        await registry.audit.record("session.status", by, wanted, status=status)


def _change(view: SessionView, data: SessionChange) -> None:
    if data.title is not None:
        view.set_title(data.title)
    if data.agent is not None:
        view.set_agent(data.agent)
    if data.run_policy is not None:
        view.set_run_policy(data.run_policy)


def location_of(name: str) -> str:
    """Return the path of a session."""
    return f"/v1/sessions/{quote(name, safe='')}"


def session_info(record: SessionRecord) -> SessionInfo:
    """Return what lists show of a session."""
    return SessionInfo(
        id=name_of(record.id),
        generation=record.generation,
        lineage=record.lineage,
        created_at=record.created_at,
        updated_at=record.updated_at,
        status=record.status,
        title=record.title or None,
    )
