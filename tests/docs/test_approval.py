"""The fragments of docs/how-to/approval.md that ask for more than yes or no, in an agent that has nothing else."""

import asyncio
import re
import textwrap

from crdt_sessions import Agent, connect
from tests.processes import PATIENCE, ROOT

FRAGMENTS = re.findall(
    r"```python tested=tests/docs/test_approval.py\n(.*?)```",
    (ROOT / "docs/how-to/approval.md").read_text("utf-8"),
    re.DOTALL,
)


async def book(seat):
    return {"booked": seat}


def answering(fragment):
    """Return a function that answers a run with *fragment*."""
    names = {"book": book}
    exec("async def answer(run):\n" + textwrap.indent(fragment, "    ") + "    return locals()", names)
    return names["answer"]


async def answers(url, room, fragment, *values):
    """Have an agent run *fragment*, answer each question with the next value, and return its variables."""
    answer, found = answering(fragment), {}
    agent = Agent(url, name="asker", quiet=True)

    @agent.on_run
    async def on_run(run):
        found.update(await answer(run))
        await run.out.write("done")

    working = asyncio.create_task(agent.work())
    async with connect(url, room, id="ann") as ann:
        question = await ann.post("?", agent="asker")
        run_id = f"run-{question.id}"
        seen = set()
        for value in values:
            await ann.until(
                lambda: any(
                    each.tool_call_id not in seen
                    for run in ann.view.runs.all()
                    if run.id == run_id
                    for each in run.pending or ()
                )
            )
            (pending,) = ann.view.runs.find(run_id).pending
            seen.add(pending.tool_call_id)
            ann.decide(run_id, pending.tool_call_id, True, value=value)
        await asyncio.wait_for(ann.messages.answer_to(question), PATIENCE)
    agent.stop()
    await working
    return found


async def test_a_choice_and_a_form_are_answered(server):
    found = await answers(server.url, "approval-ask", FRAGMENTS[0], "Porto", {"nights": 2, "guest": "Bo"})
    assert (found["town"].value, found["trip"].value) == ("Porto", {"nights": 2, "guest": "Bo"})


async def test_a_tool_is_called_with_edited_input(server):
    found = await answers(server.url, "approval-edit", FRAGMENTS[1], {"seat": "1B"})
    assert found["call"].arguments == {"seat": "1B"}
