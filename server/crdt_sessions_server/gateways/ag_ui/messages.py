"""One message of a session as AG-UI events, and the messages that a client builds from them.

One of our messages may think, speak, call tools and speak again; AG-UI has a message for each of these.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from crdt_sessions.model import (
    Message,
    MessageBegan,
    PartBegan,
    PartChanged,
    TextAdded,
    TextPart,
    ToolPart,
    json_text,
    ui_tool_input,
)
from crdt_sessions.model.parts import Part
from crdt_sessions.runtime import SessionEvent
from crdt_sessions_server.gateways.parts import JoinedParts

Event = dict[str, Any]


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


def content_of(message: Message) -> list[dict[str, Any]] | None:
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
