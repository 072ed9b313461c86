"""Routes of AG-UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quart import Blueprint, Response, request

from crdt_sessions.ids import SessionId
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.gateways.ag_ui.events import events
from crdt_sessions_server.gateways.ag_ui.inbound import receive
from crdt_sessions_server.gateways.ag_ui.inputs import agent_request, names_of
from crdt_sessions_server.gateways.ag_ui.session import SessionEncoder
from crdt_sessions_server.gateways.ag_ui.state import ToldStates
from crdt_sessions_server.gateways.conversation import RUN_HEADER, Stopped, StopRequest, stop
from crdt_sessions_server.gateways.front_end import FrontEnd
from crdt_sessions_server.gateways.run_lookup import joined_run
from crdt_sessions_server.gateways.who_asks import asked_in_body
from crdt_sessions_server.http.describing import LINES, SSE, Parameter, answers, reads, tag
from crdt_sessions_server.http.paths import header_value
from crdt_sessions_server.http.schemas import JSON
from crdt_sessions_server.http.streaming import data_frames, going_on
from crdt_sessions_server.http.validation import validate_later, validate_request
from crdt_sessions_server.rest.client_calls import DEVICE_HEADER, PAGE
from crdt_sessions_server.rest.sessions import creates

if TYPE_CHECKING:
    from ag_ui.core import RunAgentInput


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes of AG-UI."""
    states = ToldStates()
    ag_ui = Blueprint("ag-ui", __name__, url_prefix="/v1/gateways/ag-ui")

    @ag_ui.post("")
    @tag(["gateways"])
    @validate_later(agent_request)
    @reads(PAGE)
    @answers(200, {SSE: LINES}, "The run, as AG-UI events.", {RUN_HEADER: "The run."})
    async def run_agent(data: RunAgentInput) -> Response:
        """Ask, decide or answer a tool call (``RunAgentInput``); the answer is the run as events."""
        principal, name = await asked_in_body(data.thread_id)
        client = states.client(name, principal)
        run = await receive(registry, name, data, principal, state=client)
        front = FrontEnd(registry, principal, names_of(data), request.headers.get(DEVICE_HEADER))
        encoder = SessionEncoder(data.thread_id, run, data.run_id, data.parent_run_id, front=front)
        return going_on(
            data_frames(events(registry, name, encoder, follow=False, client=client)),
            headers={RUN_HEADER: header_value(run.id)},
        )

    @ag_ui.get("/<room:name>")
    @tag(["gateways"])
    @reads(Parameter("follow", "true to follow later runs as well.", "query"), PAGE)
    @answers(200, {SSE: LINES}, "The session, as AG-UI events.")
    async def join(name: str) -> Response:
        """Join the active run, or see the conversation; with ``?follow=true`` later runs as well."""
        follow = request.args.get("follow") in ("1", "true")
        client = states.client(asked_session(name), current_principal())
        async with registry.open(
            asked_session(name), create=creates(registry, current_principal()), by=current_principal().id
        ) as session:
            await session.readable()
            front = FrontEnd(registry, current_principal(), page=request.headers.get(DEVICE_HEADER), looks=True)
            encoder = SessionEncoder(name, joined_run(session.view), front=front)
        return going_on(data_frames(events(registry, asked_session(name), encoder, follow=follow, client=client)))

    @ag_ui.post("/<room:name>/cancel")
    @tag(["gateways"])
    @answers(200, {JSON: Stopped})
    @validate_request(StopRequest)
    async def cancel(name: str, data: StopRequest) -> tuple[dict[str, Any], int]:
        """Stop the answer of the run ``{"runId": …}``, of all runs if absent. Their text stays."""
        return await cancelled(registry, asked_session(name), data.run_id), 200

    return ag_ui


async def cancelled(registry: SessionRegistry, name: SessionId, wanted: str | None) -> dict[str, Any]:
    """Stop the run *wanted*, or all."""
    principal = current_principal()
    async with registry.open(name) as session:
        return {"stopped": await stop(session, principal, registry.clock.now(), wanted)}
