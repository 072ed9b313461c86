"""An agent in front of a model: the ``openai`` client on one side, durable sessions on the other.

    OPENAI_BASE_URL=... OPENAI_API_KEY=... OPENAI_MODEL=... python examples/model_agent.py

Any OpenAI-compatible endpoint will do. A question that begins with ``replay:NAME`` asks the endpoint for that
recording (see replay_server.py).
"""

from __future__ import annotations

import argparse
import os
import sys

import openai

from crdt_sessions import Agent, AgentRun, CrdtSessionsError, bridges


async def model_for(question: str, client: openai.AsyncOpenAI) -> str:
    """Return the model to ask: the one in OPENAI_MODEL, else the first the endpoint offers."""
    first = question.split(maxsplit=1)[0] if question.strip() else ""
    if first.startswith("replay:"):
        return first
    if "OPENAI_MODEL" not in os.environ:
        offered = [model.id async for model in client.models.list()]
        if not offered:
            raise ValueError("the endpoint offers no models; name one in OPENAI_MODEL")
        os.environ["OPENAI_MODEL"] = offered[0]
    return os.environ["OPENAI_MODEL"]


async def answer(run: AgentRun, client: openai.AsyncOpenAI) -> None:
    """Write the model's answer into the session, anew if a former process died in the middle of it."""
    question = run.message.text
    model = await model_for(question, client)
    try:
        if model.startswith("replay:openai-responses/"):
            await bridges.openai.write_response(
                run.out, await client.responses.create(model=model, input=question, stream=True)
            )
        else:
            await bridges.openai.write_chat(
                run.out,
                await client.chat.completions.create(model=model, messages=run.history(), stream=True),  # type: ignore[arg-type]
            )
    except openai.APIError as error:
        run.out.fail(str(getattr(error, "code", None) or "model-error"), error.message)


def make_agent(url: str, *, name: str = "assistant", token: str | None = None, shutdown_s: float = 10.0) -> Agent:
    """Return the agent, ready to run."""
    client = openai.AsyncOpenAI(api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=2)
    agent = Agent(url, name=name, token=token, shutdown_s=shutdown_s, on_resume="restart")

    @agent.on_run
    async def respond(run: AgentRun) -> None:
        await answer(run, client)

    return agent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Answer in sessions with an OpenAI-compatible model.", allow_abbrev=False
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--name", default="assistant")
    options = parser.parse_args()
    try:
        make_agent(options.url, name=options.name, token=os.environ.get("CRDT_SESSIONS_TOKEN")).run()
    except CrdtSessionsError as error:
        sys.exit(f"model_agent.py: {error}")
