"""Tools that run in a chat client: stock front ends do them unmodified, and of several exactly one does."""

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from tests.gateways.conftest import JS
from tests.gateways.test_ai_sdk import history, opened, the_same
from tests.interop.node import NodePeers

pytestmark = pytest.mark.interop


async def until(clients, name, condition, command="ai.state"):
    return await asyncio.to_thread(clients.until, condition, command=command, name=name)


def said(state):
    parts = state["messages"][-1]["parts"] if state["messages"] else []
    return "".join(part.get("text", "") for part in parts)


def ready(state):
    return state["status"] == "ready" and "it says" in said(state)


async def as_told(service, room, state):
    """See that a page shows what the session says, whoever executed the tools."""
    for message in state["messages"]:
        for part in message["parts"]:
            part.pop("providerExecuted", None)
    return await the_same(service, room, state)


TOOLS = {"place": {"city": "Oslo"}}


@pytest.mark.parametrize("transport", ["http", "websocket"])
@pytest.mark.parametrize("stay", ["", " stay"])
@pytest.mark.sampled(2)
async def test_useChat_executes_the_tool_and_the_answer_goes_on(service, clients, room, transport, stay):
    chat = opened(clients, service, room, room, transport=transport, auto="tools", tools=TOOLS)
    await clients.ask("ai.send", name=chat, text=f"say 3; device place{stay}; say 2", wait=False)
    state = await until(clients, chat, lambda s: ready(s) and "durable" not in said(s)[-5:])
    assert 'it says {"city": "Oslo"} done' in said(state)
    assert len(state["called"]) == 1
    (_, answer) = await as_told(service, room, state)
    assert [part["type"] for part in answer["parts"]].count("tool-place") == 1


async def test_the_tools_and_the_context_of_the_page_arrive(service, clients, room):
    body = {
        "tools": {"place": {"description": "where", "inputSchema": {"type": "object"}}},
        "context": [{"description": "page", "value": "inbox"}],
        "settings": {"temperature": 0.5},
    }
    chat = opened(clients, service, room, room, auto="tools", tools=TOOLS, body=body)
    await clients.ask("ai.send", name=chat, text="input; device place", wait=False)
    state = await until(clients, chat, ready)
    for told in ('"where": "client"', '"value": "inbox"', '"temperature": 0.5'):
        assert told in said(state)
    assert len(state["called"]) == 1


async def test_a_page_that_names_other_tools_is_not_given_the_call(service, clients, room):
    body = {"tools": [{"name": "other"}]}
    other = opened(clients, service, f"{room}-other", room, auto="tools", tools=TOOLS, body=body)
    await clients.ask("ai.send", name=other, text="say 3; device place", wait=False)
    await until(
        clients,
        other,
        lambda s: any(part.get("providerExecuted") is None for m in s["messages"] for part in m["parts"]),
    )
    chat = opened(clients, service, room, room, auto="tools", tools=TOOLS, messages=await history(service.url, room))
    await clients.ask("ai.resume", name=chat, wait=False)
    assert len((await until(clients, chat, ready))["called"]) == 1
    assert (await until(clients, other, ready))["called"] == []


@pytest.mark.parametrize("transport", ["http", "websocket"])
@pytest.mark.sampled(2)
async def test_of_two_tabs_one_executes_the_tool(service, clients, room, transport):
    first = opened(clients, service, f"{room}-1", room, transport=transport, auto="tools", tools=TOOLS)
    await clients.ask("ai.send", name=first, text="say 60 20; device place", wait=False)
    await until(clients, first, lambda s: "durable" in said(s))  # not only its own question
    others = []
    for number in range(2, 6):
        known = await history(service.url, room)
        tab = opened(
            clients, service, f"{room}-{number}", room, transport=transport, auto="tools", tools=TOOLS, messages=known
        )
        await clients.ask("ai.resume", name=tab, wait=False)
        others.append(tab)
    states = [await until(clients, name, ready) for name in (first, *others)]
    assert sum(len(state["called"]) for state in states) == 1
    (taker,) = [state for state in states if state["called"]]
    await as_told(service, room, taker)
    assert len({said(state) for state in states}) == 1


NAMED = [("http", False), ("http", True), ("websocket", False)]
"""How a page is connected, and whether it has a name."""


