"""REST for calls that clients execute: see those that are open, offer to do them, bring their results."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import Field, JsonValue
from quart import Blueprint, request

from crdt_sessions.errors import CallNotGiven, NotFound
from crdt_sessions.model import CallResult, Offer, OpenCall, Run, SessionView, ToolPart, ToolStream
from crdt_sessions.model.client_calls import ResultStatusOfCall
from crdt_sessions.model.strings import ERROR_CHARACTERS, PrincipalId, RunId, checked_id, is_id
from crdt_sessions.runtime import Session, SessionRegistry
from crdt_sessions_server.auth import asked_session, current_principal
from crdt_sessions_server.http.describing import Parameter, answers, reads, refuses, tag
from crdt_sessions_server.http.schemas import Answer, Body
from crdt_sessions_server.http.validation import validate_request, validate_response

DEVICE_HEADER = "X-Device-Id"
"""Names the page in what it requests, if it says so: after a reload it is given at once what it had before."""
PAGE = Parameter(DEVICE_HEADER, "A name of the page's own, by which it is known when it is loaded again.")
PAGE_PREFIX = "page-"
"""How the devices begin as which chat clients are known."""
_MAX_NAME = 100
_ROUTE = "/sessions/<name>/runs/<run>/calls/<call>"
_MS = 1000
_LONGEST_S = 86_400.0
"""A longer silence nobody asks for; the service's own bound (`longest_lease_s`) holds as well."""


class Call(OpenCall):
    """A tool call that waits for a device of a client."""

    run_id: RunId
    input: JsonValue = Field(None, description="What the tool is to be called with.")


class CallPage(Answer):
    """The calls of a session that wait for devices."""

    calls: list[Call]


class NewOffer(Body):
    """A device would call the tool."""

    ttl_s: float | None = Field(
        None,
        ge=0,
        le=_LONGEST_S,
        description="How long it may be silent, in seconds; the service's setting if absent. Offering again is a sign"
        " of life.",
    )
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


class NewResult(Body):
    """What came of a call."""

    status: ResultStatusOfCall = "done"
    output: JsonValue = Field(None, description="What the tool returned.")
    error_text: str | None = Field(None, max_length=ERROR_CHARACTERS, description="Why it returned nothing.")
    principal: PrincipalId | None = Field(None, description="Only where nobody is known, and for backends.")


