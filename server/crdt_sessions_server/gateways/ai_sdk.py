"""AI SDK 7: ``useChat`` with ``DefaultChatTransport`` or ``WebSocketChatTransport``, unmodified.

Sources: AI SDK 7, "Stream Protocol" and the types ``UIMessage``, ``UIMessageChunk``, ``ChatTransport``. A stream has
one message with a stable id, and ends with ``finish`` or ``error``. A connection that closes is somebody who left,
not somebody who wants it stopped; stopping is a command of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from quart import Blueprint, Response, request, websocket
from quart_schema import tag, validate_request

from crdt_sessions.errors import CrdtSessionsError, SessionNotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    PartBegan,
    PartChanged,
    Run,
    SessionView,
    TextAdded,
    TextPart,
    ToolPart,
    ValuePart,
    alone,
    shaped,
    ui_part,
    ui_tool_input,
)
from crdt_sessions.model.values import AgentName, Message, MessageId, Part
from crdt_sessions.runtime import RunChanged, Session, SessionEvent, SessionRegistry
from crdt_sessions.wire.closing import closing_for
from crdt_sessions_server.access import (
    Permission,
    Principal,
    Visit,
    asked_session,
    current_door,
    current_principal,
    live_access,
)
from crdt_sessions_server.api import creates
from crdt_sessions_server.asgi import websocket_token
from crdt_sessions_server.gateways.conversation import (
    RUN_HEADER,
    Question,
    Said,
    active_run,
    ask,
    asked_in_body,
    decide,
    follow_run,
    has_paused,
    output_id,
    steer,
    stop,
    visit_for,
)
from crdt_sessions_server.streaming import DONE, compact, data_frames, going_on

Chunk = dict[str, Any]

_HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
_FINISH = {
    "stop": "stop", "end_turn": "stop", "completed": "stop", "length": "length", "max_tokens": "length",
    "content_filter": "content-filter", "content-filter": "content-filter", "tool_calls": "tool-calls",
    "tool-calls": "tool-calls", "tool_use": "tool-calls",
}  # fmt: skip
"""Why a run ended well, in the words of providers, to the words of the AI SDK."""

_log = logging.getLogger("crdt_sessions.gateways")
_MAX_STREAMS = 32
"""Requests that may be under way on one WebSocket."""
_NOT_JSON = 1007


class _Incoming(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class UiMessage(_Incoming):
    """A ``UIMessage``."""

    id: MessageId
    role: Literal["system", "user", "assistant"]
    parts: list[dict[str, Any]] = Field(default_factory=list)


class ChatRequest(_Incoming):
    """What ``DefaultChatTransport`` posts."""

    id: str = Field(description="The chat, which is the session.")
    messages: list[UiMessage] = Field(default_factory=list)
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: MessageId | None = None
    agent: AgentName | None = Field(None, description="Who is to answer; who the session says if absent.")


class SteerRequest(_Incoming):
    """What is said to a run that goes on."""

    message: UiMessage
    run_id: str | None = Field(None, description="The run; the one that goes on if absent.")


class StopRequest(_Incoming):
    """Which run is to stop."""

    run_id: str | None = Field(None, description="All that are not over if absent.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of the AI SDK."""
    chat = Blueprint("ai-sdk", __name__, url_prefix="/v1/gateways/ai-sdk/chat")

    @chat.post("")
    @tag(["gateways"])
    @validate_request(ChatRequest)
    async def send(data: ChatRequest) -> Response:
        """Ask, decide or go on; the answer is the stream of one message. Sending it again changes nothing."""
        principal, session = await asked_in_body(data.id)
        run, known = await _received(registry, session, data, principal)
        chunks = _chunks(registry, session, run.id, known)
        return going_on(data_frames(chunks, DONE), headers=_HEADERS | {RUN_HEADER: run.id})

    @chat.get("/<name>/stream")
    @tag(["gateways"])
    async def resume(name: str) -> Response:
        """Follow the answer that is being written, from its beginning; 204 if none is.

        With ``?runId=`` it is that run's, also if it has ended: a client that saw its beginning gets its ending.
        """
        run = await _active(registry, asked_session(name), request.args.get("runId"))
        if run is None:
            return Response("", 204)
        chunks = _chunks(registry, asked_session(name), run.id)
        return going_on(data_frames(chunks, DONE), headers=_HEADERS | {RUN_HEADER: run.id})

    @chat.post("/<name>/stop")
    @tag(["gateways"])
    async def press_stop(name: str) -> tuple[dict[str, Any], int]:
        """Stop what is being answered, from any device; what was written stays."""
        principal = current_principal()
        body = StopRequest.model_validate(await request.get_json(force=True, silent=True) or {})
        async with registry.open(asked_session(name)) as session:
            stopped = await stop(session, principal, registry.clock.now(), body.run_id)
        return {"stopped": stopped}, 200

    @chat.post("/<name>/steer")
    @tag(["gateways"])
    @validate_request(SteerRequest)
    async def press_on(name: str, data: SteerRequest) -> tuple[dict[str, Any], int]:
        """Say something to the answer that is being written: a part ``steering-message`` shows where it was heard.

        If the answer ends before, or none is written, it is answered as a question of its own.
        """
        principal = current_principal()
        said = Said(data.message.id, "user", _parts(data.message))
        async with registry.open(asked_session(name)) as session:
            run = await steer(session, said, principal, registry.clock.now(), data.run_id)
        return {"runId": run.id}, 202

    @chat.get("/<name>/messages")
    @tag(["gateways"])
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
        await _Conversation(registry).run()

    return chat


