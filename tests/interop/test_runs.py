"""A stock Yjs client asks for runs and stops them, online and offline: a request is data, and so is a stop."""

import asyncio

import pytest

from crdt_sessions import Agent, connect
from tests.interop.node import needs_node
from tests.processes import PATIENCE

pytestmark = [pytest.mark.interop, needs_node]


async def test_a_stock_client_asks_offline_and_is_answered_when_it_returns(server, js, room):
    await js.ask("open", peer="phone", url=server.ws, room=room, version=3)
    await asyncio.to_thread(js.synced, "phone")
    await js.ask("disconnect", peer="phone")
    await js.ask("post", peer="phone", id="q", text="Anybody?")
    await js.ask("ask", peer="phone", run="mine", message="q", agent="writer")
    await js.ask("post", peer="phone", id="p", text="Never mind")
    await js.ask("ask", peer="phone", run="stopped", message="p", agent="writer")
    await js.ask("cancel", peer="phone", run="stopped", by="phone")  # before anybody else has heard of it
    asked = []

    async def answer(run):
        asked.append(run.id)
        assert run.message.text == "Anybody?"
        await run.out.write("Me!")

    agent = Agent(server.url, name="writer")
    agent.on_run(answer)
    working = asyncio.create_task(agent.work())
    await js.ask("connect", peer="phone")
    runs = (await asyncio.to_thread(
        js.until,
        lambda dump: {dump["json"]["runs"][run].get("status") for run in ("mine", "stopped")} == {"completed", "cancelled"},
        command="dump", peer="phone",
    ))["json"]["runs"]  # fmt: skip
    assert (runs["mine"]["status"], runs["stopped"]["status"], runs["stopped"]["cancel"]["by"]) == (
        "completed", "cancelled", "phone",
    )  # fmt: skip
    dump = await js.ask("dump", peer="phone")
    assert dump["json"]["messages"]["mine-out"]["parts"][0]["text"] == "Me!"
    assert asked == ["mine"], "a question that asks somebody is not asked about again, and a stopped one never"
    agent.stop()
    await working


async def test_a_stock_client_stops_a_run_that_is_worked_on(server, js, room):
    await js.ask("open", peer="phone", url=server.ws, room=room, version=2)
    await asyncio.to_thread(js.synced, "phone")

    async def answer(run):
        while True:
            await run.out.write("la ")
            await asyncio.sleep(0.02)

    agent = Agent(server.url, name="writer")
    agent.on_run(answer)
    working = asyncio.create_task(agent.work())
    async with connect(server.url, room) as ann:
        await ann.post("Sing", id="q")
        await ann.until(lambda: (m := ann.view.messages.value("run-q-out")) is not None and m.text)
        await asyncio.to_thread(js.until, lambda dump: "run-q" in dump["json"]["runs"], command="dump", peer="phone")
        await js.ask("disconnect", peer="phone")
        await asyncio.sleep(0.2)
        assert ann.view.runs.find("run-q").status == "running", "a closed socket is not a stop"
        await js.ask("cancel", peer="phone", run="run-q", by="phone")
        await js.ask("connect", peer="phone")
        await asyncio.wait_for(ann.until(lambda: ann.view.runs.find("run-q").over), PATIENCE)
        run = ann.view.runs.find("run-q")
        assert (run.status, run.cancel.by) == ("cancelled", "phone")
    agent.stop()
    await working
