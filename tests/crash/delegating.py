"""Agent processes for the tests of child runs: one that asks for ten and gathers, and some that work on them.

With ``--words`` a helper writes so many words and then nothing more, so that it is killed in the middle of them.
"""

import argparse
import asyncio
import logging

from crdt_sessions import Agent

CHILDREN = 10
WORDS = 40


def text_of(number):
    """Return what the child of that number is to write."""
    return "".join(f"{number}.{word} " for word in range(WORDS))


async def lead(run):
    children = [run.delegate("helper", number) for number in range(CHILDREN)]
    texts = await run.gather(*children)
    async with run.text() as out:
        await out.write("\n".join(texts)[len(run.resumed) :])


async def helper(run):
    whole = text_of(run.task)
    async with run.text() as out:
        for word in whole[len(out.resumed) :].split(" ")[: options.words]:
            await out.write(f"{word} ")
            await asyncio.sleep(0.05)
        if options.words != -1:
            await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--url", required=True)
    parser.add_argument("--role", choices=["lead", "helper"], required=True)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--words", type=int, default=-1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    agent = Agent(options.url, name=options.role, concurrency=options.concurrency, shutdown_s=0.2)
    agent.on_run({"lead": lead, "helper": helper}[options.role])
    agent.run()
