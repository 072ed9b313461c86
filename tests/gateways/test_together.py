"""All kinds of clients on one session; every recorded stream through every gateway; and a long silence."""

import asyncio
import json

import httpx
import openai
import pytest

from crdt_sessions import connect
from crdt_sessions.model import ToolPart
from examples.replay_server import recordings
from tests.processes import PATIENCE, replaying
from tests.profiles import sample

pytestmark = pytest.mark.interop

RECORDINGS = recordings()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with replaying(tmp_path_factory.mktemp("recordings") / "s.db", 3000, "--default-agent", "*") as server:
        yield server


def written(message):
    """What a recording says: text, thoughts, and the input of tools, of the first choice."""
    tools = [part.input_text for part in message.parts if isinstance(part, ToolPart) and part.input_text]
    return message.text_of(0), message.text_of(0, "reasoning"), tools


def from_ai_sdk(state):
    parts = state["messages"][1]["parts"] if len(state["messages"]) > 1 else []
    return tuple("".join(part["text"] for part in parts if part["type"] == kind) for kind in ("text", "reasoning"))


def from_ag_ui(messages):
    answers = [message for message in messages if message["role"] in ("assistant", "reasoning")]
    texts = [
        "".join(m.get("content") or "" for m in answers if m["role"] == role) for role in ("assistant", "reasoning")
    ]
    return (*texts, [call["function"]["arguments"] for m in answers for call in m.get("toolCalls", [])])


def from_tanstack(messages):
    parts = [part for message in messages if message["role"] == "assistant" for part in message["parts"]]
    texts = ["".join(part["content"] for part in parts if part["type"] == kind) for kind in ("text", "thinking")]
    return (*texts, [part["arguments"] for part in parts if part["type"] == "tool-call"])


@pytest.mark.parametrize("name", sorted(RECORDINGS)[:: sample("recordings")])
async def test_a_recording_is_the_same_through_every_gateway(world, clients, name):
    room = name.replace("/", "-").replace(" ", "-")
    clients("ai.open", name=room, id=room, url=world.url)
    asking = asyncio.create_task(clients.ask("ai.send", name=room, text=f"replay:{name}"))
    async with connect(world.url, room) as peer:
        await asyncio.wait_for(peer.until(lambda: bool(peer.view.runs.ids())), PATIENCE)
        clients("ag.open", name=room, thread=room, url=world.url)
        joining = asyncio.create_task(clients.ask("ag.join", name=room))
        clients("ts.open", name=room, thread=room, url=world.url, mode="subscribe")
        state = await asking
        await asyncio.wait_for(peer.until(lambda: all(run.over for run in peer.view.runs.all())), PATIENCE)
        (run,) = peer.view.runs.all()
        message = peer.view.messages.value(run.output)
    text, thoughts, tools = expected = written(message)
    failed = run.status == "failed"
    assert from_ai_sdk(state) == (text, thoughts)
    assert state["status"] == ("error" if failed else "ready")
    joined = await joining
    assert joined["error"] is None
    assert joined["events"][-1].startswith("RUN_ERROR" if failed else "RUN_FINISHED")
    assert _with_tools(from_ag_ui(joined["messages"]), tools) == expected
    shown = await asyncio.to_thread(
        clients.until, lambda s: _with_tools(from_tanstack(s["messages"]), tools) == expected,
        command="ts.state", name=room,
    )  # fmt: skip
    assert shown["messages"]
    clients("ts.close", name=room)
    heard, refused = await _from_openai(world, name, room)
    left = [
        part.input_text for part in message.parts if isinstance(part, ToolPart) and part.state == "input-available"
    ]
    told = [text for text in tools if text in left and not failed]
    assert (_with_tools(heard, tools), refused) == ((text, thoughts, told), failed), "no call that nobody could make"


def _with_tools(found, tools):
    """Leave aside the inputs of tools that a model did not write itself."""
    return (*found[:2], [text for text in found[2] if text in tools])


