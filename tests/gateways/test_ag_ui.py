"""AG-UI's own client against the service."""

import asyncio
import json
import random

import httpx
import pytest
from ag_ui.core import RunFinishedEvent

from crdt_sessions import connect
from tests.processes import PATIENCE, attempts

pytestmark = pytest.mark.interop

API = "/v1/gateways/ag-ui"


def user(id, text):
    return {"id": id, "role": "user", "content": text}


def opened(clients, service, name, room, **options):
    clients("ag.open", name=name, thread=room, url=service.url, **options)
    return name


def bare(state):
    """The conversation without who is here."""
    return [message for message in state["messages"] if message["role"] != "activity"]


async def as_joined(clients, service, room):
    """What a client sees that comes when all is over."""
    name = opened(clients, service, f"{room}-fresh-{random.random()}", room)
    state = await clients.ask("ag.join", name=name)
    assert state["events"][-1] == "RUN_FINISHED success", state
    return bare(state)


async def test_a_question_is_answered_with_all_kinds_of_parts(service, clients, room):
    name = opened(clients, service, room, room)
    text = "think 3; say 6; tool weather; think 2; say 4"
    state = await clients.ask("ag.run", name=name, message=user("u1", text), runId=f"run-1-{room}")
    assert (state["error"], state["events"][0], state["events"][-1]) == (None, "RUN_STARTED", "RUN_FINISHED success")
    roles = [message["role"] for message in bare(state)]
    assert roles == ["user", "reasoning", "assistant", "tool", "reasoning", "assistant"]
    calls = [call["function"] for message in bare(state) for call in message.get("toolCalls", [])]
    assert calls == [{"name": "weather", "arguments": '{"city": "Oslo"}'}]
    assert bare(state)[3]["content"] == '{"degrees":-3}'
    assert bare(state) == await as_joined(clients, service, room)
    again = await clients.ask("ag.run", name=name, message=user("u2", "say 2"), runId=f"run-2-{room}")
    assert len(bare(again)) == 8
    assert bare(again) == await as_joined(clients, service, room)


async def test_joining_in_the_middle_ten_times_shows_the_same(service, clients, room):
    rng = random.Random(5)
    first = opened(clients, service, f"{room}-0", room)
    text = "think 20 8; say 60 8; tool look; say 20 8"
    await clients.ask("ag.run", name=first, message=user("u", text), runId=room, wait=False)
    joined = []
    for number in range(1, 11):
        await asyncio.sleep(rng.uniform(0.02, 0.12))
        joined.append(opened(clients, service, f"{room}-{number}", room))
        await clients.ask("ag.join", name=joined[-1], wait=False)
        if number == 5:  # one that holds a part of it joins again
            await clients.ask("ag.leave", name=joined[0])
            await asyncio.sleep(0.05)
            await clients.ask("ag.join", name=joined[0], wait=False)
    expected = None
    for name in [first, *joined]:
        state = await asyncio.to_thread(clients.until, lambda s: not s["busy"], command="ag.state", name=name)
        assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED success"), state
        expected = expected or await as_joined(clients, service, room)
        assert bare(state) == expected


@pytest.mark.parametrize("approved", [True, False])
async def test_an_interrupt_is_resolved_and_the_run_goes_on(service, clients, room, approved):
    name = opened(clients, service, room, room)
    state = await clients.ask("ag.run", name=name, message=user("u", "say 3; ask transfer; say 4"), runId=f"a-{room}")
    assert state["events"][-1] == "RUN_FINISHED interrupt"
    (interrupt,) = state["interrupts"]
    assert interrupt["metadata"]["toolName"] == "transfer"
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": approved}}]
    state = await clients.ask("ag.run", name=name, runId=f"b-{room}", resume=resume)
    assert state["events"][-1] == "RUN_FINISHED success", state
    results = [message["content"] for message in bare(state) if message["role"] == "tool"]
    assert results == ['{"sent":true}' if approved else "the user denied the call"]
    assert bare(state) == await as_joined(clients, service, room)


