"""Agents in the process of a test."""

import asyncio
from contextlib import asynccontextmanager

from crdt_sessions import Agent
from tests.processes import PATIENCE


@asynccontextmanager
async def working(url, answer, name="writer", **options):
    """Have an agent answer runs as *answer* does, until the end; then it stops in good order."""
    agent = Agent(url, name=name, **options)
    agent.on_run(answer)
    task = asyncio.create_task(agent.work())
    try:
        yield agent
    finally:
        agent.stop()
        await asyncio.wait_for(task, PATIENCE)
