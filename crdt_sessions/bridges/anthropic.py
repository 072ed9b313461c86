"""Streams of the ``anthropic`` library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from crdt_sessions.bridges.deltas import Delta, write
from crdt_sessions.client import MessageStream


async def write_message(out: MessageStream, stream: AsyncIterator[Any]) -> None:
    """Write a streamed message: ``client.messages.create(..., stream=True)``.

    Raises as :func:`crdt_sessions.bridges.write`.
    """
    await write(out, message(stream))


async def message(stream: AsyncIterator[Any]) -> AsyncIterator[Delta]:
    """Yield the pieces of a streamed message (``RawMessageStreamEvent``)."""
    calls: dict[int, tuple[str, str]] = {}
    async for event in stream:
        if event.type == "content_block_start":
            block = event.content_block
            if "tool_use" in block.type:
                calls[event.index] = (block.id, block.name)
                yield Delta("tool", "", 0, *calls[event.index])
        elif event.type == "content_block_delta":
            delta = event.delta
            if delta.type == "text_delta":
                yield Delta("text", delta.text)
            elif delta.type == "thinking_delta":
                yield Delta("reasoning", delta.thinking)
            elif delta.type == "input_json_delta" and event.index in calls:
                yield Delta("tool", delta.partial_json, 0, *calls[event.index])
        elif event.type == "message_delta" and event.delta.stop_reason:
            yield Delta("finish", event.delta.stop_reason)
