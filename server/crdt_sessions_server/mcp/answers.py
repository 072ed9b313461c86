"""Waiting for the answer of a run, and what it says once it is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from mcp.types import CallToolResult, ContentBlock, TextContent

from crdt_sessions.errors import NotFound
from crdt_sessions.model import Message, Run, ToolPart
from crdt_sessions_server.mcp.api import Api, Json

_ON_ITS_OWN = "still at work; call wait_for_answer with this run to go on waiting"


@dataclass(frozen=True, slots=True)
class Answer:
    """A run as it is, with what it has written.

    Args:
        session: the session.
        run: the run.
        message: what it has written; None if it has not begun.
    """

    session: str
    run: Run
    message: Message | None

    @property
    def calls(self) -> list[ToolPart]:
        """The tool calls that wait for people."""
        wanted = {each.tool_call_id for each in self.run.pending or ()}
        parts = self.message.parts if self.message is not None else []
        return [part for part in parts if isinstance(part, ToolPart) and part.tool_call_id in wanted]

    def has(self, call: str) -> bool:
        """Whether a tool call is one of the run's."""
        parts = self.message.parts if self.message is not None else []
        return any(isinstance(part, ToolPart) and part.tool_call_id == call for part in parts)

    @property
    def result(self) -> CallToolResult:
        """What a tool returns that has waited for it."""
        text = self.message.text if self.message is not None else ""
        told = [text] if text else []
        if self.run.over and self.run.status != "completed":
            told.append(f"[the run is {self.run.status}: {self._why}]")
        elif self.calls:
            told.append(f"[waiting for people; answer_ask answers: {json.dumps(self._pending, ensure_ascii=False)}]")
        elif not self.run.over:
            told.append(f"[run {self.run.id!r} is {self.run.status or 'queued'}: {_ON_ITS_OWN}]")
        facts: Json = {"session": self.session, "run": self.run.id, "status": self.run.status, "text": text}
        if self.calls:
            facts["pending"] = self._pending
        content: list[ContentBlock] = [TextContent(text="\n".join(told))]
        return CallToolResult(
            content=content, structured_content=facts, is_error=self.run.status in ("failed", "interrupted")
        )

    @property
    def _why(self) -> str:
        outcome = self.run.outcome
        error = outcome.error if outcome is not None else None
        return (error.message or error.code) if error is not None else str(outcome.reason if outcome else "")

    @property
    def _pending(self) -> list[Any]:
        return [
            call.model_dump(
                by_alias=True, mode="json", include={"tool_call_id", "tool_name", "input", "approval_request"}
            )
            for call in self.calls
        ]


async def answer_now(api: Api, session: str, run: str) -> Answer:
    """Return a run as it is, with what it has written."""
    found = await api.run(session, run)
    message = None
    if found.output is not None:
        try:
            message = await api.message(session, found.output)
        except NotFound:  # the run has been given its message, and has written nothing yet
            message = None
    return Answer(session, found, message)


async def settled(
    api: Api, session: str, run: str, wait_s: float, tell: Callable[[Run], Awaitable[None]] | None = None
) -> Answer:
    """Return a run once it has ended or waits for people, or as it is after *wait_s* seconds.

    Args:
        api: in whose name.
        session: the session.
        run: the run, which may not be there yet.
        wait_s: how long to wait.
        tell: called now and then while it goes on.
    """

    async def wait() -> None:
        async with aclosing(api.events(session, "run")) as pages:
            async for page in pages:
                for event in page:
                    if event["event"] == "run" and event["data"]["id"] == run:
                        found = Run.model_validate(event["data"])
                        if found.over or found.pending:
                            return
                        if tell is not None:
                            await tell(found)

    try:
        async with asyncio.timeout(wait_s):
            await wait()
    except TimeoutError:
        pass  # it is told as it is
    return await answer_now(api, session, run)
