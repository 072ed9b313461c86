"""The AI SDK's own chat and transports against the service: what they show is what the document says."""

import asyncio
import json
import random
import signal
import socket
import time

import httpx
import pytest
import websockets

from crdt_sessions import connect
from tests.agents import working
from tests.gateways.conftest import agent
from tests.processes import PATIENCE, PROBLEM, Server, attempts

pytestmark = pytest.mark.interop

API = "/v1/gateways/ai-sdk/chat"


def user(id, text):
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


async def history(url, room):
    return (await loaded(url, room))["messages"]


async def loaded(url, room):
    """What a page begins with: the conversation, and the run that is going on, which may have ended when it joins."""
    async with httpx.AsyncClient(base_url=url) as http:
        found = (await http.get(f"{API}/{room}/messages")).json()
    return {key: found[key] for key in ("messages", "activeRun")}


def bare(messages):
    """What of messages is to be equal: not the states in what a client sent, nor how a stream called its thoughts."""
    return [
        {
            "id": message["id"],
            "role": message["role"],
            "parts": [
                {
                    key: value
                    for key, value in part.items()
                    if key != ("id" if message["role"] == "assistant" else "state")
                }
                for part in message["parts"]
            ],
        }
        for message in messages
    ]


async def the_same(service, room, *states):
    expected = bare(await history(service.url, room))
    for state in states:
        assert bare(state["messages"]) == expected
    return expected


def text_of(messages):
    """The text of the answer that is written, as far as it is there."""
    return "".join(part.get("text", "") for part in messages[1]["parts"]) if len(messages) == 2 else ""


async def written(clients, chat, more_than=0):
    """Return once a client shows a part of its answer."""
    await asyncio.to_thread(
        clients.until, lambda s: len(text_of(s["messages"])) > more_than, command="ai.state", name=chat
    )


def opened(clients, service, name, room, **options):
    clients("ai.open", name=name, id=room, url=service.url, **options)
    return name


@pytest.mark.parametrize("transport", ["http", "ws"])
async def test_a_question_is_answered_with_all_kinds_of_parts(service, clients, room, transport):
    chat = opened(clients, service, room, room, transport=transport)
    text = "think 3; say 6; tool weather; say 4; file"
    state = await clients.ask("ai.send", name=chat, text=text)
    assert (state["status"], state["finished"][0]["finishReason"]) == ("ready", "stop"), state
    (_, answer) = await the_same(service, room, state)
    kinds = [part["type"] for part in answer["parts"]]
    assert kinds == ["step-start", "reasoning", "text", "tool-weather", "step-start", "text", "file"]
    tool = answer["parts"][3]
    assert (tool["input"], tool["output"], tool["state"]) == ({"city": "Oslo"}, {"degrees": -3}, "output-available")
    again = await clients.ask("ai.send", name=chat, text="say 2")
    assert len(await the_same(service, room, again)) == 4


@pytest.mark.parametrize("transport", ["http", "ws"])
@pytest.mark.sampled(2)
async def test_reloading_in_the_middle_ten_times_and_a_second_device_show_the_same(service, clients, room, transport):
    rng = random.Random(7)
    first = opened(clients, service, f"{room}-0", room, transport=transport)
    await clients.ask("ai.send", name=first, text="think 20 8; say 60 8; tool look; say 20 8", wait=False)
    resumed = []
    for number in range(1, 11):
        await asyncio.sleep(rng.uniform(0.02, 0.12))
        name = opened(
            clients, service, f"{room}-{number}", room, transport=transport, **await loaded(service.url, room),
        )  # fmt: skip
        resumed.append(name)
        await clients.ask("ai.resume", name=name, wait=False)
    while await active(service.url, room):
        await asyncio.sleep(0.05)
    (_, answer) = await history(service.url, room)
    states = [
        await asyncio.to_thread(  # ready is also one that has not begun to resume
            clients.until, lambda state: state["status"] == "ready" and len(state["messages"]) == 2
            and bare(state["messages"])[1] == bare([answer])[0],
            command="ai.state", name=name,
        )
        for name in [first, *resumed]
    ]  # fmt: skip
    await the_same(service, room, *states)
    assert all(state["error"] is None for state in states if "error" in state)


