"""Streams of the ``anthropic`` library."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Any

from crdt_sessions.bridges.deltas import Delta, usage, write
from crdt_sessions.bridges.wishes import Wishes, object_schema
from crdt_sessions.client import MessageStream
from crdt_sessions.model import RunInput


async def write_message(out: MessageStream, stream: AsyncIterator[Any]) -> None:
    """Write a streamed message: ``client.messages.create(..., stream=True)``.

    Raises as :func:`crdt_sessions.bridges.write`.
    """
    await write(out, message(stream))


def parameters(input: RunInput, *, models: Collection[str] | None = None, max_tokens: int = 4096) -> dict[str, Any]:
    """Return what a run's *input* asks for as keyword arguments of ``client.messages.create``.

    Args:
        input: the run's.
        models: the models that may be wished for. Give them, unless whoever asks may have any.
        max_tokens: how long the answer may be; if less is asked for, it is that.

    ::

        wished = bridges.anthropic.parameters(run.input, models={"claude-sonnet-4-5"})
        arguments = {"model": "claude-sonnet-4-5"} | wished
        stream = await client.messages.create(messages=run.history("anthropic"), stream=True, **arguments)
    """
    wishes = Wishes(input, models)
    wished = wishes.numbers({"maxOutputTokens": "max_tokens"}).get("max_tokens", max_tokens)
    found: dict[str, Any] = {"max_tokens": max(1, min(int(wished), max_tokens))}
    if wishes.model is not None:
        found["model"] = wishes.model
    if wishes.stop is not None:
        found["stop_sequences"] = wishes.stop
    if wishes.tools:
        found["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": object_schema(tool)}
            for tool in wishes.tools
        ]
        if (choice := _choice(wishes)) is not None:
            found["tool_choice"] = choice
    body: dict[str, Any] = dict(wishes.numbers({"temperature": "temperature", "topP": "top_p", "topK": "top_k"}))
    if wishes.json_schema:
        body["output_config"] = {"format": {"type": "json_schema", "schema": wishes.json_schema}}
    return found | ({"extra_body": body} if body else {})  # not each release of the library has words for these


def _choice(wishes: Wishes) -> dict[str, Any] | None:
    kind, name = wishes.tool_choice or ("auto", None)
    choice: dict[str, Any] = {"type": "any" if kind == "required" else kind}
    if name is not None:
        choice["name"] = name
    if wishes.parallel is False and kind != "none":
        choice["disable_parallel_tool_use"] = True
    return choice if choice != {"type": "auto"} else None


async def message(stream: AsyncIterator[Any]) -> AsyncIterator[Delta]:
    """Yield the pieces of a streamed message (``RawMessageStreamEvent``)."""
    calls: dict[int, tuple[str, str]] = {}
    written = 0
    async for event in stream:
        if event.type == "message_start":
            found, written = _read(event.message), 0
        elif event.type == "message_delta":
            found, written = _end(event, written)
        else:
            found = _block(event, calls)
        for delta in found:
            yield delta


def _block(event: Any, calls: dict[int, tuple[str, str]]) -> list[Delta]:
    if event.type == "content_block_start":
        block = event.content_block
        if "tool_use" in block.type:
            calls[event.index] = (block.id, block.name)
            return [Delta("tool", "", 0, *calls[event.index])]
    elif event.type == "content_block_delta":
        delta = event.delta
        if delta.type == "text_delta":
            return [Delta("text", delta.text)]
        if delta.type == "thinking_delta":
            return [Delta("reasoning", delta.thinking)]
        if delta.type == "input_json_delta" and event.index in calls:
            return [Delta("tool", delta.partial_json, 0, *calls[event.index])]
    return []


def _read(message: Any) -> list[Delta]:
    """Return what a message costs that only begins: it was read. What a cache has of it the provider counts apart."""
    found = message.usage
    cached = getattr(found, "cache_read_input_tokens", None) or 0
    fresh = (getattr(found, "cache_creation_input_tokens", None) or 0) + (found.input_tokens or 0)
    return usage(input_tokens=fresh + cached, cached_tokens=cached, calls=1, model=message.model)


def _end(event: Any, written: int) -> tuple[list[Delta], int]:
    """Return what has been written since *written* tokens, and the end if it is there; and the tokens so far."""
    found: list[Delta] = []
    tokens = getattr(getattr(event, "usage", None), "output_tokens", None)
    if tokens is not None and tokens > written:
        found += usage(output_tokens=tokens - written)
        written = tokens
    if event.delta.stop_reason:
        found.append(Delta("finish", event.delta.stop_reason))
    return found, written
