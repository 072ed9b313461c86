"""REST: sessions and messages."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import Field, JsonValue
from quart import Blueprint
from quart_schema import tag, validate_querystring, validate_request, validate_response

from crdt_sessions.errors import BadDocument
from crdt_sessions.ids import session_id
from crdt_sessions.model import Author, Message, MessageHead, RunRequest, SessionView, TextPart, answer_to
from crdt_sessions.model.values import AgentName, MessageId, Part, Role, RunId, RunPolicy
from crdt_sessions.runtime import SessionRegistry, present
from crdt_sessions.storage import SessionRecord
from crdt_sessions_server.auth import current_principal
from crdt_sessions_server.bodies import Answer, Body

_MAX_PAGE = 1000


class NewSession(Body):
    """A session to create."""

    id: str | None = Field(None, description="Its name; one is made up if absent.")
    title: str | None = Field(None, max_length=500)
    metadata: dict[str, JsonValue] | None = None
    agent: str | None = Field(
        None, max_length=100, description="Who answers a user's message that asks nobody; empty for nobody."
    )


class SessionChange(Body):
    """What is to change of a session."""

    title: str | None = Field(None, max_length=500)
    agent: str | None = Field(None, max_length=100)
    run_policy: RunPolicy | None = None
    status: Literal["active", "closed", "archived"] | None = None


class SessionInfo(Answer):
    """A session as lists show it."""

    id: str
    generation: int
    created_at: int
    updated_at: int
    status: str
    title: str | None = None


class SessionDetail(SessionInfo):
    """A session, looked at closely."""

    peers: int = Field(description="Connections right now.")
    messages: int
    unread: int = Field(description="Messages of others behind the asking principal's receipt.")


class SessionPage(Answer):
    """A page of sessions."""

    sessions: list[SessionInfo]
    next_cursor: str | None = Field(None, description="Ask with this to get the next page; absent on the last.")


class NewMessage(Body):
    """A message to post. ``text`` is short for one text part."""

    id: MessageId | None = Field(None, description="An idempotency key: posting an id twice is posting it once.")
    text: str | None = None
    parts: list[Part] | None = None
    role: Role = "user"
    author: Author | None = Field(None, description="Only where the service knows no principals (no tokens).")
    parent: MessageId | None = None
    reply_to: MessageId | None = None
    steers: RunId | None = Field(None, description="The run it is meant to steer while that is active.")
    replaces: MessageId | None = Field(None, description="The message it is another version of.")
    modality: str | None = None
    agent: AgentName | None = Field(
        None, description="Who is to answer; * for any agent. Without it the session says who does, if anybody."
    )
    policy: RunPolicy | None = Field(None, description="What becomes of that while another run is active.")


class MessagePage(Answer):
    """A page of messages, in the session's order."""

    messages: list[Message]
    next_cursor: int | None = Field(None, description="Ask with this as ``after`` to get the next page.")


class Receipt(Body):
    """How far somebody has read."""

    seq: int | None = Field(None, ge=0, description="Up to which place in the order; everything if absent.")
    principal: str | None = Field(None, description="Only where the service knows no principals (no tokens).")


class Unread(Answer):
    """How far somebody has read, and how much is left."""

    principal: str
    seq: int
    unread: int


class PresencePage(Answer):
    """Who is here."""

    present: list[dict[str, JsonValue]]


class ReceiptQuery(Body):
    """Whose receipt."""

    principal: str | None = Field(None, description="Oneself if absent.")


class PageQuery(Body):
    """Which page of sessions."""

    cursor: str | None = None
    limit: int = Field(50, ge=1, le=_MAX_PAGE)