async def _from_openai(world, name, room):
    """What OpenAI's client hears that asks for the same recording in a session of its own."""
    texts, tools = {"content": "", "reasoning_content": ""}, {}
    async with openai.AsyncOpenAI(
        base_url=f"{world.url}/v1/gateways/openai", api_key="none", max_retries=0
    ) as client:
        chunks = await client.chat.completions.create(
            model="*", messages=[{"role": "user", "content": f"replay:{name}"}], stream=True,
            extra_headers={"X-Session-Id": f"{room}-openai"},
        )  # fmt: skip
        failed = False
        try:
            async for chunk in chunks:
                for choice in chunk.choices:
                    if choice.index == 0:
                        for key in texts:
                            texts[key] += getattr(choice.delta, key, None) or ""
                        for call in choice.delta.tool_calls or []:
                            tools[call.index] = tools.get(call.index, "") + (call.function.arguments or "")
        except openai.APIError:
            failed = True
    return (texts["content"], texts["reasoning_content"], list(tools.values())), failed


async def test_all_kinds_of_clients_on_one_session_show_the_same(service, clients, room):
    """One of them writes at a time, then all of them together."""
    api = f"{service.url}/v1/gateways"
    clients("ts.open", name=room, thread=room, url=service.url, mode="subscribe")
    clients("ag.open", name=room, thread=room, url=service.url)
    clients("ai.open", name=room, id=room, url=service.url)
    async with (
        connect(service.url, room, name="Ann") as ann,
        openai.AsyncOpenAI(base_url=f"{api}/openai", api_key="none", max_retries=0) as chat,
    ):

        async def ask(kind, text):
            if kind == "yjs":
                await ann.post(text)
            elif kind == "ai":
                clients("ai.open", name=f"{room}-{text}", id=room, url=service.url, messages=await history())
                await clients.ask("ai.send", name=f"{room}-{text}", text=text)
            elif kind == "ag":
                message = {"id": f"ag-{text}", "role": "user", "content": text}
                await clients.ask("ag.run", name=room, message=message, runId=f"run-ag-{room}-{text}")
            elif kind == "ts":
                clients("ts.send", name=room, text=text)
            else:
                await chat.chat.completions.create(
                    model="writer", messages=[{"role": "user", "content": text}], extra_headers={"X-Session-Id": room}
                )

        async def history():
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{api}/ai-sdk/chat/{room}/messages")).json()["messages"]

        async def settled(count):
            def all_over():
                runs = ann.view.runs.all()
                return len(runs) == count and all(run.over for run in runs)

            await asyncio.wait_for(ann.until(all_over), PATIENCE)

        kinds = ["yjs", "ai", "ag", "ts", "openai"]
        for number, kind in enumerate(kinds):
            await ask(kind, f"say {number + 2}")
            await settled(number + 1)
        await asyncio.gather(*(ask(kind, f"say {number + 12} 5") for number, kind in enumerate(kinds)))
        await settled(10)
        questions = {f"say {number + 2}" for number in range(5)} | {f"say {number + 12} 5" for number in range(5)}
        messages = ann.messages.all()
        assert {message.text for message in messages if message.role == "user"} == questions
        assert len(messages) == 20
        answers = sorted(message.text for message in messages if message.role == "assistant")
        clients("ag.open", name=f"{room}-late", thread=room, url=service.url)
        joined = await clients.ask("ag.join", name=f"{room}-late")
        fresh = await history()
        assert [message["id"] for message in fresh] == [message.id for message in messages]
        for found in (
            [
                "".join(part.get("text", "") for part in m["parts"])
                for m in fresh if m["role"] == "assistant"
            ],
            [m["content"] for m in joined["messages"] if m["role"] == "assistant"],
            [
                "".join(part["content"] for part in m["parts"])
                for m in (await _quiet(clients, room, 20))["messages"] if m["role"] == "assistant"
            ],
        ):  # fmt: skip
            assert sorted(found) == answers


