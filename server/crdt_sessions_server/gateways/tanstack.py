"""TanStack AI: ``fetchServerSentEvents`` (connect), and adapters of the form ``subscribe`` and ``send``.

Source: TanStack AI 0.58, ``connection-adapters.ts``. Its events are AG-UI's. Each has an id, so a client reconnects
by itself when a connection breaks: it repeats the request with ``Last-Event-ID``. That header only says that the
request is repeated. The run is known by the client's id for it, and is told from its beginning, with new event ids.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from quart import Blueprint, Response, jsonify, request

from crdt_sessions.errors import ShuttingDown
from crdt_sessions.ids import SessionId
from crdt_sessions.model import Run, SessionView
from crdt_sessions.runtime import Projector, SessionEvent, SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.gateways.ag_ui.events import events
from crdt_sessions_server.gateways.ag_ui.inbound import receive
from crdt_sessions_server.gateways.ag_ui.inputs import agent_input, agent_request, names_of
from crdt_sessions_server.gateways.ag_ui.interrupts import interrupts_of
from crdt_sessions_server.gateways.ag_ui.messages import Event
from crdt_sessions_server.gateways.ag_ui.routes import cancelled
from crdt_sessions_server.gateways.ag_ui.session import SessionEncoder
from crdt_sessions_server.gateways.children import ChildRuns
from crdt_sessions_server.gateways.conversation import RUN_HEADER, Going, Stopped, StopRequest
from crdt_sessions_server.gateways.front_end import FrontEnd
from crdt_sessions_server.gateways.inputs import last_input
from crdt_sessions_server.gateways.run_lookup import active_run, joined_run
from crdt_sessions_server.http.describing import LINES, SSE, Parameter, answers, reads, tag
from crdt_sessions_server.http.paths import header_value
from crdt_sessions_server.http.schemas import JSON
from crdt_sessions_server.http.streaming import COMMENT, compact, going_on, with_silence
from crdt_sessions_server.http.validation import validate_later, validate_request
from crdt_sessions_server.rest.client_calls import DEVICE_HEADER, PAGE
from crdt_sessions_server.rest.sessions import creates

if TYPE_CHECKING:
    from ag_ui.core import RunAgentInput


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of TanStack AI; the session is in the path."""
    tanstack = Blueprint("tanstack", __name__, url_prefix="/v1/gateways/tanstack")

    @tanstack.post("/<room:name>")
    @tag(["gateways"])
    @validate_later(agent_request)
    @reads(Parameter("Last-Event-ID", "Says that the request is repeated."), PAGE)
    @answers(200, {SSE: LINES}, "The run, as events.", {RUN_HEADER: "The run."})
    async def connect(name: str, data: RunAgentInput) -> Response:
        """Ask, decide or answer a tool call; the answer is the run as events."""
        run = await _asked(registry, name, data)
        front = _front(registry, names_of(data))
        encoder = SessionEncoder(
            data.thread_id, run, data.run_id, data.parent_run_id, front=front, announces=True, children=ChildEvents
        )
        return _stream(registry, asked_session(name), encoder, headers={RUN_HEADER: header_value(run.id)})

    @tanstack.post("/<room:name>/send")
    @tag(["gateways"])
    @validate_later(agent_request)
    @answers(202, {JSON: Going})
    async def send(name: str, data: RunAgentInput) -> tuple[dict[str, Any], int]:
        """Ask, decide or answer a tool call; subscribers get the events."""
        run = await _asked(registry, name, data)
        return {"runId": run.id}, 202

    @tanstack.get("/<room:name>/subscribe")
    @tag(["gateways"])
    @reads(Parameter("threadId", "The client's name for the conversation.", "query"), PAGE)
    @answers(200, {SSE: LINES}, "The session, as events.")
    async def subscribe(name: str) -> Response:
        """Follow the session: the present run and all later ones, of all participants."""
        thread = request.args.get("threadId", name)
        async with registry.open(
            asked_session(name), create=creates(registry, current_principal()), by=current_principal().id
        ) as session:
            await session.readable()
            run, front = joined_run(session.view), _front(registry, looks=True)
            encoder = SessionEncoder(thread, run, front=front, announces=True, children=ChildEvents)
        return _stream(registry, asked_session(name), encoder, follow=True)

    @tanstack.get("/<room:name>")
    @tag(["gateways"])
    @reads(
        Parameter("threadId", "The client's name for the conversation.", "query"),
        Parameter("runId", "The run to join; the conversation if absent.", "query"),
        PAGE,
    )
    @answers(200, {JSON: {"type": "object"}, SSE: LINES}, "The conversation, or the run as events.")
    async def read(name: str) -> Response:
        """Join a run (``?offset=-1&runId=…``), or get the conversation to begin with (``?threadId=…``)."""
        run_id, thread = request.args.get("runId"), request.args.get("threadId", name)
        principal = current_principal()
        opened = registry.open(asked_session(name), create=creates(registry, principal), by=principal.id)
        async with opened as session, session.reading():
            if run_id is None:
                told = _told(Projector(session, presence=False), session.view)
                return jsonify(_hydrated(session.view, told, thread))
            followed = (
                active_run(session.view) if run_id not in session.view.runs else None
            )  # the client has its own name for it
            run = followed or session.view.runs.find(run_id)
        front = _front(registry, looks=True)
        encoder = SessionEncoder(thread, run, run_id, front=front, announces=True, children=ChildEvents)
        return _stream(registry, asked_session(name), encoder)

    @tanstack.post("/<room:name>/cancel")
    @tag(["gateways"])
    @answers(200, {JSON: Stopped})
    @validate_request(StopRequest)
    async def cancel(name: str, data: StopRequest) -> tuple[dict[str, Any], int]:
        """Stop the answer of the run ``{"runId": …}``, of all runs if absent. Their text stays."""
        return await cancelled(registry, asked_session(name), data.run_id), 200

    return tanstack


