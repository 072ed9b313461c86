"""OpenAI's chat messages have no ids; this module finds by content which of them a session has.

A client sends all of its conversation, or its last few messages, or only new ones. If an answer is among them, they
are matched with the session's messages: from the beginning if both begin alike, else from the end. A message without
a match is new. Its id is made of its content and of the message before it, so the same messages sent again get the
same ids.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crdt_sessions.model import Message, SessionView, TextPart, ToolPart, ValuePart, arranged
from crdt_sessions.model.parts import Part
from crdt_sessions.model.strings import is_call
from crdt_sessions.model.values import Role
from crdt_sessions_server.gateways.transcript import NOT_ANSWERED, IncomingMessage
from crdt_sessions_server.http.streaming import compact

_SEGMENTS = 30
"""Most pieces of an answer, between its tool calls, that are tried in all combinations."""


class ChatMessage(BaseModel):
    """A message."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    tool_calls: Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """A message other than a tool result."""

    role: Role
    parts: Sequence[TextPart | ValuePart]
    calls: Sequence[tuple[str, str, str]] = ()
    """Id, name and arguments of each tool call."""

    @property
    def text(self) -> str:
        """Its text."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def keys(self) -> Sequence[Hashable]:
        """The keys under which it is looked up."""
        if self.calls:
            return [("call", id) for id, _, _ in self.calls]
        return [(self.role, self.text.strip(), _files(self.parts) if self.role != "assistant" else ())]


@dataclass(slots=True)
class Chat:
    """A client's conversation."""

    turns: list[Turn] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    """Tool call to the result of the client's tool."""
    last_results: list[str] = field(default_factory=list)
    """The calls whose results end the conversation."""

    @property
    def asks(self) -> bool:
        """Whether it ends with a question, not with an answer or a result."""
        return bool(self.turns) and not self.last_results and self.turns[-1].role != "assistant"

    @property
    def answered(self) -> bool:
        """Whether it holds an answer. Without one, all its messages are new."""
        return any(turn.role == "assistant" for turn in self.turns)


def read(messages: Sequence[ChatMessage]) -> Chat:
    """Return the conversation that a client sends."""
    chat = Chat()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id is not None:
                text = "".join(part.text for part in _parts(message) if isinstance(part, TextPart))
                chat.results[message.tool_call_id] = text
                chat.last_results.append(message.tool_call_id)
            continue
        chat.last_results = []
        role: Role = "system" if message.role == "developer" else message.role
        calls = [call for each in message.tool_calls or () if (call := _call(each)) is not None]
        chat.turns.append(Turn(role, _parts(message), calls if role == "assistant" else ()))
    return chat


def _call(call: dict[str, Any]) -> tuple[str, str, str] | None:
    id, function = call.get("id"), call.get("function")
    if not isinstance(id, str) or not is_call(id) or not isinstance(function, dict):
        return None
    return id, str(function.get("name", "")), str(function.get("arguments", ""))


def _parts(message: ChatMessage) -> list[TextPart | ValuePart]:
    if isinstance(message.content, str):
        return [TextPart(type="text", text=message.content)] if message.content else []
    parts: list[TextPart | ValuePart] = []
    for piece in message.content or []:
        image = piece.get("image_url")
        if piece.get("type") == "text" and isinstance(piece.get("text"), str):
            parts.append(TextPart(type="text", text=piece["text"]))
        elif isinstance(image, dict) and isinstance(image.get("url"), str):
            parts.append(ValuePart(type="file", value={"url": image["url"], "mediaType": "image/*"}))
    return parts


def _files(parts: Sequence[Part]) -> tuple[str, ...]:
    values = (part.value for part in parts if isinstance(part, ValuePart) and part.type == "file")
    return tuple(str(value.get("url")) for value in values if isinstance(value, dict))


# -- beside a session ------------------------------------------------------------------------------------------------


