"""Streams of the ``pydantic-ai`` library."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from crdt_sessions.bridges.deltas import Delta, write
from crdt_sessions.client import MessageStream


async def write_events(out: MessageStream, events: AsyncIterator[Any]) -> None:
    """Write what an agent does, tool calls and their results included: ``agent.run_stream_events(...)``.

    Raises as :func:`crdt_sessions.bridges.write`, and whatever *events* raises.
    """
    await write(out, pieces(events))


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
            yield Delta("finish", "stop")


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
