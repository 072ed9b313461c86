"""Messages as events: what a reader who has seen a message up to here must hear to see it as it is now.

A reader begins with nothing, so its first events are the whole message, and the next ones only what came about since.
Finding them costs what changed and the parts that are still open, not the length of the message: a text buffer is
split at 16 KiB, and a part that is closed is not looked at again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from pycrdt import Array, Map, Text

from crdt_sessions.model.message_view import MessageView, part_value, superseded
from crdt_sessions.model.parts import Part
from crdt_sessions.model.spelling import spelled
from crdt_sessions.model.values import Message, MessageHead

_TEXTS = {"text": "text", "reasoning": "text", "tool": "inputText", "audio": "transcript"}
"""Part type to the key of its buffer."""
_FINAL = {"done", "output-available", "output-error", "output-denied"}


@dataclass(frozen=True, slots=True)
class MessageBegan:
    """There is a message."""

    message: str
    head: MessageHead
    run_id: str | None


@dataclass(frozen=True, slots=True)
class PartBegan:
    """A message has a further part. What is in its buffer follows as :class:`TextAdded`."""

    message: str
    part: int
    """Its index among those that layout 1 can describe, as in :class:`Message`."""
    value: Part
    """With an empty buffer, and open if it has one."""


@dataclass(frozen=True, slots=True)
class TextAdded:
    """Something was appended to a part's buffer: its text, the input of a tool, the transcript of a sound."""

    message: str
    part: int
    offset: int
    """Characters that were there before."""
    text: str


@dataclass(frozen=True, slots=True)
class PartChanged:
    """Something else about a part changed: it was closed, or people decided, or there is an output."""

    message: str
    part: int
    value: Part
    continued: bool = False
    """Whether its buffer was full and goes on in a further part."""


@dataclass(frozen=True, slots=True)
class MessagePlaced:
    """A message got its place in the session's order, or another run goes on with it."""

    message: str
    seq: int | None
    run_id: str | None


@dataclass(frozen=True, slots=True)
class MessageReplaced:
    """A message changed in a way that cannot be told as an addition."""

    message: str
    value: Message


@dataclass(frozen=True, slots=True)
class MessageRemoved:
    """A message is not there any more."""

    message: str


MessageEvent = MessageBegan | PartBegan | TextAdded | PartChanged | MessagePlaced | MessageReplaced | MessageRemoved


@dataclass(slots=True)
class MessageCursor:
    """What a reader has of one message."""

    begun: bool = False
    place: tuple[int | None, str | None] = (None, None)
    """Its ``seq`` and ``runId``, as told."""
    parts: int = 0
    """Number of parts that were looked at."""
    told: int = 0
    """Number of those that the reader has heard of: all but what layout 1 cannot describe."""
    open: dict[int, tuple[int, int, str]] = field(default_factory=dict)
    """Place of each part that may still change to what was told of it: index, characters of its buffer, mark."""

    superseded: int = 0
    """How many of the first parts a new beginning took the place of, as told."""

    @property
    def settled(self) -> bool:
        """Whether all parts that were told of are final."""
        return not self.open

    def advance(self, view: MessageView) -> list[MessageEvent]:
        """Return what the reader must hear, and consider it told; nothing while the message has no valid head."""
        head = view.head
        if head is None:
            return []
        found = view.value_of("parts")
        parts: Any = found if isinstance(found, Array) else ()
        if not self.begun:
            self.superseded = view.superseded
        elif self.superseded != view.superseded:
            return self._begun_anew(view)
        if len(parts) < self.parts or not all(self._goes_on(at, parts[at]) for at in self.open):
            return self._replaced(view)
        events: list[MessageEvent] = []
        if not self.begun:
            self.begun = True
            self.place = (None, view.run_id)
            events.append(MessageBegan(view.id, head, view.run_id))
        for at in sorted(self.open):
            events += self._changes(view.id, at, parts)
        while self.parts < len(parts):
            at, self.parts = self.parts, self.parts + 1
            events += self._begin(view.id, at, parts)
        if (place := (view.seq, view.run_id)) != self.place:
            self.place = place
            events.append(MessagePlaced(view.id, *place))
        return events

    def _replaced(self, view: MessageView) -> list[MessageEvent]:
        fresh = MessageCursor()
        fresh.advance(view)
        self.place, self.parts, self.told, self.open = fresh.place, fresh.parts, fresh.told, fresh.open
        self.superseded = fresh.superseded
        value = view.to_value()
        return [] if value is None else [MessageReplaced(view.id, value)]

    def _begun_anew(self, view: MessageView) -> list[MessageEvent]:
        """Take back all parts, and tell those that count as if they came now: who streams them misses nothing."""
        value = view.to_value()
        self.superseded, self.parts, self.told, self.open = view.superseded, 0, 0, {}
        if value is None:
            return []
        return [MessageReplaced(view.id, value.replace(parts=[])), *self.advance(view)]

    def _goes_on(self, at: int, part: Any) -> bool:
        return isinstance(part, Map) and len(_buffer(part)) >= self.open[at][1]

    def _begin(self, message: str, at: int, parts: Any) -> Iterator[MessageEvent]:
        part = parts[at]
        value = part_value(part) if not superseded(at, part, self.superseded) else None
        if value is None:  # of a kind that layout 1 does not know, or one that a new beginning took the place of
            return
        index, self.told = self.told, self.told + 1
        key = _TEXTS.get(value.type)
        if key is None or not isinstance(part.get(key), Text):
            yield PartBegan(message, index, value)
            return
        opened = "input-streaming" if value.type == "tool" else "streaming"
        bare = {"tool": {"input_text": ""}, "audio": {"transcript": ""}}.get(value.type, {"text": ""})
        yield PartBegan(message, index, value.replace(**bare, state=opened))
        self.open[at] = (index, 0, opened)
        yield from self._changes(message, at, parts)

    def _changes(self, message: str, at: int, parts: Any) -> Iterator[MessageEvent]:
        part = parts[at]
        index, told, told_mark = self.open[at]
        text = _buffer(part)
        if len(text) > told:
            yield TextAdded(message, index, told, text[told:])
        state = _state(part)
        mark = _mark(part, state)
        if mark != told_mark and (value := part_value(part)) is not None:
            yield PartChanged(message, index, value, continued=state == "done" and _continued(at, parts))
        if state in _FINAL:
            del self.open[at]
        else:
            self.open[at] = (index, len(text), mark)


def _buffer(part: Any) -> str:
    kind = part.get("type")
    buffer = part.get(_TEXTS.get(kind, "")) if isinstance(kind, str) else None
    return str(buffer) if isinstance(buffer, Text) else ""


def _mark(part: Any, state: str) -> str:
    """Return what differs if something else than the buffer of a part has changed: its state, what people decided."""
    said = [spelled(part.get(key)) for key in ("draft", "decisions", "approval", "late", "refused")]
    if not any(said):
        return state
    return f"{state} {crc32(json.dumps(said, sort_keys=True).encode())}"


def _state(part: Any) -> str:
    state = part.get("state")
    return str(state) if isinstance(state, str) else "done"


def _continued(at: int, parts: Any) -> bool:
    """Tell whether the next part of the same kind and choice goes on where this one was full."""
    this = parts[at]
    for later in range(at + 1, len(parts)):
        part = parts[later]
        if isinstance(part, Map) and all(part.get(key) == this.get(key) for key in ("type", "choice")):
            return part.get("continues") is True
    return False