@pytest.mark.parametrize(("transport", "named"), NAMED)
@pytest.mark.sampled(2)
async def test_a_page_that_is_loaded_again_between_call_and_result(patient, clients, room, transport, named):
    options = {"transport": transport, "auto": "tools", "headers": {"X-Device-Id": room} if named else {}}
    before = opened(clients, patient, f"{room}-1", room, tools={"place": None}, **options)
    await clients.ask("ai.send", name=before, text="say 3; device place", wait=False)
    await until(clients, before, lambda s: s["called"] and s["status"] == "ready")
    await clients.ask("ai.close", name=before)
    after = opened(
        clients, patient, f"{room}-2", room, tools=TOOLS, messages=await history(patient.url, room), **options
    )
    await clients.ask("ai.resume", name=after, wait=False)
    state = await until(clients, after, ready)
    assert len(state["called"]) == 1
    await as_told(patient, room, state)


async def test_a_page_that_dies_is_followed_by_one_that_waits(impatient, clients, room):
    dying = opened(clients, impatient, f"{room}-1", room, auto="tools", tools={"place": None})
    await clients.ask("ai.send", name=dying, text="say 3; device place", wait=False)
    await until(clients, dying, lambda s: s["called"] and s["status"] == "ready")
    tab = opened(
        clients, impatient, f"{room}-2", room, auto="tools", tools=TOOLS, messages=await history(impatient.url, room)
    )
    await clients.ask("ai.resume", name=tab, wait=False)
    state = await until(clients, tab, ready)
    assert len(state["called"]) == 1
    await as_told(impatient, room, state)
    (call,) = state["called"]
    await clients.ask("ai.output", name=dying, tool="place", toolCallId=call, output="late")
    await until(clients, dying, lambda s: s["status"] == "ready" and "it says" in said(s))
    assert '"city": "Oslo"' in said(await clients.ask("ai.state", name=dying)), "the later result counts for nothing"


async def test_a_page_whose_socket_ends_is_followed_by_one_that_waits(patient, clients, room):
    """Long before its time is over: the service sees that it is gone."""
    options = {"transport": "websocket", "auto": "tools"}
    dying = opened(clients, patient, f"{room}-1", room, tools={"place": None}, **options)
    await clients.ask("ai.send", name=dying, text="say 3; device place", wait=False)
    await until(clients, dying, lambda s: s["called"] and s["status"] == "ready")
    tab = opened(
        clients, patient, f"{room}-2", room, tools=TOOLS, messages=await history(patient.url, room), **options
    )
    await clients.ask("ai.resume", name=tab, wait=False)
    with patient.http() as http:
        (call,) = http.get(f"/v1/sessions/{room}/calls").json()["calls"]
        assert call["taken"] is not None, "the tab waits, and the page has it"
    await clients.ask("ai.close", name=dying)
    state = await until(clients, tab, ready)
    assert len(state["called"]) == 1
    await as_told(patient, room, state)


async def test_a_page_whose_socket_lives_keeps_the_call_for_as_long_as_it_takes(impatient, clients, room):
    slow = opened(clients, impatient, f"{room}-1", room, transport="websocket", auto="tools", tools={"place": None})
    await clients.ask("ai.send", name=slow, text="device place", wait=False)
    state = await until(clients, slow, lambda s: s["called"] and s["status"] == "ready")
    tab = opened(
        clients, impatient, f"{room}-2", room, transport="websocket", auto="tools", tools=TOOLS,
        messages=await history(impatient.url, room),
    )  # fmt: skip
    await clients.ask("ai.resume", name=tab, wait=False)
    with impatient.http() as http:
        taken = [http.get(f"/v1/sessions/{room}/calls").json()["calls"][0]["taken"]]
        while taken[-1]["at"] + 1.5 * taken[-1]["ttl"] > (await asyncio.to_thread(now_of, http)):
            await asyncio.sleep(0.1)
        taken.append(http.get(f"/v1/sessions/{room}/calls").json()["calls"][0]["taken"])
    assert taken[0]["device"] == taken[1]["device"], "its time is long over, and its socket is there"
    (call,) = state["called"]
    await clients.ask("ai.output", name=slow, tool="place", toolCallId=call, output="slowly")
    assert 'it says "slowly" done' in said(await until(clients, tab, ready))


