"""A conversation as models and front ends want it: OpenAI's chat messages, Anthropic's messages, AI SDK's UIMessages.

What a provider would refuse is left out: a tool call without a result, an empty message, thoughts. Sources:
OpenAI API reference, "Create chat completion"; Anthropic API reference, "Messages"; AI SDK 7, ``UIMessage``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from crdt_sessions.model.asks import wants_value
from crdt_sessions.model.parts import Part, TextPart, ToolPart, ValuePart
from crdt_sessions.model.spelling import spelled
from crdt_sessions.model.values import Message

Shape = Literal["openai", "anthropic", "ai-sdk"]
_SAID: TypeAdapter[list[Part]] = TypeAdapter(list[Part])


def shaped(messages: Iterable[Message], shape: Shape) -> list[dict[str, Any]]:
    """Return *messages* in the shape of a provider.

    What somebody said to steer an answer is told where the answer took it up, and not again as a message of its own.
    Anthropic takes what the system says as a parameter of its own: see :func:`system_text`.
    """
    spell = {"openai": _openai, "anthropic": _anthropic, "ai-sdk": _ai_sdk}[shape]
    turns = [message for each in alone(messages) for message in ([each] if shape == "ai-sdk" else _heard(each))]
    return [spelled for message in turns for spelled in spell(message)]


def alone(messages: Iterable[Message]) -> list[Message]:
    """Return *messages* without those that steered an answer which is among them, and says where."""
    everything = list(messages)
    taken = {steered[0] for message in everything for part in message.parts if (steered := _steered(part))}
    return [message for message in everything if message.id not in taken]


def _steered(part: Part) -> tuple[str, list[Part]] | None:
    """Return the id of the message that was taken up here, and what it said; None if none was."""
    value = part.value if isinstance(part, ValuePart) and part.type == "steering" else None
    if not isinstance(value, dict) or not isinstance(value.get("messageId"), str):
        return None
    try:
        return value["messageId"], _SAID.validate_python(value.get("parts"))
    except ValidationError:
        return None


def _heard(message: Message) -> Iterable[Message]:
    """Yield an answer as a model gave it: up to what it heard on the way, that, and what it said then."""
    parts: list[Part] = []
    for part in message.parts:
        steered = _steered(part)
        if steered is None:
            parts.append(part)
            continue
        yield message.replace(parts=parts)
        yield message.replace(id=steered[0], role="user", parts=steered[1])
        parts = []
    yield message.replace(parts=parts)


def json_text(value: Any) -> str:
    """Return *value* as JSON, numbers as JavaScript writes them: 3.0 is 3 to it."""
    return json.dumps(spelled(value), ensure_ascii=False, separators=(",", ":"))


def system_text(messages: Iterable[Message]) -> str:
    """Return what the messages of role ``system`` say, joined."""
    return "\n\n".join(message.text for message in messages if message.role == "system" and message.text)


def _turns(message: Message) -> Iterable[tuple[list[TextPart | ValuePart], list[ToolPart]]]:
    """Yield what was said and then the tools that were called, turn by turn."""
    said: list[TextPart | ValuePart] = []
    called: list[ToolPart] = []
    for part in message.parts:
        if isinstance(part, ToolPart):
            if _result(part) is not None:
                called.append(part)
        elif not (isinstance(part, TextPart) and (part.type == "reasoning" or part.choice)):
            if called:
                yield said, called
                said, called = [], []
            said.append(part)
    if said or called:
        yield said, called


def _result(part: ToolPart) -> tuple[str, bool] | None:
    """Return what the model is told about a call, and whether that is an error; None if there is nothing yet."""
    if part.state == "output-available":
        return part.output if isinstance(part.output, str) else json_text(part.output), False
    if part.state == "output-error":
        return f"error: {part.error_text or 'the tool failed'}", True
    if part.state == "output-denied" or (part.approval is not None and not part.approval.approved):
        why = part.approval.reason if part.approval is not None else None
        return "the user denied the call" + (f": {why}" if why else ""), True
    return None


def _text(said: Iterable[TextPart | ValuePart]) -> str:
    spoken = (part.text if isinstance(part, TextPart) else part.transcript or "" for part in said)
    return "".join(spoken)


def _file(part: Part) -> tuple[str, str] | None:
    """Return media type and URL of a file, or None."""
    value = part.value if isinstance(part, ValuePart) and part.type == "file" else None
    if not isinstance(value, dict) or not isinstance(value.get("url"), str):
        return None
    return str(value.get("mediaType", "application/octet-stream")), value["url"]


def _openai(message: Message) -> Iterable[dict[str, Any]]:
    for said, called in _turns(message):
        text = _text(said)
        images = [url for media, url in filter(None, map(_file, said)) if media.startswith("image/")]
        spelled: dict[str, Any] = {"role": "user" if message.role == "tool" else message.role, "content": text}
        if images and message.role == "user":
            pieces: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
            spelled["content"] = pieces + [{"type": "image_url", "image_url": {"url": url}} for url in images]
        if called:
            spelled["tool_calls"] = [
                {
                    "id": part.tool_call_id,
                    "type": "function",
                    "function": {"name": part.tool_name, "arguments": _arguments(part)},
                }
                for part in called
            ]
        if spelled["content"] or called:
            yield spelled
        for part in called:
            result = _result(part)
            yield {"role": "tool", "tool_call_id": part.tool_call_id, "content": result[0] if result else ""}


def _anthropic(message: Message) -> Iterable[dict[str, Any]]:
    if message.role == "system":
        return
    role = "assistant" if message.role == "assistant" else "user"
    for said, called in _turns(message):
        text = _text(said)
        content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text.strip() else []
        content += [
            {"type": "image", "source": {"type": "url", "url": url}}
            for media, url in filter(None, map(_file, said))
            if media.startswith("image/") and role == "user"
        ]
        content += [
            {"type": "tool_use", "id": part.tool_call_id, "name": part.tool_name, "input": _input(part)}
            for part in called
        ]
        if content:
            yield {"role": role, "content": content}
        if called:
            yield {"role": "user", "content": [_tool_result(part) for part in called]}


def _tool_result(part: ToolPart) -> dict[str, Any]:
    text, failed = _result(part) or ("", False)
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": part.tool_call_id, "content": text}
    return result | ({"is_error": True} if failed else {})


def _arguments(part: ToolPart) -> str:
    """Return the input as the model wrote it, or as JSON if what it wrote is none (it was cut off, or a program)."""
    return part.input_text if _parsed(part) is not None else json_text(_input(part))


def _input(part: ToolPart) -> dict[str, Any]:
    if isinstance(part.input, dict):
        return part.input
    parsed = _parsed(part)
    if parsed is not None:
        return parsed
    value = part.input if part.input is not None else part.input_text
    return {"input": value} if value else {}


def _parsed(part: ToolPart) -> dict[str, Any] | None:
    try:
        parsed = spelled(json.loads(part.input_text))  # a model may write NaN, or nest without end
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _ai_sdk(message: Message) -> Iterable[dict[str, Any]]:
    role = "user" if message.role == "tool" else message.role
    parts: list[dict[str, Any]] = []
    begins, after_tool = True, False  # a model begins anew after its tools have answered, and when somebody steers
    for part in _joined(message):
        steering = part.type == "steering"
        if role == "assistant" and not steering and (begins or (after_tool and not isinstance(part, ToolPart))):
            parts.append({"type": "step-start"})
        begins, after_tool = steering, isinstance(part, ToolPart)
        parts += ui_part(part)
    yield {"id": message.id, "role": role, "parts": parts}


def _joined(message: Message) -> Iterable[Part]:
    """Yield the parts of the first choice, with a buffer that goes on in further parts as one."""
    held: TextPart | None = None
    for part in message.parts:
        if isinstance(part, TextPart) and part.choice:
            continue
        if isinstance(part, TextPart) and part.continues and held is not None:
            held = held.replace(text=held.text + part.text, state=part.state)
            continue
        if held is not None:
            yield held
        held = part if isinstance(part, TextPart) else None
        if held is None:
            yield part
    if held is not None:
        yield held


def ui_part(part: Part) -> Iterable[dict[str, Any]]:
    """Yield a part as a ``UIMessage`` has it; nothing if it has no place for such a one."""
    if isinstance(part, TextPart):
        yield {"type": part.type, "text": part.text, "state": "streaming" if part.state == "streaming" else "done"}
    elif isinstance(part, ToolPart):
        yield _ui_tool(part)
    elif (file := _file(part)) is not None:
        name = part.value.get("filename")
        yield {"type": "file", "mediaType": file[0], "url": file[1]} | ({"filename": name} if name else {})
    elif (steered := _steered(part)) is not None:
        said = [spelled for each in steered[1] for spelled in ui_part(each) if spelled["type"] in ("text", "file")]
        yield {"type": "steering-message", "id": steered[0], "parts": said}
    elif part.type == "audio":
        yield {"type": "text", "text": part.transcript or "", "state": "done"}
    elif part.type == "data":
        named = isinstance(part.value, dict) and isinstance(part.value.get("name"), str)
        value = part.value if named else {"name": "value", "data": part.value}
        id = {"id": value["id"]} if isinstance(value.get("id"), str) else {}
        yield {"type": f"data-{value['name']}", **id, "data": value.get("data")}
    elif part.type == "source" and isinstance(part.value, dict) and "url" in part.value:
        yield {
            "type": "source-url",
            "sourceId": str(part.value.get("id", part.value["url"])),
            "url": part.value["url"],
        } | ({"title": part.value["title"]} if isinstance(part.value.get("title"), str) else {})


def ui_tool_input(part: ToolPart) -> Any:
    """Return the input of a tool call as JSON, also where the model did not write any.

    Of a question that wants a value it has the form, too.
    """
    input = part.input if part.input is not None else _input(part)
    request = part.approval_request
    if request is None or not wants_value(request) or not isinstance(input, dict):
        return input
    form = {"message": request.message, "schema": request.form, "order": request.order}
    return {**{key: value for key, value in form.items() if value is not None}, **input}


def _ui_tool(part: ToolPart) -> dict[str, Any]:
    spelled: dict[str, Any] = {
        "type": f"tool-{part.tool_name}",
        "toolCallId": part.tool_call_id,
        "state": part.state,
        "input": ui_tool_input(part),
    }
    if wants_value(part.approval_request):  # a tool of the client, whose result is the answer
        return spelled | _ui_answer(part)
    if part.approval_request is not None:
        spelled["approval"] = {"id": part.tool_call_id}
        if part.approval is not None:
            spelled["approval"]["approved"] = part.approval.approved
            if part.approval.reason is not None:
                spelled["approval"]["reason"] = part.approval.reason
    if part.state == "output-available":
        spelled["output"] = part.output
    if part.state == "output-error":
        spelled["errorText"] = part.error_text or "the tool failed"
    return spelled


def _ui_answer(part: ToolPart) -> dict[str, Any]:
    """Return how far a question that wants a value is, as the state of a client's tool."""
    if part.state == "output-available":
        return {"output": part.output}
    if part.state in ("output-error", "output-denied"):
        return {"state": "output-error", "errorText": part.error_text or "declined"}
    if part.approval is None:
        return {"state": "input-available"}
    if part.approval.approved:
        return {"state": "output-available", "output": part.approval.value}
    return {"state": "output-error", "errorText": part.approval.reason or "declined"}
