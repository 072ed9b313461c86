"""What clients of the AI SDK send: questions, decisions and outputs of their tools, as proposals to the session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.model import (
    CallResult,
    MessageView,
    Run,
    RunInput,
    SessionView,
    TextPart,
    ToolPart,
    ValuePart,
    shaped,
    wants_value,
)
from crdt_sessions.model.parts import Part
from crdt_sessions.model.strings import AgentName, MessageId, is_call
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.gateways.conversation import Question, Verdict, ask, continuation, decide
from crdt_sessions_server.gateways.front_end import bring
from crdt_sessions_server.gateways.inputs import input_of, tool_of
from crdt_sessions_server.gateways.run_lookup import takes_outputs, writer_of
from crdt_sessions_server.gateways.transcript import NOT_ANSWERED, IncomingMessage
from crdt_sessions_server.gateways.who_asks import check_agent
from crdt_sessions_server.rest.sessions import creates

_FRAME = frozenset({"type", "requestId", "headers", "body", "credentials"})
"""Keys of a frame of ``WebSocketChatTransport`` that are not the request's own."""


class Incoming(BaseModel):
    """A body as the AI SDK spells it; it may hold more than we know of."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")


class UiMessage(Incoming):
    """A ``UIMessage``."""

    id: MessageId
    role: Literal["system", "user", "assistant"]
    parts: Annotated[list[dict[str, Any]], Field(fail_fast=True)] = Field(default_factory=list)
    metadata: Any = None


class ChatRequest(Incoming):
    """The body that ``DefaultChatTransport`` posts."""

    id: str = Field(description="The chat, which is the session.")
    messages: Annotated[list[UiMessage], Field(fail_fast=True)] = Field(default_factory=list)
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: MessageId | None = None
    agent: AgentName | None = Field(None, description="The agent that answers; the session's own if absent.")

    @property
    def tools(self) -> set[str] | None:
        """The names of the tools that the page says it can call; None if it says nothing of them."""
        told = _tools((self.model_extra or {}).get("tools"))
        return {str(tool["name"]) for tool in told if tool["where"] == "client"} if told else None

    @property
    def input(self) -> RunInput | None:
        """What the ``body`` of ``sendMessage`` or of the transport gives the agent.

        Raises:
            BadValue, TooLarge: it is no input, or exceeds its bounds.
        """
        extra = {key: value for key, value in (self.model_extra or {}).items() if key not in _FRAME}
        asked = next((message for message in reversed(self.messages) if message.role == "user"), None)
        tools, context = _tools(extra.get("tools")), extra.get("context")
        if tools:
            del extra["tools"]
        if isinstance(context, list) and all(isinstance(each, dict) and "value" in each for each in context):
            del extra["context"]
        else:
            context = []  # it is something of the application's own
        return input_of(extra, tools=tools, context=context, metadata=asked.metadata if asked is not None else None)


async def receive(
    registry: SessionRegistry, name: SessionId, data: ChatRequest, principal: Principal
) -> tuple[Run, Sequence[dict[str, Any]]]:
    """Record a request; return the run to follow, and the parts of its message that the client has."""
    now, given = registry.clock.now(), data.input
    await check_agent(registry, principal, data.agent)
    async with registry.open(name, create=creates(registry, principal), by=principal.id) as session:
        view = session.view
        last = data.messages[-1] if data.messages else None
        history = _history(view, data)
        if last is not None and last.role == "assistant" and data.trigger == "submit-message":
            if last.id in view.messages:
                return await _continued(session, last, given, principal, now), last.parts
            if calls := [str(part.get("toolCallId")) for part in last.parts if _has_output(part)]:
                question = Question(
                    history, data.agent, "continue", last.id, run=continuation(last.id, calls), input=given
                )
                return await ask(session, question, principal, now), last.parts
        question = Question(history, data.agent, branches=True, input=given)
        if data.trigger == "regenerate-message":
            question = replace(question, trigger="regenerate", asked=_asked(view, data, history))
        return await ask(session, question, principal, now), ()


async def _continued(
    session: Session, message: UiMessage, given: RunInput | None, principal: Principal, now: Millis
) -> Run:
    """Record additions to an answer: decisions about tool calls, or outputs of the client's own tools."""
    view = session.view
    known = view.messages[message.id]
    value = known.to_value()
    run_id = known.run_id
    if value is None or run_id is None:  # no run wrote it, but one may have been asked to continue it
        calls = [str(part.get("toolCallId")) for part in message.parts if _has_output(part)]
        return view.runs.find(continuation(message.id, calls))
    verdicts, outputs, results = _said(message, known)
    await decide(session, principal, now, message.id, verdicts)
    if results:
        await bring(session, principal, message.id, results, now)
    writer = writer_of(view, message.id) or view.runs.find(run_id)
    if not outputs or not takes_outputs(writer):
        return writer

    def write(view: SessionView) -> None:
        for call, part in outputs.items():
            tool = view.messages[message.id].tool(call)
            if tool is None or tool.state != "input-available":
                continue  # another window was first
            if part["state"] == "output-available":
                tool.output(part.get("output"))
            else:
                tool.fail(string(part.get("errorText")) or "the tool failed")

    await session.edit(write)
    question = Question((), writer.agent, "continue", message.id, run=continuation(message.id, outputs), input=given)
    return await ask(session, question, principal, now)


