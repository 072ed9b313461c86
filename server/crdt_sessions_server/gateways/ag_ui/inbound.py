"""What clients of AG-UI and TanStack AI send: questions, decisions and results of their tools, as proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crdt_sessions.errors import NotFound
from crdt_sessions.ids import Millis, SessionId
from crdt_sessions.model import (
    CallResult,
    Run,
    RunInput,
    SessionView,
    TextPart,
    ToolPart,
    ToolStream,
    ValuePart,
    wants_value,
)
from crdt_sessions.model.parts import Part
from crdt_sessions.model.run_values import Trigger
from crdt_sessions.model.runs import output_id
from crdt_sessions.model.strings import checked_id, is_call
from crdt_sessions.model.values import Role
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import Principal
from crdt_sessions_server.gateways.ag_ui.inputs import input_in
from crdt_sessions_server.gateways.ag_ui.state import ClientState, ToldStates
from crdt_sessions_server.gateways.conversation import Question, Verdict, ask, decide
from crdt_sessions_server.gateways.front_end import bring
from crdt_sessions_server.gateways.run_lookup import answering, takes_outputs, wants_another, writer_of
from crdt_sessions_server.gateways.transcript import NOT_ANSWERED, IncomingMessage
from crdt_sessions_server.gateways.who_asks import check_agent
from crdt_sessions_server.rest.sessions import creates

if TYPE_CHECKING:
    from ag_ui.core import ResumeEntry, RunAgentInput

_SPOKEN: dict[str, Role] = {"user": "user", "system": "system", "developer": "system"}


async def receive(
    registry: SessionRegistry,
    name: SessionId,
    data: RunAgentInput,
    principal: Principal,
    *,
    again: bool = False,
    state: ClientState | None = None,
) -> Run:
    """Record a request; return the run to follow.

    A request with nothing new asks for nothing: the client follows the run that its messages belong to. There are
    two exceptions, which ask for another answer: a conversation that ends with the session's last question although
    that was answered, and ``trigger: "regenerate"`` in the forwarded properties.

    Args:
        registry: the sessions.
        name: the session.
        data: the request.
        principal: its sender.
        again: whether the client repeats an earlier request.
        state: takes the client's copy of the session's state; None if its protocol has none.

    Raises:
        NotFound: there is nothing to answer, decide or continue.
        AccessDenied, BadValue, TooLarge: its state or its input cannot be taken.
    """
    now = registry.clock.now()
    data = data.model_copy(update={"messages": [each for each in data.messages if not each.subagent_run_id]})
    run_id, given = checked_id(data.run_id, "run id"), input_in(data)
    agent = _forwarded(data, "agent")
    await check_agent(registry, principal, agent)
    async with registry.open(name, create=creates(registry, principal), by=principal.id) as session:
        view = session.view
        if run_id in view.runs:
            return view.runs.find(run_id)
        state = state or ToldStates().client(name, principal)
        state.propose(view, data.messages, data.state)
        session.check_room(state.size)
        run = await _recorded(session, data, principal, now, agent=agent, given=given, state=state, again=again)
        if state.open:  # no question took it along
            await session.edit(state.write, by=principal.by)
        state.sent(view, data.messages)
        return run


async def _recorded(
    session: Session,
    data: RunAgentInput,
    principal: Principal,
    now: Millis,
    *,
    agent: str | None,
    given: RunInput | None,
    state: ClientState,
    again: bool,
) -> Run:
    """Record a new request; return the run to follow."""
    view = session.view
    if data.resume:
        return await _resumed(session, data, principal, now, state)
    ends_with = data.messages[-1].role if data.messages else None
    if ends_with == "tool" and (message_id := _caller(view, data.messages)) is not None:
        return await _answered(session, message_id, data, given, principal, now, state)
    history = _history(view, data.messages)
    if ends_with == "tool" and history and history[-1].id not in view.messages:
        question = Question(history, agent, "continue", history[-1].id, data.run_id, input=given, also=state.write)
        return await ask(session, question, principal, now)
    asked = next((incoming.id for incoming in reversed(history) if incoming.role != "assistant"), None)
    if asked is None:
        raise NotFound(what="message to answer", id=data.run_id)
    trigger: Trigger = "submit"
    if _forwarded(data, "trigger") == "regenerate" and not again:
        trigger = "regenerate"
    elif (known := answering(view, asked)) is not None and known.over:
        if again or ends_with not in _SPOKEN or not wants_another(view, asked):
            return known
        trigger = "regenerate"
    question = Question(history, agent, trigger, asked, data.run_id, input=given, also=state.write)
    return await ask(session, question, principal, now)


async def _answered(
    session: Session,
    message_id: str,
    data: RunAgentInput,
    given: RunInput | None,
    principal: Principal,
    now: Millis,
    state: ClientState,
) -> Run:
    """Record results of the client's own tools; return the run that continues with them, or did."""
    if leased := _leased(session.view, message_id, data.messages):
        await bring(session, principal, message_id, leased, now)
    results, writer = _results(data.messages), writer_of(session.view, message_id)
    if writer is not None and not takes_outputs(writer):
        return writer

    def write(view: SessionView) -> bool:
        known = ((view.messages[message_id].tool(call), content) for call, content in results.items())
        waiting = [(tool, content) for tool, content in known if tool is not None and tool.state == "input-available"]
        for tool, content in waiting:
            tool.output(content)
        state.write(view)
        return bool(waiting)

    brought = await session.edit(write)
    if not brought and writer is not None:
        return writer
    agent = _forwarded(data, "agent") or (writer.agent if writer is not None else None)
    question = Question((), agent, trigger="continue", asked=message_id, run=data.run_id, input=given)
    return await ask(session, question, principal, now)


