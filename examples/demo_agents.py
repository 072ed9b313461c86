"""The two agents of the demo: an assistant that answers, and a planner that asks before it books.

    OPENAI_BASE_URL=... OPENAI_API_KEY=... python examples/demo_agents.py planner

Any OpenAI-compatible model will do; without one, ``scripted_model.py`` plays it. Both agents write into the notes
that people edit (the text ``draft`` of the session's document), and are seen in the session while they wait.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import Any

import openai
from pycrdt import Assoc, Text

from crdt_sessions import Agent, AgentRun, CrdtSessionsError, bridges, connect
from crdt_sessions.client import ToolCall
from crdt_sessions.model import SessionView, ToolPart
from crdt_sessions.model import text as text_edits

TURNS = 6
"""How often the model is asked for one answer, at most: a model may call tools for ever."""
APPROVAL_S = 600


def _function(name: str, description: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


DRAFT = _function("write_notes", "Write Markdown into the notes that everybody in the session edits.", text="string")
BOOK = _function(
    "book_seats", "Book seats on a boat. People are asked first.",
    boat="string", leaves="string", seats="integer", price="string",
)  # fmt: skip
ROLES: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "assistant": (
        "You are the assistant in a session that several people share with you. Answer in Markdown, in English.",
        [DRAFT],
    ),
    "planner": (
        "You are the planner in a session that several people share with you. Book what they ask for with book_seats,"
        " and write what they want to keep into the notes with write_notes. Be brief, in English.",
        [DRAFT, BOOK],
    ),
}
"""Name of an agent to what it is told, and what it may do."""


class Answerer:
    """Answers as one of the two, by asking a model and doing what it calls for.

    Args:
        role: one of ``ROLES``.
        client: the model's.
        pace_s: between two words that are written into the draft.
    """

    def __init__(self, role: str, client: openai.AsyncOpenAI, pace_s: float) -> None:
        self._told, self._tools = ROLES[role]
        self._client = client
        self._pace_s = pace_s

    async def answer(self, run: AgentRun) -> None:
        """Answer. This is called again, from its beginning, after any break, and when people have decided."""
        try:
            await self._do_calls(run)
            for _ in range(TURNS):
                await bridges.openai.write_chat(run.out, await self._ask(run))
                if not await self._do_calls(run):
                    return
        except openai.APIError as error:
            run.out.fail(str(getattr(error, "code", None) or "model-error"), error.message)

    async def _ask(self, run: AgentRun) -> Any:
        if "OPENAI_MODEL" not in os.environ:
            os.environ["OPENAI_MODEL"] = (await self._client.models.list()).data[0].id
        return await self._client.chat.completions.create(
            model=os.environ["OPENAI_MODEL"],
            messages=[{"role": "system", "content": self._told}, *run.history()],  # type: ignore[list-item]
            tools=self._tools,  # type: ignore[arg-type]
            stream=True,
        )

    async def _do_calls(self, run: AgentRun) -> bool:
        """Do what the model has called for and nobody has done yet; tell whether there was anything."""
        message = run.out.message
        called = [part for part in message.parts if isinstance(part, ToolPart)] if message is not None else []
        waiting = [each for each in called if not each.state.startswith(("output-", "input-streaming"))]
        tools = {"write_notes": self._write_notes, "book_seats": self._book_seats}
        for part in waiting:
            call = run.tool(part.tool_name, part.input, call_id=part.tool_call_id)
            if part.input is None:
                call.fail("interrupted")  # the process died while the model wrote what the tool is to do
            elif part.tool_name not in tools or not isinstance(part.input, dict):
                call.fail(f"there is no tool {part.tool_name} that takes this")
            else:
                await tools[part.tool_name](run, call, part.input)
        return bool(waiting)

    async def _book_seats(self, run: AgentRun, call: ToolCall, order: dict[str, Any]) -> None:
        """Book, once people have agreed; until then the run needs no process."""
        approval = await run.suspend_for_approval(call, deadline_s=APPROVAL_S)
        if not approval.approved:
            call.deny()
            return

        def book() -> dict[str, Any]:  # stands for something that must not happen twice
            return {"booked": True, "reference": f"BYG-{4000 + len(json.dumps(order))}"}

        call.output(await run.step(f"book-{call.id}", book))

    async def _write_notes(self, run: AgentRun, call: ToolCall, given: dict[str, Any]) -> None:
        """Write into the draft, a word at a time, while others write there, too; what stands there is left out."""
        text = str(given.get("text", ""))
        written = written_of(str(_draft(run.session.view)), text)
        for word in re.findall(r"\s*\S+\s*$|\s*\S+", text[written:]):
            if run.cancelled:
                break
            run.session.edit(partial(_put, before=text[:written], word=word))
            written += len(word)
            run.session.set_presence("streaming", cursor=caret(run.session.view, text[:written]))
            await asyncio.sleep(self._pace_s)
        call.output({"characters": written})


# -- the draft -------------------------------------------------------------------------------------------------


def written_of(draft: str, text: str) -> int:
    """Return how much of *text* stands in *draft*, its first line at least: how far a former process had come."""
    first = len(text.split("\n", 1)[0])
    return next((size for size in range(len(text), max(first, 1) - 1, -1) if text[:size] in draft), 0)


def _draft(view: SessionView) -> Text:
    return view.document.doc.get("draft", type=Text)


def _place(draft: str, before: str) -> int:
    """Return where to go on behind *before*; at the end if somebody has changed it meanwhile."""
    found = draft.rfind(before) if before else -1
    return found + len(before) if found >= 0 else len(draft)


def _put(view: SessionView, before: str, word: str) -> None:
    draft = _draft(view)
    content = str(draft)
    if not before and content and not content.endswith("\n\n"):
        word = ("\n" if content.endswith("\n") else "\n\n") + word
    text_edits.insert(draft, _place(content, before), word)


def caret(view: SessionView, before: str) -> dict[str, Any]:
    """Return a caret as the Yjs bindings of editors show it: two relative positions."""
    draft = _draft(view)
    content = str(draft)
    place = _place(content, before)
    if place == len(content):
        position: Any = {"type": None, "tname": "draft", "item": None, "assoc": 0}  # the end of that text
    else:
        sticky = draft.sticky_index(text_edits.utf8_offset(content, place), Assoc.AFTER).to_json()
        position = {"type": None, "tname": None, **sticky}
    return {"anchor": position, "head": position}


async def work(agent: Agent, url: str, session: str) -> None:
    """Answer until stopped; be seen in the session while waiting."""
    async with connect(url, session, id=f"agent-{agent.name}", name=agent.name, kind="agent"):
        for number in (signal.SIGINT, signal.SIGTERM):  # from now on there may be runs to finish
            with suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(number, agent.stop)
        await agent.work()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer in the demo's session.", allow_abbrev=False)
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--session", default="demo")
    parser.add_argument("--pace", type=float, default=0.06, help="seconds between two words in the draft")
    options = parser.parse_args()
    model = openai.AsyncOpenAI(api_key=os.environ.get("OPENAI_API_KEY", "none"), max_retries=5)
    try:
        worker = Agent(options.url, name=options.role)
        worker.on_run(Answerer(options.role, model, options.pace).answer)
        asyncio.run(work(worker, options.url, options.session))
    except CrdtSessionsError as error:
        sys.exit(f"demo_agents.py: {error}")
    except KeyboardInterrupt:
        sys.exit("demo_agents.py: stopped before the service was there")