async def test_resuming_without_a_run_gets_no_stream(service, clients, room):
    async with httpx.AsyncClient(base_url=service.url) as http:
        assert (await http.get(f"{API}/{room}/stream")).status_code == 204
    for transport in ("http", "ws"):
        chat = opened(clients, service, f"{room}-{transport}", room, transport=transport)
        state = await clients.ask("ai.resume", name=chat)
        assert (state["status"], state["messages"]) == ("ready", [])


@pytest.mark.parametrize("transport", ["http", "ws"])
async def test_a_closed_connection_stops_nothing_and_stop_works_from_elsewhere(service, clients, room, transport):
    chat = opened(clients, service, room, room, transport=transport)
    await clients.ask("ai.send", name=chat, text="say 9000 10", wait=False)
    await written(clients, chat)
    left = await clients.ask("ai.leave", name=chat)  # what a page does that is closed, and a stop button as well
    for _ in attempts():
        if len(text_of(await history(service.url, room))) > len(text_of(left["messages"])) + 50:
            break
        await asyncio.sleep(0.05)
    other = opened(clients, service, f"{room}-2", room, transport=transport, **await loaded(service.url, room))
    await clients.ask("ai.resume", name=other, wait=False)
    await written(clients, other, more_than=len(text_of(left["messages"])) + 50)
    async with httpx.AsyncClient(base_url=service.url) as http:
        stopped = (await http.post(f"{API}/{room}/stop")).json()["stopped"]
        assert len(stopped) == 1
    state = await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and s["finished"], command="ai.state", name=other
    )
    assert state["finished"][-1]["finishReason"] == "other"
    assert state["messages"][1]["metadata"]["status"] == "cancelled"
    await the_same(service, room, state)
    async with httpx.AsyncClient(base_url=service.url) as http:
        assert (await http.post(f"{API}/{room}/stop")).json()["stopped"] == []


@pytest.mark.parametrize("approved", [True, False])
async def test_a_decision_here_or_elsewhere_continues_the_answer(service, clients, room, approved):
    chat = opened(clients, service, room, room, auto="approvals")
    state = await clients.ask("ai.send", name=chat, text="say 3; ask transfer; say 4")
    assert (state["finished"][0]["finishReason"], state["status"]) == ("tool-calls", "ready")
    tool = state["messages"][1]["parts"][-1]
    assert (tool["state"], tool["input"]) == ("approval-requested", {"amount": 5})
    await clients.ask("ai.approve", name=chat, id=tool["approval"]["id"], approved=approved, reason="because")
    state = await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and len(s["finished"]) == 2, command="ai.state", name=chat
    )
    (_, answer) = await the_same(service, room, state)
    assert [part["type"] for part in answer["parts"]] == ["step-start", "text", "tool-transfer", "step-start", "text"]
    decided = answer["parts"][2]
    assert decided["approval"]["approved"] is approved
    assert decided["state"] == ("output-available" if approved else "output-denied")
    late = opened(clients, service, f"{room}-2", room, messages=state["messages"])
    await clients.ask("ai.approve", name=late, id=tool["approval"]["id"], approved=not approved)
    await clients.ask("ai.send", name=late, wait=True)
    assert (await history(service.url, room))[1]["parts"][2]["approval"]["approved"] is approved, "decided once"


async def test_a_client_answers_its_own_tool_and_stops_sending(service, clients, room):
    chat = opened(clients, service, room, room, auto="tools")
    state = await clients.ask("ai.send", name=chat, text="client place; say 3")
    assert state["finished"][0]["finishReason"] == "tool-calls"
    tool = state["messages"][1]["parts"][-1]
    assert tool["state"] == "input-available"
    await clients.ask("ai.output", name=chat, tool="place", toolCallId=tool["toolCallId"], output={"city": "Oslo"})
    state = await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and len(s["finished"]) == 2, command="ai.state", name=chat
    )
    (_, answer) = await the_same(service, room, state)
    assert [part["type"] for part in answer["parts"]] == ["step-start", "tool-place", "step-start", "text"]
    await asyncio.sleep(0.3)
    assert (await clients.ask("ai.state", name=chat))["sent"] == 2


