"""Streams of LangChain and LangGraph."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from crdt_sessions.bridges.deltas import Delta, usage, write
from crdt_sessions.bridges.wishes import Wishes
from crdt_sessions.client import MessageStream
from crdt_sessions.model import RunInput

_SETTINGS = {
    "temperature": "temperature",
    "topP": "top_p",
    "seed": "seed",
    "maxOutputTokens": "max_tokens",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}


async def write_messages(out: MessageStream, stream: AsyncIterator[Any]) -> None:
    """Write what a graph or a model streams.

    Args:
        out: the run's message.
        stream: ``graph.astream(..., stream_mode="messages")``, which yields pairs, or ``model.astream(...)``.

    Raises as :func:`crdt_sessions.bridges.write`, and whatever *stream* raises.
    """
    await write(out, pieces(stream), ends=False)


def bound(model: Any, input: RunInput) -> Any:
    """Return a chat *model* that calls what a run's *input* names and is asked as that says.

    Which model it is, is yours to choose: ``run.input.model`` has the wish.

    ::

        stream = bridges.langchain.bound(chat, run.input).astream(run.history())
    """
    wishes = Wishes(input)
    options: dict[str, Any] = dict(wishes.numbers(_SETTINGS))
    if wishes.stop is not None:
        options["stop"] = wishes.stop
    if wishes.tools:
        model, options = _with_tools(model, wishes, options), {}
    if (form := wishes.response_format) is not None:
        options["response_format"] = form
    return model.bind(**options) if options else model


def _with_tools(model: Any, wishes: Wishes, options: dict[str, Any]) -> Any:
    if wishes.parallel is not None:
        options["parallel_tool_calls"] = wishes.parallel
    if wishes.tool_choice is not None:
        kind, name = wishes.tool_choice
        options["tool_choice"] = name or kind
    functions = [{"type": "function", "function": function} for function in wishes.functions]
    return model.bind_tools(functions, **options)


async def pieces(stream: AsyncIterator[Any]) -> AsyncIterator[Delta]:
    """Yield the pieces of a stream of ``AIMessageChunk`` and ``ToolMessage``."""
    calls: dict[tuple[str, Any], tuple[str, str]] = {}
    counted: set[str] = set()
    async for item in stream:
        message = item[0] if isinstance(item, tuple) else item
        if message.type == "tool":
            yield Delta("output", str(message.content), 0, message.tool_call_id)
        elif message.type in ("AIMessageChunk", "ai"):
            for delta in (*_message(message, calls), *_usage(message, counted)):
                yield delta


def _usage(message: Any, counted: set[str]) -> list[Delta]:
    """Return what a chunk says that it has cost: the library adds up what the chunks of a message say."""
    found = getattr(message, "usage_metadata", None)
    if not found:
        return []
    first = (message.id or "") not in counted
    counted.add(message.id or "")
    return usage(
        input_tokens=found["input_tokens"],
        cached_tokens=found.get("input_token_details", {}).get("cache_read"),
        output_tokens=found["output_tokens"],
        reasoning_tokens=found.get("output_token_details", {}).get("reasoning"),
        calls=1 if first else 0,
        model=message.response_metadata.get("model_name"),
    )


def _message(message: Any, calls: dict[tuple[str, Any], tuple[str, str]]) -> list[Delta]:
    found = []
    thought = message.additional_kwargs.get("reasoning_content")
    if thought:
        found.append(Delta("reasoning", thought))
    blocks = message.content if isinstance(message.content, list) else [message.content]
    for block in blocks:
        if isinstance(block, str):
            found += [Delta("text", block)] if block else []
        elif block.get("type") == "text" and block.get("text"):
            found.append(Delta("text", block["text"]))
        elif block.get("type") in ("thinking", "reasoning"):
            found.append(Delta("reasoning", block.get("thinking") or block.get("reasoning") or ""))
    for call in getattr(message, "tool_call_chunks", ()):
        key = (message.id or "", call.get("index"))
        if call.get("id"):
            calls[key] = (call["id"], call.get("name") or "tool")
        if key in calls:
            found.append(Delta("tool", call.get("args") or "", 0, *calls[key]))
    reason = message.response_metadata.get("finish_reason") or message.response_metadata.get("stop_reason")
    return found + ([Delta("finish", reason)] if reason else [])
