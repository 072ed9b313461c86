"""An agent that asks people before it acts. It needs no process while they think.

    crdt-sessions serve &
    python examples/approval.py

Ask for something in a session (the demo page, or ``examples/terminal_peer.py``), and approve or deny it there.
``--once`` plays both sides: it asks, approves, prints the answer and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from crdt_sessions import Agent, AgentRun, CrdtSessionsError, connect

PRICE = 120


async def book() -> dict[str, str]:
    """Stand for something that must not happen twice."""
    return {"seat": "12A"}


async def answer(run: AgentRun) -> None:
    """Answer a question. This is called again, from its beginning, once people have decided."""
    if not run.resumed:
        async with run.text() as out:
            await out.write(f"I found a seat for {PRICE} kr. ")
    call = run.tool("book_seat", {"price": PRICE})
    approval = await run.suspend_for_approval(call, deadline_s=3600)  # leaves the coroutine until somebody decided
    async with run.text() as out:
        if approval.approved:
            booked = await run.step("book", book)  # once, however often this is tried
            call.output(booked)
            await out.write(f"Seat {booked['seat']} is yours.")
        else:
            call.deny()
            await out.write(f"All right, I leave it. ({approval.reason or 'denied'})")


async def once(url: str) -> None:
    agent = Agent(url, name="booker")
    agent.on_run(answer)
    async with connect(url, "approval-example", name="Ann", id="ann") as ann:
        working = asyncio.create_task(agent.work())
        question = await ann.post("Book me a seat", agent="booker")
        run_id = f"run-{question.id}"
        await ann.until(lambda: (run := ann.view.runs.value(run_id)) is not None and run.status == "suspended")
        ann.decide(run_id, f"{run_id}-1", approved=True, reason="gladly")
        print((await ann.messages.answer_to(question)).text)
    agent.stop()
    await working


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask people before acting.", allow_abbrev=False)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--name", default="booker")
    parser.add_argument("--once", action="store_true", help="ask, approve, print the answer and end")
    options = parser.parse_args()
    try:
        if options.once:
            asyncio.run(once(options.url))
        else:
            agent = Agent(options.url, name=options.name)
            agent.on_run(answer)
            agent.run()
    except CrdtSessionsError as error:
        sys.exit(f"approval.py: {error}")
