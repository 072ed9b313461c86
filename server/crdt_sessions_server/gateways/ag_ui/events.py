"""A session as AG-UI events, for the gateways of AG-UI and TanStack AI.

Source: AG-UI 1.0, "Events" and "Serialization". A stream begins with ``RUN_STARTED`` and the conversation so far
(``MESSAGES_SNAPSHOT``). Messages that are still being written are empty there; their text follows from its first
character, and then new events. The stream ends with one terminal event, after which nothing is open. One of our
messages may think, speak, call tools and speak again; AG-UI has a message for each of these.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import jsonpatch

from crdt_sessions.errors import CrdtSessionsError, ShuttingDown
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    ApprovalRequest,
    Message,
    MessageBegan,
    MessagePlaced,
    MessageRemoved,
    MessageReplaced,
    OpenCall,
    PartBegan,
    PartChanged,
    Run,
    SessionView,
    TextAdded,
    TextPart,
    ToolPart,
    json_text,
    ui_tool_input,
    wants_value,
)
from crdt_sessions.model.values import Part
from crdt_sessions.runtime import (
    Attendance,
    PresenceChanged,
    Projector,
    RunChanged,
    Session,
    SessionEvent,
    SessionRegistry,
    StateChanged,
)
from crdt_sessions_server.gateways.ag_ui.state import ClientState
from crdt_sessions_server.gateways.ag_ui.subagents import Subagents
from crdt_sessions_server.gateways.conversation import absence, active_run, failure_of, output_id, rests
from crdt_sessions_server.gateways.front_end import FrontEnd
from crdt_sessions_server.gateways.parts import JoinedParts
from crdt_sessions_server.http.problems import type_of

Event = dict[str, Any]

PRESENCE = "presence"
_LATER = (PresenceChanged, StateChanged, RunChanged, MessagePlaced, PartChanged)
"""Events that may wait for the next run."""
_APPROVAL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}


class MessageEncoder:
    """Encodes one message.

    Args:
        began: its first event.
        given: the calls that the client executes, as far as it is known; more may come.
    """

    def __init__(self, began: MessageBegan, given: Collection[str] = ()) -> None:
        self._given = given
        self._held: dict[str, ToolPart] = {}
        """Calls that others execute, or nobody yet: a client would execute what it is told without a result."""
        self.id = began.message
        self._role = began.head.role
        self._parts = JoinedParts()
        self._ids: dict[int, str] = {}
        self._open: dict[str, str] = {}
        self._turn = self.id
        self._said = False
        self._after_tool = False
        self._arguments: set[str] = set()
        self._inputs: dict[str, Any] = {}
        self._results: set[str] = set()

    @property
    def spoken(self) -> bool:
        """Whether it comes complete, as messages of people do."""
        return self._role != "assistant"

    def encode(self, event: SessionEvent) -> Iterator[Event]:
        """Yield an event of this message in AG-UI's words."""
        match self._parts.take(event):
            case PartBegan(_, part, value):
                yield from self._begin(part, value)
            case TextAdded(_, part, _, text):
                yield from self._add(part, text)
            case PartChanged(_, part, ToolPart() as tool):
                yield from self._tool(tool)
            case PartChanged(_, part, value) if getattr(value, "state", None) == "done" and not self.spoken:
                yield from self._close(self._ids.get(part, ""))
            case _:
                pass  # the list itself tells its place

    def end_calls(self, message: Message) -> Iterator[Event]:
        """Yield the results of the calls that have ended in *message*, which may know more than the document."""
        for part in message.parts:
            if isinstance(part, ToolPart):
                yield from self._tool(part)

    def close(self) -> Iterator[Event]:
        """Close all that is open."""
        for id in list(self._open):
            yield from self._close(id)

    def _begin(self, part: int, value: Part) -> Iterator[Event]:
        if isinstance(value, ToolPart):
            self._after_tool = True
            self._open[value.tool_call_id] = "TOOL_CALL"
            self._ids[part] = value.tool_call_id
            call = {"toolCallId": value.tool_call_id, "toolCallName": value.tool_name}
            yield {"type": "TOOL_CALL_START", **call, "parentMessageId": self._turn}
        elif isinstance(value, TextPart) or value.type == "audio":
            yield from self._begin_text(part, value)
        else:
            yield {"type": "CUSTOM", "name": value.type, "value": {"messageId": self.id, "part": value.to_json()}}

    def _begin_text(self, part: int, value: Any) -> Iterator[Event]:
        if self._after_tool:
            self._after_tool, self._said, self._turn = False, False, f"{self.id}-{part}"
        if value.type == "reasoning":
            id = f"{self.id}-{part}-reasoning"
            self._open[id] = "REASONING_MESSAGE"
            yield {"type": "REASONING_START", "messageId": id}
            yield {"type": "REASONING_MESSAGE_START", "messageId": id, "role": "reasoning"}
        else:
            id = self.id if self.spoken else f"{self.id}-{part}" if self._said else self._turn
            self._said = True
            if id not in self._open:
                self._open[id] = "TEXT_MESSAGE"
                role = "user" if self._role == "tool" else self._role
                yield {"type": "TEXT_MESSAGE_START", "messageId": id, "role": role}
        self._ids[part] = id

    def _add(self, part: int, text: str) -> Iterator[Event]:
        id = self._ids.get(part)
        kind = self._open.get(id or "")
        if kind == "TOOL_CALL":
            self._arguments.add(str(id))
            yield {"type": "TOOL_CALL_ARGS", "toolCallId": id, "delta": text}
        elif kind is not None:
            yield {"type": f"{kind}_CONTENT", "messageId": id, "delta": text}

    def _close(self, id: str) -> Iterator[Event]:
        kind = self._open.pop(id, None)
        if kind == "TOOL_CALL":
            yield {"type": "TOOL_CALL_END", "toolCallId": id}
        elif kind is not None:
            yield {"type": f"{kind}_END", "messageId": id}
            if kind == "REASONING_MESSAGE":
                yield {"type": "REASONING_END", "messageId": id}

    def input_of(self, call: str) -> Any:
        """Return the input of a call that was told."""
        return self._inputs.get(call)

    def give(self, call: str) -> Iterator[Event]:
        """Yield a call that the client is to execute."""
        if (tool := self._held.get(call)) is not None:
            yield from self._tool(tool)

    def _tool(self, tool: ToolPart) -> Iterator[Event]:
        call = tool.tool_call_id
        if tool.client_call is not None and tool.outcome is None and call not in self._given:
            self._held[call] = tool
            return
        self._held.pop(call, None)
        self._inputs[call] = ui_tool_input(tool)
        if call in self._open and tool.state != "input-streaming":
            if call not in self._arguments:
                yield {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": json_text(ui_tool_input(tool))}
            yield from self._close(call)
        result = _result(tool)
        if result is not None and call not in self._results:
            self._results.add(call)
            yield {"type": "TOOL_CALL_RESULT", "messageId": f"{call}-result", "toolCallId": call, "content": result}


def _result(tool: ToolPart) -> str | None:
    if tool.state == "output-available":
        return tool.output if isinstance(tool.output, str) else json_text(tool.output)
    if tool.state == "output-error":
        return f"error: {tool.error_text or 'the tool failed'}"
    return "the user denied the call" if tool.state == "output-denied" else None


def folded(events: Sequence[Event], *, empty: bool = False) -> list[dict[str, Any]]:
    """Return the messages that a client builds from *events*; with *empty*, without their content."""
    found: dict[str, dict[str, Any]] = {}
    calls: dict[str, dict[str, Any]] = {}
    for event in events:
        kind, id = event["type"], event.get("messageId", "")
        if kind in ("TEXT_MESSAGE_START", "REASONING_MESSAGE_START"):
            found.setdefault(id, {"id": id, "role": event["role"], "content": ""})
        elif kind == "TOOL_CALL_START":
            parent = event["parentMessageId"]
            if not empty:
                calls[event["toolCallId"]] = call = {"name": event["toolCallName"], "arguments": ""}
                message = found.setdefault(parent, {"id": parent, "role": "assistant"})
                entry = {"id": event["toolCallId"], "type": "function", "function": call}
                message.setdefault("toolCalls", []).append(entry)
            else:
                found.setdefault(parent, {"id": parent, "role": "assistant", "content": ""})
        elif empty:
            continue
        elif kind in ("TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"):
            found[id]["content"] = found[id].get("content", "") + event["delta"]
        elif kind == "TOOL_CALL_ARGS":
            calls[event["toolCallId"]]["arguments"] += event["delta"]
        elif kind == "TOOL_CALL_RESULT":
            found[id] = {"id": id, "role": "tool", "toolCallId": event["toolCallId"], "content": event["content"]}
    return list(found.values())


class Nested(Protocol):
    """Tells of the child runs below a run, in the form that a client has for them."""

    def take(self, view: SessionView, events: Sequence[SessionEvent]) -> tuple[list[SessionEvent], list[Event]]:
        """Return the events that are about no child run, and what is told of the others."""

    def close(self) -> Iterator[Event]:
        """End what is told of them, since the stream ends."""


def _as_subagents(run: Run | None) -> Nested:
    return Subagents(run.id if run is not None else None, lambda began: MessageEncoder(began, ()))


class SessionEncoder:
    """Encodes a whole session, for one stream.

    Args:
        thread: the client's name for the session.
        run: the run that the stream follows; None for any run that comes.
        run_id: the client's name for that run; the run's own id if None.
        parent: the client's name for the run before.
        front: the stream as a device, to which calls of tools may be given.
        announces: whether a call that is given to it is also told as TanStack's clients want it.
        children: makes what tells of the child runs below the one that is followed; subagents if None.
    """

    def __init__(
        self,
        thread: str,
        run: Run | None,
        run_id: str | None = None,
        parent: str | None = None,
        *,
        front: FrontEnd | None = None,
        announces: bool = False,
        children: Callable[[Run | None], Nested] | None = None,
    ) -> None:
        self._front = front
        self._announces = announces
        self._given: set[str] = set()
        self.thread = thread
        self._run = run
        self._run_id = run_id
        self._parent = parent
        self._messages: dict[str, MessageEncoder] = {}
        self._state: dict[str, Any] = {}
        self._waiting: list[SessionEvent] = []
        self._paused: set[str] = set()
        """Runs whose end, or whose wait for people, was told."""
        self._children = children or _as_subagents
        self._nested = self._children(run)
        self._begun = False
        self.ended = False
        """Whether the last event was a terminal one."""

    def encode(self, view: SessionView, events: Sequence[SessionEvent]) -> Iterator[Event]:
        """Yield what happened; the first time, the conversation so far."""
        rest, nested = self._nested.take(view, events)
        yield from self._encode(view, rest, nested)
        if not self.ended and self._run is not None:
            yield from self._give(self._run)

    def another(self, run: Run) -> SessionEncoder:
        """Return an encoder that tells all anew, for the same stream, which follows *run* now."""
        return SessionEncoder(self.thread, run, front=self._front, announces=self._announces, children=self._children)

    def tell_anew(self, view: SessionView, events: Sequence[SessionEvent]) -> tuple[SessionEncoder, list[Event]]:
        """Tell all again within the run, because its answer begins anew; *events* are all there are.

        Returns:
            the encoder from now on, and what closes the old answer and tells the present one.
        """
        encoder = SessionEncoder(
            self.thread,
            self._run,
            self._run_id,
            self._parent,
            front=self._front,
            announces=self._announces,
            children=self._children,
        )
        encoder._given = self._given
        _, *told = encoder.encode(view, events)  # without the start of the run
        return encoder, [*self._close(), *told]

    def begins_anew(self, events: Sequence[SessionEvent]) -> bool:
        """Whether the answer of the run that is told begins anew."""
        output = output_id(self._run) if self._run is not None and not self.ended else None
        return output in self._messages and any(
            isinstance(event, MessageReplaced) and event.message == output and not event.value.parts
            for event in events
        )

    @property
    def run(self) -> Run | None:
        """The run that the stream follows, as it was told."""
        return self._run

    def _give(self, run: Run) -> Iterator[Event]:
        """Tell which calls the client executes, if it is given some, and end: it comes back with their results."""
        calls = [call for call in run.calls or () if self._executes(call)]
        encoder = self._messages.get(output_id(run))
        if not calls or encoder is None:
            return
        for call in calls:
            self._given.add(call.tool_call_id)
            yield from encoder.give(call.tool_call_id)
        for call in calls if self._announces else ():
            tool = encoder.input_of(call.tool_call_id)
            value = {"toolCallId": call.tool_call_id, "toolName": call.tool_name, "input": tool}
            yield {"type": "CUSTOM", "name": "tool-input-available", "value": value}
        self._paused.add(run.id)
        yield from self._finish("success", pendingToolCallIds=[call.tool_call_id for call in calls])

    async def offer(self, session: Session) -> None:
        """Offer to do what the run that is told has clients do."""
        if self._front is not None and self._run is not None and not self.ended:
            await self._front.offer(session, self._run.id)

    async def leave(self, session: Session, *, to_work: bool) -> None:
        """Take offers back, but for calls that were given if the client leaves to do them."""
        if self._front is not None and self._run is not None:
            await self._front.leave(session, self._run.id, to_work=to_work and self.ended)

    def _executes(self, call: OpenCall) -> bool:
        return self._front is not None and self._front.has(call)

    def pauses(self, run: Run) -> bool:
        """Whether there is nothing to be told of a run until somebody, perhaps this client, has done something."""
        return rests(run) or (not run.over and any(map(self._executes, run.calls or ())))

    def _encode(self, view: SessionView, rest: list[SessionEvent], nested: list[Event]) -> Iterator[Event]:
        if not self._begun:
            self._begun = True
            yield from self._begin(view, rest, nested)
        elif self.ended:
            yield from self._between_runs(view, rest)
        else:
            yield from nested
            yield from self._tell(view, rest)

    def _between_runs(self, view: SessionView, events: Sequence[SessionEvent]) -> Iterator[Event]:
        """Only the begin of a run may be told now, so messages among people are told as a run of their own."""
        runs = [event.run for event in events if isinstance(event, RunChanged)]
        self._paused -= {run.id for run in runs if not self.pauses(run)}
        following = next((run for run in runs if run.status is not None and run.id not in self._paused), None)
        if following is None and all(isinstance(event, _LATER) for event in events):
            for event in events:
                if isinstance(event, PresenceChanged | StateChanged):  # each tells all, so the last one is enough
                    self._waiting = [each for each in self._waiting if type(each) is not type(event)]
                if not isinstance(event, RunChanged | MessagePlaced):
                    self._waiting.append(event)
            return
        self._run, self._run_id, self._parent, self.ended = following, None, None, False
        self._nested = self._children(following)
        waiting, self._waiting = self._waiting, []
        yield self._started(following)
        yield from self._tell(view, [*waiting, *events])
        if following is None:
            yield from self._finish("success")

    def rewritten_by(self, view: SessionView, events: Sequence[SessionEvent]) -> Run | None:
        """Return a run that begins now and replaces the told answer, if there is one; then all is told anew."""
        runs = [event.run for event in events if isinstance(event, RunChanged)] if self.ended else []
        for run in runs:
            if run.request is None or run.parent is not None or run.status is None or run.id in self._paused:
                continue
            asked = view.messages.find(run.request.message_id)
            head = asked.head if asked is not None else None
            if run.request.trigger == "regenerate" or (head is not None and head.replaces is not None):
                return run
        return None

    @property
    def state(self) -> dict[str, Any]:
        """The session's state as it was told."""
        return self._state

    def has_begun(self, run: Run) -> bool:
        """Whether some of a run's message was told."""
        return output_id(run) in self._messages

    def fail(self, code: str, why: str) -> Iterator[Event]:
        """End the stream because the session can no longer be followed."""
        if not self._begun and self._run is not None:
            yield self._started(self._run)
        if not self.ended:
            yield from self._close()
            yield {"type": "RUN_ERROR", "message": why, "code": code}

    def _begin(self, view: SessionView, events: Sequence[SessionEvent], nested: list[Event]) -> Iterator[Event]:
        run = self._run
        yield self._started(run)
        conversation = {message.id: message for message in view.conversation()}
        going = [*view.runs.answering(), *([run] if run is not None else [])]
        last = next(reversed(conversation), None)  # a paused answer keeps its place among later messages
        writing = {output_id(each) for each in going if not rests(each) or output_id(each) == last}
        told: list[Event] = []
        opened: list[Event] = []
        later: list[SessionEvent] = []
        for event in events:
            if isinstance(event, StateChanged):
                self._state = event.state
            elif isinstance(event, PresenceChanged | RunChanged):
                later.append(event)
                if isinstance(event, RunChanged) and rests(event.run):
                    self._paused.add(event.run.id)
            elif getattr(event, "message", None) in writing:
                opened += self._message(event)
            elif getattr(event, "message", None) in conversation:
                told += self._message(event)
        for id, encoder in self._messages.items():
            if id not in writing:
                told += encoder.end_calls(conversation[id])
                told += encoder.close()
        yield {"type": "STATE_SNAPSHOT", "snapshot": self._state}
        yield {"type": "MESSAGES_SNAPSHOT", "messages": self._listed(view, told) + folded(opened, empty=True)}
        yield from opened
        yield from nested
        if run is None:  # no run to follow: the client wanted only the conversation
            yield from self._finish("success")
        else:
            yield from self._tell(view, later)

    def _listed(self, view: SessionView, told: Sequence[Event]) -> list[dict[str, Any]]:
        listed = folded([event for event in told if event["type"] != "CUSTOM"])
        for message in listed:
            value = view.messages.value(message["id"]) if message["role"] == "user" else None
            if value is not None and (content := _content(value)) is not None:
                message["content"] = content
        return listed

    def _started(self, run: Run | None) -> Event:
        started = {"type": "RUN_STARTED", "threadId": self.thread, "runId": self._id(run), "protocolVersion": "1.0"}
        return started | ({"parentRunId": self._parent} if self._parent is not None else {})

    def _id(self, run: Run | None) -> str:
        return self._run_id or (run.id if run is not None else f"{self.thread}-talk")

    def _tell(self, view: SessionView, events: Sequence[SessionEvent]) -> Iterator[Event]:
        paused: Run | None = None
        for event in events:
            match event:
                case StateChanged(state):
                    yield {"type": "STATE_DELTA", "delta": jsonpatch.make_patch(self._state, state).patch}
                    self._state = state
                case PresenceChanged(present):
                    yield {
                        "type": "ACTIVITY_SNAPSHOT", "messageId": PRESENCE, "activityType": PRESENCE,
                        "content": {"present": [each["state"] for each in present]}, "replace": True,
                    }  # fmt: skip
                case RunChanged(run):
                    if rests(run):
                        self._paused.add(run.id)
                    if self._run is not None and run.id == self._run.id:
                        self._run = run
                        paused = run if rests(run) else None
                case _:
                    yield from self._message(event)
        if paused is not None:
            yield from self._end(view, paused)

    def _message(self, event: SessionEvent) -> Iterator[Event]:
        match event:
            case MessageBegan(id, _, _):
                self._messages[id] = MessageEncoder(event, self._given)
            case MessageRemoved(id) | MessageReplaced(id):  # no event tells it; the next snapshot shows it
                if (known := self._messages.get(id)) is not None:
                    yield from known.close()
                return
            case _:
                pass
        encoder = self._messages.get(getattr(event, "message", ""))
        if encoder is None:
            return
        yield from encoder.encode(event)
        if encoder.spoken and not isinstance(event, MessageBegan | PartBegan):
            yield from encoder.close()

    def _end(self, view: SessionView, run: Run) -> Iterator[Event]:
        if run.status in ("failed", "interrupted"):
            code, why = failure_of(run)
            yield from self._close()
            self.ended = True
            yield {"type": "RUN_ERROR", "message": why, "code": code} | _usage(run)
        elif run.status == "suspended" and (interrupts := interrupts_of(view, run)):
            yield from self._finish("interrupt", interrupts=interrupts)
        elif run.status == "suspended":
            yield from self._finish("success")
        elif run.status == "cancelled":
            yield from self._finish("cancelled", result={"reason": run.outcome.reason} if run.outcome else None)
        else:
            pending = [tool.tool_call_id for tool in _tools_of(view, run) if tool.state == "input-available"]
            yield from self._finish("success", **({"pendingToolCallIds": pending} if pending else {}))

    def _finish(self, outcome: str, *, result: Any = None, **more: Any) -> Iterator[Event]:
        yield from self._close()
        self.ended = True
        finished = {"type": "RUN_FINISHED", "threadId": self.thread, "runId": self._id(self._run)}
        if self._run is not None:
            finished |= _usage(self._run)
        yield finished | ({"result": result} if result is not None else {}) | {"outcome": {"type": outcome, **more}}

    def _close(self) -> Iterator[Event]:
        yield from self._nested.close()
        for encoder in self._messages.values():
            yield from encoder.close()


def _usage(run: Run) -> dict[str, Any]:
    """Return what a run has cost, as the protocol's ``TokenUsage``."""
    if run.usage is None:
        return {}
    used = run.usage
    found = {
        "model": used.model,
        "inputTokens": used.input_tokens,
        "outputTokens": used.output_tokens,
        "totalTokens": used.tokens or None,
        "reasoningTokens": used.reasoning_tokens,
        "cachedInputTokens": used.cached_tokens,
    }
    return {"usage": [{name: value for name, value in found.items() if value is not None}]}


def interrupts_of(view: SessionView, run: Run) -> list[Event]:
    """Return the decisions that a run waits for."""
    return [_interrupt(tool) for tool in _tools_of(view, run) if tool.state == "approval-requested"]


def _response_schema(request: ApprovalRequest | None) -> dict[str, Any]:
    """Return the JSON Schema of the answer to an interrupt."""
    if request is None or request.kind in (None, "approve"):
        return _APPROVAL_SCHEMA
    if wants_value(request):
        return request.form or {}
    properties = {**_APPROVAL_SCHEMA["properties"], "editedArgs": request.form or {"type": "object"}}
    return {**_APPROVAL_SCHEMA, "properties": properties}


def _tools_of(view: SessionView, run: Run) -> list[ToolPart]:
    message = view.messages.value(output_id(run))
    return [part for part in message.parts if isinstance(part, ToolPart)] if message is not None else []


def _interrupt(tool: ToolPart) -> Event:
    request = tool.approval_request
    deadline = request.deadline if request is not None else None
    interrupt: Event = {
        "id": tool.tool_call_id,
        "reason": "input_required" if wants_value(request) else "approval_required",
        "message": (request.message if request is not None else None) or f"May {tool.tool_name} be called?",
        "toolCallId": tool.tool_call_id,
        "responseSchema": _response_schema(request),
        "metadata": {"kind": "approval", "toolName": tool.tool_name, "input": ui_tool_input(tool)},  # TanStack's
    }  # fmt: skip
    if deadline is not None:
        interrupt["expiresAt"] = datetime.fromtimestamp(deadline / 1000, UTC).isoformat()
    return interrupt


def _content(message: Message) -> list[dict[str, Any]] | None:
    """Return a person's message as content parts, if it has more than text."""
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
        elif part.type == "file" and isinstance(part.value, dict) and isinstance(part.value.get("url"), str):
            media = str(part.value.get("mediaType", "application/octet-stream"))
            kind = media.split("/")[0] if media.split("/")[0] in ("image", "audio", "video") else "document"
            parts.append({"type": kind, "source": {"type": "url", "value": part.value["url"], "mimeType": media}})
    return parts if any(part["type"] != "text" for part in parts) else None


async def events(
    registry: SessionRegistry,
    name: SessionId,
    encoder: SessionEncoder,
    *,
    follow: bool,
    come_back: bool = False,
    client: ClientState | None = None,
) -> AsyncGenerator[list[Event], None]:
    """Yield a session as AG-UI events, in batches, to the end of the run or, with *follow*, without end.

    The last event is a terminal one. *client* notes what it was told of the session's state.

    Raises:
        ShuttingDown: the service stops, and the client comes back by itself (*come_back*).
    """
    try:
        async with registry.open(name) as session:
            projector = _projector(session)
            try:
                attendance = Attendance(registry, session)
                while True:
                    run_id = encoder.run.id if encoder.run is not None and not encoder.ended else None
                    came_or_went = await attendance.wait(projector, run_id)
                    encoder, projector, batch = _batch(session, encoder, projector)
                    if came_or_went and encoder.run is not None and not encoder.ended:
                        value = absence(encoder.run, away=attendance.away)
                        batch.append({"type": "CUSTOM", "name": "agent-away", "value": value})
                    if batch:
                        yield batch
                    if encoder.ended:
                        _note(client, session, encoder, whole=True)
                    if encoder.ended and not follow:
                        return
                    if (beside := _begun_beside(session.view, encoder)) is not None:
                        encoder, projector = encoder.another(beside), _projector(session)
                    await encoder.offer(session)
            finally:
                _note(client, session, encoder, whole=False)
                await encoder.leave(session, to_work=not follow)
    except CrdtSessionsError as error:
        if come_back and isinstance(error, ShuttingDown):
            raise
        yield list(encoder.fail(type_of(error).slug, f"{error}; the answer goes on, join again to see it"))


def _batch(
    session: Session, encoder: SessionEncoder, projector: Projector
) -> tuple[SessionEncoder, Projector, list[Event]]:
    """Return what is to be told now, and what tells the rest: another encoder, if all was told anew."""
    happened = projector.take()
    if encoder.begins_anew(happened):
        projector = _projector(session)
        encoder, batch = encoder.tell_anew(session.view, projector.take())
        return encoder, projector, batch
    if (rewriting := encoder.rewritten_by(session.view, happened)) is not None:
        encoder, projector = encoder.another(rewriting), _projector(session)
        happened = projector.take()
    return encoder, projector, list(encoder.encode(session.view, happened))


def _projector(session: Session) -> Projector:
    return Projector(session, wants=lambda subject: subject[0] != "meta")


def _begun_beside(view: SessionView, encoder: SessionEncoder) -> Run | None:
    """Return the active run if it has begun beside the one that has ended: then all is told anew."""
    going = active_run(view) if encoder.ended else None
    return going if going is not None and encoder.has_begun(going) and not encoder.pauses(going) else None


def _note(client: ClientState | None, session: Session, encoder: SessionEncoder, *, whole: bool) -> None:
    if client is not None:
        client.told(session.view, encoder.state, whole=whole)