async def test_a_page_without_a_connection_keeps_the_call_by_saying_that_it_is_there(impatient, clients, room):
    headers = {"X-Device-Id": room}
    slow = opened(clients, impatient, room, room, auto="tools", tools={"place": None}, headers=headers)
    await clients.ask("ai.send", name=slow, text="device place", wait=False)
    state = await until(clients, slow, lambda s: s["called"] and s["status"] == "ready")
    tab = opened(
        clients, impatient, f"{room}-2", room, auto="tools", tools=TOOLS, messages=await history(impatient.url, room)
    )
    await clients.ask("ai.resume", name=tab, wait=False)
    with impatient.http() as http:
        taken = http.get(f"/v1/sessions/{room}/calls").json()["calls"][0]["taken"]
        while taken["at"] + 1.5 * taken["ttl"] > (await asyncio.to_thread(now_of, http)):
            [known] = http.get(f"/v1/sessions/{room}/calls", headers=headers).json()["calls"]
            await asyncio.sleep(0.1)
    assert known["taken"]["device"] == taken["device"]
    (call,) = state["called"]
    await clients.ask("ai.output", name=slow, tool="place", toolCallId=call, output="slowly")
    assert 'it says "slowly" done' in said(await until(clients, tab, ready))


def now_of(http):
    """The time of the service, in milliseconds: its runs are kept by that."""
    return parsedate_to_datetime(http.get("/healthz").headers["date"]).timestamp() * 1000


# -- AG-UI -----------------------------------------------------------------------------------------------------------

PLACE = {"name": "place", "description": "where the user is", "parameters": {"type": "object", "properties": {}}}
CONTEXT = [{"description": "page", "value": "inbox"}]


def ag_opened(clients, service, name, room):
    clients("ag.open", name=name, url=service.url, thread=room)
    return name


def ag_calls(state):
    """The calls that an application of AG-UI executes when a run has ended: those without a result."""
    results = {message["toolCallId"] for message in state["messages"] if message["role"] == "tool"}
    calls = [call for message in state["messages"] for call in message.get("toolCalls") or ()]
    return [call["id"] for call in calls if call["id"] not in results]


def ag_said(state):
    return "".join(message.get("content") or "" for message in state["messages"] if message["role"] == "assistant")


async def idle(clients, name, condition=lambda _: True):
    return await until(clients, name, lambda s: not s["busy"] and condition(s), "ag.state")


def asked(text):
    return {"id": "u", "role": "user", "content": text}


def result(call, content="Oslo"):
    return {"id": f"t-{call}", "role": "tool", "toolCallId": call, "content": content}


async def test_an_ag_ui_client_executes_the_tool_and_the_answer_goes_on(service, clients, room):
    name = ag_opened(clients, service, room, room)
    more = {"tools": [PLACE], "context": CONTEXT}
    state = await clients.ask(
        "ag.run", name=name, message=asked("input; device place; say 2"), runId=f"{room}-a", **more
    )
    assert '"where": "client"' in ag_said(state)
    assert '"value": "inbox"' in ag_said(state)
    (call,) = ag_calls(state)
    state = await clients.ask("ag.run", name=name, message=result(call), runId=f"{room}-b", **more)
    assert 'it says "Oslo" done' in ag_said(state)
    assert ag_calls(state) == []
    assert state["error"] is None


async def test_of_two_ag_ui_tabs_one_is_told_to_execute_the_tool(impatient, clients, room):
    first, second = ag_opened(clients, impatient, f"{room}-1", room), ag_opened(clients, impatient, f"{room}-2", room)
    more = {"tools": [PLACE]}
    await clients.ask(
        "ag.run", name=first, message=asked("say 60 20; device place"), runId=f"{room}-a", wait=False, **more
    )
    await until(clients, first, ag_said, "ag.state")
    await clients.ask("ag.join", name=second, wait=False)
    await until(clients, second, ag_said, "ag.state")
    await idle_one(clients, first, second)
    states = {name: await clients.ask("ag.state", name=name) for name in (first, second)}
    (taker,) = [name for name, state in states.items() if not state["busy"]]
    (other,) = {first, second} - {taker}
    (call,) = ag_calls(states[taker])
    state = await clients.ask("ag.run", name=taker, message=result(call), runId=f"{room}-b", **more)
    assert 'it says "Oslo" done' in ag_said(state)
    state = await idle(clients, other)
    assert 'it says "Oslo" done' in ag_said(state)
    assert ag_calls(state) == [], "it saw call and result at once"


async def idle_one(clients, *names):
    while all([(await clients.ask("ag.state", name=name))["busy"] for name in names]):
        await asyncio.sleep(0.05)


async def test_an_ag_ui_page_that_is_loaded_again_between_call_and_result(patient, clients, room):
    await one_ag_ui_page_after_another(patient, clients, room)