async def _active(registry: SessionRegistry, name: SessionId, run_id: str | None = None) -> Run | None:
    """Return the run that is asked for, or goes on; None also for a chat that has not begun: useChat asks at once."""
    with contextlib.suppress(SessionNotFound):
        async with registry.open(name) as session:
            await session.readable()
            return session.view.runs.find(run_id) if run_id else active_run(session.view)
    return None


# -- what comes in ---------------------------------------------------------------------------------------------------


async def _received(
    registry: SessionRegistry, name: SessionId, data: ChatRequest, principal: Principal
) -> tuple[Run, Sequence[dict[str, Any]]]:
    """Write down what a client sent; return the run to follow, and the parts of its message that the client has."""
    now = registry.clock.now()
    async with registry.open(name, create=creates(registry, principal), by=principal.id) as session:
        view = session.view
        last = data.messages[-1] if data.messages else None
        if last is not None and last.role == "assistant" and data.trigger == "submit-message":
            return await _continued(session, last, principal, now), last.parts
        before = [None, *(each.id for each in data.messages)]
        history = [
            Said(each.id, each.role, _parts(each), parent)
            for each, parent in zip(data.messages, before, strict=False)
        ]
        question = Question(history, data.agent)
        if data.trigger == "regenerate-message":
            question = Question(history, data.agent, trigger="regenerate", asked=_asked(view, data))
        elif last is not None and data.message_id == last.id and _edited(view, last):
            question = _another_version(history, data.agent, last)
        return await ask(session, question, principal, now), ()


async def _continued(session: Session, message: UiMessage, principal: Principal, now: Any) -> Run:
    """Take what a client adds to an answer: decisions about tool calls, or the outputs of its own tools."""
    view = session.view
    known = view.messages[message.id]
    value = known.to_value()
    run_id = known.run_id
    if value is None or run_id is None:
        return view.runs.find(run_id or message.id)  # raises: it is not the answer of anybody
    verdicts, outputs = {}, {}
    for part in message.parts:
        call, approval = part.get("toolCallId"), part.get("approval")
        if isinstance(call, str) and isinstance(approval, dict) and isinstance(approval.get("approved"), bool):
            verdicts[call] = (approval["approved"], _string(approval.get("reason")))
        tool = known.tool(call) if isinstance(call, str) else None
        if tool is not None and tool.state == "input-available" and str(part.get("state")).startswith("output-"):
            outputs[str(call)] = part
    open_calls = {part.tool_call_id for part in value.parts if isinstance(part, ToolPart) and part.approval is None}
    await decide(session, principal, now, message.id, {call: verdicts[call] for call in verdicts.keys() & open_calls})
    if not outputs or not view.runs.find(run_id).over:
        return view.runs.find(run_id)

    def write(view: SessionView) -> None:
        for call, part in outputs.items():
            tool = view.messages[message.id].tool(call)
            if tool is not None and part["state"] == "output-available":
                tool.output(part.get("output"))
            elif tool is not None:
                tool.fail(_string(part.get("errorText")) or "the tool failed")

    await session.edit(write)
    digest = hashlib.sha256(compact(sorted(outputs)).encode()).hexdigest()[:16]
    agent = view.runs.find(run_id).agent
    question = Question((), agent, trigger="continue", asked=message.id, run=f"run-{message.id}-{digest}"[:200])
    return await ask(session, question, principal, now)


def _asked(view: SessionView, data: ChatRequest) -> str | None:
    """Return the user's message to which another answer is wanted."""
    known = view.messages.value(data.message_id) if data.message_id is not None else None
    if known is not None and known.role == "assistant":
        return known.reply_to or known.parent
    users = [message.id for message in data.messages if message.role == "user"]
    return known.id if known is not None else users[-1] if users else None


