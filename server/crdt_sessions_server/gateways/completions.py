"""A run as OpenAI's completion, whole or in chunks.

Calls of the agent's own tools are left out, because a client would call each tool that it sees. Calls that the agent
leaves for the client are told when the run has ended with them, and those that a client is to execute when they are
given to this one. Source: OpenAI API reference, "The chat completion
object", "The chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Any

from quart import Response

from crdt_sessions.errors import CrdtSessionsError
from crdt_sessions.ids import SessionId
from crdt_sessions.model import (
    Message,
    MessageReplaced,
    PartBegan,
    Run,
    SessionView,
    TextAdded,
    TextPart,
    ToolPart,
    Usage,
    json_text,
)
from crdt_sessions.model.runs import output_id
from crdt_sessions.runtime import RunChanged, Session, SessionEvent, SessionRegistry
from crdt_sessions_server.gateways.conversation import follow_run
from crdt_sessions_server.gateways.front_end import FrontEnd, waits_for_device
from crdt_sessions_server.gateways.run_lookup import failure_of, has_paused
from crdt_sessions_server.http.problems import type_of
from crdt_sessions_server.http.streaming import compact

ID = "chatcmpl-"
"""What the id of a completion begins with; the id of its run follows."""
_FINISH = {"length": "length", "max_tokens": "length", "content_filter": "content_filter"}


class Encoder:
    """Encodes the events of one run as chunks of a completion.

    Args:
        run: the run.
        model: the client's name for the agent.
        skip: how many parts of the message the client has, if the run continues one.
        usage: whether a last chunk tells the usage.
        front: the client as a device, to which calls of its tools may be given.
    """

    def __init__(
        self, run: Run, model: str, *, skip: int = 0, usage: bool = False, front: FrontEnd | None = None
    ) -> None:
        self.front = front
        self.ended = False
        """Whether the last chunk was told."""
        self._run = run
        self._head = {
            "id": f"{ID}{run.id}",
            "object": "chat.completion.chunk",
            "created": (run.request.created_at if run.request is not None else 0) // 1000,
            "model": model,
        }
        self._skip = skip
        self._usage = {"usage": None} if usage else {}
        self._parts: dict[int, PartBegan] = {}
        self._choices: set[int] = set()

    def encode(self, view: SessionView, events: Sequence[SessionEvent]) -> Iterator[dict[str, Any]]:
        """Yield the chunks for a client."""
        for event in events:
            match event:
                case PartBegan(_, part, _):
                    self._parts[part] = event
                case MessageReplaced(_, value) if not value.parts:  # begun anew; no chunk takes back what was told
                    self._skip = 0
                case TextAdded(_, part, _, text) if part >= self._skip:
                    yield from self._add(part, text)
                case RunChanged(run):
                    self._run = run
                    if has_paused(run) and not _waits(run, self.front):
                        yield from self._end(view, run)
                case _:
                    pass  # no chunk tells it
        if not self.ended and _given(self._run, self.front):
            yield from self._end(view, self._run)

    def _add(self, part: int, text: str) -> Iterator[dict[str, Any]]:
        value = self._parts[part].value
        if isinstance(value, TextPart):
            key = "content" if value.type == "text" else "reasoning_content"
            yield self._chunk(value.choice or 0, **{key: text})
        elif not isinstance(value, ToolPart):
            yield self._chunk(0, content=text)

    def _chunk(self, choice: int, finish: str | None = None, **delta: Any) -> dict[str, Any]:
        if choice not in self._choices:
            self._choices.add(choice)
            delta = {"role": "assistant", **delta}
        return {
            **self._head, "choices": [{"index": choice, "delta": delta, "finish_reason": finish}], **self._usage,
        }  # fmt: skip

    def _end(self, view: SessionView, run: Run) -> Iterator[dict[str, Any]]:
        self.ended = True
        if run.status in ("failed", "interrupted"):
            yield {"error": error_of(run)}
            return
        left = _left(run, view.messages.value(output_id(run)), self._skip, self.front)
        if left:
            yield self._chunk(0, tool_calls=[{"index": at, **_call(part)} for at, part in enumerate(left)])
        for choice in sorted(self._choices or {0}):
            yield self._chunk(choice, _finish(run, left if choice == 0 else []))
        if self._usage:
            yield {**self._head, "choices": [], "usage": _usage(run)}


def _usage(run: Run) -> dict[str, Any]:
    """Return what a run has cost; zeros if its agent has not said it: an estimate would be taken for a count."""
    used = run.usage or Usage()
    read, written = used.input_tokens or 0, used.output_tokens or 0
    found: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if used.cached_tokens is not None:
        found["prompt_tokens_details"] = {"cached_tokens": used.cached_tokens}
    if used.reasoning_tokens is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": used.reasoning_tokens}
    return found


def error_of(run: Run) -> dict[str, Any]:
    """Return OpenAI's error for a run that failed or was interrupted."""
    code, why = failure_of(run)
    return {"message": why, "type": "agent_error", "param": None, "code": code}