async def test_an_ag_ui_page_that_is_gone_is_followed_by_one_that_joins(impatient, clients, room):
    await one_ag_ui_page_after_another(impatient, clients, room)


async def one_ag_ui_page_after_another(service, clients, room):
    gone, other = ag_opened(clients, service, f"{room}-1", room), ag_opened(clients, service, f"{room}-2", room)
    more = {"tools": [PLACE]}
    state = await clients.ask("ag.run", name=gone, message=asked("device place"), runId=f"{room}-a", **more)
    assert len(ag_calls(state)) == 1
    await clients.ask("ag.join", name=other, wait=False)
    state = await idle(clients, other, ag_calls)
    (call,) = ag_calls(state)
    state = await clients.ask("ag.run", name=other, message=result(call, "Bergen"), runId=f"{room}-b", **more)
    assert 'it says "Bergen" done' in ag_said(state)


# -- TanStack AI -------------------------------------------------------------------------------------------------------

PLACES = {"tools": [{"name": "place", "description": "where the user is"}], "results": {"place": {"city": "Oslo"}}}


def ts_said(state):
    parts = [part for message in state["messages"] if message["role"] == "assistant" for part in message["parts"]]
    return "".join(part["content"] for part in parts if part["type"] == "text")


async def ts_done(clients, name):
    return await until(
        clients, name, lambda s: s["status"] in ("ready", "success") and "it says" in ts_said(s), "ts.state"
    )


@pytest.mark.parametrize("mode", ["connect", "subscribe"])
async def test_a_tanstack_client_executes_the_tool_and_the_answer_goes_on(service, clients, room, mode):
    clients("ts.open", name=room, url=service.url, thread=room, mode=mode, **PLACES)
    await clients.ask("ts.send", name=room, text="say 3; device place; say 2")
    state = await ts_done(clients, room)
    assert '{"city":"Oslo"}' in ts_said(state).replace("\\", "")
    assert len(state["called"]) == 1
    assert state["errors"] == []


@pytest.mark.parametrize("mode", ["connect", "subscribe"])
@pytest.mark.sampled(2)
async def test_of_two_tanstack_tabs_one_executes_the_tool(service, clients, room, mode):
    tabs = [f"{room}-1", f"{room}-2"]
    clients("ts.open", name=tabs[0], url=service.url, thread=room, mode=mode, **PLACES)
    await clients.ask("ts.send", name=tabs[0], text="say 60 20; device place")
    await until(clients, tabs[0], ts_said, "ts.state")
    clients("ts.open", name=tabs[1], url=service.url, thread=room, mode=mode, **PLACES)
    states = [await ts_done(clients, name) for name in tabs]
    assert sum(len(state["called"]) for state in states) == 1


@pytest.fixture
def mortal_page():
    """A page of its own, which may be killed."""
    page = NodePeers(JS / "clients.mjs")
    yield page
    page.close()


@pytest.mark.parametrize(("mode", "named"), [("connect", False), ("connect", True), ("subscribe", False)])
async def test_a_tanstack_page_that_is_loaded_again_between_call_and_result(patient, clients, room, mode, named):
    headers, before = {"X-Device-Id": room} if named else {}, PLACES | {"results": {"never": True}}
    clients("ts.open", name=room, url=patient.url, thread=room, mode=mode, headers=headers, **before)
    await clients.ask("ts.send", name=room, text="say 3; device place")
    await until(clients, room, lambda s: s["called"], "ts.state")
    clients("ts.close", name=room)
    clients("ts.open", name=f"{room}-2", url=patient.url, thread=room, mode=mode, headers=headers, **PLACES)
    state = await ts_done(clients, f"{room}-2")
    assert len(state["called"]) == 1
    assert state["errors"] == []


@pytest.mark.parametrize("mode", ["connect", "subscribe"])
@pytest.mark.sampled(2)
async def test_a_tanstack_page_that_dies_with_the_call_is_followed_by_one_that_waits(
    impatient, clients, mortal_page, room, mode
):
    before = PLACES | {"results": {"never": True}}
    await mortal_page.ask("ts.open", name=room, url=impatient.url, thread=room, mode=mode, **before)
    await mortal_page.ask("ts.send", name=room, text="say 3; device place")
    await until(mortal_page, room, lambda s: s["called"], "ts.state")
    clients("ts.open", name=room, url=impatient.url, thread=room, mode=mode, **PLACES)
    mortal_page.close()
    state = await ts_done(clients, room)
    assert len(state["called"]) == 1
    assert state["errors"] == []