def _front(registry: SessionRegistry, tools: set[str] | None = None, *, looks: bool = False) -> FrontEnd:
    return FrontEnd(registry, current_principal(), tools, request.headers.get(DEVICE_HEADER), looks=looks)


class ChildEvents:
    """The child runs below a run, as custom events: TanStack AI has no form for nested runs.

    Args:
        run: the run that the stream follows.
    """

    def __init__(self, run: Run | None) -> None:
        self._runs = ChildRuns(run.id if run is not None else None)

    def take(self, view: SessionView, events: Sequence[SessionEvent]) -> tuple[list[SessionEvent], list[Event]]:
        """Return the events that are about no child run, and what is told of the others."""
        rest, told = self._runs.take(view, events)
        return rest, [{"type": "CUSTOM", "name": "child-run", "value": value} for value in told]

    def written(self, view: SessionView) -> dict[str, list[dict[str, Any]]]:
        """No message is listed: TanStack AI would show it as one of the conversation."""
        return {}

    def close(self) -> Iterator[Event]:
        """Nothing is open: each event tells all there is."""
        return iter(())


async def _asked(registry: SessionRegistry, name: str, data: RunAgentInput) -> Run:
    again = "Last-Event-ID" in request.headers
    return await receive(registry, asked_session(name), data, current_principal(), again=again)


def _stream(
    registry: SessionRegistry,
    name: SessionId,
    encoder: SessionEncoder,
    *,
    follow: bool = False,
    headers: dict[str, str] | None = None,
) -> Response:
    async def unless_stopping() -> AsyncGenerator[list[Event], None]:
        try:
            async for batch in events(registry, name, encoder, follow=follow, come_back=True):
                yield batch
        except ShuttingDown:
            return  # without a terminal event the client reconnects

    return going_on(_sse(unless_stopping()), headers=headers)


async def _sse(source: AsyncGenerator[list[Event], None]) -> AsyncIterator[bytes]:
    connection, number = uuid.uuid4().hex[:12], 0
    async for batch in with_silence(source):
        if batch is None:
            yield COMMENT
            continue
        frames = []
        for event in batch:
            frames.append(f"id: {connection}-{number}\ndata: {compact(event)}\n\n")
            number += 1
        yield "".join(frames).encode()


def _told(projector: Projector, view: SessionView) -> list[Event]:
    return list(SessionEncoder("", None).encode(view, projector.take()))


def _hydrated(view: SessionView, told: list[Event], thread: str) -> dict[str, Any]:
    """Return the body for ``hydrate``: the messages, the active run, and the decisions that are open.

    It has also what the last question was asked with, as ``RUN_STARTED`` has it; the client looks at the others only.
    """
    running = active_run(view)
    snapshot = next(event for event in told if event["type"] == "MESSAGES_SNAPSHOT")
    waiting = next((run for run in view.runs.answering() if run.status == "suspended"), None)
    pending = interrupts_of(view, waiting) if waiting is not None else []
    last = last_input(view)
    return {
        "input": agent_input(thread, last[0].id, last[1]) if last is not None else None,
        "messages": _ui_messages(snapshot["messages"]),
        "activeRun": {"runId": running.id} if running is not None else None,
        "interrupts": {"runId": waiting.id, "pending": pending} if waiting is not None and pending else None,
    }


def _ui_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return AG-UI messages as TanStack's, where thoughts and tool results belong to the answer."""
    found: list[dict[str, Any]] = []
    thoughts: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message.get("content")
        if role == "reasoning":
            thoughts.append({"type": "thinking", "content": content})
        elif role == "tool":
            call = message["toolCallId"]
            result = {"type": "tool-result", "toolCallId": call, "content": content, "state": "complete"}
            caller = next((each for each in reversed(found) if _calls(each, call)), found[-1])
            caller["parts"].append(result)
        else:
            parts = thoughts if role == "assistant" else []
            if isinstance(content, str) and content:
                parts = [*parts, {"type": "text", "content": content}]
            elif isinstance(content, list):
                parts = [*parts, *(_ui_part(piece) for piece in content)]
            parts = [*parts, *map(_ui_call, message.get("toolCalls", []))]
            thoughts = [] if role == "assistant" else thoughts
            found.append({"id": message["id"], "role": role, "parts": parts})
    return found


def _calls(message: dict[str, Any], call: str) -> bool:
    return any(part["type"] == "tool-call" and part["id"] == call for part in message["parts"])


def _ui_part(piece: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "content": piece["text"]} if piece["type"] == "text" else piece


def _ui_call(call: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool-call", "id": call["id"], **call["function"], "state": "input-complete"}