@pytest.mark.parametrize(
    ("entry", "said"),
    [({"status": "resolved", "payload": "Bergen"}, "to Bergen "), ({"status": "cancelled"}, "to nowhere ")],
)
async def test_a_choice_is_an_interrupt_whose_schema_is_that_of_the_answer(service, clients, room, entry, said):
    name = opened(clients, service, room, room)
    state = await clients.ask("ag.run", name=name, message=user("u", "choose"), runId=f"a-{room}")
    (interrupt,) = state["interrupts"]
    assert (interrupt["reason"], interrupt["message"]) == ("input_required", "Which town?")
    assert interrupt["responseSchema"] == {"enum": ["Oslo", "Bergen"]}
    wrong = [{"interruptId": interrupt["id"], "status": "resolved", "payload": "Paris"}]
    refused = await clients.ask("ag.run", name=opened(clients, service, room, room), resume=wrong)
    assert "is no answer to what" in str(refused["error"])
    resume = [{"interruptId": interrupt["id"], **entry}]
    state = await clients.ask("ag.run", name=name, runId=f"b-{room}", resume=resume)
    assert state["events"][-1] == "RUN_FINISHED success", state
    assert bare(state)[-1]["content"] == said


async def test_edited_arguments_of_an_interrupt_go_back_to_the_agent(service, clients, room):
    name = opened(clients, service, room, room)
    state = await clients.ask("ag.run", name=name, message=user("u", "edit transfer"), runId=f"a-{room}")
    (interrupt,) = state["interrupts"]
    assert interrupt["responseSchema"]["properties"]["editedArgs"]["properties"]["amount"]["maximum"] == 9
    payload = {"approved": True, "editedArgs": {"amount": 7}}
    resume = [{"interruptId": interrupt["id"], "status": "resolved", "payload": payload}]
    state = await clients.ask("ag.run", name=name, runId=f"b-{room}", resume=resume)
    assert [message["content"] for message in bare(state) if message["role"] == "tool"] == ['{"amount":7}']


async def test_a_tool_of_the_client_is_answered_by_it(service, clients, room):
    name = opened(clients, service, room, room)
    state = await clients.ask("ag.run", name=name, message=user("u", "client place; say 3"), runId=f"a-{room}")
    (call,) = [call for message in bare(state) for call in message.get("toolCalls", [])]
    result = {"id": "t1", "role": "tool", "toolCallId": call["id"], "content": "Oslo"}
    state = await clients.ask("ag.run", name=name, message=result, runId=f"b-{room}")
    assert state["events"][-1] == "RUN_FINISHED success"
    assert [m.get("content") for m in await as_joined(clients, service, room) if m["role"] in ("tool", "assistant")][-2:] == [
        "Oslo", "naïve café 😀 ",
    ]  # fmt: skip


async def test_cancelling_from_elsewhere_and_errors_end_the_stream(service, clients, room):
    name = opened(clients, service, room, room)
    await clients.ask("ag.run", name=name, message=user("u", "say 500 10"), runId=room, wait=False)
    await asyncio.to_thread(
        clients.until, lambda s: "TEXT_MESSAGE_CONTENT" in s["events"], command="ag.state", name=name
    )
    async with httpx.AsyncClient(base_url=service.url) as http:
        assert (await http.post(f"{API}/{room}/cancel", json={"runId": room})).json() == {"stopped": [room]}
    state = await asyncio.to_thread(clients.until, lambda s: not s["busy"], command="ag.state", name=name)
    assert state["events"][-1] == "RUN_FINISHED cancelled"
    assert bare(state) == await as_joined(clients, service, room)
    state = await clients.ask("ag.run", name=name, message=user("v", "say 2; fail no more tokens"), runId=f"{room}-2")
    assert state["events"][-1] == "RUN_ERROR no more tokens"