async def test_a_choice_is_a_tool_of_the_client_whose_output_is_the_answer(service, clients, room):
    chat = opened(clients, service, room, room, auto="tools")
    state = await clients.ask("ai.send", name=chat, text="choose")
    tool = state["messages"][1]["parts"][-1]
    assert (tool["type"], tool["state"]) == ("tool-ask", "input-available")
    assert tool["input"] == {"message": "Which town?", "schema": {"enum": ["Oslo", "Bergen"]}}
    reloaded = await history(service.url, room)
    assert reloaded[1]["parts"][-1]["state"] == "input-available"
    await clients.ask("ai.output", name=chat, tool="ask", toolCallId=tool["toolCallId"], output="Bergen")
    await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and len(s["finished"]) == 2, command="ai.state", name=chat
    )
    answer = (await history(service.url, room))[1]["parts"]
    assert [part.get("output") for part in answer if part["type"] == "tool-ask"] == [
        {"approved": True, "value": "Bergen"}
    ]
    assert answer[-1]["text"] == "to Bergen "


async def test_an_answer_that_ends_with_a_tool_does_not_make_a_client_send_for_ever(service, clients, room):
    chat = opened(clients, service, room, room, auto="tools")
    state = await clients.ask("ai.send", name=chat, text="say 2; tool weather")
    await asyncio.sleep(0.5)
    state = await clients.ask("ai.state", name=chat)
    assert (state["sent"], state["status"]) == (1, "ready")
    await the_same(service, room, state)


async def test_regenerating_and_editing_make_another_answer(service, clients, room):
    chat = opened(clients, service, room, room)
    await clients.ask("ai.send", name=chat, text="say 2")
    first = (await clients.ask("ai.state", name=chat))["messages"]
    state = await clients.ask("ai.regenerate", name=chat)
    assert state["messages"][1]["id"] != first[1]["id"]
    await the_same(service, room, state)
    state = await clients.ask("ai.send", name=chat, text="say 5", messageId=first[0]["id"])
    assert len(state["messages"]) == 2
    thread = await history(service.url, room)
    assert thread[0]["parts"][0]["text"] == "say 5"
    assert thread[1]["parts"] == state["messages"][1]["parts"]
    state = await clients.ask("ai.send", name=chat, text="echo")
    said = state["messages"][-1]["parts"][-1]["text"]
    assert '"say 5"' in said
    assert '"say 2"' not in said, "the thread is the one that people see"
    async with connect(service.url, room) as peer:
        assert len(peer.messages.all()) == 7, "and everything is still there"


async def test_errors_end_the_stream_and_say_why(service, clients, room):
    chat = opened(clients, service, room, room)
    state = await clients.ask("ai.send", name=chat, text="say 3; fail no more tokens")
    assert (state["status"], state["error"]) == ("error", "no more tokens")
    assert state["finished"][0]["isError"]
    await the_same(service, room, state)
    state = await clients.ask("ai.send", name=chat, text="say 1")
    assert (state["status"], len(state["messages"])) == ("ready", 4)


