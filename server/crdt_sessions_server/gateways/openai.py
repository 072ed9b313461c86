"""OpenAI's chat completions: any client of that API can talk to the agents of a session.

The model is the agent's name. The header ``X-Session-Id`` names the session; without it a new session is made, and
the answer's header tells its name. Clients send the whole conversation each time and know no ids, so
:mod:`chat_messages` finds by content which messages the session has. Clients also repeat requests by themselves, with
no other sign than the header ``X-Stainless-Retry-Count``: a repeated question is asked once. Source: OpenAI API
reference, "Create chat completion", "List models", "Retrieve model"; the clients' ``_base_client``.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from quart import Blueprint, Response, jsonify, request

from crdt_sessions.errors import BadParameter, NotFound
from crdt_sessions.ids import Millis, SessionId, name_of, session_id
from crdt_sessions.model import ANY_AGENT, CallResult, Run, RunInput, SessionView, ToolPart, answer_to
from crdt_sessions.model.runs import output_id
from crdt_sessions.model.strings import AgentName, derived
from crdt_sessions.runtime import Session, SessionRegistry, known_agents, until_taken
from crdt_sessions_server.auth import Permission, Principal, current_admitted, current_principal, live_access
from crdt_sessions_server.gateways.chat_messages import Beside, Chat, ChatMessage, Placed, place, read
from crdt_sessions_server.gateways.completions import ID, Encoder, chunks, whole
from crdt_sessions_server.gateways.conversation import RUN_HEADER, SESSION_HEADER, Question, ask, continuation
from crdt_sessions_server.gateways.front_end import FrontEnd, bring, called_in_client
from crdt_sessions_server.gateways.inputs import input_of, tool_of
from crdt_sessions_server.gateways.parameters import model_of, parameters_of
from crdt_sessions_server.gateways.run_lookup import writer_of
from crdt_sessions_server.gateways.who_asks import asked_in_body, check_agent, who_asks
from crdt_sessions_server.http.describing import LINES, SSE, Parameter, answers, reads, refuses, tag
from crdt_sessions_server.http.paths import from_header, header_value
from crdt_sessions_server.http.problems import MEDIA_TYPE, URN
from crdt_sessions_server.http.schemas import JSON
from crdt_sessions_server.http.streaming import DONE, compact, data_frames, going_on, waited_for
from crdt_sessions_server.http.validation import validate_request
from crdt_sessions_server.rest.client_calls import DEVICE_HEADER, PAGE
from crdt_sessions_server.rest.sessions import creates

_PREFIX = "/v1/gateways/openai"
_FAR_FUTURE = 10**13 - 1
"""A time in milliseconds: differences from it have 13 digits for centuries."""
_REPEATED_MS = 3_600_000
"""How long a client may repeat a request: clients time out after ten minutes and try three times."""
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool = False


class Completion(BaseModel):
    """A request for a completion."""

    model_config = ConfigDict(extra="allow")

    model: AgentName = Field(
        ANY_AGENT, description="The agent; * for any. `<agent>/<model>` also hands on a model to the agent."
    )
    messages: Annotated[list[ChatMessage], Field(fail_fast=True)] = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    agent: AgentName | None = Field(None, description="The agent, if the model is meant for it and not its name.")
    tools: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = Field(
        None, description="Functions of the client's."
    )

    def asked(self, agents: Collection[str]) -> tuple[str, str | None]:
        """Return the agent that is asked, of those there are, and the model that is handed on to it."""
        if self.agent is not None:
            return self.agent, self.model if self.model != ANY_AGENT else None
        agent, slash, model = self.model.partition("/")
        if slash and model and self.model not in agents and agent in agents:
            return agent, model
        return self.model, None

    @property
    def function_names(self) -> set[str]:
        """The names of the functions that the client can call."""
        return {name for function in self._functions if isinstance(name := function.get("name"), str)}

    @property
    def _functions(self) -> list[dict[str, Any]]:
        return [tool["function"] for tool in self.tools or () if isinstance(tool.get("function"), dict)]

    def input(self, model: str | None) -> RunInput | None:
        """What the request gives the agent, with the *model* that is handed on.

        Raises:
            BadParameter, TooLarge: it is no input, or exceeds its bounds.
        """
        functions = self._functions
        others = [tool for tool in self.tools or () if not isinstance(tool.get("function"), dict)]
        extra = {**(self.model_extra or {}), "model": model} | ({"tools": others} if others else {})
        return input_of(extra, tools=[tool_of(function) for function in functions])


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a request says in its headers.

    Args:
        key: ``Idempotency-Key``: another key is another request, whatever its body says.
        again: whether the client says that it repeats a request.
    """

    key: str | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The run that answers a request.

    Args:
        run: the run.
        skip: how many parts of its message the client has.
        known: whether all that the request brings was there already.
    """

    run: Run
    skip: int = 0
    known: bool = False


def blueprint(registry: SessionRegistry) -> Blueprint:
    """Return the routes."""
    openai = Blueprint("openai", __name__, url_prefix=_PREFIX)

    @openai.post("/chat/completions")
    @tag(["gateways"])
    @validate_request(Completion)
    @reads(
        Parameter(SESSION_HEADER, "The session; a new one is made if absent."),
        Parameter("Idempotency-Key", "Another key is another request."),
        Parameter("X-Stainless-Retry-Count", "How often the client has repeated the request."),
        PAGE,
    )
    @answers(
        200,
        {JSON: {"type": "object"}, SSE: LINES},
        "A completion, or its chunks if `stream` is set.",
        {SESSION_HEADER: "The session.", RUN_HEADER: "The run."},
    )
    @answers(502, {JSON: {"type": "object"}}, "The agent failed.")
    @refuses(NotFound)
    async def complete(data: Completion) -> Response:
        """Ask an agent; the answer is a completion, or its chunks if ``stream`` is set.

        404 if there is no such agent. 503 if the agent stays away for a while; the question is kept, and the same
        request gets the answer later.
        """
        count = request.headers.get("X-Stainless-Retry-Count", "0")
        attempt = Attempt(request.headers.get("Idempotency-Key"), count.isdecimal() and count.strip("0") != "")
        chat = from_header(request.headers.get(SESSION_HEADER, ""))
        if not chat:
            chat = await _session_for(registry, data, attempt, await who_asks())
        principal, name = await asked_in_body(chat)
        agent, model = data.asked(await _agents(registry, principal))
        await check_agent(registry, principal, agent, what="model")
        asked = await receive(registry, name, data, principal, attempt, agent=agent, given=data.input(model))
        async with registry.open(name) as session:
            taken = until_taken(registry, session, asked.run.id, or_busy=data.stream)
            await live_access().allowed(current_admitted(), taken)
        headers = {SESSION_HEADER: header_value(chat), RUN_HEADER: header_value(asked.run.id)}
        page = request.headers.get(DEVICE_HEADER)
        front = FrontEnd(registry, principal, data.function_names, page, looks=asked.known)
        if data.stream:
            usage = data.stream_options is not None and data.stream_options.include_usage
            encoder = Encoder(asked.run, data.model, skip=asked.skip, usage=usage, front=front)
            return going_on(data_frames(chunks(registry, name, asked.run, encoder), DONE), headers=headers)
        answer = await waited_for(lambda: whole(registry, name, asked.run, data.model, skip=asked.skip, front=front))
        answer.headers.extend(headers)
        return answer

    _reading_route(openai, registry)
    _model_routes(openai, registry)

    @openai.after_app_request
    async def encode_errors(response: Response) -> Response:
        if request.path.startswith(f"{_PREFIX}/") and response.mimetype == MEDIA_TYPE:
            problem = json.loads(await response.get_data())
            response.set_data(compact({"error": _error(problem)}))
            response.content_type = "application/json"
            if response.status_code == 409:  # clients repeat requests after a 409, in vain here
                response.headers["x-should-retry"] = "false"
        return response

    return openai


def _reading_route(openai: Blueprint, registry: SessionRegistry) -> None:
    @openai.get("/chat/completions/<completion>")
    @tag(["gateways"])
    @reads(Parameter(SESSION_HEADER, "The session.", required=True))
    @answers(
        200,
        {JSON: {"type": "object"}},
        "The completion, with the parameters of the request.",
        {SESSION_HEADER: "The session.", RUN_HEADER: "The run."},
    )
    @answers(502, {JSON: {"type": "object"}}, "The agent failed.")
    @refuses(NotFound, BadParameter)
    async def completion(completion: str) -> Response:
        """Return a completion once it is whole, and what was asked with: tools, metadata, settings."""
        chat = from_header(request.headers.get(SESSION_HEADER, ""))
        if not chat:
            await who_asks()
            raise BadParameter(name=SESSION_HEADER, text="")
        _, name = await asked_in_body(chat, Permission.READ)
        async with registry.open(name) as session:
            await session.readable()
            run = session.view.runs.value(completion.removeprefix(ID))
            if run is None or run.request is None or not completion.startswith(ID):
                raise NotFound(what="completion", id=completion)
            taken = until_taken(registry, session, run.id)
            await live_access().allowed(current_admitted(), taken)
        answer = await waited_for(lambda: whole(registry, name, run, model_of(run), beside=parameters_of(run.input)))
        answer.headers.extend({SESSION_HEADER: header_value(chat), RUN_HEADER: header_value(run.id)})
        return answer


def _model_routes(openai: Blueprint, registry: SessionRegistry) -> None:
    @openai.get("/models")
    @tag(["gateways"])
    @answers(200, {JSON: {"type": "object"}})
    async def models() -> Response:
        """List the agents: any, the default of new sessions, and those that are connected."""
        listed = [_model(name) for name in await _agents(registry, current_principal())]
        return jsonify({"object": "list", "data": listed})

    @openai.get("/models/<path:model>")
    @tag(["gateways"])
    @answers(200, {JSON: {"type": "object"}})
    async def model(model: str) -> Response:
        """Return one of the agents."""
        known = await _agents(registry, current_principal())
        if model not in known:
            raise NotFound(what="model", id=model, known=known)
        return jsonify(_model(model))


async def _agents(registry: SessionRegistry, principal: Principal) -> list[str]:
    known = (registry.rules.default_agent or ANY_AGENT, ANY_AGENT, *await known_agents(registry, principal.tenant))
    return list(dict.fromkeys(known))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "crdt-sessions"}


def _error(problem: dict[str, Any]) -> dict[str, Any]:
    """Return OpenAI's error for a problem document."""
    status, code = problem["status"], problem["type"].removeprefix(URN).replace("-", "_")
    if status == 404 and problem.get("what") == "model":
        code = "model_not_found"
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    fields = problem.get("errors") or [{}]
    return {
        "message": problem["detail"],
        "type": kind,
        "param": fields[0].get("field"),
        "code": _CODES.get(status, code),
    }