async def test_a_follower_sees_state_presence_and_later_runs(service, clients, room):
    name = opened(clients, service, room, room, follow=True)
    await clients.ask("ag.join", name=name, wait=False)
    async with connect(service.url, room, name="Ann") as ann:
        await ann.post("say 3")
        until = lambda condition: asyncio.to_thread(clients.until, condition, command="ag.state", name=name)  # noqa: E731
        await until(lambda s: s["events"].count("RUN_FINISHED success") == 2)
        ann.edit(lambda view: view.state.__setitem__("city", {"name": "Oslo"}))
        await ann.post("say 2 50")
        state = await until(lambda s: s["events"].count("RUN_FINISHED success") == 3)
        assert state["state"] == {"city": {"name": "Oslo"}}
        (presence,) = [message for message in state["messages"] if message["role"] == "activity"]
        ann.edit(lambda view: view.set_agent(""))
        await ann.post("between us")
        state = await until(lambda s: "between us" in str(s["messages"]))
        assert "Ann" in [each["user"]["name"] for each in presence["content"]["present"]]
    assert bare(state) == await as_joined(clients, service, room)


async def test_a_follower_sees_all_of_runs_that_run_side_by_side(service, clients, room):
    for name in ("ag", "ts"):
        clients(
            f"{name}.open",
            name=room,
            thread=room,
            url=service.url,
            **({"follow": True} if name == "ag" else {"mode": "subscribe"}),
        )
    await clients.ask("ag.join", name=room, wait=False)
    async with connect(service.url, room, name="Ann") as ann:
        await asyncio.gather(
            ann.post("say 20 20", agent="writer", policy="parallel"),
            ann.post("say 60 20", agent="writer", policy="parallel"),
            ann.post("say 40 20", agent="writer", policy="parallel"),
        )
        await asyncio.wait_for(ann.until(lambda: [run.over for run in ann.view.runs.all()] == [True] * 3), PATIENCE)
        answers = sorted(message.text for message in ann.messages.all() if message.role == "assistant")
    state = await asyncio.to_thread(
        clients.until, lambda s: sorted(m["content"] for m in bare(s) if m["role"] == "assistant") == answers,
        command="ag.state", name=room,
    )  # fmt: skip
    assert state["error"] is None
    await asyncio.to_thread(
        clients.until, lambda s: sorted(
            "".join(part["content"] for part in m["parts"]) for m in s["messages"] if m["role"] == "assistant"
        ) == answers,
        command="ts.state", name=room,
    )  # fmt: skip


