"""What an input asks for, as the real libraries take it and send it to a model."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import pytest

from crdt_sessions import bridges
from crdt_sessions.model import RunInput

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
GIVEN = RunInput.of(
    {
        "tools": [
            {"name": "look", "description": "Look out", "inputSchema": SCHEMA, "where": "client"},
            {"name": "wait"},
        ],
        "model": "small",
        "settings": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxOutputTokens": 50,
            "stop": ["END"],
            "toolChoice": {"name": "look"},
            "parallelToolCalls": False,
            "reasoningEffort": "low",
            "responseFormat": {"type": "json", "schema": SCHEMA, "name": "place"},
            "extra_headers": {"Authorization": "stolen"},
            "seed": "no number",
        },
    }
)
NOTHING = {"type": "object", "properties": {}}


class Provider(ThreadingHTTPServer):
    """Stands for a provider: keeps what is sent to it, and answers with the stream it is given."""

    def __init__(self, *events):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.body = None
        self.answer = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        self._thread = Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return super().__enter__()

    def __exit__(self, *raised):
        self.shutdown()
        self._thread.join()
        return super().__exit__(*raised)


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(self.server.answer.encode())

    def log_message(self, *_):
        pass


CHUNK = {
    "id": "1", "object": "chat.completion.chunk", "created": 1, "model": "small",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Well."}, "finish_reason": "stop"}],
}  # fmt: skip
FUNCTIONS = [
    {"name": "look", "description": "Look out", "parameters": SCHEMA},
    {"name": "wait", "description": "", "parameters": NOTHING},
]


async def test_openai_chat():
    import openai

    arguments = bridges.openai.parameters(GIVEN, models={"small"})
    with Provider(CHUNK) as provider:
        async with openai.AsyncOpenAI(api_key="none", base_url=provider.url) as client:
            async for _ in await client.chat.completions.create(
                messages=[], stream=True, **{"model": "large"} | arguments
            ):
                pass
    assert provider.body == {
        "messages": [], "stream": True, "model": "small", "temperature": 0.5, "top_p": 0.9,
        "max_completion_tokens": 50, "stop": ["END"], "reasoning_effort": "low", "parallel_tool_calls": False,
        "tools": [{"type": "function", "function": each} for each in FUNCTIONS],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}},
    }  # fmt: skip


async def test_openai_responses():
    import openai

    arguments = bridges.openai.response_parameters(GIVEN)
    with Provider() as provider:
        async with openai.AsyncOpenAI(api_key="none", base_url=provider.url) as client:
            async for _ in await client.responses.create(input="?", stream=True, **arguments):
                pass
    assert provider.body == {
        "input": "?", "stream": True, "model": "small", "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 50,
        "reasoning": {"effort": "low"}, "parallel_tool_calls": False,
        "tools": [{"type": "function", "strict": False, **each} for each in FUNCTIONS],
        "tool_choice": {"type": "function", "name": "look"},
        "text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA}},
    }  # fmt: skip


@pytest.mark.slow
async def test_anthropic():
    import anthropic

    arguments = bridges.anthropic.parameters(GIVEN)
    with Provider() as provider:
        async with anthropic.AsyncAnthropic(api_key="none", base_url=provider.url) as client:
            async for _ in await client.messages.create(messages=[], stream=True, **arguments):
                pass
    assert provider.body == {
        "messages": [], "stream": True, "model": "small", "max_tokens": 50, "temperature": 0.5, "top_p": 0.9,
        "stop_sequences": ["END"],
        "tools": [
            {"name": "look", "description": "Look out", "input_schema": SCHEMA},
            {"name": "wait", "description": "", "input_schema": NOTHING},
        ],
        "tool_choice": {"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }  # fmt: skip


@pytest.mark.slow
async def test_langchain():
    from langchain_openai import ChatOpenAI

    with Provider(CHUNK) as provider:
        async with httpx.AsyncClient() as http:
            chat = ChatOpenAI(model="large", api_key="none", base_url=provider.url, http_async_client=http)
            async for _ in bridges.langchain.bound(chat, GIVEN).astream("?"):
                pass
    body = provider.body
    assert (body["model"], body["temperature"], body["top_p"], body["stop"]) == ("large", 0.5, 0.9, ["END"])
    assert body["tools"] == [{"type": "function", "function": each} for each in FUNCTIONS]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert body["parallel_tool_calls"] is False
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.slow
async def test_pydantic_ai():
    import openai
    from pydantic_ai import Agent as Assistant
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"city": "Oslo"}'}}
    called = CHUNK | {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    arguments = bridges.pydantic_ai.parameters(GIVEN, models=())
    assert "model" not in arguments
    with Provider(called) as provider:
        async with openai.AsyncOpenAI(api_key="none", base_url=provider.url) as client:
            assistant = Assistant(OpenAIChatModel("large", provider=OpenAIProvider(openai_client=client)))
            async with assistant.run_stream_events("?", **arguments) as events:
                deltas = [delta async for delta in bridges.pydantic_ai.pieces(events)]
    body = provider.body
    assert (body["model"], body["temperature"], body["top_p"], body["stop"]) == ("large", 0.5, 0.9, ["END"])
    sent = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}
    assert sent["look"]["required"] == ["city"]
    assert "wait" in sent
    assert [(delta.kind, delta.name) for delta in deltas] == [("tool", "look"), ("usage", ""), ("finish", "")]


@pytest.mark.parametrize(
    "parameters",
    [bridges.openai.parameters, bridges.openai.response_parameters, bridges.pydantic_ai.parameters],
)
def test_nothing_asked_for_is_nothing_handed_on(parameters):
    assert parameters(RunInput()) == {}
    odd = {"toolChoice": "look", "responseFormat": {"type": "text"}, "stop": 3, "temperature": True, "topP": "much"}
    assert parameters(RunInput(settings=odd)) == {}


def test_a_model_that_was_not_named_is_not_to_be_had():
    assert "model" not in bridges.openai.parameters(GIVEN, models={"large"})
    assert bridges.anthropic.parameters(RunInput(), max_tokens=9) == {"max_tokens": 9}
    assert bridges.langchain.bound("a model", RunInput(model="small")) == "a model"


@pytest.mark.parametrize(
    ("choice", "chat", "anthropic"),
    [
        ("required", "required", {"type": "any"}),
        ("none", "none", {"type": "none"}),
        ({"type": "function", "function": {"name": "wait"}}, {"type": "function", "function": {"name": "wait"}},
         {"type": "tool", "name": "wait"}),
        ({"type": "tool", "toolName": "wait"}, {"type": "function", "function": {"name": "wait"}},
         {"type": "tool", "name": "wait"}),
        ({"name": "another"}, None, None),
    ],
)  # fmt: skip
def test_the_choice_of_a_tool_is_spelled_as_each_library_does(choice, chat, anthropic):
    given = RunInput(tools=GIVEN.tools, settings={"toolChoice": choice})
    assert bridges.openai.parameters(given).get("tool_choice") == chat
    assert bridges.anthropic.parameters(given).get("tool_choice") == anthropic


def test_an_answer_in_openais_form_is_understood_too():
    asked = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    given = RunInput(settings={"responseFormat": asked})
    assert bridges.openai.parameters(given) == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    }
    given = RunInput(settings={"responseFormat": {"type": "json_object"}})
    assert bridges.openai.parameters(given) == {"response_format": {"type": "json_object"}}


def test_context_is_a_text_for_a_model():
    given = RunInput.of({"context": [{"description": "The town", "value": "Oslo"}, {"value": "It rains."}]})
    assert given.context_text == "The town:\nOslo\n\nIt rains."
