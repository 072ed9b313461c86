"""REST for runs: ask, look, stop, decide; and claim, for agents."""

from __future__ import annotations

import json
import uuid

from pydantic import Field, JsonValue
from quart import Blueprint

from crdt_sessions.errors import (
    AlreadyDecided,
    NotAnAnswer,
    NotAnApprover,
    NothingToDecide,
    RunNotClaimable,
)
from crdt_sessions.ids import SessionId, name_of
from crdt_sessions.model import (
    ANY_AGENT,
    Decision,
    Run,
    RunCancel,
    RunInput,
    RunRequest,
    Schedule,
    SessionView,
    ToolPart,
    find_call,
)
from crdt_sessions.model.run_values import RunPolicy, Trigger
from crdt_sessions.model.strings import (
    NAME_CHARACTERS,
    REASON_CHARACTERS,
    AgentName,
    MessageId,
    PrincipalId,
    RunId,
    Time,
)
from crdt_sessions.runtime import Assignment, Dispatcher, SessionRegistry
from crdt_sessions.runtime.claimants import LONGEST_LEASE_S
from crdt_sessions_server.auth import Permission, asked_session, current_admitted, current_principal, live_access
from crdt_sessions_server.http.describing import answers, refuses, tag
from crdt_sessions_server.http.schemas import Answer, Body
from crdt_sessions_server.http.validation import validate_request, validate_response
from crdt_sessions_server.rest.decisions import write_decisions

_MAX_WAIT_S = 60.0


class NewRun(Body):
    """A run to ask for."""

    id: RunId | None = Field(None, description="An idempotency key: asking twice is asking once.")
    message_id: MessageId = Field(description="The message to answer; with `continue`, the answer to continue.")
    agent: AgentName = Field(ANY_AGENT, description="Who is to do it; * for any agent.")
    trigger: Trigger = "submit"
    policy: RunPolicy | None = Field(None, description="What becomes of it while another run is active.")
    not_before: Time | None = Field(None, description="When it is to begin at the earliest, in milliseconds.")
    deadline: Time | None = Field(None, description="When it ends as failed if it is not done, in milliseconds.")
    schedule: Schedule | None = Field(None, description="When the question is asked again and again.")
    input: RunInput | None = Field(
        None,
        description="What the agent is to work with besides the conversation. If absent, a request that regenerates"
        " or continues gets that of the run it repeats.",
    )


class RunPage(Answer):
    """The runs of a session, oldest first."""

    runs: list[Run]


class Cancel(Body):
    """Press stop."""

    reason: str | None = Field(None, max_length=REASON_CHARACTERS)
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


class Verdict(Body):
    """What somebody decides about a tool call."""

    approved: bool
    value: JsonValue = Field(None, description="The answer, where more than yes or no is asked.")
    reason: str | None = Field(None, max_length=REASON_CHARACTERS)
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


class Draft(Body):
    """An answer as far as somebody has filled it in."""

    fields: dict[str, JsonValue] = Field(default_factory=dict, max_length=100)


class ClaimRequest(Body):
    """Ask for work."""

    agents: list[AgentName] = Field(min_length=1, max_length=100, description="The names one works under.")
    wait_s: float = Field(0, ge=0, le=_MAX_WAIT_S, description="How long to wait for a run.")
    lease_s: float | None = Field(
        None, gt=0, le=LONGEST_LEASE_S, description="How long one may be silent; the service's setting if absent."
    )
    children: bool = Field(
        False, description="Whether one takes child runs, too: `request.task` is what they are to do."
    )
    worker: str | None = Field(
        None,
        max_length=NAME_CHARACTERS,
        description="Names the process that asks. A run it lost by being silent, or gave back, is not given to it"
        " again in answer to what it asked before that.",
    )


class AssignedRun(Answer):
    """A run that is one's own for as long as one renews the lease."""

    session: str
    generation: int = Field(description="Of the session; grows each time its name is given to a new one.")
    lineage: str = Field(description="Of the session: another one for each creation of that name, everywhere.")
    session_created_at: int = Field(description="When the session was created, in milliseconds.")
    run: Run
    epoch: int
    lease_ttl_ms: int = Field(description="Milliseconds one may be silent before the lease is lost.")
    token: str = Field(
        description="Proves the lease: header Lease-Token, or the query parameter lease of the WebSocket."
    )


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for runs."""
    runs = Blueprint("runs", __name__, url_prefix="/v1")
    _request_routes(runs, registry)
    _control_routes(runs, registry)
    _claim_routes(runs, Dispatcher(registry))
    return runs


def _request_routes(runs: Blueprint, registry: SessionRegistry) -> None:
    @runs.post("/sessions/<name>/runs")
    @tag(["runs"])
    @validate_request(NewRun)
    @validate_response(Run, 201)
    @validate_response(Run, 200)
    async def request_run(name: str, data: NewRun) -> tuple[Run, int]:
        """Ask an agent to answer; the request is durable when this returns, whether or not an agent is there.

        Asking for an existing id answers 200 with the existing run.
        """
        principal = current_principal()
        wanted = data.id or f"run-{uuid.uuid4().hex}"
        request = RunRequest(
            message_id=data.message_id,
            agent=data.agent,
            trigger=data.trigger,
            policy=data.policy,
            by=principal.id,
            created_at=registry.clock.now(),
            not_before=data.not_before,
            deadline=data.deadline,
            schedule=data.schedule,
            input=data.input,
        )
        async with registry.open(asked_session(name)) as session:
            known = wanted in session.view.runs
            if not known and data.trigger != "continue":
                await session.check_allowance(principal.id)
            await session.edit(
                lambda view: view.runs.request(wanted, request),
                by=principal.by,
                decides=principal.can(Permission.DECIDE),
            )
            return session.view.runs.find(wanted), 200 if known else 201

    @runs.get("/sessions/<name>/runs")
    @tag(["runs"])
    @validate_response(RunPage)
    async def list_runs(name: str) -> RunPage:
        """List the session's runs, oldest first."""
        async with registry.open(asked_session(name)) as session, session.reading():
            return RunPage(runs=session.view.runs.all())

    @runs.get("/sessions/<name>/runs/<run>")
    @tag(["runs"])
    @validate_response(Run)
    async def get_run(name: str, run: str) -> Run:
        """Look at a run."""
        async with registry.open(asked_session(name)) as session, session.reading():
            return session.view.runs.find(run)


