"""Child runs as the chat clients have a form for them: parts of the AI SDK, subagents of AG-UI, events of TanStack AI."""

import asyncio
import json

import httpx
import pytest

from tests.processes import PATIENCE

pytestmark = pytest.mark.interop

WORDS = "naïve café 😀 streams are durable. "
TEXT = " | ".join([WORDS] * 3)


async def test_the_ai_sdk_shows_each_child_as_a_part_that_goes_on(service, clients, room):
    clients("ai.open", name=room, id=room, url=service.url)
    state = await clients.ask("ai.send", name=room, text="delegate 3 say 60 10")
    assert (state["status"], state["finished"][0]["finishReason"]) == ("ready", "stop"), state
    [_, answer] = state["messages"]
    children = [part for part in answer["parts"] if part["type"] == "data-run"]
    assert [part["data"]["key"] for part in children] == ["1", "2", "3"]
    assert {part["data"]["status"] for part in children} == {"completed"}
    assert [part["data"]["text"] for part in children] == [WORDS * 10] * 3
    assert {part["data"]["parentRunId"] for part in children} == {answer["metadata"]["runId"]}
    assert "".join(part["text"] for part in answer["parts"] if part["type"] == "text") == " | ".join([WORDS * 10] * 3)
    told = [part["data"]["status"] for part in state["data"] if part["id"] == children[0]["id"]]
    assert "running" in told[1:], "a client sees it go on (the SDK writes the end of a part into its first object)"
    async with httpx.AsyncClient(base_url=service.url) as http:
        history = (await http.get(f"/v1/gateways/ai-sdk/chat/{room}/messages")).json()["messages"]
    assert [part["id"] for part in history[1]["parts"] if part["type"] == "data-run"] == [
        each["id"] for each in children
    ]
    again = await clients.ask("ai.send", name=room, text="say 1")
    assert len(again["messages"]) == 4
    assert len(history) == 2


async def test_ag_ui_shows_each_child_as_a_subagent(service, clients, room):
    clients("ag.open", name=room, thread=room, url=service.url)
    message = {"id": "u1", "role": "user", "content": "delegate 3 say 6 10"}
    state = await clients.ask("ag.run", name=room, message=message, runId=f"run-{room}")
    assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED success"), state
    assert state["events"].count("SUBAGENT_STARTED") == 3
    assert sum(event.startswith("SUBAGENT_FINISHED") for event in state["events"]) == 3
    by_child = {}
    for each in state["messages"]:
        if each["role"] == "assistant":
            by_child.setdefault(each.get("subagentRunId"), []).append(each["content"])
    assert sorted(by_child.pop(None)) == [TEXT]
    assert list(by_child.values()) == [[WORDS]] * 3
    joined = f"{room}-later"
    clients("ag.open", name=joined, thread=room, url=service.url)
    later = await clients.ask("ag.join", name=joined)
    listed = [(each["role"], each.get("subagentRunId")) for each in later["messages"] if each["role"] != "activity"]
    assert listed[:2] == [("user", None), ("assistant", None)]
    assert listed[2:] == [("assistant", child) for child in by_child], "what children wrote is marked as theirs"
    again = await clients.ask("ag.run", name=joined, message={"id": "u2", "role": "user", "content": "echo"})
    assert again["error"] is None
    said = json.loads(next(each["content"] for each in reversed(again["messages"]) if each["role"] == "assistant"))
    assert [each["role"] for each in said] == ["user", "assistant", "user"], "the client sends them back in vain"


async def test_ag_ui_tells_of_a_child_that_failed_and_of_the_children_of_children(service, clients, room):
    clients("ag.open", name=room, thread=room, url=service.url)
    message = {"id": "u1", "role": "user", "content": "delegate 1 delegate 1 fail badly"}
    state = await clients.ask("ag.run", name=room, message=message, runId=f"run-{room}")
    assert state["error"] is None
    assert state["events"].count("SUBAGENT_STARTED") == 2
    assert state["events"].count("SUBAGENT_ERROR") == 2
    assert state["events"][-1].startswith("RUN_ERROR")
    assert "badly" in state["events"][-1]


