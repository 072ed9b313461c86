"""Two agents, one answer: the writer drafts, the critic goes on in the same message.

crdt-sessions serve &
python examples/handoff.py --once
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from crdt_sessions import Agent, AgentRun, CrdtSessionsError, connect


async def write(run: AgentRun) -> None:
    async with run.text() as out:
        await out.write(f"A draft about {run.message.text}. ")
    run.handoff("critic", "wants a second opinion")


async def criticise(run: AgentRun) -> None:
    draft = run.history()[-1]["content"]  # what the writer wrote is there
    async with run.text() as out:
        await out.write(f"({len(draft.split())} words, and I would not change one.)")


async def main(url: str, *, once: bool) -> None:
    agents = []
    for name, answer in (("writer", write), ("critic", criticise)):
        agent = Agent(url, name=name)
        agent.on_run(answer)
        agents.append(agent)
    async with asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(agent.work())
        if once:
            async with connect(url, "handoff-example", name="Ann") as ann:
                question = await ann.post("fjords", agent="writer")
                print((await ann.messages.answer_to(question)).text)
            for agent in agents:
                agent.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Hand a run over from one agent to another.", allow_abbrev=False)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--once", action="store_true", help="ask, print the answer and end")
    options = parser.parse_args()
    refused = None
    try:
        asyncio.run(main(options.url, once=options.once))
    except* CrdtSessionsError as errors:  # of each agent that the service refused
        refused = f"handoff.py: {errors.exceptions[0]}"
    sys.exit(refused)
