"""The AI SDK's chunks for a run, and its messages for a conversation.

Source: AI SDK 7, "Stream Protocol" and the types ``UIMessage`` and ``UIMessageChunk``. A stream has one message with
a stable id, and ends with ``finish`` or ``error``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    MessageReplaced,
    PartBegan,
    PartChanged,
    Run,
    RunInput,
    SessionView,
    TextAdded,
    TextPart,
    ToolPart,
    Usage,
    alone,
    ended_call,
    shaped,
    ui_part,
    ui_tool_input,
    wants_value,
)
from crdt_sessions.model.parts import Part
from crdt_sessions.model.runs import output_id
from crdt_sessions.model.values import Message
from crdt_sessions.runtime import AgentWatch, RunChanged, SessionEvent, SessionRegistry
from crdt_sessions_server.gateways.children import ChildRuns, below, by_parent, child_value
from crdt_sessions_server.gateways.conversation import follow_run
from crdt_sessions_server.gateways.front_end import FrontEnd
from crdt_sessions_server.gateways.inputs import extra_of
from crdt_sessions_server.gateways.parts import JoinedParts
from crdt_sessions_server.gateways.run_lookup import absence, rests

Chunk = dict[str, Any]

_FINISH = {
    "stop": "stop", "end_turn": "stop", "completed": "stop", "length": "length", "max_tokens": "length",
    "content_filter": "content-filter", "content-filter": "content-filter", "tool_calls": "tool-calls",
    "tool-calls": "tool-calls", "tool_use": "tool-calls",
}  # fmt: skip
"""Reasons of a good end, from the words of providers to those of the AI SDK."""

_log = logging.getLogger("crdt_sessions.gateways")


def ui_messages(view: SessionView) -> list[dict[str, Any]]:
    """Return the conversation as ``UIMessage``s, equal to those of a client that followed it."""
    children = by_parent(view.runs.delegated())
    return [_ui_message(view, message, children) for message in alone(view.conversation())]


def _ui_message(view: SessionView, message: Message, children: Mapping[str, list[Run]]) -> dict[str, Any]:
    (spelled,) = shaped([message], "ai-sdk")
    if message.metadata is not None:
        spelled["metadata"] = message.metadata
    run = view.runs.value(message.run_id) if message.run_id is not None else None
    if run is None:
        return spelled
    spelled["parts"] += [_child_part(child_value(view, child)) for child in below(run.id, children)]
    if run.over and message.parts and _answered(message.parts[-1]):
        spelled["parts"].append({"type": "step-start"})
    return spelled | {"metadata": _metadata(run) | _asked_with(run)}


def body_of(given: RunInput) -> dict[str, Any]:
    """Return an input as the ``body`` with which a client asks for the same."""
    found = given.to_json()
    return extra_of(given) | {key: found[key] for key in ("tools", "context") if key in found}


def _child_part(value: dict[str, Any]) -> dict[str, Any]:
    """Return a child run as a part of its parent's message, which a later one of the same id replaces."""
    return {"type": "data-run", "id": value["runId"], "data": value}


def _answered(part: Part) -> bool:
    """Whether a part is a tool call with its final result.

    An answer that ends with one gets an empty step after it. Otherwise a client that sends automatically after the
    last tool result would do so for ever.
    """
    return isinstance(part, ToolPart) and part.state.startswith("output-")


def _metadata(run: Run) -> dict[str, Any]:
    why = {"reason": run.outcome.reason} if run.status == "cancelled" and run.outcome is not None else {}
    used = {"usage": _usage(run.usage)} if run.usage is not None else {}
    return {"runId": run.id, "status": run.status or "queued", **why, **used}


def _asked_with(run: Run) -> dict[str, Any]:
    """Return what the answer was asked with, as metadata of its message.

    Tools, context and what is forwarded are left out: clients send all metadata along with each further question.
    """
    found = run.input.to_json()
    told = {key: found[key] for key in ("model", "settings", "metadata") if key in found}
    return {"input": told} if told else {}


def _usage(usage: Usage) -> dict[str, Any]:
    """Return what a run has cost: tokens as in the SDK's ``LanguageModelUsage``, all else as in the document."""
    found = usage.to_json()
    if (cached := found.pop("cachedTokens", None)) is not None:
        found["cachedInputTokens"] = cached
    return found | ({"totalTokens": usage.tokens} if usage.tokens else {})