async def test_what_a_child_asks_is_an_interrupt_of_ag_ui_and_the_answer_goes_on(service, clients, room):
    clients("ag.open", name=room, thread=room, url=service.url)
    message = {"id": "u1", "role": "user", "content": "delegate 1 ask transfer; say 3"}
    state = await clients.ask("ag.run", name=room, message=message, runId=f"run-{room}")
    assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED interrupt"), state
    [interrupt] = state["interrupts"]
    assert interrupt["metadata"]["toolName"] == "transfer"
    [child] = [each for each in runs_of(service, room) if "parent" in each["request"]]
    assert interrupt["subagentRunId"] == child["id"]
    joined = f"{room}-later"
    clients("ag.open", name=joined, thread=room, url=service.url, follow=True)
    clients("ag.join", name=joined, wait=False)
    shown = await asyncio.to_thread(
        clients.until,
        lambda state: state["events"][-1:] == ["RUN_FINISHED interrupt"],
        command="ag.state",
        name=joined,
    )
    assert shown["error"] is None
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}]
    state = await clients.ask("ag.run", name=room, resume=resume)
    assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED success"), state
    texts = [each["content"] for each in state["messages"] if each["role"] == "assistant" and each.get("content")]
    assert "naïve café 😀 " in texts
    shown = await asyncio.to_thread(
        clients.until, lambda state: state["events"][-1:] == ["RUN_FINISHED success"], command="ag.state", name=joined
    )
    assert shown["error"] is None
    assert "naïve café 😀 " in [each.get("content") for each in shown["messages"]]


async def test_tanstack_can_answer_what_a_child_asks(service, clients, room):
    clients("ts.open", name=room, thread=room, url=service.url)
    clients("ts.send", name=room, text="delegate 1 ask transfer")
    state = await asyncio.to_thread(
        clients.until, lambda state: len(state["interrupts"]) == 1, command="ts.state", name=room
    )
    assert state["errors"] == []
    clients("ts.decide", name=room, payload={"approved": True})
    state = await asyncio.to_thread(
        clients.until,
        lambda state: not state["interrupts"] and not state["generating"] and state["status"] == "ready",
        command="ts.state", name=room,
    )  # fmt: skip
    assert state["errors"] == []
    runs = await asyncio.to_thread(runs_of, service, room)
    assert {each["status"] for each in runs} == {"completed"}


async def test_tanstack_shows_only_the_answer_and_gets_the_children_as_events(service, clients, room):
    clients("ts.open", name=room, thread=room, url=service.url)
    clients("ts.send", name=room, text="delegate 2 say 6 10")

    def answered(state):
        return len(state["messages"]) == 2 and " | " in json.dumps(state["messages"]) and not state["generating"]

    state = clients.until(answered, command="ts.state", name=room)
    assert state["errors"] == []
    texts = [part["content"] for part in state["messages"][1]["parts"] if part["type"] == "text"]
    assert "".join(texts) == " | ".join([WORDS] * 2)
    [run] = [each for each in runs_of(service, room) if "parent" not in each["request"]]
    with service.http() as http:
        answer = http.get(
            f"/v1/gateways/tanstack/{room}", params={"offset": -1, "runId": run["id"]}, timeout=PATIENCE
        )
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    children = [event["value"] for event in events if event["type"] == "CUSTOM" and event["name"] == "child-run"]
    assert [(child["key"], child["status"], child["text"]) for child in children] == [
        (key, "completed", WORDS) for key in ("1", "2")
    ]


async def test_openais_clients_get_the_answer_and_no_word_of_the_children(service, room):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        answer = await http.post(
            "/v1/gateways/openai/chat/completions",
            json={"model": "writer", "messages": [{"role": "user", "content": "delegate 2 say 6"}]},
            headers={"X-Session-Id": room},
        )
    assert answer.json()["choices"][0]["message"]["content"] == " | ".join([WORDS] * 2)


def runs_of(service, room):
    with service.http() as http:
        return http.get(f"/v1/sessions/{room}/runs").json()["runs"]
