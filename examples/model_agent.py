"""An agent in front of a model: the ``openai`` client on one side, a durable session on the other.

    OPENAI_BASE_URL=... OPENAI_API_KEY=... OPENAI_MODEL=... python examples/model_agent.py --session demo

Any OpenAI-compatible endpoint will do. A question that begins with ``replay:NAME`` asks the endpoint for that
recording (see replay_server.py).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai

from crdt_sessions import Agent, AgentRun, MessageStream


@dataclass(frozen=True)
class Delta:
    """One piece of a stream: ``text``, ``reasoning`` or ``tool`` input; or how the stream ended."""

    kind: str
    text: str = ""
    choice: int = 0
    call_id: str = ""
    name: str = ""


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


async def chat_deltas(client: openai.AsyncOpenAI, model: str, messages: list[Any]) -> AsyncIterator[Delta]:
    """Stream a chat completion."""
    calls: dict[tuple[int, int], str] = {}
    async for chunk in await client.chat.completions.create(model=model, messages=messages, stream=True):
        error = getattr(chunk, "error", None)
        if error:
            raise openai.APIError(error.get("message", "error"), request=None, body=error)  # type: ignore[arg-type]
        for choice in chunk.choices:
            delta = choice.delta
            if delta is not None:
                thought = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
                if thought:
                    yield Delta("reasoning", thought, choice.index)
                for kind, text in _content(delta.content):
                    yield Delta(kind, text, choice.index)
                for call in delta.tool_calls or ():
                    key = (choice.index, call.index)
                    if call.id:
                        calls[key] = call.id
                    function = call.function
                    text, name = (function.arguments or "", function.name or "") if function else ("", "")
                    yield Delta("tool", text, choice.index, calls.setdefault(key, f"call-{key[1]}"), name)
            if choice.finish_reason:
                yield Delta("finish", choice.finish_reason)


def _content(content: Any) -> list[tuple[str, str]]:
    """Return text and thoughts of a delta's content, which some servers send as a list of typed pieces."""
    if not isinstance(content, list):
        return [("text", content)] if content else []
    found = []
    for piece in content:
        if piece.get("type") == "thinking":
            found += [("reasoning", inner["text"]) for inner in piece["thinking"] if inner.get("text")]
        elif piece.get("text"):
            found.append(("text", piece["text"]))
    return found


_TOOL_DELTAS = (
    "response.function_call_arguments.delta",
    "response.code_interpreter_call_code.delta",
    "response.apply_patch_call_operation_diff.delta",
)


async def response_deltas(client: openai.AsyncOpenAI, model: str, question: str) -> AsyncIterator[Delta]:
    """Stream a response (OpenAI's Responses API)."""
    calls: dict[Any, tuple[str, str]] = {}
    async for event in await client.responses.create(model=model, input=question, stream=True):
        kind = event.type
        if kind == "response.output_item.added":
            item = event.item
            calls[event.output_index] = (getattr(item, "call_id", None) or item.id, getattr(item, "name", item.type))
        elif kind == "response.output_text.delta":
            yield Delta("text", event.delta)
        elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
            yield Delta("reasoning", event.delta)
        elif kind in _TOOL_DELTAS:
            call_id, name = calls.get(event.output_index, (f"call-{event.output_index}", "tool"))
            yield Delta("tool", event.delta, 0, call_id, name)
        elif kind == "response.completed":
            yield Delta("finish", "completed")
        elif kind == "response.failed":
            error = event.response.error
            raise openai.APIError(error.message if error else "failed", request=None, body=None)  # type: ignore[arg-type]


async def answer(run: AgentRun, client: openai.AsyncOpenAI) -> None:
    """Write the model's answer into the session, whatever it is made of and however it ends."""
    question, out = run.message.text, run.out
    model = await model_for(question, client)
    if model.startswith("replay:openai-responses/"):
        deltas = response_deltas(client, model, question)
    else:
        messages = run.chat()
        if out.resumed:  # a former process died in the middle: let the model go on from there
            messages.append({"role": "assistant", "content": out.resumed})
        deltas = chat_deltas(client, model, messages)
    inputs: dict[str, str] = {}
    try:
        finish = await copy(deltas, out, inputs)
    except openai.APIError as error:
        finish = None
        out.fail(str(getattr(error, "code", None) or "model-error"), error.message)
    else:
        if finish is None:
            out.fail("cut", "the model's stream ended without an end")
        else:
            out.finish(finish)
    end_tool_inputs(out, inputs, whole=finish is not None)


async def copy(deltas: AsyncIterator[Delta], out: MessageStream, inputs: dict[str, str]) -> str | None:
    """Write *deltas*; return why the model stopped, or None if it did not say. Collect tool inputs by call."""
    finish: str | None = None
    async for delta in deltas:
        if delta.kind == "finish":
            finish = delta.text
        elif delta.kind == "tool":
            inputs[delta.call_id] = inputs.get(delta.call_id, "") + delta.text
            await out.tool_input(delta.call_id, delta.name or "tool", delta.text)
        elif delta.kind == "reasoning":
            await out.reason(delta.text, choice=delta.choice)
        else:
            await out.write(delta.text, choice=delta.choice)
    return finish


def end_tool_inputs(out: MessageStream, inputs: dict[str, str], *, whole: bool) -> None:
    """Parse what the model wrote as input of its tools; not all tools take JSON (a patch, a program)."""
    for call_id, text in inputs.items():
        try:
            out.end_tool_input(call_id, json.loads(text))
        except ValueError:
            unfinished = not whole or text.lstrip().startswith("{")
            out.end_tool_input(call_id, error="the model stopped in the middle of it" if unfinished else None)


def make_agent(url: str, sessions: list[str], *, name: str = "assistant", token: str | None = None) -> Agent:
    """Return the agent, ready to run."""
    client = openai.AsyncOpenAI(api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=2)
    agent = Agent(url, name=name, sessions=sessions, token=token)

    @agent.on_run
    async def respond(run: AgentRun) -> None:
        await answer(run, client)

    return agent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer in sessions with an OpenAI-compatible model.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--session", action="append", help="which session; may be repeated (default: demo)")
    parser.add_argument("--name", default="assistant")
    options = parser.parse_args()
    make_agent(options.url, options.session or ["demo"], name=options.name).run()
