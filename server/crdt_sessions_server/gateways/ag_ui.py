"""AG-UI 1.0: ``HttpAgent``, unmodified.

Source: AG-UI 1.0, "HTTP binding". The protocol has no resumption, so joining is a stream of its own: ``GET`` with the
thread tells the conversation as it is, and what is being written from its first character. A connection that closes
is somebody who left; cancelling is a command.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ag_ui.core import RunAgentInput
from pydantic import ValidationError
from quart import Blueprint, Response, request
from quart_schema import tag

from crdt_sessions.errors import CrdtSessionsError, NotFound, ShuttingDown
from crdt_sessions.ids import SessionId
from crdt_sessions.model import Run, SessionView, TextPart, ToolPart, ValuePart
from crdt_sessions.model.values import Part, Trigger
from crdt_sessions.runtime import Projector, Session, SessionRegistry
from crdt_sessions_server.access import Principal, asked_session, current_principal
from crdt_sessions_server.api import creates
from crdt_sessions_server.gateways.agui_events import Event, SessionSpeller
from crdt_sessions_server.gateways.conversation import (
    RUN_HEADER,
    Question,
    Said,
    active_run,
    ask,
    asked_in_body,
    checked_id,
    decide,
    is_answered,
    stop,
)
from crdt_sessions_server.problems import invalid
from crdt_sessions_server.streaming import data_frames, going_on

_SPOKEN = {"user": "user", "system": "system", "developer": "system"}


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of AG-UI."""
    ag_ui = Blueprint("ag-ui", __name__, url_prefix="/v1/gateways/ag-ui")

    @ag_ui.post("")
    @tag(["gateways"])
    async def run_agent() -> Response:
        """Ask, decide or answer a tool call (``RunAgentInput``); the answer is the run as events."""
        try:
            data = RunAgentInput.model_validate(await request.get_json(force=True))
        except ValidationError as error:
            return invalid(error)
        principal, name = await asked_in_body(data.thread_id)
        run = await received(registry, name, data, principal)
        speller = SessionSpeller(data.thread_id, run, data.run_id, data.parent_run_id)
        return going_on(data_frames(events(registry, name, speller, follow=False)), headers={RUN_HEADER: run.id})

    @ag_ui.get("/<name>")
    @tag(["gateways"])
    async def join(name: str) -> Response:
        """Join the run that is going on, or see the conversation; with ``?follow=true`` later runs as well."""
        follow = request.args.get("follow") in ("1", "true")
        async with registry.open(
            asked_session(name), create=creates(registry, current_principal()), by=current_principal().id
        ) as session:
            await session.readable()
            speller = SessionSpeller(name, active_run(session.view))
        return going_on(data_frames(events(registry, asked_session(name), speller, follow=follow)))

    @ag_ui.post("/<name>/cancel")
    @tag(["gateways"])
    async def cancel(name: str) -> tuple[dict[str, Any], int]:
        """Stop what is being answered; ``{"runId": …}`` says which, all if absent. What was written stays."""
        return await cancelled(registry, asked_session(name)), 200

    return ag_ui


async def cancelled(registry: SessionRegistry, name: SessionId) -> dict[str, Any]:
    """Stop what the body of the current request names."""
    principal = current_principal()
    body = await request.get_json(force=True, silent=True) or {}
    run_id = body.get("runId") if isinstance(body, dict) else None
    async with registry.open(name) as session:
        wanted = run_id if isinstance(run_id, str) else None
        return {"stopped": await stop(session, principal, registry.clock.now(), wanted)}


async def received(registry: SessionRegistry, name: SessionId, data: RunAgentInput, principal: Principal) -> Run:
    """Write down what a client sent; return the run to follow.

    Raises:
        NotFound: there is nothing to be answered, decided or gone on with.
    """
    now = registry.clock.now()
    run_id = checked_id(data.run_id, "runId")
    async with registry.open(name, create=creates(registry, principal), by=principal.id) as session:
        view = session.view
        if run_id in view.runs:
            return view.runs.find(run_id)
        if data.resume:
            return await _resumed(session, data, principal, now)
        agent = _agent(data)
        if (outputs := _outputs(view, data.messages)) is not None:
            message_id, results = outputs

            def write(view: SessionView) -> None:
                for call, content in results.items():
                    tool = view.messages[message_id].tool(call)
                    if tool is not None:
                        tool.output(content)

            await session.edit(write)
            owner = view.messages[message_id].run_id
            agent = agent or (view.runs.find(owner).agent if owner is not None else None)
            question = Question((), agent, trigger="continue", asked=message_id, run=run_id)
            return await ask(session, question, principal, now)
        history = _history(view, data.messages)
        if not history:
            raise NotFound(what="message to answer", id=run_id)
        trigger: Trigger = "regenerate" if is_answered(view, history[-1].id) else "submit"
        return await ask(session, Question(history, agent, trigger=trigger, run=run_id), principal, now)


