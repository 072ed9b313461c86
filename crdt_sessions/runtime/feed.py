"""What happens in a session, as JSON events for readers that know no Yjs.

There is no second log: an event says how something is *now*. A reader has a cursor, and what changed after
it is sent: a message whole when it is new to the reader, and then only what came about since. Replaying
from an old cursor therefore costs what changed since, and an empty cursor gives everything.

======================  ===============================================================================
event                   data
======================  ===============================================================================
``session``             ``meta``
``state``               the application's shared state, whole
``message``             a message, whole; replaces what the reader has of it
``part``                ``messageId``, ``part`` (index), ``value``: the part is this now; it may be a new one
``text``                ``messageId``, ``part`` (index), ``offset`` (characters), ``text``: append it there
``message-removed``     ``id``
``run``                 a run, whole
``presence``            the peers that are here; always whole, sent first and when it changes
``reset``               ``lineage``; what the reader has is of another session, or another past: forget it
======================  ===============================================================================
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from crdt_sessions.model import (
    MessageBegan,
    MessageCursor,
    MessagePlaced,
    MessageRemoved,
    MessageReplaced,
    PartBegan,
    PartChanged,
    TextAdded,
)
from crdt_sessions.runtime.projector import (
    MetaChanged,
    Position,
    PresenceChanged,
    Projector,
    RunChanged,
    SessionEvent,
    StateChanged,
    Subject,
)
from crdt_sessions.runtime.session import Session

RESET = "reset"
"""The event that every reader gets, whatever kinds it wants."""
EVENT_KINDS = ("session", "state", "message", "part", "text", "message-removed", "run", "presence")
_BATCH = 64
"""Events that are told at once, about."""
_SUBJECTS = {"session": "meta", "part": "message", "text": "message", "message-removed": "message"}


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event. ``cursor`` is where a reader that got it goes on."""

    kind: str
    data: dict[str, Any]
    cursor: str


async def follow(
    session: Session,
    cursor: str | None = None,
    *,
    kinds: Collection[str] | None = None,
    children: bool = False,
) -> AsyncGenerator[list[FeedEvent], None]:
    """Yield changes, in batches, as long as the session is served.

    Args:
        session: a live session; the caller keeps it open meanwhile.
        cursor: where to go on; None, or one that cannot be read, to begin with everything.
        kinds: the events that the reader wants, of :data:`EVENT_KINDS`; all if None. Messages come with what
            belongs to them.
        children: whether what child runs write is told, too.

    Raises:
        ShuttingDown: the session is about to be closed; the reader may come back with its cursor.
        StorageError: the session failed.
    """
    telling = _Telling(session, cursor, kinds, children=children)
    while True:
        await telling.wait()
        async with aclosing(telling.take()) as pieces:
            async for events in pieces:
                yield events


async def page(
    session: Session,
    cursor: str | None = None,
    *,
    kinds: Collection[str] | None = None,
    children: bool = False,
    wait_s: float = 0,
) -> list[FeedEvent]:
    """Return all that is new, once there is something; nothing if that took over *wait_s* seconds.

    Arguments and errors as :func:`follow`.
    """
    telling = _Telling(session, cursor, kinds, children=children)
    until = asyncio.get_running_loop().time() + wait_s
    found: list[FeedEvent] = []
    while not found:
        try:
            async with asyncio.timeout_at(until):  # telling takes as long as it takes
                await telling.wait()
        except TimeoutError:
            break
        async for events in telling.take():
            found += events
    return found


class _Telling:
    """What one reader is told. Arguments as of :func:`follow`."""

    def __init__(
        self, session: Session, cursor: str | None, kinds: Collection[str] | None, *, children: bool
    ) -> None:
        wanted = {_SUBJECTS.get(kind, kind) for kind in EVENT_KINDS if kinds is None or kind in kinds}

        def wants(subject: Subject) -> bool:
            kind, id = subject
            return kind in wanted and (children or kind != "message" or not session.view.messages.is_beside(id))

        self._session = session
        self._projector = Projector(session, _decoded(cursor), wants=wants, presence="presence" in wanted)
        self._place = _encoded(self._projector.position)
        self._reset = self._projector.reset

    async def wait(self) -> None:
        """Return once there may be something to tell. Raises as :func:`follow`."""
        await self._projector.wait()

    async def take(self) -> AsyncGenerator[list[FeedEvent], None]:
        """Yield changes, in pieces.

        The cursor moves with the last event: a reader that lost some of those before gets all of them again.
        """
        batch: list[FeedEvent] = []
        if self._reset:
            self._reset = False
            batch.append(FeedEvent(RESET, {"lineage": self._session.record.lineage}, self._place))
        async with aclosing(self._projector.take_in_turns()) as taken:
            async for events in taken:
                told = [spelled for event in whole(self._session, events) for spelled in _spelled(event)]
                batch += [FeedEvent(kind, data, self._place) for kind, data in told]
                if len(batch) > _BATCH:
                    await self._session.readable()
                    yield batch[:-1]
                    del batch[:-1]
        self._place = _encoded(self._projector.position)
        if batch:
            await self._session.readable()  # by now more stands in the document than what was committed
            yield [*batch[:-1], replace(batch[-1], cursor=self._place)]


def whole(session: Session, events: list[SessionEvent]) -> Iterator[SessionEvent]:
    """Tell a new message, and one that got its place, as one event instead of many."""
    at_once = {event.message for event in events if isinstance(event, MessageBegan | MessagePlaced)}
    done: set[str] = set()
    for event in events:
        message = getattr(event, "message", None)
        if message not in at_once or isinstance(event, MessageRemoved | MessageReplaced):
            yield event
        elif message not in done:
            done.add(message)
            value = session.view.messages.value(message)
            if value is not None:
                yield MessageReplaced(message, value)


def _spelled(event: SessionEvent) -> Iterator[tuple[str, dict[str, Any]]]:
    match event:
        case MessageReplaced(_, value):
            yield "message", value.to_json()
        case PartBegan(message, part, value) | PartChanged(message, part, value):
            yield "part", {"messageId": message, "part": part, "value": value.to_json()}
        case TextAdded(message, part, offset, text):
            yield "text", {"messageId": message, "part": part, "offset": offset, "text": text}
        case MessageRemoved(message):
            yield "message-removed", {"id": message}
        case RunChanged(run):
            yield "run", run.to_json()
        case MetaChanged(meta):
            yield "session", meta.to_json()
        case StateChanged(state):
            yield "state", state
        case PresenceChanged(present):
            yield "presence", {"present": present}
        case MessageBegan() | MessagePlaced():
            return  # told whole


def _encoded(position: Position) -> str:
    messages = {
        id: [cursor.place, cursor.parts, cursor.told, [[at, *told] for at, told in cursor.open.items()]]
        + ([cursor.superseded] if cursor.superseded else [])
        for id, cursor in position.messages.items()
    }
    text = json.dumps([position.lineage, position.life, position.seq, messages], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(text: str | None) -> Position | None:
    """Return what a cursor says: None if there is none, the beginning of no session if it is not one of ours."""
    if not text:
        return None
    try:
        lineage, life, seq, messages = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        cursors = {
            str(id): MessageCursor(
                True,
                (place, run),
                int(parts),
                int(told),
                {int(at): (int(index), int(characters), str(state)) for at, index, characters, state in open},
                int(superseded[0]) if superseded else 0,
            )
            for id, ((place, run), parts, told, open, *superseded) in messages.items()
        }
        return Position(str(lineage), int(seq), str(life), cursors)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return Position()  # of no session
