"""What chat clients send besides the conversation, as a run's input: tools, context, model, settings, metadata.

Each protocol has its own place and spelling for them. :func:`input_of` takes the ones that are known out of the
client's extra properties, in the form that docs/protocol.md names under *Input*; all others are handed on under
``forwarded``, as they came. :func:`extra_of` is the way back: what a client sends again to ask for the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from crdt_sessions.model import Run, RunInput, SessionView

SETTINGS = {
    "temperature": "temperature",
    "topP": "topP", "top_p": "topP",
    "topK": "topK", "top_k": "topK",
    "maxOutputTokens": "maxOutputTokens", "maxTokens": "maxOutputTokens", "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "seed": "seed",
    "presencePenalty": "presencePenalty", "presence_penalty": "presencePenalty",
    "frequencyPenalty": "frequencyPenalty", "frequency_penalty": "frequencyPenalty",
    "stop": "stop", "stopSequences": "stop",
    "toolChoice": "toolChoice", "tool_choice": "toolChoice",
    "parallelToolCalls": "parallelToolCalls", "parallel_tool_calls": "parallelToolCalls",
    "responseFormat": "responseFormat", "response_format": "responseFormat",
    "reasoningEffort": "reasoningEffort", "reasoning_effort": "reasoningEffort",
}  # fmt: skip
"""Names of settings in the protocols, to ours."""


def input_of(
    extra: Mapping[str, Any],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    context: Sequence[Mapping[str, Any]] = (),
    metadata: Any = None,
) -> RunInput | None:
    """Return what a request gives the agent besides the conversation; None if that is nothing.

    Args:
        extra: the client's own properties: ``model``, ``settings``, ``metadata``, the names of single settings, and
            whatever else is to be forwarded. Those that are null are left out.
        tools: as :func:`tool_of` returns them.
        context: with ``description`` and ``value``.
        metadata: of the question itself; that of the request (*extra*) comes on top of it.

    Raises:
        BadValue, TooLarge: it is no input, or exceeds its bounds.
    """
    found: dict[str, Any] = {"tools": list(tools), "context": list(context)}
    settings: dict[str, Any] = {}
    forwarded: dict[str, Any] = {}
    about = dict(metadata) if isinstance(metadata, Mapping) else {}
    for key, value in extra.items():
        if value is None:
            continue
        if key == "model" and isinstance(value, str):
            found["model"] = value
        elif key == "metadata" and isinstance(value, Mapping):
            about |= value
        elif key == "settings" and isinstance(value, Mapping):
            settings |= {SETTINGS.get(name) or name: _setting(name, each) for name, each in value.items()}
        elif key in SETTINGS:
            settings[SETTINGS[key]] = _setting(key, value)
        else:
            forwarded[key] = value
    given = RunInput.of(found | {"settings": settings, "metadata": about, "forwarded": forwarded})
    return None if given.empty else given


def extra_of(given: RunInput) -> dict[str, Any]:
    """Return what :func:`input_of` makes *given* of, but for its tools and context.

    Where a client gave something of another form under a name that is known, that is what it reads back.
    """
    known = {name: value for name, value in given.settings.items() if name in SETTINGS and value is not None}
    others = {name: value for name, value in given.settings.items() if name not in known}
    model = {"model": given.model} if given.model is not None else {}
    whole = {name: value for name, value in (("settings", others), ("metadata", given.metadata)) if value}
    return model | known | whole | given.forwarded


def last_input(view: SessionView) -> tuple[Run, RunInput] | None:
    """Return the run that was asked for last, and what it was asked with; None if that was with nothing."""
    asked = [run for run in view.runs.all() if run.parent is None and run.due is None]
    return (asked[-1], asked[-1].input) if asked and not asked[-1].input.empty else None


def tool_of(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as its client describes it, as one of a run's input: it runs in the client, unless it says so.

    The JSON Schema of its input is called ``parameters`` by OpenAI and AG-UI, and ``inputSchema`` by the AI SDK.
    """
    schema: Mapping[str, Any] = next(
        (tool[key] for key in ("inputSchema", "parameters") if isinstance(tool.get(key), Mapping)), {}
    )
    if isinstance(schema.get("jsonSchema"), Mapping):
        schema = schema["jsonSchema"]  # as the AI SDK's jsonSchema() serializes
    found = {"name": tool.get("name"), "description": tool.get("description") or "", "inputSchema": dict(schema)}
    found["where"] = tool.get("where") or "client"
    return found | {key: tool[key] for key in ("strict", "metadata") if tool.get(key) is not None}


def _setting(name: str, value: Any) -> Any:
    """Return the value of a setting in the form of the protocol's table."""
    match SETTINGS.get(name):
        case "stop" if isinstance(value, str):
            return [value]
        case "toolChoice" if isinstance(value, Mapping):
            return _tool_choice(value)
        case "responseFormat" if isinstance(value, Mapping):
            return _response_format(value)
    return value


def _tool_choice(value: Mapping[str, Any]) -> Any:
    """OpenAI names a tool as ``{"type": "function", "function": {"name": …}}``, the AI SDK as ``toolName``."""
    function = value.get("function")
    named = function if isinstance(function, Mapping) else value
    name = named.get("name") or named.get("toolName")
    if isinstance(name, str):
        return {"name": name}
    return value["type"] if value.get("type") in ("auto", "none", "required") else value


def _response_format(value: Mapping[str, Any]) -> Any:
    """OpenAI has ``json_object``, and the schema in ``json_schema``."""
    if value.get("type") == "json_object":
        return {"type": "json"}
    described = value.get("json_schema")
    if value.get("type") == "json_schema" and isinstance(described, Mapping):
        return {**described, "type": "json"}
    return value