async def _session_for(registry: SessionRegistry, data: Completion, attempt: Attempt, principal: Principal) -> str:
    """Return the name of a new session, or of the one that the same request made before.

    A client that got no answer does not know the session's name either. So the name is made of the request.
    """
    request_is = attempt.key if attempt.key is not None else data.model_dump(mode="json")
    prefix = f"chat-{_digest([principal.id, request_is])}"
    if attempt.key is not None:
        return prefix
    now = registry.clock.now()
    if attempt.again:
        earlier = session_id(f"{prefix}-", principal.tenant)
        for record in await registry.store.sessions(after=earlier, limit=1, tenant=principal.tenant):
            if record.id.startswith(earlier) and now - record.created_at < _REPEATED_MS:
                return name_of(record.id)
    return f"{prefix}-{_FAR_FUTURE - now:013d}-{uuid.uuid4().hex[:8]}"  # the newest stands first


def _digest(value: Any) -> str:
    return hashlib.sha256(compact(value).encode("utf-8", "surrogatepass")).hexdigest()[:24]


async def receive(
    registry: SessionRegistry,
    name: SessionId,
    data: Completion,
    principal: Principal,
    attempt: Attempt,
    *,
    agent: str,
    given: RunInput | None = None,
) -> Asked:
    """Record a request; return the run to follow.

    Raises:
        NotFound: there is nothing to answer or continue.
    """
    chat, now = read(data.messages), registry.clock.now()
    async with registry.open(name, create=creates(registry, principal), by=principal.id) as session:
        view, beside = session.view, Beside(session.view)
        key = f"msg-{_digest([principal.id, attempt.key])}" if attempt.key is not None else None
        placed = place(view, beside, chat, principal.id, same=attempt.again, question=key)
        if (going := await _brought(session, beside, chat, principal, now)) is not None:
            return going
        if chat.last_results:
            question, skip = _continuing(view, beside, chat, placed, agent)
        else:
            question, skip = _asking(beside, placed, agent), 0
        question = replace(question, input=given)
        runs = _requested(view, question)
        if key is not None:
            question = replace(question, run=answer_to(key))
        elif runs and (attempt.again or not runs[-1].over or runs[-1].status == "completed"):
            question = replace(question, run=runs[-1].id)  # it was asked already, and has its answer or will have it
        elif runs and question.run is not None:
            question = replace(question, run=derived("", question.run, f"-{len(runs) + 1}"))
        if runs and question.trigger == "submit":
            question = replace(question, trigger="regenerate")  # no effect on a run that was requested before
        run = await ask(session, replace(question, also=_also(view, beside, chat, placed)), principal, now)
        known = any(each.id == run.id for each in runs)
        return Asked(run, skip if output_id(run) == question.asked else 0, known)