async def _resumed(session: Session, data: RunAgentInput, principal: Principal, now: Any) -> Run:
    """Take decisions about what a run waits for; the run goes on under its own id."""
    verdicts: dict[str, tuple[bool, str | None]] = {}
    for entry in data.resume or []:
        payload = entry.payload if isinstance(entry.payload, dict) else {"approved": entry.payload}
        approved = entry.status == "resolved" and payload.get("approved") is True
        reason = payload.get("reason")
        verdicts[entry.interrupt_id] = (approved, reason if isinstance(reason, str) else None)
    for run in session.view.runs.unfinished():
        message = session.view.messages.value(run.output) if run.output is not None else None
        calls = {part.tool_call_id for part in message.parts if isinstance(part, ToolPart)} if message else set()
        if message is not None and calls & verdicts.keys():
            await decide(
                session, principal, now, message.id, {call: verdicts[call] for call in calls & verdicts.keys()}
            )
            return session.view.runs.find(run.id)
    raise NotFound(what="interrupt", id=", ".join(verdicts))


def _agent(data: RunAgentInput) -> str | None:
    forwarded = data.forwarded_props if isinstance(data.forwarded_props, dict) else {}
    agent = forwarded.get("agent")
    return agent if isinstance(agent, str) and 0 < len(agent) <= 100 else None


def _outputs(view: SessionView, messages: Sequence[Any]) -> tuple[str, dict[str, Any]] | None:
    """Return what a client's own tools returned, where that is what the conversation ends with."""
    results: dict[str, Any] = {}
    for message in reversed(messages):
        if message.role != "tool":
            break
        results[message.tool_call_id] = message.content
    for value in reversed(view.messages.ordered()) if results else ():
        calls = {
            part.tool_call_id
            for part in value.parts
            if isinstance(part, ToolPart) and part.state == "input-available" and part.tool_call_id in results
        }
        if calls:
            return value.id, {call: results[call] for call in calls}
    return None


def _history(view: SessionView, messages: Sequence[Any]) -> list[Said]:
    """Return the messages of people; answers are the session's own, and what it has stays as it is."""
    spoken = [message for message in messages if message.role in _SPOKEN]
    return [Said(message.id, _SPOKEN[message.role], _parts(message.content)) for message in spoken]  # type: ignore[arg-type]


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


async def events(
    registry: SessionRegistry, name: SessionId, speller: SessionSpeller, *, follow: bool, come_back: bool = False
) -> AsyncGenerator[list[Event], None]:
    """Yield a session as AG-UI events, in batches, to the end of the run or for ever; a terminal one is the last.

    Raises:
        ShuttingDown: the service stops, and the client is one that comes back (*come_back*).
    """
    try:
        async with registry.open(name) as session:
            projector = _projector(session)
            while True:
                await projector.wait()
                happened = projector.take()
                if (rewriting := speller.rewritten_by(session.view, happened)) is not None:
                    speller, projector = SessionSpeller(speller.thread, rewriting), _projector(session)
                    happened = projector.take()
                if batch := list(speller.spell(session.view, happened)):
                    yield batch
                if speller.ended and not follow:
                    return
                going = active_run(session.view) if speller.ended else None
                if going is not None and speller.has_begun(going):  # beside the one that ended: it is told anew
                    speller, projector = SessionSpeller(speller.thread, going), _projector(session)
    except CrdtSessionsError as error:
        if come_back and isinstance(error, ShuttingDown):
            raise
        yield list(speller.fail(type(error).__name__, f"{error}; the answer goes on, join again to see it"))


def _projector(session: Session) -> Projector:
    return Projector(session, wants=lambda subject: subject[0] != "meta")