def _edited(view: SessionView, message: UiMessage) -> bool:
    """Whether the session has the message, and says something else in it."""
    known = view.messages.value(message.id)
    if known is None:
        return False
    mine = [part.json_value() for part in known.parts]
    return mine != [part.json_value() for part in _parts(message)]


def _another_version(history: Sequence[Said], agent: str | None, edited: UiMessage) -> Question:
    """Return the question with the edited message as a new one: what was said before stays in the session.

    Its id comes from what it says, so that sending it again changes nothing.
    """
    digest = hashlib.sha256(compact(edited.parts).encode()).hexdigest()[:12]
    said = Said(f"{edited.id[:180]}~{digest}", edited.role, _parts(edited))
    return Question([*history[:-1], said], agent, replaces=edited.id)


def _parts(message: UiMessage) -> list[Part]:
    return [part for each in message.parts if (part := _part(each)) is not None]


def _part(part: dict[str, Any]) -> Part | None:
    kind = str(part.get("type", ""))
    if kind in ("text", "reasoning") and isinstance(part.get("text"), str):
        return TextPart(type="text" if kind == "text" else "reasoning", text=part["text"])
    if kind == "file":
        value = {key: part[key] for key in ("url", "mediaType", "filename") if isinstance(part.get(key), str)}
        return ValuePart(type="file", value=value)
    if kind.startswith("data-"):
        value = {"name": kind.removeprefix("data-"), "data": part.get("data")}
        return ValuePart(type="data", value=value | ({"id": part["id"]} if isinstance(part.get("id"), str) else {}))
    return None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


# -- what goes out ---------------------------------------------------------------------------------------------------


def ui_messages(view: SessionView) -> list[dict[str, Any]]:
    """Return the conversation as ``UIMessage``s, equal to what a client has that followed it."""
    return [_ui_message(view, message) for message in alone(view.conversation())]


def _ui_message(view: SessionView, message: Message) -> dict[str, Any]:
    (spelled,) = shaped([message], "ai-sdk")
    run = view.runs.value(message.run_id) if message.run_id is not None else None
    if run is None:
        return spelled
    if run.over and message.parts and _answered(message.parts[-1]):
        spelled["parts"].append({"type": "step-start"})
    return spelled | {"metadata": _metadata(run)}


def _answered(part: Part) -> bool:
    """Whether a part is a tool call that nothing more comes of.

    An answer that ends with one gets an empty step behind it: a client that sends by itself when all tools have
    answered would otherwise do so for ever.
    """
    return isinstance(part, ToolPart) and part.state.startswith("output-")


def _metadata(run: Run) -> dict[str, Any]:
    return {"runId": run.id, "status": run.status or "queued"}