class Encoder:
    """Encodes the events of one run as chunks.

    Args:
        run: the run.
        known: the parts of its message that the client has, if the run continues one.
        front: the stream as a device, to which calls of tools may be given.
    """

    def __init__(self, run: Run, known: Sequence[dict[str, Any]] = (), front: FrontEnd | None = None) -> None:
        self._front = front
        self._given: dict[str, bool] = {}
        """Calls that clients execute, as far as they were told, to whether this one does."""
        self.ended = False
        """Whether the last chunk was told."""
        self._run = run
        self._known = [part for part in known if part.get("type") != "step-start"]
        self._known_calls = {str(part["toolCallId"]) for part in self._known if "toolCallId" in part}
        self._began = False
        self._replayed = not known
        self._parts = JoinedParts()
        self._open: dict[int, str] = {}
        """Part that is written, to what the protocol calls its kind."""
        self._tools: dict[int, str] = {}
        self._calls: dict[str, ToolPart] = {}
        self._told = 0
        self._after_tool = False
        self._answered = False
        self._stepping = self._stepped = bool(known)
        self._earlier = bool(known)
        """Whether the message has parts before the present step, which no chunk takes out of it."""
        self._children: dict[str, Chunk] = {}
        self._begun_anew = 0

    def encode(self, events: Sequence[SessionEvent]) -> Iterator[Chunk]:
        """Yield the chunks for a client; the last one is ``finish`` or ``error`` if the run has paused."""
        if not self._began:
            self._began = True
            metadata = _metadata(self._run) | _asked_with(self._run)
            yield {"type": "start", "messageId": output_id(self._run), "messageMetadata": metadata}
        ended: Run | None = None
        for event in events:
            match self._parts.take(event):
                case PartBegan(_, part, value):
                    yield from self._begin(part, value)
                case TextAdded(_, part, _, text):
                    yield from self._add(part, text)
                case PartChanged(_, part, ToolPart() as tool):
                    yield from self._tool(tool)
                case PartChanged(_, part, value) if getattr(value, "state", None) == "done":
                    yield from self._close(part)
                case MessageReplaced(_, value) if not value.parts:
                    yield from self._begin_anew()
                case RunChanged(run):
                    yield from self._run_changed(run)
                    ended = run
                case _:
                    pass  # no chunk tells it
        self._replayed = self._replayed or bool(events)
        yield from self._give()
        if self.has_work or (ended is not None and rests(ended)):
            yield from self.end()

    def tell_children(self, children: Sequence[Mapping[str, Any]]) -> list[Chunk]:
        """Return what tells of child runs, each in place of what was told of it before."""
        told = {child["runId"]: _child_part(dict(child)) for child in children}
        self._children |= told
        return list(told.values())

    @property
    def has_work(self) -> bool:
        """Whether the client has a call to execute; it does that, and sends the result, when the stream has ended."""
        return any(self._given.values())

    def _give(self) -> Iterator[Chunk]:
        """Tell of calls that a client executes once it is known which one does."""
        for call in self._run.calls or () if not self._run.over else ():
            tool = self._calls.get(call.tool_call_id)
            if tool is None or call.taken is None or tool.outcome is not None:
                continue
            mine = self._front is not None and self._front.has(call)
            told = self._given.get(call.tool_call_id)
            if told in (None, not mine):
                yield from self._input(tool, elsewhere=None if mine and told is None else not mine)
                self._given[call.tool_call_id] = mine

    def _input(self, tool: ToolPart, *, elsewhere: bool | None = None) -> Iterator[Chunk]:
        """Tell that the input of a call is complete; *elsewhere*: whether another client executes it."""
        chunk = {"type": "tool-input-available", "toolCallId": tool.tool_call_id, "toolName": tool.tool_name}
        executed = {} if elsewhere is None else {"providerExecuted": elsewhere}
        yield chunk | {"input": ui_tool_input(tool)} | executed

    def _run_changed(self, run: Run) -> Iterator[Chunk]:
        if run.status != self._run.status and not rests(run):
            yield {"type": "message-metadata", "messageMetadata": _metadata(run)}
        self._run = run

    def _begin_anew(self) -> Iterator[Chunk]:
        """Take back what was told. The client drops the present step; of earlier ones a part says where they end."""
        self._open.clear()
        self._tools.clear()
        self._calls.clear()
        self._given.clear()
        self._after_tool = self._answered = False
        self._begun_anew += 1
        yield {"type": "reset-step"}
        if self._earlier:
            data = {"runId": self._run.id, "messageId": output_id(self._run)}
            yield {"type": "data-begun-anew", "id": f"begun-anew-{self._begun_anew}", "data": data}
        yield from self._children.values()

    def end(self) -> Iterator[Chunk]:
        """Close open parts, and tell how the run ended, or that the client has something to do."""
        self.ended = True
        for part in list(self._open):
            yield from self._close(part)
        yield from self._end_calls()
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
        elif run.status == "suspended" or self.has_work:
            yield {"type": "finish", "finishReason": "tool-calls", **metadata}
        elif run.status == "cancelled":
            yield {"type": "finish", "finishReason": "other", **metadata}
        elif run.status == "interrupted":
            yield {"type": "finish", "finishReason": "interrupted", **metadata}
        else:
            yield {"type": "finish", "finishReason": _FINISH.get(reason, "stop"), **metadata}

    def _end_calls(self) -> Iterator[Chunk]:
        """End calls without a result with their run; old documents do not say it themselves."""
        for call in list(self._calls.values()):
            if (ended := ended_call(call, self._run)) is not call:
                yield from self._outcome(ended)

    def _begin(self, part: int, value: Part) -> Iterator[Chunk]:
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
            if told:
                self._open[part] = kind = "reasoning" if value.type == "reasoning" else "text"
                yield {"type": f"{kind}-start", "id": f"p{part}"}
        elif told:
            yield from ui_part(value)

    def _step(self, value: Part) -> Iterator[Chunk]:
        """Begin a step where the model begins again: at the start, and after results of tools."""
        if value.type == "steering":  # the model reads it between two steps
            yield from self._end_step()
            return
        if self._stepping and not (self._after_tool and not isinstance(value, ToolPart)):
            return
        self._earlier = self._earlier or self._stepped
        yield from self._end_step()
        self._stepping = self._stepped = True
        yield {"type": "start-step"}

    def _end_step(self) -> Iterator[Chunk]:
        if self._stepping:
            self._stepping = False
            yield {"type": "finish-step"}

    def _add(self, part: int, text: str) -> Iterator[Chunk]:
        if part in self._tools:
            if self._replayed or self._tools[part] not in self._known_calls:
                yield {"type": "tool-input-delta", "toolCallId": self._tools[part], "inputTextDelta": text}
        elif part in self._open:
            yield {"type": f"{self._open[part]}-delta", "id": f"p{part}", "delta": text}

    def _close(self, part: int) -> Iterator[Chunk]:
        if part in self._open:
            yield {"type": f"{self._open.pop(part)}-end", "id": f"p{part}"}

    def _tool(self, tool: ToolPart) -> Iterator[Chunk]:
        self._calls[tool.tool_call_id] = tool
        call = {"toolCallId": tool.tool_call_id}
        told = not self._replayed and tool.tool_call_id in self._known_calls
        if tool.client_call is not None:
            if tool.outcome is not None and not told:
                yield from self._settled_elsewhere(tool)
        elif not told:
            yield from self._input(tool)
            if tool.approval_request is not None and not wants_value(tool.approval_request):
                yield {"type": "tool-approval-request", "approvalId": tool.tool_call_id, **call}
        if tool.approval is not None and not wants_value(tool.approval_request):
            verdict = {"approved": tool.approval.approved}
            if tool.approval.reason is not None:
                verdict["reason"] = tool.approval.reason  # type: ignore[assignment]
            yield {"type": "tool-approval-response", "approvalId": tool.tool_call_id, **verdict}
        yield from self._outcome(tool)

    def _settled_elsewhere(self, tool: ToolPart) -> Iterator[Chunk]:
        """Tell of a call that is settled before this client was told who executes it, if it was not."""
        if tool.tool_call_id not in self._given:
            yield from self._input(tool, elsewhere=True)
            self._given[tool.tool_call_id] = False

    def _outcome(self, tool: ToolPart) -> Iterator[Chunk]:
        self._answered = self._after_tool and _answered(tool)
        call = {"toolCallId": tool.tool_call_id}
        if tool.state == "output-available":
            yield {"type": "tool-output-available", **call, "output": tool.output}
        elif tool.state == "output-error":
            yield {"type": "tool-output-error", **call, "errorText": tool.error_text or "the tool failed"}
        elif tool.state == "output-denied":
            yield {"type": "tool-output-denied", **call}


