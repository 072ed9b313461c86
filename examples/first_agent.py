"""The smallest agent: it answers what people post, one word at a time.

crdt-sessions serve &
python examples/first_agent.py
"""

import asyncio
import sys

from crdt_sessions import Agent

agent = Agent("http://127.0.0.1:8000", name="parrot")


@agent.on_run
async def answer(run):
    async with run.reasoning() as thoughts:
        await thoughts.write(f"{len(run.messages())} messages so far")
    async with run.text() as out:
        for word in f"You said: {run.message.text}".split(" "):
            await out.write(word + " ")  # everybody in the session sees it at once
            await asyncio.sleep(0.05)  # a model would think here


if __name__ == "__main__":
    sys.exit(agent.run())
