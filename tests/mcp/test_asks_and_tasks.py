"""What agents ask people is asked of a client's people, and a run is a task."""

import asyncio
import contextlib
import json
import sys
from typing import Literal

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client import ClientExtension, ResultClaim
from mcp.types import CallToolResult, ElicitResult, Request, RequestParams, Result
from pydantic import ConfigDict, TypeAdapter

from crdt_sessions.model import ToolPart
from crdt_sessions_server.mcp.asks import form_of, verdict_of
from tests.mcp.conftest import VERSIONS, client
from tests.processes import PATIENCE, ROOT


def people(*said):
    """Return an elicitation callback that gives these answers, and the forms it was shown."""
    shown, left = [], list(said)

    async def ask(context, params):
        shown.append(params)
        answer = left.pop(0)
        return (
            ElicitResult(action=answer) if isinstance(answer, str) else ElicitResult(action="accept", content=answer)
        )

    return ask, shown


@pytest.mark.parametrize(
    ("question", "said", "end"),
    [
        ("ask pay; say 1", {"reason": "go on"}, "naïve "),
        ("choose", {"answer": "Bergen"}, "to Bergen "),
        ("choose", "decline", "to nowhere "),
        ("edit pay; say 1", {"amount": 7}, "naïve "),
    ],
)
@pytest.mark.sampled(2)
async def test_people_are_asked_and_the_answer_goes_on(service, version, room, question, said, end):
    ask, shown = people(said)
    async with client(service.url, VERSIONS[version], elicitation_callback=ask) as mcp:
        answer = await mcp.call_tool("ask", {"session": room, "text": question})
        assert answer.structured_content["status"] == "completed"
        assert answer.structured_content["text"] == end
        if question.startswith("edit"):
            messages = (await mcp.call_tool("read_session", {"session": room})).structured_content["messages"]
            assert [part["output"] for part in messages[1]["parts"] if part["type"] == "tool"] == [{"amount": 7}]
    assert len(shown) == 1


async def test_who_cancels_has_not_decided_and_others_may(service, version, room):
    ask, _ = people(*["cancel"] * 20)
    async with client(service.url, VERSIONS[version], elicitation_callback=ask, input_required_max_rounds=2) as mcp:
        if version == "2026-07-28":  # the client asks again, until it has enough
            with pytest.raises(RuntimeError, match="more than 2 rounds"):
                await mcp.call_tool("ask", {"session": room, "text": "ask pay", "id": "q"})
        else:
            waiting = await mcp.call_tool("ask", {"session": room, "text": "ask pay", "id": "q"})
            assert waiting.structured_content["status"] == "suspended"
    async with client(service.url, VERSIONS[version]) as mcp:
        waiting = await mcp.call_tool("wait_for_answer", {"session": room, "run": "run-q"})
        (pending,) = waiting.structured_content["pending"]
        given = {"session": room, "run": "run-q", "call": pending["toolCallId"], "approved": True}
        assert not (await mcp.call_tool("answer_ask", given)).is_error
        over = await mcp.call_tool("wait_for_answer", {"session": room, "run": "run-q"})
        assert over.structured_content["status"] == "completed"


async def test_what_somebody_else_decides_meanwhile_counts(service, version, room):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:

        async def other(context, params):
            run = (await http.get(f"/v1/sessions/{room}/runs/run-q")).json()
            call = run["pending"][0]["toolCallId"]
            await http.post(f"/v1/sessions/{room}/runs/run-q/approvals/{call}", json={"approved": False})
            if version == "2026-07-28":  # where nobody can be told not to ask any more
                return ElicitResult(action="accept", content={})
            await asyncio.get_running_loop().create_future()

        async with client(service.url, VERSIONS[version], elicitation_callback=other) as mcp:
            answer = await mcp.call_tool("ask", {"session": room, "text": "ask pay; say 1", "id": "q"})
            assert answer.structured_content["status"] == "completed"
        messages = (await http.get(f"/v1/sessions/{room}/messages")).json()["messages"]
        assert [part["approval"]["approved"] for part in messages[1]["parts"] if part["type"] == "tool"] == [False]


# -- tasks ---------------------------------------------------------------------------------------------------------------


class Created(Result):
    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = "task"


class Named(RequestParams):
    model_config = ConfigDict(extra="allow")