async def test_a_request_sent_twice_asks_once(service, room):
    body = {"id": room, "messages": [user("u1", "say 5")], "trigger": "submit-message"}
    async with httpx.AsyncClient(base_url=service.url) as http:
        answers = await asyncio.gather(*(http.post(API, json=body) for _ in range(3)))
    assert len({answer.headers["x-run-id"] for answer in answers}) == 1
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    async with connect(service.url, room) as peer:
        assert len(peer.messages.all()) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"id": "a\nb"}, 422),
        ({"id": "room"}, 404),
        ({"id": "room", "messages": [{"id": "", "role": "user", "parts": []}]}, 422),
        ({"id": "room", "messages": [{"id": "u", "role": "pirate", "parts": []}]}, 422),
        ({"id": "room", "messages": [{"id": "a", "role": "assistant", "parts": []}]}, 404),
        (
            {
                "id": "room",
                "messages": [
                    {"id": "u", "role": "user", "parts": [{"type": 7, "text": {}}, {}]},
                    {
                        "id": "a",
                        "role": "assistant",
                        "parts": [{"toolCallId": [], "state": 3, "approval": {"approved": True}}],
                    },
                ],
            },
            404,
        ),
    ],
)
async def test_an_invalid_request_is_refused_before_the_stream_begins(service, body, status):
    async with httpx.AsyncClient(base_url=service.url) as http:
        answer = await http.post(API, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert answer.headers["X-Problem-Type"].startswith(PROBLEM), "what useChat shows is the text"


async def test_a_message_from_a_yjs_peer_is_in_the_history_and_its_answer_can_be_followed(service, clients, room):
    async with connect(service.url, room, name="Ann") as ann:
        await ann.post("say 80 10")
        await ann.until(lambda: any(run.status == "running" for run in ann.view.runs.all()))
        chat = opened(clients, service, room, room, **await loaded(service.url, room))
        state = await clients.ask("ai.resume", name=chat)
        await the_same(service, room, state)


@pytest.mark.parametrize("transport", ["http", "ws"])
async def test_a_page_that_was_loaded_before_its_answer_began_gets_it_though_it_has_ended(
    service, clients, room, transport
):
    """What it shows names no run, and none is active any more: it would go on showing the question alone."""
    async with connect(service.url, room, name="Ann") as ann:
        question = await ann.post("well?", agent=f"late-{transport}")
        page = await loaded(service.url, room)
        assert [message["role"] for message in page["messages"]] == ["user"]
        chat = opened(clients, service, room, room, transport=transport, **page)
        async with working(service.url, lambda run: run.out.write("well"), name=f"late-{transport}"):
            await asyncio.wait_for(ann.messages.answer_to(question), PATIENCE)
        await the_same(service, room, await clients.ask("ai.resume", name=chat))


@pytest.mark.crash
async def test_agent_and_server_are_killed_in_the_middle_and_the_answer_is_whole(mortal, clients, room):
    chat = opened(clients, mortal, room, room)
    state = await clients.ask("ai.send", name=chat, text="say 20; die; say 10")
    assert mortal.agent_died
    assert (state["status"], state["finished"][0]["finishReason"]) == ("ready", "stop"), "on the same stream"
    await the_same(mortal, room, state)
    await clients.ask("ai.send", name=chat, text="say 150 20", wait=False)
    await asyncio.to_thread(
        clients.until,
        lambda s: len(s["messages"]) == 4 and s["messages"][3]["parts"],
        command="ai.state",
        name=chat,
    )
    mortal.kill()
    await asyncio.to_thread(clients.until, lambda s: s["status"] == "error", command="ai.state", name=chat)
    mortal.start()
    for _ in attempts():
        state = await clients.ask("ai.resume", name=chat)
        if state["status"] == "ready" and not (await active(mortal.url, room)):
            break
        await asyncio.sleep(0.2)
    assert state["status"] == "ready"
    expected = await the_same(mortal, room, state)
    words = expected[3]["parts"][-1]["text"].split()
    assert len(words) == 150, "every word once"


async def test_a_client_that_was_away_when_its_answer_ended_gets_the_ending(service, clients, room):
    chat = opened(clients, service, room, room)
    await clients.ask("ai.send", name=chat, text="say 60 20", wait=False)
    await asyncio.to_thread(
        clients.until, lambda s: len(s["messages"]) == 2 and s["messages"][1]["parts"], command="ai.state", name=chat
    )
    await clients.ask("ai.leave", name=chat)
    while await active(service.url, room):
        await asyncio.sleep(0.1)
    await the_same(service, room, await clients.ask("ai.resume", name=chat))
    assert (await clients.ask("ai.resume", name=chat))["status"] == "ready"


@pytest.mark.parametrize("transport", ["http", "ws"])
async def test_a_run_is_steered_and_shows_where_it_heard_it(service, clients, room, transport):
    chat = opened(clients, service, room, room, transport=transport)
    await clients.ask("ai.send", name=chat, text="say 3; tool weather; heed; say 2", wait=False)
    await asyncio.to_thread(
        clients.until, lambda s: len(s["messages"]) == 2 and any("output" in part for part in s["messages"][1]["parts"][-1:]),
        command="ai.state", name=chat,
    )  # fmt: skip
    said = {"message": user("s1", "in Fahrenheit")}
    async with httpx.AsyncClient(base_url=service.url) as http:
        for _ in range(2):  # again changes nothing
            answer = await http.post(f"{API}/{room}/steer", json=said)
            assert (answer.status_code, answer.json()) == (202, {"runId": answer.json()["runId"]})
    state = await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and s["finished"], command="ai.state", name=chat
    )
    (_, reply) = await the_same(service, room, state)
    kinds = [part["type"] for part in reply["parts"]]
    assert kinds == [
        "step-start", "text", "tool-weather", "steering-message", "step-start", "text",
    ], "shown where it was heard, and not again as a message"  # fmt: skip
    heard = state["messages"][1]["parts"][3]
    assert (heard["id"], heard["parts"][0]["text"]) == ("s1", "in Fahrenheit")
    state = await clients.ask("ai.send", name=chat, text="echo")
    roles = [message["role"] for message in json.loads(state["messages"][-1]["parts"][-1]["text"])]
    assert roles == ["user", "assistant", "tool", "user", "assistant", "user"], "and the model reads it there"


