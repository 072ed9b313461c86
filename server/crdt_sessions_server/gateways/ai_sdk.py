"""AI SDK 7: ``useChat`` with ``DefaultChatTransport`` or ``WebSocketChatTransport``, unmodified.

Sources: AI SDK 7, "Stream Protocol" and the types ``UIMessage``, ``UIMessageChunk``, ``ChatTransport``. A stream has
one message with a stable id, and ends with ``finish`` or ``error``. A connection that closes is somebody who left,
not somebody who wants it stopped; stopping is a command of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel
from quart import Blueprint, Response, request
from quart_schema import tag, validate_request

from crdt_sessions.errors import NotFound, SessionNotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    Run,
    SessionView,
    TextPart,
    ToolPart,
    ValuePart,
    shaped,
)
from crdt_sessions.model.strings import AgentName, MessageId, RunId, is_call
from crdt_sessions.model.values import Part
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import (
    Principal,
    asked_session,
    current_principal,
)
from crdt_sessions_server.gateways.ai_sdk_chunks import followed, ui_messages
from crdt_sessions_server.gateways.conversation import (
    RUN_HEADER,
    Going,
    Question,
    Stopped,
    StopRequest,
    active_run,
    ask,
    asked_in_body,
    check_agent,
    continuation,
    decide,
    steer,
    stop,
    takes_outputs,
    writer_of,
)
from crdt_sessions_server.gateways.transcript import NOT_ANSWERED, Said
from crdt_sessions_server.http.describing import LINES, SSE, Parameter, answers, reads, refuses
from crdt_sessions_server.http.paths import header_value
from crdt_sessions_server.http.problems import MEDIA_TYPE
from crdt_sessions_server.http.schemas import JSON, Answer
from crdt_sessions_server.http.streaming import DONE, data_frames, going_on
from crdt_sessions_server.rest.sessions import creates

PATH = "/v1/gateways/ai-sdk/chat"
_HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}

_log = logging.getLogger("crdt_sessions.gateways")
_TRANSPORT = ("ai-sdk.send", "ai-sdk.resume")
"""Routes that ``DefaultChatTransport`` asks."""


class _Incoming(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class UiMessage(_Incoming):
    """A ``UIMessage``."""

    id: MessageId
    role: Literal["system", "user", "assistant"]
    parts: list[dict[str, Any]] = Field(default_factory=list)
    metadata: Any = None


class ChatRequest(_Incoming):
    """What ``DefaultChatTransport`` posts."""

    id: str = Field(description="The chat, which is the session.")
    messages: list[UiMessage] = Field(default_factory=list)
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: MessageId | None = None
    agent: AgentName | None = Field(None, description="Who is to answer; who the session says if absent.")


class Conversation(Answer):
    """The conversation, to begin with."""

    messages: list[dict[str, JsonValue]] = Field(description="``UIMessage`` of the AI SDK.")
    active_run: str | None


class SteerRequest(_Incoming):
    """What is said to a run that goes on."""

    message: UiMessage
    run_id: RunId | None = Field(None, description="The run; the one that goes on if absent.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of the AI SDK."""
    chat = Blueprint("ai-sdk", __name__, url_prefix=PATH)

    @chat.post("")
    @tag(["gateways"])
    @validate_request(ChatRequest)
    @answers(200, {SSE: LINES}, "The stream of one message.", {RUN_HEADER: "The run."})
    @refuses(NotFound)
    async def send(data: ChatRequest) -> Response:
        """Ask, decide or go on; the answer is the stream of one message. Sending it again changes nothing."""
        principal, session = await asked_in_body(data.id)
        run, known = await received(registry, session, data, principal)
        chunks = followed(registry, session, run.id, known)
        return going_on(data_frames(chunks, DONE), headers=_HEADERS | {RUN_HEADER: header_value(run.id)})

    @chat.get("/<room:name>/stream")
    @tag(["gateways"])
    @reads(Parameter("runId", "The run; the one that goes on if absent.", "query"))
    @answers(200, {SSE: LINES}, "The stream of one message.", {RUN_HEADER: "The run."})
    @answers(204, description="Nothing is being answered.")
    async def resume(name: str) -> Response:
        """Follow the answer that is being written, from its beginning; 204 if none is.

        With ``?runId=`` it is that run's, also if it has ended: a client that saw its beginning gets its ending.
        """
        run = await active(registry, asked_session(name), request.args.get("runId"))
        if run is None:
            return Response("", 204)
        chunks = followed(registry, asked_session(name), run.id)
        return going_on(data_frames(chunks, DONE), headers=_HEADERS | {RUN_HEADER: header_value(run.id)})

    @chat.post("/<room:name>/stop")
    @tag(["gateways"])
    @answers(200, {JSON: Stopped})
    @validate_request(StopRequest)
    async def press_stop(name: str, data: StopRequest) -> tuple[dict[str, Any], int]:
        """Stop the answer, from any device; written text stays."""
        principal = current_principal()
        async with registry.open(asked_session(name)) as session:
            stopped = await stop(session, principal, registry.clock.now(), data.run_id)
        return {"stopped": stopped}, 200

    @chat.post("/<room:name>/steer")
    @tag(["gateways"])
    @validate_request(SteerRequest)
    @answers(202, {JSON: Going})
    async def press_on(name: str, data: SteerRequest) -> tuple[dict[str, Any], int]:
        """Say something to the answer that is being written: a part ``steering-message`` shows where it was heard.

        If the answer ends before, or none is written, it is answered as a question of its own.
        """
        principal = current_principal()
        said = Said(data.message.id, "user", _parts(data.message), data.message.metadata)
        async with registry.open(asked_session(name)) as session:
            run = await steer(session, said, principal, registry.clock.now(), data.run_id)
        return {"runId": run.id}, 202

    @chat.get("/<room:name>/messages")
    @tag(["gateways"])
    @answers(200, {JSON: Conversation})
    async def history(name: str) -> tuple[dict[str, Any], int]:
        """Return the conversation as ``UIMessage``s, to begin with (``messages`` of ``useChat``)."""
        try:
            async with registry.open(asked_session(name)) as session:
                await session.readable()
                active = active_run(session.view)
                return {"messages": ui_messages(session.view), "activeRun": active.id if active else None}, 200
        except SessionNotFound:
            return {"messages": [], "activeRun": None}, 200

    @chat.websocket("")
    async def converse() -> None:
        """``WebSocketChatTransport``: any number of chats on one connection."""
        raise AssertionError("ai_sdk_socket serves it in front of Quart, except who was refused before")

    chat.after_app_request(_spell_errors)
    return chat


