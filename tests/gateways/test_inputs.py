"""What clients send besides the conversation reaches the agent as ``run.input``, through each gateway."""

import asyncio
import json

import httpx
import openai
import pytest
from ag_ui.core import RunAgentInput
from hypothesis import given
from hypothesis import strategies as st

from crdt_sessions.errors import BadValue, TooLarge
from crdt_sessions.model import RunInput
from crdt_sessions_server.gateways.ag_ui.inputs import agent_input, input_in
from crdt_sessions_server.gateways.ai_sdk.chunks import body_of
from crdt_sessions_server.gateways.ai_sdk.inbound import ChatRequest
from crdt_sessions_server.gateways.inputs import SETTINGS, input_of, tool_of
from crdt_sessions_server.gateways.openai import Completion
from crdt_sessions_server.gateways.parameters import parameters_of
from tests.gateways.desk import desk
from tests.processes import PATIENCE

SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}}
LOOK = {"name": "look", "description": "Look out", "inputSchema": SCHEMA, "where": "client"}
TOWN = {"description": "The town", "value": "Oslo"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", min_size=1, max_size=2),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "name", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)
EXTRA = st.dictionaries(
    st.sampled_from(["model", "settings", "metadata", "selection", "user", *SETTINGS]),
    VALUES
    | st.sampled_from(
        [
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
            {"type": "function", "function": {"name": "look"}},
            {"temperature": None, "top_k": 3, "own": [1]},
        ]
    ),
    max_size=4,
)
"""What clients send beside their questions, well formed or not."""
TOOLS = st.lists(st.sampled_from([LOOK, {**LOOK, "name": "think", "where": "agent", "strict": True}]), unique_by=str)


def heard(text):
    """The input that the agent has said."""
    return json.loads(text)


# -- spelling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "setting"),
    [
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"top_p": 0.5, "max_tokens": 9}, {"topP": 0.5, "maxOutputTokens": 9}),
        ({"max_completion_tokens": 9}, {"maxOutputTokens": 9}),
        ({"stop": "END"}, {"stop": ["END"]}),
        ({"stopSequences": ["END"]}, {"stop": ["END"]}),
        ({"tool_choice": "required"}, {"toolChoice": "required"}),
        ({"tool_choice": {"type": "function", "function": {"name": "look"}}}, {"toolChoice": {"name": "look"}}),
        ({"toolChoice": {"type": "tool", "toolName": "look"}}, {"toolChoice": {"name": "look"}}),
        ({"toolChoice": {"type": "auto"}}, {"toolChoice": "auto"}),
        ({"response_format": {"type": "json_object"}}, {"responseFormat": {"type": "json"}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
            {"responseFormat": {"type": "json", "name": "a", "schema": SCHEMA}},
        ),
        ({"settings": {"top_k": 3, "own": [1]}}, {"topK": 3, "own": [1]}),
        ({"temperature": None}, {}),
    ],
)
def test_settings_are_spelled_in_one_way_whatever_the_protocol_calls_them(sent, setting):
    given = input_of({**sent, "user": "ann"})
    assert (given.settings, given.forwarded) == (setting, {"user": "ann"})


def test_a_request_without_anything_else_has_no_input():
    assert input_of({}) is None
    assert input_of({"model": None, "settings": {}, "metadata": {}}, metadata="of the message only") is None


def test_metadata_of_the_request_comes_on_top_of_that_of_the_message():
    given = input_of({"metadata": {"a": 2}, "model": "small"}, metadata={"a": 1, "b": 1})
    assert given == RunInput(model="small", metadata={"a": 2, "b": 1})


def test_properties_of_another_form_are_forwarded_as_they_came():
    sent = {"model": 5, "metadata": [1], "settings": "fast"}
    assert input_of(sent).to_json() == {"forwarded": sent}


def test_a_tool_runs_in_the_client_unless_it_says_otherwise():
    assert tool_of({"name": "look", "description": "Look out", "parameters": SCHEMA}) == LOOK
    assert tool_of({"name": "look", "inputSchema": {"jsonSchema": SCHEMA}, "where": "agent"})["where"] == "agent"


