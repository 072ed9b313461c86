"""What clients of streams are told, beside the answer: that nobody is there to give it, and that it begins anew."""

import asyncio

import pytest

from tests.gateways.conftest import agent
from tests.gateways.test_ai_sdk import history, the_same
from tests.processes import Server

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A service at which no agent is, and that says so at once."""
    server = Server(tmp_path_factory.mktemp("absence") / "s.db", "--default-agent", "writer", "--agent-wait-s", "0")
    yield server
    server.close()


def told(state):
    """What was told of the agent, by whichever protocol."""
    parts = [part["data"] for part in state.get("data", []) if part["type"] == "data-agent-away"]
    return parts + [value for name, value in state.get("customs", []) if name == "agent-away"]


def texts(message):
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


async def until(clients, command, name, condition):
    return await asyncio.to_thread(clients.until, condition, command=command, name=name)


def asked(clients, service, room, kind, text="say 3"):
    """Ask with a stock client; return the command that tells what it shows."""
    if kind == "ai":
        clients("ai.open", name=room, id=room, url=service.url)
        clients("ai.send", name=room, text=text, wait=False)
    elif kind == "ag":
        clients("ag.open", name=room, thread=room, url=service.url)
        message = {"id": f"u-{room}", "role": "user", "content": text}
        clients("ag.run", name=room, message=message, runId=f"r-{room}", wait=False)
    else:
        clients("ts.open", name=room, thread=room, url=service.url, mode="connect" if kind == "ts" else "subscribe")
        clients("ts.send", name=room, text=text)
    return f"{kind[:2]}.state"


@pytest.mark.parametrize("kind", ["ai", "ag", "ts", "ts subscribe"])
@pytest.mark.sampled(2)
async def test_a_client_is_told_that_nobody_is_there_and_that_somebody_came(empty, clients, room, kind):
    command = asked(clients, empty, room, kind)
    state = await until(clients, command, room, told)
    assert [(each["agent"], each["away"]) for each in told(state)] == [("*", True)]
    writer = agent(empty.url)
    try:
        state = await until(clients, command, room, lambda state: len(told(state)) == 2)
        (first, second) = told(state)
        assert (second["runId"], second["away"]) == (first["runId"], False)
        await until(clients, command, room, lambda state: "naïve" in str(state["messages"]))
    finally:
        writer.close()


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_the_ai_sdks_client_shows_only_the_answer_that_began_anew(service, clients, room, transport):
    clients("ai.open", name=room, id=room, url=service.url, transport=transport)
    state = await clients.ask(
        "ai.send", name=room, text="think 2; say 30 10; tool look; anew; say 2; tool look; say 4"
    )
    message = state["messages"][-1]
    assert texts(message) == "naïve café naïve café 😀 streams "
    assert [part["type"] for part in message["parts"]] == ["step-start", "text", "tool-look", "step-start", "text"]
    await the_same(service, room, state)
    assert (state.get("error"), state["status"]) == (None, "ready")


async def test_the_ai_sdks_client_is_told_where_an_answer_begins_anew_that_had_several_steps(service, clients, room):
    clients("ai.open", name=room, id=room, url=service.url)
    state = await clients.ask("ai.send", name=room, text="say 1; tool look; say 30 10; anew; say 2")
    parts = state["messages"][-1]["parts"]
    marks = [at for at, part in enumerate(parts) if part["type"] == "data-begun-anew"]
    assert len(marks) == 1
    assert texts({"parts": parts[: marks[0]]}) == "naïve ", "of the step that was being written nothing is left"
    assert texts({"parts": parts[marks[0] :]}) == "naïve café "
    assert parts[marks[0]]["data"]["messageId"] == state["messages"][-1]["id"]
    assert state.get("error") is None
    clients("ai.open", name=f"{room}-later", id=room, url=service.url, messages=await history(service.url, room))
    state = clients("ai.state", name=f"{room}-later")
    assert texts(state["messages"][-1]) == "naïve café "


async def test_what_is_told_of_child_runs_stays_when_the_ai_sdks_answer_begins_anew(service, clients, room):
    clients("ai.open", name=room, id=room, url=service.url)
    state = await clients.ask("ai.send", name=room, text="delegate 1 say 2; anew; say 4")
    parts = state["messages"][-1]["parts"]
    assert [part["data"]["status"] for part in parts if part["type"] == "data-run"] == ["completed"]
    assert texts({"parts": parts}) == "naïve café 😀 streams "


@pytest.mark.parametrize("kind", ["ag", "ts", "ts subscribe"])
async def test_clients_of_ag_ui_show_only_the_answer_that_began_anew(service, clients, room, kind):
    command = asked(clients, service, room, kind, "think 2; say 30 10; anew; say 2; tool look; say 4")
    done = {"ag": lambda state: state["events"][-1:] == ["RUN_FINISHED success"]}.get(
        kind, lambda state: state["status"] == "ready" and "streams" in str(state["messages"])
    )
    state = await until(clients, command, room, done)
    spoken = [
        message.get("content")
        or "".join(part.get("content", "") for part in message["parts"] if part["type"] == "text")
        for message in state["messages"]
        if message["role"] == "assistant" and (message.get("content") or message.get("parts"))
    ]
    assert "".join(spoken) == "naïve café naïve café 😀 streams ", state["messages"]
    assert not state.get("error"), state
