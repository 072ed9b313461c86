"""The MCP server: which requests it answers, and how errors are told.

It keeps nothing of its own but the sessions that the protocol had until 2025-11-25, and subscriptions.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

from mcp.server import InitializationOptions, NotificationOptions, Server, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ElicitResult,
    InputRequiredResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextContent,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from crdt_sessions.errors import CrdtSessionsError, NotFound, RequestRefused
from crdt_sessions.model import Run, ToolPart
from crdt_sessions_server.http.complaints import complaints
from crdt_sessions_server.mcp import resources, tasks
from crdt_sessions_server.mcp.answers import Answer, answer_now, settled
from crdt_sessions_server.mcp.api import Api, Json, path_of
from crdt_sessions_server.mcp.asks import form_of, verdict_of
from crdt_sessions_server.mcp.subscriptions import Subscriptions
from crdt_sessions_server.mcp.tools import TOOLS, AnswerOf

Context = ServerRequestContext[Any, Any]
Result = TypeVar("Result")

_log = logging.getLogger("crdt_sessions.mcp")
_NO_SUCH_RESOURCE = -32002
"""What the protocol called it until 2025-11-25; since then it is a parameter that is wrong."""
_INSTRUCTIONS = (
    "Sessions are conversations of people and AI agents that last: what is said in one is kept, and many devices may"
    " be in it at once. Use ask to have an agent of a session answer something."
)


class Conversations:
    """Answers ``tools/call``.

    Args:
        api_of: in whose name a request is made.
    """

    def __init__(self, api_of: Callable[[Context], Api]) -> None:
        self._api_of = api_of

    async def call(
        self, context: Context, params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult | Json:
        """Do what a tool does; what goes wrong is a result that says so, for the model to read."""
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r}; there are {', '.join(TOOLS)}")
        api = self._api_of(context)
        try:
            given = tool.arguments.model_validate(params.arguments or {})
            if params.request_state is not None:
                awaited = _of_state(params.request_state, getattr(given, "wait", 0.0))
                return await self._answered(api, context, awaited, params.input_responses or {})
            found = await tool.call(api, given)
            if isinstance(found, AnswerOf):
                return await self._first(api, context, found)
        except ValidationError as error:
            said = complaints(error, params.arguments or {})
            return _refusal("; ".join(f"{field or 'the arguments'} {why}" for field, why in said))
        except CrdtSessionsError as error:
            return _refusal(_sentence(error), _problem(error))
        return CallToolResult(
            content=[TextContent(text=json.dumps(found, ensure_ascii=False))], structured_content=found
        )

    async def answerable(self, api: Api, answer: Answer) -> list[ToolPart]:
        """Return the calls of a run that wait for the caller, perhaps among others."""
        calls = answer.calls
        if not calls:
            return []
        me = await api.get("/v1/me", session=answer.session)
        if "decide" not in me["permissions"]:
            return []
        return [call for call in calls if me["anonymous"] or _asks(call, me["principal"])]

    async def decide(self, api: Api, answer: Answer, said: Mapping[str, Any]) -> None:
        """Decide about calls of a run as somebody answered. What is settled already stays so.

        Raises:
            NotFound: one of them does not wait.
            RequestRefused: an answer cannot count.
        """
        calls = {call.tool_call_id: call for call in answer.calls}
        for key, each in said.items():
            if key in calls:
                await self._decide(api, answer, calls[key], each)
            elif not answer.has(key):
                raise NotFound(what="tool call that waits for people", id=key, known=list(calls))

    async def _first(
        self, api: Api, context: Context, awaited: AnswerOf
    ) -> CallToolResult | InputRequiredResult | Json:
        modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
        if modern and tasks.takes_tasks(context.session.client_capabilities):
            return tasks.created(await answer_now(api, awaited.session, awaited.run))
        return await self._answered(api, context, awaited, {})

    async def _answered(
        self, api: Api, context: Context, awaited: AnswerOf, said: Mapping[str, Any]
    ) -> CallToolResult | InputRequiredResult:
        """Wait for an answer; where it waits for people, ask the client's."""
        if said:
            await self.decide(api, await answer_now(api, awaited.session, awaited.run), said)
        seen = 0

        async def tell(run: Run) -> None:
            nonlocal seen
            seen += 1
            await context.session.report_progress(seen, message=f"{run.agent}: {run.status}")

        while True:
            answer = await settled(api, awaited.session, awaited.run, awaited.wait_s, tell)
            calls = await self.answerable(api, answer)
            capabilities = context.session.client_capabilities
            if not calls or capabilities is None or capabilities.elicitation is None:
                return answer.result
            if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
                state = json.dumps([answer.session, answer.run.id])
                return InputRequiredResult(input_requests=dict(tasks.requests_of(calls)), request_state=state)
            if not await self._elicited(api, context, answer, calls[0]):
                return answer.result

    async def _elicited(self, api: Api, context: Context, answer: Answer, call: ToolPart) -> bool:
        """Have the client ask its people; return whether it is decided, by them or by anybody else meanwhile."""
        form = form_of(call)
        asking = asyncio.ensure_future(
            context.session.elicit_form(form.message, form.requested_schema, context.request_id)
        )
        watching = asyncio.ensure_future(_no_more(api, answer, call))
        try:
            await asyncio.wait({asking, watching}, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return await self._decide(api, answer, call, asking.result())
            watching.result()
            return True
        finally:
            for each in (asking, watching):
                each.cancel()
            await asyncio.gather(asking, watching, return_exceptions=True)

    async def _decide(self, api: Api, answer: Answer, call: ToolPart, said: Any) -> bool:
        try:
            body = verdict_of(call, ElicitResult.model_validate(said, from_attributes=True))
        except ValueError as error:
            raise RequestRefused(status=422, problem={"detail": f"the answer is no JSON: {error}"}) from None
        if body is None:
            return False
        path = path_of(answer.session, "runs", answer.run.id, "approvals", call.tool_call_id)
        try:
            await api.post(path, body)
        except RequestRefused as error:
            if not str(error.problem.get("type", "")).endswith(":already-decided"):
                raise
            _log.info("somebody else has decided about %r", call.tool_call_id)
        return True


async def _no_more(api: Api, answer: Answer, call: ToolPart) -> None:
    """Return once a call waits for nobody any more."""
    async for page in api.events(answer.session, "run"):
        for event in page:
            data = event["data"]
            waiting = [each["toolCallId"] for each in data.get("pending") or ()]
            if event["event"] == "run" and data["id"] == answer.run.id and call.tool_call_id not in waiting:
                return


class _Server(Server[Any]):
    """The library's server, which says to clients of the older protocol as well that it tells of changed lists."""

    def create_initialization_options(
        self, notification_options: NotificationOptions | None = None, *more: Any, **others: Any
    ) -> InitializationOptions:
        told = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(told, *more, **others)


def build(api_of: Callable[[Context], Api]) -> Server[Any]:
    """Return the server.

    Args:
        api_of: returns in whose name a request is made.
    """
    conversations = Conversations(api_of)
    subscriptions = Subscriptions(api_of, lambda api, task: tasks.task_changes(api, task, conversations.answerable))

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[tool.listed for tool in TOOLS.values()])

    async def list_resources(context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        await subscriptions.listed(context)
        return await _told(context, resources.listed(api_of(context), params.cursor if params is not None else None))

    async def list_templates(context: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return resources.templates()

    async def read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        return await _told(context, resources.read(api_of(context), params.uri))

    async def subscribe(context: Context, params: Any) -> Any:
        return await _told(context, subscriptions.subscribe(context, params))

    server = _Server(
        "crdt-sessions",
        version=version("crdt-sessions"),
        title="Durable sessions",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=conversations.call,  # type: ignore[arg-type]  # a task is no result that it knows
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=subscriptions.unsubscribe,
        on_subscriptions_listen=subscriptions.listen,
    )
    tasks.install(server, api_of, conversations.answerable, conversations.decide, _told)
    return server


async def _told(context: Context, answer: Awaitable[Result]) -> Result:
    """Return what *answer* returns, or raise why there is none as an error of the protocol."""
    try:
        return await answer
    except CrdtSessionsError as error:
        problem = _problem(error)
        gone = problem is not None and problem.get("status") in (404, 410)
        code = INTERNAL_ERROR if problem is not None and not gone else INVALID_PARAMS
        if gone and context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            code = _NO_SUCH_RESOURCE
        raise MCPError(code, _sentence(error), problem) from None


def _asks(call: ToolPart, principal: str) -> bool:
    request = call.approval_request
    return request is None or request.approvers is None or principal in request.approvers


def _of_state(state: str, wait_s: float) -> AnswerOf:
    """Return what a client was told to come back with. It may be anything: it says no more than arguments do."""
    try:
        session, run = json.loads(state)
        return AnswerOf(str(session), str(run), wait_s)
    except (ValueError, TypeError):
        raise MCPError(INVALID_PARAMS, "requestState is none that this server has made") from None


def _refusal(why: str, problem: Json | None = None) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=why)], structured_content=problem, is_error=True)


def _problem(error: CrdtSessionsError) -> Json | None:
    return dict(error.problem) if isinstance(error, RequestRefused) else None


def _sentence(error: CrdtSessionsError) -> str:
    problem = _problem(error)
    return str(problem.get("detail") or error) if problem is not None else str(error)