def _verdict(entry: ResumeEntry, tool: ToolStream) -> Verdict:
    """Return what the answer to an interrupt says: of a form the answer itself, else whether it is approved."""
    resolved = entry.status == "resolved"
    if wants_value(tool.approval_request):
        return Verdict(resolved, value=entry.payload if resolved else None)
    payload = entry.payload if isinstance(entry.payload, dict) else {"approved": entry.payload}
    approved, reason, edited = payload.get("approved") is True, payload.get("reason"), payload.get("editedArgs")
    return Verdict(resolved and approved, reason if isinstance(reason, str) else None, edited if approved else None)


async def _resumed(
    session: Session, data: RunAgentInput, principal: Principal, now: Millis, state: ClientState
) -> Run:
    """Record decisions that runs wait for; each run continues under its own id. Deciding again changes nothing.

    Raises:
        NotFound: no run asks for this decision; nothing was written.
        AccessDenied, AlreadyDecided, NothingToDecide: a decision cannot count.
    """
    said = {entry.interrupt_id: entry for entry in data.resume or []}
    verdicts: dict[str, Verdict] = {}
    view = session.view
    found: dict[str, set[str]] = {}
    for message_id in dict.fromkeys(output_id(run) for run in view.runs.all()):
        message = view.messages.find(message_id)
        for tool in message.tools() if message is not None else ():
            if tool.call_id in said:
                found.setdefault(message_id, set()).add(tool.call_id)
                verdicts[tool.call_id] = _verdict(said[tool.call_id], tool)
    runs = [run for run in view.runs.all() if output_id(run) in found]
    if not runs or (unknown := said.keys() - verdicts.keys()):
        waiting = [call.tool_call_id for run in view.runs.answering() for call in run.pending or ()]
        raise NotFound(what="interrupt", id=", ".join(sorted(unknown if runs else said)), known=waiting)
    if state.open:  # before the run continues
        await session.edit(state.write, by=principal.by)
    for message_id, calls in found.items():
        await decide(session, principal, now, message_id, {call: verdicts[call] for call in calls})
    resumed = next((run for run in reversed(runs) if not run.over), runs[-1])
    return view.runs.top(resumed)


def _forwarded(data: RunAgentInput, key: str) -> str | None:
    forwarded = data.forwarded_props if isinstance(data.forwarded_props, dict) else {}
    value = forwarded.get(key)
    return value if isinstance(value, str) and value else None


