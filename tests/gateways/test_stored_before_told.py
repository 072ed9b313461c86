"""Whoever reads without Yjs is told nothing that a crash may take back.

Readers wake at a commit, and by then more stands in the document than was committed.
"""

import asyncio
from contextlib import AsyncExitStack

import pytest

from crdt_sessions.ids import session_id
from crdt_sessions.model import ArtifactHead, Author, MessageHead, RunResult, TextPart
from crdt_sessions.runtime import SessionRegistry
from crdt_sessions.storage import MemoryStore
from crdt_sessions.streams import START
from crdt_sessions.sync import lease_digest
from crdt_sessions.testing import settle
from crdt_sessions_server.gateways import completions
from crdt_sessions_server.gateways.ag_ui.events import events
from crdt_sessions_server.gateways.ag_ui.session import SessionEncoder
from crdt_sessions_server.gateways.ai_sdk.chunks import follow
from crdt_sessions_server.gateways.durable_streams.views import Events, Text
from tests.gateways.desk import desk
from tests.gateways.in_process import served
from tests.held_store import Held, stored_text

QUESTION = [{"id": "q", "role": "user", "parts": [{"type": "text", "text": "?"}]}]


async def ai_sdk(room, run, told):
    async for batch in follow(room.registry, room.name, run.id):
        told += batch


async def openai(room, run, told):
    async for batch in completions.chunks(room.registry, room.name, run, completions.Encoder(run, "writer")):
        told += batch


async def openai_whole(room, run, told):
    response = await completions.whole(room.registry, room.name, run, "writer")
    told.append(await response.get_data(as_text=True))


async def ag_ui(room, run, told):
    async for batch in events(room.registry, room.name, SessionEncoder("thread", run), follow=False):
        told += batch


async def stream_of_events(room, run, told):
    view = Events(room.registry, room.name)
    told.append((await view.read(START)).data)


async def stream_of_text(room, run, told):
    view = Text(room.registry, room.name, f"{run.id}-out")
    told.append((await view.read(START)).data)


@pytest.mark.parametrize("gateway", [ai_sdk, openai, openai_whole, ag_ui, stream_of_events, stream_of_text])
async def test_a_reader_is_told_what_is_stored_and_no_more(gateway):
    store, told = Held(), []
    async with desk(store=store) as room:
        run = await room.ai_sdk(QUESTION)
        claimed = room.session.decide(
            lambda runs, now: runs.claim(
                run.id, agents=["writer"], owner="writer", digest=lease_digest("token"), now=now
            )
        )
        message = await room.session.edit(lambda view: view.begin_output(run, Author(id="writer", kind="agent"), 1))
        stream = await room.session.edit(lambda view: message.open_text())
        await room.session.edit(lambda view: stream.append("first"))

        def end(view):
            stream.append(" third")
            view.runs.report(run.id, RunResult(status="completed", epoch=claimed.epoch, at=1))

        async with store.held():
            second = asyncio.create_task(room.session.edit(lambda view: stream.append(" second")))
            await settle()
            reading = asyncio.create_task(gateway(room, run, told))
            await settle()
            third = asyncio.create_task(room.session.edit(end))
            await settle()
            store.may.release()
            await settle()
            assert (second.done(), third.done()) == (True, False)
            assert await stored_text(store, room.name, message.id) == "first second"
            assert "third" not in str(told)
        await reading
        await third
        assert "third" in str(told)


@pytest.mark.parametrize("path", ["messages", "export", "artifacts/plan", "state"])
async def test_a_read_of_the_interface_answers_what_is_stored_and_no_more(path):
    store = Held()
    async with (
        served(store, sandbox=False) as client,
        client.registry.open(session_id("room"), create=True) as session,
    ):

        def say(number):
            def change(view):
                head = MessageHead(id=f"m{number}", role="user", author=Author(id="ann"), created_at=number)
                view.messages.add(head, [TextPart(type="text", text=number * "one ")])
                view.document.roots.state["said"] = number * "one "
                view.artifacts.replace("plan", number * "one ")

            return session.edit(change)

        await session.edit(lambda view: view.artifacts.add(ArtifactHead(id="plan", created_at=1), ""))
        await say(1)
        async with store.held():
            second = asyncio.create_task(say(2))
            await settle()
            reading = asyncio.create_task(client.get(f"/v1/sessions/room/{path}"))
            await settle(100)
            third = asyncio.create_task(say(3))
            await settle()
            store.may.release()
            await settle(100)
            assert (second.done(), third.done()) == (True, False)
            assert not reading.done() or "one one one" not in str(reading.result())
        assert "one one" in str(await reading)
        await third


async def test_what_was_stored_last_is_told_though_the_session_has_ended():
    """A service that stops stores what there is; whoever has read it until then is told."""
    async with SessionRegistry(MemoryStore()) as registry, AsyncExitStack() as until_told:
        async with registry.open(session_id("room"), create=True) as session:
            await session.edit(lambda view: view.document.roots.state.update({"n": 1}))
            await until_told.enter_async_context(session.reading())
        await registry.shutdown()
        assert session.failed is not None