@pytest.mark.parametrize("kind", ["ai", "ag", "ts"])
async def test_an_applications_own_history_and_a_lost_question_are_imported(service, clients, room, kind):
    """As it is when an application with a database of its own begins to use the service, and its network fails once."""
    said = [("user", "say 1 q"), ("assistant", "a"), ("user", "say 1 r"), ("assistant", "b"), ("user", "say 1 lost")]
    if kind == "ts":
        history = [
            {"id": f"z{9 - at}", "role": role, "parts": [{"type": "text", "content": text}]}
            for at, (role, text) in enumerate(said)
        ]
        clients("ts.open", name=room, thread=room, url=service.url, mode="subscribe", messages=history)
        clients("ts.send", name=room, text="echo")
        state = await asyncio.to_thread(
            clients.until, lambda s: len(s["messages"]) == 7 and not s["generating"] and s["messages"][-1]["parts"],
            command="ts.state", name=room,
        )  # fmt: skip
        clients("ts.close", name=room)
        shown = [(m["role"], "".join(p["content"] for p in m["parts"])) for m in state["messages"]]
    elif kind == "ag":
        history = [{"id": f"z{9 - at}", "role": role, "content": text} for at, (role, text) in enumerate(said)]
        clients("ag.open", name=room, thread=room, url=service.url, messages=history)
        state = await clients.ask(
            "ag.run", name=room, message={"id": "a", "role": "user", "content": "echo"}, runId=room
        )
        assert [m["id"] for m in state["messages"][:5]] == [m["id"] for m in history], (
            "nothing is gone from its screen"
        )
        shown = [(m["role"], m["content"]) for m in state["messages"] if m["role"] != "activity"]
    else:
        history = [
            {"id": f"z{9 - at}", "role": role, "parts": [{"type": "text", "text": text}]}
            for at, (role, text) in enumerate(said)
        ]
        clients("ai.open", name=room, id=room, url=service.url, messages=history)
        state = await clients.ask("ai.send", name=room, text="echo")
        shown = [(m["role"], "".join(p.get("text", "") for p in m["parts"])) for m in state["messages"]]
    assert shown[:6] == [*said, ("user", "echo")]
    assert [(each["role"], each["content"]) for each in json.loads(shown[6][1])] == shown[:6]
    async with connect(service.url, room) as peer:
        assert [run.status for run in peer.view.runs.all()] == ["completed"]


async def _quiet(clients, name, messages):
    return await asyncio.to_thread(
        clients.until, lambda s: len(s["messages"]) == messages and not s["generating"], command="ts.state", name=name
    )


@pytest.mark.slow
async def test_a_long_silence_of_a_run_breaks_no_stream(service, clients, room):
    """Web servers, proxies and clients have timeouts of a minute; a stream says something every 15 seconds."""
    text = f"say 3; say 1 {1000 * sample('silence')}; say 2"
    clients("ai.open", name=room, id=f"{room}-ai", url=service.url)
    clients("ai.open", name=f"{room}-ws", id=f"{room}-ws", url=service.url, transport="ws")
    clients("ag.open", name=room, thread=f"{room}-ag", url=service.url)
    clients("ts.open", name=room, thread=f"{room}-ts", url=service.url)
    clients("ts.send", name=room, text=text)
    async with openai.AsyncOpenAI(
        base_url=f"{service.url}/v1/gateways/openai", api_key="none", max_retries=0, timeout=60
    ) as chat:

        async def streamed():
            chunks = await chat.chat.completions.create(
                model="writer", messages=[{"role": "user", "content": text}], stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        for name in (room, f"{room}-ws"):
            await clients.ask("ai.send", name=name, text=text, wait=False)
        asked = {"id": "u", "role": "user", "content": text}
        await clients.ask("ag.run", name=room, message=asked, runId=room, wait=False)
        heard = await asyncio.wait_for(streamed(), sample("silence") + PATIENCE)

    async def until(condition, command, name):
        return await asyncio.to_thread(clients.until, condition, command=command, name=name)

    said = "naïve café 😀 naïve naïve café "
    for name in (room, f"{room}-ws"):
        state = await until(lambda s: s["finished"], "ai.state", name)
        assert (state["status"], "".join(p.get("text", "") for p in state["messages"][1]["parts"])) == ("ready", said)
    state = await until(lambda s: not s["busy"], "ag.state", room)
    assert "".join(m["content"] for m in state["messages"] if m["role"] == "assistant") == said
    assert state["events"][-1] == "RUN_FINISHED success"
    assert heard == said
    state = await until(lambda s: s["status"] == "ready" and len(s["messages"]) > 1, "ts.state", room)
    assert "".join(p["content"] for m in state["messages"][1:] for p in m["parts"]) == said


def test_every_recording_is_tested():
    assert len(RECORDINGS) == 44