async def test_steering_without_a_run_asks_a_question(service, clients, room):
    chat = opened(clients, service, room, room)
    await clients.ask("ai.send", name=chat, text="say 1")
    async with httpx.AsyncClient(base_url=service.url) as http:
        run = (await http.post(f"{API}/{room}/steer", json={"message": user("s1", "say 2")})).json()["runId"]
        assert run == "run-s1"
        assert (
            await http.post(f"{API}/{room}/steer", json={"message": user("s", "x"), "runId": "none"})
        ).status_code == 404
    await clients.ask("ai.resume", name=chat)
    while len(await history(service.url, room)) < 4 or await active(service.url, room):
        await asyncio.sleep(0.05)
    assert [message["id"] for message in await history(service.url, room)][2] == "s1"


async def active(url, room):
    async with httpx.AsyncClient(base_url=url) as http:
        return (await http.get(f"{API}/{room}/messages")).json()["activeRun"]


async def test_a_broken_off_answer_does_not_spoil_the_next_turn(service, clients, room):
    chat = opened(clients, service, room, room)
    await clients.ask("ai.send", name=chat, text="say 400 10", wait=False)
    await asyncio.to_thread(
        clients.until, lambda s: len(s["messages"]) == 2 and s["messages"][1]["parts"], command="ai.state", name=chat
    )
    async with httpx.AsyncClient(base_url=service.url) as http:
        await http.post(f"{API}/{room}/stop")
    await asyncio.to_thread(clients.until, lambda s: s["status"] == "ready", command="ai.state", name=chat)
    state = await clients.ask("ai.send", name=chat, text="echo")
    history = json.loads(state["messages"][-1]["parts"][-1]["text"])
    assert [message["role"] for message in history] == ["user", "assistant", "user"]
    assert history[1]["content"].startswith("naïve café")


@pytest.mark.parametrize("transport", ["http", "ws"])
@pytest.mark.sampled(2)
async def test_a_service_that_stops_says_so_and_does_not_wait_for_streams(clients, room, tmp_path, transport):
    server = Server(tmp_path / "s.db", "--default-agent", "writer")
    writer = agent(server.url)
    try:
        chat = opened(clients, server, room, room, transport=transport)
        await clients.ask("ai.send", name=chat, text="say 900 10", wait=False)
        await asyncio.to_thread(
            clients.until,
            lambda s: len(s["messages"]) == 2 and s["messages"][1]["parts"],
            command="ai.state",
            name=chat,
        )
        begun = time.monotonic()
        assert await asyncio.to_thread(server.terminate) == 0
        assert time.monotonic() - begun < 8
        state = await asyncio.to_thread(
            clients.until, lambda s: s["status"] == "error", command="ai.state", name=chat
        )
        assert "resume" in state["error"]
    finally:
        writer.close()
        server.close()


@pytest.mark.parametrize("direct", ["--direct", "--no-direct"])
@pytest.mark.sampled(2)
async def test_nonsense_on_the_websocket_is_answered_or_closes_it(tmp_path, room, direct):
    server = await asyncio.to_thread(Server, tmp_path / "s.db", "--default-agent", "assistant", direct)
    try:
        await _nonsense(server, room, hypercorn=direct == "--no-direct")
    finally:
        server.close()


