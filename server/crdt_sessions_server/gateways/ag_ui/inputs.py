"""What an agent is given besides the conversation, as AG-UI and TanStack AI spell it: read, and told again."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import Field, create_model

from crdt_sessions.model import RunInput, ToolSpec
from crdt_sessions_server.gateways.inputs import extra_of, input_of, tool_of

if TYPE_CHECKING:
    from ag_ui.core import RunAgentInput

_OWN = ("agent", "trigger")
"""Forwarded properties that are meant for the gateway."""


@cache
def agent_request() -> type[RunAgentInput]:
    """Return the model of what AG-UI clients send.

    Its library builds all models of the protocol when it is imported, so a service does that with the first request.
    Of a list that does not fit only the first place is told: all of them may take gigabytes.
    """
    from ag_ui.core import RunAgentInput

    lists: dict[str, Any] = {
        name: (_stopping(field.annotation), field)
        for name, field in RunAgentInput.model_fields.items()
        if _stopping(field.annotation) is not field.annotation
    }
    return create_model(RunAgentInput.__name__, __base__=RunAgentInput, __doc__=RunAgentInput.__doc__, **lists)


def _stopping(annotation: Any) -> Any:
    """Return the type of a field; if it is a list, perhaps an optional one, that of one read to its first fault."""
    if get_origin(annotation) is list:
        return Annotated[annotation, Field(fail_fast=True)]
    if get_origin(annotation) is Union and any(get_origin(each) is list for each in get_args(annotation)):
        return Union[tuple(map(_stopping, get_args(annotation)))]  # noqa: UP007
    return annotation


def input_in(data: RunAgentInput) -> RunInput | None:
    """Return what a request gives the agent; its tools run in the client.

    Raises:
        BadValue, TooLarge: it is no input, or exceeds its bounds.
    """
    forwarded = data.forwarded_props
    if not isinstance(forwarded, dict):
        forwarded = {"forwardedProps": forwarded} if forwarded else {}
    return input_of(
        {key: value for key, value in forwarded.items() if key not in _OWN or not isinstance(value, str)},
        tools=[tool_of(tool.model_dump(by_alias=True)) for tool in data.tools or ()],
        context=[{"description": item.description, "value": item.value} for item in data.context or ()],
    )


def agent_input(thread: str, run_id: str, given: RunInput) -> dict[str, Any]:
    """Return the ``RunAgentInput`` that gives an agent this input; the session has the messages and the state."""
    return {
        "threadId": thread,
        "runId": run_id,
        "state": {},
        "messages": [],
        "tools": [_tool(tool) for tool in given.tools],
        "context": [{"description": item.description, "value": item.value} for item in given.context],
        "forwardedProps": extra_of(given),
    }


def _tool(tool: ToolSpec) -> dict[str, Any]:
    found = tool.to_json()
    found["parameters"] = found.pop("inputSchema")
    if tool.where == "client":  # as a tool of AG-UI does that says nothing of it
        del found["where"]
    return found


def names_of(data: RunAgentInput) -> set[str]:
    """Return the names of the tools that the client can call."""
    return {tool.name for tool in data.tools or ()}