async def _brought(session: Session, beside: Beside, chat: Chat, principal: Principal, now: Millis) -> Asked | None:
    """Record the results of calls that were given to one client each; return the run that goes on with them."""
    known = beside.calling(chat.last_results)
    run = writer_of(session.view, known.id) if known is not None else None
    leased = {
        call: CallResult(output=chat.results[call], at=0)
        for call in chat.last_results
        if known is not None and called_in_client(session, known.id, call)
    }
    if known is None or run is None or not leased:
        return None
    await bring(session, principal, known.id, leased, now)
    places = [at for at, part in enumerate(known.parts) if isinstance(part, ToolPart) and part.tool_call_id in leased]
    return Asked(run, places[-1] + 1)


def _requested(view: SessionView, question: Question) -> list[Run]:
    """Return the runs that were requested for *question*, oldest first."""
    if (begins := question.run) is not None:
        return view.runs.values(run_id for run_id in view.runs.ids() if run_id.startswith(begins))
    asked = view.runs.asked_of(question.asked) if question.asked is not None else []
    return [run for run in asked if run.request is not None and run.request.trigger != "continue"]


def _asking(beside: Beside, placed: Placed, agent: str) -> Question:
    if placed.question is None:
        raise NotFound(what="message to answer", id="")
    answered = any(message.reply_to == placed.question for message in beside.messages)
    return Question(placed.transcript, agent, "regenerate" if answered else "submit", placed.question)