async def _nonsense(service, room, *, hypercorn):
    url = f"{service.url.replace('http', 'ws')}{API}"
    async with websockets.connect(url) as socket:
        assert ("Server" in socket.response.headers) == hypercorn
        for frame, text in (
            ({"type": "send", "requestId": "1", "id": "a\nb"}, "1 to 200 characters"),
            ({"type": "send", "requestId": "1", "id": room, "messages": 7}, "not a chat request"),
            ({"type": "send", "requestId": "1", "id": room, "messages": []}, "message to answer"),
        ):
            await socket.send(json.dumps(frame))
            answer = json.loads(await socket.recv())
            assert (answer["type"], text in answer["errorText"]) == ("error", True), answer
        await socket.send('{"type": "nothing we know"}')
        message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "say 300 10"}]}
        for number in range(40):
            frame = {"type": "send", "requestId": f"r{number}", "id": room, "messages": [message]}
            await socket.send(json.dumps({**frame, "trigger": "submit-message"}))
        while (answer := json.loads(await socket.recv()))["type"] != "error":
            pass
        assert "at once" in answer["errorText"]
        await socket.send("not JSON")
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await socket.recv()
        assert socket.close_code == 1007
    async with httpx.AsyncClient(base_url=service.url) as http:
        await http.post(f"{API}/{room}/stop")


@pytest.mark.parametrize("direct", ["--direct", "--no-direct"])
@pytest.mark.sampled(2)
async def test_a_client_that_sends_and_never_reads_is_no_longer_read(tmp_path, direct):
    """What it sends waits in its own socket: the service holds a bounded part of it."""
    server = await asyncio.to_thread(Server, tmp_path / "s.db", direct)
    try:
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        head = f"GET {API} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n"
        said = json.dumps({"type": "send", "requestId": "x" * 60_000, "id": "a\nb"}).encode()
        frame = b"\x81\xfe" + len(said).to_bytes(2, "big") + bytes(4) + said

        def flood():
            with socket.create_connection(("127.0.0.1", server.port)) as deaf:
                deaf.settimeout(3)
                deaf.sendall(head.encode())
                time.sleep(0.5)
                for _ in range(3_000):
                    deaf.sendall(frame)

        with pytest.raises(TimeoutError):
            await asyncio.to_thread(flood)
        async with httpx.AsyncClient(base_url=server.url) as http:
            assert (await http.get("/readyz")).status_code == 200
    finally:
        server.close()


async def test_chat_sockets_are_closed_with_a_reason_when_the_service_stops(tmp_path):
    server = await asyncio.to_thread(Server, tmp_path / "s.db")
    try:
        async with websockets.connect(f"{server.url.replace('http', 'ws')}{API}") as open_one:
            await open_one.send(json.dumps({"type": "resume", "requestId": "1", "id": "room"}))
            assert json.loads(await open_one.recv())["type"] == "no-active"
            server.child.send_signal(signal.SIGINT)
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(open_one.recv(), PATIENCE)
            assert open_one.close_code == 1012
    finally:
        server.close()


async def test_a_page_of_another_origin_gets_nothing(service, room):
    url = f"{service.url.replace('http', 'ws')}{API}"
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(url, origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with httpx.AsyncClient(base_url=service.url, headers={"Origin": "https://evil.example"}) as http:
        for path in (f"{API}/{room}/stream", f"/v1/gateways/ag-ui/{room}", f"/v1/gateways/tanstack/{room}"):
            assert (await http.get(path)).status_code == 403


async def test_tokens_are_asked_for_and_readers_may_only_read(tmp_path, room):
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({"w": {"principal": "ann"}, "r": {"principal": "bob", "canWrite": False}}))
    server = Server(tmp_path / "s.db", "--tokens-file", tokens, "--default-agent", "")
    body = {"id": room, "messages": [user("u", "hello")], "trigger": "submit-message"}
    run = {
        "threadId": room, "runId": "r1", "state": {}, "tools": [], "context": [], "forwardedProps": {},
        "messages": [{"id": "v", "role": "user", "content": "hello"}],
    }  # fmt: skip
    completion = {"model": "*", "messages": [{"role": "user", "content": "hello"}]}
    posts = [
        (API, body), ("/v1/gateways/ag-ui", run), (f"/v1/gateways/tanstack/{room}", run),
        (f"/v1/gateways/tanstack/{room}/send", run), ("/v1/gateways/openai/chat/completions", completion),
        (f"{API}/{room}/stop", {}), (f"/v1/gateways/ag-ui/{room}/cancel", {}), (f"/v1/gateways/tanstack/{room}/cancel", {}),
    ]  # fmt: skip
    try:
        # What is refused before its body is there ends its connection: each request has one of its own.
        alone = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=server.url, headers={"X-Session-Id": room}, limits=alone) as http:
            await http.post("/v1/sessions", json={"id": room}, headers={"Authorization": "Bearer w"})
            for path, data in posts:
                assert (await http.post(path, json=data)).status_code == 401, path
                answer = await http.post(path, json=data, headers={"Authorization": "Bearer r"})
                assert answer.status_code == 403, (path, answer.text)
            for path in (f"{API}/{room}/messages", f"/v1/gateways/tanstack/{room}", f"/v1/gateways/ag-ui/{room}"):
                assert (await http.get(path)).status_code == 401
                assert (await http.get(path, headers={"Authorization": "Bearer r"})).status_code == 200
            assert (await http.get(f"{API}/{room}/messages", params={"token": "r"})).json()["messages"] == []
        url = f"{server.url.replace('http', 'ws')}{API}"
        async with websockets.connect(f"{url}?token=r") as socket:
            await socket.send(json.dumps({"type": "send", "requestId": "1", **body}))
            assert "may not post" in json.loads(await socket.recv())["errorText"]
        async with websockets.connect(url) as socket:
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4401
    finally:
        server.close()


