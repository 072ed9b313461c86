"""What runs ask people, as AG-UI's interrupts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from crdt_sessions.model import ApprovalRequest, Run, SessionView, ToolPart, ui_tool_input, wants_value
from crdt_sessions.model.runs import output_id
from crdt_sessions_server.gateways.ag_ui.messages import Event
from crdt_sessions_server.gateways.children import waiting_below

_APPROVAL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}


def interrupts_of(view: SessionView, run: Run) -> list[Event]:
    """Return the decisions that a run waits for."""
    return [_interrupt(tool) for tool in tools_of(view, run) if tool.state == "approval-requested"]


def interrupts_below(view: SessionView, run: Run) -> list[Event]:
    """Return the decisions that child runs wait for, if nothing below *run* goes on without them."""
    return [
        {**interrupt, "subagentRunId": child.id}
        for child in waiting_below(view, run)
        for interrupt in interrupts_of(view, child)
    ]


def _response_schema(request: ApprovalRequest | None) -> dict[str, Any]:
    """Return the JSON Schema of the answer to an interrupt."""
    if request is None or request.kind in (None, "approve"):
        return _APPROVAL_SCHEMA
    if wants_value(request):
        return request.form or {}
    properties = {**_APPROVAL_SCHEMA["properties"], "editedArgs": request.form or {"type": "object"}}
    return {**_APPROVAL_SCHEMA, "properties": properties}


def tools_of(view: SessionView, run: Run) -> list[ToolPart]:
    """Return the tool calls of the message that a run writes."""
    message = view.messages.value(output_id(run))
    return [part for part in message.parts if isinstance(part, ToolPart)] if message is not None else []


def _interrupt(tool: ToolPart) -> Event:
    request = tool.approval_request
    deadline = request.deadline if request is not None else None
    interrupt: Event = {
        "id": tool.tool_call_id,
        "reason": "input_required" if wants_value(request) else "approval_required",
        "message": (request.message if request is not None else None) or f"May {tool.tool_name} be called?",
        "toolCallId": tool.tool_call_id,
        "responseSchema": _response_schema(request),
        "metadata": {"kind": "approval", "toolName": tool.tool_name, "input": ui_tool_input(tool)},  # TanStack's
    }  # fmt: skip
    if deadline is not None:
        interrupt["expiresAt"] = datetime.fromtimestamp(deadline / 1000, UTC).isoformat()
    return interrupt
