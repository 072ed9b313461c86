"""REST for the holder of a run that has no WebSocket: renew, append, call tools, record steps, end.

Each request carries the lease's token in the header ``Lease-Token`` and is a sign of life; each may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Literal

from pydantic import Field, JsonValue
from quart import Blueprint, request

from crdt_sessions.errors import LeaseLost, WrongOffset
from crdt_sessions.model import ApprovalRequest, ClientCall, Message, Run, RunError, RunResult, Spent
from crdt_sessions.model.run_values import ResultStatus
from crdt_sessions.model.strings import (
    CALL_CHARACTERS,
    NAME_CHARACTERS,
    REASON_CHARACTERS,
    WORD_CHARACTERS,
    AgentName,
    checked_id,
)
from crdt_sessions.model.usage import Count, Currency
from crdt_sessions.runtime import LeasedRun, SessionRegistry, leased
from crdt_sessions_server.auth import asked_session
from crdt_sessions_server.http.describing import Parameter, answers, reads, refuses, tag
from crdt_sessions_server.http.schemas import Answer, Body
from crdt_sessions_server.http.validation import validate_request, validate_response

Leased = AbstractAsyncContextManager[LeasedRun]

LEASE_TOKEN = Parameter("Lease-Token", "Proves the lease: the token that the claim was answered with.", required=True)


class Renewal(Answer):
    """The lease goes on."""

    lease_ttl_ms: int
    cancelled: bool = Field(description="Whether somebody pressed stop: the holder is to end the run.")
    steering: list[Message] = Field(description="What people said to steer the run and was not taken up yet.")


class Append(Body):
    """Text to append to the answer."""

    offset: int = Field(ge=0, description="Characters of this type the answer has so far.")
    text: str
    type: Literal["text", "reasoning"] = "text"


class Appended(Answer):
    """How long it is now."""

    offset: int


class Call(Body):
    """A tool call, as far as it is."""

    name: str = Field(min_length=1, max_length=NAME_CHARACTERS)
    input: JsonValue = None
    output: JsonValue = None
    error: str | None = None
    denied: bool = False
    approval: ApprovalRequest | None = Field(None, description="What people are asked.")
    client_call: ClientCall | None = Field(None, description="If a device of a client is to call the tool.")


class StepValue(Body):
    """What a step returned."""

    value: JsonValue


class Recorded(Answer):
    """What is on record for a step."""

    value: JsonValue


class Spending(Body):
    """What an attempt has cost so far, all in all; what nobody knows is left out."""

    input_tokens: Count | None = Field(None, description="What models read, cached tokens included.")
    cached_tokens: Count | None = Field(None, description="Of those, what came from a cache of the provider's.")
    output_tokens: Count | None = Field(None, description="What models wrote, their thoughts included.")
    reasoning_tokens: Count | None = Field(None, description="Of those, the thoughts.")
    calls: Count | None = Field(None, description="How often a model was called.")
    model: str | None = Field(None, max_length=WORD_CHARACTERS, description="The one that was called last.")
    cost: Count | None = Field(None, description="Money, in millionths of the currency.")
    currency: Currency | None = Field(None, description="A code of ISO 4217; of a cost there must be one.")

    def spent(self) -> Spent:
        """Return it as a value of the document.

        Raises:
            BadValue: a cost has no currency.
        """
        return Spent.of(**self.model_dump())


class Result(Body):
    """How the run goes on or ends."""

    status: ResultStatus
    reason: str | None = Field(None, max_length=REASON_CHARACTERS)
    error: RunError | None = None
    agent: AgentName | None = Field(None, description="For handoff: who goes on.")
    usage: Spending | None = Field(None, description="What this attempt has cost, all in all.")


def held_run(registry: SessionRegistry, name: str, run: str) -> Leased:
    """Return a run to act on as its holder, if the request proves the lease.

    Raises:
        LeaseLost: it does not.
    """
    token = request.headers.get("Lease-Token")
    if not token:
        raise LeaseLost(run=run)
    return leased(registry, asked_session(name), run, token)


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for holders of runs."""
    leases = Blueprint("leases", __name__, url_prefix="/v1/sessions/<string:name>/runs/<string:run>")

    def held(name: str, run: str) -> Leased:
        return held_run(registry, name, run)

    _answer_routes(leases, held)

    @leases.post("/renew")
    @tag(["agents"])
    @validate_response(Renewal)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    async def renew(name: str, run: str) -> Renewal:
        """Renew the lease, and hear whether somebody pressed stop or said something."""
        async with held(name, run) as holding:
            lease = holding.record.lease
            return Renewal(
                lease_ttl_ms=lease.ttl if lease is not None else 0,
                cancelled=holding.record.cancel is not None,
                steering=holding.steering(),
            )

    @leases.post("/steering/<message>")
    @tag(["agents"])
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    @answers(204)
    async def consume(name: str, run: str, message: str) -> tuple[str, int]:
        """Record that a steering message was taken up."""
        async with held(name, run) as holding:
            await holding.consume(message)
        return "", 204

    @leases.get("/steps/<path:key>")
    @tag(["agents"])
    @validate_response(Recorded)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    async def get_step(name: str, run: str, key: str) -> Recorded:
        """Return the recorded result of a step; 404 if there is none."""
        async with held(name, run) as holding:
            return Recorded(value=await holding.step(key))

    @leases.put("/steps/<path:key>")
    @tag(["agents"])
    @validate_request(StepValue)
    @validate_response(Recorded)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    async def put_step(name: str, run: str, key: str, data: StepValue) -> Recorded:
        """Record the result of a step, unless there is one; return the recorded result."""
        async with held(name, run) as holding:
            return Recorded(value=await holding.record_step(key, data.value))

    @leases.post("/result")
    @tag(["agents"])
    @validate_request(Result)
    @validate_response(Run)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    async def report(name: str, run: str, data: Result) -> Run:
        """End the run, suspend it until people have decided, hand it over or give it back."""
        spent = data.usage.spent() if data.usage is not None else None
        async with held(name, run) as holding:
            return await holding.report(
                RunResult(
                    status=data.status,
                    epoch=holding.record.epoch,
                    reason=data.reason,
                    error=data.error,
                    agent=data.agent,
                    at=registry.clock.now(),
                ),
                spent,
            )

    return leases