async def chunks(
    registry: SessionRegistry, name: SessionId, run: Run, encoder: Encoder
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield a run as chunks, in batches; the last has ``finish_reason``, an error, or the usage after that."""
    try:
        async with registry.open(name) as session:
            try:
                async for events in follow_run(session, run.id, paused=_pauses(encoder.front)):
                    told = list(encoder.encode(session.view, events))
                    await session.readable()
                    yield told
                    if encoder.ended:
                        return
                    await _offer(session, run.id, encoder.front)
            finally:
                await _leave(session, run.id, encoder.front, to_work=encoder.ended)
    except CrdtSessionsError as error:
        code = type_of(error).slug.replace("-", "_")
        yield [{"error": {"message": str(error), "type": "service_error", "param": None, "code": code}}]


async def whole(
    registry: SessionRegistry,
    name: SessionId,
    run: Run,
    model: str,
    *,
    skip: int = 0,
    front: FrontEnd | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Response:
    """Return a run as a completion once it has ended, or waits for people; 502 if it failed.

    Args:
        registry: the sessions.
        name: the session.
        run: the run.
        model: the client's name for the agent.
        skip: how many parts of the message the client has, if the run continues one.
        front: the client as a device, to which calls of its tools may be given.
        beside: what else the completion has, such as what it was asked with.
    """
    async with registry.open(name) as session:
        given = False
        try:
            async for _ in follow_run(session, run.id, paused=_pauses(front)):
                if given := _given(session.view.runs.find(run.id), front):
                    break
                await _offer(session, run.id, front)
        finally:
            await _leave(session, run.id, front, to_work=given)
        run = session.view.runs.find(run.id)
        message = session.view.messages.value(output_id(run))
        await session.readable()
    if run.status in ("failed", "interrupted"):
        # A repeated request would get the same answer: the agent failed, not the service.
        failed = Response(compact({"error": error_of(run)}), 502, content_type="application/json")
        failed.headers["x-should-retry"] = "false"
        return failed
    left = _left(run, message, skip, front)
    choices = [
        {
            "index": choice,
            "message": _message(message, choice, left, skip),
            "finish_reason": _finish(run, left if choice == 0 else []),
        }
        for choice in sorted(_choices(message) or {0})
    ]
    created = (run.request.created_at if run.request is not None else 0) // 1000
    body = {"id": f"{ID}{run.id}", "object": "chat.completion", "created": created, "model": model}
    body = {**(beside or {}), **({"metadata": run.input.metadata} if run.input.metadata else {}), **body}
    return Response(compact({**body, "choices": choices, "usage": _usage(run)}), content_type="application/json")


def _waits(run: Run, front: FrontEnd | None) -> bool:
    """Whether a run waits for a device, which the client may be."""
    return front is not None and front.has_tools and waits_for_device(run)


def _pauses(front: FrontEnd | None) -> Callable[[Run], bool]:
    return lambda run: has_paused(run) and not _waits(run, front)


def _given(run: Run, front: FrontEnd | None) -> bool:
    """Whether the client was given a call."""
    return front is not None and not run.over and any(map(front.has, run.calls or ()))


async def _offer(session: Session, run_id: str, front: FrontEnd | None) -> None:
    if front is not None:
        await front.offer(session, run_id)


async def _leave(session: Session, run_id: str, front: FrontEnd | None, *, to_work: bool) -> None:
    if front is not None:
        await front.leave(session, run_id, to_work=to_work)


def _left(run: Run, message: Message | None, skip: int, front: FrontEnd | None) -> list[ToolPart]:
    """Return the tool calls that the agent leaves for the client, or that were given to it."""
    given = {call.tool_call_id for call in run.calls or () if front is not None and front.has(call)}
    tools = [part for part in message.parts if isinstance(part, ToolPart)] if message is not None else []
    if given:
        return [part for part in tools if part.tool_call_id in given]
    parts = message.parts[skip:] if message is not None and run.status == "completed" else []
    return [part for part in parts if isinstance(part, ToolPart) and part.state == "input-available"]


def _finish(run: Run, left: Sequence[ToolPart]) -> str:
    reason = run.outcome.reason if run.outcome is not None else ""
    return "tool_calls" if left else _FINISH.get(reason, "stop")


def _choices(message: Message | None) -> set[int]:
    parts = message.parts if message is not None else []
    return {part.choice or 0 for part in parts if isinstance(part, TextPart)}


def _message(message: Message | None, choice: int, left: Sequence[ToolPart], skip: int) -> dict[str, Any]:
    if message is None:
        return {"role": "assistant", "content": ""}
    rest = message.replace(parts=message.parts[skip:])
    spelled: dict[str, Any] = {"role": "assistant", "content": rest.text_of(choice)}
    if thoughts := rest.text_of(choice, "reasoning"):
        spelled["reasoning_content"] = thoughts
    if left and choice == 0:
        spelled["tool_calls"] = [_call(part) for part in left]
    return spelled


def _call(part: ToolPart) -> dict[str, Any]:
    function = {"name": part.tool_name, "arguments": part.input_text or json_text(part.input)}
    return {"id": part.tool_call_id, "type": "function", "function": function}
