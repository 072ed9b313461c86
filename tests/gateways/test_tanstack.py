"""TanStack AI's own client against the service, with both kinds of adapters."""

import asyncio
import json
import random

import httpx
import pytest

from crdt_sessions import connect

pytestmark = pytest.mark.interop

API = "/v1/gateways/tanstack"


def opened(clients, service, name, room, mode="connect"):
    clients("ts.open", name=name, thread=room, url=service.url, mode=mode)
    return name


async def until(clients, name, condition):
    return await asyncio.to_thread(clients.until, condition, command="ts.state", name=name)


def said(messages):
    """The conversation as people see it: roles and texts, thoughts, calls and results."""
    found = []
    for message in messages:
        parts = {"text": "", "thinking": "", "calls": [], "results": []}
        for part in message["parts"]:
            if part["type"] in ("text", "thinking"):
                parts[part["type"]] += part["content"]
            elif part["type"] == "tool-call":
                parts["calls"].append((part["name"], part["arguments"]))
            elif part["type"] == "tool-result":
                parts["results"].append(part["content"])
        if found and found[-1]["id"].split("-out")[0] == message["id"].split("-out")[0]:
            for key, value in parts.items():
                found[-1][key] = found[-1][key] + value
        else:
            found.append({"id": message["id"], "role": message["role"], **parts})
    return found


async def hydrated(service, room):
    async with httpx.AsyncClient(base_url=service.url) as http:
        return (await http.get(f"{API}/{room}", params={"threadId": room})).json()


async def the_same(service, room, *states):
    expected = said((await hydrated(service, room))["messages"])
    for state in states:
        assert said(state["messages"]) == expected
    return expected


@pytest.mark.parametrize("mode", ["connect", "subscribe"])
async def test_a_question_is_answered_with_all_kinds_of_parts(service, clients, room, mode):
    name = opened(clients, service, room, room, mode)
    clients("ts.send", name=name, text="think 3; say 6; tool weather; say 4")
    state = await until(clients, name, lambda s: s["status"] == "ready" and len(s["messages"]) >= 3)
    (question, answer) = await the_same(service, room, state)
    assert (question["role"], answer["thinking"]) == ("user", "naïve café 😀 ")
    assert answer["calls"] == [("weather", '{"city": "Oslo"}')]
    assert answer["results"] == ['{"degrees":-3}']
    assert answer["text"] == "naïve café 😀 streams are durable. naïve café 😀 streams "
    assert state["errors"] == []


@pytest.mark.parametrize("mode", ["connect", "subscribe"])
async def test_late_joiners_and_a_second_tab_show_the_same(service, clients, room, mode):
    rng = random.Random(9)
    first = opened(clients, service, f"{room}-0", room, mode)
    clients("ts.send", name=first, text="say 80 10; tool look; say 20 8")
    joined = []
    for number in range(1, 11):
        await asyncio.sleep(rng.uniform(0.02, 0.1))
        joined.append(opened(clients, service, f"{room}-{number}", room, mode))
    for name in [first, *joined]:
        state = await until(
            clients, name,
            lambda s: s["status"] == "ready" and s["messages"] and said(s["messages"])[-1]["text"].count(" ") == 100,
        )  # fmt: skip
        await the_same(service, room, state)
        clients("ts.close", name=name)


# The client's "status" of a tab that only listens stays "streaming" when a run ends; "generating" is what it shares.
# A tab that only listens keeps the status "streaming" when a run ends; "generating" is what the client's tabs share.
async def test_two_tabs_that_subscribe_hear_each_others_questions(service, clients, room):
    tabs = [opened(clients, service, f"{room}-{number}", room, "subscribe") for number in range(2)]
    await asyncio.sleep(0.2)
    for number, tab in enumerate(tabs):
        clients("ts.send", name=tab, text=f"say {number + 2}")
        for each in tabs:
            await until(
                clients, each, lambda s, n=number: len(said(s["messages"])) == 2 * n + 2
                and not s["generating"] and said(s["messages"])[-1]["text"].count(" ") == n + 2,
            )  # fmt: skip
    await the_same(service, room, *[await clients.ask("ts.state", name=tab) for tab in tabs])
    async with connect(service.url, room) as peer:
        assert len(peer.messages.all()) == 4


async def test_a_choice_can_be_made(service, clients, room):
    name = opened(clients, service, room, room)
    clients("ts.send", name=name, text="choose")
    state = await until(clients, name, lambda s: s["interrupts"])
    assert state["interrupts"][0]["canResolve"] is True
    clients("ts.decide", name=name, payload="Bergen")
    await until(clients, name, lambda s: not s["interrupts"] and "to Bergen" in str(s["messages"]))


async def test_an_interrupt_can_be_resolved(service, clients, room):
    name = opened(clients, service, room, room)
    clients("ts.send", name=name, text="say 3; ask transfer; say 4")
    state = await until(clients, name, lambda s: s["interrupts"])
    assert state["interrupts"][0]["canResolve"] is True
    other = opened(clients, service, f"{room}-2", room)  # a reload: the question is still there
    assert (await until(clients, other, lambda s: s["interrupts"]))["interrupts"][0]["canResolve"] is True
    clients("ts.decide", name=name, payload={"approved": True})
    state = await until(clients, name, lambda s: not s["interrupts"] and "sent" in str(s["messages"]))
    state = await until(clients, name, lambda s: s["status"] == "ready")
    assert (await the_same(service, room, state))[1]["results"] == ['{"sent":true}']