class Beside:
    """The messages of a session, looked up by content.

    Args:
        view: the session.
    """

    def __init__(self, view: SessionView) -> None:
        self.messages = arranged(view.messages.ordered())
        self._places: dict[Hashable, list[int]] = {}
        for at, message in enumerate(self.messages):
            for key in _keys(message):
                self._places.setdefault(key, []).append(at)

    def prompts(self) -> list[Message]:
        """Return the messages of role ``system`` at the session's beginning."""
        return list(takewhile(lambda message: message.role == "system", self.messages))

    def first(self, turn: Turn, start: int, end: int | None = None) -> int | None:
        """Return the first place from *start*, and before *end*, of a message with the same content."""
        for key in turn.keys:
            places = self._places.get(key, [])
            at = bisect_left(places, start)
            if at < len(places) and (end is None or places[at] < end):
                return places[at]
        return None

    def last(self, turn: Turn, end: int) -> int | None:
        """Return the last place before *end* of a message with the same content."""
        for key in turn.keys:
            places = self._places.get(key, [])
            if (at := bisect_left(places, end)) > 0:
                return places[at - 1]
        return None

    def forward(self, turns: Sequence[Turn], start: int) -> list[int | None]:
        """Return the first possible place of each turn."""
        found: list[int | None] = []
        for turn in turns:
            place = self.first(turn, start)
            if place is not None:  # several messages of a client may be pieces of one answer
                start = place if turn.role == "assistant" else place + 1
            found.append(place)
        return found

    def backward(self, turns: Sequence[Turn], end: int | None = None) -> list[int | None]:
        """Return the last possible place of each turn, before *end* if that is not None."""
        found: list[int | None] = []
        end = len(self.messages) if end is None else end
        for turn in reversed(turns):
            place = self.last(turn, end)
            if place is not None:
                end = place + 1 if turn.role == "assistant" else place
            found.append(place)
        return found[::-1]

    def calls_left(self) -> dict[str, str]:
        """Return the tool calls without an output, and their messages."""
        return {
            part.tool_call_id: message.id
            for message in self.messages
            for part in message.parts
            if isinstance(part, ToolPart) and part.state == "input-available"
        }

    def calling(self, calls: Sequence[str]) -> Message | None:
        """Return the newest message with one of these calls."""
        for message in reversed(self.messages):
            if any(isinstance(part, ToolPart) and part.tool_call_id in calls for part in message.parts):
                return message
        return None


def _keys(message: Message) -> set[Hashable]:
    """Return the keys under which a message is found."""
    if message.role != "assistant":
        return {(message.role, message.text.strip(), _files(message.parts))}
    pieces: list[str] = [""]
    keys: set[Hashable] = set()
    choices = {part.choice or 0 for part in message.parts if isinstance(part, TextPart)}
    for part in message.parts:
        if isinstance(part, ToolPart):
            keys.add(("call", part.tool_call_id))
            pieces.append("")
        elif isinstance(part, TextPart) and part.type == "text" and not part.choice:
            pieces[-1] += part.text
    pieces = pieces[:_SEGMENTS]
    texts = {"".join(pieces[begin:end]) for begin in range(len(pieces)) for end in range(begin + 1, len(pieces) + 1)}
    texts |= {message.text_of(choice) for choice in choices} | {message.text}
    return keys | {("assistant", text.strip(), ()) for text in texts if text.strip() or not keys}


@dataclass(frozen=True, slots=True)
class Placed:
    """A client's conversation, matched with a session's."""

    transcript: Sequence[IncomingMessage]
    question: str | None
    """The message to answer; None if the conversation does not end with a question."""
    prompts: dict[str, Turn]
    """Messages of role ``system`` that the client sent before, and their present text."""