@pytest.mark.crash
@pytest.mark.nightly
async def test_agent_and_server_are_killed_in_the_middle(mortal, clients, room):
    name = opened(clients, mortal, room, room)
    state = await clients.ask("ag.run", name=name, message=user("u", "say 20; die; say 10"), runId=f"a-{room}")
    assert (mortal.agent_died, state["events"][-1]) == (True, "RUN_FINISHED success"), "on the same stream"
    assert bare(state) == await as_joined(clients, mortal, room)
    await clients.ask("ag.run", name=name, message=user("v", "say 150 20"), runId=f"b-{room}", wait=False)
    await asyncio.to_thread(
        clients.until,
        lambda s: bare(s)[-1]["role"] == "assistant" and bare(s)[-1]["content"],
        command="ag.state",
        name=name,
    )
    mortal.kill()
    state = await asyncio.to_thread(clients.until, lambda s: not s["busy"], command="ag.state", name=name)
    assert state["error"], "a stream that broke is not taken for one that ended"
    mortal.start()
    for _ in attempts():
        state = await clients.ask("ag.join", name=name)
        if state["error"] is None and state["events"][-1] == "RUN_FINISHED success":
            break
        await asyncio.sleep(0.3)
    assert len(bare(state)[-1]["content"].split()) == 150
    assert bare(state) == await as_joined(clients, mortal, room)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"threadId": "a\nb", "runId": "r", "messages": []}, 422),
        ({"threadId": "room", "runId": "", "messages": []}, 422),
        ({"threadId": "room", "runId": "r", "messages": []}, 404),
        (
            {
                "threadId": "room",
                "runId": "r",
                "messages": [],
                "resume": [{"interruptId": "x", "status": "resolved"}],
            },
            404,
        ),
    ],
)
async def test_an_invalid_request_is_refused_before_the_stream_begins(service, body, status):
    body = {"state": {}, "tools": [], "context": [], "forwardedProps": {}, **body} if body else body
    async with httpx.AsyncClient(base_url=service.url) as http:
        answer = await http.post(API, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text


async def test_a_follower_is_asked_once_and_sees_the_run_continue(service, clients, room):
    name = opened(clients, service, room, room, follow=True)
    await clients.ask("ag.join", name=name, wait=False)
    until = lambda condition: asyncio.to_thread(clients.until, condition, command="ag.state", name=name)  # noqa: E731
    async with connect(service.url, room, name="Ann") as ann:
        await ann.post("ask transfer; say 3")
        await until(lambda s: "RUN_FINISHED interrupt" in s["events"])
        await asyncio.sleep(0.5)
        (run,) = ann.view.runs.all()
        (call,) = [part for part in ann.view.messages.value(run.output).parts if part.type == "tool"]
        ann.decide(run.id, call.tool_call_id, True)
        state = await until(lambda s: s["events"][-1] == "RUN_FINISHED success" and "sent" in str(s["messages"]))
    assert state["events"].count("RUN_FINISHED interrupt") == 1
    assert bare(state) == await as_joined(clients, service, room)


async def test_another_answer_takes_the_place_of_the_first(service, clients, room):
    watching = opened(clients, service, f"{room}-2", room, follow=True)
    await clients.ask("ag.join", name=watching, wait=False)
    name = opened(clients, service, room, room)
    await clients.ask("ag.run", name=name, message=user("u1", "say 2"), runId=f"{room}-1")
    clients("ag.forget", name=name)
    state = await clients.ask("ag.run", name=name, runId=f"{room}-2")
    assert state["error"] is None
    first, again = f"{room}-1-out", f"{room}-2-out"
    assert [message["id"] for message in bare(state)] == ["u1", again]
    assert bare(state) == await as_joined(clients, service, room)
    await asyncio.to_thread(
        clients.until, lambda s: bare(s) == bare(state) and "RUN_ERROR" not in str(s["events"]),
        command="ag.state", name=watching,
    )  # fmt: skip
    async with connect(service.url, room) as peer:
        assert {first, again} <= {message.id for message in peer.messages.all()}, "both are still there"


async def asked_for(service, room):
    """The runs of a session, by the message that was asked."""
    async with httpx.AsyncClient(base_url=service.url) as http:
        runs = (await http.get(f"/v1/sessions/{room}/runs")).json()["runs"]
    return [run["request"]["messageId"] for run in runs]


async def test_running_the_agent_again_while_it_answers_follows_that_answer(service, clients, room):
    name = opened(clients, service, room, room)
    await clients.ask("ag.run", name=name, message=user("u", "say 60 20"), runId=f"{room}-1", wait=False)
    await asyncio.to_thread(
        clients.until, lambda s: "TEXT_MESSAGE_CONTENT" in s["events"], command="ag.state", name=name
    )
    await clients.ask("ag.leave", name=name)
    other = opened(clients, service, f"{room}-2", room, messages=[user("u", "say 60 20")])
    states = await asyncio.gather(  # HttpAgent makes a new id each time
        clients.ask("ag.run", name=name, wait=False), clients.ask("ag.run", name=other, wait=False)
    )
    for each in (name, other):
        state = await asyncio.to_thread(clients.until, lambda s: not s["busy"], command="ag.state", name=each)
        assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED success"), (state, states)
        assert bare(state) == await as_joined(clients, service, room)
    assert await asked_for(service, room) == ["u"]


async def test_a_late_tool_result_of_a_second_window_changes_nothing(service, clients, room):
    first = opened(clients, service, f"{room}-1", room)
    await clients.ask("ag.run", name=first, message=user("u", "client place; say 3"), runId=f"a-{room}")
    second = opened(clients, service, f"{room}-2", room)
    state = await clients.ask("ag.join", name=second)
    (call,) = [call for message in bare(state) for call in message.get("toolCalls", [])]
    result = {"role": "tool", "toolCallId": call["id"], "content": "Oslo"}
    await clients.ask("ag.run", name=first, message={"id": "t1", **result})
    await clients.ask("ag.run", name=first, message=user("v", "say 2"))
    before = await asked_for(service, room)
    state = await clients.ask("ag.run", name=second, message={"id": "t2", **result, "content": "Bergen"})
    assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED success"), state
    assert await asked_for(service, room) == before, "the model did not run again"
    seen = await as_joined(clients, service, room)
    assert bare(state) == seen
    assert [message["content"] for message in seen if message["role"] in ("user", "tool")] == [
        "client place; say 3", "Oslo", "say 2",
    ]  # fmt: skip


async def test_a_window_that_missed_messages_gets_them_and_asks_nothing(service, clients, room):
    first = opened(clients, service, f"{room}-1", room)
    await clients.ask("ag.run", name=first, message=user("u", "say 3"))
    stale = opened(clients, service, f"{room}-2", room)
    known = await clients.ask("ag.join", name=stale)
    await clients.ask("ag.run", name=first, message=user("v", "say 2"))
    before = await asked_for(service, room)
    for name, messages in ((stale, None), (f"{room}-3", bare(known)[:1])):  # with the answer it knows; without it
        if messages is not None:
            opened(clients, service, name, room, messages=messages)
        state = await clients.ask("ag.run", name=name)
        assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED success"), state
        assert bare(state) == await as_joined(clients, service, room)
    assert await asked_for(service, room) == before == ["u", "v"]
    opened(clients, service, f"{room}-4", room, messages=bare(known)[:1])
    state = await clients.ask("ag.run", name=f"{room}-4", forwardedProps={"trigger": "regenerate"})
    assert (state["error"], await asked_for(service, room)) == (None, ["u", "v", "u"]), "who says so means it"


async def test_an_interrupt_is_shown_to_a_joining_window_and_decided_once_by_two(service, clients, room):
    windows = [opened(clients, service, f"{room}-{number}", room) for number in range(2)]
    text = "say 3; ask transfer; say 4"
    state = await clients.ask("ag.run", name=windows[0], message=user("u", text), runId=f"a-{room}")
    joined = await clients.ask("ag.join", name=windows[1])
    again = opened(clients, service, f"{room}-again", room, messages=[user("u", text)])
    for each in (
        joined,
        await clients.ask("ag.run", name=again, runId=f"a-{room}"),
        await clients.ask("ag.run", name=again),
    ):
        if each["error"] is None:  # a client that knows of the question does not run without an answer to it
            assert (each["events"][-1], each["interrupts"]) == ("RUN_FINISHED interrupt", state["interrupts"])
        else:
            assert "pending interrupt" in each["error"]
    resume = [{"interruptId": state["interrupts"][0]["id"], "status": "resolved", "payload": {"approved": True}}]
    for window in windows:
        state = await clients.ask("ag.run", name=window, resume=resume)
        assert (state["error"], state["events"][-1]) == (None, "RUN_FINISHED success"), state
        assert bare(state) == await as_joined(clients, service, room)
    resume[0]["payload"]["approved"] = False
    late = opened(clients, service, f"{room}-late", room)
    refused = await clients.ask("ag.run", name=late, resume=resume)
    assert "was approved by 'anonymous' already" in refused["error"]
    assert [message["content"] for message in bare(state) if message["role"] == "tool"] == ['{"sent":true}']
    assert await asked_for(service, room) == ["u"]


async def test_a_message_instead_of_a_decision_is_answered_and_closes_the_question(service, clients, room):
    first = opened(clients, service, f"{room}-1", room)
    state = await clients.ask("ag.run", name=first, message=user("u", "ask transfer; say 4"))
    interrupt = state["interrupts"][0]["id"]
    refused = await clients.ask("ag.run", name=first, message=user("v", "say 2"))
    assert "pending interrupt" in refused["error"], "a client that knows of the question wants it to be answered"
    second = opened(clients, service, f"{room}-2", room)
    state = await clients.ask("ag.run", name=second, message=user("w", "say 2"))
    assert (state["error"], state["events"][-1], state["interrupts"]) == (None, "RUN_FINISHED success", [])
    seen = await as_joined(clients, service, room)
    assert [message for message in seen if message in bare(state)] == seen, (
        "this client leaves what it had at its place"
    )
    results = [message["content"] for message in seen if message["role"] == "tool"]
    assert results == ["the user denied the call"]
    resume = [{"interruptId": interrupt, "status": "resolved", "payload": {"approved": True}}]
    clients("ag.open", name=first, thread=room, url=service.url)
    state = await clients.ask("ag.run", name=first, resume=resume)
    assert "is not asked about any more: superseded by" in state["error"]
    assert await as_joined(clients, service, room) == seen


async def test_a_stopped_run_asks_for_no_decision(service, clients, room):
    name = opened(clients, service, room, room)
    await clients.ask("ag.run", name=name, message=user("u", "ask transfer; say 4"))
    async with httpx.AsyncClient(base_url=service.url) as http:
        assert len((await http.post(f"{API}/{room}/cancel")).json()["stopped"]) == 1
        (_, answer) = (await http.get(f"/v1/gateways/ai-sdk/chat/{room}/messages")).json()["messages"]
        hydrated = (await http.get(f"/v1/gateways/tanstack/{room}", params={"threadId": room})).json()
        (_, written) = (await http.get(f"/v1/sessions/{room}/messages")).json()["messages"]
    assert [part["state"] for part in answer["parts"] if "toolCallId" in part] == ["output-denied"]
    assert [part["state"] for part in written["parts"] if part["type"] == "tool"] == ["output-denied"]
    assert hydrated["interrupts"] is None
    joined = opened(clients, service, f"{room}-2", room)
    assert (await clients.ask("ag.join", name=joined))["interrupts"] == []


async def test_a_session_that_rejects_messages_while_a_question_is_open_says_why(service, clients, room):
    name = opened(clients, service, room, room)
    await clients.ask("ag.run", name=name, message=user("u", "ask transfer; say 4"))
    async with connect(service.url, room) as peer:
        peer.edit(lambda view: view.set_run_policy("reject"))
        await peer.durable()
    run = {"threadId": room, "state": {}, "tools": [], "context": [], "forwardedProps": {}}
    said = {"id": "w", "role": "user", "parts": [{"type": "text", "text": "say 1"}]}
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        ag_ui = await http.post(API, json=run | {"runId": f"{room}-v", "messages": [user("v", "say 1")]})
        ai_sdk = await http.post("/v1/gateways/ai-sdk/chat", json={"id": room, "messages": [said]})
    why = '"reason":"rejected: another run is active"'
    for answer in (ag_ui, ai_sdk):
        (last,) = [line for line in answer.text.splitlines() if line.startswith("data: {")][-1:]
        assert why in last
    joined = opened(clients, service, f"{room}-2", room)
    assert len((await clients.ask("ag.join", name=joined))["interrupts"]) == 1, "and the question is still open"


async def test_the_end_of_a_run_tells_what_it_has_used(service, room):
    body = {"threadId": room, "runId": f"run-1-{room}", "messages": [user("u1", "say 2; spend 10 3")], "state": {}}
    body |= {"tools": [], "context": [], "forwardedProps": {}}
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        told = (await http.post(API, json=body)).text
    last = json.loads([line for line in told.splitlines() if line.startswith("data:")][-1][5:])
    usage = RunFinishedEvent.model_validate(last).usage
    assert [(each.model, each.input_tokens, each.output_tokens, each.total_tokens) for each in usage] == [
        ("small", 10, 3, 13)
    ]
    assert usage[0].cached_input_tokens == 4
