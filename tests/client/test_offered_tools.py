"""Tools that peers offer, against the real service: an agent calls one, one of the peers does it, the answer goes on."""

import asyncio
import contextlib

import pytest

from crdt_sessions import connect
from crdt_sessions.bridges import deltas
from crdt_sessions.errors import ToolRefused
from tests.agents import working
from tests.processes import PATIENCE, Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    flags = ("--default-agent", "", "--device-lease-s", "0.5")
    process = Server(tmp_path_factory.mktemp("tools") / "s.db", "--lease-s", "10", *flags)
    yield process
    process.close()


@pytest.fixture
def room(request):
    return request.node.name.split("[")[0]


async def answered(peer, message):
    def over():
        run = peer.view.runs.value(f"run-{message.id}")
        return run is not None and run.over

    await asyncio.wait_for(peer.until(over), PATIENCE)
    return peer.view.messages.value(f"run-{message.id}-out")


@pytest.mark.parametrize("suspend", [True, False])
async def test_one_of_two_peers_calls_the_tool_and_the_answer_goes_on(service, room, suspend):
    room = f"{room}-{suspend}"
    called, tries = [], []

    async def answer(run):
        tries.append(run.attempt)
        found = await run.call_in_client("place", {"exact": True}, suspend=suspend)
        await run.out.write(f"you are in {found.output['town']} ({found.code}, {found.by})")

    name = f"guide-{suspend}"
    async with (
        working(service.url, answer, name),
        connect(service.url, room, name="Ann", id="ann") as ann,
        connect(service.url, room, name="Ann", id="ann") as other,
    ):
        for peer in (ann, other):
            peer.offer_tool("place", lambda arguments: called.append(arguments) or {"town": "Oslo"})
        said = await ann.post("where am I?", agent=name)
        answer = await answered(ann, said)
        assert answer.text == "you are in Oslo (done, ann)"
        assert called == [{"exact": True}]
        assert len(tries) == (2 if suspend else 1)
        (part,) = [part for part in answer.parts if part.type == "tool"]
        assert part.outcome.device in (str(ann.client_id), str(other.client_id))


async def test_a_peer_that_goes_away_in_the_middle_is_followed_by_another_one(service, room):
    async def answer(run):
        found = await run.call_in_client("place")
        await run.out.write(str(found.output))

    async def never(arguments):
        begun.set()
        await asyncio.Event().wait()

    begun = asyncio.Event()
    name = "guide-away"
    async with working(service.url, answer, name), connect(service.url, room, id="ann") as ann:
        async with connect(service.url, room, id="bob") as bob:
            bob.offer_tool("place", never)
            said = await ann.post("where?", agent=name)
            await asyncio.wait_for(begun.wait(), PATIENCE)
            ann.offer_tool("place", lambda _: "Bergen")
        assert (await answered(ann, said)).text == "Bergen"


async def test_a_peer_leaves_though_its_tool_does_not_heed_that_it_is_cancelled(service, room, monkeypatch, caplog):
    """It would stay for as long as the tool does, and nobody else would get the call."""
    monkeypatch.setattr("crdt_sessions.client.foreign._GRACE_S", 0.1)

    async def answer(run):
        found = await run.call_in_client("place")
        await run.out.write(str(found.output))

    async def stubborn(_):
        begun.set()
        while not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await over.wait()

    begun, over = asyncio.Event(), asyncio.Event()
    name = "guide-stubborn"
    async with working(service.url, answer, name), connect(service.url, room, id="ann") as ann:
        async with asyncio.timeout(PATIENCE):
            async with connect(service.url, room, id="bob") as bob:
                bob.offer_tool("place", stubborn)
                said = await ann.post("where?", agent=name)
                await begun.wait()
                ann.offer_tool("place", lambda _: "Bergen")
        assert "an offered tool goes on though it was cancelled" in caplog.text
        assert (await answered(ann, said)).text == "Bergen"
    over.set()


async def test_what_a_tool_refuses_or_fails_at_the_agent_is_told(service, room):
    async def answer(run):
        for found in await run.outcomes([run.client_tool("camera"), run.client_tool("disk")]):
            await run.out.write(f"{found.code}: {found.error.partition(';')[0]}. ")

    def no(arguments):
        raise ToolRefused("there is no camera")

    name = "guide-refused"
    async with working(service.url, answer, name), connect(service.url, room, id="ann") as ann:
        ann.offer_tool("camera", no)
        ann.offer_tool("disk", lambda _: 1 / 0)
        said = await ann.post("photo?", agent=name)
        assert (await answered(ann, said)).text == "refused: there is no camera. failed: the tool failed. "


async def test_a_tool_that_awaits_what_was_cancelled_has_failed(service, room):
    async def answer(run):
        found = await run.call_in_client("disk")
        await run.out.write(found.code)

    async def disk(_):
        helper = asyncio.ensure_future(asyncio.Event().wait())
        helper.cancel()
        await helper

    name = "guide-cancelled"
    async with working(service.url, answer, name), connect(service.url, room, id="ann") as ann:
        ann.offer_tool("disk", disk)
        assert (await answered(ann, await ann.post("?", agent=name))).text == "failed"


async def test_a_deadline_is_told(service, room):
    async def answer(run):
        found = await run.call_in_client("nobody", deadline_s=0.3)
        await run.out.write(f"{found.code}: {found.error}")

    name = "guide-late"
    async with working(service.url, answer, name), connect(service.url, room, id="ann") as ann:
        said = await ann.post("well?", agent=name)
        assert (await answered(ann, said)).text == "deadline: no device had a result of the tool in time"


async def test_what_a_model_calls_of_the_clients_tools_is_done_by_one_of_them(service, room):
    told = []

    async def model(history):
        told.append([message["role"] for message in history])
        if history[-1]["role"] == "tool":
            yield deltas.Delta("text", f"so: {history[-1]['content']}")
        else:
            yield deltas.Delta("text", "let me see ")
            yield deltas.Delta("tool", '{"exact": true}', 0, "call-1", "place")
            yield deltas.Delta("finish", "tool_calls")

    async def answer(run):
        run.lend_client_tools()
        await run.outcomes()
        while True:
            await deltas.write(run.out, model(run.history()))
            if not await run.outcomes():
                break

    tools = [{"name": "place", "where": "client", "inputSchema": {"type": "object"}}]
    name = "guide-model"
    async with working(service.url, answer, name), connect(service.url, room, id="ann") as ann:
        ann.offer_tool("place", lambda arguments: f"Oslo {arguments['exact']}")
        said = await ann.post("where?", agent=name, input={"tools": tools})
        assert (await answered(ann, said)).text == "let me see so: Oslo True"
    assert [roles[-1] for roles in told] == ["user", "tool"]
