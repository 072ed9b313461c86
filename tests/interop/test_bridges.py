"""The bridges, each with the real library against recorded streams; the manifest's counts are the oracle."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import openai
import pytest

from crdt_sessions import Agent, bridges, connect
from crdt_sessions.model import TextPart, ToolPart
from examples.replay_server import recordings
from tests.processes import Replay, Server

RECORDINGS = recordings()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("bridges") / "s.db", "--default-agent", "", "--run-policy", "parallel")
    yield process
    process.close()


@pytest.fixture(scope="module")
def model():
    process = Replay(0)
    yield process.url
    process.close()


async def answer_with(service, name, write):
    """Let an agent answer one question with *write*; return run and message."""
    agent = Agent(service.url, name=name)
    agent.on_run(write)
    working = asyncio.create_task(agent.work())
    try:
        async with connect(service.url, "bridges") as ann:
            question = await ann.post(f"replay:{name}", agent=name)
            run_id = f"run-{question.id}"
            await asyncio.wait_for(
                ann.until(lambda: (run := ann.view.runs.value(run_id)) is not None and run.over), 30
            )
            return ann.view.runs.find(run_id), ann.view.messages.value(f"{run_id}-out")
    finally:
        agent.stop()
        await working


def counted(message):
    choices = range(10)
    return {
        "text_chars": sum(len(message.text_of(choice)) for choice in choices),
        "reasoning_chars": sum(len(message.text_of(choice, "reasoning")) for choice in choices),
        "tool_chars": sum(len(part.input_text) for part in message.parts if isinstance(part, ToolPart)),
    }


def spent(name):
    """What the recording itself says that it has cost: tokens read, of those cached, written, of those thoughts."""
    lines = "".join(RECORDINGS[name].events()).splitlines()
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:") and "[DONE]" not in line]
    if RECORDINGS[name].api == "anthropic-messages":
        begun = [event["message"]["usage"] for event in events if event["type"] == "message_start"]
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        read, cached, made = (sum(usage.get(name) or 0 for usage in begun) for name in names)
        written: dict[int, int] = {}  # message to what it says last
        for event in events:
            if event["type"] == "message_start":
                written[len(written)] = 0
            elif event["type"] == "message_delta":
                written[len(written) - 1] = event["usage"]["output_tokens"]
        return read + cached + made, cached, sum(written.values()) or None, None
    said = [event.get("usage") or (event.get("response") or {}).get("usage") for event in events]
    last = [usage for usage in said if usage][-1]
    read, wrote = (last.get(f"{side}_tokens_details") or {} for side in ("prompt", "completion"))
    return last["prompt_tokens"], read.get("cached_tokens"), last["completion_tokens"], wrote.get("reasoning_tokens")


def settled(run):
    usage = run.usage
    return usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.reasoning_tokens


def named(api):
    return [name for name, recording in sorted(RECORDINGS.items()) if recording.api == api]


@pytest.mark.parametrize("name", named("anthropic-messages"))
@pytest.mark.sampled(3)
async def test_anthropic(service, model, name):
    import anthropic

    async def write(run):
        async with anthropic.AsyncAnthropic(base_url=model, api_key="none", max_retries=0) as client:
            stream = await client.messages.create(
                model=f"replay:{name}", max_tokens=100, messages=run.history("anthropic"), stream=True
            )
            await bridges.anthropic.write_message(run.out, stream)

    run, message = await answer_with(service, name, write)
    facts = RECORDINGS[name].facts
    assert counted(message) == {key: facts[key] for key in counted(message)}
    if facts["finish"]:
        assert (run.status, run.outcome.reason) == ("completed", facts["finish"].split(",")[-1])
    else:
        assert (run.status, run.outcome.error.code) == ("failed", "cut")
    assert all(part.state != "streaming" for part in message.parts)
    assert (settled(run), run.usage.calls) == (spent(name), facts["responses"])


@pytest.mark.parametrize(
    "name",
    [
        "openai-chat/openai-gpt-4.1-nano-text.chunks.txt",
        "openai-chat/alibaba-qwen-reasoning.chunks.txt",
        "openai-chat/openai-gpt-4o-parallel-tool-calls.sse",
    ],
)
async def test_openai(service, model, name):
    """All recordings go through this bridge in test_streams.py; here the bridge stands alone."""

    async def write(run):
        async with openai.AsyncOpenAI(base_url=f"{model}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(model=f"replay:{name}", messages=run.history(), stream=True)
            await bridges.openai.write_chat(run.out, stream)

    run, message = await answer_with(service, name, write)
    facts = RECORDINGS[name].facts
    assert counted(message) == {key: facts[key] for key in counted(message)}
    assert run.outcome.reason == facts["finish"].split(",")[-1]
    assert (settled(run), run.usage.calls, run.usage.model) == (spent(name), 1, facts["model"])


@pytest.mark.parametrize(
    "name", ["openai-chat/openai-gpt-4.1-nano-text.chunks.txt", "openai-chat/groq-text-long.chunks.txt"]
)
@pytest.mark.sampled(2)
async def test_pydantic_ai_streams_text(service, model, name):
    from pydantic_ai import Agent as Assistant
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def write(run):
        async with openai.AsyncOpenAI(base_url=f"{model}/v1", api_key="none") as client:
            assistant = Assistant(OpenAIChatModel(f"replay:{name}", provider=OpenAIProvider(openai_client=client)))
            async with assistant.run_stream_events(run.message.text) as events:
                await bridges.pydantic_ai.write_events(run.out, events)

    run, message = await answer_with(service, f"pydantic-{name}", write)
    assert (run.status, len(message.text)) == ("completed", RECORDINGS[name].facts["text_chars"])
    read, _, written, _ = spent(name)
    assert (run.usage.input_tokens, run.usage.output_tokens, run.usage.calls) == (read, written, 1)


async def test_pydantic_ai_calls_tools(service):
    from pydantic_ai import Agent as Assistant
    from pydantic_ai.models.test import TestModel

    assistant = Assistant(TestModel())

    @assistant.tool_plain
    def weather(city: str) -> dict[str, str]:
        return {city: "cold"}

    async def write(run):
        async with assistant.run_stream_events(run.message.text) as events:
            await bridges.pydantic_ai.write_events(run.out, events)

    run, message = await answer_with(service, "pydantic-tools", write)
    (call,) = [part for part in message.parts if isinstance(part, ToolPart)]
    assert (call.tool_name, call.state, call.output) == ("weather", "output-available", '{"a": "cold"}')
    assert "cold" in message.text
    assert run.status == "completed"


@asynccontextmanager
async def chat_model(model, name):
    from langchain_openai import ChatOpenAI

    async with httpx.AsyncClient() as http:
        yield ChatOpenAI(
            model=f"replay:{name}", base_url=f"{model}/v1", api_key="none", max_retries=0, http_async_client=http
        )


def graph(chat, tools=()):
    from langgraph.graph import MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    async def think(state):
        return {"messages": [await chat.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("think", think)
    builder.set_entry_point("think")
    if tools:
        builder.add_node("tools", ToolNode(list(tools)))
        builder.add_conditional_edges("think", tools_condition)
    return builder.compile()


async def test_langgraph_streams_text(service, model):
    name = "openai-chat/groq-text-long.chunks.txt"

    async def write(run):
        async with chat_model(model, name) as chat:
            stream = graph(chat).astream({"messages": run.history()}, stream_mode="messages")
            await bridges.langchain.write_messages(run.out, stream)

    run, message = await answer_with(service, "langgraph", write)
    assert (run.status, run.outcome.reason) == ("completed", "stop")
    assert len(message.text) == RECORDINGS[name].facts["text_chars"]
    assert [part.type for part in message.parts] == ["text"]


async def test_langgraph_calls_tools(service, model):
    from langchain_core.tools import tool

    @tool
    def get_weather(location: str) -> str:
        """Tell the weather."""
        return f"cold in {location}"

    name = "openai-chat/deepseek-tool-call.chunks.txt"

    async def write(run):
        async with chat_model(model, name) as chat:
            stream = graph(chat, [get_weather]).astream({"messages": run.history()}, stream_mode="messages")
            await bridges.langchain.write_messages(run.out, stream)

    _, message = await answer_with(service, "langgraph-tools", write)
    (call,) = [part for part in message.parts if isinstance(part, ToolPart)]
    assert len(call.input_text) == RECORDINGS[name].facts["tool_chars"]
    assert call.state == "output-available"
    assert call.output


async def test_langchain_models_stream_without_a_graph(service, model):
    name = "openai-chat/openai-gpt-4.1-nano-text.chunks.txt"

    async def write(run):
        async with chat_model(model, name) as chat:
            await bridges.langchain.write_messages(run.out, chat.astream(run.history()))

    run, message = await answer_with(service, "langchain", write)
    assert (run.outcome.reason, len(message.text)) == ("stop", RECORDINGS[name].facts["text_chars"])
    read, _, written, _ = spent(name)
    assert (run.usage.input_tokens, run.usage.output_tokens, run.usage.calls) == (read, written, 1)
    assert all(isinstance(part, TextPart) for part in message.parts)


@pytest.mark.parametrize("name", named("openai-responses"))
async def test_responses_say_what_they_have_cost(name):
    """The library's own objects, made of the recording's events."""
    from openai.types.responses import ResponseCompletedEvent, ResponseIncompleteEvent

    kinds = {"response.completed": ResponseCompletedEvent, "response.incomplete": ResponseIncompleteEvent}
    lines = "".join(RECORDINGS[name].events()).splitlines()
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:") and "[DONE]" not in line]
    ended = [event for event in events if event["type"] in kinds]

    async def stream():
        for event in ended:
            yield kinds[event["type"]].construct(**event)

    found = [delta.spent async for delta in bridges.openai.response(stream()) if delta.spent is not None]
    expected = [event["response"]["usage"] for event in ended if event["response"].get("usage")]
    assert [(each.input_tokens, each.output_tokens, each.calls) for each in found] == [
        (usage["input_tokens"], usage["output_tokens"], 1) for usage in expected
    ]