class Speller:
    """Spells the events of one run as chunks.

    Args:
        run: the run.
        known: the parts of its message that the client has, if it goes on with one.
    """

    def __init__(self, run: Run, known: Sequence[dict[str, Any]] = ()) -> None:
        self._run = run
        self._known = [part for part in known if part.get("type") != "step-start"]
        self._known_calls = {str(part["toolCallId"]) for part in self._known if "toolCallId" in part}
        self._began = False
        self._replayed = not known
        self._ids: dict[int, str] = {}
        self._last: dict[str, str] = {}
        self._open: dict[str, str] = {}
        self._tools: dict[int, str] = {}
        self._told = 0
        self._after_tool = False
        self._answered = False
        self._stepping = bool(known)

    def spell(self, events: Sequence[SessionEvent]) -> Iterator[Chunk]:
        """Yield what a client is to be told; the last chunk is ``finish`` or ``error`` if the run has paused."""
        if not self._began:
            self._began = True
            yield {"type": "start", "messageId": output_id(self._run), "messageMetadata": _metadata(self._run)}
        ended: Run | None = None
        for event in events:
            match event:
                case PartBegan(_, part, value):
                    yield from self._begin(part, value)
                case TextAdded(_, part, _, text):
                    yield from self._add(part, text)
                case PartChanged(_, part, value, continued):
                    yield from self._change(part, value, continued=continued)
                case RunChanged(run):
                    if run.status != self._run.status and not has_paused(run):
                        yield {"type": "message-metadata", "messageMetadata": _metadata(run)}
                    ended = self._run = run
                case _:
                    pass  # there is no chunk for it
        self._replayed = self._replayed or bool(events)
        if ended is not None and has_paused(ended):
            yield from self.end()

    def end(self) -> Iterator[Chunk]:
        """Close what is open, and say how the run ended."""
        for id, kind in self._open.items():
            yield {"type": f"{kind}-end", "id": id}
        self._open.clear()
        if self._answered and self._run.over:
            yield {"type": "finish-step"}
            yield {"type": "start-step"}
        yield from self._end_step()
        run, metadata = self._run, {"messageMetadata": _metadata(self._run)}
        reason = run.outcome.reason if run.outcome is not None else ""
        if run.status == "failed":
            error = run.outcome.error if run.outcome is not None else None
            yield {"type": "message-metadata", **metadata}
            yield {"type": "error", "errorText": (error.message or error.code) if error is not None else reason}
        elif run.status == "suspended":
            yield {"type": "finish", "finishReason": "tool-calls", **metadata}
        elif run.status == "cancelled":
            yield {"type": "finish", "finishReason": "other", **metadata}
        elif run.status == "interrupted":
            yield {"type": "finish", "finishReason": "interrupted", **metadata}
        else:
            yield {"type": "finish", "finishReason": _FINISH.get(reason, "stop"), **metadata}

    def _begin(self, part: int, value: Part) -> Iterator[Chunk]:
        if isinstance(value, TextPart) and value.choice:
            return  # another alternative; the protocol has no place for it
        if isinstance(value, TextPart) and value.continues and value.type in self._last:
            self._ids[part] = self._last[value.type]
            return
        known, self._told = self._told < len(self._known), self._told + 1
        told = self._replayed or not known
        if told:
            yield from self._step(value)
        self._after_tool, self._answered = isinstance(value, ToolPart), False
        if isinstance(value, ToolPart):
            self._tools[part] = value.tool_call_id
            if told:
                yield {"type": "tool-input-start", "toolCallId": value.tool_call_id, "toolName": value.tool_name}
        elif isinstance(value, TextPart) or value.type == "audio":
            kind = "reasoning" if value.type == "reasoning" else "text"
            self._last[value.type] = id = f"p{part}"
            if told:
                self._ids[part] = id
                self._open[id] = kind
                yield {"type": f"{kind}-start", "id": id}
        elif told:
            yield from ui_part(value)

    def _step(self, value: Part) -> Iterator[Chunk]:
        """Begin a step where a model begins anew: at the beginning, and after its tools have answered."""
        if value.type == "steering":  # the model hears it between two steps
            yield from self._end_step()
            return
        if self._stepping and not (self._after_tool and not isinstance(value, ToolPart)):
            return
        yield from self._end_step()
        self._stepping = True
        yield {"type": "start-step"}

    def _end_step(self) -> Iterator[Chunk]:
        if self._stepping:
            self._stepping = False
            yield {"type": "finish-step"}

    def _add(self, part: int, text: str) -> Iterator[Chunk]:
        if part in self._tools:
            if self._replayed or self._tools[part] not in self._known_calls:
                yield {"type": "tool-input-delta", "toolCallId": self._tools[part], "inputTextDelta": text}
        elif (id := self._ids.get(part)) is not None and id in self._open:
            yield {"type": f"{self._open[id]}-delta", "id": id, "delta": text}

    def _change(self, part: int, value: Part, *, continued: bool) -> Iterator[Chunk]:
        if isinstance(value, ToolPart):
            yield from self._tool(value)
        elif (id := self._ids.get(part)) is not None and id in self._open:
            state = getattr(value, "state", None)
            if state == "done" and not continued:
                yield {"type": f"{self._open.pop(id)}-end", "id": id}

    def _tool(self, tool: ToolPart) -> Iterator[Chunk]:
        self._answered = self._after_tool and _answered(tool)
        call = {"toolCallId": tool.tool_call_id}
        if self._replayed or tool.tool_call_id not in self._known_calls:
            yield {
                "type": "tool-input-available", **call, "toolName": tool.tool_name, "input": ui_tool_input(tool),
            }  # fmt: skip
            if tool.approval_request is not None:
                yield {"type": "tool-approval-request", "approvalId": tool.tool_call_id, **call}
        if tool.approval is not None:
            verdict = {"approved": tool.approval.approved}
            if tool.approval.reason is not None:
                verdict["reason"] = tool.approval.reason  # type: ignore[assignment]
            yield {"type": "tool-approval-response", "approvalId": tool.tool_call_id, **verdict}
        if tool.state == "output-available":
            yield {"type": "tool-output-available", **call, "output": tool.output}
        elif tool.state == "output-error":
            yield {"type": "tool-output-error", **call, "errorText": tool.error_text or "the tool failed"}
        elif tool.state == "output-denied":
            yield {"type": "tool-output-denied", **call}


