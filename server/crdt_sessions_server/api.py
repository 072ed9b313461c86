"""REST: sessions and messages."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel
from quart import Blueprint
from quart_schema import tag, validate_querystring, validate_request, validate_response

from crdt_sessions.errors import BadDocument
from crdt_sessions.ids import session_id
from crdt_sessions.model import Author, Message, MessageHead, TextPart
from crdt_sessions.model.values import MessageId, Part, Role
from crdt_sessions.runtime import SessionRegistry, present
from crdt_sessions.storage import SessionRecord
from crdt_sessions_server.auth import current_principal

_MAX_PAGE = 1000


class _Body(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class NewSession(_Body):
    """A session to create."""

    id: str | None = Field(None, description="Its name; one is made up if absent.")
    title: str | None = Field(None, max_length=500)
    metadata: dict[str, JsonValue] | None = None


class SessionChange(_Body):
    """What is to change of a session."""

    title: str | None = Field(None, max_length=500)
    status: Literal["active", "closed", "archived"] | None = None


class SessionInfo(_Answer):
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


class SessionPage(_Answer):
    """A page of sessions."""

    sessions: list[SessionInfo]
    next_cursor: str | None = Field(None, description="Ask with this to get the next page; absent on the last.")


class NewMessage(_Body):
    """A message to post. ``text`` is short for one text part."""

    id: MessageId | None = Field(None, description="An idempotency key: posting an id twice is posting it once.")
    text: str | None = None
    parts: list[Part] | None = None
    role: Role = "user"
    author: Author | None = Field(None, description="Only where the service knows no principals (no tokens).")
    parent: MessageId | None = None
    reply_to: MessageId | None = None
    modality: str | None = None


class MessagePage(_Answer):
    """A page of messages, in the session's order."""

    messages: list[Message]
    next_cursor: int | None = Field(None, description="Ask with this as ``after`` to get the next page.")


class PresencePage(_Answer):
    """Who is here."""

    present: list[dict[str, JsonValue]]


class PageQuery(_Body):
    """Which page of sessions."""

    cursor: str | None = None
    limit: int = Field(50, ge=1, le=_MAX_PAGE)


class MessageQuery(_Body):
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
        record = await registry.create(wanted, title=data.title, metadata=data.metadata)
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
                **session_info(record).model_dump(), peers=session.peers, messages=len(session.view.messages)
            )

    @api.patch("/<name>")
    @tag(["sessions"])
    @validate_request(SessionChange)
    @validate_response(SessionInfo)
    async def change_session(name: str, data: SessionChange) -> SessionInfo:
        """Rename a session, close it (it takes no more writes), archive it or open it again."""
        current_principal().require_write()
        async with registry.open(session_id(name)) as session:
            if (title := data.title) is not None:
                await session.edit(lambda view: view.set_title(title), administrative=True)
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
            await session.durable()
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
            modality=data.modality,
            created_at=registry.clock.now(),
        )
        parts: list[Any] = list(data.parts or [])
        if data.text is not None:
            parts.append(TextPart(type="text", text=data.text))
        async with registry.open(session_id(name), create=registry.auto_create) as session:
            known = head.id in session.view.messages
            await session.edit(lambda view: view.messages.add(head, parts))
            message = session.view.messages.value(head.id)
        if message is None:
            raise BadDocument(why=f"the id {head.id!r} is taken by something that is not a message")
        return message, 200 if known else 201


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