class Tasks(ClientExtension):
    """The extension as a client has it: polls, asks its people, and returns the result."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, *said):
        self.said, self.seen, self.ids = list(said), [], []

    def claims(self):
        return [ResultClaim(result_type="task", model=Created, resolve=self.follow)]

    async def request(self, session, method, **params):
        request = Request[Named, str](method=method, params=Named.model_validate(params))
        return await session.send_request(request, TypeAdapter(dict))

    async def follow(self, created, context):
        task = created.model_extra
        self.ids.append(task["taskId"])
        async with asyncio.timeout(PATIENCE):
            while True:
                told = await self.request(context.session, "tasks/get", taskId=task["taskId"])
                if told["status"] not in self.seen[-1:]:
                    self.seen.append(told["status"])
                if told["status"] == "completed":
                    return CallToolResult.model_validate(told["result"])
                if told["status"] == "cancelled":
                    return CallToolResult(content=[], is_error=True)
                if told["status"] == "input_required":
                    said = self.said.pop(0)
                    if said == "leave":
                        return CallToolResult(content=[])
                    if said == "stop":
                        await self.request(context.session, "tasks/cancel", taskId=task["taskId"])
                    else:
                        answers = {key: {"action": "accept", "content": said} for key in told["inputRequests"]}
                        await self.request(
                            context.session, "tasks/update", taskId=task["taskId"], inputResponses=answers
                        )
                await asyncio.sleep(0.05)


async def test_a_run_is_a_task_that_asks_and_has_a_result(service, room):
    tasks = Tasks({"answer": "Oslo"})
    async with client(service.url, extensions=[tasks]) as mcp:
        answer = await mcp.call_tool("ask", {"session": room, "text": "choose; fail with it"})
        assert answer.is_error
        assert answer.structured_content["text"] == "to Oslo "
    assert tasks.seen[-1] == "completed"
    assert "input_required" in tasks.seen


async def test_a_task_is_cancelled_like_any_run(service, room):
    tasks = Tasks("stop")
    async with client(service.url, extensions=[tasks]) as mcp:
        assert (await mcp.call_tool("ask", {"session": room, "text": "choose", "id": "q"})).is_error
    run = httpx.get(f"{service.url}/v1/sessions/{room}/runs/run-q").json()
    assert run["status"] == "cancelled"
    assert tasks.ids == [f"{room}/run-q"]


# -- standard input and output ------------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
async def test_a_program_is_a_server_of_the_same_sessions(service, version, room):
    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "crdt_sessions_server", "mcp", "--url", service.url],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'server'}"},
    )
    ask, _ = people({})
    async with Client(command, mode=VERSIONS[version], cache=None, elicitation_callback=ask) as mcp:
        answer = await mcp.call_tool("ask", {"session": room, "text": "ask pay; say 1"})
        assert answer.structured_content["status"] == "completed"
        found = json.loads((await mcp.read_resource(f"session://{room}")).contents[0].text)
        assert found["messages"] == 2


# -- forms ---------------------------------------------------------------------------------------------------------------


def call(kind, schema=None, default=None, input=None):
    request = {"kind": kind, "schema": schema, "default": default, "requestedAt": 1}
    return ToolPart.model_validate(
        {"type": "tool", "toolCallId": "c", "toolName": "t", "input": input,
         "approvalRequest": {key: value for key, value in request.items() if value is not None}}
    )  # fmt: skip


SEAT = {
    "type": "object",
    "properties": {"row": {"type": "integer"}, "window": {"type": "boolean"}},
    "required": ["row"],
}
NESTED = {"type": "object", "properties": {"seat": SEAT}}


@pytest.mark.parametrize(
    ("asked", "said", "value"),
    [
        (call("choose", {"enum": [1, 2.5, "x"]}), {"answer": "2.5"}, 2.5),
        (call("choose", {"oneOf": [{"const": True, "title": "Yes"}, {"const": None}]}), {"answer": "true"}, True),
        (call("form", SEAT), {"row": 3, "window": None}, {"row": 3}),
        (call("form", NESTED), {"answer": '{"seat": {"row": 3}}'}, {"seat": {"row": 3}}),
        (call("edit", SEAT, input={"row": 1}), {"row": 2}, {"row": 2}),
        (call("edit", input={"row": 1}), {"answer": '{"row": 2}'}, {"row": 2}),
    ],
)  # fmt: skip
def test_an_answer_has_the_form_that_the_agent_asked_for(asked, said, value):
    schema = form_of(asked).requested_schema
    assert set(said) <= set(schema["properties"])
    assert verdict_of(asked, ElicitResult(action="accept", content=said)) == {"approved": True, "value": value}


def test_input_that_is_not_changed_is_approved():
    asked = call("edit", SEAT, input={"row": 1})
    assert form_of(asked).requested_schema["properties"]["row"]["default"] == 1
    assert verdict_of(asked, ElicitResult(action="accept", content={"row": 1})) == {"approved": True}


async def test_a_task_is_told_of_until_it_has_ended(service, room):
    """A client of the extension listens to a task by its id; no package has that yet, so the bytes are ours."""
    url = f"{service.url}/v1/sessions/{room}"
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        await http.post(f"{url}/messages", json={"id": "q", "text": "ask pay; say 1", "agent": "writer"})
        task, heard = f"{room}/run-q", []
        wanted = {"taskIds": [task, "nobody/run", "none"]}
        async with asyncio.timeout(PATIENCE), listening(http, service.url, wanted) as lines:
            async for line in lines:
                if not line.startswith("data:"):
                    continue
                told = json.loads(line[5:])
                heard.append(told)
                params = told.get("params", {})
                if params.get("status") == "input_required":
                    (call,) = params["inputRequests"]
                    await http.post(f"{url}/runs/run-q/approvals/{call}", json={"approved": True})
                if params.get("status") == "completed":
                    break
    assert heard[0]["params"]["notifications"] == {"taskIds": [task]}, "those that there are"
    assert {each["method"] for each in heard[1:]} == {"notifications/tasks"}
    assert heard[-1]["params"]["taskId"] == task
    assert heard[-1]["params"]["result"]["structuredContent"]["text"] == "naïve "
    assert heard[-1]["params"]["ttlMs"] is None


@contextlib.asynccontextmanager
async def listening(http, url, wanted):
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    }
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "subscriptions/listen",
        "params": {"notifications": wanted, "_meta": meta},
    }
    headers = {
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "subscriptions/listen",
    }  # fmt: skip
    async with http.stream("POST", f"{url}/mcp", json=body, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        yield answer.aiter_lines()
