"""Streams of the ``pydantic-ai`` library."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from typing import Any

from crdt_sessions.bridges.deltas import Delta, usage, write
from crdt_sessions.bridges.wishes import Wishes, object_schema
from crdt_sessions.client import MessageStream
from crdt_sessions.model import RunInput

_SETTINGS = {
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "maxOutputTokens": "max_tokens",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}


async def write_events(out: MessageStream, events: AsyncIterator[Any]) -> None:
    """Write what an agent does, tool calls and their results included: ``agent.run_stream_events(...)``.

    Raises as :func:`crdt_sessions.bridges.write`, and whatever *events* raises.
    """
    await write(out, pieces(events))


def parameters(input: RunInput, *, models: Collection[str] | None = None) -> dict[str, Any]:
    """Return what a run's *input* asks for as keyword arguments of ``agent.run_stream_events``.

    Its tools are external ones: the model may call them, and the agent leaves it to others to run them, so a call of
    one ends the agent's run (``DeferredToolRequests``). An agent's own tools it runs as ever. Where tools must be
    called, others cannot; the library does not force the model any further.

    Args:
        input: the run's.
        models: the models that may be wished for, as the library names them. Give them, unless whoever asks may have
            any.

    ::

        arguments = bridges.pydantic_ai.parameters(run.input, models={"openai:gpt-4.1"})
        async with assistant.run_stream_events(run.message.text, **arguments) as events:
            await bridges.pydantic_ai.write_events(run.out, events)
    """
    wishes = Wishes(input, models)
    settings: dict[str, Any] = dict(wishes.numbers(_SETTINGS))
    if wishes.stop is not None:
        settings["stop_sequences"] = wishes.stop
    if wishes.parallel is not None and wishes.tools:
        settings["parallel_tool_calls"] = wishes.parallel
    if wishes.tool_choice is not None:
        settings["tool_choice"] = _choice(wishes, *wishes.tool_choice)
    found: dict[str, Any] = {"model_settings": settings} if settings else {}
    if wishes.model is not None:
        found["model"] = wishes.model
    return found | _output(wishes)


def _choice(wishes: Wishes, kind: str, name: str | None) -> Any:
    """Return which tools are to be called: the library forces none, since its agents must be able to end."""
    from pydantic_ai.settings import ToolOrOutput

    if kind in ("auto", "none"):
        return kind
    return ToolOrOutput(function_tools=[tool.name for tool in wishes.tools if name in (None, tool.name)])


def _output(wishes: Wishes) -> dict[str, Any]:
    """Return the tools and the form of the answer, which the library has classes for."""
    if not wishes.tools and not wishes.json_schema:
        return {}
    from pydantic_ai import DeferredToolRequests, ExternalToolset, StructuredDict, ToolDefinition

    schema = wishes.json_schema
    answer: list[Any] = [StructuredDict({"type": "object"} | schema, name=wishes.json_name) if schema else str]
    if not wishes.tools:
        return {"output_type": answer}
    definitions = [
        ToolDefinition(
            name=tool.name, description=tool.description or None, parameters_json_schema=object_schema(tool)
        )
        for tool in wishes.tools
    ]
    return {"toolsets": [ExternalToolset(definitions)], "output_type": [*answer, DeferredToolRequests]}


async def pieces(events: AsyncIterator[Any]) -> AsyncIterator[Delta]:
    """Yield the pieces of an agent's event stream (``AgentStreamEvent | AgentRunResultEvent``)."""
    calls: dict[int, tuple[str, str]] = {}
    async for event in events:
        kind = event.event_kind
        if kind == "part_start":
            for delta in _start(event, calls):
                yield delta
        elif kind == "part_delta":
            for delta in _delta(event, calls):
                yield delta
        elif kind == "function_tool_result":
            part = getattr(event, "part", None) or event.result
            yield Delta("output", _text(part.content), 0, part.tool_call_id)
        elif kind == "agent_run_result":
            for delta in _usage(event.result):
                yield delta
            yield Delta("finish", "stop")


def _usage(result: Any) -> list[Delta]:
    found = result.usage if hasattr(result.usage, "input_tokens") else result.usage()  # a method in older releases
    return usage(
        input_tokens=found.input_tokens,
        cached_tokens=found.cache_read_tokens,
        output_tokens=found.output_tokens,
        reasoning_tokens=found.details.get("reasoning_tokens"),
        calls=found.requests,
        model=getattr(result.response, "model_name", None),
    )


def _start(event: Any, calls: dict[int, tuple[str, str]]) -> list[Delta]:
    part = event.part
    if part.part_kind == "text":
        return [Delta("text", part.content)] if part.content else []
    if part.part_kind == "thinking":
        return [Delta("reasoning", part.content)] if part.content else []
    if part.part_kind == "tool-call":
        calls[event.index] = (part.tool_call_id, part.tool_name)
        return [Delta("tool", _text(part.args) if part.args else "", 0, *calls[event.index])]
    return []


def _delta(event: Any, calls: dict[int, tuple[str, str]]) -> list[Delta]:
    delta = event.delta
    if delta.part_delta_kind == "text":
        return [Delta("text", delta.content_delta)]
    if delta.part_delta_kind == "thinking":
        return [Delta("reasoning", delta.content_delta)] if delta.content_delta else []
    if delta.part_delta_kind == "tool_call" and delta.args_delta and event.index in calls:
        return [Delta("tool", _text(delta.args_delta), 0, *calls[event.index])]
    return []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
