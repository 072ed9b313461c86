"""REST: messages of a session, and how far people have read them."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from pydantic import Field, JsonValue, model_validator
from quart import Blueprint

from crdt_sessions.errors import BadDocument, EmptyMessage
from crdt_sessions.model import (
    Author,
    Message,
    MessageHead,
    RunInput,
    RunRequest,
    Schedule,
    SessionView,
    TextPart,
    answer_to,
    say_nothing,
)
from crdt_sessions.model.checks import MAX_INTEGER
from crdt_sessions.model.parts import Part
from crdt_sessions.model.run_values import RunPolicy
from crdt_sessions.model.strings import (
    WORD_CHARACTERS,
    AgentName,
    MessageId,
    PrincipalId,
    RunId,
    Time,
)
from crdt_sessions.model.values import Role
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import Permission, asked_session, current_principal
from crdt_sessions_server.http.describing import refuses, tag
from crdt_sessions_server.http.paging import MAX_PAGE
from crdt_sessions_server.http.schemas import Answer, Body, Query
from crdt_sessions_server.http.validation import validate_querystring, validate_request, validate_response
from crdt_sessions_server.rest.sessions import creates


class NewMessage(Body):
    """A message to post. ``text`` is short for one text part."""

    id: MessageId | None = Field(None, description="An idempotency key: posting an id twice is posting it once.")
    text: str | None = Field(None, examples=["Hello"])
    parts: Annotated[list[Part], Field(fail_fast=True)] | None = None
    role: Role = "user"
    author: Author | None = Field(None, description="Only where nobody is known, and for backends.")
    parent: MessageId | None = None
    reply_to: MessageId | None = None
    steers: RunId | None = Field(None, description="The run it is meant to steer while that is active.")
    replaces: MessageId | None = Field(None, description="The message it is another version of.")
    modality: str | None = Field(None, max_length=WORD_CHARACTERS)
    metadata: JsonValue = Field(None, description="What the application keeps with it.")
    agent: AgentName | None = Field(
        None, description="Who is to answer; * for any agent. Without it the session says who does, if anybody."
    )
    policy: RunPolicy | None = Field(None, description="What becomes of that while another run is active.")
    input: RunInput | None = Field(
        None, description="What that agent is to work with besides the conversation; only together with `agent`."
    )

    not_before: Time | None = Field(
        None, description="When that agent is to begin at the earliest, in milliseconds; only together with `agent`."
    )
    deadline: Time | None = Field(
        None, description="When its run ends as failed if it is not done, in milliseconds; only with `agent`."
    )
    schedule: Schedule | None = Field(
        None, description="When that agent is asked again and again; only together with `agent`."
    )

    @model_validator(mode="after")
    def _for_an_agent(self) -> NewMessage:
        if self.agent is None and (self.input, self.not_before, self.deadline, self.schedule) != (None,) * 4:
            raise ValueError('input and times are for an agent: name it, or give "agent": "*" for any')
        return self


class MessagePage(Answer):
    """A page of messages, in the session's order."""

    messages: list[Message]
    next_cursor: int | None = Field(None, description="Ask with this as ``after`` to get the next page.")


class Receipt(Body):
    """How far somebody has read."""

    seq: int | None = Field(
        None, ge=0, le=MAX_INTEGER, description="Up to which place in the order; everything if absent."
    )
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


class Unread(Answer):
    """How far somebody has read, and how much is left."""

    principal: str
    seq: int
    unread: int


class ReceiptQuery(Query):
    """Whose receipt."""

    principal: PrincipalId | None = Field(None, description="Oneself if absent.")


class MessageQuery(Query):
    """Which page of messages."""

    after: int = Field(0, ge=0, description="Only messages after this place in the order.")
    limit: int = Field(200, ge=1, le=MAX_PAGE)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for messages and for how far people have read them."""
    messages = Blueprint("messages", __name__, url_prefix="/v1/sessions")

    @messages.get("/<name>/messages")
    @tag(["messages"])
    @validate_querystring(MessageQuery)
    @validate_response(MessagePage)
    async def list_messages(name: str, query_args: MessageQuery) -> MessagePage:
        """List messages in the session's order, page by page."""
        async with registry.open(asked_session(name)) as session, session.reading():
            found = session.view.messages.page(query_args.after, query_args.limit + 1)
        page = found[: query_args.limit]
        return MessagePage(messages=page, next_cursor=page[-1].seq if len(found) > len(page) else None)

    @messages.post("/<name>/messages")
    @tag(["messages"])
    @validate_request(NewMessage)
    @validate_response(Message, 201)
    @validate_response(Message, 200)
    @refuses(BadDocument)
    async def post_message(name: str, data: NewMessage) -> tuple[Message, int]:
        """Post a message; the answer comes once it is durable and has its place in the order.

        Posting an existing id answers 200 with the existing message.
        """
        principal = current_principal()
        head = MessageHead(
            id=data.id or uuid.uuid4().hex,
            role=data.role,
            author=data.author if data.author and principal.by is None else principal.author,
            parent=data.parent,
            reply_to=data.reply_to,
            steers=data.steers,
            replaces=data.replaces,
            modality=data.modality,
            metadata=data.metadata,
            created_at=registry.clock.now(),
        )
        parts: list[Any] = list(data.parts or [])
        if data.text is not None:
            parts.append(TextPart(type="text", text=data.text))
        if say_nothing(parts):
            raise EmptyMessage
        async with registry.open(
            asked_session(name), create=creates(registry, principal), by=principal.id
        ) as session:
            known = head.id in session.view.messages
            if not known and data.agent is not None:
                await session.check_allowance(head.author.id)
            await session.edit(
                lambda view: _post(view, head, parts, data), by=principal.by, decides=principal.can(Permission.DECIDE)
            )
            message = session.view.messages.value(head.id)
        if message is None:
            raise BadDocument(why=f"the id {head.id!r} is taken by something that is not a message")
        return message, 200 if known else 201

    @messages.put("/<name>/receipt")
    @tag(["messages"])
    @validate_request(Receipt)
    @validate_response(Unread)
    async def put_receipt(name: str, data: Receipt) -> Unread:
        """Say how far one has read; a receipt never goes back."""
        principal = current_principal()
        who = principal.speaking_as(data.principal)
        async with registry.open(asked_session(name)) as session:
            seq = data.seq if data.seq is not None else session.said.last_seq()
            await session.edit(lambda view: view.mark_read(who, seq))
            return Unread(principal=who, seq=session.view.read_up_to(who), unread=session.said.unread(who))

    @messages.get("/<name>/receipt")
    @tag(["messages"])
    @validate_querystring(ReceiptQuery)
    @validate_response(Unread)
    async def get_receipt(name: str, query_args: ReceiptQuery) -> Unread:
        """Tell how far a principal has read, and how many messages of others come after that."""
        who = query_args.principal or current_principal().id
        async with registry.open(asked_session(name)) as session:
            return Unread(principal=who, seq=session.view.read_up_to(who), unread=session.said.unread(who))

    return messages


def _post(view: SessionView, head: MessageHead, parts: list[Any], data: NewMessage) -> None:
    view.messages.add(head, parts)
    if data.agent is not None:
        request = RunRequest(
            message_id=head.id,
            agent=data.agent,
            policy=data.policy,
            by=head.author.id,
            created_at=head.created_at,
            not_before=data.not_before,
            deadline=data.deadline,
            schedule=data.schedule,
            input=data.input,
        )
        view.runs.request(answer_to(head.id), request)
