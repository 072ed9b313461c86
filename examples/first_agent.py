"""The smallest agent: it answers what people post, one word at a time.

crdt-sessions serve &
python examples/first_agent.py
"""

import asyncio

from crdt_sessions import Agent

agent = Agent("http://127.0.0.1:8000", name="parrot")


@agent.on_run
async def answer(run):
    words = f"You said: {run.message.text}".split()
    written = run.resumed.split()  # empty, unless an agent died in the middle of this answer
    async with run.text() as out:
        for word in words[len(written) :]:
            await out.write(word + " ")  # everybody in the session sees it at once
            await asyncio.sleep(0.05)  # a model would think here


agent.run()