async def test_calls_without_a_result_do_not_spoil_later_turns(service, clients, room):
    """Of a run that was stopped, one that failed, one that waited for people, and one whose client never answered."""
    chat = opened(clients, service, room, room)
    for text in ("call look; say 400 10", "ask transfer"):
        await clients.ask("ai.send", name=chat, text=text, wait=False)
        await asyncio.to_thread(
            clients.until, lambda s: "toolCallId" in json.dumps(s["messages"][-1]), command="ai.state", name=chat
        )
        async with httpx.AsyncClient(base_url=service.url) as http:
            await http.post(f"{API}/{room}/stop")
        await asyncio.to_thread(clients.until, lambda s: s["status"] == "ready", command="ai.state", name=chat)
    for text in ("call look; fail no more tokens", "client place", "echo"):
        state = await clients.ask("ai.send", name=chat, text=text)
    told = await history(service.url, room)
    calls = [part for message in told for part in message["parts"] if "toolCallId" in part]
    assert [call["state"] for call in calls] == ["output-error", "output-denied", "output-error", "output-error"]
    next_turn = await clients.ask("ai.model", messages=[*told, user("next", "?")])
    assert (next_turn["text"], next_turn["error"]) == ("so", None)
    shown = [message for message in state["messages"][:2] if message["role"] == "assistant"]
    assert "was stopped" in json.dumps(shown[0]["parts"]), "a client that followed saw it as well"
    heard = json.loads(state["messages"][-1]["parts"][-1]["text"])
    asked = [call["id"] for message in heard for call in message.get("tool_calls", [])]
    answered = [message["tool_call_id"] for message in heard if message["role"] == "tool"]
    assert (len(asked), answered) == (4, asked), "and so did the agent's model"
    for client in ("ag", "ts"):
        clients(f"{client}.open", name=room, thread=room, url=service.url)
    joined = (await clients.ask("ag.join", name=room))["messages"]
    asked = [call["id"] for message in joined for call in message.get("toolCalls", [])]
    assert [message["toolCallId"] for message in joined if message["role"] == "tool"] == asked
    state = await asyncio.to_thread(clients.until, lambda s: len(s["messages"]) >= 10, command="ts.state", name=room)
    results = [
        part["toolCallId"]
        for message in state["messages"]
        for part in message["parts"]
        if part["type"] == "tool-result"
    ]
    assert results == asked


async def test_metadata_of_messages_is_kept_and_given_back(service, room):
    """``metadata`` of a ``UIMessage`` is the application's: a page that is opened later has it, too."""
    mine = {"sent": 1.5, "tags": ["a"], "from": None}
    said = {**user("u", "say 1"), "metadata": mine}
    old = [
        {**user("o", "before"), "metadata": {"old": True}},
        {"id": "a", "role": "assistant", "parts": [{"type": "text", "text": "Yes."}], "metadata": "kept"},
    ]
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as http:
        await http.post(API, json={"id": room, "messages": [*old, said]})
        await http.post(
            f"/v1/sessions/{room}/messages", json={"id": "r", "text": "?", "agent": "nobody", "metadata": [1]}
        )
    found = {message["id"]: message.get("metadata") for message in await history(service.url, room)}
    answer = found.pop("run-u-out")
    assert found == {"o": {"old": True}, "a": "kept", "u": mine, "r": [1]}
    assert (answer["runId"], answer["status"]) == ("run-u", "completed")


