"""A question costs about the same in a session that has seen hundreds: nothing reads all runs to answer one."""

import asyncio

import pytest

from crdt_sessions.ids import Millis, Seq
from crdt_sessions.model import SETTLED_KEYS, Author, MessageHead, Runs, SessionDoc, TextPart
from crdt_sessions.model.message_view import MessageView
from crdt_sessions.storage import MemoryStore, Row
from crdt_sessions_server.gateways.ai_sdk.chunks import follow
from tests.counting import calls
from tests.gateways.desk import desk
from tests.gateways.in_process import served
from tests.processes import PATIENCE

ROOM = "long"


def ai_sdk(number):
    message = {"id": f"q{number}", "role": "user", "parts": [{"type": "text", "text": "?"}]}
    return "/v1/gateways/ai-sdk/chat", {"id": ROOM, "messages": [message], "trigger": "submit-message"}


def ag_ui(number):
    message = {"id": f"q{number}", "role": "user", "content": "?"}
    body = {"threadId": ROOM, "runId": f"r{number}", "messages": [message]}
    return "/v1/gateways/ag-ui", {**body, "tools": [], "context": [], "state": {}, "forwardedProps": {}}


def tanstack(number):
    _, body = ag_ui(number)
    return f"/v1/gateways/tanstack/{ROOM}", body


@pytest.mark.parametrize(("gateway", "each"), [(ai_sdk, 0), (ag_ui, 4), (tanstack, 2)])
@pytest.mark.sampled(3)
@pytest.mark.slow
async def test_a_question_reads_each_earlier_run_no_more_often_than_is_told_of_it(gateway, each, monkeypatch):
    """AG-UI and TanStack tell the whole conversation with each answer; the AI SDK tells nothing of earlier ones."""
    read, reads = Runs.read, []
    monkeypatch.setattr(Runs, "read", lambda self, run_id: (reads.append(run_id), read(self, run_id))[1])

    async with served(default_agent="writer") as client:

        async def asked(number):
            before = len(reads)
            asking = asyncio.create_task(client.send(*gateway(number)))
            await client.answer(await client.claim(wait_s=PATIENCE), "Yes.")
            assert "Yes." in await asking
            return len(reads) - before

        costs = [await asked(number) for number in range(31)]
    assert costs[-1] - costs[2] <= each * 28, costs


def question(number):
    return [{"id": f"q{number}", "role": "user", "parts": [{"type": "text", "text": "?"}]}]


async def test_what_follows_a_run_does_not_look_through_the_session_for_it():
    async with desk() as room:

        async def asked(number):
            run = await room.ai_sdk(question(number))
            chunks = follow(room.registry, room.name, run.id)
            first = anext(chunks)
            cost = calls(lambda: next(first.__await__(), None))
            await room.answer("Yes.")
            async for _ in chunks:
                pass
            return cost

        costs = [await asked(number) for number in range(120)]
    assert costs[-1] <= 1.1 * costs[10], costs


async def test_a_session_is_loaded_without_reading_the_runs_that_are_over(monkeypatch):
    read, reads, store = Runs._read, [], MemoryStore()
    async with desk(store=store) as room:
        for number in range(20):
            await room.ai_sdk(question(number))
            await room.answer("Yes.")
        await room.ai_sdk(question(20))
    monkeypatch.setattr(Runs, "_read", lambda self, run_id: (reads.append(run_id), read(self, run_id))[1])
    async with desk(store=store) as room:
        assert set(reads) == {"run-q20"}
        assert len(room.view.runs.unfinished()) == 1


@pytest.mark.parametrize("key", ["request", *SETTLED_KEYS])
async def test_what_was_written_over_a_run_that_is_over_is_put_back_when_it_is_loaded(key):
    """Somebody's update is stored a moment before what puts it back: a crash may come in between."""
    store = MemoryStore()
    async with desk(store=store) as room:
        run = await room.ai_sdk(question(0))
        await room.answer("Yes.")
        before, rows = room.view.runs.find(run.id).to_json(), room.session.document.encode()
        head = room.session.engine.log.head
    document = SessionDoc(7)
    document.apply(rows)
    written = {"request": {"messageId": "q0", "agent": "another", "createdAt": 1}, "status": "running", "epoch": 7}
    _, update = document.edit(lambda doc: doc.roots.runs[run.id].update({key: written.get(key, "mine")}))
    await store.append(room.name, [Row(Seq(head + 1), update)], now=Millis(1))
    async with desk(store=store) as room:
        assert room.view.runs.find(run.id).to_json() == before


async def test_a_completion_reads_none_of_the_runs_that_are_over(monkeypatch):
    read, reads = Runs.read, []
    async with desk() as room:
        for number in range(20):
            await room.openai([{"role": "user", "content": f"{number}?"}])
            await room.answer("Yes.")
        monkeypatch.setattr(Runs, "read", lambda self, run_id: (reads.append(run_id), read(self, run_id))[1])
        run = await room.openai([{"role": "user", "content": "And now?"}])
    assert set(reads) == {run.id}


async def test_what_steers_a_run_is_found_without_reading_the_heads_of_all_messages(monkeypatch):
    read, reads = MessageView.head, []
    async with desk() as room:
        for number in range(20):
            await room.ai_sdk(question(number))
            await room.answer("Yes.")
        run = await room.ai_sdk(question(20))
        head = MessageHead(id="s", role="user", author=Author(id="ann"), created_at=1, steers=run.id)
        await room.session.edit(lambda view: view.messages.add(head, [TextPart(type="text", text="shorter")]))
        monkeypatch.setattr(MessageView, "head", property(lambda self: (reads.append(self.id), read.fget(self))[1]))
        assert [message.text for message in room.view.steering(run.id)] == ["shorter"]
    assert set(reads) == {"s"}
