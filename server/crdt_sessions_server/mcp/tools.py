"""The tools: what each takes, and which requests it is."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mcp.types import Tool, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from crdt_sessions.model import answer_to
from crdt_sessions_server.mcp.api import Api, Json, path_of
from crdt_sessions_server.mcp.search import PIECE, search

LONGEST_WAIT_S = 600.0


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _InSession(_Arguments):
    session: str = Field(description="The session's name.")


class ListSessions(_Arguments):
    """Which page of the sessions."""

    cursor: str | None = Field(None, description="nextCursor of the page before.")
    limit: int = Field(50, ge=1, le=200)


class ReadSession(_InSession):
    """Which part of a conversation."""

    after: int = Field(0, ge=0, description="Only messages after this place (seq) in the order.")
    limit: int = Field(50, ge=1, le=200)


class PostMessage(_InSession):
    """What to say."""

    text: str = Field(min_length=1, description="What to say.")
    agent: str | None = Field(
        None, description="Who is to answer; * for any agent. Without it the session says who does, if anybody."
    )
    id: str | None = Field(None, description="The message's id, if it must not be posted twice.")


class Waiting(_Arguments):
    """How long to wait."""

    wait: float = Field(50, ge=0, le=LONGEST_WAIT_S, description="Seconds to wait for the answer.")


class Ask(Waiting, PostMessage):
    """What to ask, and how long to wait."""

    agent: str = Field("*", description="Who is to answer; * for any agent.")


class WaitForAnswer(Waiting, _InSession):
    """For which answer to wait."""

    run: str = Field(description="The run that writes the answer, as ask or post_message told it.")


class AnswerAsk(_InSession):
    """What to tell an agent that asks."""

    run: str = Field(description="The run that waits.")
    call: str = Field(description="The tool call that waits: toolCallId of one that is pending.")
    approved: bool = Field(True, description="Whether it is approved, or answered and not declined.")
    value: JsonValue = Field(None, description="The answer, where more than yes or no is asked.")
    reason: str | None = None


class CancelRun(_InSession):
    """Which run to stop."""

    run: str
    reason: str | None = None


class ReadPresence(_InSession):
    """Where to look."""


class Search(_Arguments):
    """What to look for, and where."""

    text: str = Field(min_length=1, description="Upper and lower case are the same.")
    session: str | None = Field(None, description="Look only here; else in all sessions.")
    cursor: str | None = Field(None, description="nextCursor of the result before: there is more to look at.")
    limit: int = Field(20, ge=1, le=100)


@dataclass(frozen=True, slots=True)
class AnswerOf:
    """What a tool returns whose result is the answer of a run."""

    session: str
    run: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class ToolOf:
    """A tool.

    Args:
        name: as clients call it.
        title: as people read it.
        description: what it does, for models.
        arguments: what it takes.
        call: does it.
        reads: whether it changes nothing.
    """

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    call: Callable[[Api, Any], Awaitable[Json | AnswerOf]]
    reads: bool = False

    @property
    def listed(self) -> Tool:
        """How ``tools/list`` tells it."""
        schema = self.arguments.model_json_schema()
        schema.pop("description", None)
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=schema,
            annotations=ToolAnnotations(
                read_only_hint=self.reads, destructive_hint=self.call is _cancel_run, open_world_hint=False
            ),
        )


async def _list_sessions(api: Api, given: ListSessions) -> Json:
    page: Json = await api.get("/v1/sessions", order="recent", cursor=given.cursor, limit=given.limit)
    return page


async def _read_session(api: Api, given: ReadSession) -> Json:
    page: Json = await api.get(path_of(given.session, "messages"), after=given.after, limit=given.limit)
    runs = (await api.get(path_of(given.session, "runs")))["runs"]
    return {**page, "runs": [run for run in runs if run.get("outcome") is None]}


async def _post_message(api: Api, given: PostMessage) -> Json:
    message = await _posted(api, given)
    return {"message": message, "run": answer_to(message["id"])} if given.agent is not None else {"message": message}


async def _posted(api: Api, given: PostMessage) -> Json:
    body = {"id": given.id or uuid.uuid4().hex, "text": given.text, "agent": given.agent}
    posted: Json = await api.post(path_of(given.session, "messages"), body)
    return posted


async def _ask(api: Api, given: Ask) -> AnswerOf:
    message = await _posted(api, given)
    return AnswerOf(given.session, answer_to(message["id"]), given.wait)


async def _wait(api: Api, given: WaitForAnswer) -> AnswerOf:
    return AnswerOf(given.session, given.run, given.wait)


async def _answer_ask(api: Api, given: AnswerAsk) -> Json:
    path = path_of(given.session, "runs", given.run, "approvals", given.call)
    call: Json = await api.post(path, {"approved": given.approved, "value": given.value, "reason": given.reason})
    return {"call": call}


async def _cancel_run(api: Api, given: CancelRun) -> Json:
    run: Json = await api.post(path_of(given.session, "runs", given.run, "cancel"), {"reason": given.reason})
    return {"run": run}


async def _read_presence(api: Api, given: ReadPresence) -> Json:
    page: Json = await api.get(path_of(given.session, "presence"))
    return page


async def _search(api: Api, given: Search) -> Json:
    return await search(api, given.text, session=given.session, cursor=given.cursor, limit=given.limit)


TOOLS = {
    tool.name: tool
    for tool in (
        ToolOf(
            "list_sessions", "List sessions", "List the sessions, those that changed last first.",
            ListSessions, _list_sessions, reads=True,
        ),
        ToolOf(
            "read_session", "Read a session",
            "Read the conversation of a session, oldest message first, and the runs of agents that go on in it.",
            ReadSession, _read_session, reads=True,
        ),
        ToolOf(
            "post_message", "Post a message",
            "Say something in a session, and do not wait for an answer.",
            PostMessage, _post_message,
        ),
        ToolOf(
            "ask", "Ask an agent",
            "Ask an agent of a session something, and wait for its answer. If it takes longer than that, the result"
            " names the run: wait_for_answer goes on waiting.",
            Ask, _ask,
        ),
        ToolOf(
            "wait_for_answer", "Wait for an answer", "Wait for the answer that a run writes.",
            WaitForAnswer, _wait, reads=True,
        ),
        ToolOf(
            "answer_ask", "Answer an agent's question",
            "Approve a tool call that waits for people, or answer what an agent asks them.",
            AnswerAsk, _answer_ask,
        ),
        ToolOf(
            "cancel_run", "Stop a run", "Stop an agent's work. What was written stays.",
            CancelRun, _cancel_run,
        ),
        ToolOf(
            "read_presence", "See who is here", "List the people, agents and devices that are in a session now.",
            ReadPresence, _read_presence, reads=True,
        ),
        ToolOf(
            "search", "Search",
            f"Find a text in titles and messages, of one session or of all, those that changed last first. One call"
            f" looks at {PIECE} sessions; while the result has a nextCursor, there is more.",
            Search, _search, reads=True,
        ),
    )
}  # fmt: skip
"""Name to tool."""