def _said(
    message: UiMessage, known: MessageView
) -> tuple[dict[str, Verdict], dict[str, dict[str, Any]], dict[str, CallResult]]:
    """Return decisions about tool calls, what came out of the client's own tools, and of those it was given.

    A question that wants a value is a tool of the client, whose output is the answer.
    """
    verdicts: dict[str, Verdict] = {}
    outputs: dict[str, dict[str, Any]] = {}
    results: dict[str, CallResult] = {}
    for part in message.parts:
        call, approval = part.get("toolCallId"), part.get("approval")
        if isinstance(call, str) and isinstance(approval, dict) and isinstance(approval.get("approved"), bool):
            verdicts[call] = Verdict(approval["approved"], string(approval.get("reason")))
        tool = known.tool(call) if isinstance(call, str) else None
        if tool is None or not _has_output(part):
            continue
        if wants_value(tool.approval_request) and tool.approval is None:
            answered = part["state"] == "output-available"
            value = part.get("output") if answered else None
            verdicts[tool.call_id] = Verdict(answered, string(part.get("errorText")), value)
        elif tool.client_call is not None:
            results[tool.call_id] = _result(part)
        elif tool.state == "input-available":
            outputs[tool.call_id] = part
    return verdicts, outputs, results


def _result(part: dict[str, Any]) -> CallResult:
    if part["state"] == "output-available":
        return CallResult(output=part.get("output"), at=0)
    return CallResult(status="failed", error_text=string(part.get("errorText")) or "the tool failed", at=0)


def _has_output(part: dict[str, Any]) -> bool:
    return str(part.get("state")).startswith("output-") and isinstance(part.get("toolCallId"), str)


def _tools(tools: Any) -> list[dict[str, Any]]:
    """Return the tools of a body, a list or an object by their names; none if they are something else."""
    if isinstance(tools, dict):
        tools = [{"name": name, **tool} if isinstance(tool, dict) else tool for name, tool in tools.items()]
    if not isinstance(tools, list) or not all(isinstance(each, dict) and "name" in each for each in tools):
        return []
    return [tool_of(each) for each in tools]


def _asked(view: SessionView, data: ChatRequest, history: Sequence[IncomingMessage]) -> str | None:
    """Return the user's message that needs another answer."""
    known = view.messages.value(data.message_id) if data.message_id is not None else None
    if known is not None and known.role == "assistant":
        return known.reply_to or known.parent
    named = [incoming.id for incoming in history if data.message_id in (incoming.id, incoming.replaces)]
    users = [incoming.id for incoming in history if incoming.role == "user"]
    found = named or users
    return found[-1] if found else None


def _history(view: SessionView, data: ChatRequest) -> list[IncomingMessage]:
    """Return a client's messages under the ids that the session gives them.

    A client keeps the id of a message when it edits the text. So a message whose text differs from the session's is
    another version of it, also later, if the answer to the edit was lost. Such versions stand after the last known
    answer, so we look no further back; but if a new message stands before that answer, we look back to it.
    """
    history = [IncomingMessage(each.id, each.role, parts_of(each), each.metadata) for each in data.messages]
    new = next((at for at, incoming in enumerate(history) if incoming.id not in view.messages), len(history))
    for at in reversed(range(len(history))):
        incoming = history[at]
        if incoming.role == "assistant" and at < new:
            break
        if incoming.role == "user":
            history[at] = _version(view, incoming, again=incoming.id == data.message_id)
    return history


def _version(view: SessionView, incoming: IncomingMessage, *, again: bool) -> IncomingMessage:
    """Return a user's message as another version of the session's message, if it is one.

    *Again* says that the client edited it just now; its text may be the first version's again.
    """
    known = view.messages.value(incoming.id)
    if known is None:
        return incoming
    (spelled,) = shaped([known], "ai-sdk") or [{"parts": []}]
    told = [part for each in spelled["parts"] if (part := _part(each)) is not None]
    differs = [part.to_json() for part in told] != [part.to_json() for part in incoming.parts]
    replaced = again and any(head.replaces == incoming.id for head in view.messages.heads())
    return incoming.edited if differs or replaced else incoming


def parts_of(message: UiMessage) -> list[Part]:
    """Return the parts of a message that layout 1 can hold."""
    return [part for each in message.parts if (part := _part(each)) is not None]


def _part(part: dict[str, Any]) -> Part | None:
    kind = str(part.get("type", ""))
    if kind in ("text", "reasoning") and isinstance(part.get("text"), str):
        return TextPart(type="text" if kind == "text" else "reasoning", text=part["text"])
    if kind == "file":
        value = {key: part[key] for key in ("url", "mediaType", "filename") if isinstance(part.get(key), str)}
        return ValuePart(type="file", value=value)
    if kind == "dynamic-tool" or kind.startswith("tool-"):
        return _tool_part(part, kind)
    if kind == "source-url" and isinstance(part.get("url"), str):
        source = {"id": part.get("sourceId"), "url": part["url"], "title": part.get("title")}
        return ValuePart(type="source", value={key: each for key, each in source.items() if isinstance(each, str)})
    if kind.startswith("data-"):
        value = {"name": kind.removeprefix("data-"), "data": part.get("data")}
        return ValuePart(type="data", value=value | ({"id": part["id"]} if isinstance(part.get("id"), str) else {}))
    return None


def _tool_part(part: dict[str, Any], kind: str) -> ToolPart | None:
    """Return a tool call of a history: it gets no result here any more, and was not approved here."""
    call, name = part.get("toolCallId"), part.get("toolName", kind.removeprefix("tool-"))
    if not isinstance(call, str) or not is_call(call) or not isinstance(name, str):
        return None
    end: dict[str, Any] = {"state": "output-error", "error_text": string(part.get("errorText")) or NOT_ANSWERED}
    if part.get("state") == "output-available":
        end = {"state": "output-available", "output": part.get("output")}
    elif part.get("state") == "output-denied":
        end = {"state": "output-denied"}
    return ToolPart(type="tool", tool_call_id=call, tool_name=name, input=part.get("input"), **end)


def string(value: Any) -> str | None:
    """Return *value* if it is text."""
    return value if isinstance(value, str) else None
