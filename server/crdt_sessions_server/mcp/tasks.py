"""Runs as tasks: the extension ``io.modelcontextprotocol/tasks`` of 2026-07-28 (SEP-2663).

A task is a run, and its id names the session and the run: nothing is kept here, and a task outlives the connection,
the process and the machine, as the run does. Source: the extension's specification, schema 2026-07-28.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import METHOD_NOT_FOUND, ClientCapabilities, ElicitRequest, ElicitResult, RequestParams
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field

from crdt_sessions.errors import BadParameter
from crdt_sessions.model import Run, ToolPart
from crdt_sessions_server.mcp.answers import Answer, answer_now
from crdt_sessions_server.mcp.api import Api, Json, path_of
from crdt_sessions_server.mcp.asks import form_of

EXTENSION = "io.modelcontextprotocol/tasks"
_POLL_MS = 1000

Context = ServerRequestContext[Any, Any]


class TaskParams(RequestParams):
    """Which task."""

    task_id: str = Field(alias="taskId")


class UpdateParams(TaskParams):
    """What was answered."""

    input_responses: dict[str, ElicitResult] = Field(alias="inputResponses")


def takes_tasks(capabilities: ClientCapabilities | None) -> bool:
    """Whether a client can be given a task instead of a result."""
    return capabilities is not None and EXTENSION in (capabilities.extensions or {})


def requests_of(calls: list[ToolPart]) -> dict[str, ElicitRequest]:
    """Return what people are asked, by tool call."""
    return {call.tool_call_id: ElicitRequest(params=form_of(call)) for call in calls}


def created(answer: Answer) -> Json:
    """Return what answers ``tools/call`` instead of the result."""
    return {"resultType": "task", **_head(answer), "status": _status(answer, [])}


async def task_changes(
    api: Api, task: str, answerable: Callable[[Api, Answer], Awaitable[list[ToolPart]]]
) -> AsyncGenerator[Json, None]:
    """Yield once a task is followed, and then how it is, whenever that changes, until it has ended.

    Raises:
        BadParameter: it is the id of no task.
        RequestRefused: there is none, or it is none of the caller's business.
    """
    session, run = _named(task)
    await api.run(session, run)
    yield {}
    async with aclosing(api.events(session, "run")) as pages:
        async for page in pages:
            if any(event["event"] == "run" and event["data"]["id"] == run for event in page):
                found = await answer_now(api, session, run)
                yield _told(found, await answerable(api, found))
                if found.run.over:
                    return


def install(
    server: Server[Any],
    api_of: Callable[[Context], Api],
    answerable: Callable[[Api, Answer], Awaitable[list[ToolPart]]],
    answer: Callable[[Api, Answer, Mapping[str, ElicitResult]], Awaitable[None]],
    told: Callable[[Context, Awaitable[Json]], Awaitable[Json]],
) -> None:
    """Make *server* answer requests about tasks.

    Args:
        server: the server.
        api_of: in whose name a request is made.
        answerable: returns the calls that a caller may decide about.
        answer: decides about calls.
        told: raises errors as those of the protocol.
    """

    async def get(api: Api, params: TaskParams) -> Json:
        found = await answer_now(api, *_named(params.task_id))
        return _told(found, await answerable(api, found))

    async def update(api: Api, params: UpdateParams) -> Json:
        await answer(api, await answer_now(api, *_named(params.task_id)), params.input_responses)
        return {}

    async def cancel(api: Api, params: TaskParams) -> Json:
        session, run = _named(params.task_id)
        await api.post(path_of(session, "runs", run, "cancel"), {})
        return {}

    def serve(method: str, kind: type[BaseModel], handler: Callable[[Api, Any], Awaitable[Json]]) -> None:
        async def answered(context: Context, params: Any) -> Json:
            if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
                raise MCPError(METHOD_NOT_FOUND, "Method not found", method)
            return await told(context, handler(api_of(context), params))

        server.add_request_handler(method, kind, answered)

    server.extensions[EXTENSION] = {}
    serve("tasks/get", TaskParams, get)
    serve("tasks/update", UpdateParams, update)
    serve("tasks/cancel", TaskParams, cancel)


def _told(answer: Answer, calls: list[ToolPart]) -> Json:
    status = _status(answer, calls)
    told = _head(answer) | {"status": status}
    if status == "input_required":
        told["inputRequests"] = {
            key: request.model_dump(by_alias=True, mode="json", exclude_none=True)
            for key, request in requests_of(calls).items()
        }
    if status == "completed":
        told["result"] = answer.result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return told


def _status(answer: Answer, calls: list[ToolPart]) -> str:
    """Return the status. A run that failed is a task with a result, which says that it is an error."""
    if answer.run.over:
        return "cancelled" if answer.run.status == "cancelled" else "completed"
    return "input_required" if calls else "working"


def _head(answer: Answer) -> Json:
    run = answer.run
    asked = run.request.created_at if run.request is not None else 0
    last = (
        run.outcome.ended_at if run.outcome is not None else run.lease.claimed_at if run.lease is not None else asked
    )
    return {
        "taskId": f"{quote(answer.session, safe='')}/{quote(run.id, safe='')}",
        "statusMessage": _sentence(run),
        "createdAt": _time(asked),
        "lastUpdatedAt": _time(max(asked, last)),
        "ttlMs": None,
        "pollIntervalMs": _POLL_MS,
    }


def _sentence(run: Run) -> str:
    return f"The run of {run.agent or 'an agent'} is {run.status or 'queued'}."


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _named(task: str) -> tuple[str, str]:
    """Return the session and the run that a task is.

    Raises:
        BadParameter: it is the id of no task.
    """
    session, slash, run = task.partition("/")
    if not (session and slash and run):
        raise BadParameter(name="taskId", text=task)
    return unquote(session), unquote(run)
