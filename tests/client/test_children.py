"""Child runs against the real service: agents ask other agents, follow them, gather what they found."""

import asyncio

import pytest

from crdt_sessions import RunFailed, connect
from crdt_sessions.errors import BadId, NotAnswered, TooLarge
from tests.agents import working
from tests.processes import PATIENCE, Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service whose leases a slow machine does not lose."""
    flags = ("--lease-s", "10", "--gone-grace-s", "0.5", "--cancel-grace-s", "3", "--default-agent", "")
    process = Server(tmp_path_factory.mktemp("children") / "s.db", *flags)
    yield process
    process.close()


@pytest.fixture
def room(request):
    return request.node.name.split("[")[0]


async def over(peer, run_id, *, timeout=PATIENCE):
    await asyncio.wait_for(
        peer.until(lambda: (run := peer.view.runs.value(run_id)) is not None and run.over), timeout
    )
    return peer.view.runs.value(run_id)


async def asked(peer, room, lead, helper):
    """Have *lead* answer a question, with *helper* for its children; return the run as it ended."""
    async with working(peer._contact.url, lead, name=room), working(peer._contact.url, helper, name=f"{room}-helper"):
        question = await peer.post("?", agent=room)
        return await over(peer, f"run-{question.id}")


async def test_a_run_fans_out_to_ten_and_gathers_what_they_write(service, room):
    async def lead(run):
        children = [run.delegate(f"{room}-helper", {"number": number}) for number in range(10)]
        async with run.text() as out:
            await out.write(" ".join(await run.gather(*children)))

    async def helper(run):
        async with run.text() as out:
            await out.write(f"{run.task['number']}")
        run.usage(output_tokens=1)

    async with connect(service.url, room, id="ann") as ann:
        run = await asked(ann, room, lead, helper)
        answer = ann.view.messages.value(run.output)
        assert answer.text == "0 1 2 3 4 5 6 7 8 9"
        assert [message.role for message in ann.messages.all()] == ["user", "assistant"]
        children = ann.view.runs.children(run.id)
        assert {child.status for child in children} == {"completed"}
        assert {child.request.key for child in children} == {str(number) for number in range(1, 11)}
        assert (run.usage.input_tokens, run.usage.children.output_tokens) == (None, 10)


async def test_a_child_is_asked_for_its_task_as_by_a_message(service, room):
    async def lead(run):
        async with run.text() as out:
            await out.write(await run.delegate(f"{room}-helper", "Look for Oslo."))

    async def helper(run):
        assert run.parent is not None
        [asked] = run.history()
        async with run.text() as out:
            await out.write(f"{run.message.text}|{asked['role']}|{asked['content']}")

    async with connect(service.url, room) as ann:
        run = await asked(ann, room, lead, helper)
        assert ann.view.messages.value(run.output).text == "Look for Oslo.|user|Look for Oslo."


async def test_a_parent_follows_what_its_child_writes(service, room):
    pieces, more = [], asyncio.Event()

    async def lead(run):
        async for piece in run.delegate(f"{room}-helper", "tell").stream():
            pieces.append(piece)
            more.set()

    async def helper(run):
        async with run.text() as out:
            await out.write("one ")
            await more.wait()
            await out.write("two")

    async with connect(service.url, room) as ann:
        run = await asked(ann, room, lead, helper)
    assert run.status == "completed"
    assert "".join(pieces) == "one two"
    assert pieces[0] == "one "


async def test_a_parent_may_catch_the_failure_of_a_child(service, room):
    found = []

    async def lead(run):
        good, bad = run.delegate(f"{room}-helper", "good"), run.delegate(f"{room}-helper", "bad")
        found.extend(await run.gather(good, bad, return_exceptions=True))
        with pytest.raises(NotAnswered) as failed:
            await bad
        found.append((failed.value.status, failed.value.code, failed.value.why, bad.text))

    async def helper(run):
        async with run.text() as out:
            await out.write(run.task)
        if run.task == "bad":
            raise RunFailed("no such place", code="nowhere")

    async with connect(service.url, room) as ann:
        assert (await asked(ann, room, lead, helper)).status == "completed"
    assert found[0] == "good"
    assert isinstance(found[1], NotAnswered)
    assert found[2] == ("failed", "nowhere", "no such place", "bad")


async def test_a_failure_that_nobody_catches_is_the_parents(service, room):
    async def lead(run):
        await run.delegate(f"{room}-helper", "x")

    async def helper(_):
        raise RunFailed("no such place", code="nowhere")

    async with connect(service.url, room) as ann:
        run = await asked(ann, room, lead, helper)
    assert (run.status, run.outcome.error.code) == ("failed", "nowhere")
    assert "no such place" in run.outcome.error.message


async def test_an_answer_that_is_tried_again_finds_its_children(service, room):
    asked_for = []

    async def lead(run):
        child = run.delegate(f"{room}-helper", "look", key="look")
        if run.attempt == 1 and not run.resumed:
            async with run.text() as out:
                await out.write(await child)
            run.out.end("handoff", agent=room)
            return
        async with run.text() as out:
            await out.write(f" again {await child}")

    async def helper(run):
        asked_for.append(run.id)
        async with run.text() as out:
            await out.write("found")

    async with connect(service.url, room) as ann:
        run = await asked(ann, room, lead, helper)
        assert ann.view.messages.value(run.output).text == "found again found"
    assert len(asked_for) == 1


async def test_who_stops_a_run_stops_its_children(service, room):
    begun = asyncio.Event()

    async def lead(run):
        await run.gather(*(run.delegate(f"{room}-helper", number) for number in range(3)))

    async def helper(run):
        async with run.text() as out:
            while True:
                await out.write("word ")
                begun.set()
                await asyncio.sleep(0.01)

    async with (
        connect(service.url, room) as ann,
        working(service.url, lead, name=room),
        working(service.url, helper, name=f"{room}-helper"),
    ):
        question = await ann.post("?", agent=room)
        await asyncio.wait_for(begun.wait(), PATIENCE)
        ann.cancel(f"run-{question.id}")
        run = await over(ann, f"run-{question.id}")
        children = [await over(ann, child.id) for child in ann.view.runs.children(run.id)]
    assert (run.status, [child.status for child in children]) == ("cancelled", ["cancelled"] * 3)


async def test_what_cannot_be_a_child_is_refused_where_it_is_asked_for(service, room):
    async def lead(run):
        with pytest.raises(BadId):
            run.delegate("helper", "x", key="a:b")
        with pytest.raises(BadId):
            run.delegate("", "x")
        with pytest.raises(TooLarge):
            run.delegate("helper", "x" * 70_000)

    async with connect(service.url, room) as ann:
        assert (await asked(ann, room, lead, lead)).status == "completed"