@given(EXTRA, TOOLS, st.lists(st.just(TOWN), max_size=1), st.none() | st.just({"tab": 3}))
def test_what_a_client_reads_back_asks_for_the_same_when_it_is_sent_again(extra, tools, context, metadata):
    found = input_of(extra, tools=[tool_of(tool) for tool in tools], context=context, metadata=metadata) or RunInput()

    message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "?"}], "metadata": metadata}
    body = body_of(found)
    assert (ChatRequest.model_validate({"id": "s", "messages": [message], **body}).input or RunInput()) == found

    if "metadata" in found.forwarded:  # what it has is the question's own, which other protocols do not have
        return
    again = RunAgentInput.model_validate(agent_input("s", "r", found))
    assert (input_in(again) or RunInput()) == found
    if "model" in found.forwarded:  # a model of OpenAI's is always a text
        return
    asked = Completion.model_validate({"messages": [{"role": "user", "content": "?"}], **parameters_of(found)})
    assert (asked.input(found.model) or RunInput()).replace(context=found.context) == found


@pytest.mark.parametrize(
    ("send", "why"),
    [
        (lambda found: found.ai_sdk([ui("u", "?")], tools=[{"name": ""}]), BadValue),
        (lambda found: found.ai_sdk([ui("u", "?")], filler="x" * 300_000), TooLarge),
        (lambda found: found.ag_ui([plain("u", "?")], "r", forwardedProps={"filler": "x" * 300_000}), TooLarge),
        (lambda found: found.ag_ui([plain("u", "?")], "r", tools=[client_tool(f"t{n}") for n in range(129)]), TooLarge),
        (lambda found: found.openai([{"role": "user", "content": "?"}], filler="x" * 300_000), TooLarge),
        (lambda found: found.openai([{"role": "user", "content": "?"}], metadata=json.loads("[" * 50 + "]" * 50)), BadValue),
    ],
)  # fmt: skip
async def test_an_input_that_cannot_be_taken_is_refused_and_nothing_is_written(send, why):
    async with desk() as found:
        with pytest.raises(why):
            await send(found)
        assert (found.view.messages.ids(), found.view.runs.ids()) == ([], [])