async def _spell_errors(response: Response) -> Response:
    """Have ``useChat`` show what happened: the text of its error is the whole body."""
    asks_for_it = "json" in request.headers.get("Accept", "")
    if request.endpoint in _TRANSPORT and response.mimetype == MEDIA_TYPE and not asks_for_it:
        problem = json.loads(await response.get_data())
        response.set_data(problem["detail"])
        response.content_type = "text/plain; charset=utf-8"
        response.headers["X-Problem-Type"] = problem["type"]
    return response


async def active(registry: SessionRegistry, name: SessionId, run_id: str | None = None) -> Run | None:
    """Return the run that is asked for, or goes on; None also for a chat that has not begun: useChat asks at once."""
    with contextlib.suppress(SessionNotFound):
        async with registry.open(name) as session:
            await session.readable()
            return session.view.runs.find(run_id) if run_id else active_run(session.view)
    return None


# -- what comes in ---------------------------------------------------------------------------------------------------


async def received(
    registry: SessionRegistry, name: SessionId, data: ChatRequest, principal: Principal
) -> tuple[Run, Sequence[dict[str, Any]]]:
    """Write down what a client sent; return the run to follow, and the parts of its message that the client has."""
    now = registry.clock.now()
    await check_agent(registry, principal, data.agent)
    async with registry.open(name, create=creates(registry, principal), by=principal.id) as session:
        view = session.view
        last = data.messages[-1] if data.messages else None
        history = _history(view, data)
        if last is not None and last.role == "assistant" and data.trigger == "submit-message":
            if last.id in view.messages:
                return await _continued(session, last, principal, now), last.parts
            if calls := [str(part.get("toolCallId")) for part in last.parts if _has_output(part)]:
                question = Question(history, data.agent, "continue", last.id, run=continuation(last.id, calls))
                return await ask(session, question, principal, now), last.parts
        question = Question(history, data.agent, branches=True)
        if data.trigger == "regenerate-message":
            question = Question(history, data.agent, "regenerate", _asked(view, data, history), branches=True)
        return await ask(session, question, principal, now), ()


async def _continued(session: Session, message: UiMessage, principal: Principal, now: Any) -> Run:
    """Take what a client adds to an answer: decisions about tool calls, or the outputs of its own tools."""
    view = session.view
    known = view.messages[message.id]
    value = known.to_value()
    run_id = known.run_id
    if value is None or run_id is None:  # nobody's answer here, but somebody may be asked to go on with it
        calls = [str(part.get("toolCallId")) for part in message.parts if _has_output(part)]
        return view.runs.find(continuation(message.id, calls))
    verdicts: dict[str, tuple[bool, str | None]] = {}
    outputs = {}
    for part in message.parts:
        call, approval = part.get("toolCallId"), part.get("approval")
        if isinstance(call, str) and isinstance(approval, dict) and isinstance(approval.get("approved"), bool):
            verdicts[call] = (approval["approved"], string(approval.get("reason")))
        tool = known.tool(call) if isinstance(call, str) else None
        if tool is not None and tool.state == "input-available" and str(part.get("state")).startswith("output-"):
            outputs[str(call)] = part
    await decide(session, principal, now, message.id, verdicts)
    writer = writer_of(view, message.id) or view.runs.find(run_id)
    if not outputs or not takes_outputs(writer):
        return writer

    def write(view: SessionView) -> None:
        for call, part in outputs.items():
            tool = view.messages[message.id].tool(call)
            if tool is None or tool.state != "input-available":
                continue  # another window was quicker
            if part["state"] == "output-available":
                tool.output(part.get("output"))
            else:
                tool.fail(string(part.get("errorText")) or "the tool failed")

    await session.edit(write)
    question = Question((), writer.agent, "continue", message.id, run=continuation(message.id, outputs))
    return await ask(session, question, principal, now)