async def _chunks(
    registry: SessionRegistry, name: SessionId, run_id: str, known: Sequence[dict[str, Any]] = ()
) -> AsyncGenerator[list[Chunk], None]:
    """Yield a run as chunks, in batches. The last one is always ``finish`` or ``error``."""
    try:
        async with registry.open(name) as session:
            speller = Speller(session.view.runs.find(run_id), known)
            yield list(speller.spell([]))
            async for events in follow_run(session, run_id):
                yield list(speller.spell(events))
    except CrdtSessionsError as error:  # the session was closed, or the service restarts: the client may resume
        _log.info("an answer cannot be followed any more: %s", error, extra={"session": name})
        yield [{"type": "error", "errorText": f"{error}; the answer goes on, resume to see it"}]


async def _frames() -> AsyncGenerator[Any, None]:
    while True:
        yield _parsed(await websocket.receive())


def _parsed(frame: str | bytes) -> Any:
    try:
        return json.loads(frame)
    except (ValueError, RecursionError):
        return None


# -- WebSocketChatTransport ------------------------------------------------------------------------------------------


class _Conversation:
    """One WebSocket: several requests at once, each with chunks that are counted."""

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._streams: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        scope, door = dict(websocket.scope), current_door()
        token, subprotocol = websocket_token(scope)
        await websocket.accept(subprotocol=subprotocol)
        try:
            visit = await door.admit(scope, token, None)  # nothing is read before it is known who it is
            door.count_connect(scope, visit.principal)
            with door.streaming(visit.principal):
                await self._converse(visit)
        except CrdtSessionsError as error:
            closing = closing_for(error)
            await websocket.close(closing.code, closing.reason)

    async def _converse(self, visit: Visit) -> None:
        try:
            async for frame in live_access().following(visit, _frames()):
                if not isinstance(frame, dict):
                    await websocket.close(_NOT_JSON, "frames are JSON objects")
                    return
                await self._take(frame, visit.token)
        finally:
            for task in self._streams.values():
                task.cancel()
            await asyncio.gather(*self._streams.values(), return_exceptions=True)

    async def _take(self, frame: dict[str, Any], token: str | None) -> None:
        request_id = str(frame.get("requestId", ""))
        kind = frame.get("type")
        if kind == "abort":  # a page that was closed sends it as well as a stop button: it only means, not to me
            task = self._streams.pop(request_id, None)
            if task is not None:
                task.cancel()
        elif kind in ("send", "resume") and len(self._streams) >= _MAX_STREAMS:
            await self._tell("error", request_id, errorText=f"more than {_MAX_STREAMS} requests at once")
        elif kind in ("send", "resume"):
            answer = self._send if kind == "send" else self._resume
            task = asyncio.create_task(self._answer(request_id, answer(request_id, frame, token)))
            self._streams[request_id] = task
            task.add_done_callback(lambda _: self._streams.pop(request_id, None))

    async def _answer(self, request_id: str, answering: Any) -> None:
        try:
            await answering
        except CrdtSessionsError as error:
            await self._tell("error", request_id, errorText=str(error))
        except ValidationError as error:
            await self._tell("error", request_id, errorText=f"not a chat request: {error.errors()[0]['msg']}")

    async def _send(self, request_id: str, frame: dict[str, Any], token: str | None) -> None:
        body = frame.get("body") if isinstance(frame.get("body"), dict) else {}
        data = ChatRequest.model_validate({**(body or {}), **frame})
        visit, name = await visit_for(dict(websocket.scope), token, data.id, Permission.POST)
        run, known = await _received(self._registry, name, data, visit.principal)
        await self._stream(request_id, visit, name, run.id, known)

    async def _resume(self, request_id: str, frame: dict[str, Any], token: str | None) -> None:
        visit, name = await visit_for(dict(websocket.scope), token, str(frame.get("id", "")), Permission.READ)
        body = frame.get("body")
        run = await _active(self._registry, name, _string(body.get("runId")) if isinstance(body, dict) else None)
        if run is None:
            await self._tell("no-active", request_id)
            return
        await self._tell("start", request_id)
        await self._stream(request_id, visit, name, run.id, ())

    async def _stream(
        self, request_id: str, visit: Visit, name: SessionId, run_id: str, known: Sequence[dict[str, Any]]
    ) -> None:
        sequence = 0
        async for batch in live_access().following(visit, _chunks(self._registry, name, run_id, known)):
            for chunk in batch:
                await self._tell("chunk", request_id, sequence=sequence, chunk=chunk)
                sequence += 1
        await self._tell("end", request_id)

    async def _tell(self, kind: str, request_id: str, **more: Any) -> None:
        await websocket.send(compact({"type": kind, "requestId": request_id, **more}))