class MessageQuery(Body):
    """Which page of messages."""

    after: int = Field(0, ge=0, description="Only messages behind this place in the order.")
    limit: int = Field(200, ge=1, le=_MAX_PAGE)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for sessions and messages."""
    api = Blueprint("sessions", __name__, url_prefix="/v1/sessions")
    _session_routes(api, registry)
    _message_routes(api, registry)
    return api


def _session_routes(api: Blueprint, registry: SessionRegistry) -> None:
    @api.post("")
    @tag(["sessions"])
    @validate_request(NewSession)
    @validate_response(SessionInfo, 201)
    async def create_session(data: NewSession) -> tuple[SessionInfo, int, dict[str, str]]:
        """Create a session. One that was deleted is created anew, as the next generation."""
        current_principal().require_write()
        wanted = session_id(data.id if data.id is not None else uuid.uuid4().hex)
        record = await registry.create(wanted, title=data.title, metadata=data.metadata, agent=data.agent)
        return session_info(record), 201, {"Location": f"/v1/sessions/{wanted}"}

    @api.get("")
    @tag(["sessions"])
    @validate_querystring(PageQuery)
    @validate_response(SessionPage)
    async def list_sessions(query_args: PageQuery) -> SessionPage:
        """List sessions in order of id, page by page."""
        after = session_id(query_args.cursor) if query_args.cursor else None
        records = await registry.store.sessions(after=after, limit=query_args.limit + 1)
        page = [session_info(record) for record in records[: query_args.limit]]
        more = len(records) > query_args.limit
        return SessionPage(sessions=page, next_cursor=page[-1].id if more else None)

    @api.get("/<name>")
    @tag(["sessions"])
    @validate_response(SessionDetail)
    async def get_session(name: str) -> SessionDetail:
        """Look at one session."""
        async with registry.open(session_id(name)) as session:
            record = await registry.store.get(session.id) or session.record
            return SessionDetail(
                **session_info(record).model_dump(),
                peers=session.peers,
                messages=len(session.view.messages),
                unread=session.view.unread(current_principal().id),
            )

    @api.patch("/<name>")
    @tag(["sessions"])
    @validate_request(SessionChange)
    @validate_response(SessionInfo)
    async def change_session(name: str, data: SessionChange) -> SessionInfo:
        """Rename a session, close it (it takes no more writes), archive it or open it again."""
        current_principal().require_write()
        async with registry.open(session_id(name)) as session:
            await session.edit(lambda view: _change(view, data), administrative=True)
            if data.status is not None:
                await session.set_status(data.status)
            return session_info(await registry.store.get(session.id) or session.record)

    @api.delete("/<name>")
    @tag(["sessions"])
    async def delete_session(name: str) -> tuple[str, int]:
        """Delete a session for good. Its peers are closed with 4404 and it does not come back by itself."""
        current_principal().require_write()
        await registry.delete(session_id(name))
        return "", 204

    @api.get("/<name>/presence")
    @tag(["sessions"])
    @validate_response(PresencePage)
    async def get_presence(name: str) -> PresencePage:
        """Tell who is here."""
        async with registry.open(session_id(name)) as session:
            return PresencePage(present=present(session))


def _message_routes(api: Blueprint, registry: SessionRegistry) -> None:
    @api.get("/<name>/messages")
    @tag(["messages"])
    @validate_querystring(MessageQuery)
    @validate_response(MessagePage)
    async def list_messages(name: str, query_args: MessageQuery) -> MessagePage:
        """List messages in the session's order, page by page."""
        async with registry.open(session_id(name)) as session:
            await session.readable()
            found = session.view.messages.page(query_args.after, query_args.limit + 1)
        page = found[: query_args.limit]
        return MessagePage(messages=page, next_cursor=page[-1].seq if len(found) > len(page) else None)

    @api.post("/<name>/messages")
    @tag(["messages"])
    @validate_request(NewMessage)
    @validate_response(Message, 201)
    @validate_response(Message, 200)
    async def post_message(name: str, data: NewMessage) -> tuple[Message, int]:
        """Post a message; the answer comes once it is durable and has its place in the order.

        Posting an id that is there answers 200 with the message that is there.
        """
        principal = current_principal()
        principal.require_write()
        head = MessageHead(
            id=data.id or uuid.uuid4().hex,
            role=data.role,
            author=data.author if principal.anonymous and data.author else principal.author,
            parent=data.parent,
            reply_to=data.reply_to,
            steers=data.steers,
            replaces=data.replaces,
            modality=data.modality,
            created_at=registry.clock.now(),
        )
        parts: list[Any] = list(data.parts or [])
        if data.text is not None:
            parts.append(TextPart(type="text", text=data.text))
        async with registry.open(session_id(name), create=registry.auto_create) as session:
            known = head.id in session.view.messages
            await session.edit(lambda view: _post(view, head, parts, data))
            message = session.view.messages.value(head.id)
        if message is None:
            raise BadDocument(why=f"the id {head.id!r} is taken by something that is not a message")
        return message, 200 if known else 201

    @api.put("/<name>/receipt")
    @tag(["messages"])
    @validate_request(Receipt)
    @validate_response(Unread)
    async def put_receipt(name: str, data: Receipt) -> Unread:
        """Say how far one has read; a receipt never goes back."""
        principal = current_principal()
        principal.require_write()
        who = data.principal if principal.anonymous and data.principal else principal.id
        async with registry.open(session_id(name)) as session:
            seq = data.seq if data.seq is not None else session.view.messages.last_seq()
            await session.edit(lambda view: view.mark_read(who, seq))
            return Unread(principal=who, seq=session.view.read_up_to(who), unread=session.view.unread(who))

    @api.get("/<name>/receipt")
    @tag(["messages"])
    @validate_querystring(ReceiptQuery)
    @validate_response(Unread)
    async def get_receipt(name: str, query_args: ReceiptQuery) -> Unread:
        """Tell how far somebody has read, and how many messages of others are behind that."""
        who = query_args.principal or current_principal().id
        async with registry.open(session_id(name)) as session:
            return Unread(principal=who, seq=session.view.read_up_to(who), unread=session.view.unread(who))


def _change(view: SessionView, data: SessionChange) -> None:
    if data.title is not None:
        view.set_title(data.title)
    if data.agent is not None:
        view.set_agent(data.agent)
    if data.run_policy is not None:
        view.set_run_policy(data.run_policy)


def _post(view: SessionView, head: MessageHead, parts: list[Any], data: NewMessage) -> None:
    view.messages.add(head, parts)
    if data.agent is not None:
        request = RunRequest(
            message_id=head.id, agent=data.agent, policy=data.policy, by=head.author.id, created_at=head.created_at
        )
        view.runs.request(answer_to(head.id), request)


def session_info(record: SessionRecord) -> SessionInfo:
    """Return what lists show of a session."""
    return SessionInfo(
        id=record.id,
        generation=record.generation,
        created_at=record.created_at,
        updated_at=record.updated_at,
        status=record.status,
        title=record.title or None,
    )
