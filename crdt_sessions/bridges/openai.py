"""Streams of the ``openai`` library, from OpenAI's APIs and whatever is compatible with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from crdt_sessions.bridges.deltas import Delta, ModelError, usage, write
from crdt_sessions.bridges.wishes import Wishes
from crdt_sessions.client import MessageStream
from crdt_sessions.model import RunInput

_SAMPLING = {"temperature": "temperature", "topP": "top_p"}
_CHAT_SAMPLING = {
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
}
_TOOL_DELTAS = (
    "response.function_call_arguments.delta",
    "response.code_interpreter_call_code.delta",
    "response.apply_patch_call_operation_diff.delta",
)


async def write_chat(out: MessageStream, stream: AsyncIterator[Any]) -> None:
    """Write a *stream* of a chat completion to *out*. Raises as :func:`crdt_sessions.bridges.write`."""
    await write(out, chat(stream))


async def write_response(out: MessageStream, stream: AsyncIterator[Any]) -> None:
    """Write a *stream* of a response (the Responses API) to *out*. Raises as :func:`crdt_sessions.bridges.write`."""
    await write(out, response(stream))


def parameters(input: RunInput, *, models: Collection[str] | None = None) -> dict[str, Any]:
    """Return what a run's *input* asks for as keyword arguments of ``client.chat.completions.create``.

    Args:
        input: the run's.
        models: the models that may be wished for. Give them, unless whoever asks may have any.

    ::

        wished = bridges.openai.parameters(run.input, models={"gpt-4.1", "gpt-4.1-mini"})
        arguments = {"model": "gpt-4.1"} | wished
        stream = await client.chat.completions.create(messages=run.history(), stream=True, **arguments)
    """
    wishes = Wishes(input, models)
    found: dict[str, Any] = dict(wishes.numbers(_SAMPLING | {"maxOutputTokens": "max_completion_tokens"}))
    found |= wishes.numbers(_CHAT_SAMPLING)
    found |= _tools(wishes, lambda function: {"type": "function", "function": function})
    return found | _given(
        response_format=wishes.response_format,
        model=wishes.model,
        stop=wishes.stop,
        reasoning_effort=wishes.effort,
    )


def response_parameters(input: RunInput, *, models: Collection[str] | None = None) -> dict[str, Any]:
    """Return what a run's *input* asks for as keyword arguments of ``client.responses.create``.

    *models* as in :func:`parameters`.
    """
    wishes = Wishes(input, models)
    found: dict[str, Any] = dict(wishes.numbers(_SAMPLING | {"maxOutputTokens": "max_output_tokens"}))
    found |= _tools(wishes, lambda function: {"type": "function", "strict": False, **function})
    if (schema := wishes.json_schema) is not None:
        described = {"type": "json_schema", "name": wishes.json_name, "schema": schema}
        found["text"] = {"format": described if schema else {"type": "json_object"}}
    if wishes.effort is not None:
        found["reasoning"] = {"effort": wishes.effort}
    return found | _given(model=wishes.model)


def _tools(wishes: Wishes, spell: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return the tools, each as *spell* wants a function, and which of them are to be called."""
    if not wishes.tools:
        return {}
    choice, name = wishes.tool_choice or (None, None)
    return {"tools": [spell(function) for function in wishes.functions]} | _given(
        tool_choice=_chosen(spell, name) if name is not None else choice, parallel_tool_calls=wishes.parallel
    )


def _chosen(spell: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the choice of one tool in the form that *spell* gives a function."""
    chosen = spell({"name": name})
    chosen.pop("strict", None)
    return chosen


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def chat(stream: AsyncIterator[Any]) -> AsyncIterator[Delta]:
    """Yield the pieces of a streamed chat completion (``ChatCompletionChunk``)."""
    calls: dict[tuple[int, int], str] = {}
    spent: list[Delta] = []
    async for chunk in stream:
        error = getattr(chunk, "error", None)
        if error:
            raise ModelError(str(error.get("code") or "model-error"), error.get("message", "error"))
        if getattr(chunk, "usage", None) is not None:  # of all so far: some servers say it in each chunk
            spent = _chat_usage(chunk)
        for choice in chunk.choices:
            for delta in _chat_deltas(choice, calls) if choice.delta is not None else ():
                yield delta
            if choice.finish_reason:
                yield Delta("finish", choice.finish_reason)
    for delta in spent:
        yield delta


def _chat_usage(chunk: Any) -> list[Delta]:
    found = chunk.usage
    read, written = (getattr(found, f"{side}_tokens_details", None) for side in ("prompt", "completion"))
    return usage(
        input_tokens=found.prompt_tokens,
        cached_tokens=getattr(read, "cached_tokens", None),
        output_tokens=found.completion_tokens,
        reasoning_tokens=getattr(written, "reasoning_tokens", None),
        calls=1,
        model=chunk.model,
    )


def _chat_deltas(choice: Any, calls: dict[tuple[int, int], str]) -> list[Delta]:
    delta = choice.delta
    found = []
    thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
    if thought:
        found.append(Delta("reasoning", thought, choice.index))
    found += _content(delta.content, choice.index)
    for call in delta.tool_calls or ():
        key = (choice.index, call.index)
        if call.id:
            calls[key] = call.id
        function = call.function
        text, name = (function.arguments or "", function.name or "") if function else ("", "")
        found.append(Delta("tool", text, choice.index, calls.setdefault(key, f"call-{key[1]}"), name))
    return found


def _content(content: Any, choice: int) -> list[Delta]:
    """Return text and thoughts of a delta's content, which some servers send as a list of typed pieces."""
    if not isinstance(content, list):
        return [Delta("text", content, choice)] if content else []
    found = []
    for piece in content:
        if piece.get("type") == "thinking":
            found += [Delta("reasoning", inner["text"], choice) for inner in piece["thinking"] if inner.get("text")]
        elif piece.get("text"):
            found.append(Delta("text", piece["text"], choice))
    return found


async def response(stream: AsyncIterator[Any]) -> AsyncIterator[Delta]:
    """Yield the pieces of a streamed response (``ResponseStreamEvent``)."""
    calls: dict[Any, tuple[str, str]] = {}
    async for event in stream:
        kind = event.type
        if kind == "response.output_item.added":
            item = event.item
            calls[event.output_index] = (getattr(item, "call_id", None) or item.id, getattr(item, "name", item.type))
        elif kind == "response.output_text.delta":
            yield Delta("text", event.delta)
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            yield Delta("reasoning", event.delta)
        elif kind in _TOOL_DELTAS:
            call_id, name = calls.get(event.output_index, (f"call-{event.output_index}", "tool"))
            yield Delta("tool", event.delta, 0, call_id, name)
        elif kind in ("response.completed", "response.incomplete"):
            for delta in _response_usage(event.response):
                yield delta
            yield Delta("finish", kind.removeprefix("response."))
        elif kind == "response.failed":
            for delta in _response_usage(event.response):
                yield delta
            error = event.response.error
            raise ModelError(str(getattr(error, "code", None) or "model-error"), error.message if error else "failed")


def _response_usage(response: Any) -> list[Delta]:
    found = getattr(response, "usage", None)
    if found is None:
        return []
    return usage(
        input_tokens=found.input_tokens,
        cached_tokens=getattr(getattr(found, "input_tokens_details", None), "cached_tokens", None),
        output_tokens=found.output_tokens,
        reasoning_tokens=getattr(getattr(found, "output_tokens_details", None), "reasoning_tokens", None),
        calls=1,
        model=response.model,
    )
