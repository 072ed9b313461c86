"""Routes of the AI SDK."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from pydantic import Field, JsonValue
from quart import Blueprint, Response, request

from crdt_sessions.errors import NotFound, SessionNotFound
from crdt_sessions.ids import SessionId
from crdt_sessions.model import Run
from crdt_sessions.model.strings import RunId
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.gateways.ai_sdk.chunks import body_of, follow, ui_messages
from crdt_sessions_server.gateways.ai_sdk.inbound import ChatRequest, Incoming, UiMessage, parts_of, receive
from crdt_sessions_server.gateways.conversation import RUN_HEADER, Going, Stopped, StopRequest, steer, stop
from crdt_sessions_server.gateways.front_end import FrontEnd
from crdt_sessions_server.gateways.inputs import last_input
from crdt_sessions_server.gateways.run_lookup import active_run
from crdt_sessions_server.gateways.transcript import IncomingMessage
from crdt_sessions_server.gateways.who_asks import asked_in_body
from crdt_sessions_server.http.describing import LINES, SSE, Parameter, answers, reads, refuses, tag
from crdt_sessions_server.http.paths import header_value
from crdt_sessions_server.http.problems import MEDIA_TYPE
from crdt_sessions_server.http.schemas import JSON, Answer
from crdt_sessions_server.http.streaming import DONE, data_frames, going_on
from crdt_sessions_server.http.validation import validate_request
from crdt_sessions_server.rest.client_calls import DEVICE_HEADER, PAGE

PATH = "/v1/gateways/ai-sdk/chat"
_HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}

_TRANSPORT = ("ai-sdk.send", "ai-sdk.resume")
"""Routes that ``DefaultChatTransport`` calls."""


class Conversation(Answer):
    """The conversation, for a client that begins."""

    messages: list[dict[str, JsonValue]] = Field(description="``UIMessage`` of the AI SDK.")
    active_run: str | None
    body: dict[str, JsonValue] | None = Field(
        None, description="What the last question was asked with, as the `body` of the transport or of `sendMessage`."
    )


class SteerRequest(Incoming):
    """A message to a running run."""

    message: UiMessage
    run_id: RunId | None = Field(None, description="The run; the active one if absent.")


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of the AI SDK."""
    chat = Blueprint("ai-sdk", __name__, url_prefix=PATH)

    @chat.post("")
    @tag(["gateways"])
    @validate_request(ChatRequest)
    @reads(PAGE)
    @answers(200, {SSE: LINES}, "The stream of one message.", {RUN_HEADER: "The run."})
    @refuses(NotFound)
    async def send(data: ChatRequest) -> Response:
        """Ask, decide or continue; the answer is the stream of one message. Sending it again changes nothing."""
        principal, session = await asked_in_body(data.id)
        run, known = await receive(registry, session, data, principal)
        front = FrontEnd(registry, principal, data.tools, request.headers.get(DEVICE_HEADER))
        chunks = follow(registry, session, run.id, known, front)
        return going_on(data_frames(chunks, DONE), headers=_HEADERS | {RUN_HEADER: header_value(run.id)})

    @chat.get("/<room:name>/stream")
    @tag(["gateways"])
    @reads(Parameter("runId", "The run; the active one if absent.", "query"), PAGE)
    @answers(200, {SSE: LINES}, "The stream of one message.", {RUN_HEADER: "The run."})
    @answers(204, description="No answer is being written.")
    async def resume(name: str) -> Response:
        """Follow the present answer from its beginning; 204 if there is none.

        ``?runId=`` names a run, which may have ended: a client that saw its beginning gets its ending.
        """
        run = await find_run(registry, asked_session(name), request.args.get("runId"))
        if run is None:
            return Response("", 204)
        front = FrontEnd(registry, current_principal(), page=request.headers.get(DEVICE_HEADER), looks=True)
        chunks = follow(registry, asked_session(name), run.id, front=front)
        return going_on(data_frames(chunks, DONE), headers=_HEADERS | {RUN_HEADER: header_value(run.id)})

    @chat.post("/<room:name>/stop")
    @tag(["gateways"])
    @answers(200, {JSON: Stopped})
    @validate_request(StopRequest)
    async def press_stop(name: str, data: StopRequest) -> tuple[dict[str, Any], int]:
        """Stop the answer, from any device; its text stays."""
        principal = current_principal()
        async with registry.open(asked_session(name)) as session:
            stopped = await stop(session, principal, registry.clock.now(), data.run_id)
        return {"stopped": stopped}, 200

    @chat.post("/<room:name>/steer")
    @tag(["gateways"])
    @validate_request(SteerRequest)
    @answers(202, {JSON: Going})
    async def press_on(name: str, data: SteerRequest) -> tuple[dict[str, Any], int]:
        """Send a message to the running run; a part ``steering-message`` shows where the agent read it.

        If the run ends before, or none runs, the message becomes a question of its own.
        """
        principal = current_principal()
        incoming = IncomingMessage(data.message.id, "user", parts_of(data.message), data.message.metadata)
        async with registry.open(asked_session(name)) as session:
            run = await steer(session, incoming, principal, registry.clock.now(), data.run_id)
        return {"runId": run.id}, 202

    @chat.get("/<room:name>/messages")
    @tag(["gateways"])
    @answers(200, {JSON: Conversation})
    async def history(name: str) -> tuple[dict[str, Any], int]:
        """Return the conversation as ``UIMessage``s, for ``messages`` of ``useChat``."""
        try:
            async with registry.open(asked_session(name)) as session, session.reading():
                active = active_run(session.view)
                told = {"messages": ui_messages(session.view), "activeRun": active.id if active else None}
                last = last_input(session.view)
                return told | ({"body": body_of(last[1])} if last is not None else {}), 200
        except SessionNotFound:
            return {"messages": [], "activeRun": None}, 200

    @chat.websocket("")
    async def converse() -> None:
        """``WebSocketChatTransport``: any number of chats on one connection."""
        raise AssertionError("ChatSockets serves it, in front of Quart")

    chat.after_app_request(_errors_as_text)
    return chat


async def _errors_as_text(response: Response) -> Response:
    """Answer errors as plain text: ``useChat`` shows the whole body as the error's text."""
    asks_for_it = "json" in request.headers.get("Accept", "")
    if request.endpoint in _TRANSPORT and response.mimetype == MEDIA_TYPE and not asks_for_it:
        problem = json.loads(await response.get_data())
        response.set_data(problem["detail"])
        response.content_type = "text/plain; charset=utf-8"
        response.headers["X-Problem-Type"] = problem["type"]
    return response


async def find_run(registry: SessionRegistry, name: SessionId, run_id: str | None = None) -> Run | None:
    """Return the run *run_id*, or the active one; None also if the chat does not exist yet: useChat asks at once."""
    with contextlib.suppress(SessionNotFound):
        async with registry.open(name) as session:
            await session.readable()
            return session.view.runs.find(run_id) if run_id else active_run(session.view)
    return None