def devices_of_page(page: str | None) -> str | None:
    """Return how the devices begin that a page is known as which calls itself *page*; None if that is no name."""
    return f"{PAGE_PREFIX}{page}-" if page and is_id(page, _MAX_NAME) else None


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes for calls that clients execute."""
    calls = Blueprint("client_calls", __name__, url_prefix="/v1")
    _offer_routes(calls, registry)
    _result_route(calls, registry)

    @calls.get("/sessions/<name>/calls")
    @tag(["runs"])
    @validate_response(CallPage)
    @reads(PAGE)
    async def list_calls(name: str) -> CallPage:
        """List the tool calls that wait for a device, or for the result of the one that has them.

        To ask with the ``X-Device-Id`` of a page that has one of them is a sign of life of that page.
        """
        page = devices_of_page(request.headers.get(DEVICE_HEADER))
        async with registry.open(asked_session(name)) as session, session.reading():
            if page is not None:
                session.decide(lambda runs, now: runs.calls.hear(_working(runs.calls.devices(), page), now))
            return CallPage(calls=[_call(session.view, run, each) for run, each in _open_calls(session.view)])

    return calls


def _offer_routes(calls: Blueprint, registry: SessionRegistry) -> None:
    @calls.put(f"{_ROUTE}/offers/<device>")
    @tag(["runs"])
    @validate_request(NewOffer)
    @validate_response(Call)
    async def offer(name: str, run: str, call: str, device: str, data: NewOffer) -> Call:
        """Offer that a device calls the tool; the answer says who has the call (``taken``).

        The device's name is its own, and another one each time it is started. Ask again until the call is given to
        it, or gone (404), and while it works: that is its sign of life.
        """
        by = current_principal().speaking_as(data.principal)
        ttl = None if data.ttl_s is None else int(data.ttl_s * _MS)
        proposal = Offer(by=by, at=registry.clock.now(), ttl=ttl)
        checked_id(device, "device")

        def change(view: SessionView) -> None:
            tool = _tool(view, view.runs.find(run), call)
            if device not in tool.offers():
                tool.propose(device, proposal)

        async with registry.open(asked_session(name)) as session:
            await session.readable()
            _open_call(session.view, run, call)
            session.decide(lambda runs, now: runs.calls.hear({device}, now))
            await session.edit(change)
            return _open_call(session.view, run, call)

    @calls.delete(f"{_ROUTE}/offers/<device>")
    @tag(["runs"])
    @answers(204)
    async def withdraw(name: str, run: str, call: str, device: str) -> tuple[str, int]:
        """Take an offer back: the device is not there any more. The call is given to the next one at once."""
        who = current_principal()

        def change(view: SessionView) -> None:
            tool = _tool(view, view.runs.find(run), call)
            if (known := tool.offers().get(device)) is not None:
                who.speaking_as(known.by)
                tool.withdraw(device)

        async with registry.open(asked_session(name)) as session:
            await session.edit(change)
        return "", 204


def _result_route(calls: Blueprint, registry: SessionRegistry) -> None:
    @calls.put(f"{_ROUTE}/results/<device>")
    @tag(["runs"])
    @validate_request(NewResult)
    @validate_response(ToolPart)
    @refuses(CallNotGiven)
    async def bring_result(name: str, run: str, call: str, device: str, data: NewResult) -> ToolPart:
        """Bring what came of a call that a device was given; the run goes on with it.

        Bringing it again changes nothing. A result that does not count is refused with 409: the call was not given to
        the device, or to another one since.
        """
        by = current_principal().speaking_as(data.principal)
        now = registry.clock.now()
        said = CallResult(by=by, status=data.status, output=data.output, error_text=data.error_text, at=now)
        said.json_value()  # before anything is written: a document cannot roll back

        async with registry.open(asked_session(name)) as session:
            await session.readable()

            def change(view: SessionView) -> None:
                tool = _tool(view, view.runs.find(run), call)
                if not _was_told(tool, device, by):
                    _check_given(session, run, call, device, by)
                    session.check_room(len(said.model_dump_json()))
                    tool.propose(device, said)

            await session.edit(change)
            return _part(session.view, session.view.runs.find(run), call)


def _working(devices: Collection[str], page: str) -> set[str]:
    return {device for device in devices if device.startswith(page)}


def _open_calls(view: SessionView) -> list[tuple[Run, OpenCall]]:
    return [(run, call) for run in view.runs.unfinished() for call in run.calls or ()]


def _open_call(view: SessionView, run_id: str, call_id: str) -> Call:
    run = view.runs.find(run_id)
    found = next((each for each in run.calls or () if each.tool_call_id == call_id and not run.over), None)
    if found is None:
        known = [each.tool_call_id for each in run.calls or ()]
        raise NotFound(what="tool call that waits for a device", id=call_id, known=known)
    return _call(view, run, found)


def _call(view: SessionView, run: Run, call: OpenCall) -> Call:
    value: dict[str, Any] = call.model_dump() | {"run_id": run.id}
    return Call(**value | {"input": _tool(view, run, call.tool_call_id).input})


def _tool(view: SessionView, run: Run, call_id: str) -> ToolStream:
    tool = view.messages.find_tool(run.output, call_id)
    if tool is None or tool.client_call is None:
        raise NotFound(what="tool call for a client", id=call_id)
    return tool


def _part(view: SessionView, run: Run, call_id: str) -> ToolPart:
    message = view.messages.value(run.output or "")
    parts = message.parts if message is not None else []
    return next(part for part in parts if isinstance(part, ToolPart) and part.tool_call_id == call_id)


def _was_told(tool: ToolStream, device: str, by: str) -> bool:
    """Whether the result that counts is that device's."""
    outcome = tool.outcome
    return outcome is not None and outcome.device == device and outcome.by == (by or None)


def _check_given(session: Session, run_id: str, call_id: str, device: str, by: str) -> None:
    record = session.engine.runs.table.record(run_id)
    known = record.calls.get(call_id) if record is not None else None
    if known is None or known.outcome is not None:
        code = known.outcome.code if known is not None and known.outcome is not None else "not open"
        raise CallNotGiven(call=call_id, device=device, why=f"its outcome is settled: {code}")
    having = [known.taken] if known.taken is not None else list(known.former)
    if not any(each.device == device and each.by == by for each in having):
        raise CallNotGiven(call=call_id, device=device, why="it was not given to it, or to another one since")