def _leased(view: SessionView, message_id: str, messages: Sequence[Any]) -> dict[str, CallResult]:
    """Return the results that the conversation ends with of calls that are given to one client each."""
    found: dict[str, CallResult] = {}
    for message in reversed(messages):
        if message.role != "tool":
            break
        tool = view.messages[message_id].tool(message.tool_call_id)
        if tool is not None and tool.client_call is not None:
            failed = message.error is not None
            found[tool.call_id] = CallResult(
                status="failed" if failed else "done",
                output=None if failed else _content(message.content),
                error_text=message.error,
                at=0,
            )
    return found


def _results(messages: Sequence[Any]) -> dict[str, Any]:
    """Return the tool results that the conversation ends with, by call."""
    results: dict[str, Any] = {}
    for message in reversed(messages):
        if message.role != "tool":
            break
        results[message.tool_call_id] = message.content
    return results


def _caller(view: SessionView, messages: Sequence[Any]) -> str | None:
    """Return the message with the calls whose results the conversation ends with; None if there is none."""
    results = _results(messages)
    for value in reversed(view.messages.ordered()):
        if any(isinstance(part, ToolPart) and part.tool_call_id in results for part in value.parts):
            return value.id
    return None


def _history(view: SessionView, messages: Sequence[Any]) -> list[IncomingMessage]:
    """Return a client's messages in layout 1, where thoughts, tool calls and results belong to the answer."""
    results = {message.tool_call_id: message for message in messages if message.role == "tool"}
    history: list[IncomingMessage] = []
    thoughts: list[Part] = []
    for message in messages:
        if message.role == "reasoning":
            thoughts.append(TextPart(type="reasoning", text=message.content))
        elif message.role == "assistant":
            calls = [_call(call, results.get(call.id)) for call in message.tool_calls or () if is_call(call.id)]
            if parts := [*thoughts, *_parts(message.content), *calls]:
                history.append(IncomingMessage(_whole(view, message.id), "assistant", parts))
            thoughts = []
        elif message.role in _SPOKEN:
            history.append(IncomingMessage(message.id, _SPOKEN[message.role], _parts(message.content)))
            thoughts = []
    for at in reversed(range(len(history))):  # as in the AI SDK: nothing is new before a known answer
        if history[at].role == "assistant" and history[at].id in view.messages:
            break
        if _says_otherwise(view, history[at]):
            history[at] = history[at].edited
    return history


def _says_otherwise(view: SessionView, incoming: IncomingMessage) -> bool:
    """Whether the session has another text for a user's message: then the client edited it."""
    known = view.messages.value(incoming.id) if incoming.role == "user" else None
    text = "".join(part.text for part in incoming.parts if isinstance(part, TextPart))
    return known is not None and known.role == "user" and known.text != text


def _whole(view: SessionView, id: str) -> str:
    """Return the session's message that AG-UI's message *id* is a piece of; *id* if it is none."""
    begun, _, number = id.rpartition("-")
    return begun if id not in view.messages and number.isdecimal() and begun in view.messages else id


def _call(call: Any, result: Any) -> ToolPart:
    """Return a tool call of a history: it gets no result here any more."""
    end: dict[str, Any] = {"state": "output-error", "error_text": NOT_ANSWERED}
    if result is not None and result.error is not None:
        end["error_text"] = result.error
    elif result is not None:
        end = {"state": "output-available", "output": _content(result.content)}
    function = call.function
    return ToolPart(type="tool", tool_call_id=call.id, tool_name=function.name, input_text=function.arguments, **end)


def _content(content: Any) -> Any:
    """Return the content of a tool's result as JSON."""
    return content if isinstance(content, str) else [piece.model_dump(by_alias=True) for piece in content]


def _parts(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [TextPart(type="text", text=content)] if content else []
    parts: list[Part] = []
    for piece in content or []:
        value = piece.model_dump(by_alias=True, exclude_none=True)
        source = value.get("source") or {}
        if value.get("type") == "text":
            parts.append(TextPart(type="text", text=value["text"]))
        elif isinstance(source.get("value"), str):
            media = source.get("mimeType", "application/octet-stream")
            url = source["value"] if source.get("type") == "url" else f"data:{media};base64,{source['value']}"
            parts.append(ValuePart(type="file", value={"url": url, "mediaType": media}))
    return parts