async def test_a_request_that_continues_without_an_input_has_that_of_the_run_before():
    async with desk() as found:
        run = await found.ag_ui([plain("u", "?")], "r", tools=[client_tool("look")])
        await found.answer(tools=[("c", "look", None)])
        chat = [
            plain("u", "?"),
            {"id": run.output or f"{run.id}-out", "role": "assistant", "content": "", "toolCalls": [
                {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ]},
            {"id": "t", "role": "tool", "toolCallId": "c", "content": "fog"},
        ]  # fmt: skip
        continued = await found.ag_ui(chat, "r2")
        assert continued.request.trigger == "continue"
        assert [tool.name for tool in continued.input.tools] == ["look"]


def ui(id, text):
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


def plain(id, text):
    return {"id": id, "role": "user", "content": text}


def client_tool(name):
    return {"name": name, "description": "Look out", "parameters": SCHEMA}


# -- real clients ------------------------------------------------------------------------------------------------------


@pytest.mark.interop
@pytest.mark.parametrize("transport", ["http", "ws"])
@pytest.mark.sampled(2)
async def test_the_ai_sdks_body_and_metadata_reach_the_agent(service, clients, room, transport):
    own = {"tools": {"look": {"description": "Look out", "inputSchema": SCHEMA}}, "temperature": 0.5}
    clients("ai.open", name=room, id=room, url=service.url, transport=transport, body=own)
    options = {"body": {"model": "small", "context": [TOWN], "toolChoice": {"type": "tool", "toolName": "look"},
                        "metadata": {"page": "cart"}, "selection": [1, 2]}}  # fmt: skip
    state = await clients.ask("ai.send", name=room, text="input", metadata={"tab": 3}, options=options)
    assert state["status"] == "ready", state.get("error")
    assert heard(state["messages"][-1]["parts"][-1]["text"]) == {
        "tools": [LOOK],
        "context": [TOWN],
        "model": "small",
        "settings": {"temperature": 0.5, "toolChoice": {"name": "look"}},
        "metadata": {"tab": 3, "page": "cart"},
        "forwarded": {"selection": [1, 2]},
    }
    about = state["messages"][-1]["metadata"]["input"]
    assert about == {
        "model": "small",
        "settings": {"temperature": 0.5, "toolChoice": {"name": "look"}},
        "metadata": {"tab": 3, "page": "cart"},
    }
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        history = (await http.get(f"/v1/gateways/ai-sdk/chat/{room}/messages")).json()
    assert history["messages"][-1] == state["messages"][-1]
    clients(
        "ai.open", name=f"{room}-again", id=room, url=service.url, messages=history["messages"], transport=transport
    )
    again = await clients.ask("ai.send", name=f"{room}-again", text="input", options={"body": history["body"]})
    assert heard(again["messages"][-1]["parts"][-1]["text"]) == heard(state["messages"][-1]["parts"][-1]["text"])


@pytest.mark.interop
async def test_ag_uis_tools_context_and_forwarded_properties_reach_the_agent(service, clients, room):
    clients("ag.open", name=room, url=service.url, thread=room)
    forwarded = {"model": "small", "temperature": 0.5, "metadata": {"page": "cart"}, "selection": [1, 2]}
    state = await clients.ask(
        "ag.run", name=room, message=plain("u", "input"),
        tools=[client_tool("look")], context=[TOWN], forwardedProps=forwarded,
    )  # fmt: skip
    assert state["error"] is None
    assert heard(state["messages"][-1]["content"]) == {
        "tools": [LOOK],
        "context": [TOWN],
        "model": "small",
        "settings": {"temperature": 0.5},
        "metadata": {"page": "cart"},
        "forwarded": {"selection": [1, 2]},
    }
    (asked,) = state["asked"]
    assert (asked["tools"], asked["context"], asked["forwardedProps"]) == ([client_tool("look")], [TOWN], forwarded)
    clients("ag.open", name=f"{room}-later", url=service.url, thread=room)
    later = await clients.ask("ag.join", name=f"{room}-later")
    assert later["error"] is None
    (found,) = later["asked"]
    assert {**found, "runId": asked["runId"]} == asked
    said = [message for message in state["messages"] if message["role"] != "activity"]
    assert [message["id"] for message in later["messages"]] == [message["id"] for message in said]


@pytest.mark.interop
@pytest.mark.parametrize("mode", ["connect", "subscribe"])
async def test_tanstacks_tools_and_forwarded_properties_reach_the_agent(service, clients, room, mode):
    tool = {"name": "look", "description": "Look out", "inputSchema": SCHEMA}
    forwarded = {"model": "small", "temperature": 0.5, "metadata": {"page": "cart"}, "selection": [1, 2]}
    clients("ts.open", name=room, thread=room, url=service.url, mode=mode, tools=[tool], forwardedProps=forwarded)
    await clients.ask("ts.send", name=room, text="input")
    state = await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and len(s["messages"]) == 2 and s["messages"][1]["parts"],
        command="ts.state", name=room,
    )  # fmt: skip
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        hydrated = (await http.get(f"/v1/gateways/tanstack/{room}", params={"threadId": room})).json()
    assert (hydrated["input"]["tools"], hydrated["input"]["forwardedProps"]) == ([client_tool("look")], forwarded)
    found = heard("".join(part["content"] for part in state["messages"][1]["parts"]))
    assert found == {
        "tools": [LOOK],
        "model": "small",
        "settings": {"temperature": 0.5},
        "metadata": {"page": "cart"},
        "forwarded": {"selection": [1, 2]},
    }