def _answer_routes(leases: Blueprint, held: Callable[[str, str], Leased]) -> None:
    @leases.post("/append")
    @tag(["agents"])
    @validate_request(Append)
    @validate_response(Appended)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost, WrongOffset)
    async def append(name: str, run: str, data: Append) -> Appended:
        """Append to the answer where it ends; the same text again changes nothing, another offset is a 409."""
        async with held(name, run) as holding:
            return Appended(offset=await holding.append(data.offset, data.text, data.type))

    @leases.post("/restart")
    @tag(["agents"])
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    @answers(204)
    async def restart(name: str, run: str) -> tuple[str, int]:
        """Begin the answer anew: its offsets count from 0 again, and what stood there is shown to nobody any more.

        Tool calls that people were asked about stay.
        """
        async with held(name, run) as holding:
            await holding.restart()
        return "", 204

    @leases.put("/tools/<call>")
    @tag(["agents"])
    @validate_request(Call)
    @reads(LEASE_TOKEN)
    @refuses(LeaseLost)
    @answers(204)
    async def put_tool(name: str, run: str, call: str, data: Call) -> tuple[str, int]:
        """Write a tool call as far as it is: its input, a question to people, its output or its error."""
        async with held(name, run) as holding:
            await holding.tool(
                checked_id(call, "tool call id", CALL_CHARACTERS),
                data.name,
                input=data.input,
                output=data.output,
                error=data.error,
                denied=data.denied,
                approval=data.approval,
                client_call=data.client_call,
            )
        return "", 204