def _has_output(part: dict[str, Any]) -> bool:
    return str(part.get("state")).startswith("output-") and isinstance(part.get("toolCallId"), str)


def _asked(view: SessionView, data: ChatRequest, history: Sequence[Said]) -> str | None:
    """Return the user's message to which another answer is wanted."""
    known = view.messages.value(data.message_id) if data.message_id is not None else None
    if known is not None and known.role == "assistant":
        return known.reply_to or known.parent
    named = [said.id for said in history if data.message_id in (said.id, said.replaces)]
    users = [said.id for said in history if said.role == "user"]
    found = named or users
    return found[-1] if found else None


def _history(view: SessionView, data: ChatRequest) -> list[Said]:
    """Return a client's messages as the session has them, or would.

    Clients keep the id of a message that is edited: one that says something else than the session's is another
    version, also later on, when what came of the edit was lost. Nothing of that stands in front of an answer that
    is known, so it is not looked for there, unless something new does, which comes after what it stands behind.
    """
    history = [Said(each.id, each.role, _parts(each), each.metadata) for each in data.messages]
    new = next((at for at, said in enumerate(history) if said.id not in view.messages), len(history))
    for at in reversed(range(len(history))):
        said = history[at]
        if said.role == "assistant" and at < new:
            break
        if said.role == "user":
            history[at] = _version(view, said, again=said.id == data.message_id)
    return history


def _version(view: SessionView, said: Said, *, again: bool) -> Said:
    """Return a user's message as another version of the session's, if it is one.

    *Again* is whether it was edited just now, which matters if it says again what it said at first.
    """
    known = view.messages.value(said.id)
    if known is None:
        return said
    (spelled,) = shaped([known], "ai-sdk") or [{"parts": []}]
    told = [part for each in spelled["parts"] if (part := _part(each)) is not None]
    differs = [part.to_json() for part in told] != [part.to_json() for part in said.parts]
    replaced = again and any(head.replaces == said.id for head in view.messages.heads())
    return said.edited if differs or replaced else said


def _parts(message: UiMessage) -> list[Part]:
    return [part for each in message.parts if (part := _part(each)) is not None]


def _part(part: dict[str, Any]) -> Part | None:
    kind = str(part.get("type", ""))
    if kind in ("text", "reasoning") and isinstance(part.get("text"), str):
        return TextPart(type="text" if kind == "text" else "reasoning", text=part["text"])
    if kind == "file":
        value = {key: part[key] for key in ("url", "mediaType", "filename") if isinstance(part.get(key), str)}
        return ValuePart(type="file", value=value)
    if kind == "dynamic-tool" or kind.startswith("tool-"):
        return _tool_part(part, kind)
    if kind == "source-url" and isinstance(part.get("url"), str):
        source = {"id": part.get("sourceId"), "url": part["url"], "title": part.get("title")}
        return ValuePart(type="source", value={key: each for key, each in source.items() if isinstance(each, str)})
    if kind.startswith("data-"):
        value = {"name": kind.removeprefix("data-"), "data": part.get("data")}
        return ValuePart(type="data", value=value | ({"id": part["id"]} if isinstance(part.get("id"), str) else {}))
    return None


def _tool_part(part: dict[str, Any], kind: str) -> ToolPart | None:
    """Return a tool call of a history: nobody here will answer it any more, and nobody here has approved it."""
    call, name = part.get("toolCallId"), part.get("toolName", kind.removeprefix("tool-"))
    if not isinstance(call, str) or not is_call(call) or not isinstance(name, str):
        return None
    end: dict[str, Any] = {"state": "output-error", "error_text": string(part.get("errorText")) or NOT_ANSWERED}
    if part.get("state") == "output-available":
        end = {"state": "output-available", "output": part.get("output")}
    elif part.get("state") == "output-denied":
        end = {"state": "output-denied"}
    return ToolPart(type="tool", tool_call_id=call, tool_name=name, input=part.get("input"), **end)


def string(value: Any) -> str | None:
    """Return *value* if it is text."""
    return value if isinstance(value, str) else None
