"""An agent that does what it is told, for the tests: ``python -m tests.gateways.agent URL``.

A question is a list of steps, separated by ``;``: ``say 20 30`` (words, milliseconds between them), ``think 5``,
``tool name`` (its input streamed, then an output), ``call name`` (no output), ``ask name`` (waits for people), ``choose``
and ``edit name`` (ask for a value), ``client name`` (a tool of the
client's, after which the run ends), ``device name within 2`` (a tool that one of the clients is given, for two seconds), ``heed`` (waits for somebody to steer), ``fail why``, ``die`` (the process kills itself, once), ``file``, ``echo``,
``spend 10 3`` (tokens read and written), ``delegate 3 say 5`` (three child runs, each with the rest as its task), ``input`` (what the question came with, as JSON).
"""

import asyncio
import json
import os
import signal
import sys

from crdt_sessions import Agent, RunFailed
from crdt_sessions.model import ValuePart

WORDS = ["naïve ", "café ", "😀 ", "streams ", "are ", "durable. "]


async def perform(run):
    steps = run.message.text.split(";")
    clients = [number for number, step in enumerate(steps) if step.split()[:1] == ["client"]]
    answers = run.messages()[[message.id for message in run.messages()].index(run.message.id) :]
    names = {steps[number].split()[1] for number in clients}
    done = sum(part.tool_name in names for message in answers for part in message.parts if part.type == "tool")
    begin = clients[done - 1] + 1 if done else 0
    for number, step in enumerate(steps[begin:], start=begin):
        await one(run, number, *step.split())


async def one(run, number, verb="say", *args):
    match verb:
        case "say" | "think":
            count, pause = int(args[0]) if args else 5, int(args[1]) / 1000 if len(args) > 1 else 0.005
            already = run.resumed.count(" ") if verb == "say" and number == 0 else 0
            async with run.text() if verb == "say" else run.reasoning() as out:
                for index in range(already, count):
                    await out.write(WORDS[index % len(WORDS)])
                    await asyncio.sleep(pause)
        case "tool":
            call = f"{run.id}-{number}"
            if not run.session.view.messages[run.out.message_id].tool(call):
                for piece in ('{"city":', ' "Oslo"', "}"):
                    await run.out.tool_input(call, args[0], piece)
                    await asyncio.sleep(0.01)
                run.out.end_tool_input(call, {"city": "Oslo"})
                run.out.tool_output(call, {"degrees": -3})
        case "call":
            run.tool(args[0], {"amount": 5}, call_id=f"{run.id}-{number}")
        case "ask":
            call = run.tool(args[0], {"amount": 5}, call_id=f"{run.id}-{number}")
            if not call.done:
                approval = await run.suspend_for_approval(call)
                call.output({"sent": True}) if approval.approved else call.deny()
        case "choose":
            chosen = await run.ask("Which town?", {"enum": ["Oslo", "Bergen"]}, call_id=f"{run.id}-{number}")
            await run.out.write(f"to {chosen.value if chosen.approved else 'nowhere'} ")
        case "edit":
            call = run.tool(args[0], {"amount": 5}, call_id=f"{run.id}-{number}")
            schema = {"type": "object", "properties": {"amount": {"type": "integer", "maximum": 9}}}
            approval = await run.suspend_for_approval(call, edit=True, schema=schema)
            call.output(call.arguments) if approval.approved else call.deny()
        case "client":
            run.tool(args[0], {"question": "where"}, call_id=f"{run.out.message_id}-{number}")
            run.out.finish("tool_calls")
            raise StopAsyncIteration
        case "device":
            deadline = float(args[-1]) if "within" in args else None
            found = await run.call_in_client(
                args[0],
                {"question": "where"},
                call_id=f"{run.id}-{number}",
                suspend="stay" not in args,
                deadline_s=deadline,
            )
            await run.out.write(f"it says {json.dumps(found.output)} {found.code} ")
        case "fail":
            raise RunFailed(" ".join(args))
        case "die":
            flag = os.environ["DIED"]
            if not os.path.exists(flag):
                open(flag, "w").close()
                await run.session.durable()
                os.kill(os.getpid(), signal.SIGKILL)
        case "anew":
            run.restart()
        case "file":
            run.session.edit(
                lambda view: view.messages[run.out.message_id].add_part(
                    ValuePart(type="file", value={"url": "https://example.org/a.png", "mediaType": "image/png"})
                )
            )
        case "heed":
            while not (heard := run.take_steering()):
                await asyncio.sleep(0.01)
            await run.out.write(f"so: {heard[0].text} ")
        case "delegate":
            asked = [run.delegate(os.environ["AGENT"], " ".join(args[1:])) for _ in range(int(args[0]))]
            async with run.text() as out:
                await out.write(" | ".join(await run.gather(*asked)))
        case "spend":
            run.usage(input_tokens=int(args[0]), output_tokens=int(args[1]), cached_tokens=4, model="small")
        case "input" if not run.resumed:
            async with run.text() as out:
                await out.write(json.dumps(run.input.to_json()))
        case "echo":
            async with run.text() as out:
                await out.write(json.dumps(run.history("openai")))


def main(url):
    agent = Agent(url, name=os.environ.get("AGENT", "writer"))

    @agent.on_run
    async def answer(run):
        try:
            await perform(run)
        except StopAsyncIteration:
            return

    agent.run()


if __name__ == "__main__":
    main(sys.argv[1])