@pytest.mark.interop
@pytest.mark.parametrize("stream", [False, True])
async def test_openais_parameters_reach_the_agent_and_are_read_back(service, clients, room, stream):
    sent = {
        "tools": [{"type": "function", "function": client_tool("look")}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}},
        "temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 50, "seed": 7, "user": "ann",
        "metadata": {"page": "cart"},
    }  # fmt: skip
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1/gateways/openai", api_key="none", max_retries=0
    ) as client:
        answer = await client.chat.completions.create(
            model="writer/small",
            messages=[{"role": "user", "content": "input"}],
            extra_body={"selection": [1, 2]}, extra_headers={"X-Session-Id": room}, stop="END", stream=stream, **sent,
        )  # fmt: skip
        if stream:
            chunks = [chunk async for chunk in answer]
            said, id = "".join([chunk.choices[0].delta.content or "" for chunk in chunks]), chunks[0].id
        else:
            said, id = answer.choices[0].message.content, answer.id
            assert (answer.model, answer.metadata) == ("writer/small", {"page": "cart"})
        found = await client.chat.completions.retrieve(id, extra_headers={"X-Session-Id": room})
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.retrieve("chatcmpl-none", extra_headers={"X-Session-Id": room})
        with pytest.raises(openai.UnprocessableEntityError, match="X-Session-Id"):
            await client.chat.completions.retrieve(id)
    assert (found.id, found.model, found.choices[0].message.content) == (id, "writer/small", said)
    told, sent = found.model_dump(mode="json"), {**sent, "stop": ["END"], "selection": [1, 2]}
    assert {key: told[key] for key in sent} == sent
    again = await clients.ask("oa.retrieve", url=service.url, session=room, id=id)
    assert {key: again[key] for key in sent} == sent
    assert heard(said) == {
        "tools": [LOOK],
        "model": "small",
        "settings": {
            "toolChoice": {"name": "look"},
            "responseFormat": {"type": "json", "name": "place", "schema": SCHEMA},
            "temperature": 0.5, "topP": 0.9, "maxOutputTokens": 50, "stop": ["END"], "seed": 7,
        },
        "metadata": {"page": "cart"},
        "forwarded": {"user": "ann", "selection": [1, 2]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "more", "agent", "given"),
    [
        ("writer", {}, "writer", None),
        ("*", {}, "*", None),
        ("*/gpt-4.1", {}, "*", "gpt-4.1"),
        ("writer/meta/llama", {}, "writer", "meta/llama"),
        ("gpt-4.1", {"agent": "writer"}, "writer", "gpt-4.1"),
        ("*", {"agent": "writer"}, "writer", None),
    ],
)
async def test_openais_model_names_the_agent_or_is_handed_on_to_it(service, room, model, more, agent, given):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        body = {"model": model, "messages": [{"role": "user", "content": "input"}], **more}
        answer = await http.post("/v1/gateways/openai/chat/completions", json=body, headers={"X-Session-Id": room})
        run = (await http.get(f"/v1/sessions/{room}/runs")).json()["runs"][0]
    assert heard(answer.json()["choices"][0]["message"]["content"]).get("model") == given
    assert run["request"]["agent"] == agent


@pytest.mark.parametrize("model", ["gpt-4.1", "nobody/gpt-4.1", "writer/"])
async def test_a_model_that_is_no_agent_is_refused_with_those_there_are(service, room, model):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        body = {"model": model, "messages": [{"role": "user", "content": "input"}]}
        answer = await http.post("/v1/gateways/openai/chat/completions", json=body, headers={"X-Session-Id": room})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "there are 'writer'" in answer.json()["error"]["message"]


@pytest.mark.interop
@pytest.mark.parametrize("agent", ["wirter", "\n"])
async def test_an_unknown_agent_is_refused_by_each_gateway_in_its_own_form(service, clients, room, agent):
    says = f"there is no agent {agent!r}; there are 'writer'"
    clients("ag.open", name=room, url=service.url, thread=room)
    state = await clients.ask("ag.run", name=room, message=plain("u", "?"), forwardedProps={"agent": agent})
    assert "HTTP 404" in state["error"]
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        body = {"threadId": room, "runId": "r", "state": {}, "messages": [plain("u", "?")], "tools": [], "context": [],
                "forwardedProps": {"agent": agent}}  # fmt: skip
        for path in ("ag-ui", f"tanstack/{room}", f"tanstack/{room}/send"):
            answer = await http.post(f"/v1/gateways/{path}", json=body)
            assert (answer.status_code, answer.json()["known"]) == (404, ["writer"])
            assert answer.json()["detail"].startswith(says)
    if agent == "wirter":
        for transport in ("http", "ws"):
            clients("ai.open", name=transport, id=room, url=service.url, transport=transport, body={"agent": agent})
            state = await clients.ask("ai.send", name=transport, text="?")
            assert state["status"] == "error"
            assert state["error"].startswith(says)
