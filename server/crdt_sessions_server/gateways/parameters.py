"""What a completion was asked with, as OpenAI's API names it: the parameters of the request, from a run's input.

Source: OpenAI API reference, "Get chat completion" and "Create chat completion".
"""

from __future__ import annotations

from typing import Any

from crdt_sessions.model import Run, RunInput, ToolSpec
from crdt_sessions_server.gateways.inputs import SETTINGS, extra_of

_NAMES = {ours: name for name, ours in SETTINGS.items() if name.islower()}
"""Our names of settings, to OpenAI's."""


def parameters_of(given: RunInput) -> dict[str, Any]:
    """Return the parameters that give an agent this input; the model stands with its agent."""
    found = {
        _NAMES.get(name, name): _spelled(name, value) for name, value in extra_of(given).items() if name != "model"
    }
    others = found.pop("tools", None)
    tools = [*map(_tool, given.tools), *(others if isinstance(others, list) else ())]
    return found | ({"tools": tools} if tools else {})


def model_of(run: Run) -> str:
    """Return what a client names as the model to ask the same agent, and to hand on the same model to it."""
    agent = run.request.agent if run.request is not None else ""
    return f"{agent}/{run.input.model}" if run.input.model is not None else agent


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = tool.to_json()
    function["parameters"] = function.pop("inputSchema")
    if tool.where == "client":
        del function["where"]
    return {"type": "function", "function": function}


def _spelled(name: str, value: Any) -> Any:
    """Return the value of a setting in OpenAI's form."""
    if not isinstance(value, dict):
        return value
    if name == "toolChoice" and isinstance(value.get("name"), str):
        return {"type": "function", "function": value}
    if name == "responseFormat" and value.get("type") == "json":
        described = {key: each for key, each in value.items() if key != "type"}
        return {"type": "json_schema", "json_schema": described} if described else {"type": "json_object"}
    return value