def place(view: SessionView, beside: Beside, chat: Chat, by: str, *, same: bool, question: str | None) -> Placed:
    """Match a client's conversation with a session's.

    Args:
        view: the session.
        beside: its messages.
        chat: the client's conversation.
        by: the client's principal.
        same: whether the client says that it repeats a request.
        question: the id of the question, if the client names its request; made of its content if None.
    """
    prompts = list(takewhile(lambda turn: turn.role == "system", chat.turns))
    there = beside.prompts()
    rewritten: dict[str, Turn] = {}
    places: list[int | None] = []
    for at, turn in enumerate(prompts):
        known = beside.first(turn, 0, len(there))
        if known is None and at < len(there) and there[at].imported and there[at].by == by:
            known, rewritten[there[at].id] = at, turn
        places.append(known)
    rest = chat.turns[len(prompts) :]
    history = rest[:-1] if chat.asks else rest
    new = chat.asks and question is not None and not chat.answered
    if chat.answered and history and beside.first(history[0], len(there), len(there) + 1) is not None:
        before = beside.forward(history, len(there))
    else:
        before = beside.backward(history)
    if chat.asks and rest:
        known = None
        if chat.answered:
            known = _asked_after(beside, rest[-1], before)
        elif not new and (last := _asked_last(view, beside, rest[-1], same=same)) is not None:
            otherwise = beside.backward(history, last)
            if otherwise.count(None) <= before.count(None):  # otherwise it repeats one of the history
                known, before = last, otherwise
        before.append(known)
    places += before
    transcript = list(_said(view, beside, chat, places, question))
    asked = transcript[-1].id if chat.asks and transcript else None
    return Placed(transcript, asked, rewritten)


def _asked_after(beside: Beside, turn: Turn, before: Sequence[int | None]) -> int | None:
    """Return the place of a question after a history, if it was asked already: before the next answer."""
    start = max((at for at in before if at is not None), default=-1) + 1
    answers = (at for at in range(start, len(beside.messages)) if beside.messages[at].role == "assistant")
    return beside.first(turn, start, next(answers, len(beside.messages))) if start else None


def _asked_last(view: SessionView, beside: Beside, turn: Turn, *, same: bool) -> int | None:
    """Return the place of a question without a history, if it is the last one and has no answer yet.

    With *same*, the client repeats its request, and the last equal question is meant.
    """
    at = beside.last(turn, len(beside.messages))
    if at is None or same:
        return at
    if any(message.role == "user" for message in beside.messages[at + 1 :]):
        return None
    asked = beside.messages[at].id
    runs = view.runs.asked_of(asked)
    return at if runs and runs[-1].status != "completed" else None


def _said(
    view: SessionView, beside: Beside, chat: Chat, places: Sequence[int | None], question: str | None
) -> Sequence[IncomingMessage]:
    """Return the turns as messages with ids."""
    found: list[IncomingMessage] = []
    before, after = "", beside.messages[-1].id if beside.messages and not chat.answered else ""
    for at, (turn, place) in enumerate(zip(chat.turns, places, strict=True)):
        last = chat.asks and at == len(chat.turns) - 1
        if place is not None:
            id = beside.messages[place].id
        elif last and question is not None:
            id = question
        else:
            saying = [after, before, turn.role, turn.text, _files(turn.parts), [list(call) for call in turn.calls]]
            id = f"msg-{hashlib.sha256(compact(saying).encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
        before = id
        parts: list[Part] = [*turn.parts, *(_tool(call, chat.results) for call in turn.calls)]
        if (parts or turn.role != "assistant") and not (found and found[-1].id == id):
            found.append(IncomingMessage(id, turn.role, parts))
    return found


def _tool(call: tuple[str, str, str], results: dict[str, str]) -> ToolPart:
    """Return a tool call of a history: it gets no result here any more."""
    id, name, arguments = call
    end: dict[str, Any] = {"state": "output-error", "error_text": NOT_ANSWERED}
    if id in results:
        end = {"state": "output-available", "output": results[id]}
    return ToolPart(type="tool", tool_call_id=id, tool_name=name, input_text=arguments, **end)
