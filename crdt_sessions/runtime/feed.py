"""What happens in a session, as JSON events for readers that know no Yjs.

There is no second log: an event says how something is *now*. A reader has a cursor, and what changed after
it is sent: a changed message whole, but one that is being streamed only by what was appended. Replaying
from an old cursor therefore costs what changed since, and an empty cursor gives everything.

======================  ===============================================================================
event                   data
======================  ===============================================================================
``session``             ``meta``
``message``             a message, whole; replaces what the reader has of it
``text``                ``messageId``, ``part`` (index), ``offset`` (characters), ``text``: append it there
``message-removed``     ``id``
``run``                 a run, whole
``presence``            everybody who is here; always whole, sent first and when it changes
======================  ===============================================================================
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from crdt_sessions.ids import Seq
from crdt_sessions.model import Message, TextPart, ToolPart
from crdt_sessions.runtime.session import Session


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event. ``cursor`` is where a reader that got it goes on."""

    kind: str
    data: dict[str, Any]
    cursor: str


@dataclass(slots=True)
class _Cursor:
    seq: int = -1
    generation: int = 0
    open: dict[str, list[int]] = field(default_factory=dict)
    """Message that is being streamed -> mark of each of its parts as sent (see :func:`_mark`)."""

    def encode(self) -> str:
        text = json.dumps([self.generation, self.seq, self.open], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> _Cursor:
        try:
            generation, seq, lengths = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return cls(
                int(seq),
                int(generation),
                {str(key): [int(length) for length in value] for key, value in lengths.items()},
            )
        except (ValueError, TypeError, AttributeError, RecursionError):
            return cls()  # not one of ours: begin at the beginning


async def follow(session: Session, cursor: str | None = None) -> AsyncIterator[list[FeedEvent]]:
    """Yield what is new, in batches, for as long as the session is served.

    Args:
        session: a live session; the caller keeps it open meanwhile.
        cursor: where to go on; None, or one that cannot be read, to begin with everything.

    Raises:
        ShuttingDown: the session is about to be closed; the reader may come back with its cursor.
        StorageError: the session failed.
    """
    position = _Cursor.decode(cursor) if cursor else _Cursor()
    generation = session.record.generation
    if position.generation != generation or position.seq > session.engine.log.head:
        position = _Cursor(generation=generation)
    presence = -1
    while True:
        await session.changed(Seq(position.seq), presence)
        batch: list[FeedEvent] = []
        if presence < session.engine.roster.version:
            presence = session.engine.roster.version
            batch.append(FeedEvent("presence", {"present": present(session)}, position.encode()))
        batch += _changes(session, position)
        yield batch


def present(session: Session) -> list[dict[str, Any]]:
    """Return who is here: Yjs client id and state of each."""
    states = session.engine.roster.present()
    return [{"clientId": client, "state": json.loads(text)} for client, text in sorted(states.items())]


def _changes(session: Session, position: _Cursor) -> Iterator[FeedEvent]:
    engine = session.engine
    tail = engine.log.tail
    subjects = engine.changes.since(Seq(position.seq))
    if position.seq < 0:  # everything: in the order people read it
        order = {message.id: index for index, message in enumerate(session.view.messages.ordered())}
        subjects.sort(key=lambda subject: (subject[0] == "message", order.get(subject[1], 0)))
    before = position.encode()
    pending: list[tuple[str, dict[str, Any]]] = []
    for kind, id in subjects:
        if kind == "message":
            pending += _message(session, id, position)
        elif kind == "run" and (run := session.view.runs.value(id)) is not None:
            pending.append(("run", run.json_value()))
        elif kind == "meta":
            pending.append(("session", session.view.meta.json_value()))
    # The cursor moves with the last event: a reader that lost a part of the batch gets all of it again.
    position.seq = tail
    for index, (kind, data) in enumerate(pending):
        yield FeedEvent(kind, data, position.encode() if index == len(pending) - 1 else before)


def _message(session: Session, id: str, position: _Cursor) -> Iterator[tuple[str, dict[str, Any]]]:
    message = session.view.messages.value(id)
    if message is None:
        position.open.pop(id, None)
        if id not in session.view.messages:
            yield "message-removed", {"id": id}
        return
    marks = [_mark(part) for part in message.parts]
    sent = position.open.pop(id, None)
    if not message.done:
        position.open[id] = marks
        if sent is not None and marks != sent and _only_grew(sent, marks):
            yield from _appended(message, sent)
            return
    yield "message", message.json_value()


def _only_grew(sent: list[int], marks: list[int]) -> bool:
    """Whether the open parts got longer and nothing else happened."""
    return len(sent) == len(marks) and all(old == new or 0 <= old < new for old, new in zip(sent, marks, strict=True))


def _appended(message: Message, sent: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, (part, mark) in enumerate(zip(message.parts, sent, strict=True)):
        text = _text(part)
        if 0 <= mark < len(text):
            yield "text", {"messageId": message.id, "part": index, "offset": mark, "text": text[mark:]}


def _mark(part: Any) -> int:
    """Return the length of an open part's text, and a negative number that differs by length for a closed one."""
    length = len(_text(part))
    return length if getattr(part, "state", None) in ("streaming", "input-streaming") else -1 - length


def _text(part: Any) -> str:
    return part.text if isinstance(part, TextPart) else part.input_text if isinstance(part, ToolPart) else ""