async def test_errors_and_stops_from_elsewhere_are_shown(service, clients, room):
    name = opened(clients, service, room, room)
    clients("ts.send", name=name, text="say 2; fail no more tokens")
    state = await until(clients, name, lambda s: s["status"] == "error")
    assert state["error"] == "no more tokens"
    clients("ts.send", name=name, text="say 500 10")
    await until(clients, name, lambda s: said(s["messages"])[-1]["text"].count(" ") > 5)
    async with httpx.AsyncClient(base_url=service.url) as http:
        assert len((await http.post(f"{API}/{room}/cancel")).json()["stopped"]) == 1
    await until(clients, name, lambda s: s["status"] == "ready")


@pytest.mark.crash
@pytest.mark.nightly
async def test_server_and_agent_are_killed_and_the_client_comes_back_by_itself(mortal, clients, room):
    name = opened(clients, mortal, room, room)
    clients("ts.send", name=name, text="say 20; die; say 10")
    state = await until(
        clients, name, lambda s: s["status"] == "ready" and said(s["messages"])[-1]["text"].count(" ") == 30
    )
    await the_same(mortal, room, state)
    clients("ts.send", name=name, text="say 500 20")  # ten seconds, so that a slow machine sees it under way, too
    await until(clients, name, lambda s: 5 < said(s["messages"])[-1]["text"].count(" ") < 450)
    mortal.kill()
    mortal.start()
    state = await until(
        clients, name, lambda s: s["status"] == "ready" and said(s["messages"])[-1]["text"].count(" ") == 500
    )
    await the_same(mortal, room, state)


async def test_a_reconnect_does_not_ask_twice(service, room):
    body = {
        "threadId": room, "runId": f"r-{room}", "state": {}, "tools": [], "context": [], "forwardedProps": {},
        "messages": [{"id": "u", "role": "user", "content": "say 3"}],
    }  # fmt: skip
    async with httpx.AsyncClient(base_url=service.url) as http:
        first = await http.post(f"{API}/{room}", json=body)
        again = await http.post(f"{API}/{room}", json=body, headers={"Last-Event-ID": "x-3"})
    assert first.headers["x-run-id"] == again.headers["x-run-id"]
    ids = [line for text in (first.text, again.text) for line in text.splitlines() if line.startswith("id: ")]
    assert len(set(ids)) == len(ids), "a client drops what has an id that it has seen"
    async with connect(service.url, room) as peer:
        assert len(peer.messages.all()) == 2


@pytest.mark.parametrize("mode", ["connect", "subscribe"])
async def test_another_answer_takes_the_place_of_the_first(service, clients, room, mode):
    watching = opened(clients, service, f"{room}-2", room, "subscribe")
    name = opened(clients, service, room, room, mode)
    clients("ts.send", name=name, text="say 2")
    first = await until(clients, name, lambda s: s["status"] == "ready" and len(s["messages"]) == 2)
    clients("ts.reload", name=name)
    state = await until(
        clients, name, lambda s: s["status"] == "ready" and len(s["messages"]) == 2
        and s["messages"][1]["id"] != first["messages"][1]["id"] and not s["generating"],
    )  # fmt: skip
    expected = await the_same(service, room, state)
    await until(clients, watching, lambda s: said(s["messages"]) == expected)
    async with connect(service.url, room) as peer:
        assert len(peer.messages.all()) == 3, "both are still there"


async def runs_of(service, room):
    async with httpx.AsyncClient(base_url=service.url) as http:
        return [run["id"] for run in (await http.get(f"/v1/sessions/{room}/runs")).json()["runs"]]


@pytest.mark.parametrize("mode", ["connect", "subscribe"])
async def test_a_second_tab_shows_the_question_and_is_refused_if_it_decides_too_late(service, clients, room, mode):
    first = opened(clients, service, f"{room}-1", room, mode)
    clients("ts.send", name=first, text="say 3; ask transfer; say 4")
    await until(clients, first, lambda s: s["interrupts"])
    second = opened(clients, service, f"{room}-2", room, "connect")
    third = opened(clients, service, f"{room}-3", room, "subscribe")
    for name in (second, third):
        await until(clients, name, lambda s: s["interrupts"])
    clients("ts.decide", name=first, payload={"approved": True})
    state = await until(clients, first, lambda s: "sent" in str(s["messages"]) and s["status"] == "ready")
    clients("ts.decide", name=second, payload={"approved": False})
    state = await until(clients, second, lambda s: s["status"] == "error")
    assert "409" in state["error"], "this client shows no more of a refusal"
    again = opened(clients, service, f"{room}-4", room, "connect")  # a reload: it shows what was decided
    state = await until(clients, again, lambda s: "sent" in str(s["messages"]) and s["status"] == "ready")
    assert state["interrupts"] == []
    assert (await the_same(service, room, state))[1]["results"] == ['{"sent":true}']
    assert len(await runs_of(service, room)) == 1


async def test_a_client_with_its_own_run_id_reconnects_to_the_answer_it_follows(service, room):
    body = {
        "threadId": room, "state": {}, "tools": [], "context": [], "forwardedProps": {},
        "messages": [{"id": "u", "role": "user", "content": "say 40 20"}],
    }  # fmt: skip
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
        posting = [
            asyncio.create_task(http.post(f"{API}/{room}", json=body | {"runId": f"{room}-{n}"})) for n in range(3)
        ]
        answers = await asyncio.gather(*posting)
        assert len({answer.headers["x-run-id"] for answer in answers}) == 1
        for number, answer in enumerate(answers):
            events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
            named = [event["runId"] for event in events if event["type"] in ("RUN_STARTED", "RUN_FINISHED")]
            assert named == [f"{room}-{number}"] * 2, "it begins and ends as the client calls it"
        for headers in ({"Last-Event-ID": "x-3"}, {}):
            again = await http.post(f"{API}/{room}", json=body | {"runId": f"{room}-9"}, headers=headers)
            assert (again.headers["x-run-id"] == answers[0].headers["x-run-id"]) == bool(headers)
