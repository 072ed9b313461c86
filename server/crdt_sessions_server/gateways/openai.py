"""OpenAI's chat completions: any client of that API can talk to the agents of a session.

The model is the agent's name. The session is named in the header ``X-Session-Id``; without one a new session is made,
and the answer's header tells its name. Clients send the whole conversation each time and know no ids, so what a
session has already is left as it is, and only what comes after the last answer is new. Source: OpenAI API reference,
"Create chat completion", "List models".
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from quart import Blueprint, Response, jsonify, request
from quart_schema import tag, validate_request

from crdt_sessions.errors import CrdtSessionsError, NotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    ANY_AGENT,
    Message,
    PartBegan,
    Run,
    TextAdded,
    TextPart,
    ToolPart,
    ValuePart,
    json_text,
)
from crdt_sessions.runtime import RunChanged, Session, SessionEvent, SessionRegistry
from crdt_sessions_server.api import creates
from crdt_sessions_server.gateways.conversation import (
    RUN_HEADER,
    SESSION_HEADER,
    Question,
    Said,
    ask,
    asked_in_body,
    failure_of,
    follow_run,
    has_paused,
    output_id,
)
from crdt_sessions_server.streaming import DONE, compact, data_frames, going_on

_FINISH = {"length": "length", "max_tokens": "length", "content_filter": "content_filter", "tool_calls": "tool_calls"}


class _Incoming(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChatMessage(_Incoming):
    """A message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class Completion(_Incoming):
    """A request for a completion. What it says about sampling is the agent's business and left aside."""

    model: str = Field(ANY_AGENT, description="The agent; * for any.", min_length=1, max_length=100)
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool = False


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes."""
    openai = Blueprint("openai", __name__, url_prefix="/v1/gateways/openai")

    @openai.post("/chat/completions")
    @tag(["gateways"])
    @validate_request(Completion)
    async def complete(data: Completion) -> Response:
        """Ask an agent; the answer is a completion, or its chunks if ``stream`` is set."""
        chat = request.headers.get(SESSION_HEADER) or f"chat-{uuid.uuid4().hex}"
        principal, name = await asked_in_body(chat)
        key = request.headers.get("Idempotency-Key")
        async with registry.open(name, create=creates(registry, principal), by=principal.id) as session:
            history = _said(session, data.messages, key or uuid.uuid4().hex)
            run = await ask(session, Question(history, data.model), principal, registry.clock.now())
        headers = {SESSION_HEADER: chat, RUN_HEADER: run.id}
        if data.stream:
            return going_on(data_frames(_chunks(registry, name, run, data.model), DONE), headers=headers)
        answer = await _whole(registry, name, run, data.model)
        answer.headers.extend(headers)
        return answer

    @openai.get("/models")
    @tag(["gateways"])
    async def models() -> Response:
        """List whom one can ask: anybody, and the agent that answers in new sessions."""
        names = dict.fromkeys((registry.rules.default_agent or ANY_AGENT, ANY_AGENT))
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "crdt-sessions"} for name in names]
        return jsonify({"object": "list", "data": listed})

    return openai


def _said(session: Session, messages: Sequence[ChatMessage], key: str) -> list[Said]:
    """Return what is new: everything in a session that has no messages, and what stands behind the last answer."""
    begun = len(session.view.messages) > 0
    answers = [at for at, message in enumerate(messages) if message.role == "assistant"]
    new = messages[answers[-1] + 1 :] if begun and answers else messages[-1:] if begun else messages
    new = [message for message in new if message.role != "tool"]
    if not new or new[-1].role == "assistant":
        raise NotFound(what="message to answer", id="")
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    return [
        Said(f"msg-{digest}-{at}", "system" if message.role == "developer" else message.role, _parts(message))
        for at, message in enumerate(new)
    ]


def _parts(message: ChatMessage) -> list[TextPart | ValuePart]:
    if isinstance(message.content, str):
        return [TextPart(type="text", text=message.content)] if message.content else []
    parts: list[TextPart | ValuePart] = []
    for piece in message.content or []:
        image = piece.get("image_url")
        if piece.get("type") == "text" and isinstance(piece.get("text"), str):
            parts.append(TextPart(type="text", text=piece["text"]))
        elif isinstance(image, dict) and isinstance(image.get("url"), str):
            parts.append(ValuePart(type="file", value={"url": image["url"], "mediaType": "image/*"}))
    return parts


class _Speller:
    """Spells the events of one run as chunks of a completion."""

    def __init__(self, run: Run, model: str) -> None:
        self._run = run
        self._head = {
            "id": f"chatcmpl-{run.id}",
            "object": "chat.completion.chunk",
            "created": (run.request.created_at if run.request is not None else 0) // 1000,
            "model": model,
        }
        self._parts: dict[int, PartBegan] = {}
        self._tools: dict[int, int] = {}
        self._choices: set[int] = set()

    def spell(self, events: Sequence[SessionEvent]) -> Iterator[dict[str, Any]]:
        for event in events:
            match event:
                case PartBegan(_, part, value):
                    self._parts[part] = event
                    if isinstance(value, ToolPart):
                        self._tools[part] = len(self._tools)
                        function = {"name": value.tool_name, "arguments": ""}
                        call = {"index": self._tools[part], "id": value.tool_call_id, "type": "function"}
                        yield self._chunk(0, tool_calls=[{**call, "function": function}])
                case TextAdded(_, part, _, text):
                    yield from self._add(part, text)
                case RunChanged(run):
                    self._run = run
                    if has_paused(run):
                        yield from self._end(run)
                case _:
                    pass  # there is no chunk for it

    def _add(self, part: int, text: str) -> Iterator[dict[str, Any]]:
        value = self._parts[part].value
        if isinstance(value, ToolPart):
            yield self._chunk(0, tool_calls=[{"index": self._tools[part], "function": {"arguments": text}}])
        elif isinstance(value, TextPart):
            key = "content" if value.type == "text" else "reasoning_content"
            yield self._chunk(value.choice or 0, **{key: text})
        else:
            yield self._chunk(0, content=text)

    def _chunk(self, choice: int, finish: str | None = None, **delta: Any) -> dict[str, Any]:
        if choice not in self._choices:
            self._choices.add(choice)
            delta = {"role": "assistant", **delta}
        return {**self._head, "choices": [{"index": choice, "delta": delta, "finish_reason": finish}]}

    def _end(self, run: Run) -> Iterator[dict[str, Any]]:
        if run.status in ("failed", "interrupted"):
            yield {"error": _error(run)}
            return
        for choice in sorted(self._choices or {0}):
            yield self._chunk(choice, _finish(run))


def _finish(run: Run) -> str:
    reason = run.outcome.reason if run.outcome is not None else ""
    return "tool_calls" if run.status == "suspended" else _FINISH.get(reason, "stop")


def _error(run: Run) -> dict[str, Any]:
    code, why = failure_of(run)
    return {"message": why, "type": "agent_error", "code": code}


async def _chunks(
    registry: SessionRegistry, name: SessionId, run: Run, model: str
) -> AsyncGenerator[list[dict[str, Any]], None]:
    speller = _Speller(run, model)
    try:
        async with registry.open(name) as session:
            async for events in follow_run(session, run.id):
                yield list(speller.spell(events))
    except CrdtSessionsError as error:
        yield [{"error": {"message": str(error), "type": "service_error", "code": type(error).__name__}}]


async def _whole(registry: SessionRegistry, name: SessionId, run: Run, model: str) -> Response:
    async with registry.open(name) as session:
        async for _ in follow_run(session, run.id):
            pass
        run = session.view.runs.find(run.id)
        message = session.view.messages.value(output_id(run))
    if run.status in ("failed", "interrupted"):
        return Response(compact({"error": _error(run)}), 502, content_type="application/json")
    choices = [
        {"index": choice, "message": _message(message, choice), "finish_reason": _finish(run)}
        for choice in sorted(_choices(message) or {0})
    ]
    created = (run.request.created_at if run.request is not None else 0) // 1000
    body = {"id": f"chatcmpl-{run.id}", "object": "chat.completion", "created": created, "model": model}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return Response(compact({**body, "choices": choices, "usage": usage}), content_type="application/json")


def _choices(message: Message | None) -> set[int]:
    parts = message.parts if message is not None else []
    return {part.choice or 0 for part in parts if isinstance(part, TextPart)}


def _message(message: Message | None, choice: int) -> dict[str, Any]:
    if message is None:
        return {"role": "assistant", "content": ""}
    spelled: dict[str, Any] = {"role": "assistant", "content": message.text_of(choice)}
    if thoughts := message.text_of(choice, "reasoning"):
        spelled["reasoning_content"] = thoughts
    calls = [part for part in message.parts if isinstance(part, ToolPart)] if choice == 0 else []
    if calls:
        spelled["tool_calls"] = [
            {"id": call.tool_call_id, "type": "function", "function": _function(call)} for call in calls
        ]
    return spelled


def _function(call: ToolPart) -> dict[str, str]:
    return {"name": call.tool_name, "arguments": call.input_text or json_text(call.input)}