async def test_a_late_output_of_a_second_window_changes_nothing(service, clients, room):
    first = opened(clients, service, f"{room}-1", room, auto="tools")
    state = await clients.ask("ai.send", name=first, text="client place; say 3")
    call = state["messages"][1]["parts"][-1]["toolCallId"]
    second = opened(clients, service, f"{room}-2", room, auto="tools", messages=await history(service.url, room))
    await clients.ask("ai.output", name=first, tool="place", toolCallId=call, output="Oslo")
    await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and len(s["finished"]) == 2, command="ai.state", name=first
    )
    await clients.ask("ai.send", name=first, text="say 2")
    before = await history(service.url, room)
    await clients.ask("ai.output", name=second, tool="place", toolCallId=call, output="Bergen")
    state = await asyncio.to_thread(
        clients.until, lambda s: s["status"] == "ready" and s["finished"], command="ai.state", name=second
    )
    assert await history(service.url, room) == before
    assert '"Oslo"' in json.dumps(before[1])
    assert "error" not in state
    async with httpx.AsyncClient(base_url=service.url) as http:
        assert len((await http.get(f"/v1/sessions/{room}/runs")).json()["runs"]) == 3


async def test_regenerating_twice_while_it_runs_makes_one_answer(service, room):
    body = {"id": room, "messages": [user("u1", "say 30 10")], "trigger": "submit-message"}
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as http:
        first = await http.post(API, json=body)
        anew = await asyncio.gather(
            *(http.post(API, json=body | {"trigger": "regenerate-message"}) for _ in range(3))
        )
    runs = {answer.headers["x-run-id"] for answer in anew}
    assert (len(runs), first.headers["x-run-id"] in runs) == (1, False)


async def test_a_message_instead_of_a_decision_is_answered_and_closes_the_question(service, clients, room):
    chat = opened(clients, service, room, room, auto="approvals")
    state = await clients.ask("ai.send", name=chat, text="ask transfer; say 4")
    asked = state["messages"][1]
    assert asked["parts"][-1]["state"] == "approval-requested"
    state = await clients.ask("ai.send", name=chat, text="say 2; echo")
    assert (state["status"], state["finished"][-1]["finishReason"], len(state["messages"])) == ("ready", "stop", 4)
    run, data = asked["metadata"]["runId"], {"type": "data-superseded", "transient": True}
    assert state["data"] == [data | {"data": {"runId": run, "messageId": asked["id"]}}], "a page may look anew"
    told = await history(service.url, room)
    assert (told[1]["parts"][1]["state"], told[1]["metadata"]["status"]) == ("output-denied", "cancelled")
    heard = json.loads(told[3]["parts"][-1]["text"])
    assert [message["role"] for message in heard] == ["user", "assistant", "tool", "user", "assistant"]
    assert "denied" in heard[2]["content"], "the model learns that it was not called"
    assert (await clients.ask("ai.model", messages=[*told, user("next", "?")]))["text"] == "so"
    late = opened(clients, service, f"{room}-2", room, auto="approvals", messages=[told[0], asked])
    await clients.ask("ai.approve", name=late, id=asked["parts"][-1]["approval"]["id"], approved=True)
    state = await asyncio.to_thread(clients.until, lambda s: s["status"] == "error", command="ai.state", name=late)
    assert bare(await history(service.url, room)) == bare(told), "who decides too late changes nothing, and is told"
    assert "is not asked about any more: superseded by" in state["error"]
    assert state["sent"] == 1


async def test_a_messages_metadata_tells_what_its_run_has_used(service, room):
    async with httpx.AsyncClient(base_url=service.url, timeout=PATIENCE) as http:
        asked = {"id": room, "trigger": "submit-message", "messages": [user("u", "say 2; spend 10 3")]}
        told = (await http.post(f"{API}", json=asked)).text
    chunks = [json.loads(line[5:]) for line in told.splitlines() if line.startswith("data: {")]
    usage = {"inputTokens": 10, "outputTokens": 3, "totalTokens": 13, "cachedInputTokens": 4, "calls": 1}
    found = chunks[-1]["messageMetadata"]["usage"]
    assert (chunks[-1]["type"], {key: found[key] for key in usage}) == ("finish", usage)
    assert (await history(service.url, room))[1]["metadata"]["usage"] == found