async def follow(
    registry: SessionRegistry,
    name: SessionId,
    run_id: str,
    known: Sequence[dict[str, Any]] = (),
    front: FrontEnd | None = None,
) -> AsyncGenerator[list[Chunk], None]:
    """Yield a run as chunks, in batches. The last chunk is always ``finish`` or ``error``.

    Calls that clients execute are offered to be done by *front*; if it is given one, the stream ends there.
    """
    try:
        async with registry.open(name) as session:
            encoder, children = Encoder(session.view.runs.find(run_id), known, front), ChildRuns(run_id)
            yield [*encoder.encode([]), *_superseded(session.view, run_id)]
            watch, away = AgentWatch(registry, session), False
            try:
                async for events in follow_run(session, run_id, paused=rests, children=True, watch=watch):
                    rest, told = children.take(session.view, events)
                    chunks = [*encoder.tell_children(told), *encoder.encode(rest)]
                    if watch.away != away and not encoder.ended:
                        away = watch.away
                        data = absence(session.view.runs.find(run_id), away=away)
                        chunks.append({"type": "data-agent-away", "data": data, "transient": True})
                    await session.readable()
                    yield chunks
                    if encoder.ended:
                        return
                    if front is not None:
                        await front.offer(session, run_id)
            finally:
                if front is not None:
                    await front.leave(session, run_id, to_work=encoder.ended)
    except CrdtSessionsError as error:  # the session was closed, or the service restarts: the client may resume
        _log.info("an answer cannot be followed any more: %s", error, extra={"session": name})
        yield [{"type": "error", "errorText": f"{error}; the answer goes on, resume to see it"}]


def _superseded(view: SessionView, run_id: str) -> Iterator[Chunk]:
    """Yield the runs that this one superseded, for a page that still shows their questions as open."""
    for run in view.runs.superseded_by(run_id):
        data = {"runId": run.id, "messageId": output_id(run)}
        yield {"type": "data-superseded", "data": data, "transient": True}
