"""What is given with a question, from a Python peer to an agent."""

import asyncio

import pytest

from crdt_sessions import connect
from crdt_sessions.errors import BadValue, TooLarge
from crdt_sessions.model import RunInput, ToolSpec
from tests.agents import working
from tests.processes import PATIENCE, Server


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    process = Server(tmp_path_factory.mktemp("inputs") / "s.db", "--default-agent", "")
    yield process
    process.close()


async def test_an_agent_sees_what_its_question_came_with_and_an_empty_input_if_nothing_did(service):
    seen = []

    async def answer(run):
        seen.append(run.input)
        await run.out.write("Well.")

    given = RunInput(tools=[ToolSpec(name="look", where="client")], settings={"temperature": 0})
    async with working(service.url, answer, "reader"), connect(service.url, "given", id="ann") as ann:
        first = await ann.post("?", agent="reader", input=given)
        await asyncio.wait_for(ann.messages.answer_to(first), PATIENCE)
        again = ann.regenerate(first.id, "reader")
        await asyncio.wait_for(ann.until(lambda: (run := ann.view.runs.value(again)) and run.over), PATIENCE)
        second = await ann.post("?", agent="reader")
        await asyncio.wait_for(ann.messages.answer_to(second), PATIENCE)
        third = ann.ask(second.id, "reader", input={"model": "small"})
        await asyncio.wait_for(ann.until(lambda: (run := ann.view.runs.value(third)) and run.over), PATIENCE)
    assert seen == [given, given, RunInput(), RunInput(model="small")]
    assert seen[0].tool("look").where == "client"


async def test_an_input_that_cannot_be_taken_is_refused_before_anything_is_written(service):
    async with connect(service.url, "refused", id="ann") as ann:
        with pytest.raises(BadValue, match=r"input\.tools\.0\.name"):
            await ann.post("?", agent="reader", input={"tools": [{"name": ""}]})
        with pytest.raises(TooLarge, match="limit of 262144 bytes"):
            await ann.post("?", agent="reader", input={"forwarded": {"text": "x" * 262_144}})
        with pytest.raises(ValueError, match="name it"):
            await ann.post("?", input={"model": "small"})
        with pytest.raises(BadValue, match="datetime"):
            ann.ask("m", input={"settings": {"at": __import__("datetime").datetime.now()}})
        assert ann.messages.all() == []


async def test_an_input_that_was_changed_after_it_was_made_is_looked_at_again(service):
    given = RunInput()
    given.forwarded["text"] = "x" * 262_144
    async with connect(service.url, "changed", id="ann") as ann:
        with pytest.raises(TooLarge):
            ann.ask("m", input=given)