def _control_routes(runs: Blueprint, registry: SessionRegistry) -> None:
    @runs.post("/sessions/<name>/runs/<run>/cancel")
    @tag(["runs"])
    @validate_request(Cancel)
    @validate_response(Run)
    async def cancel_run(name: str, run: str, data: Cancel) -> Run:
        """Press stop; before the run begins, or while it is worked on. What was written stays."""
        by = current_principal().speaking_as(data.principal)
        cancel = RunCancel(by=by, reason=data.reason, at=registry.clock.now())

        def change(view: SessionView) -> None:
            view.runs.find(run)
            view.runs.cancel(run, cancel)

        async with registry.open(asked_session(name)) as session:
            await session.edit(change)
            return session.view.runs.find(run)

    @runs.post("/sessions/<name>/runs/<run>/approvals/<call>")
    @tag(["runs"])
    @validate_request(Verdict)
    @validate_response(ToolPart)
    @refuses(NotAnApprover, NotAnAnswer, AlreadyDecided, NothingToDecide)
    async def decide(name: str, run: str, call: str, data: Verdict) -> ToolPart:
        """Decide about a tool call that waits for approval; a run names those that do (``pending``).

        The answer says which decision counts (``approval``); where all approvers are needed, that may take others.
        Deciding again what one has decided changes nothing. A decision that cannot count is refused: 403 if others
        are asked, 404 if there is no such call, 409 if it is settled already or nobody is asked about it, 422 if it
        does not fit what is asked (`approvalRequest.schema`).
        """
        decision = Decision(approved=data.approved, value=data.value, reason=data.reason, at=registry.clock.now())
        async with registry.open(asked_session(name)) as session:
            found, who = session.view.runs.find(run), current_principal()
            output = found.output or ""
            for late in await write_decisions(session, found, output, {call: decision}, who, data.principal):
                raise late
            message = session.view.messages.value(output)
            parts = message.parts if message is not None else []
            return next(part for part in parts if isinstance(part, ToolPart) and part.tool_call_id == call)

    @runs.patch("/sessions/<name>/runs/<run>/approvals/<call>/draft")
    @tag(["runs"])
    @validate_request(Draft)
    @validate_response(Draft)
    async def fill_in(name: str, run: str, call: str, data: Draft) -> Draft:
        """Fill in fields of an answer that is asked for; `null` empties one. It counts for nothing until it is sent.

        All devices share the draft. The answer to this request has all of it.
        """
        async with registry.open(asked_session(name)) as session:

            def change(view: SessionView) -> dict[str, JsonValue]:
                found = view.runs.find(run)
                tool = find_call(found, view.messages.find(found.output or ""), call)
                session.check_room(len(json.dumps(data.fields)))
                tool.fill_in(data.fields)
                return tool.draft()

            return Draft(fields=await session.edit(change))


def _claim_routes(runs: Blueprint, dispatcher: Dispatcher) -> None:
    @runs.post("/runs/claim")
    @tag(["agents"])
    @validate_request(ClaimRequest)
    @validate_response(AssignedRun)
    @answers(204, description="None came in time.")
    async def claim_run(data: ClaimRequest) -> AssignedRun | tuple[str, int]:
        """Take the oldest run that waits for one of the agents, in whatever session; 204 if none came in time."""
        principal = current_principal()
        principal.require_agents(data.agents)
        waiting = dispatcher.claim(
            data.agents,
            owner=principal.id,
            wait_s=data.wait_s,
            ttl_s=data.lease_s,
            worker=data.worker,
            tenant=principal.tenant,
            wants=principal.may_see,
            children=data.children,
        )
        claim = await live_access().allowed(current_admitted(), waiting)
        return _assigned(claim) if claim is not None else ("", 204)

    @runs.post("/sessions/<name>/runs/<run>/claim")
    @tag(["agents"])
    @validate_request(ClaimRequest)
    @validate_response(AssignedRun)
    @refuses(RunNotClaimable)
    async def claim_one_run(name: str, run: str, data: ClaimRequest) -> AssignedRun:
        """Take a run that is known by name, such as from a webhook; 409 if it is not to be had."""
        principal = current_principal()
        principal.require_agents(data.agents)
        wanted: SessionId = asked_session(name)
        return _assigned(
            await dispatcher.claim_one(
                wanted, run, agents=data.agents, owner=principal.id, ttl_s=data.lease_s, children=data.children
            )
        )


def _assigned(assignment: Assignment) -> AssignedRun:
    record = assignment.run
    assert record.lease is not None
    return AssignedRun(
        session=name_of(assignment.session.id),
        generation=assignment.session.generation,
        lineage=assignment.session.lineage,
        session_created_at=assignment.session.created_at,
        run=record.run,
        epoch=record.epoch,
        lease_ttl_ms=record.lease.ttl,
        token=assignment.token,
    )
