"""The AI SDK's chunks: a run as ``useChat`` is told of it while it goes on, and a conversation as it has it later.

Source: AI SDK 7, "Stream Protocol" and the types ``UIMessage`` and ``UIMessageChunk``. A stream has one message with
a stable id, and ends with ``finish`` or ``error``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    PartBegan,
    PartChanged,
    Run,
    SessionView,
    TextAdded,
    TextPart,
    ToolPart,
    alone,
    ended_call,
    shaped,
    ui_part,
    ui_tool_input,
)
from crdt_sessions.model.values import Message, Part
from crdt_sessions.runtime import RunChanged, SessionEvent, SessionRegistry
from crdt_sessions_server.gateways.conversation import follow_run, has_paused, output_id

Chunk = dict[str, Any]

_FINISH = {
    "stop": "stop", "end_turn": "stop", "completed": "stop", "length": "length", "max_tokens": "length",
    "content_filter": "content-filter", "content-filter": "content-filter", "tool_calls": "tool-calls",
    "tool-calls": "tool-calls", "tool_use": "tool-calls",
}  # fmt: skip
"""Why a run ended well, in the words of providers, to the words of the AI SDK."""

_log = logging.getLogger("crdt_sessions.gateways")


def ui_messages(view: SessionView) -> list[dict[str, Any]]:
    """Return the conversation as ``UIMessage``s, equal to what a client has that followed it."""
    return [_ui_message(view, message) for message in alone(view.conversation())]


def _ui_message(view: SessionView, message: Message) -> dict[str, Any]:
    (spelled,) = shaped([message], "ai-sdk")
    if message.metadata is not None:
        spelled["metadata"] = message.metadata
    run = view.runs.value(message.run_id) if message.run_id is not None else None
    if run is None:
        return spelled
    if run.over and message.parts and _answered(message.parts[-1]):
        spelled["parts"].append({"type": "step-start"})
    return spelled | {"metadata": _metadata(run)}


def _answered(part: Part) -> bool:
    """Whether a part is a tool call that nothing more comes of.

    An answer that ends with one gets an empty step after it: a client that sends by itself when all tools have
    answered would otherwise do so for ever.
    """
    return isinstance(part, ToolPart) and part.state.startswith("output-")


def _metadata(run: Run) -> dict[str, Any]:
    why = {"reason": run.outcome.reason} if run.status == "cancelled" and run.outcome is not None else {}
    return {"runId": run.id, "status": run.status or "queued", **why}


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
        self._calls: dict[str, ToolPart] = {}
        self._told = 0
        self._after_tool = False
        self._answered = False
        self._stepping = bool(known)

    def spell(self, events: Sequence[SessionEvent]) -> Iterator[Chunk]:
        """Yield the chunks for a client; the last one is ``finish`` or ``error`` if the run has paused."""
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
        """Close open parts, and say how the run ended."""
        for id, kind in self._open.items():
            yield {"type": f"{kind}-end", "id": id}
        self._open.clear()
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
        elif run.status == "suspended":
            yield {"type": "finish", "finishReason": "tool-calls", **metadata}
        elif run.status == "cancelled":
            yield {"type": "finish", "finishReason": "other", **metadata}
        elif run.status == "interrupted":
            yield {"type": "finish", "finishReason": "interrupted", **metadata}
        else:
            yield {"type": "finish", "finishReason": _FINISH.get(reason, "stop"), **metadata}

    def _end_calls(self) -> Iterator[Chunk]:
        """End the calls that have no result with their run, where the document is too old to say so."""
        for call in list(self._calls.values()):
            if (ended := ended_call(call, self._run)) is not call:
                yield from self._outcome(ended)

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
        self._calls[tool.tool_call_id] = tool
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
        yield from self._outcome(tool)

    def _outcome(self, tool: ToolPart) -> Iterator[Chunk]:
        self._answered = self._after_tool and _answered(tool)
        call = {"toolCallId": tool.tool_call_id}
        if tool.state == "output-available":
            yield {"type": "tool-output-available", **call, "output": tool.output}
        elif tool.state == "output-error":
            yield {"type": "tool-output-error", **call, "errorText": tool.error_text or "the tool failed"}
        elif tool.state == "output-denied":
            yield {"type": "tool-output-denied", **call}


async def followed(
    registry: SessionRegistry, name: SessionId, run_id: str, known: Sequence[dict[str, Any]] = ()
) -> AsyncGenerator[list[Chunk], None]:
    """Yield a run as chunks, in batches. The last one is always ``finish`` or ``error``."""
    try:
        async with registry.open(name) as session:
            speller = Speller(session.view.runs.find(run_id), known)
            yield [*speller.spell([]), *_superseded(session.view, run_id)]
            async for events in follow_run(session, run_id):
                yield list(speller.spell(events))
    except CrdtSessionsError as error:  # the session was closed, or the service restarts: the client may resume
        _log.info("an answer cannot be followed any more: %s", error, extra={"session": name})
        yield [{"type": "error", "errorText": f"{error}; the answer goes on, resume to see it"}]


def _superseded(view: SessionView, run_id: str) -> Iterator[Chunk]:
    """Yield which questions this one has taken the place of, for a page that still shows them as open."""
    for run in view.runs.all():
        if run.outcome is not None and run.outcome.superseded_by == run_id:
            data = {"runId": run.id, "messageId": output_id(run)}
            yield {"type": "data-superseded", "data": data, "transient": True}