def _continuing(view: SessionView, beside: Beside, chat: Chat, placed: Placed, agent: str) -> tuple[Question, int]:
    """Return the question that continues with the tools' results, and how many parts of the answer the client has."""
    calls = chat.last_results
    known = beside.calling(calls)
    last = placed.transcript[-1] if placed.transcript else None
    parts = known.parts if known is not None else last.parts if last is not None else ()
    called = [at for at, part in enumerate(parts) if isinstance(part, ToolPart) and part.tool_call_id in calls]
    asked = known.id if known is not None else last.id if last is not None else None
    if asked is None or not called:
        raise NotFound(what="tool call", id=calls[0])
    return Question(placed.transcript, agent, "continue", asked, run=continuation(asked, calls)), called[-1] + 1


def _also(view: SessionView, beside: Beside, chat: Chat, placed: Placed) -> Callable[[SessionView], None]:
    """Return a function that writes the results of the client's tools, and the prompts that changed."""
    left = {call: message for call, message in beside.calls_left().items() if call in chat.results}
    owners = {message: view.messages[message].run_id for message in left.values()}
    over = {message for message, owner in owners.items() if owner is None or view.runs.find(owner).over}

    def write(view: SessionView) -> None:
        for call, message in left.items():
            tool = view.messages[message].tool(call)
            if tool is not None and message in over:
                tool.output(chat.results[call])
        for message, turn in placed.prompts.items():
            parts = view.messages[message].parts
            parts.clear()
            for part in turn.parts:
                view.messages[message].add_part(part)

    return write
